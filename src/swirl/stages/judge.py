"""judge: a verdict for every step of every trajectory and for every outcome, once, whatever the filter."""

from __future__ import annotations

from collections.abc import Sequence

from swirl.grading import grade
from swirl.journal import Journal, fingerprint
from swirl.judges import load_reward_model
from swirl.judging.reward import RewardModel
from swirl.layout import Layout
from swirl.params import Params
from swirl.progress import Progress
from swirl.records import load, save, save_json
from swirl.types import OUTCOME, Question, Stop, Trajectory, Verdict


def run(params: Params, layout: Layout) -> None:
    """Judge the synthesised trajectories, a journalled block at a time."""
    trajectories = load(Trajectory, layout.trajectories)
    answers = {question.id: question.answers for question in load(Question, layout.questions)}
    judge = load_reward_model(params, layout)
    size = params.rollout.block_size
    sections = [params.runtime.model_dump(), params.judge.model_dump(), size]
    inputs = [layout.trajectories, layout.questions, layout.model("reward"), layout.root / params.prompts.judge]
    journal = Journal(layout.root / ".swirl/journals/judge", fingerprint(sections, inputs))
    verdicts: list[Verdict] = []
    with Progress(len(trajectories), "judge") as bar:
        for number, start in enumerate(range(0, len(trajectories), size)):
            block = trajectories[start : start + size]
            verdicts += journal.block(
                number,
                Verdict,
                lambda block=block: [  # type: ignore[misc]
                    *process_verdicts(judge, block, params.judge.threshold),
                    *(outcome_verdict(trajectory, answers[trajectory.question_id]) for trajectory in block),
                ],
            )
            bar.update(len(block))
    save(verdicts, Verdict, layout.verdicts)
    save_json(_metrics(verdicts), layout.metrics("judge"))
    journal.clear()


def process_verdicts(judge: RewardModel, trajectories: Sequence[Trajectory], threshold: float) -> list[Verdict]:
    """One verdict a step; the judge sees the conversation up to the step and no golden label."""
    verdicts = []
    judged = [trajectory for trajectory in trajectories if trajectory.steps]
    for trajectory, scores in zip(judged, judge.trajectory_scores(judged), strict=True):
        verdicts += [
            Verdict(trajectory.id, step.index, score >= threshold, score, "", judge.name)
            for step, score in zip(trajectory.steps, scores, strict=True)
        ]
    return verdicts


def outcome_verdict(trajectory: Trajectory, answers: Sequence[str]) -> Verdict:
    """Whether the final answer matches the golden one; a trajectory without an answer is BAD."""
    good = trajectory.stop is Stop.ANSWERED and grade(trajectory.answer, answers)
    return Verdict(trajectory.id, OUTCOME, good, float(good), "", "match")


def _metrics(verdicts: Sequence[Verdict]) -> dict[str, float]:
    steps = [verdict for verdict in verdicts if verdict.step != OUTCOME]
    outcomes = [verdict for verdict in verdicts if verdict.step == OUTCOME]
    return {
        "steps": len(steps),
        "steps_good": sum(bool(verdict.good) for verdict in steps) / max(1, len(steps)),
        "steps_null": sum(verdict.good is None for verdict in steps) / max(1, len(steps)),
        "outcomes": len(outcomes),
        "outcomes_good": sum(bool(verdict.good) for verdict in outcomes) / max(1, len(outcomes)),
        "outcomes_null": sum(verdict.good is None for verdict in outcomes) / max(1, len(outcomes)),
    }
