"""The report in the terminal: what `swirl report --text` prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from swirl.config.yaml_text import inline
from swirl.core.layout import Layout
from swirl.evaluation.comparison import Compared, Estimate
from swirl.reporting import provenance
from swirl.reporting.browser import place
from swirl.reporting.coverage import sentence
from swirl.reporting.declines import sentence as declines_sentence
from swirl.reporting.format import NONE, gain, number, p_value, percent, rates
from swirl.reporting.markup import printable
from swirl.reporting.paper import PAPER_GAINS, published
from swirl.reporting.results import LABELS, Results, load, memory_at_chance
from swirl.reporting.skill_tables import JUDGES, NOTE, compared, skill_rows
from swirl.reporting.skills import FAULTS, Share, Skill
from swirl.reporting.skills import sentence as sentence_on_skills
from swirl.reporting.state_tables import SAID, estimate, models_of, note, over_base
from swirl.reporting.state_tables import rows as state_rows
from swirl.reporting.tool_names import steps_name

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    from swirl.reporting.compared_runs import Row
    from swirl.reporting.pooled_runs import PooledRuns

WIDTH = 100
"""Columns of a piped report; a terminal has its own width."""


def show(layout: Layout) -> None:
    """Print the report to standard output. Raises `DataError` when `reports/results.json` is missing or broken."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(render(layout))


def show_comparison(title: str, results: Sequence[Compared]) -> None:
    """Print models side by side to standard output, in at most `WIDTH` columns."""
    console = _console()
    table = _table(_name(title), [], [])
    table.add_column("model", overflow="fold")
    for head in ("accuracy", "EM", "F1", "answered", "malformed", "p"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in results:
        means = [_estimate(value) for value in (row.accuracy, row.em, row.f1)]
        shares = [percent(value) for value in (row.answered, row.malformed)]
        table.add_row(_name(row.model), *means, *shares, p_value(row.p_vs_first))
    console.print(table)
    console.print(
        _note(
            "Accuracy, EM and F1 in percent; ± is half of the 95% interval (Wilson's; for F1 a bootstrap's over "
            "questions). Malformed: of all actions, those that are malformed or cut. p: McNemar's, exact (of a "
            "sign-flip test where a question has several samples), of accuracy against the first model."
        )
    )


def show_pooled(results: PooledRuns) -> None:
    """Print what several seeds have in common to standard output: one table per measure, in at most `WIDTH` columns."""
    from swirl.reporting import pooled_text

    console, holm = _console(), ["swirl"]
    for title, rows in pooled_text.by_measure(results):
        table = _table(f"{title}, %", ["benchmark"], pooled_text.heads(results, holm))
        for row in rows:
            table.add_row(_name(row.benchmark), *pooled_text.cells(row, results, pooled_text.half, holm))
        console.print(table)
    asked = ", ".join(f"{row.n:,} of {row.benchmark}" for row in results.rows if row.measure == "accuracy")
    console.print(_note(f"{pooled_text.note(results)} ± is half of the interval. Questions: {asked}."))


def show_runs(names: tuple[str, str], changed: Sequence[tuple[str, Any, Any]], rows: Sequence[Row]) -> None:
    """Print two runs side by side to standard output, in at most `WIDTH` columns."""
    from swirl.reporting import pooled_text

    console = _console()
    if changed:
        table = _table("Settings that differ", [], [])
        for head, ratio in (("key", 3), (names[0], 2), (names[1], 2)):
            table.add_column(_name(head), overflow="fold", ratio=ratio)
        for key, *values in changed:
            table.add_row(_name(key), *(_name(NONE if value is None else inline(value)) for value in values))
        console.print(table)
    else:
        console.print(_note("Their settings are the same.\n"))
    table = _table("Accuracy with tools, %", ["benchmark", "model"], [])
    for head in (*names, "difference (95%)", "p", "questions"):
        table.add_column(_name(head), justify="right", overflow="fold")
    for row in rows:
        model = LABELS[row.models[0]] if len(set(row.models)) == 1 else " / ".join(LABELS[one] for one in row.models)
        more = NONE
        if row.difference is not None and row.low is not None and row.high is not None:
            more = pooled_text.whole(Estimate(row.difference, row.low, row.high), "+")
        table.add_row(_name(row.benchmark), model, *map(percent, row.accuracy), more, p_value(row.p), str(row.shared))
    console.print(table)
    console.print(
        _note(
            "Difference: the second less the first, over the questions that both asked (their number is on the right), "
            "with the interval of a paired bootstrap. p: McNemar's, exact; of a sign-flip test where a "
            "question has several samples. None where the runs asked other questions."
        )
    )


def _console() -> Console:
    """Standard output, in at most `WIDTH` columns."""
    from rich.console import Console

    console = Console()
    console.width = min(console.width, WIDTH) if sys.stdout.isatty() else WIDTH
    return console


def _estimate(mean: Estimate) -> str:
    return f"{100 * mean.value:.1f} ±{50 * (mean.high - mean.low):.1f}"


def render(layout: Layout) -> Group:
    """The tables, and how to open the pages, as one rich renderable."""
    from rich.console import Group
    from rich.text import Text

    results = load(layout.results)
    parts: list[Any] = [*_provenance(layout)]
    if results.states:
        parts += [_states(results), _note(note(results))]
    if results.scores:
        parts += [
            _accuracy(results),
            _note(
                "± is half of the 95% Wilson interval; gain is SWiRL's over base, relative; p is McNemar's, exact (of "
                "a sign-flip test with several samples), against base; process is the mean process label, base to "
                f"SWiRL, by {_labelled_by(results)}. "
                f"{PAPER_GAINS}"
            ),
        ]
    seen = sentence(results.coverage)
    said = [_note(seen)] if seen else []
    worse = declines_sentence(results.declines)
    said_first = [*said, *([_note(worse)] if worse else [])]
    tools = _without_tools(results)
    parts += [*said_first, *([tools, *said] if tools else [])]
    parts += [_by_hops(results), *said] if results.by_hops else []
    parts += [_searches(results), *said] if results.searches else []
    skilled = [_note(f"{sentence_on_skills(results.skills)} {NOTE}"), *said]
    parts += [_skills(results), _faults(results), *skilled] if results.skills else []
    parts += [_funnel(results), _reward_model(results)]
    if memory_at_chance(results.memory):
        parts.append(_note("Closed-book recall of the memorised world is at chance: mini-cofca tests no memory."))
    seconds = _seconds(layout)
    parts += [seconds] if seconds else []
    parts += [
        Text("Runs, curves and gates in MLflow:  make mlflow"),
        Text(f"The whole report:  {layout.page.relative_to(layout.root)}"),
        Text(f"All trajectories:  {place(layout).relative_to(layout.root)}/index.html"),
    ]
    return Group(*_spaced(parts))


def _provenance(layout: Layout) -> Iterator[Text]:
    """Whose results these are, and where they come from."""
    from rich.text import Text

    origin = provenance.found(layout)
    yield Text(printable(origin.whose), style="bold")
    facts = [f"{what} {address or value}" for what, value, address in origin.facts]
    if facts:
        yield _note(", ".join(facts))


def _spaced(parts: Sequence[Any]) -> Iterator[Any]:
    """The parts with an empty line between text and a table; a table ends with one of its own."""
    from rich.table import Table
    from rich.text import Text

    for before, part in zip([None, *parts], parts, strict=False):
        if isinstance(before, Text) and isinstance(part, Table):
            yield Text()
        yield part


def _accuracy(results: Results) -> Table:
    """Accuracy with tools by benchmark and model, SWiRL's gain, and the paper's (`PAPER_GAINS`)."""
    table = _table("Accuracy with tools, %", ["benchmark"], [*(LABELS[model] for model in results.models)])
    for head in ("gain", "paper", "p", "process"):
        table.add_column(head, justify="right", no_wrap=True)
    for benchmark in results.benchmarks:
        known, swirl = published(benchmark), results.score(benchmark, "swirl")
        table.add_row(
            _name(benchmark),
            *(_cell(results, benchmark, model) for model in results.models),
            gain(results.gain(benchmark, "swirl")),
            gain(known.gain) if known else NONE,
            p_value(swirl.p_vs_base if swirl else None),
            _labels(results, benchmark),
        )
    return table


def _states(results: Results) -> Table:
    """How the models act in the states of logged conversations, and SWiRL's difference to the base."""
    models = models_of(results)
    table = _table("In the states of logged conversations, %", [], [])
    table.add_column("measure", overflow="fold")
    for head in (*(LABELS[model] for model in models), "SWiRL over base", "n"):
        table.add_column(head, justify="right", no_wrap=True)
    for benchmark, measure, n, of in state_rows(results):
        cells = [estimate(of.get(model)) for model in models]
        table.add_row(_name(f"{benchmark}: {SAID[measure]}"), *cells, over_base(of.get("swirl")), str(n))
    return table


def _without_tools(results: Results) -> Table | None:
    """Accuracy without tools by benchmark and model; None when it was not measured."""
    models = [model for model in results.models if any(s.model == model and not s.with_tools for s in results.scores)]
    if not models:
        return None
    table = _table("Accuracy without tools, %", ["benchmark"], [*(LABELS[model] for model in models), "gain", "p"])
    for benchmark in results.benchmarks:
        swirl = results.score(benchmark, "swirl", False)
        if any(results.score(benchmark, model, False) for model in models):
            cells = [_cell(results, benchmark, model, False) for model in models]
            p = p_value(swirl.p_vs_base if swirl else None)
            table.add_row(_name(benchmark), *cells, gain(results.gain(benchmark, "swirl", False)), p)
    return table


def _by_hops(results: Results) -> Table:
    """Accuracy with tools by number of hops, and the mean over these."""
    right = ["hops", "n", *(LABELS[model] for model in results.models)]
    table = _table("Accuracy with tools by hops, %", ["benchmark"], right)
    for row in results.by_hops:
        cells = [row.accuracy.get(model) for model in results.models]
        shown = [NONE if value is None else f"{100 * value:.1f}" for value in cells]
        hops = "mean" if row.hops is None else str(row.hops)
        table.add_row(_name(row.benchmark), hops, str(row.n), *shown, end_section=row.hops is None)
    return table


def _searches(results: Results) -> Table:
    """The share of searches that bring a supporting page which was not shown before."""
    table = _table("Searches that bring a new supporting page, %", ["benchmark"], [LABELS[m] for m in results.models])
    for row in results.searches:
        cells = [row.new_support.get(model) for model in results.models]
        table.add_row(_name(row.benchmark), *(NONE if value is None else f"{100 * value:.1f}" for value in cells))
    return table


def _skills(results: Results) -> Table:
    """The share of good steps by kind of action over all benchmarks, by judge and by oracle."""
    heads = [f"{by}: {name}" if model == "base" else name for by in JUDGES for model, name in compared(results)]
    table = _table("Which skill improved: good actions of each kind, %", ["kind of action"], heads)
    return _filled(table, results, [row for row in skill_rows(results.skills) if row[0] not in FAULTS])


def _faults(results: Results) -> Table:
    """Repeated queries and early stops over all benchmarks."""
    table = _table("Counted without labels, %", ["fault"], [name for _, name in compared(results)])
    return _filled(table, results, [row for row in skill_rows(results.skills) if row[0] in FAULTS])


def _filled(table: Table, results: Results, rows: Sequence[tuple[Skill, Sequence[Share | None]]]) -> Table:
    for skill, shares in rows:
        cells = [None if row is None else row.share.get(model) for row in shares for model, _ in compared(results)]
        table.add_row(str(skill), *(NONE if value is None else f"{100 * value:.1f}" for value in cells))
    return table


def _funnel(results: Results) -> Table:
    """Trajectories and steps that each strategy keeps."""
    funnel = results.filters
    title = f"Filters over {funnel.trajectories} trajectories"
    table = _table(title, ["strategy"], ["trajectories", "share", "steps", "right answer"])
    for strategy, arm in funnel.arms.items():
        used = " (used)" if strategy == funnel.strategy else ""
        share = arm.trajectories / funnel.trajectories if funnel.trajectories else None
        table.add_row(f"{strategy}{used}", str(arm.trajectories), percent(share), str(arm.steps), percent(arm.correct))
    return table


def _reward_model(results: Results) -> Any:
    """The reward model's error rates on held-out steps, or a sentence when there are none."""
    measured = rates(results.reward_model)
    if not measured:
        return _note("No labels to measure the reward model against.")
    threshold = results.reward_model["heldout.threshold"]
    title = f"Reward model against the oracle, GOOD where P(GOOD) is at least {threshold:g}"
    table = _table(title, ["steps"], ["accuracy", "true positives", "false positives", "AUC", "log-prob's AUC", "n"])
    for of, row in measured.items():
        shares = [percent(row.get(name)) for name in ("accuracy", "tpr", "fpr")]
        areas = [number(row.get(name)) for name in ("auc", "logprob_auc")]
        table.add_row(_name(steps_name(of)), *shares, *areas, f"{row['n']:.0f}" if "n" in row else NONE)
    return table


def _seconds(layout: Layout) -> Table | None:
    """Seconds and peak memory of each stage's last run on this machine; None where none is known."""
    timings = provenance.timings(layout)
    if not timings:
        return None
    table = _table("Time and memory, last runs here", ["stage"], ["seconds", "peak MB"])
    for stage, timing in timings.items():
        table.add_row(stage, f"{timing['seconds']:.1f}", f"{timing['peak_rss_mb']:.0f}")
    total = sum(timing["seconds"] for timing in timings.values())
    peak = max(timing["peak_rss_mb"] for timing in timings.values())
    table.add_section()
    table.add_row("sum, highest", f"{total:.1f}", f"{peak:.0f}")
    return table


def _cell(results: Results, benchmark: str, model: str, with_tools: bool = True) -> str:
    score = results.score(benchmark, model, with_tools)
    if score is None:
        return NONE
    return f"{100 * score.accuracy:.1f} ±{50 * (score.ci_high - score.ci_low):.1f}"


def _labels(results: Results, benchmark: str) -> str:
    base, swirl, _ = results.labels(benchmark)
    return f"{percent(base, 0)} → {percent(swirl, 0)}"


def _labelled_by(results: Results) -> str:
    """Who gave the process labels that are shown: the oracle, the judge, or on which benchmarks which of them."""
    judged = [benchmark for benchmark in results.benchmarks if not results.labels(benchmark)[2]]
    if not judged:
        return "the oracle"
    if len(judged) == len(results.benchmarks):
        return results.label_judge
    return f"the oracle, but on {', '.join(judged)} by {results.label_judge}"


def _table(title: str | Text, left: list[str], right: list[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in left:
        table.add_column(head, no_wrap=True)
    for head in right:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _name(data: str) -> Text:
    """A name from a file, shown literally: no console markup, no escape sequences."""
    from rich.text import Text

    return Text(printable(data))


def _note(words: str) -> Any:
    from rich.text import Text

    return Text(printable(words), style="dim")
