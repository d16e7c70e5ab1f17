"""Traces of a tracking server as a source of the pipeline: fetched once, then the same bytes, or it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import load, load_json
from swirl.core.types import Conversation, Question
from swirl.pipeline.dvc_file import DvcStage
from swirl.pipeline.steady import Steady
from swirl.traces.kept_traces import keep_traces
from swirl.wiring.logged_questions import traces_file
from tests.stages.conftest import run_stages
from tests.stages.test_logs import BASE, params_of

DESK = {**BASE["download"]["benchmarks"]["desk"], "logs": ["mlflow:desk agent"]}


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A project whose tracking server, a database, has four traces of an agent."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)  # or later tests would use it
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")  # what `set_experiment` sets is taken back with it
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    for number in range(4):
        record(number)
    (tmp_path / "data/official").mkdir(parents=True)
    return Layout(tmp_path)


def record(number: int) -> None:
    """Log one request of the agent as a trace that began in second `number`."""
    import mlflow

    mlflow.set_experiment("desk agent")
    asked = {"messages": [{"role": "user", "content": f"Where is parcel number {number} {'abcdefgh'[number] * 9}?"}]}
    answer: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": f"At {number}."}}]}
    span = mlflow.start_span_no_context(
        "chat", span_type="CHAT_MODEL", inputs=asked, start_time_ns=(1_700_000_000 + number) * 10**9
    )
    span.set_outputs(answer)
    span.end(end_time_ns=(1_700_000_001 + number) * 10**9)
    mlflow.flush_trace_async_logging()


def keep(layout: Layout) -> Path:
    folder = layout.root / "data/official"
    path = traces_file(folder, "desk agent")
    keep_traces("desk agent", path, folder, layout)
    return path


@pytest.mark.slow
def test_the_pipeline_reads_an_experiment_and_the_same_bytes_again(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    params = params_of(download={"benchmarks": {"desk": DESK}})
    watched = DvcStage("download", (), ("data/official",), ())
    steady = Steady(watched, layout.root, {})
    run_stages(params, layout, "download")
    steady.check()
    assert len(load(Question, layout.questions)) == 4
    first = [path.read_bytes() for path in (layout.questions, layout.conversations, layout.imports)]
    lock = load_json(layout.root / "data/official/mlflow.lock.json")
    assert lock["desk agent"] | {"sha256": ""} == {"traces": 4, "until": 1_700_000_003_000, "sha256": ""}
    (source,) = load_json(layout.sources)
    assert source["file"].startswith("mlflow/desk-agent-") and source["rows"] == 4
    record(4)
    capsys.readouterr()
    run_stages(params, layout, "download")
    assert [path.read_bytes() for path in (layout.questions, layout.conversations, layout.imports)] == first
    assert "newer traces of mlflow:desk agent than the 4 that are used; to take all, delete" in capsys.readouterr().err
    (layout.root / "data/official/mlflow.lock.json").unlink()
    run_stages(params, layout, "download")
    assert len(load(Conversation, layout.conversations)) == 5


@pytest.mark.slow
def test_without_the_file_the_same_traces_are_fetched_or_it_is_said(layout: Layout) -> None:
    path = keep(layout)
    first = path.read_bytes()
    record(5)
    path.unlink()
    assert keep(layout).read_bytes() == first
    path.write_bytes(first + b"{}\n")
    with pytest.raises(DataError, match="is not what was fetched, which .*mlflow.lock.json names; delete it to fetch"):
        keep(layout)
    path.unlink()
    delete_first(json.loads(first.splitlines()[0])["info"]["trace_id"])
    with pytest.raises(DataError, match="does not give the 4 traces that .* names: some were changed or deleted since"):
        keep(layout)
    assert not path.exists()


def delete_first(trace: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("desk agent")
    assert experiment is not None
    client.delete_traces(experiment.experiment_id, trace_ids=[trace])


@pytest.mark.slow
def test_a_server_that_is_down_is_not_missed_once_the_traces_are_there(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = keep(layout).read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert keep(layout).read_bytes() == first
    (layout.root / "data/official/mlflow.lock.json").write_text('{"desk agent": {"traces": 4}}')
    with pytest.raises(DataError, match="mlflow.lock.json is no lock file of traces"):
        keep(layout)


@pytest.mark.slow
def test_an_experiment_without_traces_is_refused(layout: Layout) -> None:
    import mlflow

    mlflow.set_experiment("empty")
    folder = layout.root / "data/official"
    with pytest.raises(DataError, match="mlflow:empty: the tracking server has no trace of it"):
        keep_traces("empty", traces_file(folder, "empty"), folder, layout)
    assert not (folder / "mlflow.lock.json").exists()
