"""`reports/index.html`: the whole report as one file. It loads nothing but `provenance.js` beside it, if that is there.

The words and their places are in `templates/`; what is put there is escaped. Two runs with the same params write the
same bytes: what differs between them is in `swirl.reporting.provenance`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from swirl.reporting import declines, evidence, skill_tables, skills, state_tables, tables
from swirl.reporting.coverage import sentence
from swirl.reporting.format import gain, p_equals, percent
from swirl.reporting.gates import gates
from swirl.reporting.markup import printable
from swirl.reporting.paper import PAPER_GAINS
from swirl.reporting.plots import Pictures
from swirl.reporting.results import LABELS, Results, memory_at_chance
from swirl.reporting.tool_names import tool_name

if TYPE_CHECKING:
    from swirl.reporting.provenance import Provenance

BESIDE = "in the folder <code>browser</code> beside this page"
IN_PROJECT = "in the project that this is from: <code>reports/browser/index.html</code>"
"""Where the trajectory browser is, on the page in its folder, and on one that is `alone`."""


def page(results: Results, found: evidence.Evidence, pictures: Pictures, samples: int, digest: str) -> str:
    """The page as HTML, with up to `samples` trajectory pairs per benchmark; every string of data in it is escaped.

    `digest` is that of `reports/results.json`, by which the page knows whether `provenance.js` is about it.
    """
    skilled = ["", *(name for name in results.benchmarks if any(row.benchmark == name for row in results.skills))]
    made = (
        *(tables.headline, tables.worse, tables.labels, tables.tools, tables.by_hops, tables.funnel),
        *(tables.reward_model, tables.retrieval, tables.searches, tables.measures, state_tables.states),
    )
    template = environment().get_template("page.html")
    return template.render(
        contents=[],
        summary=summary(results),
        coverage=sentence(results.coverage),
        declined=declines.sentence(results.declines),
        decline_note=declines.note(results.declines),
        skilled=skills.sentence(results.skills),
        skill_note=skill_tables.NOTE,
        state_note=state_tables.note(results),
        paper_gains=PAPER_GAINS,
        models=LABELS,
        at_chance=memory_at_chance(results.memory),
        results=results,
        pictures=pictures,
        absent=[title for title, group in pictures.curves.items() if title and not group],
        tables={table.__name__: table(results) for table in made} | {"stops": evidence.stops(found, results)},
        skills={benchmark: skill_tables.tables(results, benchmark) for benchmark in skilled},
        evidence=found,
        samples=[pair for name in results.benchmarks for pair in evidence.samples(found, name)[:samples]],
        sampled=samples > 0,
        gates=gates(found.gates),
        digest=digest,
        beside=Markup(BESIDE),
    )


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
    for benchmark, measure, n, of in state_tables.rows(results):
        if measure in ("reward", "same_calls") and "swirl" in of and "base" in of:
            sentences.append(
                f"In {n} held-out logged conversations of {benchmark}, {state_tables.SAID[measure]}, in percent: base "
                f"{state_tables.estimate(of['base'])}, SWiRL {state_tables.estimate(of['swirl'])}, difference "
                f"{state_tables.over_base(of['swirl'])}."
            )
    sentences += [sentence(results.coverage), declines.sentence(results.declines)]
    return [said for said in sentences if said]


def alone(page: str, origin: Provenance) -> str:
    """The page as it is where nothing lies beside it: with its provenance in it, and without links to the browser."""
    place = re.compile(r'(<p id="provenance"[^>]*>)</p>')
    span = Markup("<span>{} {}</span>")
    said = " ".join(
        span.format(printable(label), printable(value)) for label, value, address in origin.parts if not address
    )
    page = place.sub(lambda found: f"{found[1]}{said}</p>", page, count=1)
    page = page.replace('<script src="provenance.js"></script>\n', "")
    page = page.replace(BESIDE, IN_PROJECT)
    return re.sub(r'<a href="browser/index\.html[^"]*">(.*?)</a>', r"\1", page)


def environment() -> Environment:
    """Where the templates are, and how: what they print is escaped and printable, and what is missing is an error."""
    made = Environment(
        loader=PackageLoader("swirl.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters |= {"cut": evidence.cut, "percent": percent, "tool_name": tool_name}
    return made


def _shown(value: Any) -> str:
    """What a template prints of a value."""
    return Markup(printable(value)) if isinstance(value, Markup) else printable(str(value))
