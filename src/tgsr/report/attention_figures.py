"""Pictures of `tgsr attend`: curves by layer, lines by query, and single responses token by token over the clip.

Source: figures 3 to 7. Every picture says in its title what its numbers are means over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter

from tgsr.audio import SAMPLE_RATE, Samples, load, peaks
from tgsr.disk.whole import whole
from tgsr.engine.block_attention import AUDIO, BLOCKS
from tgsr.evaluation.attention.kept import read_tokens, tokens_file
from tgsr.evaluation.attention.look import NEAR, PAPER_QUERIES, Looked, Tokens
from tgsr.evaluation.attention.metrics import Attention
from tgsr.evaluation.attention.scores import summarise
from tgsr.evaluation.attention.table import ROWS
from tgsr.records import Question, resolve_audio
from tgsr.statistics.pictures import MODEL_COLOURS, literal, one_line, told_apart
from tgsr.timeline import Seconds

BLOCK_COLOURS = ("#c9c3b5", "#bb5566", "#6d93b8", "#e2c66d")
CITED, EVIDENCE = "#004488", "#24292f"
WARMTH = LinearSegmentedColormap.from_list("warmth", ("#ffffff", "#f3d3c7", "#d9705f", "#8e1f36", "#3b0a1c"))
POINTED = {
    ("evidence", "reasoning"): "cited interval: reasoning",
    ("evidence", "times"): "cited interval: its own times",
    ("ends", "start"): f"{NEAR:g} s around a start being written",
    ("ends", "end"): f"{NEAR:g} s around an end being written",
    ("reference", "reasoning"): "reference interval: reasoning",
    ("reference", "times"): "reference interval: times",
}
CROSS = "the audio is heard by cross-attention"
MOST_TOKENS = 80  # rows of a heat map that can be read
DPI = 110
WAVE_POINTS = 1200


# --- curves by layer ---------------------------------------------------------------------------------------


def draw(path: Path, models: Mapping[str, Attention]) -> None:
    """Four rows of panels by layer.

    The audio's share in each phase, a line a model (figure 4; figure 5 in sums), where any has one; of the audio's
    attention, cited frames against chance; all four blocks of each model while it writes times, or all tokens
    (figure 7); and each block's share for one of its positions (figure 3). Models are `told_apart`.
    """
    models = dict(zip(told_apart(list(models)), models.values(), strict=True))
    pointed = {
        (which, phase): label
        for (which, phase), label in POINTED.items()
        if any(phase in getattr(attention, which) for attention in models.values())
    }
    has_shares = not all(attention.cross_attends for attention in models.values())
    n_rows = 2 + has_shares + bool(pointed)
    figure = Figure(figsize=(14, 2.9 * n_rows), layout="constrained")
    parts = iter(figure.subfigures(n_rows, 1, squeeze=False)[:, 0])
    if has_shares:
        _audio_shares(next(parts), models)
    if pointed:
        title = "Attention to audio inside an interval, times what it would be by chance (1: no preference)"
        panels = _panels(next(parts), pointed.values(), title)
        for panel, (which, phase) in zip(panels, pointed, strict=True):
            evidence = {name: getattr(attention, which).get(phase) for name, attention in models.items()}
            _lines(panel, {name: shares and shares.ratio_by_layer for name, shares in evidence.items()})
            panel.axhline(1, color="#8b949e", linewidth=0.8, linestyle="--", zorder=0)
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel("times chance", fontsize=8)
    _stacks(next(parts), models)
    _each_position(next(parts), models)
    with whole(path) as half:
        figure.savefig(half, dpi=DPI)


def _audio_shares(part: Any, models: Mapping[str, Attention]) -> None:
    phases = {
        phase: label.lower() if phase != "prefill" else "question, while it is read"
        for phase, label in ROWS.items()
        if any(phase in attention.by_layer for attention in models.values())
    }
    panels = _panels(part, phases.values(), "Share of attention that falls on the audio")
    for panel, phase in zip(panels, phases, strict=True):
        _lines(panel, {name: a.by_layer.get(phase, {}).get("audio") for name, a in models.items()})
    panels[0].set_ylim(bottom=0)  # of all panels, which share it: only now that all lines are there
    if any(attention.cross_attends for attention in models.values()):
        panels[0].plot([], [], " ", label=f"not defined where {CROSS}")
    handles, labels = panels[0].get_legend_handles_labels()
    part.legend(handles, labels, fontsize=8, frameon=False, loc="outside lower center", ncols=7)
    panels[0].set_ylabel("share of attention", fontsize=8)


def _panels(part: Any, names: Collection[str], title: str) -> Any:
    """Panels by layer side by side, one a name, under a common title."""
    part.suptitle(title, fontsize=10, x=0.008, ha="left", fontweight="bold")
    panels = part.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for panel, name in zip(panels, names, strict=True):
        panel.set_title(name, fontsize=9)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel("layer", fontsize=8)
    return panels


def _lines(panel: Any, curves: Mapping[str, Sequence[float] | None]) -> None:
    for index, (name, curve) in enumerate(curves.items()):
        turn, colour = divmod(index, len(MODEL_COLOURS))
        if curve:
            style = ("-", "--", ":")[turn % 3]
            panel.plot(curve, style, color=MODEL_COLOURS[colour], label=name, marker=".", linewidth=1.4)


def _stacks(part: Any, models: Mapping[str, Attention]) -> None:
    phase = "times" if all("times" in attention.by_layer for attention in models.values()) else "all"
    what = "while times are written" if phase == "times" else "all tokens"
    panels = _panels(part, models, f"All blocks, summed: {what}")
    for panel, attention in zip(panels, models.values(), strict=True):
        shares = attention.by_layer[phase]
        colours = [colour for block, colour in zip(BLOCKS, BLOCK_COLOURS, strict=True) if block in shares]
        n_layers = len(shares["system"])
        panel.stackplot(range(n_layers), shares.values(), labels=shares.keys(), colors=colours)
        panel.set_ylim(0, 1)
        panel.set_xlim(0, max(1, n_layers - 1))
        if attention.cross_attends:
            panel.set_xlabel(f"layer (self-attention; {CROSS})", fontsize=8)
    most = max(panels, key=lambda panel: len(panel.get_legend_handles_labels()[1]))
    _legend_of_blocks(most, panels[-1], 8)


def _legend_of_blocks(drawn: Any, beside: Any, size: int) -> None:
    """The blocks' names to the right of a panel, to be read from the top, as the blocks lie."""
    handles, labels = drawn.get_legend_handles_labels()
    place = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    beside.legend(handles[::-1], labels[::-1], fontsize=size, frameon=False, **place)


def _each_position(part: Any, models: Mapping[str, Attention]) -> None:
    title = "The same for one position of each block, all tokens (log scale): a block's share over its tokens"
    panels = _panels(part, models, title)
    for panel, attention in zip(panels, models.values(), strict=True):
        for block, colour in zip(BLOCKS, BLOCK_COLOURS, strict=True):
            each = attention.by_layer_per_token["all"].get(block, [])
            if any(each):
                panel.plot(each, color=colour, label=block, marker=".", linewidth=1.6)
        panel.set_yscale("log")
    panels[-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def draw_queries(path: Path, models: Mapping[str, Mapping[str, Attention]]) -> None:
    """Figures 3 and 5: for each model and block, a line a query; per position above, in sums below.

    models[name][query]. Solid: while the response is written; dashed: while the question is read.
    """
    figure = Figure(figsize=(13, 4.6 * len(models)), layout="constrained")
    parts = figure.subfigures(2 * len(models), 1, squeeze=False)[:, 0]
    for normalised, summed, (name, queries) in zip(parts[::2], parts[1::2], models.items(), strict=True):
        for part, field, what in (
            (normalised, "by_layer_per_token", "for one position of a block (figure 3, log scale)"),
            (summed, "by_layer", "sum over a block (figure 5)"),
        ):
            panels = _panels(part, BLOCKS, f"{name}: {what}")
            for panel, block in zip(panels, BLOCKS, strict=True):
                for (query, attention), colour in zip(queries.items(), MODEL_COLOURS, strict=False):
                    for phase, style in (("all", "-"), ("prefill", "--")):
                        share = getattr(attention, field)[phase].get(block, [])
                        if any(share):
                            label = query if phase == "all" else None
                            panel.plot(share, style, color=colour, label=label, marker=".", linewidth=1.3)
            if field == "by_layer_per_token":
                panels[0].set_yscale("log")
                panels[0].yaxis.set_minor_formatter(NullFormatter())
            else:
                panels[0].set_ylim(bottom=0)
        panels = normalised.get_axes()
        panels[0].legend(fontsize=7, frameon=False)
        styles = [
            Line2D([], [], linestyle="-", color=EVIDENCE, label="while writing"),
            Line2D([], [], linestyle="--", color=EVIDENCE, label="while reading the question"),
        ]
        panels[-1].legend(handles=styles, fontsize=7, frameon=False)
    with whole(path) as half:
        figure.savefig(half, dpi=DPI)


# --- single responses --------------------------------------------------------------------------------------


def _plot_wave(axes: Any, samples: Samples) -> None:
    """The waveform's outline in grey, over the seconds of the clip."""
    times = (np.arange(WAVE_POINTS) + 0.5) * len(samples) / SAMPLE_RATE / WAVE_POINTS
    lowest, highest = np.array(peaks(samples, WAVE_POINTS)).T
    axes.fill_between(times, lowest, highest, color="#8b949e", linewidth=0.4)
    axes.set_yticks([])


def draw_heat(
    path: Path, samples: Samples, items: Sequence[tuple[Looked, Tokens]], layers: Mapping[str, int]
) -> None:
    """Of each model's response to one question: each token's attention over the clip, the waveform above.

    Rows are tokens, in order, dark where more of a token's whole attention falls on a second of audio; one scale for
    all models. Boxes: a cited interval, at the tokens that write it. Grey, dashed: the question's evidence.
    """
    duration = len(samples) / SAMPLE_RATE
    shown = [(item, tokens, _rows(tokens)) for item, tokens in items]
    most = max(len(rows) for _, _, rows in shown)
    heights = (1.1, 0.165 * most)
    figure = Figure(figsize=(1.2 + 6.2 * len(shown), sum(heights) + 1.0), layout="constrained")
    panels = figure.subplots(2, len(shown), squeeze=False, sharex=True, height_ratios=heights)
    heats = [tokens.column_LTC[layers[item.model]][rows] / tokens.seconds for item, tokens, rows in shown]
    brightest = float(np.quantile(np.concatenate([heat.ravel() for heat in heats]), 0.999))
    norm = PowerNorm(0.5, 0, max(brightest, 1e-9))
    for column, ((item, tokens, rows), heat) in enumerate(zip(shown, heats, strict=True)):
        wave, map_of = panels[:, column]
        _plot_wave(wave, samples)
        wave.spines[:].set_visible(False)
        where = "; cross-attention" if np.isnan(tokens.share_LTK[..., AUDIO]).any() else ""
        wave.set_title(f"{item.model}, layer {layers[item.model]}{where}", fontsize=10, fontweight="bold")
        edges = np.append(np.arange(heat.shape[1]) * tokens.seconds, duration)
        edges = np.maximum.accumulate(np.minimum(edges, duration))
        image = map_of.pcolormesh(edges, np.arange(len(rows) + 1), heat, cmap=WARMTH, norm=norm)
        for span in item.question.evidence:
            wave.axvspan(span.start, span.end, color=EVIDENCE, alpha=0.12, linewidth=0)
            for edge in (span.start, span.end):  # lines only: grey would change the map's colours
                map_of.axvline(edge, color=EVIDENCE, linewidth=0.9, linestyle=(0, (4, 3)))
        _boxes(map_of, tokens, rows, duration)
        map_of.set_ylim(len(rows), 0)
        map_of.set_xlim(0, duration)
        map_of.set_yticks(np.arange(len(rows)) + 0.5, [_label(tokens.texts[t]) for t in rows], fontsize=6.5)
        for tick, t in zip(map_of.get_yticklabels(), rows, strict=True):
            if tokens.is_time[t]:
                tick.set_color(CITED)
                tick.set_fontweight("bold")
        map_of.tick_params(length=0)
        map_of.tick_params(axis="x", labelsize=8)
        map_of.set_xlabel("seconds of the clip", fontsize=8)
        map_of.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=panels[1], shrink=min(1.0, 2.4 / heights[1]), pad=0.01, aspect=18)
    bar.set_label("share of a token's attention, per second of audio", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    key = "box: a cited interval, at the tokens that write it; grey and dashed: reference evidence"
    figure.suptitle(f"{literal(one_line(shown[0][0].question.question, 110))}\n{key}", fontsize=9)
    with whole(path) as half:
        figure.savefig(half, dpi=DPI)


def _rows(tokens: Tokens) -> list[int]:
    """The tokens that are shown: those with text; of a long response, as many as can be read around its times."""
    rows = [t for t, text in enumerate(tokens.texts) if text]
    if len(rows) <= MOST_TOKENS:
        return rows
    first = next((index for index, t in enumerate(rows) if tokens.is_time[t]), 0)
    start = min(max(0, first - MOST_TOKENS // 4), len(rows) - MOST_TOKENS)
    return rows[start : start + MOST_TOKENS]


def _boxes(panel: Any, tokens: Tokens, rows: Sequence[int], duration: Seconds) -> None:
    """Each run of tokens that write one interval, boxed over it; what lies past the clip's end has no box."""
    for (start, end), first, height in _runs(rows, lambda t: tuple(tokens.span_T2[t])):
        if start < duration:  # NaN is below nothing
            _box(panel, (start, first), min(end, duration) - start, height, CITED)


def _runs(rows: Sequence[int], key: Callable[[int], Any]) -> Iterator[tuple[Any, int, int]]:
    """Each run of rows with the same key: the key, the place of its first row, its length."""
    first = 0
    for value, run in groupby(rows, key):
        length = len(list(run))
        yield value, first, length
        first += length


def _box(panel: Any, corner: tuple[float, float], width: float, height: float, colour: str) -> None:
    panel.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=1.4))


def draw_tokens(path: Path, items: Sequence[tuple[Looked, Tokens]], layers: Mapping[str, int]) -> None:
    """Figure 6: the blocks' shares token by token at one layer, a panel a model; tokens of times in a red box."""
    most = max(len(_rows(tokens)) for _, tokens in items)
    figure = Figure(figsize=(max(7.0, 1.6 + 0.17 * most), 2.5 * len(items) + 0.5), layout="constrained")
    panels = figure.subplots(len(items), 1, squeeze=False)[:, 0]
    for panel, (item, tokens) in zip(panels, items, strict=True):
        rows = _rows(tokens)
        share_TK = tokens.share_LTK[layers[item.model]][rows]
        bottom = np.zeros(len(rows))
        crosses = bool(np.isnan(share_TK[:, AUDIO]).any())
        for k in (0, 2, 3) if crosses else (AUDIO, 0, 2, 3):  # the audio at the bottom, to be compared
            look = {"bottom": bottom, "color": BLOCK_COLOURS[k], "label": BLOCKS[k]}
            panel.bar(range(len(rows)), share_TK[:, k], 1.0, **look)
            bottom = bottom + share_TK[:, k]
        panel.set_xticks(range(len(rows)), [_label(tokens.texts[t]) for t in rows], rotation=90, fontsize=6.5)
        for is_time, first, length in _runs(rows, tokens.is_time.__getitem__):
            if is_time:
                for label in panel.get_xticklabels()[first : first + length]:
                    label.set_color("#b00020")
                _box(panel, (first - 0.5, 0), length, 1, "#b00020")
        panel.set_xlim(-0.6, most - 0.4)
        panel.set_ylim(0, 1)
        panel.tick_params(length=0)
        panel.tick_params(axis="y", labelsize=7)
        panel.spines[:].set_visible(False)
        where = f"; {CROSS}" if crosses else ""
        panel.set_title(f"{item.model}, layer {layers[item.model]}{where}", fontsize=9, loc="left")
        panel.set_ylabel("share of self-attention" if crosses else "share of attention", fontsize=7)
    _legend_of_blocks(panels[0], panels[0], 7)
    figure.suptitle(literal(one_line(items[0][0].question.question, 110)), fontsize=9)
    with whole(path) as half:
        figure.savefig(half, dpi=DPI)


def _label(text: str) -> str:
    """A token as it can be read: its blanks as dots, its line breaks as signs; no dollar sign starts a formula."""
    plain = text.replace("\n", "⏎")
    if plain.strip() != plain or not plain:
        plain = plain.replace(" ", "·")
    return plain.replace("$", r"\$")[:24]


# --- all of them -------------------------------------------------------------------------------------------


def draw_all(
    out: Path,
    questions: Path,
    models: Mapping[str, Attention],
    looked: Mapping[str, Sequence[Looked]],
    layers: Mapping[str, int],
    shown: Sequence[Question],
    seed: int,
) -> list[Path]:
    """attention.png, queries.png where section 5.1's queries were asked, and heat-N.png and tokens-N.png of `shown`.

    `questions` is the file whose folder relative audio paths start from. A question that no model has answered has
    no picture.
    """
    paths = [out / "attention.png"]
    draw(paths[0], models)
    if all(item.question.question in PAPER_QUERIES for items in looked.values() for item in items):
        by_query: dict[str, dict[str, Attention]] = {name: {} for name in looked}
        for name, items in looked.items():
            for query in PAPER_QUERIES:
                if of_query := [item for item in items if item.question.question == query]:
                    by_query[name][query] = summarise(of_query, 0, seed)
        paths.append(out / "queries.png")
        draw_queries(paths[-1], by_query)
    for number, question in enumerate(shown, 1):
        about = [item for of_model in looked.values() for item in of_model if item.question.id == question.id]
        files = [(item, tokens_file(out, item.model, question)) for item in about]
        if drawn := [(item, read_tokens(file)) for item, file in files if file.exists()]:
            samples = load(resolve_audio(question, questions))
            paths += [out / f"heat-{number}.png", out / f"tokens-{number}.png"]
            draw_heat(paths[-2], samples, drawn, layers)
            draw_tokens(paths[-1], drawn, layers)
    return paths
