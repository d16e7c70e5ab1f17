"""From params and the layout to the grader of answers."""

from __future__ import annotations

from swirl.config.params import Params
from swirl.core.errors import ModelError
from swirl.core.layout import Layout
from swirl.judging.rationale import RationaleJudge
from swirl.wiring.judges import Judge, endpoint_judge, load_reward_model


def load_grader(params: Params, layout: Layout, judge: Judge) -> RationaleJudge | None:
    """Who compares answers with the golden ones; None: normalised text or number (`judge.outcome: match`).

    `judge` is the reward model, which grades where no `judge.grader` is named.
    """
    settings = params.judge
    if settings.outcome == "match":
        return None
    if settings.grader is not None:
        return endpoint_judge(settings.grader, settings, params, layout)
    if not isinstance(judge, RationaleJudge):
        raise ModelError(
            "judge.outcome is model, but the reward model reads verdicts from one token and grades no answer; name a "
            "server as judge.grader, set reward_model.verdict to rationale, or judge.outcome to match"
        )
    return judge


def load_text_judge(params: Params, layout: Layout, grader: bool) -> Judge:
    """The reward model, or the grader of `judge.outcome: model`, for texts alone: neither looks at models/base."""
    if grader and params.judge.grader is not None:
        return endpoint_judge(params.judge.grader, params.judge, params, layout, text_only=True)
    return load_reward_model(params, layout, text_only=True)
