"""A run's folder: what was asked (run.json), what came out (metrics.jsonl), where to go on (checkpoint-STEP.pt).

A checkpoint holds everything that a step changes; what a step draws at random follows from the seed and
the step's number. So a run that was killed at any moment goes on with the numbers that it would have had.
Each checkpoint is a file of its own that knows which one is the best so far: there is no second file to agree with.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tgsr.disk.jsonl import repair_jsonl, row_of
from tgsr.disk.run_folder import RunFolder
from tgsr.disk.whole import whole, write_whole
from tgsr.errors import RecordError, RunError, Stopped
from tgsr.training.stop import Stop

DAMAGED = (  # what a reader of a damaged zip file, pickle or tensor may raise
    *(RuntimeError, EOFError, ValueError, OSError, LookupError, TypeError, AttributeError),
    *(zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError),
)


@dataclass(frozen=True, slots=True)
class Best:
    """The step whose checkpoint is kept because a measure was best there, and the measure's value."""

    step: int
    measure: str
    value: float

    def __str__(self) -> str:
        return f"the best by {self.measure} ({self.value:.3f})"

    @staticmethod
    def of(state: Mapping[str, Any]) -> Best | None:
        """The best step that a checkpoint knows; None where nothing was measured."""
        return None if state.get("best") is None else Best(**state["best"])


def save_checkpoint(folder: RunFolder, step: int, state: Mapping[str, Any], keep_last: int = 1) -> None:
    """`state` and the number of steps that are done, atomically: a kill leaves the old ones or the new one too.

    The log's rows are on disk before it; after it all but the `keep_last` newest and the best are removed.
    RunError where the disk is full.
    """
    path = folder.checkpoint(step)
    try:
        if folder.metrics.exists():
            with folder.metrics.open("rb") as log:
                os.fsync(log.fileno())
        # Python's own file: where torch opens one, nobody learns why it could not be written.
        with whole(path) as half, half.open("wb") as file:
            torch.save({"step": step, **state}, file)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        causes = _causes(error)
        for cause in causes:
            if isinstance(cause, KeyboardInterrupt):
                raise cause from None
        reason = next(
            (cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), error
        )
        raise RunError(
            f"{path}: could not be written ({reason}); the last checkpoint is whole: "
            "free some space and start the same command again; --keep-last 1 needs least"
        ) from error
    remove_old(folder, keep_last, Best.of(state))


def remove_old(folder: RunFolder, keep_last: int, best: Best | None) -> None:
    """Removes all checkpoints but the `keep_last` newest and the best one."""
    kept = kept_checkpoints(folder)
    for step in list(kept)[:-keep_last]:
        if best is None or step != best.step:
            kept[step].unlink(missing_ok=True)


def kept_checkpoints(folder: RunFolder) -> dict[int, Path]:
    """The checkpoints that there are by their steps, in order; one of an earlier version is among them."""
    kept = folder.checkpoints()
    if folder.checkpoint_of_before.exists():
        kept.setdefault(
            int(read_checkpoint(folder.checkpoint_of_before)["step"]), folder.checkpoint_of_before
        )
    return dict(sorted(kept.items()))


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and those in whose wake it came, the first one first: a full disk, Ctrl-C, of which writers only say
    that something is not as it should be.
    """
    causes: list[BaseException] = []
    while error is not None:
        causes.insert(0, error)
        error = error.__context__
    return causes


def load_checkpoint(folder: RunFolder, main: bool = True) -> dict[str, Any] | None:
    """The last checkpoint, or None for a fresh run; the `main` process drops metrics that were logged after it.

    Raises RunError as `read_checkpoint` does. Metrics that were lost are said on stderr.
    """
    kept = kept_checkpoints(folder)
    if not kept:
        if main:
            _drop_metrics(folder)
        return None
    state = read_checkpoint(list(kept.values())[-1])
    if main:
        _keep_metrics(folder, int(state["step"]), bool(state.get("unwatched", False)))
    return state


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU.

    RunError for a file that is no checkpoint or in which a single bit was altered: each of its parts has a checksum,
    which torch.save writes and torch.load does not look at. FileNotFoundError where it is gone; once it is open, the
    run that wrote it may remove it.
    """
    with path.open("rb") as file:
        try:
            damaged = zipfile.ZipFile(file).testzip()
            if damaged is not None:
                raise ValueError(f"the checksum of {damaged} is another one: it was altered on disk")
            file.seek(0)
            state = dict(torch.load(file, map_location="cpu", weights_only=True))
            state["step"] = int(state["step"])
        except DAMAGED as error:
            others = [step for step, other in RunFolder(path.parent).checkpoints().items() if other != path]
            raise RunError(
                f"{path}: not a whole checkpoint ({error}); copy it back from elsewhere, or delete it to "
                + (f"go on from step {max(others)}" if others else "start over")
            ) from error
    return state


def say_stopped(folder: RunFolder, step: int) -> None:
    """The word with which a run ends that SIGTERM has stopped."""
    words = f"stopped by SIGTERM after step {step}, which is saved; the same command goes on from there"
    print(f"tgsr: {folder.path}: {words}", file=sys.stderr)


def keep_or_stop(
    folder: RunFolder,
    stop: Stop,
    n_done: int,
    n_steps: int,
    every: int,
    state: Callable[[], Mapping[str, Any]],
) -> None:
    """Ends a step of a loop in one process: its checkpoint, where one is due, at the end, and where SIGTERM has asked.

    Raises Stopped where that was before the end.
    """
    stops = stop.asked and n_done < n_steps
    if stops or n_done == n_steps or n_done % every == 0:
        save_checkpoint(folder, n_done, state())
    if stops:
        say_stopped(folder, n_done)
        raise Stopped(is_told=True)


def _drop_metrics(folder: RunFolder) -> None:
    """A run that starts over logs every step again."""
    if folder.metrics.exists():
        n = folder.metrics.read_bytes().count(b"\n")
        print(f"{folder.path}: has no checkpoint; its {n} logged steps are made again", file=sys.stderr)
        folder.metrics.unlink()


def _keep_metrics(folder: RunFolder, n_steps: int, is_unwatched: bool) -> None:
    """Only the rows of the first n_steps: those after them will be logged again, and so will a late look at the last
    one that the checkpoint does not know of. Lost and doubled ones are said.

    RunError for a row that cannot be read or has no step.
    """
    if folder.metrics.exists():
        repair_jsonl(folder.metrics)
    lines = folder.metrics.read_bytes().splitlines(keepends=True) if folder.metrics.exists() else []
    rows = [_logged(folder, number, line) for number, line in enumerate(lines, 1)]
    # A look that came late has a row of its own.
    is_late = [bool(row["step"]) and row.keys() == {"step", "watch", "seconds"} for row in rows]
    kept = [
        int(row["step"]) < n_steps + (not (is_unwatched and late))
        for row, late in zip(rows, is_late, strict=True)
    ]
    if not all(kept):
        write_whole(folder.metrics, b"".join(line for line, keep in zip(lines, kept, strict=True) if keep))
    steps = [int(row["step"]) for row, late in zip(rows, is_late, strict=True) if not late]
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


def _logged(folder: RunFolder, number: int, line: bytes) -> dict[str, Any]:
    """A line of the log, whose step is one."""
    remedy = "take the line out, and the run goes on without it"
    try:
        row = dict(row_of(line))
    except RecordError as error:
        raise RunError(f"{folder.metrics}:{number}: {error.problem}; {remedy}") from error
    step = row.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise RunError(
            f'{folder.metrics}:{number}: "step" must be a number of steps, got {step!r:.80}; {remedy}'
        )
    return row
