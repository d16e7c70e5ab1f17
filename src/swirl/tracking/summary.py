"""What a parent run says in short: a name that tells what changed, some fifteen metrics, a description."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from swirl.config import presets
from swirl.config.params import validate
from swirl.config.secrets import plain
from swirl.core.errors import ParamsError, SwirlError
from swirl.core.layout import Layout
from swirl.core.records import load_json, read_table
from swirl.core.types import Prediction
from swirl.evaluation.statistics import mcnemar, paired
from swirl.reporting import coverage

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a description, in Markdown."""
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
    ours, found = _normal(params), dict[str, list[str]]()
    for name in presets.names(root):
        with contextlib.suppress(ParamsError):
            differing = presets.differences(_normal(presets.tree(root, name)), ours)
            told = [_told(key, value) for key, _, value in differing if key.split(".")[0] not in INERT]
            told.sort(key=lambda one: one.startswith("seed "))  # last
            found[name] = told if name == presets.COMPLETE else [name, *told]
    return min(found.values(), key=len) if found else None


def run_name(changed: Sequence[str]) -> str:
    """`filter=outcome, seed 1`, or `default`."""
    rest = len(changed) - NAMED
    return ", ".join([*changed[:NAMED], *([f"{rest} more"] if rest > 0 else [])]) or "default"


def _normal(params: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them, with every default; as they are where they are not valid."""
    try:
        values = plain(validate(params, "params"))
    except ParamsError:
        values = plain(params)
    found: dict[str, Any] = json.loads(json.dumps(values))
    return found


def _told(key: str, value: Any) -> str:
    return SHORT.get(key, f"{key}={{}}").format(str(value)[:40])


def headline(layout: Layout) -> dict[str, float]:
    """The metrics that runs are compared by, from the report's results and what they were made of.

    `accuracy/MODEL` is the mean over benchmarks, with tools; a `.p` is of the exact paired test over all questions.
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
            with contextlib.suppress(SwirlError, ValueError):  # without predictions, or of other questions: no test
                pair = paired(_correct(layout, other), _correct(layout, "swirl"))
                found[f"difference/swirl-{other}.p"] = mcnemar(*pair)
    judge, filters = results.get("reward_model", {}), results.get("filters", {})
    if "heldout.accuracy" in judge:
        found |= {"judge/error": 1 - judge["heldout.accuracy"], "judge/auc": judge["heldout.auc"]}
    if filters.get("trajectories"):
        found["filter/kept_share"] = filters["kept"]["trajectories"] / filters["trajectories"]
    trained = layout.metrics("train-swirl")
    if trained.exists() and (kl := load_json(trained).get("kl")) is not None:
        found["train/kl"] = kl
    return {name: float(f"{value:.6g}") for name, value in found.items()}


def _correct(layout: Layout, model: str) -> dict[str, float]:
    """By question id, the share of a model's samples with tools that are right."""
    table = read_table(Prediction, layout.predictions(model), ["question_id", "correct", "with_tools"])
    graded: dict[str, list[float]] = {}
    for row in table.to_pylist():
        if row["with_tools"]:
            graded.setdefault(row["question_id"], []).append(row["correct"])
    return {question: fmean(samples) for question, samples in graded.items()}


def about(source: str, changed: Sequence[str] | None) -> str:
    """How a parent run's description begins: what started it, with which settings."""
    settings = ", ".join(f"`{one}`" for one in changed or ()) or "the settings of the preset mini"
    return f"Started by `{source}`" + ("." if changed is None else f", with {settings}.")


def results_text(layout: Layout) -> str:
    """Accuracy with tools as a table, and how much of the kept data each training saw, as Markdown."""
    results = load_json(layout.results)
    parts = (_table(results.get("scores", [])), coverage.sentence(coverage.loaded(results.get("coverage", {}))))
    return "\n\n".join(part for part in parts if part)


def _table(scores: Sequence[Mapping[str, Any]]) -> str:
    """A row per benchmark, a column per model, in the order of `scores`."""
    shown = [score for score in scores if score.get("with_tools")]
    models = list(dict.fromkeys(score["model"] for score in shown))
    cells = {(score["benchmark"], score["model"]): score for score in shown}
    lines = [f"| accuracy, with tools | {' | '.join(models)} |", "|---" * (len(models) + 1) + "|"]
    for benchmark in dict.fromkeys(score["benchmark"] for score in shown):
        row = [_cell(cells[benchmark, model]) if (benchmark, model) in cells else "" for model in models]
        lines.append(f"| {benchmark} | {' | '.join(row)} |")
    return "\n".join(lines) if shown else ""


def _cell(score: Mapping[str, Any]) -> str:
    low, high = score.get("ci_low"), score.get("ci_high")
    interval = f" ({100 * low:.1f}–{100 * high:.1f})" if low is not None and high is not None else ""
    return f"{100 * score['accuracy']:.1f}{interval}"
