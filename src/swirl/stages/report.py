"""Stage `report`: the paper's tables with this run's numbers, as JSON, one web page and pictures; the browser."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from swirl.core import records
from swirl.core.checksums import checksum
from swirl.core.layout import Layout
from swirl.evaluation.state_scores import state_measures
from swirl.reporting import declines, evidence, plots, results, skills
from swirl.reporting.browser import place
from swirl.reporting.browser.origins import origins
from swirl.reporting.browser.writing import write as write_browser
from swirl.reporting.labelled import answered
from swirl.reporting.page import page
from swirl.reporting.state_tables import load_actions
from swirl.wiring.oracles import oracles_of

if TYPE_CHECKING:
    from swirl.config.params import Params


def run(params: Params, layout: Layout) -> None:
    """Read what the stages wrote; write `layout.results`, `layout.page`, `layout.plots` and the trajectory browser.

    Raises `DataError` for an input that is missing, broken, or contradicts another.
    """
    predictions = results.load_predictions(layout, results.evaluated(layout))
    beside = evidence.read(layout, predictions)
    found = results.gather(layout, predictions, beside.questions)
    oracles = oracles_of(layout, answered(beside.questions.values()))
    skilled = skills.found(layout, predictions, beside.questions, oracles)
    worse = declines.found(predictions, beside.questions, skilled)
    states = tuple(state_measures(load_actions(layout, list(predictions))))
    found = dataclasses.replace(found, skills=skills.shares(skilled), declines=worse, states=states)
    records.save_json(results.to_json(found), layout.results)
    digest = checksum(layout.results).sha256
    pictures = plots.draw(found, evidence.curves(beside.series))
    _write(page(found, beside, pictures, params.report.samples, digest), layout.page)
    plots.write(pictures, layout.plots)
    write_browser(origins(layout, predictions, oracles), beside.questions, place(layout), "../index.html", digest)


def _write(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
