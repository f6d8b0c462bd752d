"""The GRPO update's time and memory, usual way over ours, against the group's size and the clip's length.

Each point is appended to a JSONL as it is made; a second run measures what is missing there and draws all.
Memory is each side's peak above the weights in a process of its own. Where that run took less than 20 s the
time is the median of three more runs in this process, the sides in turn; else it is that one run's. A side
that would not fit into memory is left out, and the point says so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from one_update import add_setting, setting_of
from sides import DECODER_LAYERS, ENCODER_LAYERS, Case, Setting, grpo_case, model_under_test, update
from timing import HERE, ROOT, UpdateOf, about, in_fresh_process, in_turn

from tgsr.training.cost import ClipTokens, activation_bytes, update_flops

matplotlib.use("Agg")
import matplotlib.pyplot as plt

GROUPS = (1, 2, 4, 8, 16, 32)
SECONDS = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
SIDES = ("shared", "usual", "separate")
LONG = 20.0  # seconds of a run above which one run is enough
POINT = dict[str, Any]


def clip_of(setting: Setting) -> ClipTokens:
    """The setting's work as training/cost.py counts it."""
    branches = (setting.answer + 1,) * setting.group
    return ClipTokens(
        round(25 * setting.seconds) + setting.text - 1, branches, (setting.answer,) * setting.group
    )


def expected_bytes(setting: Setting, side: str) -> float:
    """What the update will need, roughly: what paper says in float32, times what 30-s clips were seen to need.

    The usual way's mask of every pair of positions, bool and float32, comes on top.
    """
    clip = clip_of(setting)
    kept = 2 * activation_bytes(setting.shape, clip, side == "shared", checkpointing=False)
    row = clip.prefix + setting.answer * 4 / 3
    mask = 5.0 * setting.group * row**2 if side == "usual" else 0.0
    return kept * {"shared": 1.7, "separate": 2.0, "usual": 2.4}[side] + mask


@torch.no_grad()
def encoder_seconds(case: Case) -> float:
    """The encoder's part of the usual way's update: a group's copies of the clip."""
    mels_WMF, mel_mask_WF = case.mels
    n = len(case.branches)
    start = time.perf_counter()
    case.lalm.inner.get_audio_features(mels_WMF.repeat(n, 1, 1), mel_mask_WF.repeat(n, 1))
    return time.perf_counter() - start


def measure(setting: Setting, runs: int, memory_gib: float, update_of: UpdateOf) -> POINT:
    """One point: each side's peak in bytes and median seconds, or why it was left out.

    With few layers the one encoder layer that is left is more than the encoder's share (sides.Setting):
    what is too much of its time is taken off the usual way's.
    """
    sides: dict[str, dict[str, Any]] = {}
    for side in SIDES:
        needed = expected_bytes(setting, side) / 2**30
        if needed > memory_gib:
            sides[side] = {"left_out": f"would need about {needed:.0f} GiB of {memory_gib:g}"}
            continue
        result = update_of(setting, side, limit_gib=memory_gib + 2)
        sides[side] = {"left_out": result["failed"]} if "failed" in result else {**result, "runs": 1}
    case = grpo_case(model_under_test(setting, "lora"), setting)
    short = [side for side, m in sides.items() if m.get("seconds", LONG) < LONG]
    for side, seconds in in_turn({side: partial(update, case, side) for side in short}, runs).items():
        sides[side] |= {"seconds": statistics.median(seconds), "runs": runs}
    if "seconds" in sides["usual"]:
        encoder = statistics.median(encoder_seconds(case) for _ in range(3 if "usual" in short else 1))
        too_much = 1 - ENCODER_LAYERS * setting.layers / DECODER_LAYERS / setting.encoder_layers
        sides["usual"] |= {
            "measured_seconds": sides["usual"]["seconds"],
            "encoder_seconds": encoder,
            "seconds": sides["usual"]["seconds"] - too_much * encoder,
        }
    return {"setting": asdict(setting), "sides": sides}


def read(path: Path) -> list[POINT]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ratio(point: POINT, side: str, what: str) -> float | None:
    """The side's seconds or bytes over ours; None where one was left out."""
    of_side, ours = point["sides"][side].get(what), point["sides"]["shared"].get(what)
    return of_side / ours if of_side and ours else None


def theory(setting: Setting, what: str) -> float:
    """Separate over shared by the counts of training/cost.py: no encoder, no mask."""
    count = update_flops if what == "seconds" else activation_bytes
    separate, shared = (count(setting.shape, clip_of(setting), s, checkpointing=False) for s in (False, True))
    return separate / shared


LINES = {
    "usual": ("usual way: padded batch of whole sequences", "#b2182b", "o-"),
    "separate": ("our engine without sharing", "#2166ac", "s-"),
}


def draw_panel(axes: Axes, points: Sequence[POINT], along: str, what: str) -> None:
    """Ratios of `what` ("seconds" or "peak_bytes") along a field of Setting."""
    at = [point["setting"][along] for point in points]
    for side, (label, colour, style) in LINES.items():
        ratios = [(x, ratio(point, side, what)) for x, point in zip(at, points, strict=True)]
        known = [(x, number) for x, number in ratios if number is not None]
        axes.plot(*zip(*known, strict=True), style, color=colour, label=label, markersize=5)
        if side != "usual":
            continue
        for x, y in known:
            axes.annotate(f"{y:.1f}", (x, y), (0, 7), textcoords="offset points", ha="center", fontsize=9)
        if missing := [x for x, number in ratios if number is None]:
            axes.text(missing[-1], 1.06, "usual way: not enough memory", color=colour, ha="right", fontsize=8)
            for x in missing:
                axes.plot(x, 1, "x", color=colour)
    counted = [theory(Setting(**point["setting"]), what) for point in points]
    axes.plot(at, counted, ":", color="#2166ac", label="sharing, counted on paper")
    axes.set(xscale="log", yscale="log")
    axes.axhline(1, color="0.7", linewidth=0.8, zorder=0)
    axes.xaxis.set_major_locator(FixedLocator(at))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.25)


def draw(points: Sequence[POINT], base: Setting, out: Path) -> None:
    """Two rows, time and memory; two columns, against the group's size and against seconds of audio."""
    figure, grid = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained", sharex="col", sharey="row")
    columns = {
        "group": f"answers to one question about a {base.seconds:g}-s clip",
        "seconds": f"seconds of audio, {base.group} answers",
    }
    rows = {
        "seconds": "time of an update,\nmultiples of ours",
        "peak_bytes": "its memory,\nmultiples of ours",
    }
    for column, (along, label) in enumerate(columns.items()):
        line = [p for p in points if p["setting"] == {**asdict(base), along: p["setting"][along]}]
        line.sort(key=lambda point: point["setting"][along])
        for axes, what in zip(grid[:, column], rows, strict=True):
            if line:
                draw_panel(axes, line, along, what)
        grid[1, column].set_xlabel(label)
    for axes, label in zip(grid[:, 0], rows.values(), strict=True):
        axes.set_ylabel(label)
        axes.yaxis.set_major_locator(FixedLocator([1, 2, 3, 5, 7, 10, 15, 20, 30, 50]))
        axes.yaxis.set_minor_locator(NullLocator())
    for of_row in grid:
        of_row[0].set_ylim(0.9, 1.25 * max(axes.dataLim.y1 for axes in of_row))
    for axes in grid.flat:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    grid[1, 0].legend(*grid[0, 0].get_legend_handles_labels(), fontsize=9, loc="lower right", frameon=False)
    figure.savefig(out, dpi=130)


def main(argv: Sequence[str] | None = None, update_of: UpdateOf = in_fresh_process) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_setting(parser, layers=2)
    parser.add_argument(
        "--runs", type=int, default=3, help="runs of a side that takes less than 20 s (%(default)s)"
    )
    parser.add_argument("--memory-gib", type=float, default=20, help="what a side may take (%(default)s)")
    parser.add_argument("--points", type=Path, default=HERE / "curves.jsonl", help="the points (%(default)s)")
    parser.add_argument(
        "--plot", type=Path, default=ROOT / "docs" / "speed.png", help="the figure (%(default)s)"
    )
    parser.add_argument("--draw-only", action="store_true", help="measure nothing")
    parser.add_argument("--quick", action="store_true", help="tiny sizes into a temporary folder: a test")
    args = parser.parse_args(argv)
    base, points_path, plot, runs = setting_of(args), args.points, args.plot, args.runs
    settings = [replace(base, group=g) for g in GROUPS] + [replace(base, seconds=s) for s in SECONDS]
    if args.quick:
        folder = Path(tempfile.mkdtemp())
        points_path, plot, runs = folder / "curves.jsonl", folder / "speed.png", 1
        base = Setting(layers=1, seconds=2.0, group=2, answer=10)
        settings = [base]
    points = read(points_path)
    for setting in settings:
        if args.draw_only or any(point["setting"] == asdict(setting) for point in points):
            continue
        point = measure(setting, runs, args.memory_gib, update_of)
        points.append({**point, **about()})
        with points_path.open("a") as file:
            file.write(json.dumps(points[-1]) + "\n")
        told = {
            side: m.get("left_out") or f"{m['seconds']:.2f} s, {m['peak_bytes'] / 2**20:.0f} MiB"
            for side, m in point["sides"].items()
        }
        print(f"group {setting.group}, {setting.seconds:g} s of audio: {told}", flush=True)
    draw(points, base, plot)
    print(plot)


if __name__ == "__main__":
    main()
