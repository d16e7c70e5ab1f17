"""MLflow's own pages in a real browser: what search box and filters find, what a parent run and a comparison show."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from swirl import tracking
from swirl.core import records
from swirl.core.layout import Layout
from swirl.core.types import Prediction, Stop, Trajectory
from tests.devtools import Page, chromium, needs_chromium
from tests.tracking.test_contents import DVC_YAML, PARAMS, fill, prediction, trajectory

pytestmark = [pytest.mark.slow, needs_chromium]

TABLE = "web-shared.traces-table"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """(address, parent run) of a server with three traces of stage `judge`, in a pipeline run with a report."""
    root = tmp_path_factory.mktemp("project")
    layout = Layout(root)
    (root / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SWIRL_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        parent = tracking.open_run(layout, PARAMS, "flow happy-owl", {}).run_id
        patch.setenv("SWIRL_RUN_ID", parent)
        with tracking.stage_run("judge", PARAMS, layout):
            fill(layout)
        layout.page.parent.mkdir(parents=True)
        layout.page.write_text("<h1>Results of this run</h1>", encoding="utf-8")
        layout.results.write_text(json.dumps({"filters": {"trajectories": 4, "kept": {"trajectories": 1}}}))
        with tracking.stage_run("report", PARAMS, layout):
            pass
        tracking.close_run(layout, PARAMS, parent)
        patch.delenv("SWIRL_RUN_ID")
        for model, stop in (("base", Stop.STEP_LIMIT), ("swirl", Stop.ANSWERED)):
            evaluate(layout, model, stop)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (root / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--backend-store-uri", f"sqlite:///{root}/mlflow.db"],
            cwd=root,
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}", parent
        finally:
            process.terminate()
            process.wait()
    shutil.rmtree(root)


def evaluate(layout: Layout, model: str, stop: Stop) -> None:
    """Records the evaluation of a model whose trajectories all end so, in an experiment of its own."""
    made = [trajectory(number, "mini-gsm8k", stop, model) for number in range(3)]
    params = {**PARAMS, "tracking": {"experiment": "compared", "traces": 3}}
    with tracking.stage_run(f"evaluate-{model}", params, layout):
        records.save(made, Trajectory, layout.prediction_trajectories(model))
        rows = [prediction(one, stop is Stop.ANSWERED) for one in made]
        records.save(rows, Prediction, layout.predictions(model))


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, served: tuple[str, str]) -> Iterator[Page]:
    """A browser in which the hint that MLflow shows a newcomer, and that takes the focus, has been closed."""
    with chromium(tmp_path_factory.mktemp("profile")) as one:
        one.PATIENCE = 300.0
        one.size(1500, 1000)
        hint = """document.querySelector('[data-component-id="mlflow.detect_issues.guidance.got_it"]')"""
        go(one, f"{served[0]}/#/experiments/{experiment(served[0])}/traces", f"{ROWS} === 3 && !!{hint}")
        click(one, hint)
        one.wait(f"!{hint}")
        yield one


def find(name: str) -> str:
    return f"""document.querySelector('[data-component-id="{TABLE}.{name}"]')"""


ROWS = f"""document.querySelectorAll('[data-component-id="{TABLE}.row-select"]').length"""


def go(page: Page, address: str, until: str) -> None:
    page.call("Page.navigate", url="about:blank")
    page.wait("location.href === 'about:blank'")
    page.call("Page.navigate", url=address)
    page.wait(f"location.protocol === 'http:' && document.body && ({until})")


def click(page: Page, element: str) -> None:
    """Clicks with the mouse, once the element is there."""
    page.wait(f"{element} && {element}.getBoundingClientRect().width > 0")
    box = page.run(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({element}.getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)


def write(page: Page, element: str, text: str) -> None:
    page.wait(f"!!{element}")
    page.run(f"{element}.focus(), {element}.select()")
    page.call("Input.insertText", text=text)
    page.wait(f"{element}.value === {json.dumps(text)}")


def experiment(address: str, name: str = "mine") -> str:
    from mlflow.tracking import MlflowClient

    found = MlflowClient(address).get_experiment_by_name(name)
    assert found is not None
    return str(found.experiment_id)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("what is 1?", 1),
        ("mini-gsm8k", 2),
        ("mini-gsm8k/0", 1),
        ("step_limit", 1),
        ("tags.benchmark = 'mini-gsm8k'", 0),
    ],
)
def test_the_search_box_finds_words_and_no_expressions(
    text: str, rows: int, served: tuple[str, str], page: Page
) -> None:
    address, _ = served
    go(page, f"{address}/#/experiments/{experiment(address)}/traces", f"{ROWS} === 3")
    write(page, find("search"), text)
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", windowsVirtualKeyCode=13, text="\r")
    page.wait(f"{ROWS} === {rows}")


def test_a_trace_that_nobody_timed_shows_no_duration(served: tuple[str, str], page: Page) -> None:
    address, _ = served
    go(page, f"{address}/#/experiments/{experiment(address)}/traces", f"{ROWS} === 3")
    page.wait("document.body.innerText.includes('(no answer: step limit)')")
    shown = page.run("document.body.innerText")
    assert "Duration" in shown
    assert re.findall(r"^[0-9.]+ ?m?s$", shown, re.MULTILINE) == []


def test_a_filter_by_tag_finds_what_the_sdk_finds(
    served: tuple[str, str], page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    address, _ = served
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    where: Any = [experiment(address)]
    found = mlflow.search_traces(
        locations=where,
        filter_string="tags.benchmark = 'mini-gsm8k' AND tags.stop = 'answered' AND tags.correct = 'true'",
        return_type="list",
    )
    assert [trace.info.tags["trajectory"] for trace in found] == ["mini-gsm8k/0"]
    go(page, f"{address}/#/experiments/{where[0]}/traces", f"{ROWS} === 3")
    click(page, find("filter.trigger"))
    click(page, find("filter.field"))
    click(page, "[...document.querySelectorAll('[role=option]')].find(one => one.innerText === 'Tag')")
    write(page, find("filter.key"), "stop")
    write(page, find("filter.value"), "step_limit")
    click(page, find("filter.apply"))
    page.wait(f"{ROWS} === 1 && document.body.innerText.includes('(no answer: step limit)')")


def test_a_parent_run_shows_what_it_is_and_leads_to_its_stages_and_its_report(
    served: tuple[str, str], page: Page
) -> None:
    address, parent = served
    run = f"{address}/#/experiments/{experiment(address)}/runs/{parent}"
    go(page, run, "document.body.innerText.includes('Started by flow happy-owl')")
    page.wait("document.body.innerText.includes('filter/kept_share')")
    links = "[...document.querySelectorAll('li a')].filter(one => one.innerText === 'judge')"
    go(page, page.run(f"{links}[0].href"), "document.body.innerText.includes('Parent run')")
    assert parent not in page.run("location.hash")
    go(page, f"{run}/artifacts/report/index.html", "document.body.innerText.includes('artifacts/report/index.html')")


def test_two_models_are_compared_on_the_same_questions(served: tuple[str, str], page: Page) -> None:
    """In the tab Traces of one model's run, where the other one's is chosen to compare with."""
    from mlflow.tracking import MlflowClient

    address, where = served[0], experiment(served[0], "compared")
    runs = MlflowClient(address).search_runs([where], "tags.stage = 'evaluate@swirl'")
    chosen = "[...document.querySelectorAll('[data-component-id$=\".compare_to_run_button\"]')][1]"
    go(page, f"{address}/#/experiments/{where}/runs/{runs[0].info.run_id}/traces", f"!!{chosen}")
    click(page, chosen)
    click(page, "[...document.querySelectorAll('[role=option]')].find(one => one.innerText.includes('evaluate@base'))")
    said = "document.body.innerText"
    page.wait(f"{said}.includes('(no answer: step limit)') && {said}.includes('What is 2?')")
    for number in range(3):
        asked = f"[...document.querySelectorAll('a, button, span')].find(one => one.innerText === 'What is {number}?')"
        lines = "row.innerText.split('\\n')"  # whole ones: a time or a trace's id may have a 42, too
        row = f"let row = asked; while (!{lines}.includes('42')) row = row.parentElement; return row.innerText"
        shown = page.run(f"((asked) => {{ {row} }})({asked})").split("\n")
        answers = [line for line in shown if line in ("42", "(no answer: step limit)")]
        assert answers == ["42", "(no answer: step limit)", "42", "42"]  # SWiRL's, the base's, the golden one of each
