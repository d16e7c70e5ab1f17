"""What questions are for, and how many of a benchmark each purpose gets."""

from __future__ import annotations

from typing import Any, Literal, Protocol

SPLITS = ("pretrain", "reward", "train", "development", "evaluation")


class Asked(Protocol):
    """What params.yaml asks of one benchmark: besides these, a count for each split, None for no questions."""

    @property
    def eval_ids(self) -> str | None:
        """A file of official ids: evaluate on these alone."""

    @property
    def files(self) -> Any:
        """Split -> its file; None where the benchmark has no files."""


def counts(asked: Asked) -> dict[str, int | Literal["all"]]:
    """The splits that get questions, and how many: of listed ids, all."""
    wanted = {split: getattr(asked, split) for split in SPLITS}
    if asked.eval_ids is not None:
        wanted["evaluation"] = "all"
    return {split: count for split, count in wanted.items() if count}


def files_of(asked: Asked) -> dict[str, str]:
    """Split -> its file; empty where there are none."""
    return {str(split): path for split, path in (asked.files or {}).items()}
