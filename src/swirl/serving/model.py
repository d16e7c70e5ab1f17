"""The file that MLflow loads a registered agent from (models from code); it is run, never imported by this package."""

from __future__ import annotations

from mlflow.models import set_model

from swirl.serving.responses import RegisteredAgent

set_model(RegisteredAgent())
