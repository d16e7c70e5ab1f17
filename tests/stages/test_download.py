"""download: which files it writes, and what they hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from swirl.config.data import Benchmark
from swirl.config.params import Params, load
from swirl.core.errors import DataError, ParamsError
from swirl.core.layout import Layout
from swirl.core.records import load as records
from swirl.core.records import load_json
from swirl.core.types import Derivation, Passage, Question
from swirl.stages import download

PARAMS = load(Path(__file__).parents[2] / "params.yaml")
SIZES = {
    "mini-hotpotqa": Benchmark(source="embedded", train=3, development=2, evaluation=4),
    "mini-gsm8k": Benchmark(source="embedded", train=2, development=0, evaluation=3),
    "mini-cofca": Benchmark(source="embedded", evaluation=5),
}


SAME_FOR_ALL_SEEDS = {
    "data/questions/solutions.parquet",
    "data/questions/sources.json",
    "data/questions/support.parquet",
    "reports/metrics/download.json",
}


def params(benchmarks: dict[str, Benchmark], worlds: int = 2, **top: int) -> Params:
    section = PARAMS.download.model_copy(update={"benchmarks": benchmarks, "worlds": worlds})
    return PARAMS.model_copy(update={"download": section, **top})


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_files_and_counts(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    download.run(params(SIZES), layout)
    assert list(files(tmp_path)) == [
        "data/corpus/mini-cofca.evaluation.parquet",
        "data/corpus/mini-hotpotqa.development.parquet",
        "data/corpus/mini-hotpotqa.evaluation.parquet",
        "data/corpus/mini-hotpotqa.train.parquet",
        "data/questions/derivations.parquet",
        "data/questions/memory.parquet",
        "data/questions/questions.parquet",
        "data/questions/solutions.parquet",
        "data/questions/sources.json",
        "data/questions/support.parquet",
        "reports/metrics/download.json",
    ]
    assert load_json(layout.metrics("download")) == {
        "mini-hotpotqa.train.questions": 3,
        "mini-hotpotqa.train.passages": 392,
        "mini-hotpotqa.development.questions": 2,
        "mini-hotpotqa.development.passages": 392,
        "mini-hotpotqa.evaluation.questions": 4,
        "mini-hotpotqa.evaluation.passages": 392,
        "mini-gsm8k.train.questions": 2,
        "mini-gsm8k.train.passages": 0,
        "mini-gsm8k.evaluation.questions": 3,
        "mini-gsm8k.evaluation.passages": 0,
        "mini-cofca.evaluation.questions": 5,
        "mini-cofca.evaluation.passages": 196,
    }


def test_a_corpus_of_a_benchmark_that_was_taken_out_goes_too(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    download.run(params(SIZES), layout)
    download.run(params({"mini-cofca": SIZES["mini-cofca"]}), layout)
    assert [path.name for path in (tmp_path / "data/corpus").iterdir()] == ["mini-cofca.evaluation.parquet"]


def test_questions_derivations_memory_and_corpus_belong_together(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    download.run(params(SIZES), layout)
    questions = records(Question, layout.questions)
    assert [question.id for question in questions][-6:] == [
        "mini-gsm8k/evaluation/2",
        *(f"mini-cofca/evaluation/{number}" for number in range(5)),
    ]
    derivations = records(Derivation, layout.derivations)
    assert [derivation.question_id for derivation in derivations] == [question.id for question in questions]
    assert [memory.question_id for memory in records(Derivation, layout.memory)] == [q.id for q in questions[-5:]]
    passages = {passage.id for passage in records(Passage, layout.corpus("mini-hotpotqa", "train"))}
    assert all(call in passages for derivation in derivations[:3] for call in derivation.calls)


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        download.run(params(SIZES, seed=seed), Layout(tmp_path / name))
    assert files(tmp_path / "a") == files(tmp_path / "b")
    other = files(tmp_path / "c")
    assert all(
        other[name] != content for name, content in files(tmp_path / "a").items() if name not in SAME_FOR_ALL_SEEDS
    )


def test_the_worlds_of_the_committed_params_fit_into_every_split(tmp_path: Path) -> None:
    few = {name: sizes.model_copy(update={"evaluation": 1}) for name, sizes in PARAMS.download.benchmarks.items()}
    download.run(params(few, PARAMS.download.worlds), Layout(tmp_path))
    assert load_json(Layout(tmp_path).metrics("download"))["mini-hotpotqa.development.passages"] == 588


def test_an_unknown_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"download.benchmarks.mini-gsm9k: not an embedded benchmark; they are mini-"):
        download.run(params({"mini-gsm9k": Benchmark(source="embedded", evaluation=1)}), Layout(tmp_path))


def test_more_than_a_split_can_give_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split 'train' has \d+ left of its \d+; ask for fewer worlds"):
        download.run(params(SIZES, worlds=9), Layout(tmp_path))
