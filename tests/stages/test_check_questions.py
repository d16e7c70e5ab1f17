"""The gate on questions: each violation, put into otherwise sound files, stops it with a message that says where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swirl.config.data import Benchmark, CheckQuestions
from swirl.config.params import load
from swirl.core import parquet
from swirl.core.errors import DataError, GateError
from swirl.core.layout import Layout
from swirl.core.records import load_json, read_table, save, save_json
from swirl.core.types import Derivation, Passage, Question, Support
from swirl.stages import check_questions

GIVEN = load(Path(__file__).parents[2] / "params.yaml")
BENCHMARKS = dict.fromkeys(("mini-hotpotqa", "mini-gsm8k"), Benchmark(source="embedded", train=1, evaluation=1))
PARAMS = GIVEN.model_copy(
    update={
        "download": GIVEN.download.model_copy(update={"benchmarks": BENCHMARKS}),
        "check_questions": CheckQuestions(min_evaluation=1, max_skipped_share=0.1),
    }
)


def question(identifier: str, benchmark: str, split: str, text: str, answer: str) -> Question:
    tool = "search" if benchmark == "mini-hotpotqa" else "calculate"
    return Question(identifier, benchmark, split, text, (answer,), 1, (tool,))


QUESTIONS = [
    question("h-0", "mini-hotpotqa", "train", "Where was Ada Bram born?", "Port Velda"),
    question("h-1", "mini-hotpotqa", "evaluation", "Where was Kai Drake born?", "Old Morin"),
    question("g-0", "mini-gsm8k", "train", "What is 1.5 + 2?", "3.5"),
    question("g-1", "mini-gsm8k", "evaluation", "What is 15 + 2?", "17"),
]
DERIVATIONS = [
    Derivation("h-0", "search", ("Ada Bram birthplace",), ("Port Velda",)),
    Derivation("g-1", "calculate", ("15 + 2",), ("17",)),
]
SUPPORT = [Support("h-0", ("p-0", "p-1")), Support("h-1", ("p-0",))]
TRAIN = [Passage("p-0", "Ada Bram", "Ada Bram was born in Port Velda."), Passage("p-1", "Port Velda", "A city.")]
EVALUATION = [Passage("p-0", "Kai Drake", "Kai Drake was born in Old Morin.")]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    save(QUESTIONS, Question, layout.questions)
    save(DERIVATIONS, Derivation, layout.derivations)
    save(SUPPORT, Support, layout.support)
    save_json([], layout.sources)
    save(TRAIN, Passage, layout.corpus("mini-hotpotqa", "train"))
    save(EVALUATION, Passage, layout.corpus("mini-hotpotqa", "evaluation"))
    return layout


def stopped(layout: Layout) -> str:
    """The message with which the gate stops."""
    with pytest.raises(GateError) as caught:
        check_questions.run(PARAMS, layout)
    assert not layout.quality("questions").exists()
    return str(caught.value)


def test_sound_files_pass_and_the_report_counts_them(layout: Layout) -> None:
    check_questions.run(PARAMS, layout)
    report = load_json(layout.quality("questions"))
    assert report["success"] is True
    assert report["rows"] == {
        "questions": 4,
        "derivations": 2,
        "support": 2,
        "corpus.mini-hotpotqa.evaluation": 1,
        "corpus.mini-hotpotqa.train": 2,
    }
    assert report["statistics"] == {
        "pretrain/mini-gsm8k": 0,
        "pretrain/mini-hotpotqa": 0,
        "reward/mini-gsm8k": 0,
        "reward/mini-hotpotqa": 0,
        "train/mini-gsm8k": 1,
        "train/mini-hotpotqa": 1,
        "development/mini-gsm8k": 0,
        "development/mini-hotpotqa": 0,
        "evaluation/mini-gsm8k": 1,
        "evaluation/mini-hotpotqa": 1,
    }


def test_two_runs_write_the_same_bytes(layout: Layout) -> None:
    check_questions.run(PARAMS, layout)
    first = layout.quality("questions").read_bytes()
    check_questions.run(PARAMS, layout)
    assert layout.quality("questions").read_bytes() == first


def test_a_derivation_leads_to_an_answer_that_has_the_same_value(layout: Layout) -> None:
    """As GSM8K writes dollars: the calculator's 4.5 is the answer 4.50."""
    save([*QUESTIONS, question("g-2", "mini-gsm8k", "train", "What is 9 / 2?", "4.50")], Question, layout.questions)
    save([*DERIVATIONS, Derivation("g-2", "calculate", ("9 / 2",), ("4.5",))], Derivation, layout.derivations)
    check_questions.run(PARAMS, layout)


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        (3, {"id": "g-0"}, "expect_column_values_to_be_unique on questions.id: 2 of 4 rows violate that every question "
         "has an id of its own, in one split only: row 2, id g-0, value g-0; row 3, id g-0, value g-0"),
        (1, {"text": "where was  Ada Bram born"}, "text_problem: 2 of 4 rows violate that no question is asked in two "
         "splits, however it is punctuated: row 0, id h-0, value the text of h-1 (evaluation); row 1, id h-1, value "
         "the text of h-0 (train)"),
        (2, {"text": None}, "expect_column_values_to_not_be_null on questions.text: 1 of 4 rows violate that text is "
         "never null: row 2, id g-0"),
        (2, {"id": None}, "expect_column_values_to_not_be_null on questions.id: 1 of 4 rows violate that id is never "
         "null: row 2, id None"),
        (2, {"answers": ("3.5", None)}, "expect_column_values_to_not_be_null on questions.answers: 1 of 4"),
        (2, {"text": " \n"}, "expect_column_values_to_match_regex on questions.text: 1 of 4 rows violate that every "
         "question has a text: row 2, id g-0"),
        (2, {"answers": ("", " ")}, "questions.full_answers: 1 of 4 rows violate that every question has an answer "
         "that is not blank: row 2, id g-0, value 0"),
        (2, {"answers": ()}, "questions.full_answers: 1 of 4 rows"),
        (2, {"split": "test"}, "questions.split: 1 of 4 rows violate that the split is one of pretrain, reward, train, "
         "development, evaluation: row 2, id g-0, value test"),
        (2, {"benchmark": "gsm9k"}, "questions.benchmark: 1 of 4 rows violate that the benchmark is one of mini-gsm8k, "
         "mini-hotpotqa: row 2, id g-0, value gsm9k"),
        (3, {"split": "train"}, "mix.evaluation: 1 of 2 rows violate that every benchmark that is evaluated on has at "
         "least 1 evaluation questions: benchmark mini-gsm8k, value 0"),
        (0, {"answers": ("Old Morin",)}, "derivations.results_problem: 1 of 2 rows violate that a derivation leads, in "
         "as many calls as its question has hops, to an accepted answer: row 0, question_id h-0, value ends in "
         "['Port Velda'], accepted are ['Old Morin']"),
        (0, {"hops": 2}, "row 0, question_id h-0, value 1 calls and 1 results for 2 hops"),
        (0, {"id": "h-9"}, "row 0, question_id h-0, value there is no such question"),
    ],
)  # fmt: skip
def test_a_broken_question_stops_the_gate(layout: Layout, row: int, change: dict[str, Any], message: str) -> None:
    questions = list(QUESTIONS)
    questions[row] = replace(questions[row], **change)
    save(questions, Question, layout.questions)
    assert message in stopped(layout)


@pytest.mark.parametrize(
    ("passage", "message"),
    [
        (Passage("p-0", "Old Morin", "A city."), "corpus.mini-hotpotqa.train.id: 2 of 3 rows violate that every "
         "passage of a corpus has an id of its own: row 0, id p-0, value p-0; row 2, id p-0, value p-0"),
        (Passage("p-2", "Port Velda", "A city."), "expect_compound_columns_to_be_unique on "
         "corpus.mini-hotpotqa.train.title, text: 2 of 3 rows violate that no passage is in a corpus twice: row 1, "
         "id p-1, value Port Velda, A city.; row 2, id p-2"),
        (Passage("p-2", "Old Morin", ""), "corpus.mini-hotpotqa.train.text: 1 of 3 rows violate that every passage has "
         "a text: row 2, id p-2"),
    ],
)  # fmt: skip
def test_a_broken_passage_stops_the_gate(layout: Layout, passage: Passage, message: str) -> None:
    save([*TRAIN, passage], Passage, layout.corpus("mini-hotpotqa", "train"))
    assert message in stopped(layout)


def test_no_questions_at_all_stop_the_gate(layout: Layout) -> None:
    save([], Question, layout.questions)
    save([], Derivation, layout.derivations)
    save([], Support, layout.support)
    assert "expect_table_row_count_to_be_between on questions: observed 0, but there are questions" in stopped(layout)


def test_a_missing_corpus_is_named(layout: Layout) -> None:
    layout.corpus("mini-hotpotqa", "train").unlink()
    with pytest.raises(DataError, match=r"mini-hotpotqa\.train\.parquet does not exist"):
        check_questions.run(PARAMS, layout)


def test_a_missing_column_is_named(layout: Layout) -> None:
    table = read_table(Question, layout.questions).drop_columns(["answers"])
    parquet.write([table], table.schema, layout.questions)
    with pytest.raises(DataError, match=r"questions\.parquet: column 'answers' is missing"):
        check_questions.run(PARAMS, layout)
