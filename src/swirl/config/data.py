"""The sections of `download`, `check_questions` and `index`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from swirl.config.section import Count, ProjectFolder, Section, Share, Word, leads_outside
from swirl.core.splits import SPLITS, counts


def _questions(value: object) -> object:
    if value is None or value == "all" or (type(value) is int and value >= 0):
        return value
    raise ValueError(f"expected a number of questions, 0 for none, or all; got {value!r}")


def _inside(path: str) -> str:
    if leads_outside(path):
        raise ValueError(f"expected a path inside download.folder, relative to it; got {path!r}")
    return path


Questions = Annotated[int | Literal["all"] | None, PlainValidator(_questions)]
Inside = Annotated[str, AfterValidator(_inside)]
Files = Annotated[
    Mapping[Literal["pretrain", "reward", "train", "development", "evaluation"], Inside], Field(min_length=1)
]
_KEYS_OF_SOURCE = {
    "embedded": set[str](),
    "file": {"files", "eval_ids", "drop_easy", "max_hops"},
    "hub": {"eval_ids", "drop_easy", "max_hops"},
    "own": {"files", "eval_ids", "corpus", "task", "max_hops"},
    "logs": {"logs", "logged_tools", "by"},
}
"""The keys that each source accepts besides `source` and the counts of the splits."""
_NEEDED_BY_SOURCE = {
    "embedded": set[str](),
    "file": {"files"},
    "hub": set[str](),
    "own": {"files", "task"},
    "logs": {"logs"},
}

NAMES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "embedded": (
        "an embedded benchmark",
        ("mini-hotpotqa", "mini-musique", "mini-cofca", "mini-beerqa", "mini-gsm8k"),
    ),
    "file": ("a benchmark with official files", ("gsm8k", "hotpotqa", "musique", "cofca", "beerqa")),
    "hub": ("on the hub", ("gsm8k", "hotpotqa", "musique", "beerqa")),
}
"""The sources whose benchmarks have given names: what such a benchmark is, and the names. Others are called as one
likes."""


class Benchmark(Section):
    """Where one benchmark comes from, and how many questions each of its splits gets.

    A key that is left out is None here: no questions, no such file. Paths are relative to `download.folder`.
    """

    source: Literal["embedded", "file", "hub", "own", "logs"] = Field(
        description="embedded: generated; file: official files; hub: downloaded; own: your own task; logs: an agent's"
    )
    pretrain: Questions = Field(default=None, description="questions for base_model; embedded: it makes its own")
    reward: Questions = Field(default=None, description="questions for reward_model; embedded: it makes its own")
    train: Questions = Field(default=None, description="questions to synthesise from; 0: out of distribution")
    development: Questions = Field(
        default=None, description="to watch training on; 0: none, and the guard has KL and verdicts alone"
    )
    evaluation: Questions = Field(default=None, description="questions to evaluate on; all: what is left")
    files: Files | None = Field(default=None, description="split -> its file; splits without one draw from train's")
    eval_ids: Inside | None = Field(default=None, description="file of official ids: evaluate on these alone")
    drop_easy: bool | None = Field(default=None, description="hotpotqa: leave easy questions out of file train")
    max_hops: Count | None = Field(
        default=None, description="leave out questions of more hops than this, or of an unknown number"
    )
    corpus: Inside | None = Field(default=None, description="own: the passages, JSON lines or a folder of texts")
    task: Word | None = Field(
        default=None, description="own: one of `tasks`, which decides prompt, tools and step limit"
    )

    logs: Annotated[list[Inside], Field(min_length=1)] | None = Field(
        default=None,
        description="logs: files of an agent's logs, folders of them (*.jsonl, *.json), or mlflow:EXPERIMENT",
    )
    logged_tools: Inside | None = Field(
        default=None, description="logs: a JSON list of tools, as in a request's, for logs that name none"
    )
    by: list[str] | None = Field(default=None, description="logs: only what these models wrote is an action")

    @model_serializer(mode="wrap")
    def _given(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Serialise without the keys that params.yaml leaves out."""
        return {key: value for key, value in plain(self).items() if value is not None}

    @model_validator(mode="after")
    def _fits(self) -> Benchmark:
        allowed = {"source", *SPLITS, *_KEYS_OF_SOURCE[self.source]}
        if others := sorted(self.model_dump().keys() - allowed):
            raise ValueError(f"source: {self.source} has no use for {', '.join(others)}")
        if missing := sorted(_NEEDED_BY_SOURCE[self.source] - self.model_dump().keys()):
            raise ValueError(f"source: {self.source} needs {', '.join(missing)}")
        if self.source == "embedded" and (self.pretrain or self.reward):
            raise ValueError(
                "base_model and reward_model make their own embedded questions; leave out pretrain, reward"
            )
        if self.source == "embedded" and "all" in counts(self).values():
            raise ValueError("embedded questions are made, so there is no 'all' of them; give numbers")
        if self.source == "logs" and self.reward:
            raise ValueError(
                "no reward model is taught by logs, which do not say what is right in them; leave out reward"
            )
        if self.source == "logs" and list(counts(self).values()).count("all") > 1:
            raise ValueError("only one split can have all conversations that the others leave; give numbers otherwise")
        if self.eval_ids is not None and self.evaluation not in (None, "all"):
            raise ValueError("eval_ids lists the evaluation questions; leave out evaluation")
        if self.eval_ids is not None and self.max_hops is not None:
            raise ValueError("eval_ids lists the evaluation questions, whatever their hops; leave out max_hops")
        if self.files is not None:
            for split in counts(self):
                if split not in self.files and "train" not in self.files:
                    raise ValueError(f"files names no file for {split}, and no train to draw it from")
        return self


class Download(Section):
    """The benchmarks and the files they come from."""

    folder: ProjectFolder = Field(
        description="folder of official and own files, relative to params.yaml; a change re-runs"
    )
    benchmarks: Annotated[Mapping[Word, Benchmark], Field(min_length=1)] = Field(description="benchmark -> its source")
    on_bad_row: Literal["stop", "skip"] = Field(description="a row that cannot be read; skip: left out and counted")
    worlds: Count = Field(description="fictional worlds behind each embedded benchmark's split")
    changed_facts: Share = Field(description="share of the remembered world's facts that mini-cofca changes")


class CheckQuestions(Section):
    """Limits of the questions gate."""

    min_evaluation: Count = Field(description="least evaluation questions of a benchmark that has some")
    max_skipped_share: Share = Field(description="bad rows that download left out, among all rows of a file")


class Index(Section):
    """The search index."""

    retriever: Literal["bm25", "dense", "hybrid"] = Field(description="words, vectors, or both by reciprocal rank")
    stopwords: list[str] = Field(description="words that bm25 leaves out; []: none")
    embedding_model: str = Field(description="sentence-transformers model for vectors: hub id or folder; '': none")
    embedding_revision: str = Field(description="commit of the hub repository; '' for a folder or the newest")

    @model_validator(mode="after")
    def _fits(self) -> Index:
        if self.retriever != "bm25" and not self.embedding_model:
            raise ValueError(f"retriever: {self.retriever} needs an embedding_model")
        return self
