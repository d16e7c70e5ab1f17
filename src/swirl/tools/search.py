"""The search tool: BM25 over title and text of a benchmark's passages.

bm25s computes and stores the index. Retrieval reads its postings here, because bm25s breaks ties between equal
scores by chance of memory order; here the earlier passage wins. An index folder holds bm25s's arrays (memory-mapped
when loaded, never pickled), `passages.parquet`, and `search.json` with the vocabulary, written last.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from swirl import records
from swirl.errors import DataError
from swirl.types import ActionKind, Passage

if TYPE_CHECKING:
    import bm25s

NO_RESULT = "no result"
"""The observation of a query that shares no word with any passage."""

_WORD = re.compile(r"\w+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_JOIN = " | "
_QUERY_LIMIT = 1000
"""Characters of a query that are read."""
_BATCH_CELLS = 4_000_000
"""Scores (queries x passages) held at a time, 8 bytes each."""


def words(text: str, stopwords: Collection[str] = ()) -> list[str]:
    """The lower-case words of `text` (runs of letters, digits and underscores) that are no stopwords."""
    return [word for word in _WORD.findall(text.lower()) if word not in stopwords]


def build(passages: Sequence[Passage], index_dir: Path, stopwords: Collection[str] = ()) -> None:
    """Write the index of `passages`; the same passages and stopwords give the same bytes.

    Raises `DataError` when no passage holds a word.
    """
    index_dir.mkdir(parents=True, exist_ok=True)
    settings = index_dir / "search.json"
    settings.unlink(missing_ok=True)
    retriever, vocabulary = _index(passages, frozenset(stopwords))
    retriever.save(index_dir, show_progress=False)
    records.save(passages, Passage, index_dir / "passages.parquet")
    described = {"passages": len(passages), "stopwords": sorted(stopwords), "vocabulary": list(vocabulary)}
    records.save_json(described, settings)


class Search:
    """The tool over an index that `build` wrote, or `over` passages in memory. Its calls are short by construction."""

    name = "search"
    kind = ActionKind.SEARCH
    tag = "search_query"
    description = "finds the passages that match a query"
    time_limit_s = 0.0

    def __init__(self, index_dir: Path, k: int = 3, output_limit: int = 2000) -> None:
        """Shows the best `k` passages in at most `output_limit` characters.

        Raises `DataError` when the index is missing or broken.
        """
        settings = _settings(index_dir)
        retriever = _arrays(index_dir)
        passages = records.load(Passage, index_dir / "passages.parquet")
        vocabulary = {word: token for token, word in enumerate(settings["vocabulary"])}
        scores = retriever.scores
        if not len(passages) == settings["passages"] == scores["num_docs"]:
            raise _broken(index_dir, "it does not hold as many passages as were indexed")
        if len(vocabulary) != len(scores["indptr"]) - 1:
            raise _broken(index_dir, "its vocabulary does not fit its arrays")
        if not len(scores["data"]) == len(scores["indices"]) == scores["indptr"][-1]:
            raise _broken(index_dir, "its arrays differ in length")
        self._set(retriever, vocabulary, passages, frozenset(settings["stopwords"]), k, output_limit)

    @classmethod
    def over(
        cls, passages: Sequence[Passage], k: int = 3, output_limit: int = 2000, stopwords: Collection[str] = ()
    ) -> Search:
        """The tool over `passages` in memory, answering as one loaded from a folder. Raises `DataError` as `build`."""
        search = cls.__new__(cls)
        retriever, vocabulary = _index(passages, frozenset(stopwords))
        search._set(retriever, vocabulary, passages, frozenset(stopwords), k, output_limit)
        return search

    def _set(
        self,
        retriever: bm25s.BM25,
        vocabulary: dict[str, int],
        passages: Sequence[Passage],
        stopwords: frozenset[str],
        k: int,
        output_limit: int,
    ) -> None:
        if k < 1 or output_limit < 20:
            raise ValueError(f"k must be at least 1 and output_limit at least 20, not {k} and {output_limit}")
        self.k = k
        self.output_limit = output_limit
        self._scores: np.ndarray[Any, Any] = retriever.scores["data"]
        self._documents: np.ndarray[Any, Any] = retriever.scores["indices"]
        self._starts: list[int] = retriever.scores["indptr"].tolist()
        self._vocabulary = vocabulary
        self._passages = passages
        self._stopwords = stopwords

    def run(self, query: str) -> str:
        """The best passages, joined by " | ", or `NO_RESULT`; total."""
        return self.run_many([query])[0]

    def run_many(self, queries: Sequence[str]) -> list[str]:
        """`run` of every query, faster."""
        return [self._shown(best) for best in self.best(queries)]

    def best(self, queries: Sequence[str]) -> list[list[int]]:
        """For each query the positions of the at most `k` passages that share a word with it, the best first.

        Equal scores stand in the order of the passages.
        """
        size = max(1, _BATCH_CELLS // len(self._passages))
        found: list[list[int]] = []
        for start in range(0, len(queries), size):
            scores = self._score(queries[start : start + size])
            found.extend(self._top(row) for row in scores)
        return found

    def _score(self, queries: Sequence[str]) -> np.ndarray[Any, Any]:
        """BM25 scores, shape (queries, passages): the sum over a query's words in their order, repeats included."""
        weights, cells = [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
        passages = len(self._passages)
        for row, query in enumerate(queries):
            for word in words(query[:_QUERY_LIMIT], self._stopwords):
                token = self._vocabulary.get(word)
                if token is not None:
                    posting = slice(self._starts[token], self._starts[token + 1])
                    weights.append(self._scores[posting])
                    cells.append(self._documents[posting] + row * passages)
        sums = np.bincount(np.concatenate(cells), np.concatenate(weights), minlength=len(queries) * passages)
        return sums.reshape(len(queries), passages)

    def _top(self, scores: np.ndarray[Any, Any]) -> list[int]:
        """Positions of the `k` highest scores above 0, the earlier one first among equals; `scores` (passages,)."""
        hits = np.flatnonzero(scores)
        if len(hits) > self.k:
            threshold = np.partition(scores[hits], -self.k)[-self.k]
            hits = hits[scores[hits] >= threshold]
        best: list[int] = hits[np.argsort(-scores[hits], kind="stable")][: self.k].tolist()
        return best

    def _shown(self, best: Sequence[int]) -> str:
        """The observation that shows these passages within the limit, cut after a whole passage or sentence."""
        if not best:
            return NO_RESULT
        text = _JOIN.join(map(self._show, best))
        if len(text) <= self.output_limit:
            return text
        shown = ""
        for number, position in enumerate(best):
            joint = _JOIN if number else ""
            for sentence in _SENTENCE.split(self._show(position)):
                if len(shown) + len(joint) + len(sentence) > self.output_limit:
                    start = sentence[: self.output_limit]
                    return shown or start.rpartition(" ")[0] or start
                shown += joint + sentence
                joint = " "
        return shown

    def _show(self, position: int) -> str:
        """`title: text`, or the text alone where it names its title."""
        passage = self._passages[position]
        return passage.text if passage.title in passage.text else f"{passage.title}: {passage.text}"


def _index(passages: Sequence[Passage], stopwords: frozenset[str]) -> tuple[bm25s.BM25, dict[str, int]]:
    """bm25s's index and the vocabulary in order of first use. Raises `DataError` when there is no word at all.

    bm25s's own vocabulary is a set's order, which differs between runs, so it is not used.
    """
    vocabulary: dict[str, int] = {}
    tokens = [
        [vocabulary.setdefault(word, len(vocabulary)) for word in words(f"{passage.title} {passage.text}", stopwords)]
        for passage in passages
    ]
    if not vocabulary:
        raise DataError(f"no word to index in {len(passages)} passages")
    retriever = _bm25s().BM25()
    retriever.index((tokens, vocabulary), create_empty_token=False, show_progress=False)
    retriever.vocab_dict = {}
    return retriever, vocabulary


def _settings(index_dir: Path) -> dict[str, Any]:
    """`search.json`. Raises `DataError` when it is missing or broken."""
    if not (index_dir / "search.json").exists():
        raise DataError(f"{index_dir} holds no search index; the stage index makes it: run `dvc repro index`")
    settings = records.load_json(index_dir / "search.json")
    if not isinstance(settings, dict) or not {"passages", "stopwords", "vocabulary"} <= settings.keys():
        raise _broken(index_dir, "search.json lacks passages, stopwords or vocabulary")
    return settings


def _arrays(index_dir: Path) -> bm25s.BM25:
    """bm25s's arrays, memory-mapped. Raises `DataError` when they are missing or broken."""
    try:
        return _bm25s().BM25.load(index_dir, mmap=True, load_vocab=False, show_progress=False)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise _broken(index_dir, str(error)) from error


def _broken(index_dir: Path, what: str) -> DataError:
    return DataError(f"the search index {index_dir} is broken: {what}; make it again with `dvc repro --force -s index`")


def _bm25s() -> Any:
    """The library, without its debug messages."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return bm25s
