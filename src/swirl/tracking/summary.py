"""What a run says in short: a name that tells what changed, some fifteen metrics, a description."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from swirl.config import presets
from swirl.core.errors import SwirlError
from swirl.core.layout import Layout
from swirl.core.records import load_json
from swirl.evaluation.statistics import paired_p
from swirl.registry.model_registry import read_outcomes

SHORT = {"filter.strategy": "filter={}", "seed": "seed {}"}
"""Settings that change often, as a run's name has them; others are `train.swirl.lr=0.0001`."""
NAMED = 4
"""Changes that a run's name lists."""
INERT = ("tracking", "execution", "clients", "tool_calls")
"""Sections that no stage depends on."""


def changes(root: Path, params: Mapping[str, Any]) -> list[str] | None:
    """What `params` change: the preset that they are nearest to, unless it is mini, then each other setting.

    Empty when they are mini's; None for a project without presets.
    """
    name, differing = presets.nearest(root, {key: value for key, value in params.items() if key not in INERT})
    told = [SHORT.get(key, f"{key}={{}}").format(str(value)[:40]) for key, value in differing]
    told.sort(key=lambda one: one.startswith("seed "))  # last
    return [*([] if name == presets.COMPLETE else [name]), *told] if name else None


def run_name(changed: Sequence[str]) -> str:
    """`filter=outcome, seed 1`, or `default`."""
    rest = len(changed) - NAMED
    return ", ".join([*changed[:NAMED], *([f"{rest} more"] if rest > 0 else [])]) or "default"


def about(source: str, changed: Sequence[str] | None) -> str:
    """How a parent run's description begins: what started it, with which settings."""
    settings = ", ".join(f"`{one}`" for one in changed or ()) or "the settings of the preset mini"
    return f"Started by `{source}`" + ("." if changed is None else f", with {settings}.")


def traced(logged: int, total: int) -> str:
    """How many of a stage's trajectories its run has as traces, as a sentence."""
    if logged < total:
        return f"Traces: {logged} of {total} trajectories, drawn at random."
    return f"Traces: all {total} trajectories." if total > 1 else "Traces: the only trajectory."


def headline(layout: Layout) -> dict[str, float]:
    """The metrics that runs are compared by, from the report's results and what they were made of.

    `accuracy/MODEL` is the mean over benchmarks, with tools; a `.p` is of the paired test over all questions.
    """
    results = load_json(layout.results)
    by_model: dict[str, dict[str, float]] = {}
    for score in results.get("scores", []):
        if score["with_tools"]:
            by_model.setdefault(score["model"], {})[score["benchmark"]] = score["accuracy"]
    mean = {model: fmean(scores.values()) for model, scores in by_model.items()}
    found = {f"accuracy/{model}": mean[model] for model in ("base", "sft", "swirl") if model in mean}
    found |= {f"accuracy_swirl/{benchmark}": value for benchmark, value in by_model.get("swirl", {}).items()}
    for other in ("base", "sft"):
        if {other, "swirl"} <= mean.keys():
            found[f"difference/swirl-{other}"] = mean["swirl"] - mean[other]
            theirs, ours = read_outcomes(layout, other), read_outcomes(layout, "swirl")
            with contextlib.suppress(SwirlError, ValueError):  # of other questions: no test
                if theirs and ours:
                    found[f"difference/swirl-{other}.p"] = paired_p(theirs.correct, ours.correct)
    judge, filters = results.get("reward_model", {}), results.get("filters", {})
    if "heldout.accuracy" in judge:
        found |= {"judge/error": 1 - judge["heldout.accuracy"], "judge/auc": judge["heldout.auc"]}
    if filters.get("trajectories"):
        found["filter/kept_share"] = filters["kept"]["trajectories"] / filters["trajectories"]
    trained = layout.metrics("train-swirl")
    if trained.exists() and (kl := load_json(trained).get("kl")) is not None:
        found["train/kl"] = kl
    return {name: float(f"{value:.6g}") for name, value in found.items()}
