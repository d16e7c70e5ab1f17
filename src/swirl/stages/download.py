"""download: the benchmarks, their questions and the passages to search in."""

from __future__ import annotations

from swirl.benchmarks.embedded import EMBEDDED, build
from swirl.errors import ParamsError
from swirl.layout import Layout
from swirl.params import Params
from swirl.records import save, save_json
from swirl.types import Derivation, Passage, Question


def run(params: Params, layout: Layout) -> None:
    """Write questions, derivations, memory and one corpus a benchmark and split."""
    settings = params.download
    questions: list[Question] = []
    derivations: list[Derivation] = []
    memory: list[Derivation] = []
    metrics: dict[str, float] = {}
    for name, sizes in settings.benchmarks.items():
        if name not in EMBEDDED:
            raise ParamsError(f"download.benchmarks.{name}: not an embedded benchmark; they are {', '.join(EMBEDDED)}")
        for split, count in sizes.model_dump().items():
            if not count:
                continue
            built = build(name, split, count, settings.worlds, settings.changed_facts, params.seed)
            questions += built.questions
            derivations += built.derivations
            memory += built.memory
            if built.passages:
                save(built.passages, Passage, layout.corpus(name, split))
            metrics[f"{name}.{split}.questions"] = len(built.questions)
            metrics[f"{name}.{split}.passages"] = len(built.passages)
    save(questions, Question, layout.questions)
    save(derivations, Derivation, layout.derivations)
    save(memory, Derivation, layout.memory)
    save_json(metrics, layout.metrics("download"))
