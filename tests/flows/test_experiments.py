"""Several pipelines as one flow: how their common run ends."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from flows import experiments
from swirl.config.params import validate
from swirl.config.presets import tree
from swirl.tracking import Recorded

ROOT = Path(__file__).parents[2]


class Stopped(BaseException):
    """What Prefect raises in a flow that is cancelled."""


@pytest.mark.parametrize(("raised", "ended"), [(None, ("", False)), (Stopped, ("the flow was stopped", True))])
def test_the_run_above_experiments_that_are_stopped_is_killed(
    raised: type[BaseException] | None, ended: tuple[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, bool]] = []

    def close(layout: Any, params: Any, run_id: str, error: str = "", killed: bool = False, **more: Any) -> None:
        ends.append((error, killed))

    def experiment(*given: Any, **more: Any) -> Any:
        if raised:
            raise raised
        return experiments.Completed()

    monkeypatch.setattr(experiments.tracking, "open_run", lambda *given: Recorded("", "abc"))
    monkeypatch.setattr(experiments.tracking, "close_run", close)
    monkeypatch.setattr(experiments.artifacts, "link_run", lambda page: None)
    monkeypatch.setattr(experiments, "experiment", experiment)
    monkeypatch.setattr(experiments, "_show", lambda *given: None)
    monkeypatch.setattr(experiments, "get_run_logger", lambda: logging.getLogger("experiments"))
    try:
        experiments._compare(tmp_path, "grid", [({}, {})], validate(tree(ROOT, "smoke"), "smoke"), ["swirl"], 1)
    except Stopped:
        assert raised
    assert ends == [ended]


def test_the_table_of_a_grid_says_how_two_of_its_runs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(experiments, "create_table_artifact", lambda **given: shown.append(given))
    experiments._show("grid", [{"seed": 1}, {"seed": 2}], [experiments.Failed(), experiments.Failed()], ["swirl"])
    assert [row["experiment"] for row in shown[0]["table"]] == ["grid-1 failed", "grid-2 failed"]
    assert shown[0]["description"] == (
        "2 of 2 runs. Accuracy with tools, best mean first; `swirl compare NAME NAME` shows two of them side by side, "
        "`dvc exp show` has all with their metrics"
    )
