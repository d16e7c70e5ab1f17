"""A local file of rows in a benchmark's official format, to be evaluated on without the pipeline's data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from swirl.benchmarks.official import read
from swirl.config.params import Params
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.leakage import leakage_key
from swirl.core.records import stream
from swirl.core.seeds import generator
from swirl.core.types import Question
from swirl.wiring.indices import build_index
from swirl.wiring.questions import with_tools


class GivenRows:
    """Questions drawn from a file, and an index of all passages of that file."""

    def __init__(self, benchmark: str, path: Path, count: int | None, seed: int, folder: Path) -> None:
        """Read the file and draw `count` questions (None: all) from `seed`; a larger count keeps those of a smaller.

        Indices are built below `folder`. Raises `DataError` as `swirl.benchmarks.official.read` does, and when there
        are fewer than `count` questions.
        """
        loaded = read(benchmark, "evaluation", path, whole=False)
        self.benchmark, self.total = benchmark, len(loaded.questions)
        if count is not None and count > self.total:
            raise DataError(f"{count:,} questions are asked for, and {path} holds {self.total:,}; ask for fewer")
        order = list(loaded.questions)
        generator(seed, "evaluate", benchmark).shuffle(order)
        self.drawn: list[Question] = order[:count]
        self._path, self._passages, self._folder = path, loaded.passages, folder
        self._built: dict[str, Path] = {}

    def questions(self, params: Params) -> list[Question]:
        """The drawn questions, with the tools that params.yaml gives their task.

        Raises `DataError` if they search and the file holds no passage, `ParamsError` for a task without settings.
        """
        questions = [with_tools(question, params) for question in self.drawn]
        if "search" in questions[0].tools and not self._passages:
            raise DataError(f"{self._path} holds no passage to search in, and task {questions[0].task} has the search")
        return questions

    def seen(self, layout: Layout) -> dict[str, int]:
        """How many drawn questions stand, word for word, in each split of the project that something learned from."""
        if not layout.questions.exists():
            return {}
        drawn = {leakage_key(question.text) for question in self.drawn}
        found = Counter[str]()
        for group in stream(Question, layout.questions):
            found.update(q.split for q in group if q.split != "evaluation" and leakage_key(q.text) in drawn)
        return dict(found)

    def index(self, params: Params, root: Path) -> Path:
        """The folder of the index as section `index` wants it, built once; `root` as in `build_index`.

        The folder is empty when the file holds no passage.
        """
        key = f"{root.resolve()}\n{params.index.model_dump_json()}"
        if key not in self._built:
            folder = self._folder / f"index-{len(self._built)}"
            if self._passages:
                build_index(self._passages, folder, params, root)
            self._built[key] = folder
        return self._built[key]
