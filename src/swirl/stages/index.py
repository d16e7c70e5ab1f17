"""index: the search tool's index, one a corpus."""

from __future__ import annotations

from swirl.layout import Layout
from swirl.params import Params
from swirl.records import load, save_json
from swirl.tools.search import build
from swirl.types import Passage


def run(params: Params, layout: Layout) -> None:
    """Index every corpus of data/corpus."""
    metrics: dict[str, float] = {}
    for path in sorted((layout.root / "data/corpus").glob("*.parquet")):
        benchmark, split = path.stem.rsplit(".", 1)
        passages = load(Passage, path)
        build(passages, layout.index(benchmark, split), params.index.stopwords)
        metrics[f"{path.stem}.passages"] = len(passages)
    save_json(metrics, layout.metrics("index"))
