"""The report's page as a reader has it: opened from disk in a real browser, on a desk and on a phone, by keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from swirl.core.checksums import checksum
from swirl.core.layout import Layout
from swirl.reporting import provenance
from swirl.reporting.page import alone
from swirl.stages import report
from tests.devtools import Page, chromium, needs_chromium
from tests.stages.test_report import _params, made_up_run

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = made_up_run(tmp_path_factory.mktemp("run"))
    report.run(_params(2), layout)
    return layout


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def opened(page: Page, layout: Layout, width: int = 1280, dark: bool = False) -> Page:
    page.size(width, 800, dark)
    page.open(layout.page)
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    return page


def shown(page: Page) -> str:
    return str(page.run("document.getElementById('provenance').innerText"))


def _written(layout: Layout, digest: str) -> None:
    facts = (("commit", "1a2b3c4", ""), ("MLflow", "this run", "http://127.0.0.1:5000/#/experiments/1/runs/ab"))
    provenance.write(layout, provenance.Provenance(digest, True, (), None, facts))


def test_provenance_is_shown_for_these_results_alone_and_nothing_where_it_is_missing(
    page: Page, finished: Layout
) -> None:
    script = finished.page.with_name("provenance.js")
    script.unlink(missing_ok=True)
    opened(page, finished)
    assert shown(page) == ""
    assert page.run("document.getElementById('provenance').getClientRects().length") == 0
    _written(finished, checksum(finished.results).sha256)
    page.events.clear()
    opened(page, finished)
    assert " ".join(shown(page).split()) == "These are the committed results. commit 1a2b3c4 MLflow this run"
    assert page.run("document.querySelector('#provenance a').href").endswith("/runs/ab")
    browser = finished.page.parent / "browser/index.html"
    page.open(browser)
    page.wait("document.getElementById('provenance').textContent.includes('commit 1a2b3c4')")
    assert page.problems() == []
    _written(finished, "0" * 64)
    opened(page, finished)
    assert shown(page) == "provenance.js is about other results than this page: run swirl report"
    script.unlink()


def test_a_page_that_is_alone_holds_its_provenance_and_says_where_the_browser_is(
    page: Page, finished: Layout, tmp_path: Path
) -> None:
    facts = (("commit", "1a2b3c4", ""), ("MLflow", "this run", "http://127.0.0.1:5000/#/experiments/1/runs/ab"))
    origin = provenance.Provenance("0" * 64, True, (), None, facts)
    made = tmp_path / "index.html"
    made.write_text(alone(finished.page.read_text(encoding="utf-8"), origin), encoding="utf-8")
    page.events.clear()
    page.open(made)
    assert " ".join(shown(page).split()) == "These are the committed results. commit 1a2b3c4"
    assert page.run("document.querySelectorAll('a:not([href^=\"#\"])').length") == 0
    assert "in the project that this is from: reports/browser/index.html" in page.run("document.body.innerText")
    assert [one for one in page.requests() if one != "about:blank"] == [made.as_uri()] and page.problems() == []


def test_the_contents_lead_to_every_section(page: Page, finished: Layout) -> None:
    opened(page, finished)
    names = page.run("[...document.querySelectorAll('section')].map((one) => one.id)")
    links = page.run("[...document.querySelectorAll('nav a')].map((one) => one.getAttribute('href').slice(1))")
    assert names == [
        "results", "worse", "what", "labels", "skills", "tools", "hops", "filters", "reward-model", "training", "stops",
        "retrieval", "memory", "samples", "measures", "gates",
    ]  # fmt: skip
    assert links == names


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_text_can_be_read_in_both_colour_schemes(page: Page, finished: Layout, width: int, dark: bool) -> None:
    found = opened(page, finished, width, dark).contrast()
    assert len(found) > 10
    assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_axe_finds_nothing(page: Page, finished: Layout, width: int, dark: bool) -> None:
    assert opened(page, finished, width, dark).violations() == {}


def test_on_a_phone_swirl_comes_first_and_the_page_itself_does_not_scroll_sideways(
    page: Page, finished: Layout
) -> None:
    opened(page, finished, 400)
    assert page.run("document.documentElement.scrollWidth") == 400
    for section in ("results", "tools", "hops", "labels", "skills"):
        second = f"document.querySelector('#{section} table th:nth-child(2)')"
        assert "SWiRL" in page.run(f"{second}.innerText"), section
        left, right = page.run(f"(({{left, right}}) => [left, right])({second}.getBoundingClientRect())")
        assert 0 < left < right < 400, section


def test_every_region_that_scrolls_is_reached_and_scrolled_by_keyboard(page: Page, finished: Layout) -> None:
    opened(page, finished, 400)
    wide = "[...document.querySelectorAll('body *')].filter((one) => one.scrollWidth > one.clientWidth + 1 && "
    wide += "getComputedStyle(one).overflowX !== 'visible')"
    found = page.run(f"{wide}.map((one) => [one.tabIndex, one.getAttribute('role'), one.getAttribute('aria-label')])")
    assert len(found) > 5
    assert {(place, role) for place, role, _ in found} == {(0, "region")}
    labels = page.run("[...document.querySelectorAll('[role=region]')].map((one) => one.getAttribute('aria-label'))")
    assert len(set(labels)) == len(labels) and all(re.match(r"[A-Z]", label) for label in labels)
    page.run("document.querySelector('#results .scroll').focus()")
    key = {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39}
    page.call("Input.dispatchKeyEvent", type="rawKeyDown", **key)
    page.wait("document.querySelector('#results .scroll').scrollLeft > 0")
