"""What there is to do in MLflow, as plain records that a file can keep until a server takes them.

Each can be done twice with the same effect as once, which makes sending resumable: runs are found by a tag, points
and traces have ids and times of their own. A run is named by a record of ours; only the server knows its own id.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, get_args

PARENT_RUN = "parent"
"""The name of the parent run in every journal."""

Point = tuple[str, float, int, int]
"""(name, value, milliseconds since 1970, step)"""


@dataclass(frozen=True, slots=True)
class Parent:
    """Find the parent run, or make it.

    One that had ended well runs again. So does a flow's that had not, for a flow tries a stage again; but none whose
    flow has closed it, whatever arrives late.
    """

    given: str
    """Its id in MLflow, or empty."""
    key: str
    """What it is found by otherwise: the value of its tag `swirl.invocation`."""
    name: str
    started: float
    """Unix time."""
    tags: dict[str, str]
    params: dict[str, str]


@dataclass(frozen=True, slots=True)
class Child:
    """Find the run with this record, or make it below the parent."""

    record: str
    name: str
    started: float
    tags: dict[str, str]
    params: dict[str, str]


@dataclass(frozen=True, slots=True)
class Log:
    """Metrics and tags of a run."""

    run: str
    points: list[Point] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class File:
    """A file or folder to copy into `folder` of the run's artifacts."""

    run: str
    path: str
    folder: str
    owned: bool = False
    """It is a copy of ours, to be thrown away once it has arrived."""


@dataclass(frozen=True, slots=True)
class Text:
    """An artifact that is short enough to be kept here."""

    run: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """Data sets that a run reads: name, digest, path, schema, profile and context each, as strings."""

    run: str
    datasets: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class OneTrace:
    """A trajectory as a trace of `run`, and, where it was made in another one, of that record's, too."""

    run: str
    made_in: str
    trace: dict[str, Any]
    """See `swirl.tracking.samples.trace_of`."""


@dataclass(frozen=True, slots=True)
class End:
    """A child run is over; `status` is FINISHED, FAILED or KILLED."""

    run: str
    status: str
    time: float


@dataclass(frozen=True, slots=True)
class Settle:
    """A stage ended: so does the parent unless another child is running (the next stage runs it again).

    What a flow has closed stays as it is.
    """

    status: str
    time: float
    error: str = ""
    """The parent's tag `error`."""


@dataclass(frozen=True, slots=True)
class Close:
    """The invocation is over. Children that nobody ended were killed; if it is well, errors on the way do not count."""

    failed: bool
    time: float


@dataclass(frozen=True, slots=True)
class Promote:
    """The pipeline is at its end: the tuned model, whose folder has this hash, goes to the registry."""

    model: str


Operation = Parent | Child | Log | File | Text | Inputs | OneTrace | End | Settle | Close | Promote
_KINDS = {kind.__name__: kind for kind in get_args(Operation)}


def to_line(operation: Operation) -> str:
    """One line of JSON."""
    return json.dumps([type(operation).__name__, dataclasses.asdict(operation)])


def from_line(line: str) -> Operation:
    """The operation that `to_line` wrote. Raises `ValueError` or `KeyError` for any other line."""
    kind, values = json.loads(line)
    operation: Operation = _KINDS[kind](**values)
    return operation
