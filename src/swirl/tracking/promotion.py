"""The registry's turn: when stage `report` has ended well and all of it has arrived, the tuned model is registered."""

from __future__ import annotations

from swirl.config.secrets import without_credentials
from swirl.core.errors import SwirlError
from swirl.tracking.inputs import folder_hash
from swirl.tracking.model_registry import promote
from swirl.tracking.operations import PARENT_RUN, Promote
from swirl.tracking.outbox import Journal
from swirl.tracking.store import FOR_GOOD, Store


def promote_if_due(journal: Journal, store: Store) -> None:
    """Call the registry for a journal that says so; safe to repeat.

    A journal that is sent late is left alone when another run has trained another model since: what was to be
    registered is gone. Raises whatever MLflow raises when asking later may help.
    """
    from mlflow.exceptions import MlflowException

    for due in (operation for operation in journal.operations if isinstance(operation, Promote)):
        if folder_hash(store.layout.model("swirl")) != due.model:
            journal.given_up.append("models/swirl is of another run by now; it is not registered for this one")
            continue
        try:
            promote(store, store.layout, journal.runs[PARENT_RUN])
        except (SwirlError, MlflowException) as error:
            if isinstance(error, MlflowException) and error.error_code not in FOR_GOOD:
                raise
            journal.given_up.append(f"the tuned model is not registered: {without_credentials(str(error))[:300]}")
