"""Operations to carry out in MLflow, as plain records that a journal can keep on disk until a server accepts them.

Each has the same effect whether it is carried out once or twice, which makes sending resumable: runs are found by a
tag, metric points keep their times and traces their ids. An operation names a run by a record id of ours, because only
the server knows the run's own id.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, get_args

PARENT_RUN = "parent"
"""The name of the parent run in every journal."""

Point = tuple[str, float, int, int]
"""A point of a metric: (name, value, Unix time in milliseconds, step)."""


@dataclass(frozen=True, slots=True)
class Parent:
    """Find the parent run, or create it.

    A run that has finished is set to running again, and so is a flow's run that failed or was killed, because a flow
    may retry a stage. A run that its flow has closed is left as it is, whatever arrives late.
    """

    given: str
    """The run's id in MLflow; empty when not known."""
    key: str
    """The value of the run's tag `swirl.invocation`, by which it is found without an id."""
    name: str
    started: float
    """Unix time."""
    tags: dict[str, str]
    params: dict[str, str]


@dataclass(frozen=True, slots=True)
class Child:
    """Find the run whose tag `swirl.record` is `record`, or create it below the parent."""

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
class Note:
    """A section of the parent's description, which replaces the one with the same heading."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class File:
    """A file or folder to copy into `folder` of the run's artifacts."""

    run: str
    path: str
    folder: str
    owned: bool = False
    """Whether `path` is a copy in the journal, which is removed together with the journal."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text artifact, short enough to be kept in the operation itself."""

    run: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """Datasets that a run reads, each with name, digest, path, schema, profile and context as strings."""

    run: str
    datasets: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class OneTrace:
    """A trajectory as a trace of `run`, linked also to the run with record `made_in` unless that is empty."""

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
    """A stage has ended, so the parent ends with the same `status`; the next stage sets it to running again.

    It stays running when the stage finished well and another child still runs. A parent that its flow has closed is
    left as it is.
    """

    status: str
    time: float
    error: str = ""
    """The parent's tag `error`."""


@dataclass(frozen=True, slots=True)
class Close:
    """The invocation is over: the parent ends, and children that are still running become killed.

    On success, the tag `error` of an earlier try is removed.
    """

    failed: bool
    time: float
    killed: bool = False


@dataclass(frozen=True, slots=True)
class Promote:
    """The pipeline has ended: register the tuned model, whose folder has the hash `model`."""

    model: str


Operation = Parent | Child | Log | Note | File | Text | Inputs | OneTrace | End | Settle | Close | Promote
_KINDS = {kind.__name__: kind for kind in get_args(Operation)}


def to_line(operation: Operation) -> str:
    """One line of JSON."""
    return json.dumps([type(operation).__name__, dataclasses.asdict(operation)])


def from_line(line: str) -> Operation:
    """The operation that `to_line` wrote. Raises `ValueError`, `KeyError` or `TypeError` for others."""
    kind, values = json.loads(line)
    operation: Operation = _KINDS[kind](**values)
    return operation
