"""The GRPO update's processor seconds and memory, each side's, against the group's size, the clip's length, the width.

Each point is appended to a JSONL as it is made; a second run measures what is missing there and draws all. Every update
runs in a fork of this process, the sides in turn: its seconds, and its peak of memory above the weights, medians of
--runs. Dotted is the cost model (tgsr.training.cost): its FLOPs at what this machine does in a large product, its
activations in float32.
"""

from __future__ import annotations

import argparse
import json
import os
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
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from one_update import add_setting, setting_of
from sides import BEST_OTHERS, SIDES, Case, Setting, grpo_case, model_under_test, update
from timing import HERE, ROOT, UpdateOf, about, in_child, in_turn, peak_memory

from tgsr.training.cost import activation_bytes, update_flops

matplotlib.use("Agg")
import matplotlib.pyplot as plt

POINTS = {"group": (1, 2, 4, 8, 16, 32), "seconds": (10.0, 30.0, 60.0, 120.0, 300.0), "heads": (3, 9, 18)}
PRODUCT = 1024  # rows and columns of the product that the machine's rate is measured by
POINT = dict[str, Any]


def one_update(case: Case, side: str) -> dict[str, float]:
    start = time.process_time()
    peak = peak_memory(partial(update, case, side))
    return {"seconds": time.process_time() - start, "peak_bytes": peak}


def forked(case: Case, side: str) -> dict[str, float]:
    return in_child(partial(one_update, case, side))


def flops_a_second() -> float:
    """What one thread does in a large product."""
    a = torch.randn(PRODUCT, PRODUCT)
    (seconds,) = in_turn({"product": lambda: a @ a}, 5, time.process_time).values()
    return 2 * PRODUCT**3 / statistics.median(seconds)


def measure(setting: Setting, sides: Sequence[str], runs: int, update_of: UpdateOf) -> POINT:
    """One point: medians of each side, None where a side did not come to its end, and what the cost model says."""
    lalm = model_under_test(setting, "lora")
    case = grpo_case(lalm, setting)
    tiny = grpo_case(lalm, replace(setting, seconds=1.0, group=2, answer=3))
    for side in sides:  # so that what torch allocates once is not counted
        update(tiny, side)
        lalm.model.zero_grad()
    measured: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(runs):
        for side in sides:
            measured[side].append(update_of(case, side))
    counted = {
        "seconds": update_flops(setting.shape, case.of_cost, True, checkpointing=False) / flops_a_second(),
        "peak_bytes": 2 * activation_bytes(setting.shape, case.of_cost, True, checkpointing=False),
    }
    of_side = {
        side: {what: statistics.median(one[what] for one in of) for what in counted} if all(of) else None
        for side, of in measured.items()
    }
    return {"setting": asdict(setting), "runs": runs, "sides": of_side, "counted": counted}


def setting_in(point: POINT) -> Setting:
    """A field that is younger than the point has its default there."""
    return Setting(**point["setting"])


def read(path: Path) -> list[POINT]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


STYLES = {
    "shared": ("ours", "#2166ac", "o-"),
    "prefix grouper": ("Prefix Grouper", "#b2182b", "s-"),
    "kv cache": ("prefix cache with gradients", "#e08214", "^-"),
    "careful": ("whole sequences, with care", "#777777", "d-"),
    "separate": ("our engine without sharing", "#999999", "v-"),
    "usual": ("transformers alone", "#444444", "x-"),
}


def draw_panel(axes: Axes, points: Sequence[POINT], along: str, what: str, unit: float) -> None:
    """`what` ("seconds" or "peak_bytes") of every side, in units, along a field of Setting."""
    for side, (label, colour, style) in STYLES.items():
        known = [
            (point["setting"][along], found[what] / unit)
            for point in points
            if (found := point["sides"].get(side))
        ]
        if known:
            axes.plot(*zip(*known, strict=True), style, color=colour, label=label, markersize=4)
    at = [point["setting"][along] for point in points]
    axes.plot(at, [point["counted"][what] / unit for point in points], ":", color="#2166ac", label="on paper")
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_locator(FixedLocator(at))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(alpha=0.25)


def draw(points: Sequence[POINT], base: Setting, out: Path) -> None:
    """Two rows, time and memory; a column for each field of Setting in POINTS."""
    figure, grid = plt.subplots(2, len(POINTS), figsize=(11, 6), layout="constrained", sharex="col")
    labels = {
        "group": f"answers about a {base.seconds:g}-s clip",
        "seconds": f"seconds of audio, {base.group} answers",
        "heads": f"heads of 64, {base.group} answers, {base.seconds:g} s",
    }
    rows = {"seconds": ("processor seconds of an update", 1.0), "peak_bytes": ("its memory, MiB", 2.0**20)}
    for column, (along, label) in enumerate(labels.items()):
        line = [p for p in points if setting_in(p) == replace(base, **{along: p["setting"][along]})]
        line.sort(key=lambda point: point["setting"][along])
        for axes, (what, (title, unit)) in zip(grid[:, column], rows.items(), strict=True):
            if line:
                draw_panel(axes, line, along, what, unit)
            if not column:
                axes.set_ylabel(title)
        grid[1, column].set_xlabel(label)
    grid[0, 0].legend(fontsize=8, frameon=False)
    figure.savefig(out, dpi=130)


def main(argv: Sequence[str] | None = None, update_of: UpdateOf = forked) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_setting(parser, layers=2)
    parser.add_argument("--runs", type=int, default=3, help="of each side (%(default)s)")
    parser.add_argument(
        "--sides",
        nargs="+",
        choices=tuple(SIDES),
        default=("shared", *BEST_OTHERS[:2]),
        help="%(default)s; the others take much longer",
    )
    parser.add_argument("--points", type=Path, default=HERE / "curves.jsonl", help="the points (%(default)s)")
    parser.add_argument(
        "--plot", type=Path, default=ROOT / "docs" / "speed.png", help="the figure (%(default)s)"
    )
    parser.add_argument("--draw-only", action="store_true", help="measure nothing")
    parser.add_argument("--quick", action="store_true", help="tiny sizes into a temporary folder: a test")
    args = parser.parse_args(argv)
    base, points_path, plot, runs = setting_of(args), args.points, args.plot, args.runs
    settings = [replace(base, **{along: at}) for along, values in POINTS.items() for at in values]
    if args.quick:
        folder = Path(tempfile.mkdtemp())
        points_path, plot, runs = folder / "curves.jsonl", folder / "speed.png", 1
        base = Setting(layers=1, seconds=2.0, group=2, answer=10, heads=3, window=2)
        settings = [base]
    points = read(points_path)
    for setting in settings:
        if args.draw_only or any(setting_in(point) == setting for point in points):
            continue
        load_before = os.getloadavg()[0]
        point = measure(setting, args.sides, runs, update_of)
        points.append({**point, "load_before": load_before, **about()})
        with points_path.open("a") as file:
            file.write(json.dumps(points[-1]) + "\n")
        told = {
            side: f"{found['seconds']:.2f} s, {found['peak_bytes'] / 2**20:.0f} MiB" if found else "left out"
            for side, found in point["sides"].items()
        }
        print(f"group {setting.group}, {setting.seconds:g} s, {setting.heads} heads: {told}", flush=True)
    draw(points, base, plot)
    print(plot)


if __name__ == "__main__":
    main()
