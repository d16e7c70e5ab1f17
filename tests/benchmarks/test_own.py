"""A user's own task: what its files become, what is refused and with which message."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swirl.benchmarks.own import FILE_BYTES, Corpus, read, read_corpus, split_text
from swirl.core.errors import DataError
from swirl.core.types import Annotation, Passage, Question

PASSAGES: list[dict[str, Any]] = [
    {"id": "p1", "title": "Leave", "text": "Staff have 30 days of leave."},
    {"title": "Pay", "text": "Pay day is the 25th."},
    {"id": "p3", "title": "Leave", "text": "Leave is asked for in writing."},
]
QUESTIONS: list[dict[str, Any]] = [
    {"id": "q1", "question": " How many days? ", "answers": ["30", "thirty", "30"], "hops": 1, "support": ["p1"]},
    {"id": "q2", "question": "When is pay day?", "answers": ["25th"], "support": ["Pay", "Leave"]},
    {"id": "q3", "question": "Who leads?", "answers": ["Ada"]},
]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return read_corpus("staff", lines(tmp_path / "corpus.jsonl", PASSAGES))


def read_questions(path: Path, corpus: Corpus | None, on_bad_row: str = "raise") -> Any:
    return read("staff", "train", path, corpus, task="staff", tools=("search", "calendar"), on_bad_row=on_bad_row)


def test_a_corpus_of_json_lines(corpus: Corpus, tmp_path: Path) -> None:
    assert corpus.passages == [
        Passage("staff/p1", "Leave", "Staff have 30 days of leave."),
        Passage("staff/1", "Pay", "Pay day is the 25th."),
        Passage("staff/p3", "Leave", "Leave is asked for in writing."),
    ]
    assert (corpus.files, corpus.rows, corpus.skipped) == ((tmp_path / "corpus.jsonl",), 3, [])


def test_null_is_left_out_as_parquet_has_it(corpus: Corpus, tmp_path: Path) -> None:
    rows = [{**QUESTIONS[0]}, {**QUESTIONS[2], "hops": None, "support": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    loaded = read_questions(tmp_path / "q.parquet", corpus)
    assert [question.hops for question in loaded.questions] == [1, 0]
    assert loaded.support == {"staff/train/q1": ["staff/p1"]}


def test_questions_with_their_support(corpus: Corpus, tmp_path: Path) -> None:
    loaded = read_questions(lines(tmp_path / "q.jsonl", QUESTIONS), corpus)
    tools = ("search", "calendar")
    assert loaded.questions == [
        Question("staff/train/q1", "staff", "train", "How many days?", ("30", "thirty"), 1, tools, "staff"),
        Question("staff/train/q2", "staff", "train", "When is pay day?", ("25th",), 0, tools, "staff"),
        Question("staff/train/q3", "staff", "train", "Who leads?", ("Ada",), 0, tools, "staff"),
    ]
    assert loaded.support == {
        "staff/train/q1": ["staff/p1"],
        "staff/train/q2": ["staff/1", "staff/p1", "staff/p3"],
    }
    assert (loaded.passages, loaded.rows) == (corpus.passages, 3)


def test_a_demonstration_is_kept_as_it_is_written(corpus: Corpus, tmp_path: Path) -> None:
    actions = [
        "It says <b>so</b>. <lookup> leave </lookup>",
        "<lookup> leave </lookup>",
        "So <answer> Thirty </answer>",
    ]
    rows = [{**QUESTIONS[0], "demonstration": actions}, QUESTIONS[1], {**QUESTIONS[2], "demonstration": None}]
    loaded = read_questions(lines(tmp_path / "q.jsonl", rows), corpus)
    assert loaded.annotations == {"staff/train/q1": Annotation("staff/train/q1", tuple(actions), ())}


def test_a_task_without_a_corpus(tmp_path: Path) -> None:
    loaded = read_questions(lines(tmp_path / "q.jsonl", QUESTIONS[2:]), None)
    assert ([q.id for q in loaded.questions], loaded.passages, loaded.support) == (["staff/train/q3"], [], {})


def test_a_passage_that_comes_twice_is_kept_once_under_both_ids(tmp_path: Path) -> None:
    again = {**PASSAGES[0], "id": "copy"}
    corpus = read_corpus("staff", lines(tmp_path / "c.jsonl", [*PASSAGES, again]))
    assert len(corpus.passages) == 3
    assert corpus.known["copy"] == corpus.known["p1"] == ("staff/p1",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**QUESTIONS[0], "id": 7}, "field 'id': expected a text, got 7"),
        ({**QUESTIONS[0], "id": "q3"}, "field 'id': expected an id that line 1 does not have, got 'q3'"),
        ({"id": "q", "answers": ["a"]}, "field 'question': expected a text, got nothing"),
        (
            {"id": "q", "question": " ", "answers": ["a"]},
            "field 'question': expected a text that is not blank, got ' '",
        ),
        ({"id": "q", "question": "q"}, "field 'answers': expected a list of at least 1, got nothing"),
        ({"id": "q", "question": "q", "answers": []}, r"field 'answers': expected a list of at least 1, got \[\]"),
        ({"id": "q", "question": "q", "answers": "a"}, "field 'answers': expected a list of at least 1, got 'a'"),
        ({"id": "q", "question": "q", "answers": [4]}, "field 'answers': expected a text, got 4"),
        ({**QUESTIONS[0], "hops": "two"}, "field 'hops': expected a whole number from 0 to 1000, got 'two'"),
        ({**QUESTIONS[0], "hops": -1}, "field 'hops': expected a whole number from 0 to 1000, got -1"),
        ({**QUESTIONS[0], "hops": True}, "field 'hops': expected a whole number from 0 to 1000, got True"),
        (
            {**QUESTIONS[0], "support": ["p9"]},
            "field 'support': expected the id or the title of a passage of the corpus, got 'p9'",
        ),
        ({**QUESTIONS[0], "support": "p1"}, "field 'support': expected a list, got 'p1'"),
        (
            {**QUESTIONS[0], "demonstration": "<answer> 30 </answer>"},
            "field 'demonstration': expected a list of at least 1, got '<answer> 30 </answer>'",
        ),
        ({**QUESTIONS[0], "demonstration": [" "]}, "field 'demonstration': expected a text that is not blank, got ' '"),
        (
            {**QUESTIONS[0], "demonstration": ["<search_query> leave </search_query>"]},
            r"field 'demonstration': expected <answer> the answer </answer> in the last action, and in no other "
            r"\(this is action 1 of 1\), got '<search_quer",
        ),
        (
            {**QUESTIONS[0], "demonstration": ["<answer> 30 </answer>", "<answer> 30 </answer>"]},
            r"field 'demonstration': .* \(this is action 1 of 2\), got '<answer> 30 </answer>'",
        ),
        (
            {**QUESTIONS[0], "demonstration": ["<answer> 29 </answer>"]},
            "field 'demonstration': expected one of the answers in the last action: 30, thirty, got '<answer> 29",
        ),
        (["id"], r"expected an object with fields, got \['id'\]"),
    ],
)
def test_a_bad_question_is_named_or_skipped(row: Any, message: str, corpus: Corpus, tmp_path: Path) -> None:
    path = lines(tmp_path / "q.jsonl", [QUESTIONS[2], row])
    with pytest.raises(DataError, match=rf"q\.jsonl, line 2, {message}"):
        read_questions(path, corpus)
    with pytest.warns(UserWarning, match=rf"q\.jsonl: bad rows skipped: 1; the first is line 2, {message}"):
        loaded = read_questions(path, corpus, "skip")
    assert [question.id for question in loaded.questions] == ["staff/train/q3"]
    assert (loaded.rows, len(loaded.skipped)) == (2, 1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"title": "T", "text": " "}, "field 'text': expected a text that is not blank, got ' '"),
        ({"title": "T"}, "field 'text': expected a text, got nothing"),
        ({"text": "t"}, "field 'title': expected a text, got nothing"),
        ({"title": "T", "text": "t", "id": "p1"}, "field 'id': expected an id that line 1 does not have, got 'p1'"),
    ],
)
def test_a_bad_passage_is_named_or_skipped(row: Any, message: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "c.jsonl", [PASSAGES[0], row])
    with pytest.raises(DataError, match=rf"c\.jsonl, line 2, {message}"):
        read_corpus("staff", path)
    with pytest.warns(UserWarning, match=rf"c\.jsonl: bad rows skipped: 1; the first is line 2, {message}"):
        corpus = read_corpus("staff", path, on_bad_row="skip")
    assert (len(corpus.passages), corpus.rows, len(corpus.skipped)) == (1, 2, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "id,question,answers\n1,q,a\n",
            "is not JSON: it starts with b'id,question,answers.*; expected JSON lines, a JS",
        ),
        ("", "is empty; expected JSON lines"),
        (
            '{"id": "q1", "question": "q", "answers": ["a"]}\n{"id": ',
            r"line 2, expected one JSON object in UTF-8 \(Exp",
        ),
        ("PAR1broken", "is not a readable Parquet file"),
    ],
)
def test_another_kind_of_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"questions\.jsonl,? {message}"):
        read_questions(path, None)
    with pytest.raises(DataError, match=r"nothing\.jsonl cannot be read: No such file"):
        read_corpus("staff", tmp_path / "nothing.jsonl")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([0, 2**31 - 1], pa.date32()),
        pa.array([0, 2**62], pa.timestamp("us")),
        pa.array([0, 2**62], pa.duration("s")),
        pa.array([0, 0], pa.timestamp("us", tz="No/Such")),
        pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([1, 2])], names=["a", "a"]),
    ],
    ids=["date", "timestamp", "duration", "time zone", "two fields of one name"],
)
def test_a_parquet_value_that_python_cannot_hold_names_its_row_group(values: pa.Array, tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    sound = pa.table({"id": ["q1", "q2"], "question": ["q", "r"], "answers": [["a"], ["b"]]})
    pq.write_table(sound.append_column("when", values), path, row_group_size=1)
    with pytest.raises(DataError, match=r"q\.parquet, row group [12] holds a value that cannot be read: "):
        read_questions(path, None)


def test_a_folder_of_texts(tmp_path: Path) -> None:
    folder = tmp_path / "handbook"
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "leave.md").write_text("# Leave\n\n" + "a" * 995 + "\n \nThird.\n", encoding="utf-8")
    (folder / "sub/pay.TXT").write_text("\ufeffPay day is the 25th.\r\n", encoding="utf-8")
    (folder / ".hidden/x.txt").write_text("no", encoding="utf-8")
    (folder / "photo.jpg").write_bytes(b"\xff")
    with pytest.warns(UserWarning, match="handbook: files that are neither .txt nor .md are left out: 1"):
        corpus = read_corpus("staff", folder)
    assert corpus.passages == [
        Passage("staff/leave.md#0", "leave", "# Leave"),
        Passage("staff/leave.md#1", "leave", "a" * 995),
        Passage("staff/leave.md#2", "leave", "Third."),
        Passage("staff/sub/pay.TXT#0", "pay", "Pay day is the 25th."),
    ]
    assert corpus.known["leave"] == ("staff/leave.md#0", "staff/leave.md#1", "staff/leave.md#2")
    assert corpus.known["sub/pay.TXT#0"] == ("staff/sub/pay.TXT#0",)
    assert [file.name for file in corpus.files] == ["leave.md", "pay.TXT"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc \xff", r"bad\.txt, expected UTF-8 from byte 4 on, got b'\\xff'"),
        (b" \n\n ", r"bad\.txt, expected a text file that is not blank, got ''"),
        (None, rf"bad\.txt, expected a text file of at most {FILE_BYTES} bytes, got {FILE_BYTES + 1}"),
    ],
)
def test_a_bad_text_file_is_named_or_skipped(content: bytes | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("Good.", encoding="utf-8")
    (tmp_path / "bad.txt").write_bytes(content or b"")
    if content is None:
        os.truncate(tmp_path / "bad.txt", FILE_BYTES + 1)
    with pytest.raises(DataError, match=message):
        read_corpus("staff", tmp_path)
    with pytest.warns(UserWarning, match=r"bad rows skipped: 1; the first is bad\.txt"):
        assert len(read_corpus("staff", tmp_path, on_bad_row="skip").passages) == 1


@pytest.mark.parametrize(("on_disk", "written"), [("e\u0301", "\u00e9"), ("\u00e9", "e\u0301")], ids=["NFD", "NFC"])
def test_accents_compare_equal_however_they_are_written(on_disk: str, written: str, tmp_path: Path) -> None:
    """macOS lists a file name with its accents apart, and an editor writes them composed."""
    folder = tmp_path / "handbook"
    (folder / f"caf{on_disk}s").mkdir(parents=True)
    (folder / f"caf{on_disk}s/men{on_disk}.txt").write_text("Tea and cake.", encoding="utf-8")
    corpus = read_corpus("staff", folder)
    assert corpus.passages == [Passage("staff/caf\u00e9s/men\u00e9.txt#0", "men\u00e9", "Tea and cake.")]
    support = [f"men{written}", f"caf{written}s/men{written}.txt#0"]
    rows = [{**QUESTIONS[0], "support": [one], "id": str(n)} for n, one in enumerate(support)]
    loaded = read_questions(lines(tmp_path / "q.jsonl", rows), corpus)
    assert list(loaded.support.items()) == [
        ("staff/train/0", ["staff/caf\u00e9s/men\u00e9.txt#0"]),
        ("staff/train/1", ["staff/caf\u00e9s/men\u00e9.txt#0"]),
    ]

    titled = [{"id": f"p{on_disk}", "title": f"T{on_disk}", "text": "Tea."}]
    corpus = read_corpus("staff", lines(tmp_path / "c.jsonl", titled))
    rows = [{**QUESTIONS[0], "support": [f"{one}{written}"], "id": one} for one in ("p", "T")]
    loaded = read_questions(lines(tmp_path / "q.jsonl", rows), corpus)
    assert loaded.support == {"staff/train/p": ["staff/p\u00e9"], "staff/train/T": ["staff/p\u00e9"]}


def test_ids_that_differ_only_in_how_accents_are_written_are_refused(tmp_path: Path) -> None:
    both = [{**QUESTIONS[2], "id": "\u00e9"}, {**QUESTIONS[2], "id": "e\u0301"}]
    with pytest.raises(DataError, match=r"q\.jsonl, line 2, field 'id': expected an id that line 1 does not have"):
        read_questions(lines(tmp_path / "q.jsonl", both), None)


def test_files_whose_names_differ_only_in_how_accents_are_written_are_refused(tmp_path: Path) -> None:
    for name in ("\u00e9.txt", "e\u0301.txt"):
        (tmp_path / name).write_text(f"In {name}.", encoding="utf-8")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system takes both names for one")
    with pytest.raises(DataError, match="field 'name': expected a name that no other file has, however its accents"):
        read_corpus("staff", tmp_path)


def test_a_file_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.txt")).write_text("Text.", encoding="utf-8")
    with pytest.raises(DataError, match=r"\?\.txt, field 'name': expected a text of whole characters"):
        read_corpus("staff", tmp_path)


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match=r"holds no \.txt or \.md file; it holds 1 others"):
        read_corpus("staff", tmp_path)


@pytest.mark.parametrize(
    ("content", "pieces"),
    [
        ("", []),
        ("one two", ["one two"]),
        ("ab\n\ncd\n\n\nefghij", ["ab\n\ncd", "efghij"]),
        ("ab\n\n \n\ncd", ["ab\n\ncd"]),
        ("one two three four", ["one two", "three", "four"]),
        ("abcdefghijkl mno", ["abcdefgh", "ijkl mno"]),
        ("ab\n\none two three", ["ab", "one two", "three"]),
        ("one two three\n\nab", ["one two", "three", "ab"]),
    ],
)
def test_texts_are_split_at_blank_lines_and_then_between_words(content: str, pieces: list[str]) -> None:
    assert list(split_text(content, 8)) == pieces


def test_a_long_text_is_split_in_time_that_grows_with_its_length() -> None:
    pieces = list(split_text("word " * 1_000_000))
    assert sum(len(piece) + 1 for piece in pieces) == 5_000_000
    assert max(len(piece) for piece in pieces) <= 1000
