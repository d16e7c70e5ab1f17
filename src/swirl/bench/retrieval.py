"""`swirl bench retrieval`: each index's recall of the passages that answers rest on, and its queries per second.

Every data/index/<benchmark>.<split> whose questions have support (data/questions/support.parquet) is measured, with
the question's own text as the only query.
"""

from __future__ import annotations

import time
from pathlib import Path

from swirl.bench.measure import Result
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import load
from swirl.core.types import Question, Support
from swirl.tools.recall import recall
from swirl.tools.search import Search


def retrieval(root: Path, device: str = "cpu") -> Result:
    """One row per index. Raises `DataError` when there is nothing to measure."""
    layout = Layout(root)
    support = {row.question_id: row.passage_ids for row in load(Support, layout.support) if row.passage_ids}
    supported = [question for question in load(Question, layout.questions) if question.id in support]
    rows = []
    for benchmark, split in dict.fromkeys((question.benchmark, question.split) for question in supported):
        folder = layout.index(benchmark, split)
        if not folder.exists():
            continue
        search = Search(folder, root=root, device=device)
        questions = [q for q in supported if (q.benchmark, q.split) == (benchmark, split)]
        search.run(questions[0].text)
        start = time.perf_counter()
        search.run_many([question.text for question in questions])
        seconds = time.perf_counter() - start
        rows.append(
            {
                "name": f"{benchmark}.{split}",
                "retriever": search.retriever,
                "passages": len(search.passages),
                "questions": len(questions),
                "queries_per_second": len(questions) / seconds,
                **recall(search, questions, support),
            }
        )
    if not rows:
        raise DataError(f"no index in {layout.root / 'data/index'} has questions with support in {layout.support}")
    return {"bench": "retrieval", "rows": rows}
