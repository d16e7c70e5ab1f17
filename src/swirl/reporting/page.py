"""`reports/index.html`: the whole report as one file. It loads nothing but `provenance.js` beside it, if that is there.

Two runs with the same params write the same bytes: what differs between them is in `swirl.reporting.provenance`.
"""

from __future__ import annotations

from collections.abc import Sequence

from swirl.reporting import declines, tables
from swirl.reporting import evidence as shown
from swirl.reporting.coverage import sentence
from swirl.reporting.format import gain, p_equals, percent
from swirl.reporting.gates import gates
from swirl.reporting.markup import Html, raw, tag
from swirl.reporting.results import LABELS, Results
from swirl.reporting.skill_tables import skills_section
from swirl.reporting.state_tables import SAID, estimate, over_base, rows, states_section
from swirl.reporting.style import STYLE

_POLICY = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_TITLE = "SWiRL: results of this run"


def page(results: Results, evidence: shown.Evidence, samples: int, digest: str) -> str:
    """The page as HTML, with up to `samples` trajectory pairs per benchmark; every string of data in it is escaped.

    `digest` is that of `reports/results.json`, by which the page knows whether `provenance.js` is about it.
    """
    scored = bool(results.scores)  # not where there are logged conversations alone
    sections = [
        tables.headline(results) if scored else None,
        states_section(results),
        tables.worse(results),
        what_this_is(results),
        tables.labels(results) if scored else None,
        skills_section(results),
        tables.tools(results),
        tables.by_hops(results),
        tables.funnel(results),
        tables.reward_model(results),
        shown.curves(evidence),
        shown.stops(evidence, results) if scored else None,
        tables.retrieval(results),
        tables.searches(results),
        tables.memory(results),
        shown.samples(evidence, results, samples) if samples and scored else None,
        tables.measures(results) if scored else None,
        gates(evidence.gates),
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", _TITLE),
        tag("style", raw(STYLE)),
    )
    top = tag(
        "header",
        tag("h1", _TITLE),
        tag("ul", [tag("li", words) for words in summary(results)], class_="lead"),
        tag("p", id="provenance", data_results=digest),
        tag("p", tag("a", "All trajectories, step by step and side by side", href="browser/index.html")),
        _paper(),
        _contents(sections),
    )
    body = tag("body", tag("main", top, sections), tag("script", src="provenance.js"))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def summary(results: Results) -> list[str]:
    """Base, SFT and SWiRL: a sentence on the benchmarks trained on, and one on the others; then what training saw, and
    what got worse."""
    sentences = []
    for trained, words in ((True, "Where it was trained"), (False, "Where it was not")):
        parts = []
        for benchmark in results.benchmarks:
            base, swirl = results.score(benchmark, "base"), results.score(benchmark, "swirl")
            if base and swirl and results.trained_on(benchmark) is trained:
                relative = results.gain(benchmark, "swirl")
                change = "from nothing" if relative is None else gain(relative)
                scores = {model: results.score(benchmark, model) for model in ("base", "sft", "swirl")}
                numbers = [f"{LABELS[model]} {percent(score.accuracy)}" for model, score in scores.items() if score]
                parts.append(f"{benchmark}: {', '.join(numbers)} ({change}, p {p_equals(swirl.p_vs_base)})")
        if parts:
            sentences.append(f"{words} (in brackets SWiRL's gain over the base): {'; '.join(parts)}.")
    for benchmark, measure, n, of in rows(results):
        if measure in ("reward", "same_calls") and "swirl" in of and "base" in of:
            sentences.append(
                f"In {n} held-out logged conversations of {benchmark}, {SAID[measure]}, in percent: base "
                f"{estimate(of['base'])}, SWiRL {estimate(of['swirl'])}, difference {over_base(of['swirl'])}."
            )
    return [said for said in (*sentences, sentence(results.coverage), declines.sentence(results.declines)) if said]


def what_this_is(results: Results) -> Html:
    """The caveats that a reader of the numbers must know; those of the embedded default only for a run of it."""
    if "ceiling" not in results.models:
        words = (
            "There is no ceiling: only the embedded default has a sound model before designed flaws. A reward model "
            "that was made here, rather than pointed to, learned from golden labels, though of no evaluation question, "
            "and is a small model, too. The paper's is far stronger than its policy, and saw no label."
        )
        return tables.section("what", "What this is", tables.text(words))
    points = [
        (
            "The base model's flaws are designed. ",
            "A tiny model first learned sound demonstrations (that model is the ceiling), then mostly flawed ones: it "
            "has the skills and uses them unreliably. Most of SWiRL's gain is the recovery of skills that the ceiling "
            "had, so read a gain against the room between base and ceiling.",
        ),
        (
            "The reward model learned from oracle labels. ",
            "The generated world knows the right step, and the reward model was trained on such labels of other "
            "questions. The paper uses a large model that saw none. Its measured errors are below.",
        ),
        (
            "The benchmarks mirror the paper's in miniature. ",
            "They are made of a generated fictional world. They show that the method works end to end and let its "
            "claims be tested; they are not the paper's benchmarks, and no number here reproduces one of the paper's.",
        ),
        (
            "What is real: ",
            "every stage: tools, trajectories, verdicts, training and evaluation are run, none is replayed.",
        ),
    ]
    items = tag("ul", [tag("li", tag("strong", start), rest) for start, rest in points])
    return tables.section("what", "What the embedded default is, and is not", items)


def _contents(sections: Sequence[Html | None]) -> Html:
    """The table of contents."""
    parts = [one for one in sections if isinstance(one, tables.Section)]
    links = [tag("li", tag("a", part.heading, href=f"#{part.name}")) for part in parts]
    return tag("nav", tag("ol", links), aria_label="Contents", class_="contents")


def _paper() -> Html:
    cited = (
        "Goldie, Mirhoseini, Zhou, Cai, Manning: Synthetic Data Generation and Multi-Step RL for Reasoning and Tool Use"
    )
    return tag("p", tag("small", f"The method: {cited}, arXiv 2504.04736."))
