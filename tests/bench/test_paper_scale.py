"""The tables of a run of any size: sound to every gate, the same as all at once, and in bounded memory."""

from __future__ import annotations

import gc
import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from swirl.bench import paper_scale, report
from swirl.bench.scripted import SAMPLES, Script
from swirl.cli.main import app
from swirl.config import presets
from swirl.config.params import Params, validate
from swirl.core import parquet
from swirl.core.journal import Journal
from swirl.core.layout import Layout
from swirl.core.records import load, save
from swirl.core.types import Question, SubTrajectory, Trajectory, Verdict
from swirl.quality import tables
from swirl.stages import filter as filtering
from swirl.stages import judge, synthesize

ROOT = Path(__file__).parents[2]
ROWS, BLOCK = 10, 15


@pytest.fixture(scope="module")
def params() -> Params:
    tree = presets.laid_over(presets.tree(ROOT, "mini"), paper_scale.CHANGES)
    return validate(presets.laid_over(tree, {"rollout": {"block_size": BLOCK}}), "test")


@pytest.fixture(scope="module")
def script() -> Script:
    return Script(passages=20)


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", ROWS)


def made(root: Path, script: Script, count: int) -> Layout:
    """A project whose journal holds `count` trajectories in blocks of `BLOCK`."""
    layout = Layout(root)
    save([script.question(n) for n in range(count // SAMPLES)], Question, layout.questions)
    journal = Journal(layout.trajectories_journal, "scripted")
    for start in range(0, count, BLOCK):
        block = [script.trajectory(start + n) for n in range(BLOCK)]
        journal.commit(start // BLOCK, Trajectory, block)
    return layout


def through(layout: Layout, params: Params, count: int) -> Iterator[str]:
    """All that reads or writes large tables but the expectations themselves; yields what comes next."""
    yield "synthesize"
    synthesize.publish(Journal(layout.trajectories_journal, "scripted"), count // BLOCK, layout)
    yield "judge"
    judge.publish(paper_scale.scripted_verdicts(params, layout), Journal(layout.root / "judged", "scripted"))
    yield "filter"
    filtering.run(params, layout)
    yield "gates"
    keep = tables.presence("row")
    tables.gathered(tables.read_trajectories(layout.trajectories), keep, keep, keep)
    tables.gathered(tables.read_groups(SubTrajectory, layout.steps), keep)
    yield "first batch"
    paper_scale._first_batch(params, layout)


def alive() -> Counter[type]:
    return Counter(type(one) for one in gc.get_objects() if type(one) in (Trajectory, Verdict, SubTrajectory))


def peaks(
    root: Path, params: Params, script: Script, count: int, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[Counter[type], int]]:
    """By part: the most records that are alive, and the most bytes that Arrow holds, when a row group is read."""
    found: dict[str, tuple[Counter[type], int]] = {}
    read_row_group, layout, now = pq.ParquetFile.read_row_group, made(root, script, count), [""]

    def noted(self: pq.ParquetFile, number: int, **options: object) -> pa.Table:
        table = read_row_group(self, number, **options)
        records, held = found.get(now[0], (Counter[type](), 0))
        found[now[0]] = records | alive(), max(held, pa.total_allocated_bytes())
        return table

    gc.collect()
    gc.freeze()  # so that only what is made from here on is looked through
    try:
        with monkeypatch.context() as patched:
            patched.setattr(pq.ParquetFile, "read_row_group", noted)
            for now[0] in through(layout, params, count):
                gc.collect()
    finally:
        gc.unfreeze()
    return found


@pytest.mark.slow
def test_memory_does_not_grow_with_the_tables(
    tmp_path: Path, params: Params, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 60 trajectories (6 row groups) as much is alive at once as of 180."""
    small = peaks(tmp_path / "small", params, script, 60, monkeypatch)
    large = peaks(tmp_path / "large", params, script, 180, monkeypatch)
    assert list(large) == ["synthesize", "judge", "filter", "gates", "first batch"]
    for part, (records, held) in large.items():
        assert records[Trajectory] <= BLOCK + 2 * ROWS, part
        assert records[Verdict] <= 2 * BLOCK * 8, part
        assert records[SubTrajectory] <= 64 + 7, part
        assert held < 1.25 * small[part][1] + 2**16, part


def test_the_tables_are_those_of_all_records_at_once(tmp_path: Path, params: Params, script: Script) -> None:
    layout = made(tmp_path, script, 90)
    for _ in through(layout, params, 90):
        pass
    trajectories = [script.trajectory(n) for n in range(90)]
    save(trajectories, Trajectory, tmp_path / "expected.parquet")
    assert layout.trajectories.read_bytes() == (tmp_path / "expected.parquet").read_bytes()
    verdicts = load(Verdict, layout.verdicts)
    assert len(verdicts) == 90 * 6 and len({(one.trajectory_id, one.step) for one in verdicts}) == 90 * 6
    bad = {one.trajectory_id for one in verdicts if not one.good and one.step >= 0}
    expected = [
        SubTrajectory(t.id, t.question_id, t.benchmark, step.index, t.state_ids(step.index), step.token_ids, 0.75)
        for t in trajectories
        if t.id not in bad
        for step in t.steps
    ]
    assert 20 < len({one.trajectory_id for one in expected}) < 60
    save(expected, SubTrajectory, tmp_path / "expected.parquet")
    assert layout.steps.read_bytes() == (tmp_path / "expected.parquet").read_bytes()


@pytest.mark.slow
def test_every_gate_passes_and_each_size_is_told(
    tmp_path: Path, params: Params, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("swirl.bench.scripted.Script", lambda: script)
    monkeypatch.setattr(paper_scale, "run", lambda root, side: paper_scale.run_side(side))
    result = paper_scale.paper_scale(ROOT, [100])
    (row,) = result["sizes"]
    assert (row["trajectories"], row["steps"]) == (100, 500)
    assert row["seconds"] > 0 and row["peak_mb"] > 0 and row.keys() == {"trajectories", "steps", "seconds", "peak_mb"}


def test_states_are_of_realistic_lengths(script: Script) -> None:
    every = [script.trajectory(n) for n in range(50)]
    states = [len(one.state_ids(k)) for one in every for k in range(len(one.steps))]
    assert 1_350 < max(states) <= 1_500 and min(states) == 220
    assert {len(step.token_ids) for one in every for step in one.steps} == {30}
    assert every == [Script(passages=20).trajectory(n) for n in range(50)]


def test_the_report_says_how_time_and_memory_grow() -> None:
    rows = [
        {"trajectories": 100, "steps": 500, "seconds": 10.0, "peak_mb": 500.0},
        {"trajectories": 200, "steps": 1000, "seconds": 19.0, "peak_mb": 600.0},
    ]
    said = report.text({"sizes": rows})
    assert "| 200 | 1,000 | 19 | 600 |" in said
    assert said.endswith("2.0 times the trajectories take 1.90 times as long and 1.20 times the memory")


def test_the_command_prints_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(paper_scale, "run", lambda root, side: {"trajectories": side["trajectories"], "parts": {}})
    result = CliRunner().invoke(app, ["bench", "paper-scale", "--json"])
    assert '"sizes"' in result.stdout and '"trajectories": 87500' in result.stdout, result.exception


@pytest.mark.rare
def test_time_is_linear_and_memory_bounded() -> None:
    """In processes of their own; beyond four row groups memory grows by an index of 460 bytes for each step."""
    sizes, rows, seconds = (4_000, 12_000, 36_000), list[dict[str, Any]](), list[float]()
    for size in sizes:
        before = processor_seconds()
        rows += paper_scale.paper_scale(ROOT, [size])["sizes"]
        seconds.append(processor_seconds() - before)
    first, then = ((seconds[k + 1] - seconds[k]) / (sizes[k + 1] - sizes[k]) for k in range(2))
    assert then < 2 * first, f"{seconds} processor seconds"  # three times as much, if they grew with the square
    assert rows[2]["peak_mb"] - rows[0]["peak_mb"] < 2 * (sizes[2] - sizes[0]) * 5 * 460 / 1e6


def processor_seconds() -> float:
    """Of all processes that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
