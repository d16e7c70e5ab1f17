"""judge: a verdict on every step of every trajectory and on every outcome, made once for all filter strategies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swirl.comb.logprobs import check_packing
from swirl.config.params import Params
from swirl.core.grading import grade
from swirl.core.journal import Journal, fingerprint
from swirl.core.layout import Layout
from swirl.core.records import load, save, save_json
from swirl.core.types import OUTCOME, Question, Stop, Trajectory, Verdict
from swirl.judging.rationale import RationaleJudge
from swirl.judging.reward import RewardModel
from swirl.pipeline.progress import Progress
from swirl.pipeline.source import digest
from swirl.wiring.graders import load_grader
from swirl.wiring.judges import load_reward_model
from swirl.wiring.servers import print_usage


def run(params: Params, layout: Layout) -> None:
    """Judge the synthesised trajectories, a journalled block at a time."""
    trajectories = load(Trajectory, layout.trajectories)
    questions = {question.id: question for question in load(Question, layout.questions)}
    texts = {name: question.text for name, question in questions.items()}
    judge = load_reward_model(params, layout)
    grader = load_grader(params, layout, judge)
    size = params.rollout.block_size
    sections: list[Any] = [params.seed, size]
    sections += [part.model_dump() for part in (params.runtime, params.judge, params.reward_model)]
    inputs = [layout.trajectories, layout.questions, layout.model("reward"), layout.root / params.prompts.judge]
    journal = Journal(layout.root / ".swirl/journals/judge", fingerprint(digest("judge"), sections, inputs))

    def judged(block: list[Trajectory]) -> list[Verdict]:
        if grader is None:
            outcomes = [outcome_verdict(trajectory, questions[trajectory.question_id].answers) for trajectory in block]
        else:
            outcomes = grader.outcome_verdicts(block, questions)
        return [*judge.process_verdicts(block, texts), *outcomes]

    first = next((trajectory for trajectory in trajectories if trajectory.steps), None)
    if isinstance(judge, RewardModel) and first is not None:
        check_packing(judge.model, judge.comb_of(first), judge.packed)
    writers = {one for one in (judge, grader) if isinstance(one, RationaleJudge)}
    verdicts: list[Verdict] = []
    with Progress(len(trajectories), "judge") as bar:
        for number, start in enumerate(range(0, len(trajectories), size)):
            block = trajectories[start : start + size]
            before = sum(one.failed for one in writers)
            verdicts += journal.block(number, Verdict, lambda block=block: judged(block))  # type: ignore[misc]
            if sum(one.failed for one in writers) > before:
                journal.drop([number])  # so that a resumed run asks again
            bar.update(len(block))
    for one in writers:
        one.check_failures(params.check_steps.max_null_rate)
    save(verdicts, Verdict, layout.verdicts)
    save_json(_metrics(verdicts), layout.metrics("judge"))
    journal.clear()
    print_usage()


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
