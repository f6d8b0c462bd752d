"""The folder of one run: its settings and what it rests on, its logs, its checkpoints."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tgsr.disk.jsonl import append_row, line_of
from tgsr.disk.lock import LOCK
from tgsr.disk.rows import Entry, json_lines
from tgsr.disk.whole import HALF, sha256_of, sweep, write_whole
from tgsr.errors import RunError

HALF_RUN_JSON = "run.json.tmp"  # what a death while run.json was written left behind in earlier versions
PACKAGES = ("tgsr", "torch", "transformers", "peft")
N_NAMED = 3  # of the files that differ, in an error
_STEP = re.compile(r"checkpoint-(0|[1-9]\d*)\.pt")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One training run on disk."""

    path: Path

    @property
    def described(self) -> Path:
        return self.path / "run.json"

    def checkpoint(self, step: int) -> Path:
        """Where the state after so many steps is kept."""
        return self.path / f"checkpoint-{step}.pt"

    @property
    def checkpoint_of_before(self) -> Path:
        """Where earlier versions kept a run's only checkpoint."""
        return self.path / "checkpoint.pt"

    def checkpoints(self) -> dict[int, Path]:
        """The numbered checkpoints that there are by their steps, in order."""
        named = [(_STEP.fullmatch(path.name), path) for path in self.path.glob("checkpoint-*.pt")]
        return dict(sorted((int(name[1]), path) for name, path in named if name))

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def sounds(self) -> Path:
        return self.path / "sounds.jsonl"

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl. RunError where it cannot be written."""
        try:
            append_row(self.metrics, dict(row))
        except OSError as error:
            raise RunError(f"{error}; what is done is in the last checkpoint") from error

    def read(self) -> dict[str, Any]:
        """What run.json holds. RunError where it was damaged."""
        return read_described(self.described)

    def write(self, described: Mapping[str, Any]) -> None:
        write_whole(self.described, json.dumps(described, indent=2) + "\n")

    def rest_on(self, what: str, files: Mapping[str, Path]) -> None:
        """RunError, which names them, where files that the run learns from are not those that it began with.

        The SHA-256 of each is kept in run.json, under `what` and the file's name, when it is first seen.
        """
        described = self.read()
        known = described.get(what, {})
        now = hashes_of(files, known)
        refuse_changed(self.path, what, changed(known, now) if known else ())
        if now and now != known:
            self.write(described | {what: now})

    def rest_on_sounds(self, samples: Mapping[str, str]) -> None:
        """RunError, which names them, where clips sound otherwise than when the run began.

        `samples` has the hash of each clip's decoded samples. They are kept in sounds.jsonl, whose own hash is in
        run.json, when clips are first heard. A clip that is not among them now is the caller's to miss.
        """
        described = self.read()
        known = described.get("sounds")
        before = {} if known is None else self._sounds()
        if known is not None and _summary(before) != known:
            before = {}
            if _summary(samples) != known:
                raise RunError(
                    f"{self.sounds}: is gone or was altered, and the clips are not all those that the run began with: "
                    "bring it back, or choose another --out"
                )
        others = sorted(name for name in samples if before.get(name, samples[name]) != samples[name])
        refuse_changed(self.path, "sound", others)
        now = {**before, **samples}
        if known is None or now != before:
            rows = ({"audio": audio, "sha256": now[audio]} for audio in sorted(now))
            write_whole(self.sounds, b"".join(line_of(row, os.fspath(self.sounds), None) for row in rows))
            self.write(described | {"sounds": _summary(now)})

    def _sounds(self) -> dict[str, str]:
        """The rows of sounds.jsonl; those that were damaged are left out."""
        if not self.sounds.exists():
            return {}
        rows = [row.values for row in json_lines(self.sounds) if isinstance(row, Entry)]
        return {str(row.get("audio")): str(row.get("sha256")) for row in rows}


def _summary(samples: Mapping[str, str]) -> dict[str, Any]:
    content = json.dumps(samples, sort_keys=True).encode()
    return {"n": len(samples), "sha256": hashlib.sha256(content).hexdigest()}


# in run.json
_OBJECTS = ("config", "config_since", "data", "features", "versions", "model", "sounds", "watch")
_COPY_BACK = "copy it back from elsewhere, or the one that the same command writes in another --out"


def read_described(file: Path) -> dict[str, Any]:
    """What a file like run.json holds. RunError where it was damaged."""
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise RunError(f"{file}: cannot be read ({error}); {_COPY_BACK}") from error
    parts = {"it": described}
    if isinstance(described, dict):
        parts |= {f'"{name}"': described[name] for name in _OBJECTS if name in described}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise RunError(f"{file}: {name} must be a JSON object, got {part!r:.80}; {_COPY_BACK}")
    if not isinstance(later := described.get("went_on_with", []), list):
        raise RunError(f'{file}: "went_on_with" must be a list, got {later!r:.80}; {_COPY_BACK}')
    return dict(described)


def hashes_of(files: Mapping[str, Path], known: Mapping[str, Any]) -> dict[str, Any]:
    """Each file's SHA-256 beside its size and times.

    One whose size and times are `known` is not read again; one with other times is, and may be the same (a copy).
    """
    return {name: _hashed(path, known.get(name)) for name, path in files.items()}


def changed(known: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of files that are others now, have come or have gone."""
    return sorted(name for name in {*known, *now} if _sha256(known.get(name)) != _sha256(now.get(name)))


def refuse_changed(path: Path, what: str, names: Sequence[str]) -> None:
    """RunError where there are names: of what a run began with and that is something else now."""
    if names:
        others = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
        raise RunError(
            f"{path}: its {what} changed since it began: {', '.join(names[:N_NAMED])}{others}; bring back what was "
            "there, or choose another --out"
        )


def _hashed(path: Path, known: object) -> dict[str, Any]:
    """A file's SHA-256 beside its size and times; taken from `known` where that has the same size and times."""
    stat = path.stat()
    seen = {"size": stat.st_size, "modified_ns": stat.st_mtime_ns, "changed_ns": stat.st_ctime_ns}
    if isinstance(known, dict) and known == {"sha256": known.get("sha256"), **seen}:
        return known
    return {"sha256": sha256_of(path), **seen}


def _sha256(known: object) -> object:
    return known.get("sha256") if isinstance(known, dict) else None


def open_run(path: Path, stage: str, config: Any, data: str | Sequence[str] | None = None) -> RunFolder:
    """A new run folder, or the one that the same command started before.

    `data` are the files that the run learns from. Raises RunError where the folder holds something else: another
    stage, other arguments or data, or files of another making, and where `data` cannot be read. Nothing is overwritten.
    """
    asked_for = describe_run(stage, config, data, None)
    folder = find_run(path, config, asked_for)
    begin_run(folder, asked_for)
    return folder


def describe_run(
    stage: str, config: Any, data: str | Sequence[str] | None, features: Mapping[str, str] | None
) -> dict[str, Any]:
    """What is asked for, as run.json says it. RunError where a file of `data` cannot be read."""
    description: dict[str, Any] = {"stage": stage, "config": _as_json(settings_of(config))}
    if data is not None:
        description["data"] = {}
        for name in [data] if isinstance(data, str) else data:
            try:
                description["data"][name] = sha256_of(Path(name))
            except OSError as error:
                remedy = "make it with `tgsr build`, `tgsr transcribe` or `tgsr predict`"
                raise RunError(f"{name}: {error.strerror}; {remedy}") from error
    if features is not None:
        description["features"] = dict(features)
    return description


def settings_of(config: Any) -> dict[str, Any]:
    """A config's settings by name, those that it has `spelled_out` as it does."""
    return asdict(config) | getattr(config, "spelled_out", {})


def find_run(
    path: Path, config: Any, asked_for: Mapping[str, Any], may_change: Sequence[str] = ()
) -> RunFolder:
    """The folder, new or of the same run; nothing is written. RunError as in `open_run`.

    The settings that `may_change` may be others than those that the run began with.
    """
    folder = RunFolder(path)
    if not folder.described.exists():
        if path.exists() and any(not _is_half(file) for file in path.iterdir()):
            raise RunError(f"{path}: exists, is not empty and has no run.json; choose another --out")
        return folder
    existing = folder.read()
    if "config" in existing:
        # A setting that has been added since the run was started does what was done without it.
        added = {f.name: f.default for f in fields(config) if f.default is not MISSING}
        now = {name: asked_for["config"][name] for name in may_change if name in asked_for["config"]}
        existing["config"] = _as_json(added) | existing["config"] | now
    data, before = asked_for.get("data", {}), existing.get("data", {})
    if data:
        existing["data"] = data | before  # a file that was not hashed when the run began is, from now on
    differing = [k for k in asked_for if existing.get(k) != asked_for[k]]
    if differing:
        old, new = (x.get("config") or {} for x in (existing, asked_for))
        names = sorted(k for k in {*old, *new} if old.get(k) != new.get(k)) or differing
        files = sorted(name for name in data if existing["data"].get(name) != data[name])
        raise RunError(
            f"{path}: holds a run with other arguments ({', '.join(names)}); "
            + (f"changed since it began: {', '.join(files)}; " if files else "")
            + "choose another --out, or give the arguments in its run.json to go on with it"
        )
    return folder


def begin_run(folder: RunFolder, asked_for: Mapping[str, Any]) -> None:
    """Writes run.json where there is none; where there is, adds what was not known yet.

    A run that goes on with other versions of what computes is said on stderr: its numbers may then be other ones.
    """
    versions = {name: version(name) for name in PACKAGES} | {"tgsr's code": _code()}
    if not folder.described.exists():
        (folder.path / HALF_RUN_JSON).unlink(missing_ok=True)
        n_threads = torch.get_num_threads()
        machine = f"{platform.machine()}, {os.cpu_count()} cores, {n_threads} threads"
        command = " ".join(["tgsr", *sys.argv[1:]])
        folder.write({**asked_for, "command": command, "versions": versions, "machine": machine})
        return
    sweep(folder.path)
    existing = folder.read()
    known = existing | {name: asked_for[name] for name in ("data",) if name in asked_for}
    before = [existing.get("versions"), *existing.get("went_on_with", ())]
    if versions != before[-1]:
        others = f"goes on with {_listed(versions)}; it was with {_listed(before[-1])}"
        print(f"{folder.path}: {others}", file=sys.stderr)
        known = {**known, "went_on_with": [*before[1:], versions]}
    if known != existing:
        folder.write(known)


def _code() -> str:
    """A hash of this package's modules, which change more often than its version."""
    modules = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()[:12]


def _listed(versions: object) -> str:
    if not isinstance(versions, dict):
        return "unknown versions"
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _is_half(path: Path) -> bool:
    """Whether a file is what a death before run.json was whole leaves behind, or the lock of its folder."""
    return path.name in (HALF_RUN_JSON, LOCK) or path.name.startswith(HALF)


def _as_json(values: Mapping[str, Any]) -> Any:
    """The values as run.json gives them back."""
    return json.loads(json.dumps(values, default=str))
