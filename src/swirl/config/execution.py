"""The section `execution`: where blocks of trajectories and verdicts are made. No stage depends on it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from swirl.config.section import Count, Section


class Execution(Section):
    """Where the blocks of synthesis, judging and evaluation are made; their bytes do not depend on it."""

    engine: Literal["local", "ray"] = Field(description="local: in the stage's own process; ray: by workers of Ray")
    address: Annotated[str, Field(pattern=r"^(auto|local|[^\s:/]+:\d+)$")] = Field(
        description="Ray's cluster: HOST:PORT; local, one on this machine for as long as the stage runs; auto, "
        "$RAY_ADDRESS, else local"
    )
    workers: Count = Field(description="workers of Ray; each holds the model and makes one block at a time")
    gpus_per_worker: Annotated[float, Field(ge=0)] = Field(
        description="GPUs of each worker, which has them to itself; below 1: a share of one, and of its memory; 0: none"
    )
