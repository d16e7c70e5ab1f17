"""From params and the layout to the judge whose verdicts are the process labels of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from swirl.config.params import Params
from swirl.config.reward_model import EndpointReward, OwnJudge, PretrainedReward
from swirl.core.errors import ModelError
from swirl.core.layout import Layout
from swirl.core.types import JudgeRole, Trajectory, Verdict
from swirl.judging.mixed import MixedReward, Part
from swirl.judging.rationale import RationaleJudge
from swirl.models.pointers import read_pointer, write_locked_pointer
from swirl.wiring.chats import policy_chat
from swirl.wiring.graders import load_grader
from swirl.wiring.judges import REWARD, endpoint_name, load_judge
from swirl.wiring.rewards import Reward, judge_of, load_reward, own_reward


class NoJudge:
    """Gives no verdict on any step."""

    name = "none"

    def process_verdicts(self, trajectories: Sequence[Trajectory], questions: Mapping[str, str]) -> list[Verdict]:
        """None."""
        return []


def load_label_judge(params: Params, layout: Layout) -> tuple[Reward | NoJudge, JudgeRole]:
    """The judge of `evaluate.judge`, and whether it is the reward, a second one or none.

    A second judge is called by its server's model, by its hub id and commit or its folder, or by its class. Raises
    `ModelError` when it does not exist, or cannot judge the base's tokens.
    """
    settings = params.evaluate.judge
    if settings == "none":
        return NoJudge(), JudgeRole.NONE
    if settings == "same":
        return load_reward(params, layout), JudgeRole.REWARD
    if isinstance(settings, OwnJudge):
        chat = policy_chat(params, layout.model("base"))
        own = own_reward("evaluate.judge", settings.name, settings.options, params, layout, chat)
        return MixedReward((Part(1.0, own),), params.judge.threshold), JudgeRole.SECOND
    if not isinstance(settings, PretrainedReward):
        return load_judge("", settings, layout.root, params, layout), JudgeRole.SECOND
    with TemporaryDirectory() as place:
        folder = Path(place)
        return load_judge(_point(settings, folder, layout), settings, folder, params, layout), JudgeRole.SECOND


def load_label_judges(params: Params, layout: Layout) -> tuple[Reward | NoJudge, RationaleJudge | None]:
    """The judge of `evaluate.judge`, and the grader of answers; the reward model is loaded once if it is both."""
    judge, role = load_label_judge(params, layout)
    return judge, load_grader(params, layout, None if role is JudgeRole.SECOND else judge_of(judge))


def label_judge_name(params: Params) -> tuple[str, JudgeRole]:
    """What the judge of `evaluate.judge` is called where it has given no verdict, and its role."""
    settings = params.evaluate.judge
    if settings == "none":
        return NoJudge.name, JudgeRole.NONE
    if isinstance(settings, PretrainedReward):
        return settings.model, JudgeRole.SECOND
    if isinstance(settings, OwnJudge):
        return settings.name, JudgeRole.SECOND
    if settings != "same":
        return _judge_name(settings), JudgeRole.SECOND
    judge = _judge_name(params.reward_model)
    parts = [judge if entry.name == "judge" else entry.name for entry in params.judge.rewards]
    return "+".join(parts) or judge, JudgeRole.REWARD


def _judge_name(settings: object) -> str:
    return endpoint_name(settings.server) if isinstance(settings, EndpointReward) else REWARD


def _point(settings: PretrainedReward, folder: Path, layout: Layout) -> str:
    """Make `folder` a pointer to the judge's model, whose name is returned."""
    model, revision, trusted = settings.model, settings.revision, settings.trust_remote_code
    try:
        write_locked_pointer(folder, model, revision, trusted, layout.root, layout.hub_lock)
    except ModelError as error:
        raise ModelError(f"evaluate.judge: {error}") from None
    made = read_pointer(folder)
    return f"{model}@{made.revision[:12]}" if made and made.revision else model
