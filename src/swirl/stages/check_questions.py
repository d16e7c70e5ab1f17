"""Gate: the benchmarks are complete, and no evaluation question is trained on."""

from __future__ import annotations

import pandas as pd

from swirl.config.params import Params
from swirl.core.checksums import Checksum, checksum
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import load_json
from swirl.core.splits import counts
from swirl.core.types import Derivation, Passage, Question, Support
from swirl.quality import questions as gate
from swirl.quality.tables import read
from swirl.quality.validation import publish


def run(params: Params, layout: Layout) -> None:
    """Check the questions, their derivations and support, and every corpus that is searched; write the gate's report.

    Raises `GateError` naming what is violated and where, `DataError` when a file cannot be read, or for a filter by
    outcome where no training question has a golden label.
    """
    evaluated = {name: "evaluation" in counts(asked) for name, asked in params.download.benchmarks.items()}
    questions = read(Question, layout.questions)
    _check_labels(params, questions)
    read_once: dict[Checksum | None, pd.DataFrame] = {}
    corpora = {}
    for benchmark, split in gate.searched(questions, sorted(evaluated)):
        path = layout.corpus(benchmark, split)
        content = checksum(path) if path.exists() else None  # `read` refuses a missing file
        if content not in read_once:
            read_once[content] = read(Passage, path)
        corpora[f"{benchmark}.{split}"] = read_once[content]
    report = gate.check(
        questions,
        read(Derivation, layout.derivations),
        read(Support, layout.support),
        corpora,
        load_json(layout.sources),
        evaluated=evaluated,
        min_evaluation=params.check_questions.min_evaluation,
        max_skipped_share=params.check_questions.max_skipped_share,
    )
    publish(report, layout)


def _check_labels(params: Params, questions: pd.DataFrame) -> None:
    """Raise `DataError` where a filter needs golden labels that no training question has: logs may have none."""
    train = questions[questions["split"] == "train"]
    most = params.filter.max_trajectories
    wanted = [params.filter.strategy, *(most if isinstance(most, list) else [])]
    needing = [name for name in wanted if name in ("outcome", "both")]
    if not needing or not len(train) or any(len(answers) for answers in train["answers"]):
        return
    raise DataError(
        f"filter.{'strategy' if wanted[0] in needing else 'max_trajectories'} names {needing[0]}, which keeps what "
        f"ends in the golden answer, but none of the {len(train)} training conversations has a golden label; log one "
        "(`answer` beside the messages, or in MLflow an expectation `expected_response`), or set filter.strategy to "
        "process or none"
    )
