"""From params and the layout to the grader of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swirl.config.params import Params
from swirl.core.errors import ModelError
from swirl.core.layout import Layout
from swirl.core.types import Question, Trajectory
from swirl.judging.rationale import RationaleJudge
from swirl.wiring.judges import Judge, endpoint_judge, load_reward_model
from swirl.wiring.rewards import Reward, judge_of, load_reward


def load_reward_judges(params: Params, layout: Layout) -> tuple[Reward, RationaleJudge | None]:
    """The reward, and the grader of answers as `load_grader` gives it."""
    reward = load_reward(params, layout)
    return reward, load_grader(params, layout, judge_of(reward))


def load_grader(params: Params, layout: Layout, reward: Judge | None) -> RationaleJudge | None:
    """The judge that compares answers with the golden ones; None for `judge.outcome: match`, which needs no judge.

    The reward model also grades answers if no `judge.grader` is named; `reward` is None where it is not loaded yet.
    Raises `ModelError` when it cannot.
    """
    settings = params.judge
    if settings.outcome == "match":
        return None
    if settings.grader is not None:
        return endpoint_judge(settings.grader, settings, params, layout)
    judge = reward or load_reward_model(params, layout)
    if not isinstance(judge, RationaleJudge):
        raise ModelError(
            "judge.outcome is model, but the reward model reads verdicts from one token and grades no answer; name a "
            "server as judge.grader, set reward_model.verdict to rationale, or judge.outcome to match"
        )
    return judge


def load_text_grader(params: Params, layout: Layout) -> RationaleJudge | None:
    """As `load_grader`, where no reward model is loaded and models/base may not exist."""
    settings = params.judge
    if settings.outcome == "match":
        return None
    if settings.grader is not None:
        return endpoint_judge(settings.grader, settings, params, layout, text_only=True)
    return load_grader(params, layout, load_reward_model(params, layout, text_only=True))


def load_text_judge(params: Params, layout: Layout, grader: bool) -> Judge:
    """The reward model, or the grader of answers if `grader` is True, for texts only: neither needs models/base."""
    if grader and params.judge.grader is not None:
        return endpoint_judge(params.judge.grader, params.judge, params, layout, text_only=True)
    return load_reward_model(params, layout, text_only=True)


def graded(
    grader: RationaleJudge, trajectories: Sequence[Trajectory], questions: Mapping[str, Question]
) -> dict[str, bool]:
    """Trajectory id -> the grader's verdict; those without a verdict are missing, and are graded by text and number."""
    verdicts = grader.outcome_verdicts(trajectories, questions)
    return {verdict.trajectory_id: verdict.good for verdict in verdicts if verdict.good is not None}
