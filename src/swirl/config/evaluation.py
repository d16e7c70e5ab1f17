"""The sections of `evaluate` and `report`, and `tracking`: what goes to MLflow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from swirl.config.messages import NO_SUCH_CHOICE
from swirl.config.reward_model import EndpointReward, OwnJudge, PretrainedReward
from swirl.config.section import Count, Section
from swirl.config.served import Served

SAME, NONE = "same", "none"
"""`evaluate.judge` for the reward model itself, and for no judge."""


def _which(judge: Any) -> str | None:
    source = judge.get("source") if isinstance(judge, Mapping) else getattr(judge, "source", None)
    return str(judge) if judge in (SAME, NONE) else source if source in ("pretrained", "endpoint", "own") else None


LabelJudge = Annotated[
    Annotated[Literal["same"], Tag(SAME)]
    | Annotated[Literal["none"], Tag(NONE)]
    | Annotated[PretrainedReward, Tag("pretrained")]
    | Annotated[EndpointReward, Tag("endpoint")]
    | Annotated[OwnJudge, Tag("own")],
    Discriminator(
        _which,
        custom_error_type=NO_SUCH_CHOICE,
        custom_error_message="expected same, which is the reward model itself, none, or a second judge: a section as "
        "that of reward_model with source pretrained or endpoint, or {source: own, name: 'module:Class', options: {}}",
    ),
]


class Evaluate(Section):
    """Benchmark evaluation."""

    samples: Count = Field(description="trajectories per question; the statistics are over questions all the same")
    temperature: Annotated[float, Field(ge=0)] = Field(description="sampling temperature; 0: greedy")
    without_tools: bool = Field(description="also evaluate search benchmarks without tools")
    block_size: Count | None = Field(
        default=None, description="trajectories that are committed together; left out: each worker's whole share"
    )
    servers: Mapping[Literal["ceiling", "base", "sft", "swirl"], Served] = Field(
        description="servers that have a model, by its name; a model without one runs here"
    )
    judge: LabelJudge = Field(
        description="whose verdicts are the process labels: same, the reward model; none; or a second judge's section"
    )

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples is {self.samples} and temperature 0: greedy samples of a question are all the same; "
                "give samples: 1, or a temperature such as 1.0"
            )
        return self


class Report(Section):
    """The report."""

    samples: Annotated[int, Field(ge=0)] = Field(
        description="questions shown per benchmark, base beside SWiRL; 0: none"
    )


def _bucket(address: str) -> str:
    if address and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+[a-z0-9](/[^\s/?#@]+)*", address):
        # The value is not shown: a key may have been put there.
        raise ValueError("expected '' or s3://BUCKET/FOLDER; keys belong into the environment")
    return address


class Tracking(Section):
    """What goes to MLflow. No stage depends on it."""

    experiment: Annotated[str, Field(min_length=1)] = Field(description="the project's name in MLflow: all its runs")
    traces: Annotated[int, Field(ge=0)] = Field(
        description="trajectories shown step by step as traces, of `judge` and of every `evaluate` each; 0: none"
    )
    system_metrics: Annotated[float, Field(ge=0)] = Field(
        description="seconds between two looks at processor, memory, disk and network; 0: none"
    )
    checkpoints: bool = Field(description="log training's checkpoints with their optimiser state, as they are made")
    max_model_mb: Annotated[float, Field(ge=0)] = Field(
        description="largest model or checkpoint that is copied, in MB; of a larger model comes its hash; 0: no limit"
    )
    artifacts: Annotated[str, AfterValidator(_bucket)] = Field(
        description="s3://BUCKET/FOLDER that a new experiment's artifacts go to; '': mlartifacts, or as the server says"
    )
