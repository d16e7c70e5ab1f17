"""What the section `tracking` of params.yaml says, read from plain values. No stage depends on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Settings:
    """How much goes to MLflow; params.py says what each field means.

    The values here are those of a project whose params.yaml has no such section: runs and files, nothing sampled.
    """

    experiment: str = "swirl"
    traces: int = 0
    system_metrics: float = 0.0
    """Seconds."""
    checkpoints: bool = True
    max_model_mb: float = 200.0


def read_settings(params: Mapping[str, Any]) -> Settings:
    """The settings in nested params; MLFLOW_EXPERIMENT_NAME stands above `tracking.experiment`, as in MLflow."""
    section = dict(params.get("tracking") or {})
    if name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        section["experiment"] = name
    return Settings(**section)
