"""Sides of a benchmark in processes of their own, interleaved, so that other load on the machine affects them all."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from swirl.core.errors import SwirlError
from swirl.pipeline.environment import ALLOCATOR

Result = dict[str, Any]


def interleave(root: Path, sides: Sequence[Mapping[str, Any]], rounds: int) -> list[Result]:
    """Run every side once per round; returns one result per side: medians over its processes, and the spread.

    A side is the argument of `swirl.bench.worker`: the benchmark, its settings, and the number of threads.
    """
    said: list[list[Result]] = [[] for _ in sides]
    for number in range(rounds):
        for side, results in zip(sides, said, strict=True):
            named = ", ".join([str(side["name"]), *(f"{key} {value}" for key, value in settings(side).items())])
            print(f"round {number + 1}/{rounds}: {named}", file=sys.stderr, flush=True)
            results.append(run(root, side))
            print(f"  {statistics.median(results[-1]['seconds']):.3g} s", file=sys.stderr, flush=True)
    return [_joined(side, results) for side, results in zip(sides, said, strict=True)]


def settings(side: Mapping[str, Any]) -> Result:
    """What tells sides of one name apart."""
    return {key: side[key] for key in ("token_budget", "rows", "attention") if key in side}


def fastest(rows: Sequence[Result], sides: Sequence[Result]) -> list[Result]:
    """Of the sides of one name the fastest, with its settings."""
    best: dict[str, Result] = {}
    for row, side in zip(rows, sides, strict=True):
        if row["name"] not in best or row["seconds"] < best[row["name"]]["seconds"]:
            best[row["name"]] = {**row, **settings(side)}
    return list(best.values())


def run(root: Path, side: Mapping[str, Any]) -> Result:
    """What one side in a process of its own measures. Raises `SwirlError` when it fails."""
    environment = {**ALLOCATOR, **os.environ, "OMP_NUM_THREADS": str(side["threads"]), "SWIRL_RESTARTED": "1"}
    environment |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "swirl.bench.worker", json.dumps(side)],
        cwd=root,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SwirlError(f"the side {side['name']!r} of the benchmark failed:\n{done.stderr[-3000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(result, dict)
    return result


def _joined(side: Mapping[str, Any], results: Sequence[Result]) -> Result:
    """Medians over all repeats of all rounds; of memory peaks, the highest."""
    seconds = [value for result in results for value in result["seconds"]]
    joined: Result = {"name": side["name"], "seconds": statistics.median(seconds), "repeats": len(seconds)}
    joined |= {"fastest": min(seconds), "slowest": max(seconds), "peak_mb": max(r["peak_mb"] for r in results)}
    if "process_mb" in results[0]:
        joined["process_mb"] = max(r["process_mb"] for r in results)
    for key in results[0].get("parts", {}):
        joined[f"{key}_seconds"] = statistics.median([v for r in results for v in r["parts"][key]])
    joined["matmul_gflops"] = statistics.median([result["matmul_gflops"] for result in results])
    for key in (
        "tokens",
        "flops",
        "tool_passes",
        "trajectories",
        "action_tokens",
        "read_tokens",
        "read_rate",
        "action_rate",
    ):
        if key in results[0]:
            joined[key] = statistics.median([result[key] for result in results])
    if "flops" in joined:
        joined["mfu"] = joined["flops"] / joined["seconds"] / (joined["matmul_gflops"] * 1e9)
    return joined | {"threads": side["threads"], "workers": side.get("workers", 1)}


def repeat(step: Callable[[int], None], warmup: int, repeats: int) -> list[float]:
    """Seconds of each of `repeats` steps, after `warmup` steps that are not counted."""
    seconds = []
    for number in range(warmup + repeats):
        start = time.perf_counter()
        step(number)
        seconds.append(time.perf_counter() - start)
    return seconds[warmup:]


def forget_peak(device: Any = "cpu") -> None:
    """Reset the memory peak to what is taken now: on a GPU torch's, else `VmHWM`, where Linux allows it."""
    if str(device).startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def settle(device: Any) -> None:
    """Wait until a GPU has done all that it was asked to do."""
    if str(device).startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def taken_mb(device: Any = "cpu", peak: bool = False) -> float:
    """Memory in MB that torch's tensors take on a GPU, or else this process on the machine; now, or at the peak."""
    if str(device).startswith("cuda"):
        import torch

        return float((torch.cuda.max_memory_allocated if peak else torch.cuda.memory_allocated)(device) / 2**20)
    return resident_mb("VmHWM" if peak else "VmRSS")


def resident_mb(field: str = "VmRSS") -> float:
    """Resident memory of this process in MB, or its peak (`VmHWM`); 0 where there is no /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
