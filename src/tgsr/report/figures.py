"""Pictures of a run: SVG for the page.

In the page, places along a clip are percentages of a picture's width and everything else is in pixels:
a narrow screen squeezes time and leaves text and bars as they are. Colours are classes (m0, m1, ...) that
page.css defines for light and for dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tgsr import audio
from tgsr.statistics.pictures import Dot, Dots, Lines, Scatter, Stated, smoothed
from tgsr.timeline import Seconds, Span

WAVE_PX, LANE_PX, AXIS_PX = 84, 22, 20
NAMES_PX, DOTS_PX = 112, 320  # of a panel of dots: the names, all of it
WAVE_POINTS = 600
NARROWEST = 0.7  # % of the width: a shorter span could be neither seen nor hit
TICK_STEPS: tuple[Seconds, ...] = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
MOST_TICKS = 11


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
    return clip_svg("wave", WAVE_PX, evidence, duration, wave)


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
    return clip_svg(f"lane {colour}", LANE_PX, evidence, duration, rail + bars)


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
        unit = " s" if time == 0 else ""
        parts.append(f'<line x1="{share:.3f}%" x2="{share:.3f}%" y1="0" y2="4"/>')
        parts.append(f'<text x="{share:.3f}%" y="16" text-anchor="{anchor}">{time:g}{unit}</text>')
    return f'<svg class="axis" height="{AXIS_PX}" aria-hidden="true">{"".join(parts)}</svg>'


def ticks(duration: Seconds) -> list[Seconds]:
    """Round times from 0 to `duration`, eleven at most (more from 55 min on)."""
    step = next((s for s in TICK_STEPS if duration / s < MOST_TICKS), TICK_STEPS[-1])
    return [round(i * step, 1) for i in range(int(duration / step) + 1)]


def clip_svg(
    classes: str, height: int, evidence: Sequence[Span], duration: Seconds, content: str, note_height: int = 0
) -> str:
    """The content on the evidence's columns, under the line that moves as the clip plays; both end above the note."""
    below = height - note_height
    wash = "".join(
        f'<rect class="wash" x="{100 * span.start / duration:.3f}%" width="{100 * span.duration / duration:.3f}%" '
        f'y="0" height="{below if note_height else "100%"}"/>'
        for span in evidence
    )
    head = f'<line class="head" x1="0" x2="0" y1="0" y2="{below}"/>'
    return f'<svg class="{classes}" height="{height}">{wash}{content}{head}</svg>'


# --- scores ----------------------------------------------------------------------------------------------


def dot_panel(dots: Dots) -> str:
    """As SVG under its title."""
    row = 20
    parts: list[str] = []
    y = 0
    for group, rows in dots.groups.items():
        if group or not parts:  # the first row is the grid's, too
            parts.append(f'<text class="group" x="0" y="{y + 14}">{_short(group, 44)}</text>')
            y += row
        if group in dots.marks:
            x = _along(dots.marks[group])
            parts.append(f'<line class="chance" x1="{x}" x2="{x}" y1="{y}" y2="{y + row * len(rows)}"/>')
        parts += [dot_row(dot, y + row * i) for i, dot in enumerate(rows)]
        y += row * len(rows) + 6
    grid = "".join(
        f'<line class="grid" x1="{(x := _along(v))}" x2="{x}" y1="{row}" y2="{y}"/>'
        f'<text x="{x}" y="{y + 14}" text-anchor="middle">{v:g}</text>'
        for v in (0, 0.5, 1)
    )
    label = escape(dots.title)
    svg = (
        f'<svg viewBox="0 0 {DOTS_PX} {y + 20}" role="img" aria-label="{label}">{grid}{"".join(parts)}</svg>'
    )
    return f'<figure class="panel"><figcaption>{label}</figcaption>{svg}</figure>'


def dot_row(dot: Dot, y: float) -> str:
    middle = y + 10
    label = f'<text x="0" y="{middle + 4}">{_short(dot.name, 17)}<title>{escape(dot.name)}</title></text>'
    mean = dot.mean
    if mean.value is None:
        return label
    interval = ""
    if mean.low is not None and mean.high is not None:
        ends = f'x1="{_along(mean.low)}" x2="{_along(mean.high)}"'
        interval = f'<line class="interval" {ends} y1="{middle}" y2="{middle}"/>'
    point = f'<circle cx="{_along(mean.value)}" cy="{middle}" r="4"/>'
    return f'<g class="{dot.tint}">{label}{interval}{point}</g>'


def _along(value: float) -> str:
    return f"{NAMES_PX + value * (DOTS_PX - NAMES_PX - 12):.1f}"


def _short(text: str, n: int) -> str:
    return escape(text if len(text) <= n else text[: n - 1] + "…")


# --- times against times ---------------------------------------------------------------------------------


def scatter_panel(panel: Scatter) -> str:
    """As SVG under its title."""
    size, left, top, bottom = 220, 44, 6, 34
    scale = size / panel.end

    def place(x: float, y: float) -> tuple[float, float]:
        return round(left + scale * x, 1), round(top + size - scale * min(y, panel.end), 1)

    grid = []
    times = ticks(panel.end)
    for time in times[:: 1 + len(times) // 7]:
        x, y = place(time, time)
        grid.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{top}" y2="{top + size}"/>')
        grid.append(f'<line class="grid" x1="{left}" x2="{left + size}" y1="{y}" y2="{y}"/>')
        grid.append(f'<text x="{x}" y="{top + size + 14}" text-anchor="middle">{time:g}</text>')
        grid.append(f'<text x="{left - 5}" y="{y + 4}" text-anchor="end">{time:g}</text>')
    points = []
    for x, y, is_full in zip(panel.x, panel.y, panel.is_full, strict=True):
        across, up = place(x, y)
        circle = f"M{across - 3} {up}a3 3 0 1 0 6 0a3 3 0 1 0-6 0z"
        shape = f"M{across - 3.5} {up + 3}h7l-3.5-6z" if y > panel.end else circle
        points.append(f'<path class="{"full" if is_full else "ring"}" d="{shape}"/>')
    diagonal = f'<line class="chance" x1="{left}" y1="{top + size}" x2="{left + size}" y2="{top}"/>'
    middle = top + size / 2
    turned = f'x="9" y="{middle}" text-anchor="middle" transform="rotate(-90 9 {middle})"'
    names = (
        f'<text x="{left + size}" y="{top + size + 28}" text-anchor="end">{escape(panel.x_label)}</text>'
        f"<text {turned}>{escape(panel.y_label)}</text>"
    )
    title = escape(panel.title)
    label = escape(f"{panel.title}: {panel.y_label} against {panel.x_label}")
    return (
        f'<figure class="panel scatter"><figcaption>{title}</figcaption>'
        f'<svg viewBox="0 0 {left + size + 8} {top + size + bottom}" role="img" aria-label="{label}">'
        f'{"".join(grid)}{diagonal}<g class="{panel.tint}">{"".join(points)}</g>{names}</svg></figure>'
    )


# --- lines -----------------------------------------------------------------------------------------------


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
    ys = [y for line in panel.lines for y in line.y] + ([0.0] if panel.from_zero or panel.is_share else [])
    ys += [end for line in panel.lines for _, *ends in line.intervals for end in ends]
    ys += [1.0] if panel.is_share else []
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
        ends = "".join(f"M{place(x, low)}L{place(x, high)}" for x, low, high in line.intervals)
        paths.append(
            f'<g class="{line.tint}"><title>{escape(line.name)}</title><path class="spread" d="{ends}"/>'
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
