"""The report's pictures as PNG files, for a README or a slide: the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swirl.reporting.results import LABELS, Funnel, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"ceiling": "#b4bac4", "base": "#7d8796", "sft": "#d98a2b", "swirl": "#2563c9"}

Curve = tuple[str, Sequence[tuple[float, float]]]


def write(results: Results, curves: Sequence[Curve], folder: Path) -> None:
    """Write filters.png, accuracy.png and training.png, the last two if there are scores and curves.

    Deletes other PNG files in `folder`.
    """
    figures = {"filters": _filters(results.filters)}
    if results.scores:
        figures["accuracy"] = _accuracy(results)
    if curves:
        figures["training"] = _training(curves)
    _save(figures, folder)


def _save(figures: Mapping[str, Figure], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120, metadata={"Software": None})


def _figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, drawn without any display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _accuracy(results: Results) -> Figure:
    figure = _figure(9, 3.8)
    axes = figure.subplots()
    models, benchmarks = results.models, results.benchmarks
    width = 0.8 / len(models)
    for number, model in enumerate(models):
        cells = [(x, score) for x, name in enumerate(benchmarks) if (score := results.score(name, model))]
        places = [x + (number - (len(models) - 1) / 2) * width for x, _ in cells]
        heights = [100 * score.accuracy for _, score in cells]
        below = [100 * (score.accuracy - score.ci_low) for _, score in cells]
        above = [100 * (score.ci_high - score.accuracy) for _, score in cells]
        axes.bar(places, heights, width * 0.9, color=COLOURS[model], label=LABELS[model])
        axes.errorbar(places, heights, yerr=[below, above], fmt="none", ecolor="#1c2330", elinewidth=1, capsize=2)
    axes.set_xticks(range(len(benchmarks)), benchmarks)
    axes.set_ylabel("accuracy, % (95% interval)")
    axes.set_ylim(0, 105)
    _plain(axes)
    figure.legend(loc="outside upper center", ncols=len(models), frameon=False)
    return figure


def _filters(funnel: Funnel) -> Figure:
    figure = _figure(7, 2.6)
    axes = figure.subplots()
    names = list(reversed(funnel.arms))
    kept = [funnel.arms[name].trajectories for name in names]
    right = [count * (funnel.arms[name].correct or 0.0) for name, count in zip(names, kept, strict=True)]
    axes.barh(names, kept, color="#c9dcf7", label="kept")
    axes.barh(names, right, color=COLOURS["swirl"], label="with a right answer")
    axes.set_xlabel(f"trajectories (of {funnel.trajectories})")
    _plain(axes)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def _training(curves: Sequence[Curve]) -> Figure:
    across = min(4, len(curves))
    down = -(-len(curves) // across)
    figure = _figure(3 * across, 2.2 * down)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, (name, points) in zip(panels, curves, strict=False):
        axes.plot([x for x, _ in points], [y for _, y in points], color=COLOURS["swirl"], linewidth=1.5)
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.tick_params(labelsize=8)
        _plain(axes)
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
