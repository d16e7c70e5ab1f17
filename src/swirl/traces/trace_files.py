"""Traces of a tracking server as a file of JSON lines, one trace a line as `Trace.to_json` writes it."""

from __future__ import annotations

import os
from pathlib import Path

from swirl.config.secrets import without_credentials
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.mlflow_store.stores import connect, tracking_uri

PAGE = 100
"""Traces that are fetched at once."""


def fetch_traces(experiment: str, path: Path, layout: Layout | None) -> Path:
    """Write all traces of an experiment to `path`, the earliest first, and return it.

    The server is that of MLFLOW_TRACKING_URI, by default the project's own. Raises `DataError` when there is neither,
    no such experiment, or when the server cannot be asked.
    """
    uri = tracking_uri(layout) if layout is not None else os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise DataError(f"mlflow:{experiment} needs a project around, or MLFLOW_TRACKING_URI")
    client = connect(uri)
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise DataError(f"the tracking server has no experiment {experiment!r}")
        place, token = [str(found.experiment_id)], None
        with path.open("w", encoding="utf-8") as file:
            while True:
                page = client.search_traces(
                    locations=place, max_results=PAGE, order_by=["timestamp_ms ASC"], page_token=token
                )
                file.writelines(trace.to_json() + "\n" for trace in page)
                if not (token := page.token):
                    return path
    except MlflowException as error:
        reason = without_credentials((str(error).strip().splitlines() or ["no reason"])[0])
        raise DataError(f"traces of experiment {experiment!r} cannot be fetched: {reason}") from error
