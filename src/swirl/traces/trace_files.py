"""Traces of a tracking server as a file of JSON lines, one trace a line as `Trace.to_json` writes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.mlflow_store.runs import reason
from swirl.mlflow_store.stores import connected, tracking_uri
from swirl.pipeline.progress import SHORT, Progress

PAGE = 100
"""Traces that are fetched at once."""


def fetch_traces(experiment: str, path: Path, layout: Layout | None, until: int | None = None) -> Path:
    """Write all traces of an experiment to `path`, the earliest first, and return it.

    The server is that of MLFLOW_TRACKING_URI, by default the project's own. `until`: those alone that began by then, in
    milliseconds since 1970. Raises `DataError` when there is neither, no such experiment, or when the server cannot be
    asked.
    """
    written = path.with_name(f"{path.name}.part")
    with Progress(0, f"mlflow:{experiment}, traces", after=SHORT) as bar, written.open("w", encoding="utf-8") as file:
        for page in _pages(experiment, layout, "" if until is None else f"timestamp_ms <= {until}", PAGE):
            file.writelines(trace.to_json() + "\n" for trace in page)
            bar.update(len(page))
    return written.replace(path)


def has_newer(experiment: str, since: int, layout: Layout) -> bool:
    """Whether the server has traces of an experiment that began after `since`. Raises `DataError` as `fetch_traces`."""
    return any(_pages(experiment, layout, f"timestamp_ms > {since}", 1))


def _pages(experiment: str, layout: Layout | None, chosen: str, size: int) -> Iterator[list[Any]]:
    """The traces of an experiment that the filter `chosen` lets through, in pages that hold some."""
    uri = tracking_uri(layout) if layout is not None else os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise DataError(f"mlflow:{experiment} needs a project around, or MLFLOW_TRACKING_URI")
    client = connected(uri, f"traces of experiment {experiment!r}")
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise DataError(f"the tracking server has no experiment {experiment!r}")
        place, token = [str(found.experiment_id)], None
        while True:
            page = client.search_traces(
                locations=place,
                filter_string=chosen or None,
                max_results=size,
                order_by=["timestamp_ms ASC"],
                page_token=token,
            )
            if page:
                yield list(page)
            if not (token := page.token):
                return
    except MlflowException as error:
        raise DataError(f"traces of experiment {experiment!r} cannot be fetched: {reason(error)}") from error
