"""The section of `reward_model`, one class per `source`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from swirl.config.base_model import DesignedFlaws, FineTuning, Pretrained
from swirl.config.section import Count, Positive, Section, Share
from swirl.config.served import Served


class AnnotatedReward(Section):
    """The reward model: the base model, taught to judge by the oracle of calculator annotations."""

    source: Literal["annotations"] = Field(description="taught here, by a benchmark's own annotated solutions")
    heldout: Count = Field(description="questions of the reward split to measure error rates on")
    samples: Count = Field(description="trajectories that the base makes of each question")
    temperature: Positive = Field(description="sampling temperature of the base")
    written: Share = Field(description="share of the written solutions that it also learns from, sound and spoilt")
    further_splits: list[Literal["train", "development"]] = Field(
        description="splits beside reward whose annotated questions it learns to judge; of train it then knows by heart"
    )
    steps: Count = Field(description="optimiser steps")
    batch_size: Count = Field(description="trajectories per step; every step of each is judged")
    adam_lr: Positive = Field(description="peak learning rate of embeddings and norms")
    muon_lr: Positive = Field(description="peak learning rate of weight matrices")
    mixed_precision: Literal["no", "bf16"] = Field(description="accelerate's mixed precision in training")


class EmbeddedReward(Section):
    """The reward model: the sound model, taught to judge by oracle labels on a split of its own."""

    source: Literal["embedded"] = Field(description="taught here, by the generated world's oracle")
    questions: Count = Field(description="questions a kind of task whose steps the base samples for training")
    heldout: Count = Field(description="further questions a kind of task, to measure error rates on")
    samples: Count = Field(description="trajectories per question")
    temperature: Positive = Field(description="sampling temperature of the base")
    demonstrations: Annotated[int, Field(ge=0)] = Field(description="written trajectories a kind of task; 0: none")
    corruption: DesignedFlaws = Field(description="flaws of the written ones")
    steps: Count = Field(description="optimiser steps")
    batch_size: Count = Field(description="trajectories per step; every step of each is judged")
    adam_lr: Positive = Field(description="peak learning rate of embeddings and norms")
    muon_lr: Positive = Field(description="peak learning rate of weight matrices")


class FineTunedReward(FineTuning):
    """A model that was trained elsewhere, taught to judge the base's own steps by annotations of the reward split.

    Pages that a question rests on (HotPotQA, MuSiQue) and calculator annotations (GSM8K) say which steps are GOOD.
    """

    source: Literal["fine_tuned"] = Field(
        description="a model of the hub, a folder or a GGUF file, taught here on steps that the base samples"
    )
    heldout: Count = Field(description="questions of each benchmark in the reward split to measure error rates on")
    pretrain: Mapping[str, Count] = Field(
        description="questions of the pretrain split to learn from besides, by benchmark; {}: none"
    )
    samples: Count = Field(description="trajectories that the base makes of each question")
    temperature: Positive = Field(description="sampling temperature of the base")


class PretrainedReward(Pretrained):
    """A local judge that gives verdicts without further training."""

    verdict: Literal["token", "rationale"] = Field(
        description="token: P(GOOD) of the reply's first token, packed; rationale: written reasoning, then a verdict"
    )
    max_tokens: Count = Field(description="longest rationale in tokens")
    votes: Count = Field(description="rationales asked for each step; the score is the share of GOOD")
    temperature: Annotated[float, Field(ge=0)] = Field(description="of rationales; 0: greedy")

    @model_validator(mode="after")
    def _votes_differ(self) -> PretrainedReward:
        if self.verdict == "rationale":
            _check_votes_can_differ(self.votes, self.temperature)
        return self


class EndpointReward(Section):
    """A judge behind a server: written reasoning, then a verdict."""

    source: Literal["endpoint"] = Field(description="a server")
    max_tokens: Count = Field(description="longest rationale in tokens")
    votes: Count = Field(
        description="rationales asked for each step; the score is the mean of P(GOOD), or of 1 and 0 where the server "
        "gives no log-probabilities"
    )
    temperature: Annotated[float, Field(ge=0)] = Field(description="of rationales; 0: greedy")
    server: Served

    @model_validator(mode="after")
    def _votes_differ(self) -> EndpointReward:
        _check_votes_can_differ(self.votes, self.temperature)
        return self


def _check_votes_can_differ(votes: int, temperature: float) -> None:
    if votes > 1 and temperature == 0:
        raise ValueError(f"{votes} votes at temperature 0 are all the same; set votes to 1, or temperature above 0")


class NoReward(Section):
    """No reward model: `judge.rewards` are all of the reward."""

    source: Literal["none"] = Field(description="no model: judge.rewards names rewards of your own alone")


class OwnJudge(Section):
    """A judge of evaluation that is a class of your own, as a reward of `judge.rewards` is."""

    source: Literal["own"] = Field(description="a class of your own in tools.folder")
    name: str = Field(description="module:Class")
    options: Mapping[str, Any] = Field(description="keyword arguments that the class is made with; {}: none")


RewardModelSection = Annotated[
    EmbeddedReward | AnnotatedReward | FineTunedReward | PretrainedReward | EndpointReward | NoReward,
    Field(discriminator="source"),
]


def is_reward_model(judge: object, reward: RewardModelSection) -> bool:
    """Whether a judge's section names the same weights as the reward model's, however they are asked."""
    if isinstance(judge, EndpointReward):
        return isinstance(reward, EndpointReward) and _address(judge.server) == _address(reward.server)
    if not isinstance(judge, PretrainedReward):
        return False
    if Path(judge.model) == Path("models/reward"):
        return True
    named = (judge.model, judge.revision)
    return isinstance(reward, PretrainedReward) and named == (reward.model, reward.revision)


def _address(server: Served) -> tuple[str, str]:
    return server.url.rstrip("/"), server.model
