"""How the models act in the states of logged conversations, for the page and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from swirl.core import records
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.types import JudgeRole, StateAction
from swirl.evaluation.state_scores import MEASURES, StateMeasure
from swirl.reporting.format import NONE
from swirl.reporting.results import LABELS, MODELS, Results
from swirl.reporting.tables import Row, Table, columns

SAID = {
    "reward": "mean step reward",
    "same_tools": "same tools as logged",
    "same_calls": "same calls as logged",
    "malformed": "malformed",
    "cut": "cut off",
}
"""Measure -> its words."""


def load_actions(layout: Layout, models: Sequence[str]) -> dict[str, list[StateAction]]:
    """The actions in logged states of the models that have some."""
    paths = {model: layout.state_actions(model) for model in models}
    return {model: records.load(StateAction, path) for model, path in paths.items() if path.exists()}


def require_answers(layout: Layout, name: str) -> None:
    """Refuse a run whose models were evaluated in logged states alone, so that there are no answers to compare.

    Raises `DataError`, which calls the run `name`.
    """
    if any(layout.root.glob("data/predictions/*/state_actions.parquet")):
        raise DataError(
            f"{name} was evaluated in the states of logged conversations alone, so it has no answers to pool, compare "
            "or show; `swirl report --text` says how its models act there"
        )


def rows(results: Results) -> Iterator[tuple[str, str, int, dict[str, StateMeasure]]]:
    """(benchmark, measure, conversations, model -> what was measured) of every measure that is known."""
    for benchmark in dict.fromkeys(one.benchmark for one in results.states):
        for measure in MEASURES:
            of = {o.model: o for o in results.states if (o.benchmark, o.measure) == (benchmark, measure)}
            if of:
                yield benchmark, measure, max(one.n for one in of.values()), of


def judged_by(results: Results) -> str:
    """Who gave the rewards; empty where nobody did."""
    judge = next((one for one in results.states if one.measure == "reward"), None)
    if judge is None or judge.judge_role is JudgeRole.NONE:
        return ""
    return f'the judge "{judge.judge}", {judge.judge_role}'


def note(results: Results) -> str:
    """What the numbers are."""
    by = judged_by(results)
    return (
        "In the states of held-out logged conversations, whose tools do not run here, each model draws its own action. "
        + (f"Reward: by {by}. " if by else "No judge gave rewards. ")
        + "Same tools: those of the logged action, in its order, or no call where it makes none. Same calls: also the "
        "same arguments, where the logged action calls. A conversation counts once, as the mean of its actions; "
        "intervals are 95% bootstraps over conversations, those over the base paired. Agreement says how near a model "
        "stays to what was logged, not how good that was."
    )


def estimate(one: StateMeasure | None) -> str:
    """A mean in percent and half of its interval."""
    return NONE if one is None else f"{100 * one.mean:.1f} ±{50 * (one.ci_high - one.ci_low):.1f}"


def over_base(one: StateMeasure | None) -> str:
    """The difference to the base in percentage points, and its interval."""
    if one is None or one.over_base is None or one.over_base_low is None or one.over_base_high is None:
        return NONE
    return f"{100 * one.over_base:+.1f} ({100 * one.over_base_low:+.1f} to {100 * one.over_base_high:+.1f})"


def models_of(results: Results) -> list[str]:
    """The models that have actions in logged states, in the order of the tables."""
    return [model for model in MODELS if any(one.model == model for one in results.states)]


def states(results: Results) -> Table:
    """The table of the page, without rows where there are no logged conversations."""
    models = columns(models_of(results))
    head = ["Benchmark, measure", *(LABELS[model] for model in models), "SWiRL over base", "SFT over base", "n"]
    body: list[Row] = [
        [
            f"{benchmark}: {SAID[measure]}",
            *(estimate(of.get(model)) for model in models),
            over_base(of.get("swirl")),
            over_base(of.get("sft")),
            n,
        ]
        for benchmark, measure, n, of in rows(results)
    ]
    return Table("Actions in logged states", head, body)
