"""The report stage over a small made-up run: what it writes, and how it refuses what does not fit."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from swirl import tracking
from swirl.cli.run_stage import run_stage
from swirl.config import params
from swirl.config.params import Params
from swirl.core import records
from swirl.core.checksums import checksum
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.types import (
    OUTCOME,
    Action,
    Derivation,
    Draw,
    JudgeRole,
    Observation,
    Passage,
    Prediction,
    Question,
    Score,
    Step,
    Stop,
    Support,
    Trajectory,
    Verdict,
)
from swirl.evaluation.statistics import wilson
from swirl.reporting import text
from swirl.stages import report
from swirl.stages.evaluate import by_hops

N = 20
HOSTILE = "</pre><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)> \u202e\x1b[31m &amp;"

# How many of N questions (ceiling, base, sft, swirl) get right with tools: the first ones, except that SWiRL loses the
# first question of mini-musique and gains a later one.
RIGHT = {
    "mini-gsm8k": (18, 6, 9, 14),
    "mini-hotpotqa": (20, 8, 17, 18),
    "mini-musique": (17, 5, 6, 12),
    "mini-cofca": (19, 10, 11, 12),
    "mini-beerqa": (20, 0, 12, 16),
}
MODELS = ("ceiling", "base", "sft", "swirl")


def made_up_run(root: Path) -> Layout:
    """Everything that the stage reads, as the stages before it would have left it."""
    layout = Layout(root)
    for number, model in enumerate(MODELS):
        rows = []
        for benchmark, right in RIGHT.items():
            rows += _predictions(benchmark, model, right[number], True)
            if benchmark != "mini-gsm8k":
                rows += _predictions(benchmark, model, right[number] // 4, False)
        records.save(rows, Prediction, layout.predictions(model))
        records.save_json(_scores(rows), layout.evaluation(model))
        tried = [_trajectory(row) for row in rows if row.with_tools]
        records.save(tried, Trajectory, layout.prediction_trajectories(model))
    asked = [_question(benchmark, i) for benchmark in RIGHT for i in range(N)]
    records.save(asked, Question, layout.questions)
    records.save([], Support, layout.support)
    records.save([], Derivation, layout.derivations)
    _write_metrics(layout)
    return layout


def _question(benchmark: str, i: int) -> Question:
    """Questions of two hops, but in mini-cofca 12 have two, 5 three and 3 four; those of mini-beerqa are unknown."""
    hops = {"mini-cofca": 2 + (i >= 12) + (i >= 17), "mini-beerqa": 0}.get(benchmark, 2)
    text = f"Where was {i} born? {HOSTILE}"
    return Question(f"{benchmark}-{i:02}", benchmark, "evaluation", text, ("Oslo",), hops, ("search",))


def _predictions(benchmark: str, model: str, right: int, with_tools: bool) -> list[Prediction]:
    correct = [i < right for i in range(N)]
    if model == "swirl" and with_tools and benchmark == "mini-musique":
        correct[0], correct[right] = False, True
    label = 0.5 + right / 2 / N
    return [
        Prediction(
            question_id=f"{benchmark}-{i:02}",
            benchmark=benchmark,
            model=model,
            with_tools=with_tools,
            answer="Oslo" if good else HOSTILE,
            correct=good,
            em=float(good),
            f1=float(good),
            precision=float(good),
            recall=float(good),
            process_label_judge=label if with_tools else None,
            process_label_oracle=label - 0.02 if with_tools else None,
            steps=3,
            malformed=0 if good else 1,
            stop=Stop.ANSWERED if good else Stop.STEP_LIMIT,
            trajectory_id=f"{model}-{benchmark}-{i:02}",
        )
        for i, good in enumerate(correct)
    ]


def _scores(rows: list[Prediction]) -> list[dict[str, Any]]:
    scores = []
    for benchmark, with_tools in sorted({(row.benchmark, row.with_tools) for row in rows}):
        cell = [row for row in rows if (row.benchmark, row.with_tools) == (benchmark, with_tools)]
        right = sum(row.correct for row in cell)
        low, high = wilson(right, N)
        share, first = right / N, cell[0]
        score = dataclasses.asdict(
            Score(
                benchmark, first.model, with_tools, N, share, low, high, None, share, share, share, share,
                first.process_label_judge, first.process_label_oracle, 3.0, 1 - share,
                "reward", JudgeRole.REWARD,
            )
        )  # fmt: skip
        del score["p_vs_base"]
        scores.append(score)
    return scores


def _trajectory(row: Prediction) -> Trajectory:
    def step(index: int, kind: str, words: str, payload: str, observation: str) -> Step:
        seen = (Observation(observation, False, kind, payload),) if observation else ()
        return Step(index, Action(kind, words, payload), seen, (5, 6), (-0.1, -0.2), (7,))

    tag = "answer"
    steps = (
        step(0, "search", "who ? <search_query> the birthplace </search_query>", "the birthplace", f"-> {HOSTILE}"),
        step(1, tag, f"so <answer> {row.answer} </answer>", row.answer, ""),
    )
    return Trajectory(
        row.trajectory_id, row.question_id, row.benchmark, 0, row.model, 1, (1, 2), steps, Stop.ANSWERED, ""
    )


def _write_metrics(layout: Layout) -> None:
    def arm(hotpotqa: int, gsm8k: int, correct: float | None) -> dict[str, Any]:
        both = hotpotqa + gsm8k
        by_benchmark = {"mini-hotpotqa": hotpotqa, "mini-gsm8k": gsm8k}
        return {"trajectories": both, "steps": 3 * both, "correct": correct, "by_benchmark": by_benchmark}

    arms = {
        "none": arm(400, 400, 0.3),
        "process": arm(90, 80, 0.64),
        "outcome": arm(130, 110, 1.0),
        "both": arm(60, 50, 1.0),
    }
    funnel = {"strategy": "process", "strategies": arms, "trajectories": 800, "kept": arm(70, 80, 0.6)}
    records.save_json(funnel, layout.filters)
    measured = {"heldout.accuracy": 0.865, "heldout.tpr": 0.96, "heldout.fpr": 0.22, "heldout.n": 1200}
    measured |= {"heldout.auc": 0.93, "heldout.logprob_accuracy": 0.62, "heldout.logprob_auc": 0.58}
    measured |= {"heldout.chance_accuracy": 0.51, "heldout.good": 0.44}
    measured |= {"heldout.threshold": 0.35, "steps": 2000, "steps_good": 0.8}
    for kind in ("search", "calculate"):
        measured |= {f"heldout.{kind}.accuracy": 0.85, f"heldout.{kind}.tpr": 0.97, f"heldout.{kind}.fpr": 0.25}
    records.save_json(measured, layout.metrics("judge"))
    memory = {"memory.closed_book_before": 0.41, "memory.closed_book_after": 0.02, "memory.n": 200, "loss": 0.2}
    memory |= {"memory.sound.closed_book_before": 0.6, "memory.sound.closed_book_after": 0.03}
    records.save_json(memory, layout.metrics("base_model"))
    found = {"mini-hotpotqa.train.recall@5": 0.775, "mini-hotpotqa.train.all@5": 0.5}
    records.save_json({"mini-hotpotqa.train.passages": 9, **found}, layout.metrics("index"))
    series = [
        {
            "step": step,
            "reward": 0.5 + step / 100,
            "kl": step / 900,
            "entropy": 0.9 - step / 80,
            "action_length": 11 + step / 30,
            "development.steps_per_trajectory": 3.5 - step / 100,
            "malformed_rate": 0.05 - step / 1000,
            "oracle_agreement": 0.8,
            "development.accuracy": 0.4 + step / 150,
            "gradient_norm": 1.0,
        }
        for step in range(0, 45, 5)
    ]
    records.save_series(series, layout.series("train-swirl"))
    records.save_json({"states_kept": 450, "states_visited": 283, "passes": 0.63}, layout.metrics("train-swirl"))
    records.save_json({"states_kept": 450, "states_visited": 450, "passes": 2}, layout.metrics("train-sft"))
    for what in ("questions", "trajectories", "steps"):
        records.save_json(_gate(what), layout.quality(what))


def _gate(what: str) -> dict[str, Any]:
    on_rows = {
        "table": what, "name": "expect_column_values_to_be_unique", "column": "id", "success": True, "violations": 0,
        "of": 800, "observed": None, "rows": [], "meaning": "every id appears once",
    }  # fmt: skip
    overall = on_rows | {"column": "", "observed": 0.02, "of": 1, "meaning": "at most 5% are malformed"}
    statistics = {"malformed_rate": 0.02}
    return {
        "gate": what,
        "success": True,
        "rows": {what: 800},
        "expectations": [on_rows, overall],
        "statistics": statistics,
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = made_up_run(tmp_path_factory.mktemp("run"))
    report.run(_params(2), layout)
    return layout


@pytest.fixture
def run(finished: Layout, tmp_path: Path) -> Layout:
    """A copy of the finished run, which a test may change."""
    shutil.copytree(finished.root, tmp_path / "run")
    return Layout(tmp_path / "run")


def _params(samples: int) -> Params:
    given = params.load(Path(__file__).parents[2] / "params.yaml")
    return given.model_copy(update={"report": params.Report(samples=samples)})


def _rerun(layout: Layout, samples: int = 2) -> str:
    report.run(_params(samples), layout)
    return layout.page.read_text(encoding="utf-8")


def _spoil(path: Path, change: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    records.save_json(content, path)


class _Page(HTMLParser):
    """Collects the elements of a page, and checks that they nest."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.names: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _parsed(page: str) -> _Page:
    parser = _Page()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_results_hold_paired_tests_and_gains(finished: Layout) -> None:
    content = json.loads(finished.results.read_text(encoding="utf-8"))
    assert list(content) == [
        "by_hops", "coverage", "declines", "filters", "memory", "relative_gain", "retrieval", "reward_model", "scores",
        "skills",
    ]  # fmt: skip
    cells = {(row["benchmark"], row["model"], row["with_tools"]): row for row in content["scores"]}
    assert len(cells) == len(content["scores"]) == 36
    assert cells["mini-hotpotqa", "base", True]["p_vs_base"] is None
    # 8 right by both, 10 by SWiRL alone: p = 2 / 2^10
    assert cells["mini-hotpotqa", "swirl", True]["p_vs_base"] == pytest.approx(2 / 1024)
    # one lost, eight gained: p = 2 (1 + 9) / 2^9
    assert cells["mini-musique", "swirl", True]["p_vs_base"] == pytest.approx(20 / 512)
    assert cells["mini-gsm8k", "ceiling", True]["p_vs_base"] == pytest.approx(2 / 4096)
    gains = content["relative_gain"]
    assert gains["mini-hotpotqa"]["stands_for"] == "HotPotQA"
    assert gains["mini-hotpotqa"]["paper"] == 0.123
    assert gains["mini-hotpotqa"]["with_tools"] == {"sft": pytest.approx(9 / 8), "swirl": pytest.approx(10 / 8)}
    assert gains["mini-beerqa"]["with_tools"] == {"sft": None, "swirl": None}
    assert gains["mini-gsm8k"]["without_tools"] == {}
    memory = {"closed_book_before": 0.41, "closed_book_after": 0.02, "n": 200}
    assert content["memory"] == memory | {"sound.closed_book_before": 0.6, "sound.closed_book_after": 0.03}
    assert content["reward_model"]["heldout.fpr"] == 0.22
    assert content["reward_model"]["heldout.threshold"] == 0.35
    assert "steps_good" not in content["reward_model"]
    assert content["filters"]["strategies"]["process"]["trajectories"] == 170


def test_page_shows_the_numbers_of_every_part(finished: Layout) -> None:
    words = re.sub(r"\s+", " ", _parsed(finished.page.read_text(encoding="utf-8")).text)
    for part in (
        "mini-hotpotqa: Base 40.0%, SFT 85.0%, SWiRL 90.0% (+125.0%, p = 0.002)",
        "+12.3%HotPotQA",
        "each of the better of two models: one trained on HotPotQA, one on GSM8K. SWiRL here is one model",
        "trained on HotPotQA alone, so its GSM8K is transfer",
        'by the judge "reward", the same that was the reward, and by the oracle where there is one. It is what',
        "91.0%82.5%",
        "The base model's flaws are designed.",
        "The reward model learned from oracle labels.",
        "process (used)17021.2%51064.0%8090",
        "after the cap 150 trajectories with 450 steps",
        "A verdict is GOOD where P(GOOD) is at least 0.35 (judge.threshold).",
        "all86.5%96.0%22.0%0.9362.0%0.5851.0%44.0%1200",
        "the base model gives 41.0% of the old answers, from before some facts were changed, and 2.0% of the new ones; "
        "the ceiling 60.0% of the old answers",
        "There is a memory to contradict",
        "gradient_norm",
        "trajectories: passed",
        "at most 5% are malformed",
        "mini-musique, lost",
        "mini-gsm8k, base",
    ):
        assert part.lower() in words.lower(), part


SEEN = "RL visited 283 states, 63% of the kept 450; SFT read all twice."


def test_what_rl_and_sft_saw_stands_beside_every_comparison_of_them(
    finished: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    page = finished.page.read_text(encoding="utf-8")
    compared = [part for part in page.split("<section ") if "SFT" in part.partition("</thead>")[0] or "<td>SFT" in part]
    assert [part.split('"')[1] for part in compared] == [
        "en",
        "results",
        "skills",
        "tools",
        "hops",
        "measures",
    ]  # "en": above all sections
    assert all(SEEN in part for part in compared)
    text.show(finished)
    shown = " ".join(capsys.readouterr().out.split())
    assert (shown.count(SEEN), shown.count("SFT SWiRL")) == (4, 6)  # the tables of skills have three such heads


def test_without_training_nothing_is_said_of_what_it_saw(run: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    for item in ("sft", "swirl"):
        records.save_json({}, run.metrics(f"train-{item}"))
    assert "RL visited" not in _rerun(run)
    text.show(run)
    assert "RL visited" not in capsys.readouterr().out


def test_hostile_text_stays_text_and_nothing_is_loaded(finished: Layout) -> None:
    page = finished.page.read_text(encoding="utf-8")
    parsed = _parsed(page)
    assert not parsed.names & {"img", "link", "iframe", "object", "base", "form"}
    linked = [value for name, value in parsed.attributes if name == "href" and value]
    assert all(value.startswith(("browser/index.html", "#")) for value in linked)
    assert page.count("<script") == 1 and '<script src="provenance.js"></script>' in page
    names = {name for name, _ in parsed.attributes}
    assert not names & {"srcset", "data", "action", "style"}
    assert not any(name.startswith("on") for name in names)
    assert "alert('x')" in parsed.text and "&amp;" in parsed.text  # shown as the model wrote it
    assert "\u202e" not in page and "\x1b" not in page
    assert "url(" not in page and "@import" not in page


def test_the_same_inputs_give_the_same_bytes(finished: Layout, run: Layout) -> None:
    shutil.rmtree(run.plots)
    _rerun(run)
    outputs = [run.results, run.page, *sorted(run.plots.iterdir())]
    assert [path.name for path in outputs[2:]] == ["accuracy.png", "filters.png", "training.png"]
    browser = [path for path in (run.page.parent / "browser").rglob("*") if path.is_file()]
    assert len(browser) == 8 + 4
    for path in outputs + browser:
        assert path.read_bytes() == (finished.root / path.relative_to(run.root)).read_bytes(), path.name
        assert str(run.root).encode() not in path.read_bytes()


def test_where_the_results_come_from_is_beside_the_page_and_in_no_output(
    run: Layout, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def recorded(*_: Any) -> Iterator[tracking.Recorded]:
        yield tracking.Recorded("https://mlflow.example/#/experiments/1/runs/ab")

    monkeypatch.setattr(tracking, "stage_run", recorded)
    shutil.copy(root / "dvc.yaml", run.root)
    shutil.copy(root / "params.yaml", run.root)
    before = run.page.read_bytes()
    run_stage("report", None, _params(2), run)
    assert run.page.read_bytes() == before
    script = run.page.with_name("provenance.js").read_text(encoding="utf-8")
    assert "https://mlflow.example/#/experiments/1/runs/ab" in script
    digest = checksum(run.results).sha256
    index = (run.page.parent / "browser/index.js").read_text(encoding="ascii")
    assert all(digest in shown for shown in (script, before.decode(), index))
    text.show(run)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith("These are your own results, not committed ones. They are stale: dvc.lock does not")
    assert "seed 0, duration 0 s in 1 stage, MLflow https://mlflow.example/#/experiments/1/runs/ab" in re.sub(
        r"duration \d+ s", "duration 0 s", printed
    )


def test_optional_parts_are_left_out_with_a_sentence(run: Layout) -> None:
    rows = [{"step": 0, "reward": 0.5}, {"step": 1, "reward": None}]
    records.save_json(rows, run.series("train-swirl"))
    run.quality("steps").unlink()
    records.save_json([], run.evaluation("ceiling"))
    run.prediction_trajectories("swirl").unlink()
    records.save_json({"loss": 0.2}, run.metrics("base_model"))
    records.save_json({"steps": 2000}, run.metrics("judge"))
    words = _parsed(_rerun(run)).text
    absent = "Action length, KL to the reference, Entropy, Steps per trajectory, Malformed rate"
    assert f"Not in this run's series: {absent}, Development accuracy, Oracle agreement and process label." in words
    assert "No report of the steps gate." in words
    assert "There is no ceiling" in words
    assert "No stored trajectories to show." in words
    assert "No labels to measure this reward model against." in words
    assert "Memory against reading" not in words


@pytest.mark.parametrize(
    ("samples", "shown"), [(0, []), (1, ["gained"]), (2, ["gained", "lost"]), (3, ["gained", "lost", "gained"])]
)
def test_samples_a_benchmark_take_gains_and_losses_by_turns(run: Layout, samples: int, shown: list[str]) -> None:
    words = _parsed(_rerun(run, samples)).text
    assert re.findall(r"mini-musique, (gained|lost):", words) == shown
    assert ("Before and after" in words) == (samples > 0)


def test_a_sample_names_a_call_by_its_tool(run: Layout) -> None:
    for model in ("base", "swirl"):
        made = []
        for one in records.load(Trajectory, run.prediction_trajectories(model)):
            first, *rest = one.steps
            call = dataclasses.replace(first, action=dataclasses.replace(first.action, kind="calculate"))
            made.append(dataclasses.replace(one, steps=(call, *rest)))
        records.save(made, Trajectory, run.prediction_trajectories(model))
    named = re.findall(r"<li><span>(\w+)</span><pre>", _rerun(run, 1))
    assert set(named) == {"calculator", "answer"}


def test_memory_at_chance_is_said(run: Layout) -> None:
    _spoil(run.metrics("base_model"), lambda metrics: metrics.update({"memory.closed_book_before": 0.03}))
    assert "mini-cofca tests nothing about memory" in _rerun(run)


@pytest.mark.parametrize("what", ["evaluation", "predictions", "filters", "judge", "base_model"])
def test_a_missing_required_input_is_named(run: Layout, what: str) -> None:
    path = {
        "evaluation": run.evaluation("sft"),
        "predictions": run.predictions("swirl"),
        "filters": run.filters,
        "judge": run.metrics("judge"),
        "base_model": run.metrics("base_model"),
    }[what]
    path.unlink()
    with pytest.raises(DataError, match=re.escape(f"{path} does not exist")):
        _rerun(run)


def test_scores_that_contradict_their_predictions_are_refused(run: Layout) -> None:
    _spoil(run.evaluation("swirl"), lambda rows: rows[0].update(accuracy=0.123))
    with pytest.raises(DataError, match=r"16 of 20 answers right on mini-beerqa without|4 of 20.*says 0.123 of n=20"):
        _rerun(run)


def test_labels_of_two_judges_are_not_compared(run: Layout) -> None:
    _spoil(run.evaluation("swirl"), lambda rows: [row.update(judge="endpoint:other") for row in rows])
    message = (
        f"{run.evaluation('swirl')}: the judge is 'endpoint:other', the same that was the reward, but in "
        f"{run.evaluation('base')} it is 'reward', the same that was the reward; run evaluate again for both, with one "
        "evaluate.judge"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        _rerun(run)


def _half_as_wrong(score: dict[str, Any]) -> None:
    accuracy = (1 + score["accuracy"]) / 2
    low, high = wilson(accuracy * N, N)
    score.update(accuracy=accuracy, ci_low=low, ci_high=high)


def test_of_several_samples_the_means_of_the_questions_are_tested(run: Layout) -> None:
    """With a second sample of each question, always right, the same questions are ahead, and no more of them."""
    before = records.load_json(run.results)["scores"]
    for model in MODELS:
        rows = records.load(Prediction, run.predictions(model))
        more = [dataclasses.replace(row, correct=True, trajectory_id=f"{row.trajectory_id}/1") for row in rows]
        records.save([*rows, *more], Prediction, run.predictions(model))
        _spoil(run.evaluation(model), lambda scores: [_half_as_wrong(score) for score in scores])
    _rerun(run)
    results = records.load_json(run.results)
    assert [score["p_vs_base"] for score in results["scores"]] == [score["p_vs_base"] for score in before]
    two = next(row for row in results["by_hops"] if (row["benchmark"], row["hops"]) == ("mini-cofca", 2))
    assert (two["n"], two["accuracy"]["base"]) == (12, pytest.approx((10 / 12 + 1) / 2))


def test_other_questions_than_base_had_are_refused(run: Layout) -> None:
    rows = records.load(Prediction, run.predictions("sft"))
    records.save([dataclasses.replace(rows[0], question_id="other"), *rows[1:]], Prediction, run.predictions("sft"))
    with pytest.raises(DataError, match=r"sft.*mini-gsm8k with tools, paired with .*base.*'mini-gsm8k-00'"):
        _rerun(run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"accuracy": 1.5}, r"entry 0 \(mini-beerqa\): accuracy is 1.5"),
        ({"f1": None}, "f1 is None"),
        ({"f1": "0.5"}, "f1 is '0.5'"),
        ({"model": "base"}, "model is 'base', expected 'swirl'"),
    ],
)
def test_a_broken_score_is_named(run: Layout, change: dict[str, Any], words: str) -> None:
    _spoil(run.evaluation("swirl"), lambda rows: rows[0].update(change))
    with pytest.raises(DataError, match=words):
        _rerun(run)


def test_scores_that_are_no_list_are_refused(run: Layout) -> None:
    records.save_json({"accuracy": 1}, run.evaluation("swirl"))
    with pytest.raises(
        DataError, match=r"swirl.*: expected a list with one object per benchmark, got \{'accuracy': 1\}$"
    ):
        _rerun(run)


def test_a_funnel_without_a_strategy_is_refused(run: Layout) -> None:
    _spoil(run.filters, lambda content: content["strategies"].pop("both"))
    with pytest.raises(DataError, match=r"filters.json: strategies has no 'both'"):
        _rerun(run)


def test_a_file_that_is_no_gate_report_is_refused(run: Layout) -> None:
    records.save_json({"success": True}, run.quality("questions"))
    with pytest.raises(DataError, match="reports/quality/questions.json is not a gate's report"):
        _rerun(run)


def test_the_terminal_shows_the_same_results(finished: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    text.show(finished)
    printed = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "mini-hotpotqa 100.0 ±8.1 40.0 ±19.7 85.0 ±15.4 90.0 ±13.7 +125.0% +12.3% 0.002 68% → 93%" in lines
    assert "process (used) 170 21.2% 510 64.0%" in lines
    assert "Reward model against the oracle, GOOD where P(GOOD) is at least 0.35" in lines
    assert max(len(line) for line in printed.splitlines()) <= 100
    assert "\x1b" not in printed
    assert "each of the better of two models: one trained on HotPotQA, one on GSM8K." in " ".join(printed.split())


def test_accuracy_by_hops_is_that_of_evaluate_and_is_shown(run: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    rows = records.load_json(run.results)["by_hops"]
    assert [(row["benchmark"], row["hops"], row["n"]) for row in rows] == [
        ("mini-cofca", 2, 12),
        ("mini-cofca", 3, 5),
        ("mini-cofca", 4, 3),
        ("mini-cofca", None, 20),
    ]
    # of the 12 + 5 + 3 questions, SWiRL has the first 12 right and the ceiling the first 19
    assert [row["accuracy"]["swirl"] for row in rows] == [1.0, 0.0, 0.0, 1 / 3]
    assert [row["accuracy"]["ceiling"] for row in rows[2:]] == [2 / 3, (2 + 2 / 3) / 3]
    questions = {row.id: row for row in records.load(Question, run.questions)}
    for model in MODELS:
        metrics = by_hops(records.load(Prediction, run.predictions(model)), questions)
        names = ["mean_of_hops" if row["hops"] is None else f"hops_{row['hops']}" for row in rows]
        told = {f"mini-cofca.{name}.accuracy": row["accuracy"][model] for name, row in zip(names, rows, strict=True)}
        assert told == metrics
    words = _parsed(run.page.read_text(encoding="utf-8")).text
    assert "mini-cofca, 2100.0%91.7%83.3%100.0%12" in words
    assert "mini-cofca, mean33.3%30.6%27.8%88.9%20" in words
    text.show(run)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "mini-cofca 4 3 66.7 0.0 0.0 0.0" in lines
    assert "mini-cofca mean 20 88.9 27.8 30.6 33.3" in lines


def test_one_number_of_hops_makes_no_table(run: Layout) -> None:
    asked = records.load(Question, run.questions)
    records.save([dataclasses.replace(row, hops=2) for row in asked], Question, run.questions)
    words = _parsed(_rerun(run)).text
    assert records.load_json(run.results)["by_hops"] == []
    assert "by hops" not in words


def test_recall_of_the_search_is_reported(run: Layout) -> None:
    assert records.load_json(run.results)["retrieval"] == {
        "mini-hotpotqa.train.recall@5": 0.775,
        "mini-hotpotqa.train.all@5": 0.5,
    }
    words = _parsed(run.page.read_text(encoding="utf-8")).text
    assert "mini-hotpotqa.train" in words
    assert "77.5" in words


def _searched(model: str, number: int, *results: str) -> Trajectory:
    """A trajectory on a question of mini-hotpotqa that searches once for each result, and calculates once."""
    seen = [Observation(result, False, "search", "x") for result in results]
    seen.append(Observation("Ada was born in Oslo.", False, "calculate", "1"))
    steps = tuple(Step(i, Action(one.kind, "look", "x"), (one,), (5,), (-0.1,), (7,)) for i, one in enumerate(seen))
    name = f"mini-hotpotqa-{number:02}"
    return Trajectory(f"{model}-{name}", name, "mini-hotpotqa", 0, model, 1, (1,), steps, Stop.STEP_LIMIT, "")


def test_the_share_of_searches_that_bring_a_new_supporting_page(
    run: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ada and Oslo support question 0, Oslo question 1; none is known of question 2."""
    ada, oslo, other = "Ada was born in Oslo.", f"Oslo is a city. {'It is in Norway. ' * 20}", "Rome is a city."
    assert "searches" not in json.loads(run.results.read_text(encoding="utf-8"))
    corpus = [Passage("p0", "Ada", ada), Passage("p1", "Oslo", oslo), Passage("p2", "Rome", other)]
    records.save(corpus, Passage, run.corpus("mini-hotpotqa", "evaluation"))
    support = [Support("mini-hotpotqa-00", ("p0", "p1")), Support("mini-hotpotqa-01", ("p1",))]
    records.save(support, Support, run.support)
    made = {
        "ceiling": [],
        "base": [_searched("base", 0, other, f"{other} | {ada}", ada, "no result"), _searched("base", 2, ada)],
        "sft": [_searched("sft", 0, f"{ada} | {oslo}"), _searched("sft", 1, ada, oslo, oslo)],
        "swirl": [_searched("swirl", 0, ada, f"{ada} | Oslo: {oslo[:90]}"), _searched("swirl", 1, oslo[:60], oslo)],
    }
    for model, rows in made.items():
        records.save(rows, Trajectory, run.prediction_trajectories(model))
    words = _parsed(_rerun(run, 0)).text
    assert json.loads(run.results.read_text(encoding="utf-8"))["searches"] == [
        {
            "benchmark": "mini-hotpotqa",
            "searches": {"ceiling": 0, "base": 4, "sft": 4, "swirl": 4},
            "new_support": {"base": 0.25, "sft": 0.5, "swirl": 0.75},
        }
    ]
    assert "Searches that bring a new supporting page" in words
    assert "mini-hotpotqa75.0%of 450.0%of 425.0%of 4–of 0" in words
    text.show(run)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    at = lines.index("Searches that bring a new supporting page, %")
    assert lines[at + 2] == "benchmark Ceiling Base SFT SWiRL"
    assert lines[at + 4] == "mini-hotpotqa – 25.0 50.0 75.0"
    run.corpus("mini-hotpotqa", "evaluation").unlink()
    records.save(corpus[:1], Passage, run.corpus("mini-hotpotqa", "evaluation"))
    with pytest.raises(DataError, match=r"mini-hotpotqa.evaluation.parquet: it has no passage 'p1', which .*support"):
        _rerun(run)


def _handed_over(path: Path) -> list[Any]:
    """What a script of the browser hands to its function."""
    literals = re.search(r"^swirl\.\w+\((.*)\);\n$", path.read_text(encoding="ascii"))
    assert literals, path
    return [json.loads(one) for one in ast.literal_eval(f"[{literals[1]}]")]


def test_the_browser_holds_every_stored_trajectory_with_its_labels(run: Layout) -> None:
    """Those of all evaluated models, then those that training data come from with what RL drew there."""
    name = "mini-hotpotqa/train/3"
    row = dataclasses.replace(records.load(Prediction, run.predictions("base"))[0], question_id=name)
    trained = dataclasses.replace(_trajectory(row), id=f"{name}/0", benchmark="mini-hotpotqa")
    records.save([trained], Trajectory, run.trajectories)
    verdicts = [Verdict(trained.id, 0, True, 0.75, "", "reward"), Verdict(trained.id, 1, False, 0.125, "", "reward")]
    records.save([*verdicts, Verdict(trained.id, OUTCOME, True, 1.0, "", "match")], Verdict, run.verdicts)
    draws = [Draw(2, trained.id, name, "mini-hotpotqa", 1, 0, (5,), "drawn", 0.5, False, 0.25, -1.5)]
    records.save(draws, Draw, run.draws("swirl"))
    derived = Derivation("mini-gsm8k-00", "search", ("the birthplace",), ("Oslo",))
    records.save([derived], Derivation, run.derivations)
    page = _rerun(run)
    folder = run.page.parent / "browser"
    (index,) = _handed_over(folder / "index.js")
    assert [(one["name"], one["rows"], one["shards"]) for one in index["sources"]] == [
        *((model, 100, [0]) for model in MODELS),
        ("synthesis", 1, [0]),
    ]
    assert {name: len(values) for name, values in index["rows"].items()} == dict.fromkeys(index["rows"], 401)
    source, shard, bodies = _handed_over(folder / "shards/4-0.js")
    assert (source, shard, len(bodies)) == (4, 0, 1)
    assert bodies[0]["outcome"] == [True, 1.0, ""]
    assert [step["judge"] for step in bodies[0]["steps"]] == [[True, 0.75, ""], [False, 0.125, ""]]
    assert bodies[0]["steps"][1]["draws"] == [{"update": 2, "actions": [["drawn", 1, 0.5, 0.25, -1.5, False]]}]
    places = {index["ids"][str(row)]: row for row in range(400)}
    _, _, of_base = _handed_over(folder / "shards/1-0.js")
    assert [step["oracle"] for step in of_base[places["base-mini-gsm8k-00"] - 100]["steps"]] == [True, True]
    assert not any("oracle" in step for step in of_base[places["base-mini-gsm8k-01"] - 100]["steps"])
    links = [parse_qs(link)["t"][0] for link in re.findall(r'href="browser/index.html#([^"]+)"', page)]
    assert links and {link.partition(":")[2] for link in links} <= places.keys()


def test_the_skills_are_measured_by_the_stored_labels(run: Layout) -> None:
    """Every model searches once and answers; there is an oracle for the first ten questions of mini-gsm8k."""
    derived = [Derivation(f"mini-gsm8k-{i:02}", "search", ("the birthplace",), ("Oslo",)) for i in range(10)]
    records.save(derived, Derivation, run.derivations)
    _rerun(run)
    found = {(row["benchmark"], row["skill"], row["by"]): row for row in records.load_json(run.results)["skills"]}
    timed = found[
        "", "when to answer", "oracle"
    ]  # a wrong answer comes after one call, and the questions have two hops
    assert (timed["n"], timed["share"]) == (
        dict.fromkeys(("base", "sft", "swirl"), 10),
        {"base": 0.6, "sft": 0.9, "swirl": 1.0},
    )
    assert found["mini-cofca", "early stops", "count"]["share"] == dict.fromkeys(("base", "sft", "swirl"), 1.0)
