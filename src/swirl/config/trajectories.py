"""The sections of `synthesize`, `judge`, `filter` and their gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, PlainValidator, model_validator

from swirl.config.section import Count, Positive, Section, Share
from swirl.config.served import Served


class RolledOut(Section):
    """Trajectories that the base makes of the training questions."""

    source: Literal["rollout"] = Field(description="the base rolls out the questions with the tools")
    samples: Count = Field(description="trajectories per question (the paper: 5)")
    temperature: Annotated[float, Field(ge=0)] = Field(description="sampling temperature; 0: greedy")
    server: Served | None = Field(description="a server that has the base model; null: it runs here")


_LOGS = "a logged conversation is one trajectory, as it was; leave it out"


class Imported(Section):
    """Trajectories that an agent's logs hold: those of the benchmarks with `source: logs`."""

    refused: ClassVar = {
        "files": "name the files once, where their questions come from: download.benchmarks.NAME: {source: logs, "
        "logs: [FILE, ...], train: all, ...}",
        "samples": _LOGS,
        "temperature": _LOGS,
        "server": "no model is asked; leave it out",
    }

    source: Literal["import"] = Field(description="the logged conversations of the train split; no model is asked")

    @property
    def samples(self) -> int:
        """1: a conversation is one trajectory."""
        return 1

    @property
    def temperature(self) -> float:
        """0: nothing is sampled."""
        return 0.0

    @property
    def server(self) -> Served | None:
        """None: nothing is asked."""
        return None


SynthesizeSection = Annotated[RolledOut | Imported, Field(discriminator="source")]


class CheckTrajectories(Section):
    """Limits of the trajectories gate."""

    max_malformed_rate: Share = Field(description="malformed actions among all")
    max_cut_rate: Share = Field(description="actions cut off at rollout.max_action_tokens, among all")
    max_tool_error_rate: Share = Field(description="calls that tools answered with an error, among all calls")
    max_failed_rate: Share = Field(description="trajectories that the environment ended")
    min_benchmark_share: Share = Field(description="least share of each synthesised benchmark; 0: no limit")


class RewardPart(Section):
    """One of several rewards that are mixed."""

    name: str = Field(description="judge, which is the reward model, or module:Class of your own in tools.folder")
    weight: Positive = Field(description="its share of the reward, relative to the others' weights")
    options: Mapping[str, Any] = Field(description="keyword arguments that the class is made with; {}: none")

    @model_validator(mode="after")
    def _judge_has_none(self) -> Self:
        if self.name == "judge" and self.options:
            raise ValueError("the judge takes no options here: its settings are reward_model's")
        return self


class Judge(Section):
    """Step and outcome verdicts."""

    threshold: Share = Field(description="least P(GOOD) of a GOOD verdict that is read from one token")
    outcome: Literal["match", "model"] = Field(
        description="how answers are graded: match is normalised text or number; model asks the grader"
    )
    grader: Served | None = Field(description="a server that grades answers; null: the reward model, if it writes")
    retry_failed: bool = Field(description="ask once more where a written answer holds no verdict")
    rewards: list[RewardPart] = Field(description="what is mixed into the reward of a step; []: the judge alone")

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [part.name for part in self.rewards]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"rewards names {twice[0]} twice; give it once, with the sum of the weights")
        return self


def _limit(value: object) -> object:
    if (type(value) is int and value >= 0) or (
        isinstance(value, list) and value and all(one in get_args(Filters) for one in value)
    ):
        return value
    raise ValueError(f"expected a number, 0 for no limit, or a list of {', '.join(get_args(Filters))}; got {value!r}")


Filters = Literal["none", "process", "outcome", "both"]
Limit = Annotated[int | list[Filters], PlainValidator(_limit)]


class Filter(Section):
    """Which trajectories training sees."""

    strategy: Filters = Field(description="the paper's four filters")
    max_trajectories: Limit = Field(
        description="at most so many; a list of filters: as many as the smallest of them keeps; 0: keep all"
    )
    max_per_benchmark: Annotated[int, Field(ge=0)] = Field(
        description="first, at most so many of each benchmark, so that none drowns the others; 0: keep all"
    )


class CheckSteps(Section):
    """Limits of the steps gate."""

    max_null_rate: Share = Field(description="verdicts that the judge did not give")
    min_good_share: Share = Field(description="least share of GOOD among all step verdicts")
    max_good_share: Share = Field(description="largest share of GOOD among all step verdicts")
    min_rows: Count = Field(description="fewest sub-trajectories worth training on")
