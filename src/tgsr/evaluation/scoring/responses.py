"""The owners' own files of predictions as responses of ours, for what looks at the question and the clip as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tgsr import audio
from tgsr.data.corpora.folders import locate, place
from tgsr.disk.rows import Entry
from tgsr.errors import AudioError, Bad, RecordError
from tgsr.evaluation.owners.files import OWNERS, benchmark_questions, owner_of_question
from tgsr.evaluation.owners.ours import authors_ruling
from tgsr.evaluation.owners.owner import BenchmarkQuestion, Owner
from tgsr.evaluation.scoring.files import Foreign, format_of, read_rows
from tgsr.evaluation.scoring.trainer_logs import is_log, read_log
from tgsr.grounding import find_mentions
from tgsr.records import Question, Response, append_jsonl, moved, read_questions, read_responses
from tgsr.timeline import Seconds, Word

UNKNOWN_LENGTH = ("duration", "unknown")
"""The label of a question about a clip whose length nobody has told: what its `duration` says is a guess."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A response, what of it the owner's scorer reads, and what is said in its clip, where the row says that.

    `prediction` and `owner` are None for a response of ours.
    """

    response: Response
    prediction: str | None = None
    owner: Owner | None = None
    segments: tuple[Word, ...] = ()


def official_of(answer: Answered) -> bool | None:
    """Whether a choice is right as `tgsr score` has it officially: by the rule of the benchmark's owner, on the answer
    as it was handed over or, of a response of ours, on the option that it ends up with; of any other question by the
    letter in the last line. None where the rule leaves the answer out.
    """
    question, text = answer.response.question, answer.response.text
    right = question.answer or ""
    if answer.owner is not None and answer.prediction is not None:
        return answer.owner.ruling(answer.prediction, question.choices, right).official
    ruling, owner = authors_ruling(text, question.choices, right), owner_of_question(question)
    if owner is None:
        return ruling.official
    return owner.rulings(text, question.choices, right, ruling.chosen)[0].official


def owner_of_predictions(path: Path) -> Owner | None:
    """Whose file of predictions this is, by its first row; None for one of ours, and for what is none."""
    try:
        rows = read_rows(path)
        return OWNERS.get(format_of(next(rows)[1]))
    except RecordError:
        return None


def owners_answers(
    path: Path, owner: Owner, audio: Path | None = None, asked: Mapping[str, BenchmarkQuestion] | None = None
) -> Iterator[Answered | Bad]:
    """Each row that has a prediction, as the answer of a model that goes by the file's name; Bad for any other row.

    The response is all that the model wrote (`Owner.completion`). `asked` are the benchmark's questions by id, for rows
    that do not repeat theirs. Sound is looked for in `audio`, or beside the file, in the owner's layout. Where it is
    not there, and the owner does not say how long it is, a clip is taken to be as long as the last time that is known
    of it, at least 1 s, and the question is labelled UNKNOWN_LENGTH. Raises RecordError where the file cannot be read
    on.
    """
    for line, row in read_rows(path):
        entry = Entry(path, line, row)
        try:
            text, prediction = owner.completion(row, owner.key), owner.prediction(row, owner.key)
            if text is None or prediction is None:
                raise RecordError(owner.key, "is missing: no prediction")
            question = owner.question(entry) if asked is None else _asked(row, owner, asked)
            trace = owner.trace(row)
            segments = () if trace is None else trace.segments
            about = _question(question, path, text, audio or path.parent, segments)
            yield Answered(Response(about, path.stem, text), prediction, owner, segments)
        except RecordError as error:
            yield entry.bad(error)


def read_answers(
    path: Path, errors: Path, audio: Path | None = None, questions: Path | None = None
) -> list[Answered]:
    """The answers of a file of ours, of a trainer's log or of a benchmark's own; of these, rows without one go to
    `errors`. `audio` is the folder where their sound lies now, `questions` what was asked: the benchmark's own file, or
    of a log questions.jsonl.

    Raises RecordError as `read_responses` does, and where `questions` is no benchmark's.
    """
    of_trainer = is_log(path)
    owner = None if of_trainer else owner_of_predictions(path)
    if owner is None and not of_trainer:
        return [Answered(response) for response in moved(read_responses(path, several=True), audio)]
    rows: Iterator[Answered | Response | Bad | Foreign]
    if owner is not None:
        found = None if questions is None else benchmark_questions(questions)
        asked = None if found is None else {q.id: q for q in found if isinstance(q, BenchmarkQuestion)}
        rows = owners_answers(path, owner, audio, asked)
    else:
        known = None if questions is None else {q.id: q for q in read_questions(questions)}
        rows = read_log(path, known)
    answers: list[Answered] = []
    for row in rows:
        if isinstance(row, Bad | Foreign):
            errors.parent.mkdir(parents=True, exist_ok=True)
            append_jsonl(errors, asdict(row))
        else:
            answers.append(Answered(row) if isinstance(row, Response) else row)
    if owner is not None:
        return answers
    there = moved([answer.response for answer in answers], audio)
    return [replace(answer, response=response) for answer, response in zip(answers, there, strict=True)]


def _asked(
    row: Mapping[str, object], owner: Owner, asked: Mapping[str, BenchmarkQuestion]
) -> BenchmarkQuestion:
    id_ = owner.composed_id(row) or str(row.get("id"))
    if id_ not in asked:
        raise RecordError("id", f"{id_!r} is not among the questions")
    return asked[id_]


def _question(
    item: BenchmarkQuestion, path: Path, text: str, folder: Path, segments: tuple[Word, ...]
) -> Question:
    paths = [locate(folder, name) for name in item.places]
    sound = next((found for found in paths if found.is_file()), None)
    where = item.places[0] if sound is None else place(sound, path.parent)
    length = _heard_length(sound) or item.duration
    if length is not None:
        return item.about(where, length)
    ends = [mention.end for mention in find_mentions(text)] + [segment.end for segment in segments]
    guessed = item.about(where, max([1.0, *ends]))
    return replace(guessed, labels=(*guessed.labels, UNKNOWN_LENGTH))


def _heard_length(sound: Path | None) -> Seconds | None:
    try:
        return None if sound is None else audio.duration(sound)
    except AudioError:
        return None  # as if it were not there: who hears it says so
