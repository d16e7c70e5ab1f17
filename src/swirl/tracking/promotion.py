"""Registers the tuned model once stage `report` has succeeded and everything it recorded has arrived in MLflow."""

from __future__ import annotations

from swirl.config.secrets import without_credentials
from swirl.core.errors import SwirlError
from swirl.pipeline.dvc_file import dvc_hash
from swirl.tracking.mlflow_runs import FOR_GOOD, Store
from swirl.tracking.model_registry import promote
from swirl.tracking.operations import PARENT_RUN, Promote
from swirl.tracking.outbox import Journal


def promote_if_due(journal: Journal, store: Store) -> None:
    """Register the tuned model if the journal contains a `Promote`; safe to repeat.

    Nothing is registered when the journal is sent late and another run has trained another model since: the model in
    question is gone. Raises whatever MLflow raises when a later attempt may succeed; otherwise the reason is added to
    the journal's `given_up`.
    """
    from mlflow.exceptions import MlflowException

    for due in (operation for operation in journal.operations if isinstance(operation, Promote)):
        if dvc_hash(store.layout.model("swirl")) != due.model:
            journal.given_up.append("models/swirl is of another run by now; it is not registered for this one")
            continue
        try:
            promote(store, store.layout, journal.runs[PARENT_RUN])
        except (SwirlError, MlflowException) as error:
            if isinstance(error, MlflowException) and error.error_code not in FOR_GOOD:
                raise
            journal.given_up.append(f"the tuned model is not registered: {without_credentials(str(error))[:300]}")
