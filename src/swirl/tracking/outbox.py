"""Operations on their way to MLflow, in journals on disk until they arrive: `.swirl/tracking/pending/TIME-PID-NAME/`.

Operations are written to disk before they are sent. When the server is down or the process is killed, the folder stays
behind and says how many operations have been sent, and `swirl track sync` sends the rest.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import re
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import load_json, save_json
from swirl.tracking.operations import File, Operation, from_line, to_line

if TYPE_CHECKING:
    from swirl.tracking.mlflow_runs import Store


def pending_folder(layout: Layout) -> Path:
    """The folder in which journals wait to be sent; in a copy of a project that shares the folder, the project's."""
    return (layout.root / ".swirl/tracking").resolve() / "pending"


class Journal:
    """The operations of one stage or command, in order. Only one process at a time can have it open."""

    def __init__(self, folder: Path) -> None:
        """Open an existing journal.

        Raises `BlockingIOError` while another process has it open, `DataError` when it is broken.
        """
        self.folder = folder
        self._lock = (folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        head = load_json(folder / "head.json")
        self.name: str = head["name"]
        self.experiment: str = head["experiment"]
        self.started: float = head["started"]
        self.operations: list[Operation] = _read(folder / "operations.jsonl")
        self.given_up: list[str] = []
        """Why operations were given up for good, one sentence each."""
        self.runs: dict[str, str] = {}
        """MLflow's ids by run name (`PARENT_RUN` or a record), for the runs that have been sent."""
        self._adding = threading.Lock()

    @staticmethod
    def create(layout: Layout, name: str, experiment: str) -> Journal:
        """Create an empty journal; `name` says what it records: a stage, for example."""
        started, word = time.time(), re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
        folder = pending_folder(layout) / f"{int(started * 1e6):020d}-{os.getpid()}-{word}"
        folder.mkdir(parents=True)
        save_json({"name": name, "experiment": experiment, "started": started}, folder / "head.json")
        return Journal(folder)

    def add(self, *operations: Operation) -> None:
        """Append operations and write them to disk. May be called from several threads."""
        with self._adding, (self.folder / "operations.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(to_line(operation) + "\n" for operation in operations)
            self.operations.extend(operations)

    def send(self, store: Store) -> int:
        """Carry out the operations that are not done yet, in order, and return how many there were.

        Raises whatever MLflow raises when it cannot be reached; the next call resumes with the same operation. An
        operation that can never succeed is skipped, and the reason is added to `given_up`.
        """
        done, self.runs = self._progress(store.address)
        sent = 0
        while done < len(self.operations):
            operation = self.operations[done]
            if refusal := store.apply(operation, self.runs):
                self.given_up.append(refusal)
            done, sent = done + 1, sent + 1
            save_json({"address": store.address, "done": done, "runs": self.runs}, self.folder / "progress.json")
        return sent

    def hold(self) -> None:
        """Copy the files to send into the journal, because a later run may overwrite them.

        Files that were sent are copied, too: the next server may be another one.
        """
        for number, operation in enumerate(self.operations):
            if isinstance(operation, File) and not operation.owned and Path(operation.path).exists():
                copy = self.room() / Path(operation.path).name
                (shutil.copytree if Path(operation.path).is_dir() else shutil.copy2)(operation.path, copy)
                self.operations[number] = dataclasses.replace(operation, path=str(copy), owned=True)
        partial = self.folder / "operations.partial"
        partial.write_text("".join(to_line(operation) + "\n" for operation in self.operations), encoding="utf-8")
        os.replace(partial, self.folder / "operations.jsonl")

    def room(self) -> Path:
        """Make a folder in this journal for one copy, so that copies of the same name do not collide."""
        files = self.folder / "files"
        files.mkdir(exist_ok=True)
        room = files / f"{time.monotonic_ns()}"
        room.mkdir()
        return room

    def remove(self) -> None:
        """Delete the journal, once everything has arrived."""
        shutil.rmtree(self.folder)
        self.close()

    def close(self) -> None:
        """Release the journal, so that another process can open it."""
        self._lock.close()

    def _progress(self, address: str) -> tuple[int, dict[str, str]]:
        """(number of operations done, run ids by name) at this server; nothing if the last one was another server."""
        path = self.folder / "progress.json"
        if path.exists() and (progress := load_json(path))["address"] == address:
            return progress["done"], progress["runs"]
        return 0, {}


def _read(path: Path) -> list[Operation]:
    """The operations in a file, without an unfinished last line that a killed process left."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        return [from_line(line) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a tracking journal of this version: {error}; remove {path.parent}") from None
