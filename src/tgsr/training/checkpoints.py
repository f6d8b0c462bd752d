"""A run's folder: what was asked (run.json), what came out (metrics.jsonl), where to go on (checkpoint.pt).

A checkpoint holds everything that a step changes; what a step draws at random follows from the seed and
the step's number. So a run that was killed at any moment goes on with the numbers that it would have had.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from tgsr.disk.jsonl import repair_jsonl, row_of
from tgsr.disk.run_folder import RunFolder
from tgsr.disk.whole import whole, write_whole
from tgsr.errors import RecordError, RunError

DAMAGED = (  # what a reader of a damaged zip file, pickle or tensor may raise
    *(RuntimeError, EOFError, ValueError, OSError, LookupError, TypeError, AttributeError),
    *(zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError),
)


def save_checkpoint(folder: RunFolder, step: int, state: Mapping[str, Any]) -> None:
    """`state` and the number of steps that are done, atomically: a kill leaves the old or the new one.

    The log's rows are on disk before it. RunError where the disk is full.
    """
    try:
        if folder.metrics.exists():
            with folder.metrics.open("rb") as log:
                os.fsync(log.fileno())
        with whole(folder.checkpoint) as half:
            torch.save({"step": step, **state}, half)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        if (interruption := _interruption(error)) is not None:
            raise interruption from None
        raise RunError(
            f"{folder.checkpoint}: could not be written ({error}); the last checkpoint is whole: "
            "free some space and start the same command again"
        ) from error


def _interruption(error: BaseException) -> KeyboardInterrupt | None:
    """Ctrl-C, where a write failed because of it: the writer then tells an error of its own."""
    while not isinstance(error, KeyboardInterrupt):
        if error.__context__ is None:
            return None
        error = error.__context__
    return error


def load_checkpoint(folder: RunFolder, main: bool = True) -> dict[str, Any] | None:
    """The last checkpoint, or None for a fresh run; the `main` process drops metrics that were logged after it.

    Raises RunError for a file that is no checkpoint or in which a single bit was altered: each of its parts has a
    checksum. Metrics that were lost are said on stderr.
    """
    state = None
    if folder.checkpoint.exists():
        try:
            _require_checksums(folder)
            state = torch.load(folder.checkpoint, map_location="cpu", weights_only=True)
            step = int(state["step"])
        except DAMAGED as error:
            raise RunError(
                f"{folder.checkpoint}: not a whole checkpoint ({error}); copy it back from elsewhere, or delete it to "
                "start over"
            ) from error
    if main and state is None:
        _drop_metrics(folder)
    elif main:
        _keep_metrics(folder, step)
    return None if state is None else dict(state)


def _require_checksums(folder: RunFolder) -> None:
    """ValueError for a part whose CRC-32, which torch.save writes and torch.load does not look at, is another one."""
    with zipfile.ZipFile(folder.checkpoint) as parts:
        damaged = parts.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is another one: it was altered on disk")


def say_stopped(folder: RunFolder, step: int) -> None:
    """The word with which a run ends that SIGTERM has stopped."""
    words = f"stopped by SIGTERM after step {step}, which is saved; the same command goes on from there"
    print(f"tgsr: {folder.path}: {words}", file=sys.stderr)


def _drop_metrics(folder: RunFolder) -> None:
    """A run that starts over logs every step again."""
    if folder.metrics.exists():
        n = folder.metrics.read_bytes().count(b"\n")
        print(f"{folder.path}: has no checkpoint; its {n} logged steps are made again", file=sys.stderr)
        folder.metrics.unlink()


def _keep_metrics(folder: RunFolder, n_steps: int) -> None:
    """Only the rows of the first n_steps: those after them will be logged again. Lost and doubled ones are said.

    RunError for a row that cannot be read or has no step.
    """
    if folder.metrics.exists():
        repair_jsonl(folder.metrics)
    rows = folder.metrics.read_bytes().splitlines(keepends=True) if folder.metrics.exists() else []
    steps = [_step_of(folder, line, row) for line, row in enumerate(rows, 1)]
    if any(step > n_steps for step in steps):
        write_whole(
            folder.metrics, b"".join(row for row, step in zip(rows, steps, strict=True) if step <= n_steps)
        )
    times = Counter(steps)
    for steps_said, what in (
        (
            [step for step in range(1, n_steps + 1) if not times[step]],
            "are lost (the file was cut off or replaced); the run goes on",
        ),
        (
            [step for step in range(n_steps + 1) if times[step] > 1],
            "are there several times (two runs wrote here); all are kept",
        ),
    ):
        if steps_said:
            said = ", ".join(map(str, steps_said[:3])) + (" ..." if len(steps_said) > 3 else "")
            print(
                f"{folder.metrics}: the rows of {len(steps_said)} steps ({said}) {what}",
                file=sys.stderr,
            )


def _step_of(folder: RunFolder, line: int, row: bytes) -> int:
    remedy = "take the line out, and the run goes on without it"
    try:
        step = row_of(row).get("step")
    except RecordError as error:
        raise RunError(f"{folder.metrics}:{line}: {error.problem}; {remedy}") from error
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise RunError(
            f'{folder.metrics}:{line}: "step" must be a number of steps, got {step!r:.80}; {remedy}'
        )
    return step
