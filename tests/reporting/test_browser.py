"""The trajectory browser, opened from disk in a real one: filters, keys, links, size, and what it must not run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swirl.core.types import OUTCOME, Action, Draw, Observation, Question, Step, Stop, Trajectory, Verdict
from swirl.reporting.browser.bodies import Trait, halves, traits
from swirl.reporting.browser.scripts import encoded, script
from swirl.reporting.browser.writing import Source, write
from swirl.reporting.labelled import Labelled
from tests.devtools import Page, chromium, needs_chromium

pytestmark = pytest.mark.slow

HOSTILE = "</script><script>window.hit=1</script><img src=x onerror='window.hit=1'>\u2028\u202e'\"`${window.hit=1}\\"


def step(index: int, kind: str, payload: str, thought: str = "Next: ", seen: str = "", error: bool = False) -> Step:
    tag = {"search": "search_query", "calculate": "math_exp", "answer": "answer"}.get(kind, "")
    text = f"{thought}<{tag}> {payload} </{tag}>" if tag else thought
    shown = (Observation(seen, error, kind, payload),) if seen else ()
    return Step(index, Action(kind, text, payload), shown, (1, 2, 3), (-0.1,) * 3, (4,))


def made(
    model: str, number: int, steps: tuple[Step, ...], right: bool | None, good: tuple[bool | None, ...], oracle: Any
) -> Labelled:
    """A trajectory on question `number` with the judge's and the oracle's labels."""
    name = f"mini-x/evaluation/{number}"
    stop = Stop.ANSWERED if steps[-1].action.kind == "answer" else Stop.STEP_LIMIT
    one = Trajectory(f"{name}/0", name, "mini-x" if number < 2 else "mini-y", 0, model, 1, (1,), steps, stop, "")
    scores = {True: 0.91, False: 0.07, None: None}
    given = {
        i: Verdict(one.id, i, value, scores[value], "because" if i == 0 else "", "reward")
        for i, value in enumerate(good)
    }
    return Labelled(one, right, given, oracle)


ASKED = {
    f"mini-x/evaluation/{number}": Question(
        f"mini-x/evaluation/{number}", "mini-x", "evaluation", f"Question {number}?", ("Oslo",), hops, ("search",)
    )
    for number, hops in enumerate((2, 2, 3))
}
LONG = (step(0, "search", "founder of X", seen="X was founded by Ada."), step(1, "search", "home of Ada", seen="Oslo."))
BASE = [
    made("base", 0, (LONG[0], step(1, "answer", "Ada")), False, (True, True), (True, False)),
    made(
        "base",
        1,
        (LONG[0], replace(LONG[0], index=1), step(2, "answer", "Oslo")),
        True,
        (True, False, True),
        (True, False, True),
    ),
    made(
        "base",
        2,
        (step(0, "malformed", "", thought="I do not know."), step(1, "search", "x", seen="no such page", error=True)),
        False,
        (False, None),
        (False, False),
    ),
]
SWIRL = [
    made("swirl", 0, (*LONG, step(2, "answer", "Oslo")), True, (True, True, True), (True, True, True)),
    made("swirl", 1, (LONG[0], step(1, "answer", "Rome")), False, (True, False), (True, False)),
    made("swirl", 2, (LONG[0], step(1, "answer", "Oslo")), True, (True, True), (True, True)),
]


def synthesis() -> Source:
    """One trajectory of the training data, with eight actions that RL drew at its second step."""
    name = "mini-x/train/7"
    steps = (LONG[0], step(1, "answer", "Ada"))
    one = Trajectory(f"{name}/1", name, "mini-x", 1, "base", 1, (1,), steps, Stop.ANSWERED, "")
    given = {i: Verdict(one.id, i, True, 0.9, "", "reward") for i in (0, 1)} | {
        OUTCOME: Verdict(one.id, OUTCOME, False, 0.0, "", "match")
    }
    words = {
        "Look again: <search_query> home of Ada </search_query>": (5, 0.95, 0.25),
        "<answer> Ada </answer>": (3, 0.2, -0.416),
    }
    drawn = [
        Draw(4, one.id, name, "mini-x", 1, sample, (number,), text, reward, False, advantage, -0.5)
        for number, (text, (count, reward, advantage)) in enumerate(words.items())
        for sample in range(count)
    ]
    return Source("synthesis", "Training data", [Labelled(one, False, given, (True, False))], {one.id: drawn})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        opened.size(1280, 800)
        yield opened


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "browser"
    sources = [Source("base", "Base", BASE), Source("swirl", "SWiRL", SWIRL), synthesis()]
    assert write(sources, ASKED, folder) == 7
    return folder / "index.html"


def opened(page: Page, path: Path, fragment: str = "") -> Page:
    page.events.clear()
    page.open(path, fragment)
    page.wait("document.documentElement.dataset.ready")
    return page


def text(page: Page, selector: str) -> list[str]:
    """What the elements of a selector say, blanks squeezed."""
    found: list[str] = page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.innerText)")
    return [" ".join(words.split()) for words in found]


def choose(page: Page, name: str, value: str) -> None:
    """Choose a value of a filter, as a user does, and wait until the address says so."""
    chosen = f"const one = document.getElementById('f-{name}'); one.value = '{value}';"
    page.run(f"{{ {chosen} one.dispatchEvent(new Event('change', {{bubbles: true}})); }}")
    page.wait(f"location.hash.includes('{name}={value}') || !'{value}'")
    page.run("new Promise(requestAnimationFrame)")


@needs_chromium
def test_all_trajectories_of_all_models_are_listed_by_question(page: Page, browser: Path) -> None:
    opened(page, browser)
    assert text(page, "#count") == ["all 7 trajectories, 4 questions"]
    assert text(page, ".row") == [
        "Question 0? Base ✗ SWiRL ✓ mini-x · 2 hops",
        "Question 1? Base ✓ SWiRL ✗ mini-x · 2 hops",
        "Question 2? Base ✗ SWiRL ✓ mini-y · 3 hops",
        "(its text is not stored) Training data ✗ mini-x",
    ]
    assert page.problems() == []


@needs_chromium
@pytest.mark.parametrize(
    ("filters", "questions", "trajectories"),
    [
        ({"compare": "mended"}, ["Question 0?", "Question 2?"], 4),
        ({"compare": "broken"}, ["Question 1?"], 2),
        ({"source": "base"}, ["Question 0?", "Question 1?", "Question 2?"], 3),
        ({"source": "swirl", "outcome": "wrong"}, ["Question 1?"], 1),
        ({"benchmark": "mini-y"}, ["Question 2?"], 2),
        ({"hops": "3"}, ["Question 2?"], 2),
        ({"stop": "step_limit"}, ["Question 2?"], 1),
        ({"trait": "kind"}, ["Question 0?", "(its text is not stored)"], 2),
        ({"trait": "unjudged"}, ["Question 2?"], 1),
        ({"trait": "error"}, ["Question 2?"], 1),
        ({"trait": "faulty"}, ["Question 2?"], 1),
        ({"trait": "repeats"}, ["Question 1?"], 1),
        ({"trait": "drawn"}, ["(its text is not stored)"], 1),
        ({"compare": "mended", "benchmark": "mini-y"}, ["Question 2?"], 2),
    ],
)
def test_a_filter_lists_what_it_says(
    page: Page, browser: Path, filters: dict[str, str], questions: list[str], trajectories: int
) -> None:
    opened(page, browser)
    for name, value in filters.items():
        choose(page, name, value)
    assert text(page, ".row .asked") == questions
    assert text(page, "#count") == [
        f"{trajectories} of 7 trajectories, {len(questions)} question{'s' if len(questions) > 1 else ''}"
    ]
    page.run("document.querySelector('#filters [type=reset]').click()")
    page.wait("document.querySelectorAll('.row').length === 4")


@needs_chromium
def test_the_filters_say_what_they_choose(page: Page, browser: Path) -> None:
    opened(page, browser)
    page.run("document.getElementById('filters-fold').open = true")
    said = "(label) => [label.firstChild.data.trim(), label.querySelector('select').selectedOptions[0].text]"
    assert page.run(f"[...document.querySelectorAll('#filters label:has(select)')].map({said})") == [
        ["Model", "all"], ["Benchmark", "all"], ["Answer", "all"], ["Ended", "all"], ["Hops", "all"],
        ["Has a step with", "anything"], ["Models compared", "any"],
    ]  # fmt: skip
    assert text(page, ".views h2") == ["Questions with", "Trajectories that have a step with"]
    assert text(page, ".views:last-child li") == [
        "actions that RL drew", "judge GOOD, oracle BAD", "no verdict", "a malformed or cut action",
        "an error of a tool", "a repeated query",
    ]  # fmt: skip


@needs_chromium
def test_words_are_searched_in_questions_and_ids(page: Page, browser: Path) -> None:
    opened(page, browser)
    page.press("/")
    page.wait("document.activeElement.id === 'f-text'")
    page.call("Input.insertText", text="QUESTION 1")
    page.wait("document.querySelectorAll('.row').length === 1")
    assert text(page, ".row .asked") == ["Question 1?"]
    opened(page, browser, "#text=train%2F7")
    assert text(page, ".row .asked") == ["(its text is not stored)"]


@needs_chromium
def test_the_same_question_stands_side_by_side_with_every_label(page: Page, browser: Path) -> None:
    opened(page, browser, "#compare=mended")
    page.run("document.querySelector('.row').click()")
    page.wait("document.querySelectorAll('.column').length === 2")
    assert text(page, ".column > header") == ["Base ✗ wrong answered Ada", "SWiRL ✓ right answered Oslo"]
    assert text(page, ".column:nth-child(1) .step > header") == [
        "Step 1 search 3 tokens ✓ Judge: GOOD 0.91 ✓ Oracle: GOOD",
        "Step 2 answer 3 tokens ✓ Judge: GOOD 0.91 ✗ Oracle: BAD",
    ]
    assert text(page, ".column:nth-child(1) .step:nth-of-type(1) .part") == [
        "Thought Next:", "Call <search_query> founder of X </search_query>", "Result X was founded by Ada.", "",
    ]  # fmt: skip
    tops = "[...document.querySelectorAll('.step:nth-of-type(2)')].map((one) => one.getBoundingClientRect().top)"
    first, second = page.run(tops)
    assert first == second  # equal steps stand in one row
    assert text(page, ".facts") == ["mini-x · 2 hops · mini-x/evaluation/0 · accepted: Oslo"]
    assert page.problems() == []


@needs_chromium
def test_a_call_has_the_name_of_its_tool(page: Page, tmp_path: Path) -> None:
    steps = (step(0, "calculate", "2 + 3", seen="5"), step(1, "answer", "5"))
    write([Source("base", "Base", [made("base", 0, steps, True, (), None)])], ASKED, tmp_path / "b")
    opened(page, tmp_path / "b/index.html", "#t=base%3Amini-x%2Fevaluation%2F0%2F0")
    page.wait("document.querySelector('.step')")
    assert text(page, ".step .kind") == ["calculator", "answer"]
    assert text(page, ".step:nth-of-type(1) .part.call .name") == ["Call"]


@needs_chromium
def test_the_actions_that_rl_drew_have_their_rewards_and_advantages(page: Page, browser: Path) -> None:
    opened(page, browser, "#t=synthesis%3Amini-x%2Ftrain%2F7%2F1")
    page.wait("document.querySelector('.draws')")
    assert text(page, ".step:nth-of-type(2) .fold summary") == ["RL, update 4: 8 actions drawn here"]
    assert text(page, ".draws tbody tr") == [
        "Look again: <search_query> home of Ada </search_query> ×5 0.950 ▲ +0.250 -0.50",
        "<answer> Ada </answer> ×3 0.200 ▼ -0.416 -0.50",
    ]
    assert text(page, ".column > header .badge") == ["✗ wrong", "✗ Judge of the answer: BAD 0.00"]


@needs_chromium
def test_keys_go_through_questions_and_models_and_the_address_follows(page: Page, browser: Path) -> None:
    opened(page, browser)

    def at(key: str, link: str) -> None:
        page.press(key)
        page.wait(f"new URLSearchParams(location.hash.slice(1)).get('t') === {json.dumps(link)}")
        page.wait(f"document.title.startsWith({json.dumps(link.partition(':')[2])})")

    at("j", "swirl:mini-x/evaluation/0/0")
    at("j", "swirl:mini-x/evaluation/1/0")
    at("ArrowLeft", "base:mini-x/evaluation/1/0")
    at("j", "base:mini-x/evaluation/2/0")  # the same model
    at("k", "base:mini-x/evaluation/1/0")
    at("ArrowRight", "swirl:mini-x/evaluation/1/0")
    page.wait("document.querySelectorAll('.column').length === 2")
    page.press("s")
    page.wait("document.querySelectorAll('.column').length === 1")
    page.press("?")
    page.wait("document.getElementById('help').open")
    page.run("document.querySelector('#help button').click()")
    page.press("Escape")
    page.wait("!location.hash.includes('t=') && document.activeElement.id === 'list'")
    page.press("ArrowDown")
    page.wait("location.hash.includes('evaluation%2F0')")


@needs_chromium
def test_two_keys_at_once_go_on_from_each_other(page: Page, browser: Path) -> None:
    opened(page, browser, "#t=swirl%3Amini-x%2Fevaluation%2F1%2F0")
    press = "document.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}))"
    page.run(f"for (const key of ['ArrowLeft', 'j']) {press}")
    page.wait("new URLSearchParams(location.hash.slice(1)).get('t') === 'base:mini-x/evaluation/2/0'")


@needs_chromium
def test_a_permalink_opens_the_filters_the_trajectory_and_the_step(page: Page, browser: Path) -> None:
    opened(page, browser, "#compare=mended&t=base%3Amini-x%2Fevaluation%2F2%2F0&view=one&step=2")
    page.wait("document.querySelector('.step.chosen')")
    assert text(page, ".step.chosen > header") == ["Step 2 search 3 tokens ? Judge: no verdict ✗ Oracle: BAD"]
    assert text(page, ".step.chosen .seen") == ["Error no such page"]
    assert len(text(page, ".row")) == 2
    opened(page, browser, "#t=base%3Anowhere")
    assert text(page, ".hint") == ["There is no trajectory base:nowhere here."]


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_it_is_read_at_400_pixels(page: Page, browser: Path, dark: bool) -> None:
    page.size(400, 800, dark)
    try:
        opened(page, browser)
        fits = "document.documentElement.scrollWidth <= 400"
        assert page.run(fits)
        page.run("document.querySelector('.row').click()")
        page.wait("document.querySelector('.step')")
        assert page.run(fits)
        assert page.run("document.getElementById('detail').scrollWidth <= 400")
        assert page.run("getComputedStyle(document.getElementById('finder')).display") == "none"
        page.run("document.querySelector('.back').click()")
        page.wait("getComputedStyle(document.getElementById('finder')).display !== 'none'")
        background = page.run("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(20, 24, 31)" if dark else "rgb(255, 255, 255)")
    finally:
        page.size(1280, 800)


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_text_can_be_read_and_axe_finds_nothing(page: Page, browser: Path, width: int, dark: bool) -> None:
    """In the list with what a filter leaves out, in open filters, in trajectories with every label, in the help."""
    page.size(width, 800, dark)
    try:
        found = {}
        for shown in ("#outcome=wrong", "#outcome=wrong&t=base%3Amini-x%2Fevaluation%2F2%2F0&view=all",
                      "#t=synthesis%3Amini-x%2Ftrain%2F7%2F1"):  # fmt: skip
            opened(page, browser, shown)
            page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            page.wait("!location.hash.includes('t=') || document.querySelector('.step')")
            found |= {f"{shown} {name}": ratio for name, ratio in page.contrast().items()}
            assert page.violations() == {}, shown
        page.press("?")
        page.wait("document.getElementById('help').open")
        found |= page.contrast()
        assert page.violations() == {}
    finally:
        page.size(1280, 800)
    assert {"#outcome=wrong SPAN mark pale", "#outcome=wrong B right", "#outcome=wrong LABEL "} <= found.keys()
    assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}


@needs_chromium
def test_what_models_wrote_runs_nothing(page: Page, tmp_path: Path) -> None:
    """Scripts in a question, an id, thoughts, calls, results, reasons, answers and drawn actions are shown as text."""
    name = f"q{HOSTILE}"
    asked = Question(name, HOSTILE, "evaluation", HOSTILE, (HOSTILE,), 1, ())
    steps = (step(0, "search", HOSTILE, HOSTILE, HOSTILE, True), step(1, "answer", HOSTILE))
    one = Trajectory(f"t{HOSTILE}", name, HOSTILE, 0, HOSTILE, 1, (1,), steps, Stop.ANSWERED, HOSTILE)
    given = {0: Verdict(one.id, 0, True, 0.5, HOSTILE, HOSTILE)}
    drawn = [Draw(1, one.id, name, HOSTILE, 0, 0, (1,), HOSTILE, None, True, 0.0, -1.0)]
    write(
        [Source("swirl", "SWiRL", [Labelled(one, True, given, None)], {one.id: drawn})], {name: asked}, tmp_path / "b"
    )
    for path in (tmp_path / "b").rglob("*.js"):
        if path.name[0].isdigit() or path.name == "index.js":
            assert "<" not in path.read_text(encoding="ascii")
    opened(page, tmp_path / "b/index.html")
    page.press("j")
    page.wait("document.querySelector('.step')")
    shown = HOSTILE.replace("\u202e", "\ufffd")
    assert page.run("document.querySelector('.question').textContent") == shown
    assert page.run("document.querySelector('.seen pre').textContent") == shown
    assert page.run("document.querySelector('.action pre').textContent") == f"{shown} (cut)"
    assert page.run("window.hit === undefined && document.querySelectorAll('img, body main script').length === 0")
    assert page.problems() == []
    kinds = {request.split(":")[0] for request in page.requests()}
    assert kinds <= {"file", "about"}


@needs_chromium
def test_the_page_itself_forbids_scripts_that_it_did_not_bring(page: Page, browser: Path) -> None:
    opened(page, browser)
    told = "document.addEventListener('securitypolicyviolation', (event) => refused.push(event.effectiveDirective));"
    page.run(f"window.refused = []; {told}")
    element = "{ const one = document.createElement('script');"
    tries = {
        f"{element} one.append('window.hit = 1'); document.head.append(one); }}": "require-trusted-types-for",
        "document.body.innerHTML = '<img src=x onerror=window.hit=1>'": "require-trusted-types-for",
        f"{element} one.src = 'http://127.0.0.1:9/x.js'; document.head.append(one); }}": "require-trusted-types-for",
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))": "img-src",
    }
    for attempt, directive in tries.items():
        page.run("refused.splice(0)")
        page.call("Runtime.evaluate", expression=attempt)
        page.wait(f"refused.includes('{directive}')")
    assert page.run("window.hit === undefined")


def test_a_script_is_ascii_and_holds_nothing_that_ends_it() -> None:
    said = script("f", encoded({"a": "</script>'\\\u2028\ud800é"}))
    assert said == 'f(\'{"a":"\\x3c/script>\\\'\\\\\\\\\\\\u2028\\\\ud800\\\\u00e9"}\');\n'
    with pytest.raises(ValueError, match="Out of range float values"):
        encoded({"a": float("nan")})


def test_thought_and_call_are_the_whole_action() -> None:
    assert halves(Action("search", "Who? <search_query> Ada </search_query>", "Ada")) == (
        "Who? ",
        "<search_query> Ada </search_query>",
    )
    assert halves(Action("answer", "Ada? <<answer>>Ada<</answer>> ok", "Ada")) == (
        "Ada? ",
        "<<answer>>Ada<</answer>> ok",
    )
    assert halves(Action("think", "Let me see.", "")) == ("Let me see.", "")
    assert halves(Action("malformed", "<answer> Ada", "")) == ("", "<answer> Ada")


def test_a_hostile_action_is_split_in_linear_time() -> None:
    call = " <search_query> x </search_query>"
    started = time.process_time()
    assert halves(Action("search", "<" * 100_000 + call, "x")) == ("<" * 100_000 + " ", call[1:])
    assert time.process_time() - started < 2


def test_traits_are_those_of_the_steps() -> None:
    found = [traits(one, False) for one in (*BASE, *SWIRL)]
    unanimous = Trait(0)
    assert found[0] == Trait.JUDGE_TOO_KIND
    assert found[1] == Trait.REPEATS
    assert found[2] == Trait.UNJUDGED | Trait.FAULTY | Trait.TOOL_ERROR
    assert found[3:] == [unanimous, unanimous, unanimous]
    assert traits(made("base", 0, (LONG[0],), False, (False,), (True,)), True) == Trait.JUDGE_TOO_STRICT | Trait.DRAWN


def busy(page: Page) -> float:
    """Seconds that the page's main thread has worked so far."""
    measured = page.call("Performance.getMetrics")["metrics"]
    return float(next(one["value"] for one in measured if one["name"] == "TaskDuration"))


def many(model: str, count: int) -> Iterator[Labelled]:
    """Trajectories of three steps on questions of their own, four to a question over four models."""
    given = {index: Verdict("", index, True, 0.9, "", "reward") for index in range(3)}
    for number in range(count):
        name = f"big/evaluation/{number}"
        steps = (
            step(0, "search", f"founder of {number}", seen=f"{number} was founded by Ada {number}."),
            LONG[1],
            step(2, "answer", "Oslo"),
        )
        one = Trajectory(f"{name}/0", name, "big", 0, model, 1, (), steps, Stop.ANSWERED, "")
        yield Labelled(one, (number * 7 + len(model)) % 3 > 0, given, (True, True, number % 5 > 0))


@needs_chromium
@pytest.mark.slow
def test_a_hundred_thousand_trajectories_open_at_once(page: Page, tmp_path: Path) -> None:
    """In two seconds, of the page's own time: other work on the machine takes as long as it likes."""
    each = 25_000
    asked = {
        name: Question(
            name,
            "big",
            "evaluation",
            f"Who founded the company that made thing {number} in the year after?",
            ("Oslo",),
            2,
            (),
        )
        for number in range(each)
        for name in [f"big/evaluation/{number}"]
    }
    sources = [Source(name, name, many(name, each)) for name in ("ceiling", "base", "sft", "swirl")]
    assert write(sources, asked, tmp_path / "b") == 4 * each
    page.call("Performance.enable", timeDomain="threadTicks")
    page.open(Path(__file__))  # leaves what was open
    page.events.clear()
    worked, began = busy(page), time.monotonic()
    page.open(tmp_path / "b/index.html")
    page.wait("document.documentElement.dataset.ready && document.querySelectorAll('.row').length > 5")
    worked, waited = busy(page) - worked, time.monotonic() - began
    print(f"100,000 trajectories: {worked:.2f} s of the page's own time, {waited:.2f} s on the clock")
    assert 0 < worked < 2
    assert not [request for request in page.requests() if "shards/" in request]
    assert page.run("document.querySelectorAll('.row').length") < 60
    assert text(page, "#count") == ["all 100,000 trajectories, 25,000 questions"]
    worked = busy(page)
    choose(page, "compare", "mended")
    assert re.fullmatch(r"[\d,]+ of 100,000 trajectories, [\d,]+ questions", text(page, "#count")[0])
    print(f"a filter: {busy(page) - worked:.2f} s")
    assert busy(page) - worked < 1
    page.run("document.getElementById('list').scrollTop = 1e9")
    last = "document.querySelector('.row').getAttribute('aria-setsize')"
    page.wait(f"document.querySelector(`.row[aria-posinset='${{{last}}}']`)")
    page.run("[...document.querySelectorAll('.row')].at(-1).click()")
    page.wait("document.querySelectorAll('.column').length === 4 && document.querySelectorAll('.step').length === 12")
    assert len([request for request in page.requests() if "shards/" in request]) == 4
