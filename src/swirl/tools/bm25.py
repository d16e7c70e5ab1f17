"""BM25: passages ranked by the words that they share with a query.

bm25s computes and stores the index, but passages are ranked here, from its postings, because bm25s breaks ties between
equal scores by memory order; here the earlier passage wins. Its arrays are memory-mapped when loaded, never pickled.
Its own vocabulary is not used, because its order is that of a set, which differs between runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from swirl.core.errors import DataError
from swirl.core.types import Passage
from swirl.tools.words import indexed, words

if TYPE_CHECKING:
    import bm25s

_BATCH_CELLS = 4_000_000
"""Maximum number of scores (queries x passages) held at a time, 8 bytes each."""


class BM25:
    """Lucene's BM25 over title and text of passages."""

    def __init__(self, retriever: bm25s.BM25, vocabulary: Sequence[str], stopwords: Collection[str]) -> None:
        """Raises `ValueError` when the arrays do not fit one another or the vocabulary."""
        scores = retriever.scores
        if len(vocabulary) != len(scores["indptr"]) - 1:
            raise ValueError("its vocabulary does not fit its arrays")
        if not len(scores["data"]) == len(scores["indices"]) == scores["indptr"][-1]:
            raise ValueError("its arrays differ in length")
        self.vocabulary = list(vocabulary)
        self.stopwords = frozenset(stopwords)
        self.passages = int(scores["num_docs"])
        """Number of passages."""
        self._retriever = retriever
        self._scores: np.ndarray[Any, Any] = scores["data"]
        self._documents: np.ndarray[Any, Any] = scores["indices"]
        self._starts: list[int] = scores["indptr"].tolist()
        self._tokens = {word: token for token, word in enumerate(vocabulary)}

    @classmethod
    def over(
        cls, passages: Sequence[Passage], stopwords: Collection[str] = (), done: Callable[[int], None] = lambda n: None
    ) -> BM25:
        """Index these passages; `done(n)` is told of `n` more. Raises `DataError` when they contain no word at all."""
        left_out = frozenset(stopwords)
        vocabulary: dict[str, int] = {}
        tokens = []
        for passage in passages:
            found = indexed(f"{passage.title} {passage.text}", left_out)
            tokens.append([vocabulary.setdefault(word, len(vocabulary)) for word in found])
            done(1)
        if not vocabulary:
            raise DataError(f"no word to index in {len(passages)} passages")
        retriever = _bm25s().BM25()
        retriever.index((tokens, vocabulary), create_empty_token=False, show_progress=False)
        retriever.vocab_dict = {}
        return cls(retriever, list(vocabulary), left_out)

    @classmethod
    def load(cls, folder: Path, vocabulary: Sequence[str], stopwords: Collection[str]) -> BM25:
        """Load what `save` wrote. Raises `OSError`, `ValueError`, `TypeError` or `EOFError` if missing or broken."""
        retriever = _bm25s().BM25.load(folder, mmap=True, load_vocab=False, show_progress=False)
        return cls(retriever, vocabulary, stopwords)

    def save(self, folder: Path) -> None:
        """Write the arrays; the caller must store vocabulary and stopwords."""
        self._retriever.save(folder, show_progress=False)

    def rank(self, queries: Sequence[str], k: int) -> list[list[int]]:
        """For each query the positions of the at most `k` passages that share a word with it, the best first."""
        size = max(1, _BATCH_CELLS // self.passages)
        found: list[list[int]] = []
        for start in range(0, len(queries), size):
            found.extend(_top(row, k) for row in self.scores(queries[start : start + size]))
        return found

    def scores(self, queries: Sequence[str]) -> np.ndarray[Any, Any]:
        """BM25 scores, shape (queries, passages): the sum over a query's words in their order, repeats included."""
        weights, cells = [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
        for row, query in enumerate(queries):
            for word in words(query, self.stopwords):
                token = self._tokens.get(word)
                if token is not None:
                    posting = slice(self._starts[token], self._starts[token + 1])
                    weights.append(self._scores[posting])
                    cells.append(self._documents[posting] + row * self.passages)
        sums = np.bincount(np.concatenate(cells), np.concatenate(weights), minlength=len(queries) * self.passages)
        return sums.reshape(len(queries), self.passages)


def _top(scores: np.ndarray[Any, Any], k: int) -> list[int]:
    """Positions of the `k` highest scores above 0, the earlier one first among equals; `scores` (passages,)."""
    hits = np.flatnonzero(scores)
    if len(hits) > k:
        threshold = np.partition(scores[hits], -k)[-k]
        hits = hits[scores[hits] >= threshold]
    best: list[int] = hits[np.argsort(-scores[hits], kind="stable")][:k].tolist()
    return best


def _bm25s() -> Any:
    """The library, without its debug messages."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return bm25s
