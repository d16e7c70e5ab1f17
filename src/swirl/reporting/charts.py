"""Pictures as inline SVG. Colours are CSS classes, so that a picture works in light and in dark mode."""

from __future__ import annotations

from collections.abc import Sequence

from swirl.reporting.markup import Html, tag
from swirl.reporting.results import LABELS, Funnel, Results

Point = tuple[float, float]


def accuracy_bars(results: Results) -> Html:
    """Accuracy with tools by benchmark and model, each bar with its 95% interval."""
    models, benchmarks = results.models, results.benchmarks
    bar, gap, left, top, height = 34, 52, 44, 12, 240
    group = bar * len(models) + gap
    width = left + group * len(benchmarks)
    marks = [_grid_line(left, width, top + height * (1 - share), f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)]
    for column, benchmark in enumerate(benchmarks):
        start = left + gap / 2 + column * group
        for row, model in enumerate(models):
            score = results.score(benchmark, model)
            if score is None:
                continue
            x = start + row * bar
            y, low, high = (top + height * (1 - value) for value in (score.accuracy, score.ci_low, score.ci_high))
            words = f"{benchmark}, {LABELS[model]}: {score.accuracy:.1%} ({score.ci_low:.1%} to {score.ci_high:.1%})"
            bar_shape = tag("rect", x=_n(x + 2), y=_n(y), width=bar - 4, height=_n(top + height - y), rx=2)
            whisker = tag("line", x1=_n(x + bar / 2), x2=_n(x + bar / 2), y1=_n(low), y2=_n(high), class_="whisker")
            marks.append(tag("g", tag("title", words), bar_shape, whisker, class_=f"fill-{model}"))
        middle = start + bar * len(models) / 2
        marks.append(tag("text", benchmark, x=_n(middle), y=top + height + 20, text_anchor="middle"))
    label = "Accuracy with tools by benchmark and model, with 95% intervals"
    return _svg(width, top + height + 30, label, marks)


def legend(models: Sequence[str]) -> Html:
    """The colour of each model."""
    swatch = [tag("span", tag("i", class_=f"swatch back-{model}"), LABELS[model]) for model in models]
    return tag("p", swatch, class_="legend")


def line(points: Sequence[Point], label: str, percent: bool) -> Html:
    """One curve over training steps with its range on the axis; needs at least one point."""
    left, top, width, height = 52, 10, 250, 110
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = _range(ys)
    last = max(xs)
    span = (last - min(xs)) or 1.0

    def place(x: float, y: float) -> Point:
        return left + width * (x - min(xs)) / span, top + height * (1 - (y - low) / (high - low))

    marks = [
        _grid_line(left, left + width, top + height * (1 - (value - low) / (high - low)), _tick(value, percent))
        for value in (low, (low + high) / 2, high)
    ]
    path = " ".join(f"{_n(x)},{_n(y)}" for x, y in (place(*point) for point in points))
    marks.append(tag("polyline", points=path, class_="curve"))
    for x, y in points:
        dot_x, dot_y = place(x, y)
        words = f"step {x:.0f}: {_tick(y, percent)}"
        marks.append(tag("circle", tag("title", words), cx=_n(dot_x), cy=_n(dot_y), r=2, class_="dot"))
    marks.append(tag("text", f"step {min(xs):.0f}", x=left, y=top + height + 18))
    marks.append(tag("text", f"{last:.0f}", x=left + width, y=top + height + 18, text_anchor="end"))
    return _svg(left + width + 8, top + height + 24, label, marks)


def funnel_bars(funnel: Funnel) -> Html:
    """How many trajectories each strategy keeps, the part with a right answer filled."""
    left, width, row, most = 90, 560, 34, max(funnel.trajectories, 1)
    marks = []
    for number, (strategy, arm) in enumerate(funnel.arms.items()):
        y = 6 + number * row
        right = arm.trajectories * (arm.correct or 0.0)
        size = width * arm.trajectories / most
        words = f"{strategy}: {arm.trajectories} of {funnel.trajectories} trajectories, {right:.0f} with a right answer"
        marks.append(
            tag(
                "g",
                tag("title", words),
                tag("rect", x=left, y=y, width=_n(size), height=row - 12, rx=2, class_="fill-kept"),
                tag("rect", x=left, y=y, width=_n(width * right / most), height=row - 12, rx=2, class_="fill-swirl"),
                tag("text", strategy, x=left - 8, y=y + 16, text_anchor="end"),
                tag("text", f"{arm.trajectories}", x=_n(left + size + 6), y=y + 16),
            )
        )
    return _svg(left + width + 60, 6 + row * len(funnel.arms), "Trajectories kept by each filter strategy", marks)


def _grid_line(left: float, right: float, y: float, words: str) -> Html:
    return tag(
        "g",
        tag("line", x1=_n(left), x2=_n(right), y1=_n(y), y2=_n(y), class_="grid"),
        tag("text", words, x=_n(left - 6), y=_n(y + 4), text_anchor="end"),
    )


def _svg(width: float, height: float, label: str, marks: Sequence[Html]) -> Html:
    box = f"0 0 {_n(width)} {_n(height)}"
    return tag("svg", marks, viewBox=box, width=_n(width), height=_n(height), role="img", aria_label=label)


def _range(values: Sequence[float]) -> Point:
    """The lowest and highest value of an axis; a flat curve gets a margin."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        room = abs(high) * 0.1 or 0.5
        return low - room, high + room
    return low, high


def _tick(value: float, percent: bool) -> str:
    return f"{value:.1%}" if percent else f"{value:.3g}"


def _n(value: float) -> str:
    """A coordinate with at most two decimals, the same text on every machine."""
    return f"{round(value, 2):g}"
