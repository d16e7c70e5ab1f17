"""Official files: what a row becomes, what is left out and counted, what is refused and with which message."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swirl.benchmarks import cofca
from swirl.benchmarks.official import OFFICIAL, Loaded, load, read, select
from swirl.core.errors import DataError
from swirl.core.grading import same_number
from swirl.core.types import Annotation, Passage, Question

DATA = Path(__file__).parents[3] / "shared/data"

GSM8K: dict[str, Any] = {
    "question": " How many eggs? ",
    "answer": "12*3=<<12*3=36>>36\n36*40=<<36*40=1440>>1440\n#### 1,440",
}
HOTPOTQA: dict[str, Any] = {
    "_id": "h1",
    "question": "Where was the composer of Larkhall born?",
    "answer": "Tove",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Larkhall", 0], ["Edda Morn", 1], ["Edda Morn", 0]],
    "context": [
        ["Larkhall", ["Larkhall is by Edda Morn.", " It is long."]],
        ["Orrin", ["Orrin is a lighthouse."]],
        ["Edda Morn", ["Edda Morn composed.", " She was born in Tove."]],
    ],
}
HOTPOTQA_COLUMNS: dict[str, Any] = {
    **{key: HOTPOTQA[key] for key in ("question", "answer", "type", "level")},
    "id": "h1",
    "supporting_facts": {"title": ["Larkhall", "Edda Morn", "Edda Morn"], "sent_id": [0, 1, 0]},
    "context": {
        "title": [title for title, _ in HOTPOTQA["context"]],
        "sentences": [sentences for _, sentences in HOTPOTQA["context"]],
    },
}
MUSIQUE: dict[str, Any] = {
    "id": "2hop__1_2",
    "question": "Who leads the country of Tove?",
    "answer": "Ada Drake",
    "answer_aliases": ["A. Drake", "Ada Drake"],
    "answerable": True,
    "question_decomposition": [{"id": 1}, {"id": 2}],
    "paragraphs": [
        {"idx": 0, "title": "Tove", "paragraph_text": "Tove lies in Velda.", "is_supporting": True},
        {"idx": 1, "title": "Orrin", "paragraph_text": "Orrin is a lighthouse.", "is_supporting": False},
        {"idx": 2, "title": "Velda", "paragraph_text": "Ada Drake leads Velda.", "is_supporting": True},
    ],
}
COFCA: dict[str, Any] = {
    "id": "c1",
    "question": "Who leads the country of Tove?",
    "answers": ["Bram Falk", "B. Falk"],
    "hops": 3,
    "context": [{"title": "Tove", "text": "Tove lies in Velda."}],
}
BEERQA: dict[str, Any] = {
    "id": "b1",
    "src": "squad",
    "question": "When was Orrin lit?",
    "answers": ["1871", "in 1871"],
    "context": [["Orrin", "Orrin was lit in 1871."]],
}
ROWS = {"gsm8k": GSM8K, "hotpotqa": HOTPOTQA, "musique": MUSIQUE, "cofca": COFCA, "beerqa": BEERQA}

Write = Callable[..., Path]


@pytest.fixture
def as_list(tmp_path: Path) -> Write:
    """Writes rows as one JSON list."""

    def write(*rows: object) -> Path:
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def as_lines(tmp_path: Path) -> Write:
    """Writes rows as JSON lines; a string is written as a line, unchanged."""

    def write(*rows: object) -> Path:
        path = tmp_path / "rows.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def test_gsm8k_has_a_number_its_annotations_and_no_corpus(as_lines: Write) -> None:
    path = as_lines(GSM8K, "", {"question": "q", "answer": "No sum.\n#### -7"})
    questions, passages = load("gsm8k", "sample", path)
    assert questions == [
        Question("gsm8k/sample/0", "gsm8k", "sample", "How many eggs?", ("1440",), 2, ("calculator",), "calculate"),
        Question("gsm8k/sample/2", "gsm8k", "sample", "q", ("-7",), 0, ("calculator",), "calculate"),
    ]
    assert passages == []


@pytest.mark.parametrize("row", [HOTPOTQA, HOTPOTQA_COLUMNS], ids=["official", "columns"])
def test_hotpotqa_in_both_shapes(row: dict[str, Any], as_list: Write) -> None:
    loaded = read("hotpotqa", "sample", as_list(row))
    assert loaded == Loaded(
        rows=1,
        questions=[
            Question("hotpotqa/sample/h1", "hotpotqa", "sample", row["question"], ("Tove",), 2, ("search",)),
        ],
        passages=[
            Passage("hotpotqa/sample/0", "Larkhall", "Larkhall is by Edda Morn. It is long."),
            Passage("hotpotqa/sample/1", "Orrin", "Orrin is a lighthouse."),
            Passage("hotpotqa/sample/2", "Edda Morn", "Edda Morn composed. She was born in Tove."),
        ],
        support={"hotpotqa/sample/h1": ["hotpotqa/sample/0", "hotpotqa/sample/2"]},
        solutions={},
        annotations={},
        skipped=[],
        unanswerable=0,
        dropped_easy=0,
        blank_passages=0,
    )


def test_easy_questions_leave_the_train_split_and_their_passages_stay(as_list: Write) -> None:
    easy = {**HOTPOTQA, "_id": "h0", "level": "easy", "context": [["Mio", ["Mio."]], ["Rue", ["Rue."]]]}
    path = as_list({**easy, "supporting_facts": [["Mio", 0]]}, HOTPOTQA)
    with pytest.warns(UserWarning, match="rows.json has 2 rows; the official file of hotpotqa train has 90,447"):
        dropped = read("hotpotqa", "train", path)
    with pytest.warns(UserWarning, match="90,447"):
        kept = read("hotpotqa", "train", path, drop_easy=False)
    assert [q.id for q in dropped.questions] == ["hotpotqa/train/h1"] == list(dropped.support)
    assert [q.id for q in kept.questions] == ["hotpotqa/train/h0", "hotpotqa/train/h1"] == list(kept.support)
    assert (dropped.dropped_easy, kept.dropped_easy) == (1, 0)
    assert dropped.passages == kept.passages
    assert [p.title for p in dropped.passages] == ["Mio", "Rue", "Larkhall", "Orrin", "Edda Morn"]
    assert read("hotpotqa", "sample", path).dropped_easy == 0


@pytest.mark.parametrize("level", [..., None], ids=["left out", "null"])
def test_hotpotqa_without_levels_keeps_all_its_questions_and_says_so(level: object, as_list: Write) -> None:
    path = as_list(changed("hotpotqa", level=level), {**HOTPOTQA, "_id": "h2", "level": "easy"})
    with (
        pytest.warns(UserWarning, match="90,447"),
        pytest.warns(UserWarning, match=r"rows\.json: rows without a level: 1; they stay, although some may be easy"),
    ):
        loaded = read("hotpotqa", "train", path)
    assert [q.id for q in loaded.questions] == ["hotpotqa/train/h1"]
    assert loaded.dropped_easy == 1
    with pytest.warns(UserWarning, match="90,447") as said:
        assert len(read("hotpotqa", "train", path, drop_easy=False).questions) == 2
    assert not [one for one in said if "without a level" in str(one.message)]
    assert len(read("hotpotqa", "sample", path).questions) == 2


def test_hotpotqa_titles_may_be_composed_or_not(as_list: Write) -> None:
    row = changed(
        "hotpotqa", supporting_facts=[["Cafe\u0301", 0]], context=[["Caf\u00e9", ["It is red."]], ["Orrin", ["No."]]]
    )
    assert read("hotpotqa", "sample", as_list(row)).support == {"hotpotqa/sample/h1": ["hotpotqa/sample/0"]}


def test_musiques_sub_questions_are_kept_with_their_answers_if_all_are_there(as_lines: Write) -> None:
    hops = [{"question": "Tove >> country", "answer": "Velda"}, {"question": "Who leads #1?", "answer": "Ada Drake"}]
    loaded = read("musique", "sample", as_lines(changed("musique", question_decomposition=hops)))
    name = "musique/sample/2hop__1_2"
    steps = ("Tove >> country", "Who leads #1?")
    assert loaded.annotations == {name: Annotation(name, steps, ("Velda", "Ada Drake"))}
    hops = [{"question": "Tove >> country", "answer": "Velda"}, {"id": 2}]
    assert read("musique", "sample", as_lines(changed("musique", question_decomposition=hops))).annotations == {}


@pytest.mark.parametrize("answerable", [..., None], ids=["left out", "null"])
def test_musique_without_answerable_is_answerable(answerable: object, as_lines: Write) -> None:
    without = read("musique", "sample", as_lines(changed("musique", answerable=answerable)))
    assert without == read("musique", "sample", as_lines(MUSIQUE))
    assert (len(without.questions), without.unanswerable) == (1, 0)


def test_support_that_the_file_does_not_hold_is_left_out(as_list: Write) -> None:
    missing = {**HOTPOTQA, "_id": "h2", "supporting_facts": [["Larkhall", 0], ["Elsewhere", 0]]}
    blank = {**HOTPOTQA, "_id": "h3", "context": [*HOTPOTQA["context"][:2], ["Edda Morn", [" ", ""]]]}
    path = as_list(HOTPOTQA, missing, blank)
    loaded = read("hotpotqa", "sample", path)
    assert loaded.support == {"hotpotqa/sample/h1": ["hotpotqa/sample/0", "hotpotqa/sample/2"]}
    assert (len(loaded.questions), len(loaded.passages), loaded.blank_passages) == (3, 3, 1)


@pytest.mark.parametrize("shape", ["as_lines", "as_list"])
def test_musique_counts_the_unanswerable(shape: str, request: pytest.FixtureRequest) -> None:
    write: Write = request.getfixturevalue(shape)
    twin = {**MUSIQUE, "answerable": False, "paragraphs": [{**MUSIQUE["paragraphs"][0], "title": "Gone"}]}
    loaded = read("musique", "sample", write(MUSIQUE, twin))
    name = "musique/sample/2hop__1_2"
    answers = ("Ada Drake", "A. Drake")
    assert loaded.questions == [Question(name, "musique", "sample", MUSIQUE["question"], answers, 2, ("search",))]
    assert [p.title for p in loaded.passages] == ["Tove", "Orrin", "Velda"]
    assert loaded.support == {name: ["musique/sample/0", "musique/sample/2"]}
    assert loaded.unanswerable == 1
    with pytest.raises(DataError, match="leaves no question: bad rows skipped: 0, unanswerable: 1, easy: 0"):
        read("musique", "sample", write(twin))


def test_cofca_in_our_own_lines(as_lines: Write) -> None:
    path = as_lines(COFCA)
    assert load("cofca", "test", path) == (
        [Question("cofca/test/c1", "cofca", "test", COFCA["question"], ("Bram Falk", "B. Falk"), 3, ("search",))],
        [Passage("cofca/test/0", "Tove", "Tove lies in Velda.")],
    )
    assert read("cofca", "test", path).support == {}


@pytest.mark.filterwarnings("ignore:.*the official file of beerqa dev")
def test_beerqa_keeps_every_answer_and_may_have_no_context(tmp_path: Path) -> None:
    path = tmp_path / "beerqa.json"
    bare = {"id": "b2", "question": "q", "answers": ["a"]}
    path.write_text(json.dumps({"version": "1.0", "split": "dev", "data": [BEERQA, bare]}, indent=2), encoding="utf-8")
    questions, passages = load("beerqa", "dev", path)
    assert questions == [
        Question("beerqa/dev/b1", "beerqa", "dev", "When was Orrin lit?", ("1871", "in 1871"), 0, ("search",)),
        Question("beerqa/dev/b2", "beerqa", "dev", "q", ("a",), 0, ("search",)),
    ]
    assert passages == [Passage("beerqa/dev/0", "Orrin", "Orrin was lit in 1871.")]
    path.write_text(json.dumps({"data": [bare]}), encoding="utf-8")
    assert load("beerqa", "dev", path)[1] == []


def test_a_passage_comes_once_and_keeps_its_id(as_lines: Write) -> None:
    same_title = {**COFCA, "id": "c2", "context": [{"title": "Tove", "text": "Another."}, *COFCA["context"]]}
    passages = read("cofca", "test", as_lines(COFCA, same_title)).passages
    assert passages == [
        Passage("cofca/test/0", "Tove", "Tove lies in Velda."),
        Passage("cofca/test/1", "Tove", "Another."),
    ]


def changed(name: str, **fields: object) -> dict[str, Any]:
    """The benchmark's row with some fields replaced; a field set to `...` is removed."""
    return {key: value for key, value in {**ROWS[name], **fields}.items() if value is not ...}


BAD: list[tuple[str, object, str]] = [
    ("gsm8k", changed("gsm8k", answer=...), "field 'answer': expected a text, got nothing"),
    ("gsm8k", changed("gsm8k", answer="It is 5."), "field 'answer': .* ends in '#### ' and a number, got 'It is 5.'"),
    ("gsm8k", changed("gsm8k", answer="#### ten"), "field 'answer': .* got '#### ten'"),
    ("gsm8k", changed("gsm8k", answer="#### 5 men"), "field 'answer': .* got '#### 5 men'"),
    ("gsm8k", changed("gsm8k", question=" "), "field 'question': expected a text that is not blank, got ' '"),
    ("gsm8k", changed("gsm8k", question=7), "field 'question': expected a text, got 7"),
    ("gsm8k", changed("gsm8k", question="\ud800"), "field 'question': expected a text of whole characters, got"),
    ("gsm8k", changed("gsm8k", question=["x" * 999]), r"field 'question': expected a text, got \['x{9,20}\.\.\.x+'\]$"),
    ("gsm8k", [1], r"expected an object with fields, got \[1\]"),
    ("hotpotqa", changed("hotpotqa", answer=""), "field 'answer': expected a text that is not blank, got ''"),
    ("hotpotqa", changed("hotpotqa", _id=...), "field 'id': expected a text, got nothing"),
    ("hotpotqa", changed("hotpotqa", _id=5), "field '_id': expected a text, got 5"),
    ("hotpotqa", changed("hotpotqa", level=3), "field 'level': expected a text, got 3"),
    ("hotpotqa", changed("hotpotqa", context=[]), r"field 'context': expected a list of at least 1, got \[\]"),
    ("hotpotqa", changed("hotpotqa", context="a"), "field 'context': expected a list of at least 1, got 'a'"),
    ("hotpotqa", changed("hotpotqa", context=[["T", []]]), "field 'context': expected at least one passage with text"),
    ("hotpotqa", changed("hotpotqa", context=[["T"]]), r"field 'context': expected a list of 2, got \['T'\]"),
    ("hotpotqa", changed("hotpotqa", context=[["T", "text"]]), "field 'context': expected a list, got 'text'"),
    (
        "hotpotqa",
        changed("hotpotqa", context=[["T", [1]]]),
        r"field 'context': expected a list of sentences, got \[1\]",
    ),
    (
        "hotpotqa",
        changed("hotpotqa", context={"title": ["T"], "sentences": []}),
        "field 'context': expected as many titles as lists",
    ),
    (
        "hotpotqa",
        changed("hotpotqa", context={"title": [], "sentences": []}),
        "field 'context': expected at least one passage",
    ),
    ("hotpotqa", changed("hotpotqa", supporting_facts=["a"]), "field 'supporting_facts': expected a list of 2"),
    ("musique", changed("musique", paragraphs=[]), r"field 'paragraphs': expected a list of at least 1, got \[\]"),
    ("musique", changed("musique", paragraphs=["a"]), "field 'paragraphs': expected an object with fields, got 'a'"),
    (
        "musique",
        changed("musique", paragraphs=[{"title": "T"}]),
        "field 'paragraph_text': expected a text, got nothing",
    ),
    ("musique", changed("musique", answerable="yes"), "field 'answerable': expected true or false, got 'yes'"),
    ("musique", changed("musique", answer_aliases="a"), "field 'answer_aliases': expected a list, got 'a'"),
    ("musique", changed("musique", answer=None), "field 'answer': expected a text, got None"),
    ("musique", changed("musique", question_decomposition=[]), "field 'question_decomposition': expected a list of at"),
    ("cofca", changed("cofca", hops=5), "field 'hops': expected 2, 3 or 4, got 5"),
    ("cofca", changed("cofca", hops=2.0), r"field 'hops': expected 2, 3 or 4, got 2\.0"),
    ("cofca", changed("cofca", answers=[]), r"field 'answers': expected a list of at least 1, got \[\]"),
    (
        "cofca",
        changed("cofca", context=[{"title": "T", "text": " "}]),
        "field 'context': expected at least one passage",
    ),
    ("beerqa", changed("beerqa", answers=["a", ""]), "field 'answers': expected a text that is not blank, got ''"),
    ("beerqa", changed("beerqa", answers="a"), "field 'answers': expected a list of at least 1, got 'a'"),
    ("beerqa", changed("beerqa", context=[["T", 1]]), "field 'context': expected a text, got 1"),
]


@pytest.mark.parametrize(("name", "row", "message"), BAD)
def test_a_bad_row_is_named_or_skipped(name: str, row: object, message: str, as_list: Write) -> None:
    path = as_list(ROWS[name], row)
    with pytest.raises(DataError, match=rf"rows\.json, row 2, {message}"):
        read(name, "sample", path)
    with pytest.warns(UserWarning, match=rf"rows\.json: bad rows skipped: 1; the first is row 2, {message}"):
        loaded = read(name, "sample", path, on_bad_row="skip")
    assert [skipped.place for skipped in loaded.skipped] == ["row 2"]
    assert loaded.questions == read(name, "sample", as_list(ROWS[name])).questions


@pytest.mark.parametrize("name", [name for name in OFFICIAL if name != "gsm8k"])
def test_an_id_that_comes_twice_is_refused(name: str, as_list: Write) -> None:
    path = as_list(ROWS[name], ROWS[name])
    with pytest.raises(DataError, match=r"rows\.json, row 2, field 'id': expected an id that row 1 does not have, got"):
        load(name, "sample", path)
    with pytest.warns(UserWarning, match="skipped"):
        assert len(load(name, "sample", path, on_bad_row="skip")[0]) == 1


def test_a_broken_line_is_named_or_skipped(as_lines: Write) -> None:
    path = as_lines(COFCA, '{"id": "c2", ', {**COFCA, "id": "c3"}, '{"id": ' + "[" * 100_000)
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2, expected one JSON object in UTF-8 \(Expecting prop"):
        read("cofca", "test", path)
    with pytest.warns(UserWarning, match="bad rows skipped: 2"):
        loaded = read("cofca", "test", path, on_bad_row="skip")
    assert [q.id for q in loaded.questions] == ["cofca/test/c1", "cofca/test/c3"]
    assert [skipped.place for skipped in loaded.skipped] == ["line 2", "line 4"]
    assert loaded.skipped[1].reason.startswith("expected one JSON object in UTF-8 (nested too deeply), got b'")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "\xff", "answer": "#### 1"}\n' + json.dumps(GSM8K).encode() + b"\r\n")
    with pytest.raises(
        DataError, match=r"rows\.jsonl, line 1, expected .* UTF-8 \(byte 14: invalid start byte\), got b'"
    ):
        read("gsm8k", "sample", path)
    with pytest.warns(UserWarning, match="bad rows skipped: 1"):
        assert [q.id for q in read("gsm8k", "sample", path, on_bad_row="skip").questions] == ["gsm8k/sample/1"]
    path.write_bytes(b'[{"question": "\xff"}]')
    with pytest.raises(DataError, match=r"rows\.jsonl is not one JSON document in UTF-8: byte 15: invalid start byte"):
        read("gsm8k", "sample", path, on_bad_row="skip")
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GSM8K).encode())
    assert read("gsm8k", "sample", path).questions[0].answers == ("1440",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; expected JSON lines, a JSON list of rows, or Parquet"),
        (" \n", "is empty"),
        (
            "<!DOCTYPE html><html>",
            "looks like an HTML page: it starts with b'<!DOCTYPE html><html>'; expected JSON lines",
        ),
        ("id,question,answer\n1,q,a\n", "is not JSON: it starts with b'id,question,answer"),
        ("[{}", "is not one JSON document in UTF-8: Expecting ',' delimiter"),
        ("[]", "leaves no question: bad rows skipped: 0"),
        ("[" * 100_000, "is not one JSON document in UTF-8: nested too deeply"),
    ],
)
@pytest.mark.parametrize("name", OFFICIAL)
def test_another_kind_of_file_is_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "given"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"given {message}"):
        read(name, "sample", path, on_bad_row="skip")


def test_a_file_that_is_not_there_or_wraps_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json cannot be read: No such file or directory"):
        read("musique", "dev", tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read("musique", "dev", tmp_path)
    path = tmp_path / "beerqa.json"
    path.write_text('{"rows": []}', encoding="utf-8")
    with pytest.raises(DataError, match=r"beerqa\.json, field 'data': expected a list of rows, got nothing"):
        read("beerqa", "dev", path)


def test_arguments_that_make_no_sense_are_refused(as_lines: Write) -> None:
    path = as_lines(COFCA)
    with pytest.raises(DataError, match="benchmark 'mini-cofca' .*are gsm8k, .*; did you mean cofca\\?"):
        read("mini-cofca", "test", path)
    with pytest.raises(DataError, match="split 'a/b': expected a name without '/'"):
        read("cofca", "a/b", path)
    with pytest.raises(DataError, match="on_bad_row 'ignore': expected 'raise' or 'skip'"):
        read("cofca", "test", path, on_bad_row="ignore")


def test_the_row_counts_that_are_known() -> None:
    assert {name: dict(form.counts) for name, form in OFFICIAL.items()} == {
        "gsm8k": {"train": 7473, "test": 1319, "evaluation": 1319},
        "hotpotqa": {"train": 90447, "dev": 7405, "validation": 7405, "evaluation": 7405},
        "musique": {"train": 19938, "dev": 2417, "evaluation": 2417},
        "cofca": {},
        "beerqa": {"train": 134043, "dev": 14121, "evaluation": 14121},
    }


def test_unanswerable_rows_do_not_count_against_the_official_number(as_lines: Write) -> None:
    """MuSiQue-Full pairs each question of MuSiQue-Ans with an unanswerable one of the same id."""
    pairs = [{**MUSIQUE, "id": f"2hop__{n}", "answerable": answerable} for n in range(2417) for answerable in (1, 0)]
    path = as_lines(*({**row, "answerable": bool(row["answerable"])} for row in pairs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = read("musique", "evaluation", path)
    assert (loaded.rows, len(loaded.questions), loaded.unanswerable) == (4834, 2417, 2417)
    message = "has 2,417 rows with an answer; the official file of musique train has 19,938"
    with pytest.warns(UserWarning, match=message):
        read("musique", "train", path)


def test_selecting_keeps_the_order_of_the_file_and_lists_what_is_missing(as_lines: Write, tmp_path: Path) -> None:
    questions = read("cofca", "test", as_lines(*({**COFCA, "id": name} for name in ("a", "b", "c")))).questions
    ids = tmp_path / "ids.txt"
    ids.write_text("c\n\nx\n a \ny\n", encoding="utf-8")
    chosen, missing = select(questions, ids)
    assert [q.id for q in chosen] == ["cofca/test/c", "cofca/test/a"]
    assert missing == ["x", "y"]
    with pytest.raises(DataError, match="id 'a' is that of two questions: cofca/test/a and cofca/test/a"):
        select([*questions, *read("cofca", "test", tmp_path / "rows.jsonl").questions], ids)


def test_listed_ids_may_be_composed_or_not(as_lines: Write, tmp_path: Path) -> None:
    rows = [{**COFCA, "id": "e\u0301"}, {**COFCA, "id": "\u00fc"}]
    ids = tmp_path / "ids.txt"
    ids.write_text("u\u0308\n\u00e9\n", encoding="utf-8")
    chosen, missing = select(read("cofca", "test", as_lines(*rows)).questions, ids)
    assert ([q.id for q in chosen], missing) == (["cofca/test/\u00fc", "cofca/test/e\u0301"], [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\na\n", r"ids\.txt, line 3: id 'a' stands in line 1 too"),
        (b"\n", r"ids\.txt holds no id; expected one per line"),
        (b"\xff", r"ids\.txt is not UTF-8: byte 0: invalid start byte; expected one id per line"),
    ],
)
def test_a_bad_file_of_ids_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_bytes(content)
    with pytest.raises(DataError, match=message):
        select([], ids)
    with pytest.raises(DataError, match=r"none\.txt cannot be read"):
        select([], tmp_path / "none.txt")


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the real data is not at {path}")
    return path


def test_the_whole_training_file_of_gsm8k() -> None:
    path = real("gsm8k/train.jsonl")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = read("gsm8k", "train", path)
    assert len(loaded.questions) == 7473
    assert loaded.questions[0].answers == ("72",)
    assert loaded.questions[0].hops == 2
    assert all(same_number(q.answers[0], q.answers[0]) and "," not in q.answers[0] for q in loaded.questions)
    assert sum(q.hops == 0 for q in loaded.questions) == 95
    assert (loaded.questions[-1].id, loaded.passages, loaded.skipped) == ("gsm8k/train/7472", [], [])


def test_real_rows_of_hotpotqa() -> None:
    path = real("hotpotqa/train_sample.json")
    with pytest.warns(UserWarning, match="has 60 rows; the official file of hotpotqa train has 90,447"):
        loaded = read("hotpotqa", "train", path)
    assert (len(loaded.questions), loaded.dropped_easy, loaded.skipped) == (51, 9, [])
    check_corpus(loaded)
    assert {len(passages) for passages in loaded.support.values()} == {2}


def test_real_rows_of_musique() -> None:
    path = real("musique/train_sample.json")
    with pytest.warns(UserWarning, match="has 60 rows; the official file of musique train has 19,938"):
        loaded = read("musique", "train", path)
    assert (len(loaded.questions), loaded.unanswerable, loaded.skipped) == (60, 0, [])
    assert [sum(q.hops == hops for q in loaded.questions) for hops in (2, 3, 4)] == [41, 16, 3]
    assert all(q.hops == int(q.id.rsplit("/")[-1][0]) for q in loaded.questions)
    check_corpus(loaded)
    assert all(len(loaded.support[q.id]) == q.hops for q in loaded.questions)


def check_corpus(loaded: Loaded) -> None:
    """Checks that passages are unique and have text, and that the support of every question is among them."""
    ids = {p.id for p in loaded.passages}
    assert len({(p.title, p.text) for p in loaded.passages}) == len(ids) == len(loaded.passages) > 500
    assert all(p.text for p in loaded.passages)
    assert list(loaded.support) == [q.id for q in loaded.questions]
    assert all(set(passages) <= ids for passages in loaded.support.values())


def test_beerqa_in_its_real_layout() -> None:
    path = real("beerqa/format.json")
    with pytest.warns(UserWarning, match="has 2 rows; the official file of beerqa train has 134,043"):
        questions, passages = load("beerqa", "train", path)
    assert [len(q.answers) for q in questions] == [2, 1]
    assert len(passages) == 3


@pytest.mark.parametrize("name", ["hotpotqa", "musique"])
def test_the_papers_ids_that_a_sample_does_not_hold_are_listed(name: str) -> None:
    ids = real(f"paper_eval_ids/{name}.txt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        questions = read(name, "train", real(f"{name}/train_sample.json")).questions
    chosen, missing = select(questions, ids)
    assert (chosen, missing) == ([], ids.read_text(encoding="utf-8").split())
    assert len(missing) == 300


def test_cofca_is_converted_from_a_row_a_passage(as_lines: Write, tmp_path: Path) -> None:
    first = {"q": "Who leads the country of Tove?", "gold": ["Bram Falk", "B. Falk"], "n": 2}
    second = {"q": "Who taught the leader of the country of Tove?", "gold": "Ada Drake", "n": 3}
    source = as_lines({"title": "Tove", "passage": "Tove lies in Velda.", "qs": [first, second]}, {"passage": "Text."})
    names = {"questions": "qs", "question": "q", "answer": "gold", "hops": "n"}
    target = tmp_path / "cofca.jsonl"
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2, field 'qs': expected a list of at least 1, got nothing"):
        cofca.convert(source, target, names)
    assert not target.exists()
    assert (
        cofca.convert(as_lines({"passage": "P.", "qs": [second]}, {"passage": "Q.", "qs": [first]}), target, names) == 2
    )
    questions, passages = load("cofca", "test", target)
    assert [(q.id, q.answers, q.hops) for q in questions] == [
        ("cofca/test/0-0", ("Ada Drake",), 3),
        ("cofca/test/1-0", ("Bram Falk", "B. Falk"), 2),
    ]
    assert [(p.title, p.text) for p in passages] == [("", "P."), ("", "Q.")]
