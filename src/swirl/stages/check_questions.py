"""Gate: the benchmarks are whole, and no question that is evaluated is trained on."""

from __future__ import annotations

from swirl.layout import Layout
from swirl.params import Params
from swirl.quality import questions as gate
from swirl.quality.tables import read
from swirl.quality.validation import publish
from swirl.types import Derivation, Passage, Question


def run(params: Params, layout: Layout) -> None:
    """Check the questions, their derivations and every corpus that is searched; write the gate's report.

    Raises `GateError` naming what is violated and where, `DataError` when a file cannot be read.
    """
    benchmarks = sorted(params.download.benchmarks)
    questions = read(Question, layout.questions)
    corpora = {
        f"{benchmark}.{split}": read(Passage, layout.corpus(benchmark, split))
        for benchmark, split in gate.searched(questions, benchmarks)
    }
    report = gate.check(
        questions,
        read(Derivation, layout.derivations),
        corpora,
        benchmarks=benchmarks,
        min_evaluation=params.check_questions.min_evaluation,
    )
    publish(report, layout)
