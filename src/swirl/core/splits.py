"""The splits, and how many questions of a benchmark each of them gets."""

from __future__ import annotations

from typing import Any, Literal, Protocol

SPLITS = ("pretrain", "reward", "train", "development", "evaluation")


class Asked(Protocol):
    """One benchmark's section in params.yaml: these fields, and one per split with its count (None: no questions)."""

    @property
    def eval_ids(self) -> str | None:
        """A file of official ids to evaluate on, and on no others; None where there is no such list."""

    @property
    def files(self) -> Any:
        """Split -> its file; None where the benchmark has no files."""


def counts(asked: Asked) -> dict[str, int | Literal["all"]]:
    """Split -> number of questions, for splits that get any; "all" for evaluation on the ids of `eval_ids`."""
    wanted = {split: getattr(asked, split) for split in SPLITS}
    if asked.eval_ids is not None:
        wanted["evaluation"] = "all"
    return {split: count for split, count in wanted.items() if count}


def files_of(asked: Asked) -> dict[str, str]:
    """Split -> its file; empty where there are none."""
    return {str(split): path for split, path in (asked.files or {}).items()}
