"""The page's tables of `Results`: accuracy, tools, answer measures, process labels, funnel, reward model."""

from __future__ import annotations

from collections.abc import Sequence

from swirl.core.types import JudgeRole, Score
from swirl.reporting import charts, declines
from swirl.reporting.coverage import sentence
from swirl.reporting.format import gain, interval, number, p_value, percent, rates
from swirl.reporting.markup import Child, Html, tag
from swirl.reporting.paper import PAPER_GAINS, published
from swirl.reporting.results import LABELS, Results, memory_at_chance

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


class Section(Html):
    """A part of the page, which its table of contents leads to."""

    name: str
    heading: str


def table(label: str, head: Sequence[str], rows: Sequence[Sequence[Child]], words: bool = False) -> Html:
    """A table whose first column names the row; other cells are right-aligned, or left-aligned with `words`.

    `label` is read aloud in place of a caption; no two tables of the page have the same.
    """
    header = tag("tr", [tag("th", cell, scope="col") for cell in head])
    body = [tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]]) for row in rows]
    content = (tag("thead", header), tag("tbody", body))
    return scrolled("div", label, tag("table", content, class_="words" if words else None))


def scrolled(element: str, label: str, content: Html) -> Html:
    """What may be wider than the window: a region that the keyboard reaches, and its arrow keys scroll."""
    return tag(element, content, class_="scroll", role="region", aria_label=label, tabindex=0)


def section(name: str, title: str, *children: Child) -> Section:
    """One part of the page, reachable as `#name`."""
    made = Section(tag("section", tag("h2", title), children, id=name))
    made.name, made.heading = name, title
    return made


def columns(models: Sequence[str]) -> list[str]:
    """The models in the order of a table's columns: SWiRL first, so that a phone shows it without scrolling."""
    return list(reversed(models))


def text(*children: Child) -> Html:
    """A paragraph."""
    return tag("p", children)


def seen(results: Results) -> Html | None:
    """What RL and SFT saw of the kept states, which belongs beside their comparison; None where neither was trained."""
    words = sentence(results.coverage)
    return text(words) if words else None


def headline(results: Results) -> Html:
    """Accuracy of each model, SWiRL's relative gain over base and the paper's, and the paired test."""
    models = columns(results.models)
    head = ["Benchmark", *(LABELS[model] for model in models), "SWiRL over base", "McNemar p", "Paper's, best of two"]
    rows: list[Sequence[Child]] = []
    for benchmark in results.benchmarks:
        known, swirl = published(benchmark), results.score(benchmark, "swirl")
        kind = "trajectories made from it" if results.trained_on(benchmark) else "transfer: none made from it"
        name = (tag("span", benchmark, class_="name"), tag("small", kind))
        rows.append(
            [
                name,
                *(_accuracy(results.score(benchmark, model), model) for model in models),
                tag("strong", gain(results.gain(benchmark, "swirl"))),
                p_value(swirl.p_vs_base if swirl else None),
                (gain(known.gain), tag("small", known.name)) if known else "–",
            ]
        )
    note = text(
        "Answers to questions that no other stage has seen, tools allowed. Small print: 95% Wilson interval. ",
        "Gain: (SWiRL - base) / base. p: exact McNemar test of SWiRL against base on the same questions, two-sided, ",
        "not corrected for the number of benchmarks; with several samples a question, both are over questions' means. ",
        "One seed: an interval covers the choice of questions, not the luck of training. ",
        PAPER_GAINS,
    )
    bars = scrolled("figure", "Bars of the accuracy with tools", charts.accuracy_bars(results))
    shown = [charts.legend(results.models), bars]
    return section("results", "Accuracy", shown, table("Accuracy with tools", head, rows), seen(results), note)


def worse(results: Results) -> Html | None:
    """What SWiRL does worse than the base beyond chance; None where nothing was compared."""
    if not results.declines.compared:
        return None
    head = ["What", "SWiRL", "Base", "McNemar p", "Questions"]
    rows: list[Sequence[Child]] = [
        [declines.name(row), percent(row.swirl), percent(row.base), p_value(row.p), row.n]
        for row in results.declines.rows
    ]
    shown = table("What got worse", head, rows) if rows else None
    said = text(tag("strong", declines.sentence(results.declines)))
    return section("worse", "What got worse", said, shown, text(declines.note(results.declines)))


def tools(results: Results) -> Html | None:
    """Accuracy with and without tools where both were measured; None where nothing was measured without."""
    rows: list[Sequence[Child]] = []
    asked = {score.model for score in results.scores if not score.with_tools}
    models = columns([model for model in results.models if model in asked])
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
    if not rows:
        return None
    head = ["Benchmark, tools", *(LABELS[model] for model in models), "SWiRL over base", "McNemar p"]
    words = "The same questions with tools and without (one answer from the question alone)."
    return section(
        "tools",
        "With and without tools",
        text(words),
        table("Accuracy with and without tools", head, rows),
        seen(results),
    )


def by_hops(results: Results) -> Html | None:
    """Accuracy of each model by number of hops, and the mean over these; None where no benchmark has several."""
    if not results.by_hops:
        return None
    rows: list[Sequence[Child]] = [
        [
            f"{row.benchmark}, {'mean' if row.hops is None else row.hops}",
            *(percent(row.accuracy.get(model)) for model in columns(results.models)),
            row.n,
        ]
        for row in results.by_hops
    ]
    words = (
        "Accuracy with tools by the hops that a question takes (calculations: its operations), and the mean over "
        "them, in which each number of hops weighs the same; CofCA's score in the paper is such a mean."
    )
    head = ["Benchmark, hops", *(LABELS[model] for model in columns(results.models)), "n"]
    return section("hops", "Accuracy by hops", text(words), table("Accuracy by hops", head, rows), seen(results))


def measures(results: Results) -> Html:
    """Exact match, F1, precision and recall of every cell."""
    head = ["Benchmark", "Model", "n", "Accuracy", "EM", "F1", "Precision", "Recall", "Steps", "Malformed"]
    rows: list[Sequence[Child]] = [
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
    words = (
        "Word overlap with the best accepted answer by HotPotQA's rules; mean steps and malformed actions a question."
    )
    fold = tag("details", tag("summary", f"All {len(rows)} rows"), table("Measures of the answers", head, rows))
    return section("measures", "Exact match, F1, precision and recall", text(words), fold, seen(results))


def labels(results: Results) -> Html:
    """Mean process label of base and SWiRL by the judge, by the oracle, and in the paper's Table 3."""
    head = [
        "Benchmark",
        "By the judge: SWiRL",
        "base",
        "By the oracle: SWiRL",
        "base",
        "Paper's Table 3: trained on HotPotQA",
        "base",
    ]
    rows: list[Sequence[Child]] = []
    for benchmark in results.benchmarks:
        pair = [results.score(benchmark, model) for model in ("swirl", "base")]
        known = published(benchmark)
        table_3 = reversed((known.process_label if known else None) or (None, None))
        judged = [percent(score.process_label_judge if score else None) for score in pair]
        oracle = [percent(score.process_label_oracle if score else None) for score in pair]
        rows.append([benchmark, *judged, *oracle, *(percent(value) for value in table_3)])
    flattered = {
        JudgeRole.REWARD: "It is what training maximises, so its own word on the tuned policy is flattered; the",
        JudgeRole.SECOND: "Training did not maximise its word; the",
        JudgeRole.NONE: "The",
    }[results.scores[0].judge_role]
    words = (
        "The share of good steps, averaged within a trajectory and then over trajectories, by "
        f"{results.label_judge}, and by the oracle where there is one. {flattered} oracle compares each step with "
        "the golden derivation or the supporting passages, and step-wise RL never asks it (a reward model that was "
        "made here learned from its labels). The paper's Table 3 is of a model trained on HotPotQA alone, so its GSM8K "
        "is transfer; SWiRL here is one model, trained on all that trajectories were made from."
    )
    return section("labels", "Process labels", text(words), table("Process labels", head, rows))


def funnel(results: Results) -> Html:
    """How many trajectories and steps each of the four filters would keep."""
    filters = results.filters
    benchmarks = sorted({name for arm in filters.arms.values() for name in arm.by_benchmark})
    head = ["Strategy", "Trajectories", "Share", "Steps", "Right answer", *benchmarks]
    rows: list[Sequence[Child]] = [
        [
            tag("strong", f"{strategy} (used)") if strategy == filters.strategy else strategy,
            arm.trajectories,
            percent(arm.trajectories / filters.trajectories if filters.trajectories else None),
            arm.steps,
            percent(arm.correct),
            *(arm.by_benchmark.get(name, 0) for name in benchmarks),
        ]
        for strategy, arm in filters.arms.items()
    ]
    words = (
        f"Of {filters.trajectories} synthesised trajectories, what each filter keeps before any cap on their number; "
        f"training used {filters.strategy!r}, after the cap {filters.kept.trajectories} trajectories with "
        f"{filters.kept.steps} steps. Process: every step judged good by the reward model. Outcome: the final "
        "answer matches. Filled: the part whose answer is right."
    )
    picture = scrolled("figure", "Bars of what each filter keeps", charts.funnel_bars(filters))
    return section("filters", "Filter funnel", text(words), picture, table("What each filter keeps", head, rows))


def reward_model(results: Results) -> Html:
    """The reward model's measured error rates."""
    rows_by_kind = rates(results.reward_model)
    if not rows_by_kind:
        return section("reward-model", "Reward model", text("No labels to measure this reward model against."))
    rows = [[kind, *(_rate(name, measured.get(name)) for name, _ in _RATES)] for kind, measured in rows_by_kind.items()]
    words = (
        "The reward model against the oracle on held-out steps that the base model sampled. A verdict is GOOD from "
        f"P(GOOD) = {results.reward_model['heldout.threshold']:g} on (judge.threshold). AUC: how often a good step has "
        "the higher P(GOOD) than a bad one. Two judges that know nothing of the question stand beside it: the policy's "
        "own log-probability of the action (the mean over its tokens), which calls as many steps GOOD, and chance, "
        "which draws as many, and whose AUC is 0.5."
    )
    shown = table("The reward model's errors", ["Steps", *(w for _, w in _RATES)], rows)
    return section("reward-model", "Reward model", text(words), shown)


def retrieval(results: Results) -> Html | None:
    """How many of the supporting passages one search for the question's own words finds; None when not measured."""
    names = list(dict.fromkeys(key.rpartition(".")[0] for key in results.retrieval))
    if not names:
        return None
    cuts = list(dict.fromkeys(key.rpartition(".")[2] for key in results.retrieval))
    rows = [[name, *(percent(results.retrieval.get(f"{name}.{cut}")) for cut in cuts)] for name in names]
    words = (
        "One search with the question's own words. recall@k: the share of a question's supporting passages among the "
        "first k, mean over questions; all@k: questions with all of them there. A model may search again."
    )
    shown = table("Recall of the search", ["Benchmark, split", *cuts], rows)
    return section("retrieval", "Search", text(words), shown)


def searches(results: Results) -> Html | None:
    """The share of searches that bring a new supporting page, by model; None where no such page is known."""
    if not results.searches:
        return None
    models = columns(results.models)
    rows: list[Sequence[Child]] = [
        [row.benchmark, *((percent(row.new_support.get(m)), tag("small", f"of {row.searches[m]:,}")) for m in models)]
        for row in results.searches
    ]
    words = (
        "The share of all searches on evaluation questions whose result shows a supporting page that no earlier result "
        "of the trajectory showed, of the questions whose supporting pages are known. Small print: how many searches."
    )
    head = ["Benchmark", *(LABELS[model] for model in models)]
    title = "Searches that bring a new supporting page"
    return section("searches", title, text(words), table(title, head, rows), seen(results))


def memory(results: Results) -> Html | None:
    """Closed-book accuracy on the memorised world, and what mini-cofca can therefore show; None when not measured."""
    at_chance = memory_at_chance(results.memory)
    if at_chance is None:
        return None
    asked = f"Asked {results.memory['n']:.0f} questions about the world that pretraining repeats, without tools, "
    numbers = f"the base model gives {_recalled(results.memory, '')}"
    sound = (
        f"; the ceiling {_recalled(results.memory, 'sound.')}" if "sound.closed_book_before" in results.memory else ""
    )
    verdict = (
        "The old answers are at chance: there is no memory to contradict, so mini-cofca tests nothing about memory; "
        "read it as another transfer benchmark."
        if at_chance
        else "There is a memory to contradict, so mini-cofca tests whether a model reads what its search returns."
    )
    return section("memory", "Memory against reading", text(asked, numbers, sound, ". ", tag("strong", verdict)))


def _recalled(memory: dict[str, float], prefix: str) -> str:
    before, after = (percent(memory.get(f"{prefix}closed_book_{when}")) for when in ("before", "after"))
    return f"{before} of the answers of before some facts were changed, and {after} of those of after"


def _accuracy(score: Score | None, model: str) -> Child:
    if score is None:
        return "–"
    figure = tag("strong", percent(score.accuracy)) if model == "swirl" else percent(score.accuracy)
    return (figure, tag("small", interval(score)))


def _rate(name: str, value: float | None) -> str:
    if name in ("auc", "logprob_auc"):
        return number(value)
    return number(value, 0) if name == "n" else percent(value)
