"""The report's pictures: one drawing, saved as a PNG file for a README or a slide, and as SVG for the page.

Both are the same bytes for the same numbers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

from markupsafe import Markup

from swirl.reporting.markup import printable
from swirl.reporting.results import LABELS, Funnel, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]

_LIGHT = files("swirl.reporting").joinpath("templates/page.css").read_text(encoding="utf-8").partition("@media")[0]
_COLOURS = dict(re.findall(r"--(\w+): (#\w+);", _LIGHT))
_VARIABLES = {colour: f"var(--{name})" for name, colour in _COLOURS.items()}

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.grid": True,
    **{f"axes.spines.{side}": False for side in ("top", "right", "bottom", "left")},
    "axes.titlecolor": _COLOURS["soft"],
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.facecolor": "none",
    "figure.constrained_layout.h_pad": 0.1,
    "font.size": 12,
    "grid.color": _COLOURS["grid"],
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "swirl",
    "text.color": _COLOURS["ink"],
    "text.parse_math": False,
    **{f"{axis}tick.color": _COLOURS["soft"] for axis in "xy"},
    **{f"{axis}tick.major.pad": 6 for axis in "xy"},
    **{f"{axis}tick.major.size": 0 for axis in "xy"},
}
"""A figure's inch is 72 pixels of the page, so a size of text or of a line is in pixels."""

_DOT = 2
"""The radius of a curve's dots."""
_MARKS: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "path": ("path", {"d": "d"}, {}),
    "text": ("text", {"x": "x", "y": "y"}, {}),
    "use": ("circle", {"x": "cx", "y": "cy"}, {"r": str(_DOT)}),
}
"""What stands in matplotlib's SVG: what it is in the page, and its attributes; only dots are drawn by `use`."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A measure over updates; needs at least one point."""

    name: str
    points: Sequence[Point]
    """(update, value)"""
    share: bool
    """Whether values are shown in percent."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """All pictures of a run."""

    accuracy: Markup
    filters: Markup
    curves: Mapping[str, Mapping[str, Markup]]
    """By title and name."""
    files: Mapping[str, bytes]
    """PNG files by name."""


def draw(results: Results, curves: Mapping[str, Sequence[Curve]]) -> Pictures:
    """Draw everything; `curves` are by title, and those of the empty title are in the page alone."""
    from matplotlib import rc_context

    titled = [one for title, group in curves.items() for one in group if title]
    with rc_context(_STYLE):
        figures = {"filters": _filters(results.filters)}
        figures |= {"accuracy": _accuracy(results)} if results.scores else {}
        figures |= {"training": _training(titled)} if titled else {}
        words = "Accuracy with tools by benchmark and model, with 95% intervals"
        accuracy = _svg(figures["accuracy"], words) if results.scores else Markup()
        return Pictures(
            accuracy,
            _svg(figures["filters"], "Trajectories kept by each filter strategy"),
            {title: {one.name: _svg(_alone(one), f"{title} {one.name}") for one in curves[title]} for title in curves},
            {f"{name}.png": _png(figure) for name, figure in figures.items()},
        )


def write(pictures: Pictures, folder: Path) -> None:
    """Write the PNG files into `folder`, and delete others there."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for name, content in pictures.files.items():
        (folder / name).write_bytes(content)


def _accuracy(results: Results) -> Figure:
    """Accuracy with tools by benchmark and model, each bar with its 95% interval."""
    models, benchmarks = results.models, results.benchmarks
    figure = _figure(max(400, 60 + (34 * len(models) + 52) * len(benchmarks)), 320)
    axes = figure.subplots()
    width = 0.8 / len(models)
    for number, model in enumerate(models):
        cells = [(x, score) for x, name in enumerate(benchmarks) if (score := results.score(name, model))]
        places = [x + (number - (len(models) - 1) / 2) * width for x, _ in cells]
        shares = [score.accuracy for _, score in cells]
        bars = axes.bar(places, shares, width * 0.88, color=_COLOURS[model], label=LABELS[model])
        for bar, (_, score) in zip(bars, cells, strict=True):
            interval = f"{score.ci_low:.1%} to {score.ci_high:.1%}"
            bar.set_url(printable(f"{score.benchmark}, {LABELS[model]}: {score.accuracy:.1%} ({interval})"))
        ends = [score.ci_low for _, score in cells], [score.ci_high for _, score in cells]
        axes.vlines(places, *ends, color=_COLOURS["ink"], linewidth=1.5)
    axes.set_xticks(range(len(benchmarks)), [printable(name) for name in benchmarks])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axes.set_ylim(0, 1.02)
    axes.margins(x=0.02)
    axes.grid(visible=False, axis="x")
    axes.set_title("accuracy with tools, with 95% intervals")
    figure.legend(loc="outside upper left", ncols=len(models))
    return figure


def _filters(funnel: Funnel) -> Figure:
    """How many trajectories each strategy keeps, the part with a right answer filled."""
    figure = _figure(720, 50 + 30 * len(funnel.arms))
    axes = figure.subplots()
    names = [printable(strategy) for strategy in funnel.arms]
    for number, (strategy, arm) in enumerate(zip(names, funnel.arms.values(), strict=True)):
        right = arm.trajectories * (arm.correct or 0.0)
        words = f"{strategy}: {arm.trajectories} of {funnel.trajectories} trajectories, {right:.0f} with a right answer"
        labels = ("", "") if number else ("trajectories kept", "with a right answer")
        for size, name, label in zip((arm.trajectories, right), ("kept", "swirl"), labels, strict=True):
            axes.barh(number, size, 0.65, color=_COLOURS[name], label=label)[0].set_url(words)
        beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center_baseline", "color": _COLOURS["soft"]}
        axes.annotate(f"{arm.trajectories}", (arm.trajectories, number), **beside)
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks([])
    axes.set_xlim(0, max(funnel.trajectories, 1))
    axes.grid(visible=False)
    axes.invert_yaxis()
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def _alone(drawn: Curve) -> Figure:
    """One curve over training steps, with its range on the axes."""
    figure = _figure(310, 150, layout=None)
    _curve(figure.add_axes((0.18, 0.16, 0.8, 0.8)), drawn)
    return figure


def _training(curves: Sequence[Curve]) -> Figure:
    """All curves in one picture, each with its name."""
    across = min(4, len(curves))
    down = -(-len(curves) // across)
    figure = _figure(310 * across, 200 * down)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, drawn in zip(panels, curves, strict=False):
        _curve(axes, drawn)
        axes.set_title(printable(drawn.name))
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    return figure


def _png(figure: Figure) -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100, facecolor="white", metadata={"Software": None})
    return drawn.getvalue()


def _svg(figure: Figure, label: str) -> Markup:
    """The figure as SVG for the page: without ids, which would clash there, and in the page's colours.

    The URL of what was drawn with one becomes its tooltip, for which matplotlib has no name.
    """
    drawn, tooltip = io.StringIO(), ""
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(drawn.getvalue())
    box, words = root.get("viewBox", ""), {"role": "img", "aria-label": printable(label.strip())}
    size = dict(zip(("width", "height"), box.split()[2:], strict=True))
    made = ElementTree.Element("svg", {"viewBox": box} | size | words)
    for one in root.iter():
        kind = one.tag.rpartition("}")[2]
        tooltip = one.get("{http://www.w3.org/1999/xlink}href", "") if kind == "a" else tooltip
        style = dict(part.split(": ", 1) for part in one.get("style", "").split("; ") if part)
        if kind in _MARKS and style not in ({}, {"fill": "none"}):
            name, places, more = _MARKS[kind]
            look = {key: _VARIABLES.get(value, value) for key, value in style.items() if not key.startswith("font")}
            place = {new: _short(one.get(old, "")) for old, new in places.items()}
            mark = ElementTree.SubElement(made, name, place | more | look)
            mark.text = one.text if kind == "text" else None
            if tooltip:
                ElementTree.SubElement(mark, "title").text, tooltip = tooltip, ""
    return Markup(ElementTree.tostring(made, encoding="unicode"))


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure of that many pixels of the page, drawn without any display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), layout=layout)


def _curve(axes: Axes, drawn: Curve) -> None:
    xs, ys = [x for x, _ in drawn.points], [y for _, y in drawn.points]
    axes.plot(xs, ys, color=_COLOURS["swirl"], linewidth=2)
    dots = axes.scatter(xs, ys, (2 * _DOT) ** 2, color=_COLOURS["swirl"], linewidths=0)
    dots.set_urls([f"update {x:.0f}: {_value(y, drawn.share)}" for x, y in drawn.points])
    low, high = min(ys), max(ys)
    if high - low < 1e-9:
        room = abs(high) * 0.1 or 0.5
        low, high = low - room, high + room
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    marked = (low, (low + high) / 2, high)
    axes.set_yticks(marked, [_value(y, drawn.share) for y in marked])
    ends = sorted({min(xs), max(xs)})
    axes.set_xticks(ends, [f"{'' if number else 'update '}{x:.0f}" for number, x in enumerate(ends)])
    axes.grid(visible=False, axis="x")


def _value(value: float, share: bool) -> str:
    if not share:
        return f"{value:.3g}"
    return f"{100 * value:.2g}%" if 0 < abs(value) < 0.01 else f"{value:.1%}"


def _short(written: str) -> str:
    """Coordinates with at most one decimal."""
    return " ".join(re.sub(r"-?\d+\.\d+", lambda found: f"{round(float(found[0]), 1):g}", written).split())
