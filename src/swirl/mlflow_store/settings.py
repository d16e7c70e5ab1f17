"""The section `tracking` of params.yaml, read from plain values. No stage depends on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swirl.core.layout import Layout


@dataclass(frozen=True, slots=True)
class Settings:
    """How much goes to MLflow; `swirl.config.evaluation.Tracking` says what each field means.

    The defaults are for a project whose params.yaml has no such section: runs and files, no traces, no system metrics.
    """

    experiment: str = "swirl"
    traces: int = 0
    system_metrics: float = 0.0
    """Seconds."""
    checkpoints: bool = True
    max_model_mb: float = 200.0
    artifacts: str = ""


def read_params(layout: Layout) -> dict[str, Any]:
    """The values of params.yaml, not validated; empty when there is no such file."""
    from swirl.config.yaml_text import read

    path = layout.root / "params.yaml"
    return (read(path) or {}) if path.exists() else {}


def read_settings(params: Mapping[str, Any]) -> Settings:
    """The settings in nested params; the variable MLFLOW_EXPERIMENT_NAME overrides `tracking.experiment`."""
    section = dict(params.get("tracking") or {})
    if name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        section["experiment"] = name
    return Settings(**section)
