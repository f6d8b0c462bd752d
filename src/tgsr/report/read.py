"""What commands left in run folders: which files there are, and their JSON as values that were checked."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import msgspec

from tgsr.errors import RecordError
from tgsr.evaluation.scoring.trainer_logs import is_log

T = TypeVar("T")
Kind = Literal["predictions", "metrics", "behaviour", "controls", "attention", "log"]
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


# --- files -----------------------------------------------------------------------------------------------


def find_files(runs: Sequence[Path]) -> dict[Kind, list[Path]]:
    """The files of each kind among `runs`, and in and below the folders among them, in order, each once.

    A file that is given by its path is of the kind that its content shows; a folder with a trainer's completions logs
    in it is predictions. Raises FileNotFoundError for a path that
    does not exist, and where there is nothing of any kind.
    """
    found: dict[Kind, list[Path]] = {kind: [] for kind in _NAMES}
    for run in runs:
        if run.is_dir():
            for kind, names in _NAMES.items():
                paths = sorted({path for name in names for path in run.rglob(name) if path.is_file()})
                found[kind] += [path for path in paths if not path.name.endswith(".errors.jsonl")]
            if is_log(run):
                found["predictions"].append(run)
        elif run.exists():
            found[kind_of(run)].append(run)
        else:
            raise FileNotFoundError(f"{run}: no such file or folder")
    once = {kind: list({path.resolve(): path for path in paths}.values()) for kind, paths in found.items()}
    if not any(once.values()):
        raise FileNotFoundError(
            f"{', '.join(map(str, runs))}: no predictions*.jsonl and no scores (metrics.json, behaviour.json, "
            "controls.json, attention.json); give files of other names by their paths, or make some with "
            "`tgsr predict`"
        )
    return once


def kind_of(path: Path) -> Kind:
    """By what is in it, not by its name; what is no JSON object of ours is taken for predictions."""
    if path.name == "metrics.jsonl":
        return "log"
    if path.suffix == ".jsonl":
        return "predictions"
    by_name: Kind = next((kind for kind in _NAMES if path.name.startswith(kind)), "predictions")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return by_name
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
    return by_name


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


def read_models(path: Path, kind: type[T]) -> dict[str, T]:
    """The models of behaviour.json, controls.json, or attention.json, which has no "models" around them."""
    value = read_json(path)
    models = value.get("models", value)
    if not isinstance(models, dict):
        raise RecordError("models", f"must be an object, got {models!r:.80}", str(path), remedy=AGAIN)
    return {name: checked(kind, scores, path, name) for name, scores in models.items()}


def checked(kind: type[T], value: object, path: Path, where: str) -> T:
    """The JSON value as a `kind`, a dataclass; keys that it has not are left alone.

    RecordError names the place, below `where`, of a value that is missing or not what it must be.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).removesuffix("`").partition(" - at `$")
    if missing := re.fullmatch(r"Object missing required field `(\w+)`?", problem):
        place, problem = f"{place}.{missing[1]}", "is missing"
    elif expected := re.match(r"Expected `(.+)`, got `(.+)`", problem):
        shown, found = expected[2], cast(Any, value)
        if "..." not in place:  # not under an object's key, which is not told
            for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", place):
                found = found[int(index)] if index else found[name]
            shown = f"{found!r:.80}"
        problem = f"must be {expected[1]}, got {shown}"
    raise RecordError(where + place, problem, str(path), remedy=AGAIN)


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
