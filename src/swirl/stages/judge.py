"""judge: a verdict on every step of every trajectory and on every outcome, made once for all filter strategies.

How often the reward model errs is counted here too, on the steps that `reward_model` held out: its errors are those of
verdicts at `judge.threshold`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swirl.config.params import Params
from swirl.core.journal import Journal, fingerprint
from swirl.core.layout import Layout
from swirl.core.records import load, save, save_json
from swirl.core.types import OUTCOME, HeldOutStep, Question, Trajectory, Verdict
from swirl.execution.engines import opened
from swirl.judging.heldout import error_rates
from swirl.pipeline.progress import Progress
from swirl.pipeline.source import digest
from swirl.wiring.graders import load_reward_judges
from swirl.wiring.servers import print_usage
from swirl.wiring.verdict_blocks import Failures, Verdicts, judge_in_blocks


def run(params: Params, layout: Layout) -> None:
    """Judge the synthesised trajectories, a journalled block at a time."""
    trajectories = load(Trajectory, layout.trajectories)
    questions = {question.id: question for question in load(Question, layout.questions)}
    cases = [(trajectory, questions[trajectory.question_id]) for trajectory in trajectories]
    failures = Failures(params.check_steps.max_null_rate, trajectories)
    journal, size = _journal(params, layout), params.rollout.block_size
    recipe = Verdicts(params, layout, "judge", load_reward_judges)
    with opened(params.execution, recipe) as engine, Progress(len(cases), "judge") as bar:
        verdicts = list(judge_in_blocks(engine, cases, size, journal, failures, bar.update))
    failures.check()
    save(verdicts, Verdict, layout.verdicts)
    errors = error_rates(load(HeldOutStep, layout.heldout), params.judge.threshold)
    save_json({**_metrics(verdicts), **errors}, layout.metrics("judge"))
    journal.finish()
    print_usage()


def _journal(params: Params, layout: Layout) -> Journal:
    sections: list[Any] = [params.seed, params.rollout.block_size]
    sections += [part.model_dump() for part in (params.runtime, params.judge, params.reward_model, params.actions)]
    inputs = [layout.trajectories, layout.questions, layout.model("reward"), layout.root / params.prompts.judge]
    return Journal(layout.root / ".swirl/journals/judge", fingerprint(digest("judge"), sections, inputs))


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
