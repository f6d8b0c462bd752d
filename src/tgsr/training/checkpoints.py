"""A run's folder: what was asked (run.json), what came out (metrics.jsonl), where to go on (checkpoint.pt).

A checkpoint holds everything that a step changes; what a step draws at random follows from the seed and
the step's number. So a run that was killed at any moment goes on with the numbers that it would have had.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tgsr.engine.features import FeatureCache
from tgsr.records import append_jsonl, repair_jsonl


class RunError(RuntimeError):
    """A run folder that cannot be started, resumed or written to; the message says what to do."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One training run on disk."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def log(self, row: Mapping[str, Any]) -> None:
        try:
            append_jsonl(self.metrics, dict(row))
        except OSError as error:
            raise RunError(
                f"{self.metrics}: {error}; free some space and start the same command again"
            ) from error


def open_run(
    path: Path, stage: str, config: Any, data: str | None = None, cache: FeatureCache | None = None
) -> RunFolder:
    """A new run folder, or the one that the same command started before.

    `data` is the file that the run learns from, `cache` how its clips are heard. Raises RunError where the
    folder holds something else: another stage, other arguments or data, or files of another making, and
    where `data` cannot be read. Nothing is overwritten.
    """
    folder = RunFolder(path)
    asked: dict[str, Any] = {"stage": stage, "config": json.loads(json.dumps(asdict(config), default=str))}
    if data is not None:
        try:
            asked["data"] = {data: hashlib.sha256(Path(data).read_bytes()).hexdigest()}
        except OSError as error:
            raise RunError(
                f"{data}: {error.strerror}; make it with `tgsr build` or `tgsr predict`"
            ) from error
    if cache is not None:
        asked["features"] = {"dtype": str(cache.dtype), "long_audio": cache.long_audio}
    described = path / "run.json"
    if described.exists():
        found = json.loads(described.read_text())
        if isinstance(found.get("config"), dict):
            # A setting that has been added since the run was started does what was done without it.
            added = {f.name: f.default for f in fields(config) if f.default is not MISSING}
            found["config"] = json.loads(json.dumps(added, default=str)) | found["config"]
        differing = [k for k in asked if found.get(k) != asked[k]]
        if differing:
            old, new = (x.get("config") or {} for x in (found, asked))
            names = sorted(k for k in {*old, *new} if old.get(k) != new.get(k)) or differing
            raise RunError(
                f"{path}: holds a run with other arguments ({', '.join(names)}); "
                "choose another --out, or give the arguments in its run.json to go on with it"
            )
        return folder
    if path.exists() and any(path.iterdir()):
        raise RunError(f"{path}: exists, is not empty and has no run.json; choose another --out")
    path.mkdir(parents=True, exist_ok=True)
    asked["command"] = " ".join(["tgsr", *sys.argv[1:]])
    asked["versions"] = {name: version(name) for name in ("tgsr", "torch", "transformers", "peft")}
    asked["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    write_atomically(described, json.dumps(asked, indent=2).encode() + b"\n")
    return folder


def write_atomically(path: Path, data: bytes) -> None:
    """The whole file or none of it; RunError where the disk is full, and the old file stays."""
    half_written = path.with_name(path.name + ".tmp")
    try:
        with half_written.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(half_written, path)
    except OSError as error:
        half_written.unlink(missing_ok=True)
        raise RunError(f"{path}: {error}; free some space and start the same command again") from error


def save_checkpoint(folder: RunFolder, step: int, state: Mapping[str, Any]) -> None:
    """`state` and the number of steps that are done, atomically: a kill leaves the old or the new one."""
    half_written = folder.checkpoint.with_name("checkpoint.pt.tmp")
    try:
        with half_written.open("wb") as stream:
            torch.save({"step": step, **state}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(half_written, folder.checkpoint)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        half_written.unlink(missing_ok=True)
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
        write_atomically(folder.metrics, "".join(kept).encode())
