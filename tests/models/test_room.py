"""Which part of a device's memory a process plans with."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from swirl.models import room


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_sharers", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr(room, "available", {"cpu": 240.0, "cuda:0": 60.0}.__getitem__)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def test_processes_that_share_a_device_plan_with_their_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = SimpleNamespace(device="cpu"), SimpleNamespace(device="cuda:0")
    assert (room.free_for(cpu), room.free_for(gpu)) == (240.0, 60.0)
    room.share_devices(4, 2)
    assert (room.free_for(cpu), room.free_for(gpu)) == (60.0, 30.0)
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert (room.free_for(cpu), room.free_for(gpu)) == (20.0, 30.0)
