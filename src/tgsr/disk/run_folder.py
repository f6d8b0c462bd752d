"""The folder of one run: its settings, its logs, its checkpoint."""

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

from tgsr.disk.jsonl import append_row
from tgsr.disk.whole import write_whole
from tgsr.errors import RunError


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
            append_row(self.metrics, dict(row))
        except OSError as error:
            remedy = "free some space and start the same command again"
            raise RunError(f"{self.metrics}: {error}; {remedy}") from error


def open_run(
    path: Path, stage: str, config: Any, data: str | None = None, features: Mapping[str, str] | None = None
) -> RunFolder:
    """A new run folder, or the one that the same command started before.

    `data` is the file that the run learns from, `features` says how its clips are heard. Raises RunError where the
    folder holds something else: another stage, other arguments or data, or files of another making, and
    where `data` cannot be read. Nothing is overwritten.
    """
    folder = RunFolder(path)
    description: dict[str, Any] = {"stage": stage, "config": _as_json(asdict(config))}
    if data is not None:
        try:
            description["data"] = {data: hashlib.sha256(Path(data).read_bytes()).hexdigest()}
        except OSError as error:
            remedy = "make it with `tgsr build` or `tgsr predict`"
            raise RunError(f"{data}: {error.strerror}; {remedy}") from error
    if features is not None:
        description["features"] = dict(features)
    run_json = path / "run.json"
    if run_json.exists():
        existing = json.loads(run_json.read_text())
        if isinstance(existing.get("config"), dict):
            # A setting that has been added since the run was started does what was done without it.
            added = {f.name: f.default for f in fields(config) if f.default is not MISSING}
            existing["config"] = _as_json(added) | existing["config"]
        differing = [k for k in description if existing.get(k) != description[k]]
        if differing:
            old, new = (x.get("config") or {} for x in (existing, description))
            names = sorted(k for k in {*old, *new} if old.get(k) != new.get(k)) or differing
            raise RunError(
                f"{path}: holds a run with other arguments ({', '.join(names)}); "
                "choose another --out, or give the arguments in its run.json to go on with it"
            )
        return folder
    if path.exists() and any(path.iterdir()):
        raise RunError(f"{path}: exists, is not empty and has no run.json; choose another --out")
    description["command"] = " ".join(["tgsr", *sys.argv[1:]])
    description["versions"] = {name: version(name) for name in ("tgsr", "torch", "transformers", "peft")}
    n_threads = torch.get_num_threads()
    description["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {n_threads} threads"
    write_whole(run_json, json.dumps(description, indent=2) + "\n")
    return folder


def _as_json(values: Mapping[str, Any]) -> Any:
    """The values as run.json gives them back."""
    return json.loads(json.dumps(values, default=str))
