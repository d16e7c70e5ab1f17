"""The search tool: what is found, in which order, how it is shown, and what an index folder holds."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swirl.core.errors import DataError
from swirl.core.types import Observation, Passage
from swirl.tools import Search, bm25
from swirl.tools.base import call
from swirl.tools.bm25 import BM25
from swirl.tools.search import build, fuse

PASSAGES = [
    Passage("p0", "Oslo", "Oslo is the capital of Norway. It lies on a fjord."),
    Passage("p1", "Bergen", "A harbour town in Norway."),
    Passage("p2", "Élan", "A film by Nora Brun."),
    Passage("p3", "", "The capital of Peru is Lima."),
]


@pytest.fixture(scope="module")
def index_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "index"
    build(PASSAGES, folder)
    return folder


def test_results_and_how_they_are_shown(index_dir: Path) -> None:
    search = Search(index_dir, k=2)
    assert search.run("harbour") == "Bergen: A harbour town in Norway."
    assert search.run("ÉLAN?") == "Élan: A film by Nora Brun."
    assert search.run("Lima Peru") == "The capital of Peru is Lima."
    assert search.run("Norway harbour") == (
        "Bergen: A harbour town in Norway. | Oslo is the capital of Norway. It lies on a fjord."
    )


@pytest.mark.parametrize("query", ["", " ?! ", "quokka", "\x00", "\ud800", "no-such-word"])
def test_a_query_without_a_known_word_has_no_result(index_dir: Path, query: str) -> None:
    assert Search(index_dir).run(query) == "no result"
    assert call(Search(index_dir), query) == Observation("no result", error=False)


UNSPACED = [
    Passage("j", "東京", "東京は日本の首都です。"),
    Passage("c", "", "北京是中国的首都。"),
    Passage("t", "", "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย"),
    Passage("k", "", "서울은 대한민국의 수도이다."),
    Passage("e", "Oslo", "Oslo is the capital of Norway."),
]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("日本の首都", [0, 1]),
        ("中国的首都", [1, 0]),
        ("ประเทศไทย", [2]),
        ("서울", [3]),
        ("京", [0, 1]),
        ("東京 Norway", [0, 4]),
        ("大阪", []),
    ],
)
def test_scripts_without_blanks_are_found(tmp_path: Path, query: str, found: list[int]) -> None:
    build(UNSPACED, tmp_path)
    assert Search(tmp_path).best([query], 2) == [found]
    assert Search.over(UNSPACED).best([query], 2) == [found]


ENGLISH = [
    *PASSAGES,
    Passage("p4", "Naïve art", "“Naïve” painters — O’Neill, Strauß & Søren — showed 1,200 works on 35 m² in 1999."),
    Passage("p5", "", "The_end of the café’s ﬁlm: £3.50, ½ price; Москва, Αθήνα."),
]


def test_an_english_index_keeps_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that lower-case runs of letters and digits give; the hash is from before other scripts had words."""
    build(ENGLISH, tmp_path / "new", ["of"])
    monkeypatch.setattr(
        bm25, "indexed", lambda text, left_out: [w for w in re.findall(r"\w+", text.lower()) if w not in left_out]
    )
    build(ENGLISH, tmp_path / "old", ["of"])
    old, new = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("old", "new"))
    assert old == new
    assert (
        hashlib.sha256(new["search.json"]).hexdigest()
        == "d2fa4a0be9777111bdc4c76b40cd7eaededc11642f3b28817ed196e13bf31c86"
    )


def test_an_index_of_whole_runs_still_loads(tmp_path: Path) -> None:
    """A run without blanks once was one word; such an index finds what it found, and is no error."""
    build([Passage("a", "", "red runs"), Passage("b", "", "blue")], tmp_path)
    described = (tmp_path / "search.json").read_text(encoding="utf-8")
    (tmp_path / "search.json").write_text(described.replace('"runs"', '"東京は日本の首都です"'), encoding="utf-8")
    assert Search(tmp_path).run_many(["red", "日本の首都"]) == ["red runs", "no result"]


def test_scores_are_bm25() -> None:
    """Lucene's formula by hand: idf = ln(1 + (N - n + 0.5) / (n + 0.5)), k1 = 1.5, b = 0.75."""
    # N = 2, both contain "red": idf = ln 1.2; mean length 2; tf 1 of length 1, and tf 2 of length 3
    scores = BM25.over([Passage("a", "", "red"), Passage("b", "", "red red blue")]).scores(["red"])[0]
    assert scores == pytest.approx([0.1823216 / (1 + 1.5 * 0.625), 2 * 0.1823216 / (2 + 1.5 * 1.375)], abs=1e-6)


def test_equal_scores_stand_in_passage_order() -> None:
    passages = [Passage(str(n), "", f"same words {'x' if n % 2 else 'y'}{n}") for n in range(40)]
    search = Search.over(passages, k=5)
    assert search.best(["same words", "words", "x7 same"]) == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [7, 0, 1, 2, 3]]


def test_the_text_is_cut_at_a_passage_or_a_sentence() -> None:
    passages = [
        Passage("a", "Ann", "Ann likes red. Ann likes blue! Ann sleeps."),
        Passage("b", "Bo", "Bo likes red and many other colours. Bo sleeps."),
    ]
    shown = {
        limit: Search.over(passages, k=2, output_limit=limit).run("likes red ann") for limit in (20, 35, 60, 90, 99)
    }
    assert shown == {
        20: "Ann likes red.",
        35: "Ann likes red. Ann likes blue!",
        60: "Ann likes red. Ann likes blue! Ann sleeps.",
        90: "Ann likes red. Ann likes blue! Ann sleeps. | Bo likes red and many other colours.",
        99: "Ann likes red. Ann likes blue! Ann sleeps. | Bo likes red and many other colours. Bo sleeps.",
    }
    long = Search.over([Passage("a", "", "a sentence that never finds any end")], output_limit=20)
    assert long.run("sentence") == "a sentence that"


WORDS = st.lists(st.sampled_from(["red", "blue", "green", "a", "b", "zzz", "!", "Red"]), max_size=6).map(" ".join)


@settings(deadline=None, max_examples=40)
@given(st.lists(WORDS, min_size=1, max_size=12), st.lists(WORDS, max_size=8), st.integers(1, 4))
def test_many_queries_answer_as_one_by_one(texts: list[str], queries: list[str], k: int) -> None:
    search = Search.over([Passage("0", "", "red"), *(Passage(str(n), "", text) for n, text in enumerate(texts))], k)
    assert search.run_many(queries) == [search.run(query) for query in queries]


def test_memory_and_folder_answer_alike(index_dir: Path) -> None:
    queries = ["capital of Norway", "film", "the", "town in Peru", "nothing known here: quokka"]
    assert Search.over(PASSAGES).run_many(queries) == Search(index_dir).run_many(queries)


def test_stopwords_are_kept_with_the_index(tmp_path: Path) -> None:
    build(PASSAGES, tmp_path, stopwords=["the", "of"])
    assert Search(tmp_path).run("the of") == "no result"
    assert Search(tmp_path).run("the film") == "Élan: A film by Nora Brun."


def test_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    code = """if True:
        import sys; from pathlib import Path
        from swirl.tools.search import build; from swirl.core.types import Passage
        passages = [Passage(str(n), f"T{n}", f"word{n} shared \u00e9t\u00e9 word{n % 7}") for n in range(50)]
        build(passages, Path(sys.argv[1]))
    """
    hashes = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], env=environment, capture_output=True, check=True
        )
        assert done.stdout == done.stderr == b"", "no progress bars"
        hashes.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()})
    assert hashes[0] == hashes[1]
    assert {"search.json", "passages.parquet", "data.csc.index.npy"} <= hashes[0].keys()


def test_arrays_are_memory_mapped_and_not_pickled(index_dir: Path) -> None:
    settings = json.loads((index_dir / "search.json").read_text())
    ranking = BM25.load(index_dir, settings["vocabulary"], settings["stopwords"])
    assert type(ranking._scores).__name__ == "memmap"
    for array in index_dir.glob("*.npy"):
        assert b"'descr': '|O'" not in array.read_bytes()[:128]


def test_a_missing_index_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no search index; the stage index makes it"):
        Search(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("search.json", b"{"),
        ("search.json", b"[]"),
        ("search.json", b'{"passages": 4, "stopwords": [], "vocabulary": ["a"]}'),
        ("search.json", b'{"passages": 4, "stopwords": [], "vocabulary": 5}'),
        ("search.json", b'{"passages": 4, "stopwords": [], "vocabulary": [], "retriever": "other"}'),
        ("search.json", b'{"passages": 4, "stopwords": [], "vocabulary": [], "retriever": ["dense"]}'),
        ("search.json", b'{"passages": 4, "retriever": "dense"}'),
        ("params.index.json", b"{}"),
        ("params.index.json", b"nonsense"),
        ("data.csc.index.npy", b"nonsense"),
        ("indices.csc.index.npy", None),
        ("passages.parquet", b"nonsense"),
        ("passages.parquet", None),
    ],
)
def test_a_broken_index_is_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    build(PASSAGES, tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=str(tmp_path)):
        Search(tmp_path)


def test_an_array_of_another_index_is_refused(tmp_path: Path) -> None:
    build(PASSAGES, tmp_path / "one")
    build(PASSAGES[:2], tmp_path / "two")
    (tmp_path / "two/data.csc.index.npy").replace(tmp_path / "one/data.csc.index.npy")
    with pytest.raises(DataError, match="arrays differ in length"):
        Search(tmp_path / "one")


@pytest.mark.parametrize("passages", [[], [Passage("a", "", "?!")]])
def test_nothing_to_index(tmp_path: Path, passages: list[Passage]) -> None:
    with pytest.raises(DataError, match="no word to index"):
        build(passages, tmp_path)
    with pytest.raises(DataError, match="no word to index"):
        Search.over(passages)


def test_the_limit_is_measured_by_the_given_size() -> None:
    """Here the size is in words; the bar between two passages counts as one, too."""
    passages = [
        Passage("a", "Ann", "Ann likes red." + " Ann likes blue!" * 10),
        Passage("b", "Bo", "Bo likes red and many other colours. Bo sleeps."),
    ]

    def size(text: str) -> int:
        return len(text.split())

    whole = Search.over(passages, k=2, output_limit=43, size=size).run("likes red ann")
    assert size(whole) == 43
    assert whole.startswith("Ann likes red. Ann likes blue! ")
    assert whole.endswith("Ann likes blue! | Bo likes red and many other colours. Bo sleeps.")
    cut = {limit: Search.over(passages, k=2, output_limit=limit, size=size).run("likes red ann") for limit in (20, 41)}
    assert cut[20] == "Ann likes red." + " Ann likes blue!" * 5
    assert cut[41].endswith("Ann likes blue! | Bo likes red and many other colours.")
    long = Search.over([Passage("a", "", "a sentence without any end " * 9)], output_limit=20, size=size)
    assert long.run("sentence") == " ".join(["a sentence without any end"] * 4)
    assert call(long, "sentence").text == long.run("sentence"), "the limit in characters leaves room"


def test_a_slow_size_is_asked_seldom() -> None:
    asked = []

    def size(text: str) -> int:
        asked.append(len(text))
        return len(text) // 4

    passages = [Passage(str(n), "", "Red is nice. " * 2000) for n in range(3)]
    found = Search.over(passages, output_limit=400, size=size).run("red")
    assert 1588 <= len(found) <= 1603
    assert len(asked) < 20
    assert max(asked) <= 32 * 400


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(st.sampled_from("ab .!é漢\n"), max_size=80), min_size=1, max_size=4), st.integers(20, 90))
def test_no_result_exceeds_its_limit(texts: list[str], limit: int) -> None:
    passages = [Passage(str(n), "", f"red {text}") for n, text in enumerate(texts)]
    for size in (len, lambda text: len(text.encode()), lambda text: 2 * text.count("a") + len(text) // 3):
        found = Search.over(passages, k=4, output_limit=limit, size=size).run("red")
        assert size(found) <= limit
        assert found.startswith("red")


def test_reciprocal_rank_fusion_by_hand() -> None:
    """1/61 + 1/63 for passage 7, 1/62 + 1/61 for 4, 1/63 for 2, 1/62 for 9; equal sums in passage order."""
    assert fuse([[7, 4, 2], [4, 9, 7]], 10) == [4, 7, 9, 2]
    assert fuse([[7, 4, 2], [4, 9, 7]], 2) == [4, 7]
    assert fuse([[5, 3], [3, 5], []], 3) == [3, 5]


@pytest.mark.parametrize(("retriever", "said"), [("bm52", "bm25, dense, hybrid"), ("dense", "needs an embedding")])
def test_a_retriever_that_cannot_be_built(tmp_path: Path, retriever: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(PASSAGES, tmp_path, retriever=retriever)


def test_k_and_limit_must_make_sense() -> None:
    with pytest.raises(ValueError, match="k must be at least 1"):
        Search.over(PASSAGES, k=0)
    with pytest.raises(ValueError, match="output_limit at least 20"):
        Search.over(PASSAGES, output_limit=5)
