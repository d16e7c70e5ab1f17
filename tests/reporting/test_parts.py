"""The parts of the report on their own: escaping, formats of numbers, the paper's numbers, curves, text tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import save_json
from swirl.core.types import Action, JudgeRole, Observation, Prediction, Score, Step, Stop, Trajectory
from swirl.reporting import evidence, plots, text
from swirl.reporting.coverage import Coverage, sentence
from swirl.reporting.format import gain, number, p_value, percent, rates
from swirl.reporting.gates import gates
from swirl.reporting.markup import printable
from swirl.reporting.page import environment, page
from swirl.reporting.paper import paper_order, published
from swirl.reporting.results import Arm, ByHops, Funnel, Results, load, memory_at_chance, to_json

JUDGE, ROLE = "endpoint:wise\x1b[0m", JudgeRole.SECOND
NO_EVIDENCE = evidence.Evidence({}, [], {}, {}, {})
ARMS = {name: Arm(4, 12, 0.5, {"mini-gsm8k": 4}) for name in ("none", "process", "outcome", "both")}


def score(model: str, accuracy: float, benchmark: str = "mini-gsm8k") -> Score:
    low, high = accuracy - 0.1, accuracy + 0.1
    return Score(
        benchmark, model, True, 100, accuracy, low, high, None, 0.1, 0.2, 0.3, 0.4, None, None, 2.5, 0.1, JUDGE, ROLE
    )


def prediction(model: str, right: bool) -> Prediction:
    value = float(right)
    return Prediction(
        "q", "mini-gsm8k", model, True, "", right, value, value, value, value, None, None, 1, 0, Stop.STEP_LIMIT, "t"
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


def page_of(results: Results, found: evidence.Evidence = NO_EVIDENCE, samples: int = 0) -> str:
    """The page without pictures, blanks squeezed."""
    pictures = plots.Pictures(Markup(), Markup(), {"": {}}, {})
    return " ".join(page(results, found, pictures, samples, "").split())


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


def test_what_a_gate_counted_keeps_its_digits() -> None:
    row = {"meaning": "m", "table": "t", "column": "", "success": True, "violations": 0, "of": 1, "observed": None}
    report = {"expectations": [row], "statistics": {"a": 123456.0, "b": 0.25, "c": 2.02345}, "rows": {"steps": 3}}
    made = gates({"steps": report})["steps"]
    assert made is not None
    assert made.measured.rows == [["a", "123,456"], ["b", "0.25"], ["c", "2.023"]]


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


def _drawn(svg: str, kind: str) -> list[dict[str, str]]:
    return [one.attrib for one in ElementTree.fromstring(svg).iter(kind)]


def test_a_curve_is_placed_between_its_ends(results: Results) -> None:
    named = evidence.curves([{"step": x, "kl": y, "<x>\x1b": 2.0} for x, y in ((0, 0.0), (10, 1.0), (20, 0.5))])
    drawn = plots.draw(results, named).curves
    assert {title: list(group) for title, group in drawn.items() if group} == {
        "KL to the reference": ["kl"],
        "": ["<x>\x1b"],
    }
    kl = drawn["KL to the reference"]["kl"]
    dots = [(float(dot["cx"]), float(dot["cy"])) for dot in _drawn(kl, "circle")]
    (left, low), (middle, high), (right, half) = dots
    assert left < middle < right and (middle - left, half - high) == pytest.approx(
        (right - middle, low - half), abs=0.2
    )
    titles = [one.text for one in ElementTree.fromstring(kl).iter("title")]
    assert titles == ["update 0: 0", "update 10: 1", "update 20: 0.5"]
    assert [one.text for one in ElementTree.fromstring(kl).iter("text")] == ["update 0", "20", "0", "0.5", "1"]
    flat = drawn[""]["<x>\x1b"]
    assert 'aria-label="&lt;x&gt;�"' in flat and len({dot["cy"] for dot in _drawn(flat, "circle")}) == 1


def test_one_point_is_a_curve(results: Results) -> None:
    (drawn,) = plots.draw(results, evidence.curves([{"step": 3, "reward": 0.004}])).curves["Reward"].values()
    assert [one.text for one in ElementTree.fromstring(drawn).iter("title")] == ["update 3: 0.4%"]


def test_pictures_can_stand_in_one_page_and_follow_its_colours(results: Results) -> None:
    """No ids, which would clash, no styles, no links, and no colour that dark mode cannot change."""
    pictures = plots.draw(
        results, evidence.curves([{"step": 1, "$loss$ </svg>": 0.1}, {"step": 2, "$loss$ </svg>": 0.2}])
    )
    drawn = [pictures.accuracy, pictures.filters, *pictures.curves[""].values()]
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert root.attrib.keys() == {"viewBox", "width", "height", "role", "aria-label"}
        assert {one.tag for one in root.iter()} <= {"svg", "path", "circle", "text", "title"}
        names = {name for one in root.iter() for name in one.attrib}
        assert not names & {"id", "style", "href", "class", "clip-path", "font-family"}
        colours = {one.get(name) for one in root.iter() for name in ("fill", "stroke")} - {None, "none"}
        assert colours and all(str(colour).startswith("var(--") for colour in colours)
    bars = [one.text for one in ElementTree.fromstring(pictures.accuracy).iter("title")]
    assert bars[-1] == "[red]mine�[0m, SWiRL: 20.0% (10.0% to 30.0%)" and len(bars) == 4
    assert list(pictures.files) == ["filters.png", "accuracy.png"]


def test_templates_refuse_what_is_missing_and_escape_what_is_there() -> None:
    made = environment().from_string("<p>{{ words }}</p>")
    assert made.render(words="<b> & '￾\x1b\ud800'") == "<p>&lt;b&gt; &amp; &#39;���&#39;</p>"
    assert made.render(words=Markup("<b>‮</b>")) == "<p><b>�</b></p>"
    with pytest.raises(UndefinedError, match="'words' is undefined"):
        made.render()


SHARE = {"benchmark": "", "skill": "first query", "by": "oracle", "n": {"base": 1}, "share": {"base": 1.0}}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"skills": [{name: value for name, value in SHARE.items() if name != "share"}]}, "argument: 'share'"),
        ({"skills": [SHARE | {"skill": "luck"}]}, "skill is 'luck'; it is one of"),
        ({"coverage": {"swirl": {}}}, "'kept', 'visited', and 'passes'"),
        ({"declines": {"rows": []}}, "KeyError('compared')"),
    ],
)
def test_broken_results_are_named_with_what_to_do(
    results: Results, tmp_path: Path, broken: dict[str, object], said: str
) -> None:
    save_json(to_json(results) | {"skills": [SHARE]}, tmp_path / "results.json")
    assert load(tmp_path / "results.json").skills[0].share == {"base": 1.0}
    save_json(to_json(results) | broken, tmp_path / "results.json")
    with pytest.raises(DataError) as refused:
        load(tmp_path / "results.json")
    assert str(refused.value).startswith(f"{tmp_path}/results.json: not as stage report writes it: ")
    assert said in str(refused.value) and str(refused.value).endswith("; run `dvc repro report`")


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
    said = (
        "by the judge &#34;reward&#34;, the same that was the reward, and by the oracle where there is one. It is what"
    )
    assert said in page_of(own)
    assert "its own word on the tuned policy is flattered" in page_of(own)
    assert "Training did not maximise its word" in page_of(both)


def test_gains_are_beside_the_papers(results: Results) -> None:
    gains = to_json(results)["relative_gain"]
    assert gains["mini-gsm8k"] == {
        "stands_for": "GSM8K",
        "paper": 0.215,
        "with_tools": {"swirl": pytest.approx(0.25)},
        "without_tools": {},
    }
    assert gains["[red]mine\x1b[0m"]["paper"] is None


def test_the_page_shows_the_observation_of_every_call_of_a_step(results: Results) -> None:
    seen = (Observation("a -> 1", False, "search", "a"), Observation("b -> 2", False, "search", "b"))
    step = Step(0, Action("search", "look", "a"), seen, (1,), (0.0,), ())
    asked = prediction("base", False), prediction("swirl", True)
    stored = {
        row.model: {
            row.trajectory_id: Trajectory("t", "q", "mini-gsm8k", 0, "m", 0, (1,), (step,), Stop.STEP_LIMIT, "")
        }
        for row in asked
    }
    found = dataclasses.replace(NO_EVIDENCE, predictions={row.model: [row] for row in asked}, trajectories=stored)
    shown = page_of(results, found, 1)
    assert shown.count('class="observation"') == 4
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
