"""Downloads the official files from the Hugging Face hub and BeerQA's page, and pins each to its first download.

The first download writes the dataset's commit and every file's size and SHA-256 into a lock file; later ones ask for
that commit and refuse any other content. Not tried against the hub itself: the names below come from public code that
uses them, and the tests run against a small server with the same interface.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from swirl.core.checksums import Checksum, checksum
from swirl.core.errors import DataError
from swirl.core.records import save_json

_TIMEOUT_S = 60.0
_LARGEST_BYTES = 4_000_000_000
_COMMIT = re.compile(r"[0-9a-f]{40}")
_INSTEAD = "or download the file elsewhere and use `source: file`"


@dataclass(frozen=True, slots=True)
class Remote:
    """Where to download one part of a benchmark's file."""

    place: str
    """A dataset's id on the hub, or the address of a folder on a plain web page."""
    name: str
    """Path in the dataset, or in the folder."""

    @property
    def is_page(self) -> bool:
        """Whether `place` is a plain HTTP(S) address rather than a dataset on the hub."""
        return "://" in self.place


_BEERQA = "https://nlp.stanford.edu/projects/beerqa"

HUB: Mapping[str, Mapping[str, tuple[Remote, ...]]] = {
    "gsm8k": {
        "train": (Remote("openai/gsm8k", "main/train-00000-of-00001.parquet"),),
        "evaluation": (Remote("openai/gsm8k", "main/test-00000-of-00001.parquet"),),
    },
    "hotpotqa": {
        "train": (
            Remote("hotpotqa/hotpot_qa", "distractor/train-00000-of-00002.parquet"),
            Remote("hotpotqa/hotpot_qa", "distractor/train-00001-of-00002.parquet"),
        ),
        "evaluation": (Remote("hotpotqa/hotpot_qa", "distractor/validation-00000-of-00001.parquet"),),
    },
    "musique": {
        "train": (Remote("dgslibisey/MuSiQue", "musique_ans_v1.0_train.jsonl"),),
        "evaluation": (Remote("dgslibisey/MuSiQue", "musique_ans_v1.0_dev.jsonl"),),
    },
    "beerqa": {
        "train": (Remote(_BEERQA, "beerqa_train_v1.0.json"),),
        "evaluation": (Remote(_BEERQA, "beerqa_dev_v1.0.json"),),
    },
}
"""The parts of each benchmark's files, in order. CofCA has none: it is not published where a program could read it."""


@dataclass(frozen=True, slots=True)
class Locked:
    """The lock file's entry for one place."""

    commit: str
    """The dataset's commit; empty for a plain page."""
    files: Mapping[str, Checksum]


@dataclass(frozen=True, slots=True)
class Fetched:
    """One downloaded part."""

    path: Path
    commit: str
    """The dataset's commit; empty for a plain page."""
    checksum: Checksum


class Fetcher:
    """Downloads parts, and checks each against the lock file.

    Files from plain pages are kept in `folder`, files from the hub in `cache` or the hub library's own cache.
    `endpoint` is the hub's address; None: the library's default (`HF_ENDPOINT`). The library reads `HF_TOKEN` itself.
    """

    def __init__(self, lock: Path, folder: Path, *, endpoint: str | None = None, cache: Path | None = None) -> None:
        self._path, self._folder, self._endpoint, self._cache = lock, folder, endpoint, cache
        self._lock = _read_lock(lock)

    def fetch(self, remote: Remote) -> Fetched:
        """Download the part unless it is there; record its commit and checksum if the lock file has none.

        Raises `DataError` when it cannot be downloaded, saying why, and when it differs from the lock file.
        """
        locked = self._lock.get(remote.place, Locked("", {}))
        known = locked.files.get(remote.name)
        commit = "" if remote.is_page else locked.commit or self._newest(remote)
        path = self._from_page(remote, known) if remote.is_page else self._from_hub(remote, commit)
        found = checksum(path)
        if known is not None and found != known:
            raise DataError(
                f"{remote.place}, {remote.name}: {self._path} requires {known.bytes:,} bytes with SHA-256 "
                f"{known.sha256}, and what was downloaded has {found.bytes:,} bytes with SHA-256 {found.sha256}; "
                "to accept the change, delete the entry from that file"
            )
        if known is None:
            self._lock[remote.place] = Locked(commit, {**locked.files, remote.name: found})
            save_json({place: asdict(one) for place, one in self._lock.items()}, self._path)
        return Fetched(path, commit, found)

    def _newest(self, remote: Remote) -> str:
        """The newest commit of a dataset."""
        from huggingface_hub import HfApi

        with _explained(remote):
            commit = HfApi(endpoint=self._endpoint).dataset_info(remote.place, timeout=_TIMEOUT_S).sha
        if not _COMMIT.fullmatch(commit or ""):
            raise DataError(f"{remote.place}: expected the hub to name a commit of 40 hex digits, got {commit!r}")
        return str(commit)

    def _from_hub(self, remote: Remote, commit: str) -> Path:
        from huggingface_hub import hf_hub_download

        with _explained(remote):
            path = hf_hub_download(
                remote.place,
                remote.name,
                repo_type="dataset",
                revision=commit,
                endpoint=self._endpoint,
                cache_dir=self._cache,
            )
        return Path(path)

    def _from_page(self, remote: Remote, known: Checksum | None) -> Path:
        """The file in `folder` if it is the locked one, otherwise downloaded from the page."""
        path = self._folder / remote.name
        if known is not None and path.exists() and checksum(path) == known:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        address = f"{remote.place}/{remote.name}"
        with (
            _explained(remote),
            urlopen(address, timeout=_TIMEOUT_S) as answer,
            partial.open("wb") as file,
            _bar(remote.name, announced := answer.length) as bar,
        ):
            while piece := answer.read(1 << 20):
                if file.tell() + len(piece) > _LARGEST_BYTES:
                    raise DataError(f"{address} has more than {_LARGEST_BYTES:,} bytes")
                file.write(piece)
                bar.update(len(piece))
            if announced is not None and file.tell() < announced:
                raise DataError(
                    f"{address} was cut off: {file.tell():,} of {announced:,} bytes came; start it again, {_INSTEAD}"
                )
        os.replace(partial, path)
        return path


def _bar(name: str, size: int | None) -> Any:
    """A bar like those of the hub library's own downloads, which are shown and hidden together."""
    from huggingface_hub.utils.tqdm import tqdm

    bar: Any = tqdm
    return bar(desc=name, total=size, unit="B", unit_scale=True, name="huggingface_hub.http_get")


@contextmanager
def _explained(remote: Remote) -> Iterator[None]:
    """Turn anything a download can raise into a `DataError` that says what to do."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the libraries promise no common base class
        raise DataError(f"{remote.place}, {remote.name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, URLError):
        return f"the server cannot be reached: {error.reason}; {_INSTEAD}"
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled) or isinstance(error.__cause__, errors.OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set, and the file is not in the hub library's cache; {_INSTEAD}"
    if isinstance(error, errors.GatedRepoError):
        return "the dataset is gated: accept its terms on its page, and set HF_TOKEN to a token of that account"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no such dataset, or it is private and HF_TOKEN does not open it"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the hub does not have the commit that the lock file names; delete its entry to take the newest one"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "the dataset has no such file at this commit"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"the hub cannot be reached, and the file is not in the hub library's cache; {_INSTEAD}"
    if isinstance(error, errors.HfHubHTTPError):
        return f"the hub answered {error.response.status_code}"
    return f"the hub cannot be reached: {type(error).__name__}: {error}; {_INSTEAD}"


def _read_lock(path: Path) -> dict[str, Locked]:
    """The lock file's entries, empty when there is no such file. Raises `DataError` for a file that is no lock file."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {place: _locked(entry) for place, entry in tree.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        expected = "for each dataset its commit, and for each file its bytes and sha256"
        raise DataError(
            f"{path} is no lock file: {error!r}; expected {expected}, as an earlier download wrote it"
        ) from None


def _locked(entry: dict[str, Any]) -> Locked:
    files = {name: Checksum(int(file["bytes"]), str(file["sha256"])) for name, file in entry["files"].items()}
    if entry["commit"] and not _COMMIT.fullmatch(entry["commit"]):
        raise ValueError(f"commit {entry['commit']!r}")
    return Locked(str(entry["commit"]), files)
