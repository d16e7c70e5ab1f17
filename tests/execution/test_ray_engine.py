"""A real Ray cluster on this machine: workers die, the process that asks dies, and no byte changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from swirl.cli.run_stage import _timed
from swirl.config.execution import Execution
from swirl.config.served import ClientSettings, Served
from swirl.core import flights
from swirl.core.errors import DataError, ParamsError, SwirlError
from swirl.core.journal import Journal
from swirl.core.records import load_json, save_json
from swirl.core.types import Verdict
from swirl.execution import ray_cluster
from swirl.execution.engines import opened
from tests.execution.notes import EXPECTED, begun, committed, makers, pid_of, wait_for
from tests.scripted_blocks import PIECES, TWO, Scripted, make
from tests.servers import said, scripted

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.rare
ROOT = Path(__file__).parents[2]
FOUR = Execution(engine="ray", address="local", workers=4, gpus_per_worker=0.0)
LOCAL = Execution(engine="local", address="auto", workers=1, gpus_per_worker=0.0)


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """Four CPUs, which all tests find, however many there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.cpu_count", lambda: 4)
        ray_cluster.connect(FOUR, 1)
    yield
    ray.shutdown()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_worker_that_dies_costs_its_block(tmp_path: Path, notes: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It makes block 5, and is killed when the other has come to block 15; Ray's next one makes block 5."""

    def kill() -> None:
        worker = pid_of(notes, "5a")
        pid_of(notes, "15a")
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: begun(notes)["5a"] == 2)
        (notes / "go").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    made, told = make(Scripted(notes, held=("5a", "15a")), TWO, tmp_path / "journal")
    killer.join()
    assert made == EXPECTED
    assert sum(told) == 40
    assert {word: count for word, count in begun(notes).items() if count > 1} == {"5a": 2}
    assert len({path.suffix for path in notes.glob("*.*")}) == 3
    assert "died while it made block 5, which is made again" in capfd.readouterr().err

    by_ray = committed(tmp_path)
    (tmp_path / "local").mkdir()
    assert make(Scripted(notes), LOCAL, tmp_path / "local/journal") == (EXPECTED, [2] * 20)
    assert committed(tmp_path / "local") == by_ray
    assert "block-000019.parquet" not in by_ray and len(by_ray) == 19  # it is not whole, so a later run makes it again


def test_a_block_that_kills_every_worker_ends_the_stage(tmp_path: Path, notes: Path) -> None:
    with pytest.raises(SwirlError, match="filter: block 3 has ended 3 workers of Ray, the last process"):
        make(Scripted(notes, deadly="3a"), TWO, tmp_path / "journal")
    assert begun(notes)["3a"] == 3
    assert {f"block-{number:06d}.parquet" for number in range(3)} <= committed(tmp_path).keys()


def test_a_block_is_not_blamed_for_idle_workers_that_die_with_the_one_that_makes_it(
    tmp_path: Path, notes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """When all blocks but one are made, all four workers are killed, first those that have nothing to do."""
    first = ("0a", "1a", "2a", "5a")

    def kill() -> None:
        for word in first:  # each worker has one, so none of them is still to start
            pid_of(notes, word)
        for word in first[:3]:
            (notes / f"go-{word}").touch()
        wait_for(lambda: len(committed(tmp_path)) == 19)
        busy = pid_of(notes, "5a")
        for worker in (*makers(notes) - {busy}, busy):
            os.kill(worker, signal.SIGKILL)
        wait_for(lambda: begun(notes)["5a"] == 2)
        (notes / "go").touch()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    made, _ = make(Scripted(notes, held=first, partial=""), FOUR, tmp_path / "journal")
    killer.join()
    assert made == EXPECTED
    assert {word: count for word, count in begun(notes).items() if count > 1} == {"5a": 2}
    said = capfd.readouterr().err
    assert said.count("died while it made block 5, which is made again") == 1
    assert " of Ray did not start" not in said


def test_the_record_has_the_smaller_flights_of_workers_and_a_later_run_goes_on_with_them(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(flights, "_elsewhere", {})
    said: list[str] = []

    def heard() -> bool:
        """Ray shows what workers print a little later."""
        said.append(capfd.readouterr().out)
        return "scribe.words: 4 at once, not 8" in "".join(said)

    journal = Journal(tmp_path / "journal", "mark")
    with _timed(tmp_path / "timing.json"):  # memory for four words, and then for two
        make(Scripted(notes, free=50.0, most=2, partial=""), TWO, tmp_path / "journal")
    wait_for(heard)
    record = {name: value for name, value in load_json(tmp_path / "timing.json").items() if "." in name}
    assert record == {"scribe.words.used": 2, "scribe.words.asked": 8, "scribe.words.out_of_memory": 1}
    assert load_json(journal.flight) == {"size": 2, "halved": True}
    assert {path.name.split("-")[1] for path in notes.glob("flight-*")} <= {"4", "2"}

    save_json({"size": 1, "halved": False}, journal.flight)
    journal.drop([3])
    made, _ = make(Scripted(notes, partial=""), TWO, tmp_path / "journal")
    assert made == EXPECTED
    assert len(list(notes.glob("flight-1-*"))) == 1
    assert load_json(journal.flight) == {"size": 1, "halved": False}


def test_workers_on_one_machine_plan_with_their_parts_of_its_memory(tmp_path: Path, notes: Path) -> None:
    make(Scripted(notes, cpus=2), FOUR, tmp_path / "journal")  # of four that were asked for, two fit on four CPUs
    assert {path.name.split("-")[1] for path in notes.glob("sharers-*")} == {"2"}


def test_what_a_worker_raises_is_raised_here(tmp_path: Path, notes: Path) -> None:
    with pytest.raises(DataError, match="^7a is wrong$"):
        make(Scripted(notes, wrong="7a"), TWO, tmp_path / "journal")
    assert begun(notes)["7a"] == 1


def test_after_a_kill_of_the_process_that_asks_the_workers_end_and_the_rest_is_made(
    tmp_path: Path, notes: Path
) -> None:
    command = [sys.executable, "-m", "tests.scripted_blocks", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    driver = subprocess.Popen(command, cwd=ROOT, env=environment)
    pid_of(notes, "5a")
    wait_for(lambda: len(committed(tmp_path)) == 18)  # all but blocks 5 and 19
    workers = makers(notes)
    assert len(workers) == 2
    driver.kill()
    driver.wait()
    wait_for(lambda: not any(lives(worker) for worker in workers))

    kept = committed(tmp_path)
    made, told = make(Scripted(notes), TWO, tmp_path / "journal")
    assert made == EXPECTED
    assert sum(told) == 40
    assert begun(notes) == Counter(piece[0] for piece in PIECES) + Counter({"5a": 1, "19a": 1})
    assert kept.items() <= committed(tmp_path).items()


def client(concurrency: int, per_minute: int) -> ClientSettings:
    return ClientSettings(
        concurrency=concurrency, requests_per_minute=per_minute, tokens_per_minute=0, timeout_s=60.0, retries=0,
        cost_per_million_input=0.0, cost_per_million_output=0.0,
    )  # fmt: skip


def test_the_limits_of_a_server_hold_over_all_workers_together(tmp_path: Path, notes: Path) -> None:
    with scripted(said("fine")) as server:
        served = Served(url=server.url, model="m", api="chat", key_env="", chat_template_kwargs={})
        recipe = Scripted(notes, served=(served, client(4, 600)), held=("0a",))
        both = threading.Thread(target=lambda: (wait_for(lambda: len(makers(notes)) == 2), (notes / "go").touch()))
        both.start()  # one worker that starts late would find nothing left to do
        journal, made = Journal(tmp_path / "journal", "mark"), list[list[Verdict]]()
        with opened(TWO, recipe) as engine:
            for number, one in enumerate(engine.blocks(journal, PIECES, lambda count: None)):
                made.append(journal.records(number, Verdict) if one.whole else one.records)
            both.join()
            os.kill(min(makers(notes)), signal.SIGKILL)  # what it has used is known all the same
        assert {verdict.rationale for block in made for verdict in block} == {"fine"}
        assert len(server.times) == 40
        # 40 requests of which one may begin each 0.1 s take 3.9 s. If each worker had the whole rate, they took 1.9 s.
        assert server.times[-1] - server.times[0] > 2.9
        used = [int(path.name.split("-")[1]) for path in notes.glob("used-*")]
        assert len(used) == 2 and sum(used) == 40 and min(used) > 0

        with pytest.raises(ParamsError, match=r"execution.workers = 2, but `clients` lets .* have 1 requests at a"):
            make(Scripted(notes, served=(served, client(1, 0))), TWO, tmp_path / "other")


def listens(process: psutil.Process) -> set[str]:
    """Addresses that a process of Ray listens at; none for one that has ended."""
    try:
        if "ray" not in " ".join(process.cmdline()):
            return set()
        found = process.net_connections("tcp")
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return set()
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}


def test_a_cluster_that_is_started_here_is_for_this_machine_alone() -> None:
    addresses = set[str]().union(*map(listens, psutil.Process().children(recursive=True)))
    assert addresses and {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        assert (Path.home() / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
