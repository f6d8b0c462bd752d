"""Pictures of a run: SVG for the page, PNG for a README or a report in Markdown.

In the page, places along a clip are percentages of a picture's width and everything else is in pixels:
a narrow screen squeezes time and leaves text and bars as they are. Colours are classes (m0, m1, ...) that
page.css defines for light and for dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from tgsr import audio
from tgsr.statistics.intervals import Mean
from tgsr.timeline import END_SLACK, Seconds, Span

# Told apart with any colour vision, and in grey: ochre, rose, navy, then teal, violet, brown.
MODEL_COLOURS = ("#997700", "#bb5566", "#004488", "#20867a", "#7b4fa3", "#7a5230")
WAVE_PX, LANE_PX, AXIS_PX = 84, 22, 20
WAVE_POINTS = 600
NARROWEST = 0.7  # % of the width: a shorter span could be neither seen nor hit
TICK_STEPS: tuple[Seconds, ...] = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
MOST_TICKS = 11


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity of the run `name` against training steps; x and y are of one length."""

    name: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


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
    """Means on a line from 0 to 1 with their intervals, a row a model, under the name of their group, where it has one.

    `marks` puts a dashed line through a group's rows (chance). A mean without a value has no dot.
    """

    title: str
    groups: Mapping[str, Sequence[Dot]]
    marks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """Points of one colour class, "" for ink. What is not a finite number is left out; n_points counted it."""

    name: str
    tint: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    n_points: int


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines on common axes. `is_noisy`: points under their running mean; `from_zero`: the upright axis begins at 0."""

    title: str
    x_label: str
    lines: tuple[Line, ...]
    is_noisy: bool = False
    from_zero: bool = False


def tint(models: Sequence[str], model: str) -> str:
    """The model's colour class; from the seventh model on, colours come again."""
    return f"m{models.index(model) % len(MODEL_COLOURS)}"


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


# --- a clip: waveform, lanes, axis -----------------------------------------------------------------------


def wave_svg(samples: audio.Samples | None, evidence: Sequence[Span], duration: Seconds) -> str:
    """The waveform's outline, scaled to its loudest sample; only the evidence where there is no sound."""
    wave = ""
    if samples is not None:
        width = 100 * len(samples) / audio.SAMPLE_RATE / duration
        wave = (
            f'<svg width="{width:.2f}%" height="100%" viewBox="0 0 {WAVE_POINTS} 2" preserveAspectRatio="none">'
            f'<path d="{wave_path(samples)}"/></svg>'
        )
    return _clip_svg("wave", WAVE_PX, evidence, duration, wave)


def wave_path(samples: audio.Samples) -> str:
    """One closed outline in a box of WAVE_POINTS x 2."""
    stretches = audio.peaks(samples, WAVE_POINTS)
    loudest = max(1e-6, *(max(-low, high) for low, high in stretches))
    upper = [f"{x} {1 - 0.96 * high / loudest:.3f}" for x, (_, high) in enumerate(stretches)]
    lower = [f"{x} {1.012 - 0.96 * low / loudest:.3f}" for x, (low, _) in enumerate(stretches)]
    return "M" + "L".join([*upper, *reversed(lower)]) + "Z"


def lane_svg(
    name: str, colour: str, spans: Sequence[Stated], evidence: Sequence[Span], duration: Seconds
) -> str:
    """One speaker's spans as bars; the faint columns of the evidence run through every lane."""
    rail = f'<line class="rail" x1="0" x2="100%" y1="{LANE_PX / 2}" y2="{LANE_PX / 2}"/>'
    longest_first = sorted(dict.fromkeys(spans), key=lambda span: span.start - span.end)  # none hides another
    bars = "".join(band(name, span, duration) for span in longest_first)
    return _clip_svg(f"lane {colour}", LANE_PX, evidence, duration, rail + bars)


def band(name: str, span: Stated, duration: Seconds) -> str:
    """A bar that plays its span; crossed out where the span has a problem, shown where it would begin."""
    first = min(max(span.start, 0.0), duration)
    last = min(max(span.end, first), duration)
    width = max(NARROWEST if span.problem is None else 2.0, 100 * (last - first) / duration)
    left = min(100 * first / duration, 100 - width)
    words = f"{span.start:.2f} to {span.end:.2f} s" + (f": {span.problem}" if span.problem else "")
    label = f"{name}: {'play ' if span.is_audible else ''}{words}"
    classes = "band" if span.problem is None else "band wrong"
    blocked = "" if span.is_audible else ' aria-disabled="true"'
    cross = ""
    if span.problem is not None:
        middle = f'x="{left + width / 2:.3f}%" y="{LANE_PX / 2}"'
        cross = f'<svg {middle} overflow="visible"><path d="M-5-5L5 5M5-5L-5 5"/></svg>'
    return (
        f'<g class="{classes}" role="button" tabindex="0" data-start="{span.start}" data-end="{span.end}"'
        f'{blocked} aria-label="{escape(label)}"><title>{escape(name)}: {words}</title>'
        f'<rect x="{left:.3f}%" width="{width:.3f}%" y="4" height="{LANE_PX - 8}" rx="2"/>{cross}</g>'
    )


def axis_svg(duration: Seconds) -> str:
    """The seconds below the lanes."""
    parts = []
    for time in ticks(duration):
        share = 100 * time / duration
        anchor = "start" if time == 0 else "end" if share > 97 else "middle"
        parts.append(f'<line x1="{share:.3f}%" x2="{share:.3f}%" y1="0" y2="4"/>')
        parts.append(
            f'<text x="{share:.3f}%" y="16" text-anchor="{anchor}">{time:g}{" s" if time == 0 else ""}</text>'
        )
    return f'<svg class="axis" height="{AXIS_PX}" aria-hidden="true">{"".join(parts)}</svg>'


def ticks(duration: Seconds) -> list[Seconds]:
    """Round times from 0 to `duration`, eleven at most (more from 55 min on)."""
    step = next((s for s in TICK_STEPS if duration / s < MOST_TICKS), TICK_STEPS[-1])
    return [round(i * step, 1) for i in range(int(duration / step) + 1)]


def _clip_svg(classes: str, height: int, evidence: Sequence[Span], duration: Seconds, content: str) -> str:
    wash = "".join(
        f'<rect class="wash" x="{100 * span.start / duration:.3f}%" width="{100 * span.duration / duration:.3f}%" '
        f'y="0" height="100%"/>'
        for span in evidence
    )
    head = f'<line class="head" x1="0" x2="0" y1="0" y2="{height}"/>'
    return f'<svg class="{classes}" height="{height}">{wash}{content}{head}</svg>'


# --- scores ----------------------------------------------------------------------------------------------


def dot_panel(dots: Dots) -> str:
    """As SVG under its title."""
    left, width, row = 112, 320, 20
    parts: list[str] = []
    y = 0
    for group, rows in dots.groups.items():
        if group or not parts:  # the first row is the grid's, too
            parts.append(f'<text class="group" x="0" y="{y + 14}">{_short(group, 44)}</text>')
            y += row
        if group in dots.marks:
            x = _along(dots.marks[group], left, width)
            parts.append(f'<line class="chance" x1="{x}" x2="{x}" y1="{y}" y2="{y + row * len(rows)}"/>')
        parts += [dot_row(dot, y + row * i, left, width) for i, dot in enumerate(rows)]
        y += row * len(rows) + 6
    grid = "".join(
        f'<line class="grid" x1="{(x := _along(v, left, width))}" x2="{x}" y1="{row}" y2="{y}"/>'
        f'<text x="{x}" y="{y + 14}" text-anchor="middle">{v:g}</text>'
        for v in (0, 0.5, 1)
    )
    label = escape(dots.title)
    body = f'<svg viewBox="0 0 {width} {y + 20}" role="img" aria-label="{label}">{grid}{"".join(parts)}</svg>'
    return f'<figure class="panel"><figcaption>{label}</figcaption>{body}</figure>'


def dot_row(dot: Dot, y: float, left: int, width: int) -> str:
    middle = y + 10
    label = f'<text x="0" y="{middle + 4}">{_short(dot.name, 17)}<title>{escape(dot.name)}</title></text>'
    mean = dot.mean
    if mean.value is None:
        return label
    interval = ""
    if mean.low is not None and mean.high is not None:
        ends = f'x1="{_along(mean.low, left, width)}" x2="{_along(mean.high, left, width)}"'
        interval = f'<line class="interval" {ends} y1="{middle}" y2="{middle}"/>'
    point = f'<circle cx="{_along(mean.value, left, width)}" cy="{middle}" r="4"/>'
    return f'<g class="{dot.tint}">{label}{interval}{point}</g>'


def _along(value: float, left: int, width: int) -> str:
    return f"{left + value * (width - left - 12):.1f}"


def _short(text: str, n: int) -> str:
    return escape(text if len(text) <= n else text[: n - 1] + "…")


# --- lines -----------------------------------------------------------------------------------------------


def smoothed(y: Sequence[float]) -> list[float]:
    """The running mean over a tenth of the points: a twentieth on each side, one point at least."""
    half = max(1, len(y) // 20)
    return [float(np.mean(y[max(0, i - half) : i + half + 1])) for i in range(len(y))]


def line_of(name: str, colour: str, x: Sequence[float], y: Sequence[float]) -> Line:
    """The finite points of x and y, which are of one length."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    return Line(name, colour, tuple(a for a, _ in points), tuple(b for _, b in points), len(x))


def curve_panels(curves: Sequence[Curve]) -> list[Lines]:
    """A panel a quantity, in order of appearance, with all runs that have it; several runs have colours."""
    runs = list(dict.fromkeys(curve.name for curve in curves))
    found = []
    for quantity in dict.fromkeys((curve.y_label, curve.x_label) for curve in curves):
        lines = tuple(
            line_of(curve.name, tint(runs, curve.name) if len(runs) > 1 else "", curve.x, curve.y)
            for curve in curves
            if (curve.y_label, curve.x_label) == quantity
        )
        found.append(Lines(quantity[0].replace("_", " "), quantity[1], lines, is_noisy=True))
    return found


def line_panel(panel: Lines) -> str:
    """As SVG under its title; what is not finite is counted there."""
    n_points = sum(line.n_points for line in panel.lines)
    n_left_out = n_points - sum(len(line.x) for line in panel.lines)
    caption = escape(panel.title)
    if n_left_out:
        caption += f' <span class="soft">({n_left_out} of {n_points} points are not finite)</span>'
    body = _line_svg(panel) if n_left_out < n_points else ""
    return f'<figure class="panel"><figcaption>{caption}</figcaption>{body}</figure>'


def _line_svg(panel: Lines) -> str:
    width, height, left, top, bottom = 320, 140, 48, 8, 20
    xs = [x for line in panel.lines for x in line.x]
    ys = [y for line in panel.lines for y in line.y] + ([0.0] if panel.from_zero else [])
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)

    def place(x: float, y: float) -> str:
        across = (x - x0) / (x1 - x0) if x1 > x0 else 0.5
        up = (y - y0) / (y1 - y0) if y1 > y0 else 0.5
        return f"{left + across * (width - left - 8):.1f} {top + (1 - up) * (height - top - bottom):.1f}"

    paths = []
    for line in panel.lines:
        if not line.x:
            continue
        raw = "".join(f"M{place(x, y)}h0" for x, y in zip(line.x, line.y, strict=True))
        middle = smoothed(line.y) if panel.is_noisy else line.y
        mean = "M" + "L".join(place(x, y) for x, y in zip(line.x, middle, strict=True))
        paths.append(
            f'<g class="{line.tint}"><title>{escape(line.name)}</title>'
            f'<path class="raw" d="{raw}"/><path class="mean" d="{mean}"/></g>'
        )
    base = height - bottom
    levels = [(y1, top), (y0, base)] if y1 > y0 else [(y0, (top + base) / 2)]
    grid = "".join(
        f'<line class="grid" x1="{left}" x2="{width}" y1="{y}" y2="{y}"/>'
        f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{level:.3g}</text>'
        for level, y in levels
    )
    foot = (
        f'<text x="{left}" y="{height - 4}">{escape(panel.x_label)} {x0:g}</text>'
        f'<text x="{width - 4}" y="{height - 4}" text-anchor="end">{x1:g}</text>'
    )
    label = escape(f"{panel.title} against {panel.x_label}")
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{grid}{foot}{"".join(paths)}</svg>'


# --- as PNG ----------------------------------------------------------------------------------------------


def dots_png(panels: Sequence[Dots], path: audio.StrPath) -> None:
    """The panels side by side, as on the page; ValueError where there are none."""
    if not panels:
        raise ValueError("dots_png needs at least one panel, got none")
    from matplotlib.figure import Figure

    n_rows = max(sum(len(rows) + 1 for rows in panel.groups.values()) for panel in panels)
    figure = Figure(figsize=(3.4 * len(panels), 0.7 + 0.24 * n_rows), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        names: list[tuple[int, str]] = []
        heads: list[int] = []
        y = 0
        for group, rows in panel.groups.items():
            if not group:
                y -= 1
            else:
                heads.append(len(names))
                names.append((y, _one_line(group, 40)))
            if group in panel.marks:
                axes.plot(
                    [panel.marks[group]] * 2, [y + 0.5, y + len(rows) + 0.5], color="#24292f", ls=":", lw=1
                )
            for i, dot in enumerate(rows, y + 1):
                names.append((i, _one_line(dot.name, 22)))
                colour, mean = MODEL_COLOURS[int(dot.tint[1:])], dot.mean
                if mean.low is not None and mean.high is not None:
                    axes.plot(
                        [mean.low, mean.high], [i, i], color=colour, lw=2.5, alpha=0.55, solid_capstyle="butt"
                    )
                if mean.value is not None:
                    axes.plot([mean.value], [i], "o", color=colour, ms=5)
            y += len(rows) + 1
        axes.set_yticks([at for at, _ in names], [_literal(name) for _, name in names])
        axes.set_ylim(y - 0.4, -0.6)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.grid(axis="x", color="#e1ded7")
        axes.set_title(_literal(panel.title), fontsize=10, loc="left", color="#24292f")
        _plain_axes(axes)
        for head in heads:
            axes.get_yticklabels()[head].set(style="italic", color="#5f6873")
    figure.savefig(path, dpi=150, format="png", facecolor="white")


def lines_png(panels: Sequence[Lines], path: audio.StrPath) -> None:
    """The panels in rows of three, as on the page, with one legend; ValueError where there are none."""
    if not panels:
        raise ValueError("lines_png needs at least one panel, got none")
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    n_rows = -(-len(panels) // 3)
    figure = Figure(figsize=(3.4 * min(3, len(panels)), 2.1 * n_rows + 0.3), layout="constrained")
    places = figure.subplots(n_rows, min(3, len(panels)), squeeze=False).ravel()
    named: dict[str, Artist] = {}
    for axes, panel in zip(places, panels, strict=False):
        for line in panel.lines:
            colour = MODEL_COLOURS[int(line.tint[1:])] if line.tint else "#24292f"
            if panel.is_noisy:
                axes.plot(line.x, line.y, ".", color=colour, ms=2, alpha=0.35)
            middle = smoothed(line.y) if panel.is_noisy else line.y
            (drawn,) = axes.plot(line.x, middle, color=colour, lw=1.4)
            if line.tint:
                named.setdefault(_literal(_one_line(line.name, 40)), drawn)
        if panel.from_zero:
            axes.set_ylim(bottom=0)
        axes.set_title(_literal(panel.title), fontsize=10, loc="left", color="#24292f")
        axes.set_xlabel(_literal(panel.x_label), fontsize=8, color="#24292f")
        _plain_axes(axes)
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    if named:
        figure.legend(
            list(named.values()), list(named), loc="outside lower left", ncols=3, fontsize=8, frameon=False
        )
    figure.savefig(path, dpi=150, format="png", facecolor="white")


def _plain_axes(axes: Any) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, colors="#24292f")


def _one_line(text: str, n: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= n else text[: n - 1] + "…"


def _literal(text: str) -> str:
    """A name as matplotlib draws it letter by letter: a dollar sign would begin a formula."""
    return text.encode("utf-8", errors="replace").decode().replace("$", r"\$")


# --- for a README ----------------------------------------------------------------------------------------


def waveform_figure(
    samples: audio.Samples,
    evidence: Sequence[Span],
    predicted: Mapping[str, Sequence[Span]],
    path: audio.StrPath,
) -> None:
    """A PNG: the waveform, the true spans below it, and a lane for each model's, on one axis of seconds.

    `samples` are 16 kHz mono. Spans past the samples' end are cut off by the picture's edge. ValueError
    where there are no samples.
    """
    if len(samples) == 0:
        raise ValueError("waveform_figure needs at least one sample, got none")
    from matplotlib.figure import Figure  # slow to import, and the page does without it

    duration = len(samples) / audio.SAMPLE_RATE
    lanes = {"evidence": (evidence, "#24292f")}
    for index, (name, spans) in enumerate(predicted.items()):
        lanes[name if name != "evidence" else "evidence (model)"] = (
            spans,
            MODEL_COLOURS[index % len(MODEL_COLOURS)],
        )
    height = 1.25 + 0.3 * len(lanes)
    figure = Figure(figsize=(9, height), layout="constrained")
    wave, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 0.3 * len(lanes)))
    times = (np.arange(1500) + 0.5) * duration / 1500
    lowest, highest = np.array(audio.peaks(samples, 1500)).T
    wave.fill_between(times, lowest, highest, color="#8b949e", linewidth=0.4)
    wave.set_yticks([])
    for row, (spans, colour) in enumerate(lanes.values()):
        below.broken_barh([(s.start, s.duration) for s in spans], (row - 0.3, 0.6), color=colour)
    below.set_yticks(range(len(lanes)), list(lanes))
    below.set_ylim(len(lanes) - 0.45, -0.55)
    below.set_xlim(0, duration)
    below.set_xlabel("seconds")
    for axes in (wave, below):
        for span in evidence:
            axes.axvspan(span.start, span.end, color="#24292f", alpha=0.08, linewidth=0, zorder=0)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=9, colors="#24292f")
    figure.savefig(path, dpi=180, format="png", facecolor="white")
