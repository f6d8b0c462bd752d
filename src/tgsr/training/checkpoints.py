"""A run's folder: what was asked (run.json), what came out (metrics.jsonl), where to go on (checkpoint.pt).

A checkpoint holds everything that a step changes; what a step draws at random follows from the seed and
the step's number. So a run that was killed at any moment goes on with the numbers that it would have had.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from tgsr.disk.jsonl import repair_jsonl
from tgsr.disk.run_folder import RunFolder
from tgsr.disk.whole import whole, write_whole
from tgsr.errors import RunError


def save_checkpoint(folder: RunFolder, step: int, state: Mapping[str, Any]) -> None:
    """`state` and the number of steps that are done, atomically: a kill leaves the old or the new one."""
    try:
        with whole(folder.checkpoint) as half:
            torch.save({"step": step, **state}, half)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        raise RunError(
            f"{folder.checkpoint}: could not be written ({error}); the last checkpoint is whole: "
            "free some space and start the same command again"
        ) from error


def load_checkpoint(folder: RunFolder) -> dict[str, Any] | None:
    """The last checkpoint, or None for a fresh run; metrics that were logged after it are dropped.

    Raises RunError for a file that is no checkpoint.
    """
    if not folder.checkpoint.exists():
        _keep_metrics(folder, 0)
        return None
    try:
        state = torch.load(folder.checkpoint, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise RunError(
            f"{folder.checkpoint}: not a whole checkpoint ({error}); delete it to start over"
        ) from error
    _keep_metrics(folder, int(state["step"]))
    return dict(state)


def _keep_metrics(folder: RunFolder, n_steps: int) -> None:
    """Only the rows of the first n_steps: those after them will be logged again."""
    if not folder.metrics.exists():
        return
    repair_jsonl(folder.metrics)
    rows = folder.metrics.read_text().splitlines(keepends=True)
    kept = [row for row in rows if json.loads(row).get("step", 0) <= n_steps]
    if len(kept) != len(rows):
        write_whole(folder.metrics, "".join(kept))
