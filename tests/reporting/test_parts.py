"""The parts of the report on their own: escaping, formats of numbers, the paper's numbers, curves, text tables."""

from __future__ import annotations

import dataclasses
import html
from pathlib import Path

import pytest

from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import save_json
from swirl.core.types import Action, JudgeRole, Observation, Score, Step, Stop, Trajectory
from swirl.reporting import charts, evidence, tables, text
from swirl.reporting.coverage import Coverage, sentence
from swirl.reporting.format import gain, number, p_value, percent, rates
from swirl.reporting.markup import join, printable, raw, tag
from swirl.reporting.paper import paper_order, published
from swirl.reporting.results import Arm, ByHops, Funnel, Results, load, memory_at_chance, to_json

JUDGE, ROLE = "endpoint:wise\x1b[0m", JudgeRole.SECOND
ARMS = {name: Arm(4, 12, 0.5, {"mini-gsm8k": 4}) for name in ("none", "process", "outcome", "both")}


def score(model: str, accuracy: float, benchmark: str = "mini-gsm8k") -> Score:
    low, high = accuracy - 0.1, accuracy + 0.1
    return Score(
        benchmark, model, True, 100, accuracy, low, high, None, 0.1, 0.2, 0.3, 0.4, None, None, 2.5, 0.1, JUDGE, ROLE
    )


@pytest.fixture
def results() -> Results:
    """Base and SWiRL on mini-gsm8k and on a benchmark that the paper lacks, without oracle, ceiling or labels."""
    scores = (
        score("base", 0.4),
        score("swirl", 0.5),
        score("base", 0.25, "[red]mine\x1b[0m"),
        score("swirl", 0.2, "[red]mine\x1b[0m"),
    )
    hops = (ByHops("mini-gsm8k", 2, 100, {"base": 0.4}), ByHops("mini-gsm8k", None, 100, {"base": 0.4}))
    return Results(scores, Funnel("none", 8, ARMS, ARMS["none"]), {}, {}, by_hops=hops)


def test_text_is_escaped_and_markup_is_not() -> None:
    made = tag("p", "<b> & 'x'", tag("i", "y"), None, 3, class_="a", title='"><script>', hidden=None)
    assert made == '<p class="a" title="&quot;&gt;&lt;script&gt;">&lt;b&gt; &amp; &#x27;x&#x27;<i>y</i>3</p>'
    assert join(["<", raw("<hr>")]) == "&lt;<hr>"
    assert tag("line", x1=1, stroke_width=2) == '<line x1="1" stroke-width="2"/>'
    assert tag("br") == "<br>"


@pytest.mark.parametrize(
    ("text_", "shown"),
    [
        ("a\n\tb é 漢 🙂", "a\n\tb é 漢 🙂"),
        ("\x00\x1b[31m\r", "��[31m�"),
        ("\x7f\x9b", "��"),
        ("evil\u202egnp.exe\u2069", "evil�gnp.exe�"),
        ("\ud800", "�"),
    ],
)
def test_nothing_that_acts_on_a_terminal_or_page_is_printed(text_: str, shown: str) -> None:
    assert printable(text_) == shown


def test_numbers_as_words() -> None:
    assert (percent(0.377), percent(1.0, 0), percent(None)) == ("37.7%", "100%", "–")
    assert (gain(0.215), gain(-0.05), gain(None)) == ("+21.5%", "-5.0%", "–")
    assert (p_value(0.0009), p_value(0.0123), p_value(1.0), p_value(None)) == ("<0.001", "0.012", "1", "–")
    assert (number(0.12345, 3), number(None)) == ("0.123", "–")


def test_rates_are_grouped_by_kind() -> None:
    metrics = {"heldout.tpr": 0.9, "heldout.search.tpr": 0.98, "heldout.search.n": 10.0, "loss": 1.0}
    metrics |= {"heldout.calculate.tpr": 0.0, "heldout.calculate.n": 0.0}
    assert rates(metrics) == {"all": {"tpr": 0.9}, "search": {"tpr": 0.98, "n": 10.0}}


def test_what_was_seen_as_words() -> None:
    rl, sft = Coverage(2288, 1440, 0.63), Coverage(2288, 2288, 2)
    words = "RL visited 1,440 states, 63% of the kept 2,288; SFT read all twice."
    assert sentence({"sft": sft, "swirl": rl}) == words
    assert sentence({"swirl": Coverage(2288, 2288, 1.504)}) == (
        "RL visited all 2,288 kept states, 1.50 times each on average."
    )
    assert sentence({"sft": Coverage(50, 50, 1)}) == "SFT read all 50 kept states once."
    assert sentence({"sft": Coverage(50, 50, 3)}) == "SFT read all 50 kept states 3 times."
    assert sentence({}) == ""


def test_the_papers_numbers() -> None:
    gains = {name: published(f"mini-{name}").gain for name in ("gsm8k", "hotpotqa", "cofca", "musique", "beerqa")}  # type: ignore[union-attr]
    assert gains == {"gsm8k": 0.215, "hotpotqa": 0.123, "cofca": 0.148, "musique": 0.111, "beerqa": 0.153}
    hotpotqa = published("hotpotqa")
    assert hotpotqa is not None and hotpotqa.process_label == (0.825, 0.91)
    assert published("mini-else") is None
    names = ["other", "mini-beerqa", "gsm8k", "another", "mini-hotpotqa"]
    assert sorted(names, key=paper_order) == ["mini-hotpotqa", "gsm8k", "mini-beerqa", "another", "other"]


@pytest.mark.parametrize(
    ("memory", "at_chance"),
    [
        ({}, None),
        ({"closed_book_before": 0.5, "n": 0}, None),
        ({"closed_book_before": 0.4, "n": 100}, False),
        ({"closed_book_before": 0.08, "n": 100}, True),  # the interval starts at 4.1%
        ({"closed_book_before": 0.08, "n": 100, "chance": 0.01}, False),
        ({"closed_book_before": 0.4, "n": 100, "chance": 0.5}, True),
    ],
)
def test_memory_is_at_chance_unless_its_interval_lies_above(memory: dict[str, float], at_chance: bool | None) -> None:
    assert memory_at_chance(memory) is at_chance


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("reward", "Reward"),
        ("oracle_reward", "Oracle agreement and process label"),
        ("golden.judge_agreement", "Oracle agreement and process label"),
        ("development.mini-gsm8k.accuracy", "Development accuracy"),
        ("steps_per_trajectory", "Steps per trajectory"),
        ("kl", "KL to the reference"),
        ("action_tokens", "Action length"),
        ("kleptomania", None),
        ("loss", None),
    ],
)
def test_columns_find_their_curve(column: str, kind: str | None) -> None:
    assert evidence.curve_kind(column) == kind


def test_a_column_keeps_the_steps_that_have_a_number() -> None:
    series = [
        {"step": 0, "kl": 0.0, "accuracy": 0.5},
        {"step": 5, "kl": 0.1, "accuracy": None},
        {"step": 10, "kl": 0.2},
    ]
    assert evidence.columns(series) == {"kl": [(0.0, 0.0), (5.0, 0.1), (10.0, 0.2)], "accuracy": [(0.0, 0.5)]}


def test_long_text_is_cut_with_a_count() -> None:
    assert evidence.cut("abcdef", 4) == "abcd… (2 more characters)"
    assert evidence.cut("abcd", 4) == "abcd"


def test_a_curve_is_placed_between_its_ends() -> None:
    drawn = charts.line([(0.0, 0.0), (10.0, 1.0), (20.0, 0.5)], "KL <x>", False)
    assert 'points="52,120 177,10 302,65"' in drawn
    assert 'aria-label="KL &lt;x&gt;"' in drawn
    flat = charts.line([(3.0, 2.0)], "one point", False)
    assert 'points="52,65"' in flat


def test_results_come_back_from_their_file(results: Results, tmp_path: Path) -> None:
    save_json(to_json(results), tmp_path / "results.json")
    assert load(tmp_path / "results.json") == results
    save_json({"scores": []}, tmp_path / "results.json")
    with pytest.raises(DataError, match=r"results.json: 'filters' is missing"):
        load(tmp_path / "results.json")
    content = to_json(results)
    content["scores"][1] = {**content["scores"][1], "judge_role": "a friend"}
    save_json(content, tmp_path / "results.json")
    with pytest.raises(DataError, match=r"results.json, entry 1: judgerole is 'a friend'; it is one of the same that"):
        load(tmp_path / "results.json")
    save_json(to_json(results) | {"by_hops": [{"benchmark": "mini-gsm8k"}]}, tmp_path / "results.json")
    with pytest.raises(DataError, match=r"results.json, by_hops, entry 0: 'hops' is missing"):
        load(tmp_path / "results.json")


def test_every_process_label_says_whose_it_is(results: Results) -> None:
    """One benchmark has an oracle, and one has the judge alone."""
    mine, gsm8k = results.benchmarks[::-1]
    scores = [dataclasses.replace(one, process_label_judge=0.75) for one in results.scores]
    known = [dataclasses.replace(one, process_label_oracle=0.5) if one.benchmark == gsm8k else one for one in scores]
    both = dataclasses.replace(results, scores=tuple(known))
    assert (both.labels(gsm8k), both.labels(mine)) == ((0.5, 0.5, True), (0.75, 0.75, False))
    assert text._labelled_by(both) == f"the oracle, but on {mine} by {both.label_judge}"
    alone = dataclasses.replace(results, scores=tuple(one for one in known if one.benchmark == gsm8k))
    assert text._labelled_by(alone) == "the oracle"
    rewarded = [dataclasses.replace(one, judge="reward", judge_role=JudgeRole.REWARD) for one in scores]
    own = dataclasses.replace(results, scores=tuple(rewarded))
    assert text._labelled_by(own) == 'the judge "reward", the same that was the reward'
    assert 'by the judge "reward", the same that was the reward, and by the oracle' in html.unescape(tables.labels(own))
    assert "its own word on the tuned policy is flattered" in tables.labels(own)
    assert "Training did not maximise its word" in tables.labels(both)


def test_gains_are_beside_the_papers(results: Results) -> None:
    gains = to_json(results)["relative_gain"]
    assert gains["mini-gsm8k"] == {
        "stands_for": "GSM8K",
        "paper": 0.215,
        "with_tools": {"swirl": pytest.approx(0.25)},
        "without_tools": {},
    }
    assert gains["[red]mine\x1b[0m"]["paper"] is None


def test_the_page_shows_the_observation_of_every_call_of_a_step() -> None:
    seen = (Observation("a -> 1", False, "search", "a"), Observation("b -> 2", False, "search", "b"))
    step = Step(0, Action("search", "look", "a"), seen, (1,), (0.0,), ())
    shown = str(evidence._steps(Trajectory("t", "q", "b", 0, "m", 0, (1,), (step,), Stop.STEP_LIMIT, "")))
    assert shown.count('class="observation"') == 2
    assert shown.index("look") < shown.index("a -&gt; 1") < shown.index("b -&gt; 2")


def test_the_terminal_report_leaves_out_what_is_absent_and_adds_times(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path)
    save_json(to_json(results), layout.results)
    text.show(layout)
    before = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in before.splitlines()]
    assert "mini-gsm8k 40.0 ±10.0 50.0 ±10.0 +25.0% +21.5% – – → –" in lines
    assert "[red]mine�[0m 25.0 ±10.0 20.0 ±10.0 -20.0% – – – → –" in lines
    assert "mini-gsm8k 2 100 40.0 –" in lines
    assert "No labels to measure the reward model against." in lines
    shown = " ".join(before.split())
    assert 'base to SWiRL, by the judge "endpoint:wise�[0m", a second judge, not the reward. The paper' in shown
    assert "without tools" not in before and "Time and memory" not in before
    assert lines[-3:] == [
        "Runs, curves and gates in MLflow: make mlflow",
        "The whole report: reports/index.html",
        "All trajectories: reports/browser/index.html",
    ]
    for stage, seconds in (("download", 2.25), ("train-swirl", 60.0)):
        save_json({"seconds": seconds, "peak_rss_mb": 100 * seconds, "started": 1.0}, layout.timing(stage))
    text.show(layout)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "download 2.2 225" in lines
    assert "sum, highest 62.2 6000" in lines


def test_an_empty_line_stands_before_every_table_of_the_terminal_report(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a sentence stands before it, as on what RL and SFT saw, or that there are no labels."""
    without = [dataclasses.replace(one, with_tools=False) for one in results.scores]
    seen = {"swirl": Coverage(50, 50, 1.0), "sft": Coverage(50, 50, 1)}
    more = dataclasses.replace(results, scores=(*results.scores, *without), coverage=seen)
    layout = Layout(tmp_path)
    save_json(to_json(more), layout.results)
    save_json({"seconds": 1.0, "peak_rss_mb": 100.0, "started": 1.0}, layout.timing("download"))
    text.show(layout)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    titles = ["Accuracy without tools, %", "Accuracy with tools by hops, %", "Filters over 8 trajectories"]
    for title in [*titles, "Time and memory, last runs here"]:
        at = lines.index(title)
        assert lines[at - 1] == "" and lines[at - 2] != "", title
