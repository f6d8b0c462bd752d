"""Plots: dots with intervals, lines over time, curves, times against times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tgsr import audio
from tgsr.disk.whole import whole
from tgsr.statistics.intervals import Mean
from tgsr.timeline import END_SLACK, Seconds

INK = "#24292f"
# Told apart with any colour vision, and in grey: ochre, rose, navy, then teal, violet, brown.
MODEL_COLOURS = ("#997700", "#bb5566", "#004488", "#20867a", "#7b4fa3", "#7a5230")


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity of the run `name` against training steps; x and y are of one length.

    `low` and `high` are the ends of each y's interval, NaN where it has none; () where no y has one.
    """

    name: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Stated:
    """An interval as someone stated it, in seconds; what is wrong with it, or None.

    `is_audible`: whether any of it can be played.
    """

    start: Seconds
    end: Seconds
    problem: str | None
    is_audible: bool


@dataclass(frozen=True, slots=True)
class Dot:
    """A row of `Dots`: a model's name, its colour class, its mean."""

    name: str
    tint: str
    mean: Mean


@dataclass(frozen=True, slots=True)
class Dots:
    """Means on a line with their intervals, a row a model, under the name of their group, where it has one.

    `marks` puts a dashed line through a group's rows (chance). A mean without a value has no dot. The line is from 0 to
    1; a PNG may have others, from `low` to `high`, and None ends where the data do.
    """

    title: str
    groups: Mapping[str, Sequence[Dot]]
    marks: Mapping[str, float] = field(default_factory=dict)
    low: float = 0
    high: float | None = 1


@dataclass(frozen=True, slots=True)
class Line:
    """Points of one colour class, "" for ink. What is not a finite number is left out; n_points counted it.

    `intervals` are (x, low, high) of the points that have one.
    """

    name: str
    tint: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    n_points: int
    intervals: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines on common axes. `is_noisy`: points under their running mean; `from_zero`: the upright axis begins at 0.

    `is_share`: it is from 0 to 1 at least.
    """

    title: str
    x_label: str
    lines: tuple[Line, ...]
    is_noisy: bool = False
    from_zero: bool = False
    is_share: bool = False


@dataclass(frozen=True, slots=True)
class Scatter:
    """Times in seconds against the times that they should be: a point for each of `x` and `y`, which are of one length.

    Both axes are from 0 to `end`, and the diagonal is where points belong. `is_full` are drawn full, the others as
    rings; a point with y beyond `end` is a triangle at the upper edge.
    """

    title: str
    tint: str
    x_label: str
    y_label: str
    x: tuple[Seconds, ...]
    y: tuple[Seconds, ...]
    is_full: tuple[bool, ...]
    end: Seconds


def tint(models: Sequence[str], model: str) -> str:
    """The model's colour class; from the seventh model on, colours come again."""
    return f"m{models.index(model) % len(MODEL_COLOURS)}"


def dots_by_model(means: Mapping[str, Mean | None]) -> list[Dot]:
    """A dot for each mean that is there; all the models have their place among the colours."""
    models = [*means]
    return [Dot(model, tint(models, model), mean) for model, mean in means.items() if mean is not None]


def stated(start: Seconds, end: Seconds, duration: Seconds) -> Stated:
    """What a model wrote, judged against a clip of `duration`: any two numbers will do.

    An end up to 0.05 s past the clip's is no error, as in the scores.
    """
    if end <= start:
        return Stated(start, end, "ends before it starts", False)
    if start < 0:
        return Stated(start, end, "starts before the clip does", False)
    if start >= duration:
        return Stated(start, end, "lies past the end of the clip", False)
    late = end > duration + END_SLACK
    return Stated(start, end, "runs past the end of the clip" if late else None, True)


def smoothed(y: Sequence[float]) -> list[float]:
    """The running mean over a tenth of the points: a twentieth on each side, one point at least."""
    half = max(1, len(y) // 20)
    return [float(np.mean(y[max(0, i - half) : i + half + 1])) for i in range(len(y))]


def line_of(name: str, colour: str, x: Sequence[float], y: Sequence[float]) -> Line:
    """The finite points of x and y, which are of one length."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    return Line(name, colour, tuple(a for a, _ in points), tuple(b for _, b in points), len(x))


def curve_panels(curves: Sequence[Curve], is_noisy: bool = True) -> list[Lines]:
    """A panel a quantity, in order of appearance, with all runs that have it; several runs have colours."""
    runs = list(dict.fromkeys(curve.name for curve in curves))
    lines: dict[tuple[str, str], list[Line]] = {}
    for curve in curves:
        colour = tint(runs, curve.name) if len(runs) > 1 else ""
        line = line_of(curve.name, colour, curve.x, curve.y)
        ends = zip(curve.x, curve.low, curve.high, strict=True) if curve.low else ()
        line = replace(line, intervals=tuple(one for one in ends if all(map(math.isfinite, one))))
        lines.setdefault((curve.y_label.replace("_", " "), curve.x_label), []).append(line)
    return [Lines(y, x, tuple(panel), is_noisy=is_noisy) for (y, x), panel in lines.items()]


def dots_png(panels: Sequence[Dots], path: audio.StrPath) -> None:
    """The panels side by side, as on the page; ValueError where there are none."""
    from matplotlib.figure import Figure

    n_rows = max(sum(len(rows) + 1 for rows in panel.groups.values()) for panel in panels)
    figure = Figure(figsize=(3.4 * len(panels), 0.7 + 0.24 * n_rows), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        names: dict[int, str] = {}  # by the row that they stand beside
        heads: list[int] = []
        y = 0
        for group, rows in panel.groups.items():
            if not group:
                y -= 1
            else:
                heads.append(len(names))
                names[y] = one_line(group, 40)
            if group in panel.marks:
                ends = [y + 0.5, y + len(rows) + 0.5]
                axes.plot([panel.marks[group]] * 2, ends, color=INK, ls=":", lw=1)
            for i, dot in enumerate(rows, y + 1):
                names[i] = one_line(dot.name, 22)
                colour, mean = MODEL_COLOURS[int(dot.tint[1:])], dot.mean
                if mean.low is not None and mean.high is not None:
                    interval = [mean.low, mean.high]
                    axes.plot(interval, [i, i], color=colour, lw=2.5, alpha=0.55, solid_capstyle="butt")
                if mean.value is not None:
                    axes.plot([mean.value], [i], "o", color=colour, ms=5)
            y += len(rows) + 1
        axes.set_yticks(list(names), map(literal, names.values()))
        axes.set_ylim(y - 0.4, -0.6)
        if panel.high is None:
            axes.set_xlim(left=panel.low)
        else:
            margin = 0.02 * (panel.high - panel.low)
            axes.set_xlim(panel.low - margin, panel.high + margin)
        if (panel.low, panel.high) == (0, 1):
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        else:
            axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x", color="#e1ded7")
        _plain_axes(axes, panel.title)
        for head in heads:
            axes.get_yticklabels()[head].set(style="italic", color="#5f6873")
    with whole(path) as half:
        figure.savefig(half, dpi=150, format="png", facecolor="white")


def lines_png(panels: Sequence[Lines], path: audio.StrPath) -> None:
    """The panels in rows of three, as on the page, with one legend; ValueError where there are none."""
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    n_rows, n_columns = -(-len(panels) // 3), min(3, len(panels))
    figure = Figure(figsize=(3.4 * n_columns, 2.1 * n_rows + 0.3), layout="constrained")
    places = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    named: dict[str, Artist] = {}
    for axes, panel in zip(places, panels, strict=False):
        for line in panel.lines:
            colour = MODEL_COLOURS[int(line.tint[1:])] if line.tint else INK
            if panel.is_noisy:
                axes.plot(line.x, line.y, ".", color=colour, ms=2, alpha=0.35)
            middle = smoothed(line.y) if panel.is_noisy else line.y
            (drawn,) = axes.plot(line.x, middle, color=colour, lw=1.4)
            for x, low, high in line.intervals:
                axes.plot([x, x], [low, high], color=colour, lw=2.5, alpha=0.3, solid_capstyle="butt")
            if line.tint:
                named.setdefault(literal(one_line(line.name, 40)), drawn)
        if panel.is_share:
            axes.set_ylim(min(0, axes.get_ylim()[0]), max(1.02, axes.get_ylim()[1]))
        elif panel.from_zero:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(literal(panel.x_label), fontsize=8, color=INK)
        _plain_axes(axes, panel.title)
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    if named:
        figure.legend(
            named.values(), named.keys(), loc="outside lower left", ncols=3, fontsize=8, frameon=False
        )
    with whole(path) as half:
        figure.savefig(half, dpi=150, format="png", facecolor="white")


def scatters_png(panels: Sequence[Scatter], path: audio.StrPath) -> None:
    """The panels in rows of three, as on the page; ValueError where there are none."""
    from matplotlib.figure import Figure

    n_rows, n_columns = -(-len(panels) // 3), min(3, len(panels))
    figure = Figure(figsize=(2.9 * n_columns, 3.1 * n_rows), layout="constrained")
    places = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, panel in zip(places, panels, strict=False):
        colour = MODEL_COLOURS[int(panel.tint[1:])]
        axes.plot([0, panel.end], [0, panel.end], color=INK, ls=":", lw=1, zorder=1)
        for full, face in ((True, colour), (False, "none")):
            for is_beyond, marker in ((False, "o"), (True, "^")):
                points = [
                    (x, min(y, panel.end))
                    for x, y, is_full in zip(panel.x, panel.y, panel.is_full, strict=True)
                    if is_full == full and (y > panel.end) == is_beyond
                ]
                xs, ys = [x for x, _ in points], [y for _, y in points]
                style = {"edgecolors": colour, "facecolors": face, "linewidths": 0.9, "alpha": 0.75}
                axes.scatter(xs, ys, s=16, marker=marker, clip_on=False, zorder=2, **style)
        axes.set(xlim=(0, panel.end), ylim=(0, panel.end), aspect="equal")
        axes.grid(color="#e1ded7", zorder=0)
        axes.set_axisbelow(True)
        axes.locator_params(nbins=5, steps=[1, 2, 5, 10])
        axes.set_xlabel(literal(panel.x_label), fontsize=8, color=INK)
        axes.set_ylabel(literal(panel.y_label), fontsize=8, color=INK)
        _plain_axes(axes, one_line(panel.title, 40))
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    with whole(path) as half:
        figure.savefig(half, dpi=150, format="png", facecolor="white")


def _plain_axes(axes: Any, title: str) -> None:
    axes.set_title(literal(title), fontsize=10, loc="left", color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, colors=INK)


def one_line(text: str, n: int) -> str:
    """The text on one line, at most n characters of it."""
    text = " ".join(text.split())
    return text if len(text) <= n else text[: n - 1] + "…"


def told_apart(names: Sequence[str]) -> list[str]:
    """Of names that are paths as few of the last folders as tell them apart, without the "adapter" that training adds.

    ["runs/a/adapter", "runs/b/adapter", "mini"] are a, b and mini. Names that are the same stay the same.
    """
    parts = [name.removesuffix("/").removesuffix("/adapter").split("/") for name in names]
    for n in range(1, max(map(len, parts), default=0) + 1):
        short = ["/".join(one[-n:]) for one in parts]
        if len(set(short)) == len(set(names)):
            return short
    return list(names)


def literal(text: str) -> str:
    """A name as matplotlib draws it letter by letter: a dollar sign would begin a formula."""
    return text.encode("utf-8", errors="replace").decode().replace("$", r"\$")
