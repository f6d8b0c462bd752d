"""Everything that run folders say of their models, read and scored once: what the tables and the page are made of.

A model's scores come from its predictions where they are there, and else from metrics.json. A file in a folder that
cannot be read becomes a note, which tables and page show; one that was asked for by its name is an error.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from tgsr.errors import NothingDone, RecordError
from tgsr.evaluation.attention.metrics import Attention
from tgsr.evaluation.behaviour.metrics import Behaviour
from tgsr.evaluation.controls.metrics import Controls
from tgsr.evaluation.scoring.metrics import GroupScores, Metrics, ModelScores
from tgsr.evaluation.scoring.score import read_predictions
from tgsr.evaluation.scoring.spoken import Spoken
from tgsr.evaluation.scoring.trainer_logs import log_files
from tgsr.evidence import ungrounded
from tgsr.records import Response, moved, read_responses
from tgsr.report.question_sets import QuestionSet, Source, merge_sets, score_sources, sets_of
from tgsr.report.read import Kind, checked, find_files, log_number, log_rows, read_json, read_models
from tgsr.statistics.pictures import Curve

T = TypeVar("T")

WATCHED = {  # the measures of a watch that are drawn, and how they are called
    "evidence_hit": "evidence hit",
    "trace_iou": "trace IoU",
    "above_chance": "trace IoU above chance",
    "quote_truth": "quote truth",
    "first_place": "first place",
    "end_within": "ends within 0.1 s",
    "phrase_iou": "phrase IoU",
    "accuracy": "accuracy",
    "k1": "share with k = 1",
}
CURVES = (
    *("loss", "reward", "accuracy", "grounding_reward", "place_reward", "dense_grounding_reward", "k", "kl"),
    *("entropy", "reward_std_within", "reward_std_between"),
)


@dataclass(frozen=True, slots=True)
class Results:
    """`models` are names as they are shown, in order; `written_by` is each one's own name in the files."""

    models: tuple[str, ...]
    written_by: dict[str, str]
    sources: tuple[Source, ...]
    sets: tuple[QuestionSet, ...]
    spoken: Spoken
    behaviour: dict[str, Behaviour]
    controls: dict[str, Controls]
    attention: dict[str, Attention]
    pictures: tuple[Path, ...]  # attention.png, controls.png, ...
    curves: tuple[Curve, ...]
    watched: tuple[Curve, ...]
    watch_warnings: tuple[str, ...]  # where a watched run's k is perfect and its grounding gone
    others: tuple[Path, ...]  # JSON that was read
    notes: tuple[str, ...]

    @property
    def responses(self) -> list[Response]:
        return [response for source in self.sources for response in source.responses]


def gather(
    runs: Sequence[Path],
    rows: Sequence[str] = (),
    seed: int = 0,
    errors: Path | None = None,
    clips: Sequence[Path] = (),
    audio: Path | None = None,
) -> Results:
    """Reads and scores all that `runs` hold: files, and folders with files in and below them.

    `clips` are clips files with the words that are said; without any, `Spoken` looks for them. `audio` is the folder
    that the responses' sound has moved to.

    `rows` names models for readers, "LABEL=MODEL", in the order in which they are shown, and leaves out all others;
    without any, models go by their own names in order of appearance. `seed` is the bootstrap's. Rows that are left out
    are kept in the file `errors`, which is written anew, and only where there are any.

    Raises RecordError for a row that names no model, for a bad line of a prediction file and for a file of `runs`
    that is not what it must be; FileNotFoundError where there is nothing to read, NothingDone where what was read holds
    no response and no score.
    """
    files = find_files(runs)
    asked_for = {run.resolve() for run in runs}
    notes: list[str] = []

    def attempt(read: Callable[[Path], T], path: Path) -> T | None:
        try:
            return read(path)
        except RecordError as error:
            if path.resolve() in asked_for:
                raise
            notes.append(f"left out: {error}")
            return None

    if errors is not None:
        errors.unlink(missing_ok=True)
    sources = [read_source(path, notes, errors) for path in files["predictions"]]
    stored = [found for path in files["metrics"] if (found := attempt(read_metrics, path)) is not None]

    def models_of(kind: Kind, cls: type[T]) -> dict[str, T]:
        """The models of all files of one kind; of a model that is in two of them, the first."""
        merged: dict[str, T] = {}
        for path in files[kind]:
            for model, scores in (attempt(lambda path: read_models(path, cls), path) or {}).items():
                if model in merged:
                    notes.append(f"left out: {path}: {model} is in an earlier file of this kind already")
                merged.setdefault(model, scores)
        return merged

    behaviour = models_of("behaviour", Behaviour)
    controls = models_of("controls", Controls)
    attention = models_of("attention", Attention)
    curves = [curve for path in files["log"] for curve in attempt(read_log, path) or []]
    names = dict.fromkeys(
        [response.model for source in sources for response in source.responses]
        + [source.model for source in sources if source.model]
        + [name for metrics in stored for name in metrics.models]
        + [*behaviour, *controls, *attention]
    )
    watches = [watch for path in files["log"] if (watch := attempt(read_watch, path)) is not None]
    if not names and not curves and not any(watch.curves for watch in watches):
        listed = f"; {errors} says why" if errors is not None and errors.exists() else ""
        raise NothingDone(f"{', '.join(map(str, runs))}: no response and no score to report{listed}")
    label_of = labels(list(names), rows)
    sources = _moved([_relabelled(source, label_of) for source in sources], audio)
    models = tuple(label_of.values())
    spoken = Spoken(clips, beside=[source.path for source in sources])
    sets = score_sources(sources, models, seed, spoken)
    for metrics in stored:
        sets = merge_sets(sets, sets_of(metrics, label_of), metrics.file, notes)
    summaries = [*files["behaviour"], *files["controls"], *files["attention"]]
    return Results(
        models=models,
        written_by={label: name for name, label in label_of.items()},
        sources=tuple(sources),
        sets=tuple(sets),
        spoken=spoken,
        behaviour=_chosen(behaviour, label_of),
        controls=_chosen(controls, label_of),
        attention=_chosen(attention, label_of),
        pictures=tuple(png for path in summaries if (png := path.with_suffix(".png")).is_file()),
        curves=tuple(curves),
        watched=tuple(curve for watch in watches for curve in watch.curves),
        watch_warnings=tuple(warning for watch in watches for warning in watch.warnings),
        others=(*files["metrics"], *summaries),
        notes=tuple(notes),
    )


# --- who is shown ----------------------------------------------------------------------------------------


def labels(models: Sequence[str], rows: Sequence[str]) -> dict[str, str]:
    """Each shown model's name in the files, with its label, in order.

    In "LABEL=MODEL" either may hold "=": the first reading whose MODEL exists counts. RecordError where none does,
    and for a label or a model that is given twice.
    """
    if not rows:
        return {model: model for model in models}
    found: dict[str, str] = {}
    for row in rows:
        parts = row.split("=")
        readings = [("=".join(parts[:i]).strip(), "=".join(parts[i:]).strip()) for i in range(1, len(parts))]
        reading = next(((label, model) for label, model in readings if label and model in models), None)
        if reading is None:
            must = f"must be LABEL=MODEL with one of the runs' models: {', '.join(models) or 'none'}"
            raise RecordError(None, f"--row {row!r}: {must}")
        label, model = reading
        if model in found or label in found.values():
            raise RecordError(None, f"--row {row!r}: its model or its label is given twice")
        found[model] = label
    return found


def _relabelled(source: Source, label_of: Mapping[str, str]) -> Source:
    shown = (response for response in source.responses if response.model in label_of)
    responses = tuple(replace(response, model=label_of[response.model]) for response in shown)
    rows = source.rows if source.model in label_of else ()
    return replace(source, responses=responses, rows=rows, model=label_of.get(source.model, ""))


def _moved(sources: list[Source], audio: Path | None) -> list[Source]:
    """The sources, their responses' sound below that folder."""
    there = iter(moved(chain.from_iterable(source.responses for source in sources), audio))
    return [replace(source, responses=tuple(islice(there, len(source.responses)))) for source in sources]


def _chosen(found: Mapping[str, T], label_of: Mapping[str, str]) -> dict[str, T]:
    return {label: found[model] for model, label in label_of.items() if model in found}


# --- reading ---------------------------------------------------------------------------------------------


def read_source(path: Path, notes: list[str], errors: Path | None = None) -> Source:
    """A prediction file of any format. A last line that is half-written, of a run that goes on, is noted, and kept in
    the file `errors`.

    Raises RecordError for any other bad line: a mean without it would be another one.
    """
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in log_files(path))).hexdigest()[:12]
    if not is_ours(path):
        read = read_predictions(path)
        return Source(path, digest, read.responses, read.rows, read.format, path.stem if read.rows else "")
    try:
        return Source(path, digest, tuple(read_responses(path, several=True)))
    except RecordError as error:
        if "half-written" not in error.problem:
            raise
        where = f"{path}:{error.line}"
        kept = f", kept in {errors}" if errors else ""
        notes.append(f"left out{kept}: {where}: the last line is half-written; is the run still going on?")
        with tempfile.TemporaryDirectory() as folder:
            if errors is not None:
                errors.parent.mkdir(parents=True, exist_ok=True)
            rest = read_responses(path, on_error=errors or Path(folder) / "errors.jsonl", several=True)
        return Source(path, digest, tuple(rest))


def is_ours(path: Path) -> bool:
    """Whether the first row is a response of ours (or there is none); the benchmarks' rows have no clip_id."""
    if path.suffix != ".jsonl":
        return False
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    try:
        row = json.loads(first.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        # A list over several lines is an owner's file; of anything else the reader of ours says what is wrong with it.
        return not first.lstrip(b"\xef\xbb\xbf \t").startswith(b"[")
    return isinstance(row, dict) and "clip_id" in row


def read_metrics(path: Path) -> Metrics:
    """What `tgsr score` wrote. RecordError where it is something else.

    Scores of an owner's file, which names no model, are those of a model that goes by that file's name.
    """
    metrics = checked(Metrics, read_json(path), path, "metrics")
    if metrics.benchmark is not None:
        nothing = GroupScores(None, None)
        only = ModelScores(nothing, {}, (), (), benchmarks={metrics.format: metrics.benchmark})
        metrics = replace(metrics, models={Path(metrics.file).stem or path.stem: only}, benchmark=None)
    return replace(metrics, file=str(path))


def read_log(path: Path) -> list[Curve]:
    """A training log's curves under its run's name, the folder's; a loss is one of its stage, as run.json says."""
    loss = "loss"
    # Without its run only the name is less exact.
    with suppress(OSError, ValueError, LookupError, TypeError):
        described = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))
        loss = f"{described['stage']} loss"
    curves = [replace(curve, name=path.parent.name) for curve in read_curves(path, CURVES)]
    return [replace(curve, y_label=loss) if curve.y_label == "loss" else curve for curve in curves]


@dataclass(frozen=True, slots=True)
class WatchLog:
    """What a training's watch saw on held-out questions, over steps, and what is to be warned of."""

    curves: tuple[Curve, ...]
    warnings: tuple[str, ...]


def read_watch(path: Path) -> WatchLog:
    """The watched measures of a training log, under its run's name; none where it was not watched.

    Errors as in `log_rows`, and RecordError for a watch that is no object of numbers.
    """
    looks: list[tuple[int, float, dict[str, object]]] = []
    for line, step, row in log_rows(path):
        watch = row.get("watch")
        if isinstance(watch, dict):
            looks.append((line, step, watch))
        elif watch is not None:
            problem = f"must be an object, got {watch!r:.80}"
            raise RecordError("watch", problem, str(path), line, "correct the row")
    name = path.parent.name
    curves = [_watched(name, measure, looks, path) for measure in WATCHED]
    said = []
    for line, step, watch in looks:
        known = [log_number(watch, measure, line, path) for measure in ("k1", "evidence_hit", "above_chance")]
        if warning := ungrounded(*known):
            said.append(f"at step {step:g} {warning}")
    warnings = (f"{name}: {said[-1]}; so in {len(said)} of {len(looks)} looks",) if said else ()
    return WatchLog(tuple(curve for curve in curves if curve.x), warnings)


def _watched(
    run: str, measure: str, looks: Sequence[tuple[int, float, dict[str, object]]], path: Path
) -> Curve:
    points = [(step, log_number(watch, measure, line, path), watch) for line, step, watch in looks]
    known = [(step, value, *_ends(watch, measure)) for step, value, watch in points if value is not None]
    x, y, low, high = zip(*known, strict=True) if known else ((), (), (), ())
    return Curve(run, "step", WATCHED[measure], x, y, low, high)


def _ends(watch: dict[str, object], measure: str) -> tuple[float, float]:
    """The ends of a measure's interval; NaN where it has none."""
    intervals = watch.get("intervals")
    match intervals.get(measure) if isinstance(intervals, dict) else None:
        case [int() | float() as low, int() | float() as high]:
            return float(low), float(high)
    return math.nan, math.nan


def read_curves(metrics_jsonl: Path, names: Sequence[str]) -> list[Curve]:
    """The named quantities of a training log, each against its step; those that it lacks are left out.

    Errors as in `log_rows`, and RecordError for a value that is no number.
    """
    rows = log_rows(metrics_jsonl)
    curves = []
    for name in names:
        points = [(step, log_number(row, name, line, metrics_jsonl)) for line, step, row in rows]
        known = [(step, value) for step, value in points if value is not None]
        if known:
            x, y = zip(*known, strict=True)
            curves.append(Curve(name, "step", name, x, y))
    return curves
