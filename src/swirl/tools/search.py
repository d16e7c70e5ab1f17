"""The search tool: finds passages of a benchmark, and shows them within a length limit.

Three retrievers rank passages: `bm25` (`swirl.tools.bm25`), `dense` (`swirl.tools.dense`), and `hybrid`, which fuses
the two by reciprocal rank. An index folder holds what its retriever needs, `passages.parquet`, and `search.json`, which
describes the index and is written last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from swirl.core import records
from swirl.core.errors import DataError
from swirl.core.showing import shown
from swirl.core.types import ActionKind, Passage
from swirl.tools.bm25 import BM25
from swirl.tools.words import words

NO_RESULT = "no result"
"""The observation of a query that finds nothing: no passage has any of its words (bm25), or it has no word (dense)."""

RETRIEVERS = ("bm25", "dense", "hybrid")

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_JOIN = " | "
_QUERY_LIMIT = 1000
"""Maximum number of characters of a query that are read."""
_WIDEST = 32
"""Maximum number of characters per unit (such as a token) of a `size` other than `len`."""
_FUSED = 100
"""Number of passages that fusion takes from each ranking."""
_RRF = 60
"""The constant of reciprocal rank fusion."""


class Retriever(Protocol):
    """A ranking of passages."""

    def rank(self, queries: Sequence[str], k: int) -> list[list[int]]:
        """For each query the positions of at most `k` passages, the best first, and among equals the earlier first."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """Which model embeds passages and queries."""

    model: str
    """A folder of a sentence-transformers model, relative to `root`, or a hub id."""
    revision: str | None = None
    """For a hub id, a commit, branch or tag; None: the newest commit. An index records the commit."""
    root: Path = Path()
    device: str = "cpu"


def build(
    passages: Sequence[Passage],
    index_dir: Path,
    stopwords: Collection[str] = (),
    retriever: str = "bm25",
    embedding: Embedding | None = None,
    done: Callable[[int], None] = lambda n: None,
) -> None:
    """Write the index of `passages`; the same arguments on the same machine give the same bytes.

    bm25 and hybrid use `stopwords`, dense and hybrid need `embedding`. `done(n)` is told of `n` more passages that
    are in the words' index or in that of the vectors: hybrid has both. Raises `DataError` when no passage holds a word,
    `ValueError` for a retriever that is not one of `RETRIEVERS` or lacks its embedding, and what
    `swirl.tools.dense.Embedder` raises.
    """
    if retriever not in RETRIEVERS:
        raise ValueError(f"the retriever is {retriever!r}; it is one of {', '.join(RETRIEVERS)}")
    index_dir.mkdir(parents=True, exist_ok=True)
    settings = index_dir / "search.json"
    settings.unlink(missing_ok=True)
    described: dict[str, Any] = {"passages": len(passages)}
    if retriever != "bm25":
        described["retriever"] = retriever
    if retriever != "dense":
        ranking = BM25.over(passages, stopwords, done)
        ranking.save(index_dir)
        described |= {"stopwords": sorted(stopwords), "vocabulary": ranking.vocabulary}
    if retriever != "bm25":
        described["embedding"] = _embed(passages, index_dir, embedding, done)
    records.save(passages, Passage, index_dir / "passages.parquet")
    records.save_json(described, settings)


class Search:
    """The tool on an index that `build` wrote, or (`over`) on passages in memory; its calls need no time limit."""

    name = "search"
    kind = ActionKind.SEARCH
    tag = "search_query"
    description = "finds the passages that match a query"
    time_limit_s = 0.0

    def __init__(
        self,
        index_dir: Path,
        k: int = 3,
        output_limit: int = 2000,
        size: Callable[[str], int] = len,
        root: Path = Path(),
        device: str = "cpu",
    ) -> None:
        """Shows the best `k` passages in at most `output_limit` of what `size` counts: characters, or a model's tokens.

        `root` is where an embedding model's folder is looked for, `device` where the model runs. Raises `DataError`
        when the index is missing or broken, or when its embedding model has changed since.
        """
        settings = _settings(index_dir)
        passages = records.load(Passage, index_dir / "passages.parquet")
        if len(passages) != settings["passages"] or not passages:
            raise _broken(index_dir, "it does not hold as many passages as were indexed")
        retriever = settings.get("retriever", "bm25")
        rankings: list[Retriever] = []
        try:
            if retriever != "dense":
                rankings.append(BM25.load(index_dir, settings["vocabulary"], settings["stopwords"]))
            if retriever != "bm25":
                from swirl.tools.dense import Dense

                rankings.append(Dense(index_dir, settings["embedding"], len(passages), root, device))
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise _broken(index_dir, str(error)) from error
        if isinstance(rankings[0], BM25) and rankings[0].passages != len(passages):
            raise _broken(index_dir, "it does not hold as many passages as were indexed")
        self._set(retriever, rankings, passages, k, output_limit, size)

    @classmethod
    def over(
        cls,
        passages: Sequence[Passage],
        k: int = 3,
        output_limit: int = 2000,
        stopwords: Collection[str] = (),
        size: Callable[[str], int] = len,
    ) -> Search:
        """The tool on `passages` in memory, with the answers of a bm25 index; raises `DataError` as `build` does."""
        search = cls.__new__(cls)
        search._set("bm25", [BM25.over(passages, stopwords)], passages, k, output_limit, size)
        return search

    def _set(
        self,
        retriever: str,
        rankings: Sequence[Retriever],
        passages: Sequence[Passage],
        k: int,
        output_limit: int,
        size: Callable[[str], int],
    ) -> None:
        if k < 1 or output_limit < 20:
            raise ValueError(f"k must be at least 1 and output_limit at least 20, not {k} and {output_limit}")
        self.k = k
        self.output_limit = output_limit if size is len else _WIDEST * output_limit
        """Maximum number of characters of an observation."""
        self.retriever = retriever
        self.passages = passages
        self._rankings = rankings
        self._limit, self._size = output_limit, size

    def run(self, query: str) -> str:
        """The best passages, joined by " | ", or `NO_RESULT`; never raises."""
        return self.run_many([query])[0]

    def run_many(self, queries: Sequence[str]) -> list[str]:
        """As `run` for each query, but faster."""
        return [self._shown(best) for best in self.best(queries)]

    def best(self, queries: Sequence[str], k: int | None = None) -> list[list[int]]:
        """For each query the positions of the at most `k` passages that match it, the best first.

        `k` is the tool's own unless given. Passages with equal scores keep their order.
        """
        k = self.k if k is None else k
        read = [query[:_QUERY_LIMIT] for query in queries]
        if len(self._rankings) == 1:
            return self._rankings[0].rank(read, k)
        depth = max(k, _FUSED)
        return [fuse(ranks, k) for ranks in zip(*(by.rank(read, depth) for by in self._rankings), strict=True)]

    def _shown(self, best: Sequence[int]) -> str:
        """The observation that shows these passages within the limit, cut after a whole passage or sentence."""
        if not best:
            return NO_RESULT
        texts = [shown(self.passages[position]) for position in best]
        text = _JOIN.join(texts)
        return text if self._fits(text) else self._cut(texts)

    def _fits(self, text: str) -> bool:
        return len(text) <= self.output_limit and self._size(text) <= self._limit

    def _cut(self, texts: Sequence[str]) -> str:
        """As many of the texts' sentences as fit; if not even the first does, as many of its words as fit.

        The number is found by bisection, so a slow `size` is called some 20 times, not once per sentence.
        """
        parts = [
            (_JOIN if number and not place else " " if place else "") + sentence
            for number, text in enumerate(texts)
            for place, sentence in enumerate(_SENTENCE.split(text))
        ]
        count = _most(len(parts), lambda count: self._fits("".join(parts[:count])))
        if count:
            return "".join(parts[:count])
        start = parts[0][: _most(len(parts[0]), lambda count: self._fits(parts[0][:count]))]
        whole = start.rpartition(" ")[0]
        while whole and not self._fits(whole):  # a shorter text may have more tokens
            whole = whole.rpartition(" ")[0]
        return whole or start


def fuse(rankings: Sequence[Sequence[int]], k: int) -> list[int]:
    """The best `k` by reciprocal rank fusion (Cormack et al. 2009), the earlier position first among equals.

    score(p) = sum over rankings of 1 / (60 + rank of p), ranks from 1; a ranking without p adds nothing.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, position in enumerate(ranking, 1):
            scores[position] = scores.get(position, 0.0) + 1 / (_RRF + rank)
    return sorted(scores, key=lambda position: (-scores[position], position))[:k]


def _most(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 1 to `most` that fits, provided that all smaller ones fit too; 0 when none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _embed(
    passages: Sequence[Passage], index_dir: Path, embedding: Embedding | None, done: Callable[[int], None]
) -> Mapping[str, str]:
    """Write the passages' vectors, and return the identity of the model that made them."""
    from swirl.tools import dense

    if embedding is None:
        raise ValueError("a dense or hybrid index needs an embedding model")
    if not any(words(f"{passage.title} {passage.text}") for passage in passages):
        raise DataError(f"no word to index in {len(passages)} passages")
    embedder = dense.load_embedder(embedding.model, embedding.revision, embedding.root, embedding.device)
    dense.save([shown(passage) for passage in passages], embedder, index_dir, done)
    return embedder.identity


def _settings(index_dir: Path) -> dict[str, Any]:
    """`search.json`. Raises `DataError` when it is missing or broken."""
    if not (index_dir / "search.json").exists():
        raise DataError(f"{index_dir} holds no search index; the stage index makes it: run `dvc repro index`")
    settings = records.load_json(index_dir / "search.json")
    retriever = settings.get("retriever", "bm25") if isinstance(settings, dict) else ""
    if retriever not in RETRIEVERS:
        raise _broken(index_dir, "search.json does not say what it is")
    needed = ["passages"]
    needed += ["stopwords", "vocabulary"] if retriever != "dense" else []
    needed += ["embedding"] if retriever != "bm25" else []
    if missing := [key for key in needed if key not in settings]:
        raise _broken(index_dir, f"search.json lacks {', '.join(missing)}")
    return dict(settings)


def _broken(index_dir: Path, what: str) -> DataError:
    return DataError(f"the search index {index_dir} is broken: {what}; make it again with `dvc repro --force -s index`")
