"""index: one search index per corpus, which answers from that corpus alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from swirl.config.params import Params, load
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import load_json, save
from swirl.core.types import Passage, Question, Support
from swirl.stages import index
from swirl.tools import Search

PARAMS = load(Path(__file__).parents[2] / "params.yaml")
NORTH = [Passage("p0", "Oslo", "Oslo is the capital of Norway."), Passage("p1", "Bergen", "A harbour.")]
SOUTH = [Passage("p0", "Lima", "Lima is the capital of Peru.")]


def params(stopwords: list[str]) -> Params:
    return PARAMS.model_copy(update={"index": PARAMS.index.model_copy(update={"stopwords": stopwords})})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    save(NORTH, Passage, layout.corpus("mini-hotpotqa", "train"))
    save(SOUTH, Passage, layout.corpus("mini-beerqa", "evaluation"))
    save([], Question, layout.questions)
    save([], Support, layout.support)
    return layout


def test_every_corpus_gets_its_own_index(layout: Layout) -> None:
    index.run(params([]), layout)
    assert Search(layout.index("mini-hotpotqa", "train")).run("capital") == "Oslo is the capital of Norway."
    assert Search(layout.index("mini-beerqa", "evaluation")).run("capital") == "Lima is the capital of Peru."
    assert load_json(layout.metrics("index")) == {
        "mini-hotpotqa.train.passages": 2,
        "mini-beerqa.evaluation.passages": 1,
    }


def test_an_index_of_a_corpus_that_is_gone_goes_too(layout: Layout) -> None:
    index.run(params([]), layout)
    layout.corpus("mini-beerqa", "evaluation").unlink()
    index.run(params([]), layout)
    assert [path.name for path in (layout.root / "data/index").iterdir()] == ["mini-hotpotqa.train"]


def test_stopwords_are_left_out(layout: Layout) -> None:
    index.run(params(["capital"]), layout)
    assert Search(layout.index("mini-hotpotqa", "train")).run("capital") == "no result"
    assert Search(layout.index("mini-hotpotqa", "train")).run("capital of a harbour").startswith("Bergen: A harbour.")


def test_the_same_corpus_gives_the_same_bytes(layout: Layout) -> None:
    def content() -> dict[str, bytes]:
        folder = layout.index("mini-hotpotqa", "train")
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    index.run(params([]), layout)
    first = content()
    index.run(params([]), layout)
    assert content() == first


def test_a_broken_corpus_is_refused_by_name(layout: Layout) -> None:
    layout.corpus("mini-beerqa", "evaluation").write_bytes(b"")
    with pytest.raises(DataError, match=r"mini-beerqa.evaluation.parquet is not a readable Parquet file"):
        index.run(params([]), layout)
