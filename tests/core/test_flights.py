"""Flights: planned by bytes, halved once when memory runs out, and told to the record."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from swirl.core import flights
from swirl.core.flights import Flight, OutOfMemoryError, out_of_memory, report_smaller, smaller_flights
from swirl.core.memory import available


@pytest.fixture(autouse=True)
def none_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "_smaller", [])
    monkeypatch.setattr(flights, "_elsewhere", {})


def ten_each(size: int) -> float:
    return 10.0 * size


def test_a_flight_is_halved_until_it_fits(capsys: pytest.CaptureFixture[str]) -> None:
    # 0.9 x 400 bytes hold 36 of ten bytes; 100, 50 and 25
    flight = Flight("rollout.in_flight", 100, ten_each, 400.0)
    assert (flight.size, flight.halved) == (25, False)
    said = capsys.readouterr().out
    assert said.startswith("rollout.in_flight: 25 at once, not 100, which would take about")
    assert said.count("\n") == 1
    assert smaller_flights() == {
        "rollout.in_flight.used": 25, "rollout.in_flight.asked": 100, "rollout.in_flight.out_of_memory": 0.0,
    }  # fmt: skip


def test_what_fits_is_as_asked_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert Flight("a", 100, ten_each, 1112.0).size == 100
    assert Flight("a", 100).run(lambda size: size) == 100
    assert Flight("a", 1, ten_each, 0.0).size == 1  # nothing smaller can be planned
    assert capsys.readouterr().out == ""
    assert smaller_flights() == {}


def test_out_of_memory_halves_once_and_then_names_the_param(capsys: pytest.CaptureFixture[str]) -> None:
    tried: list[int] = []

    def work(size: int) -> str:
        tried.append(size)
        if size > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return f"done with {size}"

    most = 4
    flight = Flight("rollout.in_flight", 9, lower="rollout.in_flight or runtime.context")
    assert flight.run(work) == "done with 4"
    assert capsys.readouterr().out == (
        "rollout.in_flight: out of memory with 9 at once (CUDA out of memory. Tried to allocate 2.00 GiB); "
        "going on with 4\n"
    )
    assert smaller_flights()["rollout.in_flight.out_of_memory"] == 1.0
    most = 3
    with pytest.raises(OutOfMemoryError) as error:
        flight.run(work)
    assert tried == [9, 4, 4]
    assert str(error.value) == (
        "out of memory again, with half of what was planned: rollout.in_flight had 4 at once (CUDA out of memory. "
        "Tried to allocate 2.00 GiB); lower rollout.in_flight or runtime.context"
    )


def test_one_alone_is_not_halved() -> None:
    def work(size: int) -> None:
        raise MemoryError("no")

    with pytest.raises(OutOfMemoryError, match="one alone cannot be halved: a had 1 at once"):
        Flight("a", 1).run(work)


def test_two_threads_that_run_out_together_halve_once() -> None:
    flight, both = Flight("a", 8), threading.Barrier(2)

    def work(size: int) -> int:
        if size == 8:
            both.wait(timeout=30)
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")
        return size

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(flight.run(work))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [4, 4]


def test_a_half_does_not_begin_while_another_thread_has_a_whole_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds 4 + 4, or 8 alone: the half of the one runs out again if the other still has its 8."""
    flight, holds, goes_on = Flight("a", 8), threading.Event(), threading.Event()
    wait_for, taken = flight._landed.wait_for, list[int]()

    def waits(free: Callable[[], bool]) -> bool:
        if not free():
            goes_on.set()
        return wait_for(free)

    def holder(size: int) -> int:
        taken.append(size)
        holds.set()
        assert goes_on.wait(30), "the other neither waits nor begins"
        taken.remove(size)
        return size

    def runs_out(size: int) -> int:
        if size < 8:
            goes_on.set()
        if sum(taken) + size > 8:
            raise MemoryError("no")
        return size

    monkeypatch.setattr(flight._landed, "wait_for", waits)
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(flight.run(holder)))
    other.start()
    assert holds.wait(30)
    found.append(flight.run(runs_out))
    other.join()
    assert sorted(found) == [4, 8]


def test_what_other_processes_report_is_part_of_the_record() -> None:
    Flight("a", 100, ten_each, 400.0)
    report_smaller({"a.used": 12, "a.asked": 100, "a.out_of_memory": 1.0, "b.used": 3, "b.asked": 6})
    report_smaller({"a.used": 50, "a.asked": 100, "a.out_of_memory": 0.0})
    assert smaller_flights() == {"a.used": 12, "a.asked": 100, "a.out_of_memory": 1.0, "b.used": 3, "b.asked": 6}


def test_other_errors_are_not_about_memory() -> None:
    def work(size: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Flight("a", 8).run(work)
    assert not out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError) as error:  # what torch itself says
        torch.empty(2**60, dtype=torch.float32)
    assert out_of_memory(error.value)


def test_resumed_work_goes_on_with_the_flight_that_it_began_with(tmp_path: Path) -> None:
    path = tmp_path / "flight.json"
    whole = Flight("a", 8)
    whole.resume(path)
    assert not path.exists()  # params that fit leave no trace
    first = Flight("a", 8, ten_each, 50.0)
    first.resume(path)
    second = Flight("a", 8, ten_each, 1e9)  # there is more memory now
    second.resume(path)
    assert (second.size, second.halved) == (4, False)
    assert second.run(lambda size: size if size < 4 else _run_out()) == 2
    third = Flight("a", 8)
    third.resume(path)
    assert (third.size, third.halved) == (2, True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"size": null}', '{"size": 0, "halved": false}', "{"])
def test_a_flight_that_cannot_be_read_is_planned_anew(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "flight.json"
    path.write_text(text)
    flight = Flight("a", 8)
    flight.resume(path)
    assert (flight.size, flight.halved) == (8, False)
    assert [one.name for one in tmp_path.iterdir()] == ["torn-flight.json"]
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and f"kept as {tmp_path}/torn-flight.json" in said


def _run_out() -> int:
    raise MemoryError


def cgroup(root: Path, version: int, path: str, limit: str, used: int, cached: int) -> None:
    names, top = {
        1: (("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"), "sys/fs/cgroup/memory"),
        2: (("memory.max", "memory.current", "inactive_file"), "sys/fs/cgroup"),
    }[version]
    folder = root / top / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_control_group_above_counts(version: int, tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    lines = {1: "5:cpu,cpuacct:/x\n4:memory:/job/task\n", 2: "0::/job/task\n"}[version]
    (tmp_path / "proc/self/cgroup").write_text(lines)
    without = available("cpu", tmp_path)
    assert without > 1e6  # the system's
    cgroup(tmp_path, version, "job/task", {1: "9223372036854771712", 2: "max"}[version], 700, 0)
    assert available("cpu", tmp_path) > 1e6
    cgroup(tmp_path, version, "job", "5000", 3000, 1000)
    assert available("cpu", tmp_path) == 5000 - 3000 + 1000
    cgroup(tmp_path, version, "job/task", "2500", 600, 50)
    assert available("cpu", tmp_path) == 2500 - 600 + 50
