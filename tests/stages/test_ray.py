"""synthesize, judge and evaluate by two workers of a real Ray cluster: the bytes are those of the local engine."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from swirl.config.execution import Execution
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.layout import Layout
from swirl.core.records import load
from swirl.core.types import Stop, Trajectory
from swirl.execution import ray_cluster
from tests.servers import said, scripted
from tests.stages.conftest import clone, run_stages

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.rare
RAY: dict[str, Any] = {"execution": {"engine": "ray", "address": "local", "workers": 2, "gpus_per_worker": 0.0}}


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """Two workers have room, with two threads each, as the judge has."""
    ray_cluster.connect(Execution(**RAY["execution"]), 2)
    yield
    ray.shutdown()


@pytest.fixture
def by_ray(params: Params) -> Params:
    return changed(params, RAY)


@pytest.fixture
def undone(copy: Layout) -> Layout:
    """The project before synthesis."""
    for path in (copy.trajectories, copy.metrics("synthesize"), copy.verdicts, copy.metrics("judge")):
        path.unlink()
    shutil.rmtree(copy.root / ".swirl/journals")
    return copy


def changed(params: Params, *changes: dict[str, Any]) -> Params:
    tree = params.model_dump()
    for change in changes:
        tree = laid_over(tree, change)
    return validate(tree, "tests")


def blocks(layout: Layout) -> dict[str, int]:
    """When each block of synthesis was committed."""
    return {path.name: path.stat().st_mtime_ns for path in layout.trajectories_journal.glob("*/block-*.parquet")}


def same(ours: Layout, theirs: Layout, *paths: Callable[[Layout], Path]) -> None:
    for path in paths:
        assert path(ours).read_bytes() == path(theirs).read_bytes(), path(ours).name


def kill_a_worker(killed: list[int], layout: Layout, ended: threading.Event) -> None:
    """Kill one that makes a block, when some blocks are committed and most are not, unless the stage `ended` before."""
    while not ended.wait(0.005):
        for process in psutil.Process().children(recursive=True) if 4 < len(blocks(layout)) < 20 else ():
            try:
                if process.name().startswith("ray::BlockWorke") and ".make" in " ".join(process.cmdline()):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    return
            except psutil.NoSuchProcess:
                continue


def test_synthesis_and_judging_with_a_worker_killed(by_ray: Params, undone: Layout, project: Layout) -> None:
    """36 blocks of two trajectories each."""
    killed, ended = list[int](), threading.Event()
    killer = threading.Thread(target=kill_a_worker, args=(killed, undone, ended), daemon=True)
    killer.start()
    try:
        run_stages(by_ray, undone, "synthesize")
    finally:
        ended.set()
        killer.join()
    assert len(killed) == 1, "synthesis ended before a worker could be killed"
    run_stages(by_ray, undone, "judge")
    same(undone, project, lambda layout: layout.trajectories, lambda layout: layout.metrics("synthesize"))
    same(undone, project, lambda layout: layout.verdicts, lambda layout: layout.metrics("judge"))


def test_a_killed_stage_goes_on_under_either_engine(
    params: Params, by_ray: Params, undone: Layout, project: Layout, kill_stage: Callable[..., None]
) -> None:
    (undone.root / "params.yaml").write_text(yaml.safe_dump(by_ray.model_dump()), encoding="utf-8")
    seen: dict[str, int] = {}

    def some() -> bool:
        seen.update(found := blocks(undone))
        return len(found) > 3 and not undone.trajectories.exists()

    kill_stage(undone, "synthesize", when=some)
    kept = blocks(undone)
    assert 3 < len(kept) < 36
    run_stages(params, undone, "synthesize")
    assert kept.items() <= blocks(undone).items(), "a committed block was made again"
    same(undone, project, lambda layout: layout.trajectories, lambda layout: layout.metrics("synthesize"))


def test_evaluation_in_blocks(params: Params, by_ray: Params, project: Layout, tmp_path: Path) -> None:
    """12 blocks of rollouts with tools and 10 without, and as many of verdicts."""
    ours, theirs = clone(project, tmp_path / "ray"), clone(project, tmp_path / "local")
    by_five = {"evaluate": {"block_size": 5}}
    for chosen, layout in ((by_ray, ours), (params, theirs)):
        import_module("swirl.stages.evaluate").run(changed(chosen, by_five), layout, "base")
    for path in (Layout.predictions, Layout.prediction_trajectories, Layout.prediction_verdicts, Layout.evaluation):
        assert path(ours, "base").read_bytes() == path(theirs, "base").read_bytes()
    same(ours, theirs, lambda layout: layout.metrics("evaluate-base"))
    left = sorted((ours.root / ".swirl/journals").glob("evaluate-base*/*.finished"))
    assert [len(list(folder.iterdir())) for folder in left] == [12, 12, 10, 10]


def test_a_policy_on_a_server_whose_rate_holds_over_both_workers(params: Params, undone: Layout) -> None:
    limits = {**params.clients["default"].model_dump(), "requests_per_minute": 1200, "concurrency": 4}
    with scripted(said("<answer> 7 </answer>")) as server:
        served = {"url": server.url, "model": "m", "api": "chat", "key_env": "", "chat_template_kwargs": {}}
        chosen = changed(params, RAY, {"synthesize": {"server": served}, "clients": {"default": limits}})
        run_stages(chosen, undone, "synthesize")
        assert len(server.times) == 72
        # One each 0.05 s takes 3.55 s; if each worker had the whole rate, 1.8 s.
        assert server.times[-1] - server.times[0] > 2.7
    made = load(Trajectory, undone.trajectories)
    assert [(t.answer, t.stop) for t in made] == [("7", Stop.ANSWERED)] * 72
