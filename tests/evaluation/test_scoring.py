"""From trajectories to predictions and scores, checked against literal numbers."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest

from swirl.benchmarks.oracle import label_trajectory
from swirl.core.types import Action, Derivation, JudgeRole, Prediction, Question, Step, Stop, Trajectory, Verdict
from swirl.evaluation.scoring import mean, predict, score
from swirl.judging.reward import RewardModel
from tests import tiny

CHAT = tiny.chat()
JUDGE = RewardModel("reward", tiny.qwen3(len(CHAT.tokenizer)), CHAT, "is what right ?")
QUESTION = Question("q1", "mini", "evaluation", "where is Ada born", ("Oslo city", "Oslo"), 1, ("search",))
DERIVATION = Derivation("q1", "search", ("Ada born",), ("Oslo",))
BY = ("reward", JudgeRole.REWARD)
FIND, WRONG = Action("search", "...", "born Ada"), Action("search", "...", "Rome")


def trajectory(*actions: Action, stop: Stop = Stop.ANSWERED) -> Trajectory:
    ids = CHAT.reply("Ada is born")
    steps = [Step(k, action, (), ids, (0.0,) * len(ids), ()) for k, action in enumerate(actions)]
    return Trajectory("q1/0", "q1", "mini", 0, "m", 0, CHAT.prompt("what"), tuple(steps), stop, "")


def answer(text: str) -> Action:
    return Action("answer", "...", text)


def predicted(made: Trajectory, threshold: float = 0.0, with_tools: bool = True) -> Prediction:
    judge = dataclasses.replace(JUDGE, threshold=threshold)
    verdicts = judge.process_verdicts([made], {"q1": QUESTION.text})
    (row,) = predict(
        "swirl", [made], {"q1": QUESTION}, {"q1": partial(label_trajectory, DERIVATION)}, verdicts, with_tools
    )
    return row


def test_a_right_answer() -> None:
    assert predicted(trajectory(FIND, answer("the Oslo"))) == Prediction(
        question_id="q1",
        benchmark="mini",
        model="swirl",
        with_tools=True,
        answer="the Oslo",
        correct=True,
        em=1.0,
        f1=1.0,
        precision=1.0,
        recall=1.0,
        process_label_judge=1.0,
        process_label_oracle=1.0,
        steps=2,
        malformed=0,
        stop=Stop.ANSWERED,
        trajectory_id="q1/0",
    )


def test_a_partly_right_answer_and_a_wrong_step() -> None:
    row = predicted(trajectory(WRONG, FIND, Action("malformed", "...", ""), answer("Oslo north")))
    assert (row.correct, row.em, row.precision, row.recall) == (False, 0.0, 0.5, 1.0)
    assert row.f1 == pytest.approx(2 / 3)
    assert row.process_label_oracle == 0.25
    assert (row.steps, row.malformed) == (4, 1)


def test_no_answer_is_not_right() -> None:
    row = predicted(trajectory(FIND, FIND, stop=Stop.STEP_LIMIT))
    assert (row.answer, row.correct, row.f1, row.stop) == ("", False, 0.0, Stop.STEP_LIMIT)
    assert row.process_label_oracle == 0.5


def test_no_answer_is_not_an_answer_of_articles() -> None:
    """HotPotQA's rules drop articles, so that nothing equals "A"; only an answered trajectory can be right."""
    question, made = dataclasses.replace(QUESTION, answers=("A",)), trajectory(FIND, stop=Stop.STEP_LIMIT)
    (row,) = predict("swirl", [made], {"q1": question}, {}, [], with_tools=True)
    assert (row.correct, row.em, row.f1) == (False, 0.0, 0.0)


@pytest.mark.parametrize(
    ("said", "golden", "tools", "found"),
    [
        ("-18", "18", ("calculator",), (False, 0.0, 0.0)),  # HotPotQA's rules drop the sign
        ("1.8", "18", ("calculator",), (False, 0.0, 0.0)),  # and the point
        ("$18.00", "18", ("calculator",), (True, 1.0, 1.0)),
        ("in 1918", "1918", ("search",), (False, 0.0, 2 / 3)),  # words are compared where answers are words
        ("two trees", "trees", ("calculator",), (False, 0.0, 2 / 3)),
    ],
)
def test_a_calculated_number_is_right_or_wrong(
    said: str, golden: str, tools: tuple[str, ...], found: tuple[bool, float, float]
) -> None:
    question = dataclasses.replace(QUESTION, answers=(golden,), tools=tools)
    (row,) = predict("swirl", [trajectory(answer(said))], {"q1": question}, {}, [], with_tools=True)
    assert (row.correct, row.em, row.f1) == (found[0], found[1], pytest.approx(found[2]))
    assert tools == ("search",) or golden == "trees" or row.precision == row.recall == found[2]


def test_the_threshold_divides_good_from_bad() -> None:
    made = trajectory(FIND, answer("Oslo"))
    low, high = sorted(JUDGE.trajectory_scores([made])[0])
    assert low < high
    assert predicted(made, threshold=low).process_label_judge == 1.0
    assert predicted(made, threshold=(low + high) / 2).process_label_judge == 0.5
    assert predicted(made, threshold=1.0).process_label_judge == 0.0


def test_without_steps_or_tools_or_derivation_there_is_no_label() -> None:
    empty = predicted(trajectory(stop=Stop.CONTEXT_FULL))
    assert (empty.process_label_judge, empty.process_label_oracle, empty.steps) == (None, None, 0)
    assert predicted(trajectory(answer("Oslo")), with_tools=False).process_label_oracle is None
    (row,) = predict("m", [trajectory(answer("Oslo"))], {"q1": QUESTION}, {}, [], True)
    assert (row.process_label_oracle, row.process_label_judge) == (None, None)


def test_a_step_without_a_word_of_the_judge_does_not_count() -> None:
    verdicts = [Verdict("q1/0", step, good, None, "", "judge") for step, good in enumerate((True, None, False))]
    (row,) = predict("m", [trajectory(FIND, FIND, answer("Oslo"))], {"q1": QUESTION}, {}, verdicts, True)
    assert row.process_label_judge == 0.5


def test_a_score_averages_predictions() -> None:
    rows = [
        predicted(trajectory(FIND, answer("Oslo"))),
        predicted(trajectory(WRONG, FIND, Action("malformed", "...", ""), answer("Oslo north"))),
        predicted(trajectory(FIND, FIND, stop=Stop.STEP_LIMIT)),
        predicted(trajectory(stop=Stop.CONTEXT_FULL)),
    ]
    row = score([dataclasses.replace(row, question_id=f"q{number}") for number, row in enumerate(rows)], *BY)
    assert (row.benchmark, row.model, row.with_tools, row.n, row.p_vs_base) == ("mini", "swirl", True, 4, None)
    assert (row.accuracy, row.em) == (0.25, 0.25)
    # Wilson's 95% interval of 1 in 4
    assert (row.ci_low, row.ci_high) == (pytest.approx(0.045587, abs=1e-6), pytest.approx(0.699358, abs=1e-6))
    assert (row.precision, row.recall) == (0.375, 0.5)
    assert row.f1 == pytest.approx((1 + 2 / 3) / 4)
    assert (row.steps, row.malformed) == (2.0, 0.25)
    # macro: the mean of 1, 1/4 and 1/2, not of the eight steps; the trajectory without steps has no label
    assert row.process_label_oracle == pytest.approx(1.75 / 3)
    assert (row.process_label_judge, row.judge, row.judge_role) == (1.0, "reward", "the same that was the reward")


def test_samples_of_a_question_count_together() -> None:
    right, wrong = predicted(trajectory(FIND, answer("Oslo"))), predicted(trajectory(answer("Rome")))
    row = score([right, right, *(dataclasses.replace(sample, question_id="q2") for sample in (right, wrong))], *BY)
    assert (row.n, row.accuracy, row.em, row.steps) == (2, 0.75, 0.75, 1.75)
    # Wilson's formula by hand for p = 0.75 and n = 2 questions; for 3 of 4 trajectories it would be 0.3006 to 0.9544
    assert (row.ci_low, row.ci_high) == (pytest.approx(0.19787, abs=1e-5), pytest.approx(0.97333, abs=1e-5))


def test_mean_of_nothing_is_unknown() -> None:
    assert mean([]) is None
    assert mean([1.0, 0.0]) == 0.5
