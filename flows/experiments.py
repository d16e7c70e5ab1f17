"""Many pipeline runs with different settings as one flow: an ablation.

Each run is a DVC experiment (`dvc exp show`) and a child of one MLflow run. A stage whose settings are the same in
several runs runs once: the others restore its outputs from DVC's run cache.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prefect import State, flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.exceptions import ParameterTypeError
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from flows import artifacts
from flows.pipeline import (
    KEPT,
    STOPPED,
    Outcome,
    Parallel,
    Settings,
    end_with_server,
    ended,
    run,
    start_server,
    store_of,
)
from swirl import tracking
from swirl.config import overrides as laid_over
from swirl.config.params import Params
from swirl.config.secrets import plain
from swirl.core.errors import ParamsError
from swirl.core.layout import Layout
from swirl.core.suggestions import meant
from swirl.pipeline.user_errors import sentence

Filters = list[Literal["none", "process", "outcome", "both"]]
Methods = Annotated[list[Literal["sft", "swirl"]], Field(min_length=1)]
Seeds = list[Annotated[int, Field(ge=0)]]
LOOK = "`swirl compare NAME NAME` shows two of them side by side, `dvc exp show` has all with their metrics"
"""Where the runs of a grid are looked at; they are DVC experiments by the names in the table."""


@flow(name="swirl-experiment", flow_run_name="{name}")
def experiment(name: str, overrides: dict[str, Any], group: str, parallel: int, project: str) -> State[Any]:
    """One run of the grid; the state's result is the content of reports/results.json, or None."""
    try:
        outcome: Outcome = run(Path(project), overrides, Settings(parallel=parallel), name, group)
    except STOPPED:
        return Cancelled(message=KEPT)
    except Exception as error:
        if not (said := sentence(error)):
            raise
        return Failed(message=said)
    if outcome.error:
        return Failed(message=outcome.error)
    return Completed(message=laid_over.text(overrides), data=outcome.results)


@flow(name="swirl-experiments")
def experiments(
    filters: Filters = ["none", "process", "outcome", "both"],  # noqa: B006
    methods: Methods = ["sft", "swirl"],  # noqa: B006
    seeds: Seeds = [0],  # noqa: B006
    grid: dict[str, list[Any]] = {},  # noqa: B006
    runs: list[dict[str, Any]] = [],  # noqa: B006
    equal: bool = True,
    parallel: Parallel = 1,
    project: str = ".",
) -> State[Any]:
    """Run every combination and compare them in one table. A run that fails does not stop the others.

    Args:
        filters: Values of filter.strategy; if empty, the one of params.yaml.
        methods: The methods that each run trains and the table compares; one run trains all of them.
        seeds: Values of seed; if empty, the one of params.yaml.
        grid: Further values to combine, by dotted key, such as {"train.swirl.lr": [0.0001, 0.0002]}.
        runs: Overrides of each run, such as [{"seed": 1}, {"judge.threshold": 0.6}], instead of filters, seeds, grid.
        equal: Where runs differ in filter.strategy, each trains on as many trajectories as the smallest of the compared
            filters keeps, as in the paper. A run that has a filter.max_trajectories keeps it.
        parallel: Maximum number of independent stages of one run at the same time; the runs follow one another.
        project: The folder with dvc.yaml; a relative path is resolved where the worker starts the flow.
    """
    root, name = Path(project).resolve(), flow_run.get_name() or "experiments"
    axes: dict[str, list[Any]] = {"filter.strategy": list(filters), "seed": list(seeds), **grid}
    wanted = [{"train.methods": list(methods), **one} for one in (runs or combinations(axes))]
    try:
        checked = [laid_over.checked(root / "params.yaml", one) for one in wanted]
    except ParamsError as refused:
        return Failed(message=str(refused))
    if len({json.dumps(one, sort_keys=True) for one in wanted}) < len(wanted):
        return Failed(message="two of the runs have the same overrides; leave one out")
    limits = equal_arms(checked) if equal else [{}] * len(wanted)
    try:
        with store_of(root):
            error = _compare(root, name, list(zip(wanted, limits, strict=True)), checked[0], methods, parallel)
    except STOPPED:
        return Cancelled(message=KEPT)
    return Failed(message=error) if error else Completed(message=f"{len(wanted)} runs; {LOOK}")


def equal_arms(runs: Sequence[Params]) -> list[dict[str, Any]]:
    """For each run the overrides that make runs of different filters equally large; none where it has its own limit."""
    filters = list(dict.fromkeys(params.filter.strategy for params in runs))
    unlimited = [len(filters) > 1 and params.filter.max_trajectories == 0 for params in runs]
    return [{"filter.max_trajectories": filters} if needed else {} for needed in unlimited]


def _compare(
    root: Path,
    name: str,
    wanted: Sequence[tuple[dict[str, Any], dict[str, Any]]],
    first: Params,
    methods: Sequence[str],
    parallel: int,
) -> str:
    """Do all runs, one after the other, and return an error that names those that failed, or the empty string.

    Each is (the overrides that were asked for, further ones that make it comparable). The runs are children of a new
    MLflow run, which records the params of the first.
    """
    layout = Layout(root)
    title = f"experiments {name}"
    opened = tracking.open_run(layout, first, title, {"experiments": str(len(wanted))}, title)
    artifacts.link_run(opened.page)
    group = opened.run_id
    states: list[State[Any]] = []
    error, stopped = "the flow was stopped", True
    try:
        for number, (asked, further) in enumerate(wanted, start=1):
            label, one = f"{name}-{number}", {**asked, **further}
            get_run_logger().info("%s of %s, %s: %s", number, len(wanted), label, laid_over.text(one))
            states.append(experiment(label, one, group, parallel, str(root), return_state=True))
            if states[-1].is_cancelled():
                raise KeyboardInterrupt
            try:
                _show(name, [asked for asked, _ in wanted], states, methods)
            except Exception as failure:  # showing results never fails a run
                get_run_logger().warning("The comparison is not complete: %s", failure)
        failed = [f"{name}-{number}" for number, state in enumerate(states, start=1) if not state.is_completed()]
        error = f"{len(failed)} of {len(wanted)} runs failed: {', '.join(failed)}" if failed else ""
        stopped = False
    finally:
        tracking.close_run(layout, first, group, error, killed=stopped)
    return error


def combinations(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values; an axis without values is left out. Without axes, one empty combination."""
    used = {key: values for key, values in axes.items() if values}
    return [dict(zip(used, values, strict=True)) for values in itertools.product(*used.values())]


def table(
    runs: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any] | None]], methods: Sequence[str]
) -> list[dict[str, Any]]:
    """One row per run and method, best first.

    It has the settings that differ, how many trajectories were trained on and how often each of their states was seen
    on average (`passes`), the mean accuracy and that of each benchmark. A run is (name, overrides, results.json).
    Without results it failed; its row says so and comes last.
    Overrides may hold train.methods, which then replace `methods`.
    """
    keys = list(dict.fromkeys(key for _, overrides, _ in runs for key in overrides if key != "train.methods"))
    differs = [
        key
        for key in keys
        if len(runs) == 1 or len({json.dumps(one.get(key), sort_keys=True) for _, one, _ in runs}) > 1
    ]
    rows: list[dict[str, Any]] = []
    for name, overrides, results in runs:
        start = {key: overrides.get(key, "as in params.yaml") for key in differs}
        if results is None:
            failed = {"trajectories": None, "method": "", "passes": None, "mean accuracy": None}
            rows.append({**start, **failed, "experiment": f"{name} failed"})
            continue
        start["trajectories"] = results["filters"]["kept"]["trajectories"]
        for method in overrides.get("train.methods", methods):
            scores = {
                score["benchmark"]: score["accuracy"]
                for score in results["scores"]
                if score["model"] == method and score["with_tools"]
            }
            mean = round(fmean(scores.values()), 4) if scores else None
            each = {benchmark: round(accuracy, 4) for benchmark, accuracy in scores.items()}
            seen = results["coverage"].get(method)  # none for a model that was not trained
            passes = round(seen["passes"], 2) if seen else None
            rows.append(
                {**start, "method": method, "passes": passes, "mean accuracy": mean, **each, "experiment": name}
            )
    return sorted(rows, key=lambda row: -1.0 if row["mean accuracy"] is None else row["mean accuracy"], reverse=True)


def _show(name: str, wanted: list[dict[str, Any]], states: list[State[Any]], methods: Sequence[str]) -> None:
    """Show the table of the runs so far."""
    runs = []
    for number, (one, state) in enumerate(zip(wanted, states, strict=False), start=1):
        runs.append((f"{name}-{number}", plain(one), state.result() if state.is_completed() else None))
    text = f"{len(states)} of {len(wanted)} runs. Accuracy with tools, best mean first; {LOOK}"
    create_table_artifact(table=table(runs, methods), key="comparison", description=text)


def arguments(text: str) -> dict[str, Any]:
    """The flow's arguments from one JSON object. Raises `ParamsError` for anything else, and for what it refuses."""
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise ParamsError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ParamsError(f'{text} is no JSON object; expected one, as {{"seeds": [0, 1]}}')
    known = list(inspect.signature(experiments.fn).parameters)
    for name in given:
        if name not in known:
            raise ParamsError(f"there is no argument {name!r}; there are {', '.join(known)}{meant(name, known)}")
    try:
        experiments.validate_parameters(given)
    except ParameterTypeError as error:
        raise ParamsError(str(error)) from None
    return {"project": str(Path(__file__).resolve().parents[1]), **given}


def main() -> int:
    """Run the flow from the command line, with its arguments as one JSON object; without it, the default grid."""
    parser = argparse.ArgumentParser(
        description="Run several SWiRL pipelines with other settings each as one Prefect flow, and compare them.",
        epilog=f"What the JSON object may hold:\n\n{inspect.getdoc(experiments.fn)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "arguments", metavar="JSON", nargs="?", default="{}",
        help='as {"seeds": [0, 1], "filters": ["none", "process"]} (default: every filter, seed 0, both methods)',
    )  # fmt: skip
    chosen = parser.parse_args()
    end_with_server()
    try:
        given = arguments(chosen.arguments)
    except ParamsError as error:
        parser.error(str(error))
    start_server()
    state = experiments(**given, return_state=True)
    print(state.message, file=sys.stderr)
    return ended(state)


if __name__ == "__main__":
    sys.exit(main())
