"""The owners' own files of predictions as responses of ours, for what looks at the question and the clip as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tgsr import audio
from tgsr.data.corpora.folders import locate, place
from tgsr.disk.rows import Entry
from tgsr.errors import AudioError, Bad, RecordError
from tgsr.evaluation.owners.files import OWNERS
from tgsr.evaluation.owners.owner import BenchmarkQuestion, Owner
from tgsr.evaluation.scoring.files import format_of, read_rows
from tgsr.evaluation.scoring.trainer_logs import is_log, read_log
from tgsr.grounding import find_mentions
from tgsr.records import Question, Response, append_jsonl, moved, read_responses
from tgsr.timeline import Seconds


def owner_of_predictions(path: Path) -> Owner | None:
    """Whose file of predictions this is, by its first row; None for one of ours, and for what is none."""
    try:
        rows = read_rows(path)
        return OWNERS.get(format_of(next(rows)[1]))
    except RecordError:
        return None


def owners_responses(path: Path, owner: Owner, audio: Path | None = None) -> Iterator[Response | Bad]:
    """Each row that has a prediction as a response of a model that goes by the file's name; Bad for any other row.

    Sound is looked for in `audio`, or beside the file, in the owner's layout. Without it a clip is taken to be as
    long as the response's last interval, and at least 1 s: no length is known. Raises RecordError where the file
    cannot be read on.
    """
    for line, row in read_rows(path):
        entry = Entry(path, line, row)
        try:
            text = owner.prediction(row, owner.key)
            if text is None:
                raise RecordError(owner.key, "is missing: no prediction")
            yield Response(
                _question(owner.question(entry), path, text, audio or path.parent), path.stem, text
            )
        except RecordError as error:
            yield entry.bad(error)


def read_any_responses(path: Path, errors: Path, audio: Path | None = None) -> list[Response]:
    """The responses of a file of ours, of a trainer's log or of a benchmark's own; of these, rows without one go to
    `errors`. `audio` is the folder where their sound lies now.

    Raises RecordError as `read_responses` does.
    """
    owner = owner_of_predictions(path)
    if owner is None and not is_log(path):
        return moved(read_responses(path, several=True), audio)
    responses: list[Response] = []
    for row in read_log(path) if owner is None else owners_responses(path, owner, audio):
        if isinstance(row, Response):
            responses.append(row)
        else:
            errors.parent.mkdir(parents=True, exist_ok=True)
            append_jsonl(errors, asdict(row))
    return moved(responses, audio) if owner is None else responses


def _question(item: BenchmarkQuestion, path: Path, text: str, folder: Path) -> Question:
    paths = [locate(folder, name) for name in item.places]
    sound = next((found for found in paths if found.is_file()), None)
    where = item.places[0] if sound is None else place(sound, path.parent)
    return item.about(where, _duration(sound, text))


def _duration(sound: Path | None, text: str) -> Seconds:
    if sound is not None:
        try:
            return audio.duration(sound)
        except AudioError:
            pass  # as if it were not there: who hears it says so
    return max([1.0, *(mention.end for mention in find_mentions(text))])
