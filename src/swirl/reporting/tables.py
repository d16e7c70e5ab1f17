"""The rows of the page's tables of `Results`; the templates say what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swirl.core.types import Score
from swirl.reporting import declines
from swirl.reporting.format import NONE, gain, interval, number, p_value, percent, rates
from swirl.reporting.paper import published
from swirl.reporting.results import LABELS, Results
from swirl.reporting.tool_names import steps_name

_RATES = (
    ("accuracy", "agrees with the oracle"),
    ("tpr", "good steps called GOOD"),
    ("fpr", "bad steps called GOOD"),
    ("auc", "AUC"),
    ("logprob_accuracy", "the policy's log-probability agrees"),
    ("logprob_auc", "its AUC"),
    ("chance_accuracy", "chance agrees"),
    ("good", "good steps"),
    ("n", "steps"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell that is more than its text."""

    text: str
    small: str = ""
    """Small print below the text."""
    strong: bool = False


Row = Sequence[Cell | str | int]


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names the row; other cells are right-aligned, or left-aligned with `words`."""

    label: str
    """Read aloud in place of a caption; no two tables of the page have the same."""
    head: Sequence[str]
    rows: Sequence[Row]
    words: bool = False


def columns(models: Sequence[str]) -> list[str]:
    """The models in the order of a table's columns: SWiRL first, so that a phone shows it without scrolling."""
    return list(reversed(models))


def headline(results: Results) -> Table:
    """Accuracy of each model, SWiRL's relative gain over base and the paper's, and the paired test."""
    models = columns(results.models)
    head = ["Benchmark", *(LABELS[model] for model in models), "SWiRL over base", "p", "Paper's, best of two"]
    rows: list[Row] = []
    for benchmark in results.benchmarks:
        known, swirl = published(benchmark), results.score(benchmark, "swirl")
        kind = "trajectories made from it" if results.trained_on(benchmark) else "transfer: none made from it"
        rows.append(
            [
                Cell(benchmark, kind),
                *(_accuracy(results.score(benchmark, model), model) for model in models),
                Cell(gain(results.gain(benchmark, "swirl")), strong=True),
                p_value(swirl.p_vs_base if swirl else None),
                Cell(gain(known.gain), known.name) if known else NONE,
            ]
        )
    return Table("Accuracy with tools", head, rows)


def worse(results: Results) -> Table:
    """What SWiRL does worse than the base beyond chance."""
    rows: list[Row] = [
        [declines.name(row), percent(row.swirl), percent(row.base), p_value(row.p), row.n]
        for row in results.declines.rows
    ]
    return Table("What got worse", ["What", "SWiRL", "Base", "p", "Questions"], rows)


def tools(results: Results) -> Table:
    """Accuracy with and without tools where both were measured."""
    asked = {score.model for score in results.scores if not score.with_tools}
    models = columns([model for model in results.models if model in asked])
    rows: list[Row] = []
    for benchmark in results.benchmarks:
        if not any(results.score(benchmark, model, False) for model in models):
            continue
        for with_tools in (True, False):
            swirl = results.score(benchmark, "swirl", with_tools)
            rows.append(
                [
                    f"{benchmark}, {'with' if with_tools else 'without'}",
                    *(_accuracy(results.score(benchmark, model, with_tools), model) for model in models),
                    gain(results.gain(benchmark, "swirl", with_tools)),
                    p_value(swirl.p_vs_base if swirl else None),
                ]
            )
    head = ["Benchmark, tools", *(LABELS[model] for model in models), "SWiRL over base", "p"]
    return Table("Accuracy with and without tools", head, rows)


def by_hops(results: Results) -> Table:
    """Accuracy of each model by number of hops, and the mean over these."""
    models = columns(results.models)
    rows: list[Row] = [
        [
            f"{row.benchmark}, {'mean' if row.hops is None else row.hops}",
            *(percent(row.accuracy.get(model)) for model in models),
            row.n,
        ]
        for row in results.by_hops
    ]
    return Table("Accuracy by hops", ["Benchmark, hops", *(LABELS[model] for model in models), "n"], rows)


def measures(results: Results) -> Table:
    """Exact match, F1, precision and recall of every cell."""
    head = ["Benchmark", "Model", "n", "Accuracy", "EM", "F1", "Precision", "Recall", "Steps", "Malformed"]
    rows: list[Row] = [
        [
            score.benchmark + ("" if score.with_tools else " without tools"),
            LABELS[score.model],
            score.n,
            percent(score.accuracy),
            *(number(value, 3) for value in (score.em, score.f1, score.precision, score.recall)),
            number(score.steps),
            number(score.malformed, 3),
        ]
        for score in results.scores
    ]
    return Table("Measures of the answers", head, rows)


def labels(results: Results) -> Table:
    """Mean process label of base and SWiRL by the judge, by the oracle, and in the paper's Table 3."""
    head = ["Benchmark"]
    for by in ("By the judge: SWiRL", "By the oracle: SWiRL", "Paper's Table 3: trained on HotPotQA"):
        head += [by, "base"]
    rows: list[Row] = []
    for benchmark in results.benchmarks:
        pair = [results.score(benchmark, model) for model in ("swirl", "base")]
        known = published(benchmark)
        judged = [score.process_label_judge if score else None for score in pair]
        oracle = [score.process_label_oracle if score else None for score in pair]
        table_3 = reversed((known.process_label if known else None) or (None, None))
        rows.append([benchmark, *map(percent, (*judged, *oracle, *table_3))])
    return Table("Process labels", head, rows)


def funnel(results: Results) -> Table:
    """How many trajectories and steps each of the four filters would keep."""
    filters = results.filters
    benchmarks = sorted({name for arm in filters.arms.values() for name in arm.by_benchmark})
    rows: list[Row] = [
        [
            Cell(f"{strategy} (used)", strong=True) if strategy == filters.strategy else strategy,
            arm.trajectories,
            percent(arm.trajectories / filters.trajectories if filters.trajectories else None),
            arm.steps,
            percent(arm.correct),
            *(arm.by_benchmark.get(name, 0) for name in benchmarks),
        ]
        for strategy, arm in filters.arms.items()
    ]
    head = ["Strategy", "Trajectories", "Share", "Steps", "Right answer", *benchmarks]
    return Table("What each filter keeps", head, rows)


def reward_model(results: Results) -> Table:
    """The reward model's measured error rates."""
    measured = rates(results.reward_model)
    rows = [[steps_name(of), *(_rate(name, row.get(name)) for name, _ in _RATES)] for of, row in measured.items()]
    return Table("The reward model's errors", ["Steps", *(words for _, words in _RATES)], rows)


def retrieval(results: Results) -> Table:
    """How many of the supporting passages one search for the question's own words finds."""
    names = list(dict.fromkeys(key.rpartition(".")[0] for key in results.retrieval))
    cuts = list(dict.fromkeys(key.rpartition(".")[2] for key in results.retrieval))
    rows = [[name, *(percent(results.retrieval.get(f"{name}.{cut}")) for cut in cuts)] for name in names]
    return Table("Recall of the search", ["Benchmark, split", *cuts], rows)


def searches(results: Results) -> Table:
    """The share of searches that bring a new supporting page, by model."""
    models = columns(results.models)
    rows: list[Row] = [
        [row.benchmark, *(Cell(percent(row.new_support.get(m)), f"of {row.searches[m]:,}") for m in models)]
        for row in results.searches
    ]
    head = ["Benchmark", *(LABELS[model] for model in models)]
    return Table("Searches that bring a new supporting page", head, rows)


def _accuracy(score: Score | None, model: str) -> Cell | str:
    return Cell(percent(score.accuracy), interval(score), model == "swirl") if score else NONE


def _rate(name: str, value: float | None) -> str:
    if name in ("auc", "logprob_auc"):
        return number(value)
    return number(value, 0) if name == "n" else percent(value)
