"""What is on its way to MLflow, on disk until it has arrived: `.swirl/tracking/pending/TIME-NAME/`.

Operations are written down before they are sent. A server that is down, or a process that is killed, leaves the
folder behind with how far it had come, and `swirl track sync` sends the rest.
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
    from swirl.tracking.store import Store


def pending_folder(layout: Layout) -> Path:
    """Where journals wait."""
    return layout.root / ".swirl/tracking/pending"


class Journal:
    """One stage's (or command's) operations, in order. One process at a time has it open."""

    def __init__(self, folder: Path) -> None:
        """Open a journal that is there.

        Raises `BlockingIOError` while another process has it, `DataError` when it is broken.
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
        """What the server refused for good, one sentence each."""
        self.runs: dict[str, str] = {}
        """MLflow's ids of runs by their names here, once they are sent."""
        self._adding = threading.Lock()

    @staticmethod
    def create(layout: Layout, name: str, experiment: str) -> Journal:
        """A new, empty journal; `name` is a stage or what else is recorded."""
        started, word = time.time(), re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
        folder = pending_folder(layout) / f"{int(started * 1e6):020d}-{os.getpid()}-{word}"
        folder.mkdir(parents=True)
        save_json({"name": name, "experiment": experiment, "started": started}, folder / "head.json")
        return Journal(folder)

    def add(self, *operations: Operation) -> None:
        """Write operations down. Threads may call it."""
        with self._adding, (self.folder / "operations.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(to_line(operation) + "\n" for operation in operations)
            self.operations.extend(operations)

    def send(self, store: Store) -> int:
        """Do what is not yet done, in order, and return how many operations that was.

        Raises whatever MLflow raises when it cannot be reached; sending goes on there the next time. What the server
        refuses for good is left out and said in `given_up`.
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
        """Copy the files, for a later run may overwrite them; sent ones too, for the next server may be another."""
        for number, operation in enumerate(self.operations):
            if isinstance(operation, File) and not operation.owned and Path(operation.path).exists():
                copy = self.room() / Path(operation.path).name
                (shutil.copytree if Path(operation.path).is_dir() else shutil.copy2)(operation.path, copy)
                self.operations[number] = dataclasses.replace(operation, path=str(copy), owned=True)
        partial = self.folder / "operations.partial"
        partial.write_text("".join(to_line(operation) + "\n" for operation in self.operations), encoding="utf-8")
        os.replace(partial, self.folder / "operations.jsonl")

    def room(self) -> Path:
        """A new folder in this journal, for a file of any name."""
        files = self.folder / "files"
        files.mkdir(exist_ok=True)
        room = files / f"{time.monotonic_ns()}"
        room.mkdir()
        return room

    def remove(self) -> None:
        """All has arrived."""
        shutil.rmtree(self.folder)
        self.close()

    def close(self) -> None:
        """Let another process have it."""
        self._lock.close()

    def _progress(self, address: str) -> tuple[int, dict[str, str]]:
        """(operations done, ids of runs by their names) at this server; another server has had nothing yet."""
        path = self.folder / "progress.json"
        if path.exists() and (progress := load_json(path))["address"] == address:
            return progress["done"], progress["runs"]
        return 0, {}


def _read(path: Path) -> list[Operation]:
    """Operations of a file; a last line that a killed process left unfinished does not count."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        return [from_line(line) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a tracking journal of this version: {error}; remove {path.parent}") from None
