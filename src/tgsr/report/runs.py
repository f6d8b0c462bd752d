"""A page from run folders: the prediction files and learning curves that lie in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tgsr.report.page import Curve, read_curves, write_page

CURVES = ("loss", "reward", "accuracy", "k", "kl")


def prediction_files(runs: Sequence[Path]) -> list[Path]:
    """The files among `runs`, and predictions*.jsonl in and below the folders; FileNotFoundError for none."""
    found: list[Path] = []
    for run in runs:
        found += [run] if run.is_file() else sorted(run.rglob("predictions*.jsonl"))
    found = [path for path in found if not path.name.endswith(".errors.jsonl")]
    if not found:
        raise FileNotFoundError(
            f"{', '.join(map(str, runs))}: no prediction file (predictions*.jsonl); make one with `tgsr predict`"
        )
    return found


def report(runs: Sequence[Path], out: Path, *, title: str, n_items: int = 8, seed: int = 0) -> Path:
    """Writes the page and returns its path."""
    curves: list[Curve] = []
    for run in runs:
        logs = sorted(run.rglob("metrics.jsonl")) if run.is_dir() else []
        for log in logs:
            curves += [
                Curve(f"{log.parent.name}: {curve.name}", curve.x_label, curve.y_label, curve.x, curve.y)
                for curve in read_curves(log, CURVES)
            ]
    write_page(out, prediction_files(runs), curves, title=title, n_items=n_items, seed=seed)
    return out
