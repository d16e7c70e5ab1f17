"""recall@k against values worked out by hand, and the benchmark that prints it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from swirl.bench import report
from swirl.bench.retrieval import retrieval
from swirl.benchmarks.official import read
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import save
from swirl.core.types import Passage, Question, Support
from swirl.tools import Search
from swirl.tools.recall import recall
from swirl.tools.search import build

DATA = Path(__file__).parents[3] / "shared/data"

PASSAGES = [
    Passage("p0", "", "red red red"),
    Passage("p1", "", "red red and blue"),
    Passage("p2", "", "red and a lot of other things"),
    Passage("p3", "", "green"),
]


def question(name: str, text: str) -> Question:
    return Question(name, "hues", "train", text, ("x",), 2, ("search",))


QUESTIONS = [question("a", "red?"), question("b", "Green?"), question("c", "no support")]
SUPPORT = {"a": ["p2", "p0"], "b": ("p3", "p0")}


def test_recall_is_a_mean_over_questions_with_support() -> None:
    """`red?` ranks p0, p1, p2; `Green?` finds only p3."""
    found = recall(Search.over(PASSAGES, k=1), QUESTIONS, SUPPORT, ks=(1, 2, 3))
    assert found == {
        "recall@1": (1 / 2 + 1 / 2) / 2,
        "recall@2": (1 / 2 + 1 / 2) / 2,
        "recall@3": (1 + 1 / 2) / 2,
        "all@1": 0.0,
        "all@2": 0.0,
        "all@3": 0.5,
    }


@pytest.mark.parametrize(("name", "at_5"), [("hotpotqa", 0.775), ("musique", 0.492)])
def test_official_rows(name: str, at_5: float) -> None:
    path = DATA / name / "train_sample.json"
    if not path.exists():
        pytest.skip(f"official rows are not at {path}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has fewer rows than the official file
        loaded = read(name, "train", path, drop_easy=False)
    found = recall(Search.over(loaded.passages), loaded.questions, loaded.support)
    assert found["recall@5"] == pytest.approx(at_5, abs=0.001)


def test_what_cannot_be_measured_is_refused() -> None:
    search = Search.over(PASSAGES)
    with pytest.raises(DataError, match="question a: its supporting passage p9 is not in the index"):
        recall(search, QUESTIONS, {"a": ["p0", "p9"]})
    with pytest.raises(DataError, match="none of 3 questions has supporting passages"):
        recall(search, QUESTIONS, {"z": ["p0"], "a": []})


def test_the_benchmark_measures_every_index_with_support(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    other = Question("d", "hues", "evaluation", "blue", ("x",), 0, ("search",))
    save([*QUESTIONS, other], Question, layout.questions)
    save([Support("a", ("p2", "p0")), Support("b", ("p3", "p0")), Support("d", ("p1",))], Support, layout.support)
    with pytest.raises(DataError, match=r"no index in .*data/index has questions with support"):
        retrieval(tmp_path)
    build(PASSAGES, layout.index("hues", "train"))
    result = retrieval(tmp_path)
    assert result["bench"] == "retrieval"
    (row,) = result["rows"]
    assert (row["name"], row["retriever"], row["passages"], row["questions"]) == ("hues.train", "bm25", 4, 2)
    assert (row["recall@1"], row["recall@20"], row["all@20"]) == (0.5, 0.75, 0.5)
    assert row["queries_per_second"] > 0
    table = report.text(result).splitlines()
    assert table[0] == (
        "| name | retriever | passages | questions | recall@1 | recall@2 | recall@5 | recall@10 | recall@20 "
        "| all@1 | all@2 | all@5 | all@10 | all@20 | queries_per_second |"
    )
    assert table[2].startswith("| hues.train | bm25 | 4 | 2 | 0.500 | 0.500 | 0.750 |")
    build(PASSAGES, layout.index("hues", "evaluation"))
    assert [row["name"] for row in retrieval(tmp_path)["rows"]] == ["hues.train", "hues.evaluation"]
