"""What commands left in run folders: which files there are, and their JSON as values that were checked.

The shapes here are what the report reads of a file; what else the file holds is left alone.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from tgsr.errors import RecordError
from tgsr.statistics.intervals import Mean

T = TypeVar("T")
Kind = Literal["predictions", "metrics", "behaviour", "controls", "attention", "log"]
KINDS: tuple[Kind, ...] = typing.get_args(Kind)
# What each kind is called in and below a folder
_NAMES: dict[Kind, tuple[str, ...]] = {
    "predictions": ("predictions*.jsonl", "predictions*.json", "predictions*.csv"),
    "metrics": ("metrics*.json",),
    "behaviour": ("behaviour*.json",),
    "controls": ("controls*.json",),
    "attention": ("attention*.json",),
    "log": ("metrics.jsonl",),
}
AGAIN = "write it again with the command that made it"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One model in behaviour.json (table 3): means over its responses.

    verify_zero counts responses that cite nothing as 0. n_unverifiable: cited intervals by what was wrong with them.
    Judge: n_unparsed replies were no verdict, n_failed requests got none, n_without_answer responses were not shown.
    """

    n: int
    regions_strict: Mean
    regions_official: Mean
    accuracy: Mean
    verify: Mean | None = None
    verify_zero: Mean | None = None
    consistency: Mean | None = None
    n_without_span: int | None = None
    n_unverifiable: dict[str, int] | None = None
    n_unparsed: int | None = None
    n_failed: int | None = None
    n_without_answer: int | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of controls.json: accuracy under it, and how often the answer stays the same."""

    accuracy: Mean
    same_answer: Mean | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Controls:
    """One model in controls.json: the clip was changed, and what became of the answers (docs/controls.md)."""

    n: int
    conditions: dict[str, Condition]
    covered: Mean | None = None
    chance: float | None = None
    sufficiency: Mean | None = None
    sufficiency_over_silence: Mean | None = None
    necessity: Mean | None = None
    reliance_silenced: Mean | None = None
    reliance_swapped: Mean | None = None
    text_prior: Mean | None = None
    shift_following: Mean | None = None
    shift_staying: Mean | None = None
    shift_slope: Mean | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Attention to the frames inside cited spans and outside of them, for each frame."""

    inside: Mean
    outside: Mean
    ratio: Mean


@dataclass(frozen=True, slots=True)
class Attended:
    """One model in attention.json (table 4): by_phase[phase][block], by_layer[phase][block][layer]."""

    n: int
    by_phase: dict[str, dict[str, Mean]]
    by_layer: dict[str, dict[str, list[float]]]
    audio_per_token: Mean | None = None
    evidence: dict[str, Evidence] | None = None


# --- files -----------------------------------------------------------------------------------------------


def find_files(runs: Sequence[Path]) -> dict[Kind, list[Path]]:
    """The files of each kind among `runs`, and in and below the folders among them, in order, each once.

    A file that is given by its path is of the kind that its content shows. Raises FileNotFoundError for a path that
    does not exist, and where there is nothing of any kind.
    """
    found: dict[Kind, list[Path]] = {kind: [] for kind in KINDS}
    for run in runs:
        if run.is_dir():
            for kind, names in _NAMES.items():
                paths = sorted({path for name in names for path in run.rglob(name) if path.is_file()})
                found[kind] += [path for path in paths if not path.name.endswith(".errors.jsonl")]
        elif run.exists():
            found[kind_of(run)].append(run)
        else:
            raise FileNotFoundError(f"{run}: no such file or folder")
    once = {kind: list({path.resolve(): path for path in paths}.values()) for kind, paths in found.items()}
    if not any(once.values()):
        raise FileNotFoundError(
            f"{', '.join(map(str, runs))}: no predictions*.jsonl and no scores (metrics.json, behaviour.json, "
            "controls.json, attention.json); make some with `tgsr predict`"
        )
    return once


def kind_of(path: Path) -> Kind:
    """By what is in it, not by its name; what is no JSON object of ours is taken for predictions."""
    if path.name == "metrics.jsonl":
        return "log"
    if path.suffix == ".jsonl":
        return "predictions"
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return next((kind for kind in KINDS if path.name.startswith(kind)), "predictions")
    if not isinstance(value, dict):
        return "predictions"
    models = value.get("models")
    of_models = list(models.values()) if isinstance(models, dict) else []
    if "format" in value and isinstance(models, dict):
        return "metrics"
    if any(isinstance(one, dict) and "conditions" in one for one in of_models):
        return "controls"
    if any(isinstance(one, dict) and "regions_strict" in one for one in of_models):
        return "behaviour"
    if value and all(isinstance(one, dict) and "by_phase" in one for one in value.values()):
        return "attention"
    return next((kind for kind in KINDS if path.name.startswith(kind)), "predictions")


def read_json(path: Path) -> dict[str, Any]:
    """The file's JSON object. RecordError names file and line where it is none, or only the first half of one."""
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        is_whole = text.rstrip().endswith("}")
        problem = f"is not JSON: {error.msg}" if is_whole else "is half-written"
        raise RecordError(None, problem, str(path), error.lineno, AGAIN) from None
    except RecursionError:
        raise RecordError(None, "is nested too deeply", str(path), remedy=AGAIN) from None
    if not isinstance(value, dict):
        raise RecordError(None, f"must be a JSON object, got {value!r:.80}", str(path), remedy=AGAIN)
    return value


def read_models(path: Path, cls: type[T]) -> dict[str, T]:
    """The models of behaviour.json, controls.json, or attention.json, which has no "models" around them."""
    value = read_json(path)
    models = value.get("models", value)
    if not isinstance(models, dict):
        raise RecordError("models", f"must be an object, got {models!r:.80}", str(path), remedy=AGAIN)
    return {name: build(cls, one, path, name) for name, one in models.items()}


# --- JSON to dataclasses ---------------------------------------------------------------------------------


def build(cls: Any, value: object, path: Path, where: str) -> Any:
    """`value` as a `cls`: a dataclass, dict[str, ...], list, tuple[..., ...], Literal, X | None, or a plain value.

    Keys that a dataclass has not are left alone; one that it lacks takes its default. RecordError names the
    place where the value is not what it must be.
    """
    origin, inner = typing.get_origin(cls), typing.get_args(cls)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return build(next(of for of in inner if of is not type(None)), value, path, where)
    if is_dataclass(cls) and isinstance(value, dict):
        return _dataclass_of(cls, value, path, where)
    if origin is dict and isinstance(value, dict):
        return {key: build(inner[1], of, path, f"{where}.{key}") for key, of in value.items()}
    if origin in (list, tuple) and isinstance(value, list):
        return origin(build(inner[0], of, path, where) for of in value)
    if origin is Literal and value in inner:
        return value
    if cls is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if cls in (int, str, bool) and type(value) is cls:
        return value
    wanted = getattr(cls, "__name__", str(cls))
    raise RecordError(where, f"must be {wanted}, got {value!r:.80}", str(path), remedy=AGAIN)


def _dataclass_of(cls: Any, value: dict[str, Any], path: Path, where: str) -> Any:
    hints, given = typing.get_type_hints(cls), {}
    for field in fields(cls):
        if field.name in value:
            given[field.name] = build(hints[field.name], value[field.name], path, f"{where}.{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise RecordError(f"{where}.{field.name}", "is missing", str(path), remedy=AGAIN)
    return cls(**given)


# --- training logs ---------------------------------------------------------------------------------------


def log_rows(path: Path) -> list[tuple[int, float, dict[str, object]]]:
    """(line, step, row) of each row of a training log.

    The log may still be written to: it is only read, and a half-written last line is left out. Raises
    RecordError for any other line that is no JSON object with a step.
    """
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, content in enumerate(lines, 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except ValueError as error:  # not UTF-8 either
            if number == len(lines):
                break
            problem = f"is not JSON: {error}"
            raise RecordError(None, problem, str(path), number, "delete that line") from None
        step = log_number(row, "step", number, path) if isinstance(row, dict) else None
        if step is None:
            raise RecordError("step", f"is missing in {row!r:.80}", str(path), number, "delete that line")
        rows.append((number, step, row))
    return rows


def log_number(row: dict[str, object], name: str, line: int, path: Path) -> float | None:
    """The number under that name; None where there is none. RecordError for what is no number."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(name, f"must be a number, got {value!r:.80}", str(path), line, "correct the row")
    return float(value)
