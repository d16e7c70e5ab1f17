"""Several pipelines as one flow: how their common run ends."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows import experiments
from swirl.config.params import validate
from swirl.config.presets import tree
from swirl.core.errors import ParamsError
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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("seeds=[1]", "'seeds=\\[1\\]' is not JSON: Expecting value"),
        ("[1]", "\\[1\\] is no JSON object; expected one, as {"),
        ('{"sedes": [1]}', "there is no argument 'sedes'; there are filters, methods, .*; did you mean seeds\\?"),
        ('{"seeds": [-1]}', "seeds.0: Input should be greater than or equal to 0"),
    ],
)
def test_arguments_that_are_none_are_refused_in_a_sentence(given: str, said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        experiments.arguments(given)
    assert experiments.arguments('{"seeds": [1]}') == {"project": str(ROOT), "seeds": [1]}


def test_the_command_line_says_what_it_takes_and_starts_nothing_for_a_mistake() -> None:
    command = [sys.executable, str(ROOT / "flows/experiments.py")]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert all(f"    {name}: " in done.stdout for name in ("filters", "seeds", "grid", "runs", "project"))
    done = subprocess.run([*command, "seeds"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "experiments.py: error: 'seeds' is not JSON: Expecting value: line 1 column 1 (char 0)\n"
    )
