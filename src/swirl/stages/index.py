"""index: the search tool's index of each corpus, and its recall of the passages that answers rest on."""

from __future__ import annotations

import shutil

from swirl.config.params import Params
from swirl.core.layout import Layout
from swirl.core.records import load, save_json
from swirl.core.types import Passage, Question, Support
from swirl.tools.recall import recall
from swirl.tools.search import Search
from swirl.wiring.indices import build_index


def run(params: Params, layout: Layout) -> None:
    """Index every corpus in data/corpus; measure recall@k where questions have known supporting passages."""
    device = params.runtime.device
    support = {row.question_id: row.passage_ids for row in load(Support, layout.support)}
    questions = [question for question in load(Question, layout.questions) if question.id in support]
    metrics: dict[str, float] = {}
    indices = layout.root / "data/index"
    shutil.rmtree(indices, ignore_errors=True)  # left by other corpora, when the stage runs without DVC
    indices.mkdir(parents=True, exist_ok=True)  # an output even if no task searches
    for path in sorted((layout.root / "data/corpus").glob("*.parquet")):
        benchmark, split = path.stem.rsplit(".", 1)
        passages, index = load(Passage, path), layout.index(benchmark, split)
        build_index(passages, index, params, layout.root)
        metrics[f"{path.stem}.passages"] = len(passages)
        asked = [question for question in questions if (question.benchmark, question.split) == (benchmark, split)]
        if asked:
            found = recall(Search(index, root=layout.root, device=device), asked, support)
            metrics |= {f"{path.stem}.{name}": value for name, value in found.items()}
            print(f"index: {path.stem}: recall@5 {found['recall@5']:.3f} of {len(asked)} questions' passages")
    save_json(metrics, layout.metrics("index"))
