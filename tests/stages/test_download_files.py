"""download and check_questions on official files and on a user's own, chosen by params alone."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from swirl.benchmarks.hub import Fetcher
from swirl.config.params import Params, validate
from swirl.core.errors import DataError, GateError, ParamsError
from swirl.core.layout import Layout
from swirl.core.records import load, load_json, save
from swirl.core.types import Derivation, Passage, Question, Support
from swirl.stages import check_questions, download, index
from swirl.tools import Search
from tests.fake_hub import FakeHub, running

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared/data"
STAFF = {
    "source": "own",
    "files": {"train": "staff/train.jsonl", "evaluation": "staff/dev.jsonl"},
    "corpus": "staff/handbook",
    "task": "staff",
    "train": "all",
    "evaluation": "all",
}


def params(benchmarks: dict[str, Any], seed: int = 0, on_bad_row: str = "stop", **check: Any) -> Params:
    """The committed params with these benchmarks alone, and a gate that requires one evaluation question."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree["tasks"]["staff"] = {"tools": ["search", "calculator"], "max_steps": 4}
    tree["seed"] = seed
    tree["download"] |= {"benchmarks": benchmarks, "on_bad_row": on_bad_row}
    tree["check_questions"] = {"min_evaluation": 1, "max_skipped_share": 0.01, **check}
    return validate(tree, "tests")


def both(given: Params, layout: Layout) -> dict[str, Any]:
    """Runs download and its gate, and returns the gate's report."""
    download.run(given, layout)
    check_questions.run(given, layout)
    report: dict[str, Any] = load_json(layout.quality("questions"))
    return report


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "data/official").mkdir(parents=True)
    return Layout(tmp_path)


def put(layout: Layout, name: str) -> str:
    """Copies real data to where a user would put it, and returns its path for params."""
    if not (DATA / name).exists():
        pytest.skip(f"the real data is not at {DATA / name}")
    target = layout.root / "data/official" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(DATA / name, target)
    return name


def write(layout: Layout, name: str, *rows: object) -> Path:
    path = layout.root / "data/official" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def staff(layout: Layout) -> Layout:
    """An own task: three questions to train on, two to evaluate on, two texts."""
    write(layout, "staff/train.jsonl", *({"id": f"t{n}", "question": f"train {n}", "answers": ["a"]} for n in range(3)))
    write(
        layout,
        "staff/dev.jsonl",
        {"id": "d0", "question": "How many days of leave?", "answers": ["30"], "hops": 1, "support": ["leave"]},
        {"id": "d1", "question": "When is pay day?", "answers": ["25th"]},
    )
    write(layout, "staff/handbook/leave.txt", "Staff have 30 days of leave.")
    write(layout, "staff/handbook/pay.txt", "Pay day is the 25th.")
    return layout


@pytest.mark.slow
def test_all_of_gsm8k_goes_through(layout: Layout) -> None:
    given = {"source": "file", "files": {"train": put(layout, "gsm8k/train.jsonl")}}
    counts = {"pretrain": 50, "reward": 40, "train": "all", "development": 100, "evaluation": 200}
    report = both(params({"gsm8k": given | counts}), layout)
    questions = load(Question, layout.questions)
    sizes = {"pretrain": 50, "reward": 40, "train": 7083, "development": 100, "evaluation": 200}
    assert Counter(question.split for question in questions) == sizes
    assert len({question.id.rpartition("/")[2] for question in questions}) == 7473
    assert {(question.task, question.tools) for question in questions} == {("calculate", ("calculator",))}
    assert report["success"] and report["statistics"]["train/gsm8k"] == 7083
    metrics = load_json(layout.metrics("download"))
    assert (metrics["gsm8k.rows"], metrics["gsm8k.skipped"], metrics["gsm8k.repeated"]) == (7473, 0, 0)
    assert not any((layout.root / "data/corpus").iterdir())
    assert load(Support, layout.support) == []
    hops = {question.id: question.hops for question in questions}
    derivations = load(Derivation, layout.derivations)
    assert len(derivations) > 6000
    assert all(len(derivation.calls) == hops[derivation.question_id] for derivation in derivations)
    content = (DATA / "gsm8k/train.jsonl").read_bytes()
    assert load_json(layout.sources) == [
        {
            "benchmark": "gsm8k",
            "file": "train",
            "rows": 7473,
            "skipped": 0,
            "bad_rows": [],
            "parts": [
                {
                    "path": "gsm8k/train.jsonl",
                    "commit": "",
                    "bytes": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
            ],
        }
    ]


@pytest.mark.filterwarnings("ignore:.*has 60 rows; the official file")
def test_samples_of_hotpotqa_and_musique_go_through_and_can_be_searched(layout: Layout) -> None:
    given = params(
        {
            "hotpotqa": {
                "source": "file",
                "files": {"train": put(layout, "hotpotqa/train_sample.json")},
                "train": 20,
                "development": 5,
                "evaluation": 10,
            },
            "musique": {
                "source": "file",
                "files": {"evaluation": put(layout, "musique/train_sample.json")},
                "evaluation": "all",
            },
        }
    )
    assert both(given, layout)["success"]
    metrics = load_json(layout.metrics("download"))
    assert {key: metrics[key] for key in metrics if key.count(".") == 1} == {
        "hotpotqa.rows": 60,
        "hotpotqa.skipped": 0,
        "hotpotqa.unanswerable": 0,
        "hotpotqa.dropped_easy": 9,
        "hotpotqa.more_hops": 0,
        "hotpotqa.blank_passages": 0,
        "hotpotqa.repeated": 0,
        "musique.rows": 60,
        "musique.skipped": 0,
        "musique.unanswerable": 0,
        "musique.dropped_easy": 0,
        "musique.more_hops": 0,
        "musique.blank_passages": 0,
        "musique.repeated": 0,
    }
    assert metrics["hotpotqa.train.questions"] == 20
    corpora = {split: layout.corpus("hotpotqa", split) for split in ("train", "development", "evaluation")}
    assert len({path.read_bytes() for path in corpora.values()}) == 1
    assert len({path.stat().st_ino for path in corpora.values()}) == 1
    assert metrics["hotpotqa.train.passages"] == metrics["hotpotqa.evaluation.passages"] > 500
    questions = {question.id: question for question in load(Question, layout.questions)}
    assert Counter(q.hops for q in questions.values() if q.benchmark == "musique") == {2: 41, 3: 16, 4: 3}
    assert {question.task for question in questions.values()} == {"search"}
    support = load(Support, layout.support)
    assert [row.question_id for row in support] == list(questions)
    index.run(given, layout)
    row = next(row for row in support if row.question_id.startswith("hotpotqa/evaluation/"))
    gold = {p.title for p in load(Passage, corpora["evaluation"]) if p.id in row.passage_ids}
    found = Search(layout.index("hotpotqa", "evaluation"), 3, 5000).run(min(gold))
    assert min(gold) in found


@pytest.mark.filterwarnings("ignore:.*has 60 rows; the official file")
def test_easy_questions_stay_when_params_say_so(layout: Layout) -> None:
    files = {"train": put(layout, "hotpotqa/train_sample.json")}
    given = {"source": "file", "files": files, "drop_easy": False, "evaluation": "all"}
    download.run(params({"hotpotqa": given}), layout)
    assert load_json(layout.metrics("download"))["hotpotqa.evaluation.questions"] == 60


@pytest.mark.parametrize("files", [("train",), ("development", "train"), ("train", "development")])
@pytest.mark.filterwarnings("ignore:.*has 60 rows; the official file of hotpotqa train")
def test_easy_questions_leave_a_training_file_that_has_other_names_too(layout: Layout, files: tuple[str, ...]) -> None:
    path = put(layout, "hotpotqa/train_sample.json")
    given = {"source": "file", "files": dict.fromkeys(files, path), "development": 5, "train": "all"}
    download.run(params({"hotpotqa": given}), layout)
    metrics = load_json(layout.metrics("download"))
    assert (metrics["hotpotqa.train.questions"], metrics["hotpotqa.dropped_easy"]) == (46, 9)
    assert [source["file"] for source in load_json(layout.sources)] == ["train"]


@pytest.mark.filterwarnings("ignore:.*has 60 rows; the official file")
def test_questions_of_more_hops_are_left_out_and_counted(layout: Layout) -> None:
    given = {"source": "file", "files": {"train": put(layout, "musique/train_sample.json")}, "evaluation": "all"}
    download.run(params({"musique": given | {"max_hops": 2}}), layout)
    assert {question.hops for question in load(Question, layout.questions)} == {2}
    metrics = load_json(layout.metrics("download"))
    assert (metrics["musique.evaluation.questions"], metrics["musique.more_hops"]) == (41, 19)


@pytest.mark.filterwarnings("ignore:.*has 60 rows; the official file")
def test_listed_ids_are_evaluated_and_missing_ones_are_told(layout: Layout) -> None:
    path = put(layout, "musique/train_sample.json")
    rows = json.loads((DATA / path).read_text(encoding="utf-8"))
    listed = [rows[7]["id"], *(f"gone{number}" for number in range(12)), rows[3]["id"]]
    write(layout, "ids.txt", *listed)
    given = {"source": "file", "files": {"train": path}, "train": "all", "eval_ids": "ids.txt"}
    with pytest.warns(UserWarning, match=r"ids\.txt lists ids that no question has: 12: gone0, .*gone9$"):
        report = both(params({"musique": given}), layout)
    questions = load(Question, layout.questions)
    assert [q.id for q in questions if q.split == "evaluation"] == [
        f"musique/evaluation/{rows[7]['id']}",
        f"musique/evaluation/{rows[3]['id']}",
    ]
    assert report["statistics"]["train/musique"] == 58
    assert load_json(layout.metrics("download"))["musique.missing_ids"] == 12
    train, ids = load_json(layout.sources)
    assert (train["file"], ids["file"]) == ("train", "eval_ids")
    assert ids["missing_ids"] == [f"gone{number}" for number in range(12)] and "missing_ids" not in train
    write(layout, "ids.txt", rows[3]["id"])
    download.run(params({"musique": given}), layout)
    assert "missing_ids" not in load_json(layout.sources)[1]
    write(layout, "ids.txt", "gone")
    with pytest.raises(DataError, match=r"musique: no question has any of the 1 ids of .*ids\.txt: gone"):
        download.run(params({"musique": given}), layout)


def test_the_seed_decides_and_growing_a_split_changes_none_before_it(layout: Layout) -> None:
    given = {"source": "file", "files": {"train": put(layout, "gsm8k/train.jsonl")}}

    def ids(split: str, seed: int = 0, **counts: int) -> list[str]:
        download.run(params({"gsm8k": given | counts}, seed), layout)
        return [question.id for question in load(Question, layout.questions) if question.split == split]

    first = ids("evaluation", evaluation=5)
    assert first == ids("evaluation", evaluation=5, train=50, pretrain=3)
    assert first == ids("evaluation", evaluation=9)[:5]
    assert first != ids("evaluation", 1, evaluation=5)


def test_too_many_questions_are_refused_with_both_numbers(layout: Layout) -> None:
    given = {"source": "file", "files": {"train": put(layout, "gsm8k/train.jsonl")}, "train": 7473, "development": 100}
    message = "gsm8k: train asks for 7,473 of the 7,473 questions of file 'train', and 7,373 are left; ask for fewer"
    with pytest.raises(DataError, match=message):
        download.run(params({"gsm8k": given}), layout)


def test_an_own_task_goes_through(staff: Layout) -> None:
    report = both(params({"staff": STAFF}), staff)
    questions = load(Question, staff.questions)
    assert [question.id for question in questions[3:]] in (
        ["staff/evaluation/d0", "staff/evaluation/d1"],
        ["staff/evaluation/d1", "staff/evaluation/d0"],
    )
    assert {(question.task, question.tools) for question in questions} == {("staff", ("search", "calculator"))}
    assert load(Support, staff.support) == [Support("staff/evaluation/d0", ("staff/leave.txt#0",))]
    assert [p.title for p in load(Passage, staff.corpus("staff", "train"))] == ["leave", "pay"]
    assert report["rows"] == {"questions": 5, "derivations": 0, "support": 1, "corpus.staff.evaluation": 2}
    assert staff.corpus("staff", "train").stat().st_ino == staff.corpus("staff", "evaluation").stat().st_ino
    corpus, *files = load_json(staff.sources)
    assert [part["path"] for part in corpus["parts"]] == ["staff/handbook/leave.txt", "staff/handbook/pay.txt"]
    assert [source["file"] for source in files] == ["train", "evaluation"]


def test_own_real_and_embedded_benchmarks_in_one_run(staff: Layout) -> None:
    embedded = {"source": "embedded", "train": 3, "evaluation": 4}
    download.run(params({"mini-gsm8k": embedded}), Layout(staff.root / "alone"))
    given = params({"staff": STAFF, "mini-gsm8k": embedded})
    assert both(given, staff)["success"]
    questions = load(Question, staff.questions)
    assert questions[5:] == load(Question, Layout(staff.root / "alone").questions)
    assert {question.task for question in questions[5:]} == {"calculate"}


def test_skipped_rows_are_counted_and_too_many_stop_the_gate(staff: Layout) -> None:
    with (staff.root / "data/official/staff/train.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "t9", "question": "broken"}\n')
    with pytest.raises(DataError, match=r"staff/train\.jsonl, line 4, field 'answers': expected a list of at least 1"):
        download.run(params({"staff": STAFF}), staff)
    with pytest.warns(UserWarning, match="bad rows skipped: 1"):
        download.run(params({"staff": STAFF}, on_bad_row="skip"), staff)
    assert load_json(staff.metrics("download"))["staff.skipped"] == 1
    reason = "field 'answers': expected a list of at least 1, got nothing"
    assert load_json(staff.sources)[1]["bad_rows"] == [{"place": "line 4", "reason": reason}]
    message = (
        r"sources\.skipped_share: 1 of 3 rows violate that at most 0\.125 of a file's rows are bad and were skipped: "
        r"benchmark staff, file train, value 0\.25$"
    )
    with pytest.raises(GateError, match=re.compile(message, re.MULTILINE)):
        check_questions.run(params({"staff": STAFF}, max_skipped_share=0.125), staff)
    check_questions.run(params({"staff": STAFF}, max_skipped_share=0.25), staff)
    statistics = load_json(staff.quality("questions"))["statistics"]
    assert {key: count for key, count in statistics.items() if "skipped" in key} == {"skipped/staff/train": 1}


def test_a_large_corpus_does_not_outweigh_bad_questions(staff: Layout) -> None:
    write(staff, "staff/texts.jsonl", *({"title": f"{number}", "text": f"Text {number}."} for number in range(500)))
    with (staff.root / "data/official/staff/train.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "t9", "question": "broken"}\n')
    write(staff, "staff/dev.jsonl", {"id": "d0", "question": "When is pay day?", "answers": ["25th"]})
    given = params({"staff": STAFF | {"corpus": "staff/texts.jsonl"}}, on_bad_row="skip")
    with pytest.warns(UserWarning, match="bad rows skipped: 1"):
        download.run(given, staff)
    with pytest.raises(GateError, match=r"benchmark staff, file train, value 0\.25"):
        check_questions.run(given, staff)


def test_an_evaluation_question_in_the_training_file_is_not_trained_on(staff: Layout) -> None:
    with (staff.root / "data/official/staff/train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "t9", "question": "when is PAY DAY", "answers": ["25th"]}) + "\n")
    assert both(params({"staff": STAFF}), staff)["success"]
    assert load_json(staff.metrics("download"))["staff.repeated"] == 1
    assert "staff/train/t9" not in {question.id for question in load(Question, staff.questions)}


def test_an_official_id_in_evaluation_and_training_stops_the_gate(staff: Layout) -> None:
    with (staff.root / "data/official/staff/train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "d1", "question": "Other words?", "answers": ["25th"]}) + "\n")
    download.run(params({"staff": STAFF}), staff)
    with pytest.raises(GateError, match=r"id_problem: 2 of 6 rows violate .* value id d1 is in split evaluation too"):
        check_questions.run(params({"staff": STAFF}), staff)


def test_the_same_text_twice_in_one_split_is_no_leak(staff: Layout) -> None:
    with (staff.root / "data/official/staff/train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "t9", "question": "train 0", "answers": ["b"]}) + "\n")
    assert both(params({"staff": STAFF}), staff)["statistics"]["train/staff"] == 4


def test_support_that_is_not_in_the_corpus_stops_the_gate(staff: Layout) -> None:
    download.run(params({"staff": STAFF}), staff)
    save([Support("staff/evaluation/d0", ("staff/gone#0",))], Support, staff.support)
    with pytest.raises(
        GateError, match="passages_problem: 1 of 1 rows violate .* value there is no passage staff/gone"
    ):
        check_questions.run(params({"staff": STAFF}), staff)


def test_a_benchmark_that_is_only_trained_on_needs_no_evaluation_questions(staff: Layout) -> None:
    given = params({"staff": STAFF | {"evaluation": 0}}, min_evaluation=400)
    assert both(given, staff)["statistics"]["evaluation/staff"] == 0


@pytest.mark.filterwarnings("ignore:.*the official file of beerqa train")
def test_a_search_benchmark_without_any_passage_is_refused(layout: Layout) -> None:
    write(layout, "beerqa.json", '{"data": [{"id": "b1", "question": "q", "answers": ["a"]}]}')
    given = {"source": "file", "files": {"train": "beerqa.json"}, "evaluation": "all"}
    with pytest.raises(DataError, match=r"beerqa: file 'train' holds no passage to search in; .*beerqa\.json"):
        download.run(params({"beerqa": given}), layout)


def test_a_file_that_is_not_there_says_where_it_was_looked_for(layout: Layout) -> None:
    given = {"source": "file", "files": {"train": "data/official/gsm8k.jsonl"}, "train": 1}
    message = r"data/official/data/official/gsm8k\.jsonl does not exist; paths are relative to download\.folder"
    with pytest.raises(DataError, match=message):
        download.run(params({"gsm8k": given}), layout)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        (
            "squad",
            {"source": "file", "files": {"train": "a"}},
            "squad: not a benchmark with official files; they are gs",
        ),
        ("cofca", {"source": "hub"}, "cofca: not on the hub; they are gsm8k, hotpotqa, musique, beerqa"),
        ("gsm8k", {"source": "hub", "drop_easy": True}, "gsm8k.drop_easy: only hotpotqa says which questions are easy"),
    ],
)
def test_names_that_a_source_does_not_have_are_refused(
    name: str, given: dict[str, Any], message: str, layout: Layout
) -> None:
    with pytest.raises(ParamsError, match=f"download.benchmarks.{message}"):
        download.run(params({name: {**given, "evaluation": 1}}), layout)


@pytest.mark.filterwarnings("ignore:.*bad rows skipped")
def test_the_hub_by_params_alone(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """GSM8K as Parquet from a local server with the hub's API, whose address replaces the real one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {"question": ["How many?", "How much?", "What?"], "answer": ["#### 1", "1+1=<<1+1=2>>2\n#### 2", "none"]}
    pq.write_table(pa.table(rows), layout.root / "rows.parquet")
    content = (layout.root / "rows.parquet").read_bytes()
    given = {"gsm8k": {"source": "hub", "evaluation": "all"}}
    with running(FakeHub("openai/gsm8k", "c" * 40, {"main/test-00000-of-00001.parquet": content})) as hub:

        def local(lock: Path, folder: Path) -> Fetcher:
            return Fetcher(lock, folder, endpoint=hub.address, cache=layout.root / "cache")

        monkeypatch.setattr(download, "Fetcher", local)
        with pytest.raises(DataError, match=r"row 3, field 'answer': expected a solution that ends in"):
            download.run(params(given), layout)
        with pytest.warns(UserWarning, match=r"has 3 rows; the official file of gsm8k evaluation has 1,319"):
            download.run(params(given, on_bad_row="skip"), layout)
    assert sorted((q.id, q.answers, q.hops) for q in load(Question, layout.questions)) == [
        ("gsm8k/evaluation/0", ("1",), 0),
        ("gsm8k/evaluation/1", ("2",), 1),
    ]
    (source,) = load_json(layout.sources)
    assert source["parts"] == [
        {
            "path": "openai/gsm8k/main/test-00000-of-00001.parquet",
            "commit": "c" * 40,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    ]
    assert load_json(layout.root / "data/official/hub.lock.json")["openai/gsm8k"]["commit"] == "c" * 40


def test_a_file_in_parts_is_one_file(layout: Layout) -> None:
    """HotPotQA's columns as Parquet in two parts: one corpus, and ids must be unique across both."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from swirl.benchmarks.official import read

    def row(identifier: str, title: str) -> dict[str, Any]:
        return {
            "id": identifier,
            "question": f"Where is {title}?",
            "answer": "Tove",
            "level": "hard",
            "supporting_facts": {"title": [title], "sent_id": [0]},
            "context": {"title": [title, "Orrin"], "sentences": [["In Tove.", " Yes."], ["A lighthouse."]]},
        }

    paths = [layout.root / f"{number}.parquet" for number in (0, 1)]
    pq.write_table(pa.Table.from_pylist([row("a", "Larkhall")]), paths[0])
    pq.write_table(pa.Table.from_pylist([row("b", "Mio")]), paths[1])
    loaded = read("hotpotqa", "sample", paths)
    assert [question.id for question in loaded.questions] == ["hotpotqa/sample/a", "hotpotqa/sample/b"]
    assert [passage.text for passage in loaded.passages] == ["In Tove. Yes.", "A lighthouse.", "In Tove. Yes."]
    assert loaded.support["hotpotqa/sample/b"] == ["hotpotqa/sample/2"]
    pq.write_table(pa.Table.from_pylist([row("a", "Mio")]), paths[1])
    with pytest.raises(
        DataError, match=r"1\.parquet, row 1, field 'id': expected an id that 0\.parquet, row 1 does not"
    ):
        read("hotpotqa", "sample", paths)


def test_two_runs_write_the_same_bytes(staff: Layout) -> None:
    def written() -> dict[str, bytes]:
        download.run(params({"staff": STAFF}), staff)
        folders = ("data/questions", "data/corpus", "reports/metrics")
        return {str(p): p.read_bytes() for folder in folders for p in sorted((staff.root / folder).iterdir())}

    assert written() == written()
    assert len(written()) == 9
