"""What becomes of workers that die or find no place, in the order that a test wants, without a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from swirl.config.execution import Execution
from swirl.core.journal import Journal
from swirl.core.types import Verdict
from swirl.endpoints.requests import Counts
from swirl.execution.blocks import Done, Made, Sharing
from swirl.execution.engines import opened
from tests.scripted_blocks import PIECES, Scribe, Scripted, make

pytest.importorskip("ray")

from tests.scripted_ray import Cluster

THREE = Execution(engine="ray", address="local", workers=3, gpus_per_worker=0.0)


@dataclass(frozen=True)
class Hooked(Scripted):
    """`hook` is told of each block that is begun; `used` of the requests of each worker."""

    hook: Callable[[str], None] = lambda word: None
    used: list[int] = field(default_factory=list)

    def open(self, sharing: Sharing | None) -> Scribe:
        super().open(sharing)
        return HookedScribe(self)

    def add_usage(self, usage: dict[str, Counts]) -> None:
        self.used.append(usage["server"].requests)


class HookedScribe(Scribe):
    def __init__(self, recipe: Hooked) -> None:
        super().__init__(recipe)
        self._hook, self._made = recipe.hook, 0

    def make(self, piece: Sequence[str], done: Done) -> Made[Verdict]:
        self._hook(piece[0])
        self._made += 1
        return super().make(piece, done)

    def usage(self) -> dict[str, Counts]:
        """A request a block."""
        return {"server": Counts(requests=self._made)}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    cluster.install(monkeypatch)
    return cluster


def test_a_block_is_not_blamed_for_idle_workers_that_die_with_the_one_that_makes_it(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last block is made by one worker while two are idle, and all die together, twice."""
    begun = Counter[str]()

    def hook(word: str) -> None:
        begun[word] += 1
        if word == "19a" and begun[word] < 3:
            cluster.kill(0, 1, 2)

    made, told = make(Hooked(tmp_path, hook=hook), THREE, tmp_path / "journal")
    assert [verdict.rationale for verdict in made[19]] == ["on 19a", "on 19b"]
    assert sum(told) == 40
    assert {word: count for word, count in begun.items() if count > 1} == {"19a": 3}
    assert capsys.readouterr().err.count("died while it made block 19, which is made again") == 2


def test_idle_workers_that_died_before_a_round_are_started_and_no_block_is_blamed(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(THREE, Hooked(tmp_path)) as engine:
        for name in ("first", "second"):
            assert len(list(engine.blocks(Journal(tmp_path / name, "mark"), PIECES, lambda count: None))) == 20
            cluster.kill(0, 1, 2)
    assert sorted(worker.starts for worker in cluster.workers) == [2, 2, 2]
    assert capsys.readouterr().err == ""


def test_workers_that_find_no_place_again_are_spoken_of(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[str] = []

    def hook(word: str) -> None:
        begun.append(word)
        if begun.count("7a") == 1 and word == "7a":
            cluster.places = False
            cluster.kill(0, 1, 2)

    def another_node() -> None:
        cluster.places = True

    cluster.when_asked = another_node
    made, _ = make(Hooked(tmp_path, hook=hook), THREE, tmp_path / "journal")
    assert len(made) == 20 and begun.count("7a") == 2
    said = "filter: no worker of Ray runs any more: each wants 1 CPUs and 0 GPUs, and the cluster has 0 and 0 free\n"
    assert capsys.readouterr().out == said


def test_before_the_first_has_started_it_is_said_otherwise(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.places = False

    def a_node() -> None:
        cluster.places = True

    cluster.when_asked = a_node
    make(Scripted(tmp_path), THREE, tmp_path / "journal")
    assert capsys.readouterr().out.startswith("filter: no worker of Ray has started yet: each wants 1 CPUs")


def test_what_a_dead_worker_used_of_servers_is_counted(cluster: Cluster, tmp_path: Path) -> None:
    recipe = Hooked(tmp_path)
    with opened(THREE, recipe) as engine:
        list(engine.blocks(Journal(tmp_path / "journal", "mark"), PIECES, lambda count: None))
        cluster.kill(0)
    assert sorted(recipe.used) == [6, 7, 7]


def test_a_worker_reserves_what_its_recipe_keeps_busy(cluster: Cluster, tmp_path: Path) -> None:
    make(Scripted(tmp_path, threads=2, cpus=6), THREE, tmp_path / "journal")
    assert (cluster.options["num_cpus"], cluster.options["num_gpus"]) == (6, 0.0)
