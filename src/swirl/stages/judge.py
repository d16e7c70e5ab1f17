"""judge: a verdict on every step of every trajectory and on every outcome, made once for all filter strategies.

How often the reward model errs is counted here too, on the steps that `reward_model` held out: its errors are those of
verdicts at `judge.threshold`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from swirl.comb.logprobs import check_packing
from swirl.config.params import Params
from swirl.core.grading import grade
from swirl.core.journal import Journal, fingerprint
from swirl.core.layout import Layout
from swirl.core.records import load, save, save_json
from swirl.core.types import OUTCOME, HeldOutStep, Question, Stop, Trajectory, Verdict
from swirl.judging.heldout import error_rates
from swirl.judging.rationale import RationaleJudge
from swirl.judging.reward import RewardModel
from swirl.pipeline.progress import Progress
from swirl.pipeline.source import digest
from swirl.wiring.graders import load_grader
from swirl.wiring.judges import Judge
from swirl.wiring.rewards import judge_of, load_reward
from swirl.wiring.servers import print_usage


def run(params: Params, layout: Layout) -> None:
    """Judge the synthesised trajectories, a journalled block at a time."""
    trajectories = load(Trajectory, layout.trajectories)
    questions = {question.id: question for question in load(Question, layout.questions)}
    texts = {name: question.text for name, question in questions.items()}
    reward = load_reward(params, layout)
    judge = judge_of(reward)
    grader = load_grader(params, layout, judge)
    journal, size = _journal(params, layout), params.rollout.block_size

    def judged(block: list[Trajectory]) -> list[Verdict]:
        before = sum(one.failed for one in asked)
        if grader is None:
            outcomes = [outcome_verdict(trajectory, questions[trajectory.question_id].answers) for trajectory in block]
        else:
            outcomes = grader.outcome_verdicts(block, questions)
        made = [*reward.process_verdicts(block, texts), *outcomes]
        if sum(one.failed for one in asked) > before:
            raise _IncompleteError(made)
        return made

    first = next((trajectory for trajectory in trajectories if trajectory.steps), None)
    if isinstance(judge, RewardModel) and first is not None:
        check_packing(judge.model, judge.comb_of(first), judge.packed)
    asked, limit = _asked(judge, grader, trajectories), params.check_steps.max_null_rate
    verdicts: list[Verdict] = []
    with Progress(len(trajectories), "judge") as bar:
        for number, start in enumerate(range(0, len(trajectories), size)):
            block = trajectories[start : start + size]
            try:
                verdicts += journal.block(number, Verdict, lambda block=block: judged(block))  # type: ignore[misc]
            except _IncompleteError as incomplete:
                verdicts += incomplete.verdicts
            for one, count in asked.items():
                one.check_refusals(limit, count)
            bar.update(len(block))
    for one, count in asked.items():
        one.check_failures(limit, count)
    save(verdicts, Verdict, layout.verdicts)
    errors = error_rates(load(HeldOutStep, layout.heldout), params.judge.threshold)
    save_json({**_metrics(verdicts), **errors}, layout.metrics("judge"))
    journal.finish()
    print_usage()


def _journal(params: Params, layout: Layout) -> Journal:
    sections: list[Any] = [params.seed, params.rollout.block_size]
    sections += [part.model_dump() for part in (params.runtime, params.judge, params.reward_model, params.actions)]
    inputs = [layout.trajectories, layout.questions, layout.model("reward")]
    inputs += [layout.root / params.prompts.judge, layout.root / params.tools.folder]
    return Journal(layout.root / ".swirl/journals/judge", fingerprint(digest("judge"), sections, inputs))


class _IncompleteError(Exception):
    """The verdicts of a block for which a server failed: it is not committed, so a resumed run asks for it again."""

    def __init__(self, verdicts: list[Verdict]) -> None:
        super().__init__()
        self.verdicts = verdicts


def _asked(
    judge: Judge | None, grader: RationaleJudge | None, trajectories: Sequence[Trajectory]
) -> Counter[RationaleJudge]:
    """How many questions each judge that writes is asked by the whole stage, whichever process asks them."""
    asked: Counter[RationaleJudge] = Counter()
    if isinstance(judge, RationaleJudge):
        asked[judge] += sum(len(trajectory.steps) for trajectory in trajectories)
    if grader is not None:
        asked[grader] += sum(trajectory.stop is Stop.ANSWERED for trajectory in trajectories)
    return asked


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
