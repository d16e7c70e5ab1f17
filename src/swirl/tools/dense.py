"""Dense retrieval: passages ranked by the inner product of a sentence-transformers model's embeddings.

Vectors have length 1 and are stored in one FAISS file, memory-mapped when loaded. Only safetensors weights are read,
and no code of a model's repository is run. Scores are rounded to 5 decimals, because their last bits depend on which
queries are embedded together, and equal passages must keep their order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from swirl.core.checksums import checksum
from swirl.core.errors import ModelError, SwirlError
from swirl.core.untrusted import writable
from swirl.tools.words import words

FILE = "passages.faiss"
"""The file of an index folder that holds the vectors."""

_READ = ("*.json", "*.txt", "*.model", "*.safetensors")
"""The files of a model's folder that are read, hashed and downloaded."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_BATCH = 32
"""Number of texts that are embedded together."""
_PIECE = 2048
"""Number of passages that are embedded in one call, between two words of progress."""
_TOGETHER = 16
"""Queries per FAISS search: few enough that it scores each by itself, so that no query changes another's scores."""
_SPARE = 10
"""Passages retrieved beyond those asked for, so that the earlier one of equals is among them."""


class Embedder:
    """A loaded sentence-transformers model. Calls may come from any thread."""

    def __init__(self, model: str, revision: str | None, root: Path, device: str) -> None:
        """`model` is a folder (relative to `root`) or a hub id; `revision` is for hub ids only.

        Raises `ModelError` when there is no such model, or its weights are not safetensors.
        """
        _require_extra()
        folder, commit = _folder(model, revision, root)
        for weights in sorted(folder.rglob("pytorch_model*.bin")):
            if not list(weights.parent.glob("*.safetensors")):
                raise ModelError(
                    f"embedding model {model}: {weights} must be safetensors; pickled weights are not read"
                )
        from sentence_transformers import SentenceTransformer

        try:
            self._model: Any = SentenceTransformer(
                str(folder),
                device=device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
        except Exception as error:  # the library may raise anything for a folder that is no model
            raise ModelError(f"embedding model {model}: {folder} cannot be loaded: {error}") from error
        self._lock = Lock()  # each call's options change the state of a fast tokenizer
        self.identity = {"model": model, "revision": commit, "sha256": "" if commit else _digest(folder)}
        """What an index records of the model: a hub model's commit, or the hash of a folder's files."""

    def passages(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """Vectors of length 1, float32 of shape (texts, dimensions). Equal texts have equal vectors."""
        return self._embed(self._model.encode_document, texts)

    def queries(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """As `passages`, with the model's prompt for queries, if it has one."""
        return self._embed(self._model.encode_query, texts)

    def _embed(self, encode: Any, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        place: dict[str, int] = {}
        rows = [place.setdefault(writable(text), len(place)) for text in texts]
        with self._lock:
            vectors = encode(list(place), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
        return np.ascontiguousarray(np.asarray(vectors, dtype=np.float32)[rows])


@cache
def load_embedder(model: str, revision: str | None, root: Path, device: str) -> Embedder:
    """The `Embedder` of these arguments, loaded once per process."""
    return Embedder(model, revision, root, device)


class Dense:
    """Ranks passages by the vectors in an index folder."""

    def __init__(self, folder: Path, recorded: Mapping[str, Any], passages: int, root: Path, device: str) -> None:
        """`recorded` is the identity of the model that made the vectors.

        Raises `ValueError` when the vectors are broken, are not those of `passages` passages, or were made by another
        model than the one that is there now; and what `Embedder` raises.
        """
        if not isinstance(recorded, dict) or not isinstance(recorded.get("model"), str):
            raise ValueError("search.json does not say which embedding model made it")
        self._embedder = load_embedder(recorded["model"], recorded.get("revision") or None, root, device)
        if self._embedder.identity != recorded:
            raise ValueError(f"the files of its embedding model {recorded['model']} are not those that made it")
        faiss = _faiss()
        try:
            self._index: Any = faiss.read_index(str(folder / FILE), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise ValueError(f"{FILE} cannot be read: {str(error).splitlines()[0][-200:]}") from error
        if not isinstance(self._index, faiss.IndexFlatIP) or self._index.ntotal != passages:
            raise ValueError(f"{FILE} does not hold one vector for each of {passages} passages")
        if self._index.d != self._embedder.queries(["word"]).shape[1]:
            raise ValueError(f"{FILE} holds vectors of {self._index.d} numbers, and its model makes others")

    def rank(self, queries: Sequence[str], k: int) -> list[list[int]]:
        """For each query the positions of the `k` nearest passages, the best first; none for a query without words."""
        found: list[list[int]] = [[] for _ in queries]
        asked = [number for number, query in enumerate(queries) if words(query)]
        if not asked:
            return found
        vectors = self._embedder.queries([queries[number] for number in asked])
        depth = min(k + _SPARE, self._index.ntotal)
        for start in range(0, len(asked), _TOGETHER):
            scores, positions = self._index.search(vectors[start : start + _TOGETHER], depth)
            for number, row, places in zip(asked[start:], np.round(scores, 5), positions, strict=False):
                found[number] = places[np.lexsort((places, -row))][:k].tolist()
        return found


def save(texts: Sequence[str], embedder: Embedder, folder: Path, done: Callable[[int], None] = lambda n: None) -> None:
    """Write the vectors of passages, given the text of each; `done(n)` is told of `n` more."""
    faiss, index = _faiss(), None
    for start in range(0, len(texts), _PIECE):
        vectors = embedder.passages(texts[start : start + _PIECE])
        index = index or faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        done(len(vectors))
    faiss.write_index(index, str(folder / FILE))


def _folder(model: str, revision: str | None, root: Path) -> tuple[Path, str]:
    """(the model's folder, the commit of a hub model or ""). Raises `ModelError`."""
    folder = root / model
    if folder.is_dir():
        if revision:
            raise ModelError(f"embedding model {model} is a folder, which has no revision; leave {revision!r} out")
        return folder, ""
    if not _HUB_ID.fullmatch(model):
        raise ModelError(
            f"embedding model {model!r}: there is no such folder in {root}, and it is no hub id (owner/name)"
        )
    from huggingface_hub import snapshot_download

    try:
        downloaded = snapshot_download(
            model, revision=revision, allow_patterns=list(_READ), ignore_patterns=["onnx/*", "openvino/*"]
        )
    except Exception as error:  # many classes: no network, no such model, no such revision, no access
        where = f"{model} at {revision or 'its newest revision'}"
        raise ModelError(f"embedding model {where} is neither a folder nor to be had from the hub: {error}") from error
    return Path(downloaded), Path(downloaded).name


def _digest(folder: Path) -> str:
    """SHA-256 over names and contents of the files that are read."""
    total = hashlib.sha256()
    for path in sorted({path for pattern in _READ for path in folder.rglob(pattern)}):
        total.update(f"{path.relative_to(folder).as_posix()} {checksum(path).sha256}\n".encode())
    return total.hexdigest()


def _require_extra() -> None:
    """Raise `SwirlError` unless the libraries are installed."""
    if missing := [name for name in ("sentence_transformers", "faiss") if find_spec(name) is None]:
        raise SwirlError(f"dense retrieval needs {' and '.join(missing)}: pip install -c constraints.txt -e '.[dense]'")


def _faiss() -> Any:
    _require_extra()
    import faiss

    return faiss
