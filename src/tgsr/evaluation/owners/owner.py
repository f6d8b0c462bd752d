"""What every benchmark's owner has: questions in their layout, predictions under their key, a rule that scores them."""

from __future__ import annotations

import ast
import os
import re
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

from tgsr.choices import extract_choice
from tgsr.disk.jsonl import maybe_json
from tgsr.disk.rows import Entry
from tgsr.errors import RecordError
from tgsr.evaluation.owners.ruling import Ruling
from tgsr.reading.naming import LETTERED, without_letters
from tgsr.reasoning import reasoning_steps
from tgsr.records import Question
from tgsr.timeline import Seconds, Span, Word

Benchmark = Literal["mmau", "mmau-pro", "mmar", "mmsu", "airbench", "daily-omni", "meld"]
Labels = tuple[tuple[str, str], ...]
Choices = Sequence[str | None]
"""In the owner's order, null where the owner's row has none."""
COPY = "copy it from the benchmark's file"
BROKEN_DOWN = ("domain", "category", "sub-category", "difficulty")
# Of a row: the whole text, where the owner's key holds the choice that was read out of it.
COMPLETION = "completion"
_LETTERS = string.ascii_uppercase
_LETTER_IN_LINE = re.compile(r"(?<![^\s,;|])(?:\([A-Za-z]\)|[A-Z][.):])(?=\s)")


@dataclass(frozen=True, slots=True)
class BenchmarkQuestion:
    """One question of a benchmark, checked, whose sound file was not looked for yet.

    `clip_id` is the same for questions about the same file. `places` are the paths below the audio folder at which the
    file may lie, the owner's own layout first.
    """

    entry: Entry
    id: str
    clip_id: str
    places: tuple[str, ...]
    question: str
    choices: tuple[str, ...]
    answer: str
    task: str
    labels: Labels
    split: str = "test"
    duration: Seconds | None = None  # of the clip, where the owner's row says it
    phrase: str | None = None  # of a benchmark that asks where something is
    evidence: tuple[Span, ...] = ()

    def about(self, audio: str, duration: Seconds) -> Question:
        """The question about its sound: where that is, and how long. RecordError as Question raises it."""
        return Question(
            id=self.id,
            clip_id=self.clip_id,
            audio=audio,
            duration=duration,
            kind="choice" if self.phrase is None else "phrase",
            question=self.question,
            answer=self.answer,
            choices=self.choices,
            phrase=self.phrase,
            evidence=within(self.evidence, duration),
            task=self.task,
            split=self.split,
            labels=self.labels,
        )


@dataclass(frozen=True, slots=True)
class Trace:
    """A whole completion beside a prediction, and what is said in its clip: segments with their times, as words."""

    text: str
    segments: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One question of a benchmark in its owner's form, with a model's prediction.

    `prediction` is None where the row lacks its key: the official scorers skip it. One that is null is an empty one,
    but in AIR-Bench, where it is none. `answer` is None where the row has none. `labels` are what scores are broken
    down by, domain and categories among them. `trace` is what the paper's authors publish beside their predictions.
    `follows` says of an instruction whether a text keeps to it; its `answer` names the instruction.
    """

    id: str
    audio: str
    choices: tuple[str | None, ...]
    answer: str | None
    prediction: str | None
    labels: Labels = ()
    trace: Trace | None = None
    follows: Callable[[str], bool | None] | None = None

    def labelled(self, name: str) -> tuple[str, ...]:
        """The values of the labels of that name."""
        return tuple(value for label, value in self.labels if label == name)


class Owner(ABC):
    """One benchmark's layout and rule.

    `key` is the prediction's in the owner's own file. A row with any of `marks` is one of its predictions, one with all
    of `question_marks` one of its questions. `is_list`: its file is a JSON list, else JSON
    lines. `columns` say where `tgsr import` finds a question's fields.
    """

    name: ClassVar[Benchmark]
    key: ClassVar[str]
    marks: ClassVar[tuple[str, ...]]
    question_marks: ClassVar[tuple[str, ...]]
    columns: ClassVar[Mapping[str, str]] = {}
    has_scorer: ClassVar[bool] = True
    is_list: ClassVar[bool] = False
    reads_letters: ClassVar[bool] = False

    @abstractmethod
    def question(self, entry: Entry) -> BenchmarkQuestion:
        """The question of a row. Raises RecordError for a row that cannot be asked."""

    @abstractmethod
    def labels(self, entry: Entry) -> Labels:
        """What a question of ours is labelled with."""

    @abstractmethod
    def row(self, row: Mapping[str, Any]) -> BenchmarkRow:
        """A row of predictions. Raises RecordError for one without an id, choices, or a usable answer."""

    @abstractmethod
    def judged(self, text: str, choices: Choices, answer: str | None, chosen: int | None) -> Ruling:
        """The owner's rule on a text, and strict's on the option that is chosen in it."""

    def composed_id(self, row: Mapping[str, Any]) -> str | None:
        """The id that is put together from several columns; None where the row lacks them, or has an id itself."""
        return None

    def options(self, row: Mapping[str, Any]) -> list[str]:
        """The choices' texts in the owner's order, "" for null ones. Raises RecordError where they are no list."""
        values = row.get("choices") or []
        if not isinstance(values, list):
            raise RecordError("choices", f"must be a list, got {values!r:.60}")
        return ["" if value is None else str(value) for value in values]

    def prediction(self, row: Mapping[str, Any], key: str) -> str | None:
        """The prediction's text; None without one. null is an empty one, and what is no text is written out."""
        return None if key not in row else "" if row[key] is None else str(row[key])

    def completion(self, row: Mapping[str, Any], key: str) -> str | None:
        """All that the model wrote: the prediction, or the whole completion beside it; None without any."""
        trace, whole = self.trace(row), row.get(COMPLETION)
        if trace is not None:
            return trace.text
        return whole if isinstance(whole, str) and whole.strip() else self.prediction(row, key)

    def trace(self, row: Mapping[str, Any]) -> Trace | None:
        """The completion and the clip's segments, from the columns of the paper's authors; None without them.

        Their transcripts are written as `"You seem a little nervous." (3.69-4.61 s), ...`.
        """
        text, transcript = row.get("model_prediction"), row.get("gt_transcription")
        if not isinstance(text, str) or not isinstance(transcript, str):
            return None
        said = ((step.mention.span, " ".join(step.heard)) for step in reasoning_steps(transcript))
        segments = (Word(words, span.start, span.end) for span, words in said if span is not None)
        return Trace(text, tuple(segments))

    def breakdown(self, labels: Labels) -> Labels:
        """Those labels of a question of ours by which the owner's scores are broken down."""
        return tuple(pair for pair in labels if pair[0] in BROKEN_DOWN)

    def handed_over(self, text: str, choices: Choices, chosen: int | None) -> str:
        """What a careful user gives the owner's script: the chosen option in the form that the script wants, without
        its letter; the whole text where none is.
        """
        return text if chosen is None else choices[chosen] or text

    def beside(self, text: str, choices: Choices) -> dict[str, str]:
        """What the owner's rows of predictions hold beside the answer, by column."""
        return {}

    def ruling(self, text: str, choices: Choices, answer: str | None) -> Ruling:
        """One answer as the benchmark's owner scores it, and as we read it.

        `choices` are in the owner's order, null ones included; `answer` None is unknown.
        """
        return self.judged(text, choices, answer, extract_choice(text, choices))

    def rulings(self, text: str, choices: Choices, answer: str, chosen: int | None) -> tuple[Ruling, Ruling]:
        """What the owner's script says of the option that a completion ends up with, and of the whole completion.

        `chosen` is that option, as extract_choice reads it; where it is unclear, the script gets the whole text.
        """
        as_is = self.judged(text, choices, answer, chosen)
        if chosen is None:
            return as_is, as_is
        return self.judged(self.handed_over(text, choices, chosen), choices, answer, chosen), as_is


def within(spans: Sequence[Span], duration: Seconds) -> tuple[Span, ...]:
    """The spans cut to the clip: those of a benchmark may be whole seconds. RecordError where none of them is in it."""
    inside = tuple(Span(one.start, min(one.end, duration)) for one in spans if one.start < duration)
    if spans and not inside:
        raise RecordError("evidence", f"is at {spans[0].start:g} s, and the sound lasts {duration:.2f} s")
    return inside


# --- checked values of a question ------------------------------------------------------------------------


def choices_of(values: object) -> tuple[str, ...]:
    """The choices' texts as they are; null and blank ones left out. Raises RecordError for what is no list of texts."""
    if not isinstance(values, list):
        raise RecordError("choices", f"must be a list, got {values!r:.80}")
    kept = [value for value in values if value is not None and str(value).strip()]
    for value in kept:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise RecordError("choices", f"each must be text, got {value!r:.80}")
    return tuple(map(str, kept))


def answer_of(entry: Entry, field: str, choices: Sequence[str]) -> str:
    """The choice that the row says is right. Raises RecordError where it is none of them."""
    value = entry.values.get(field)
    if value is None:
        problem = "is missing: the owner keeps the answers of this part, so it cannot be scored here"
        raise RecordError(field, problem)
    answer = str(value)
    same = [choice for choice in choices if choice == answer]
    same += [choice for choice in choices if choice.strip() == answer.strip()]
    if not same:
        raise RecordError(field, f"{answer!r:.80} is not one of the choices {list(choices)!r:.200}")
    return same[0]


def texts_of(value: Any) -> tuple[str, ...]:
    """Texts without letters, from a list, one in JSON or Python, an object by letter, or text with |, line breaks or
    each option's letter, "A. Man B. Woman", between.
    """
    if isinstance(value, str):
        value = _written_list(value) or _lettered(value) or re.split(r"\s*\|\s*|\n", value)
    if isinstance(value, dict) and [str(key).upper() for key in value] == list(_LETTERS[: len(value)]):
        value = list(value.values())
    if not isinstance(value, list):
        raise RecordError("choices", f"must be a list or texts with | between, got {value!r:.60}")
    there = [str(item).strip() for item in value if item is not None and item == item]  # NaN is pandas' blank
    return tuple(without_letters([text for text in there if text]))


def _written_list(text: str) -> list[Any] | dict[Any, Any] | None:
    """What is written as JSON or, by pandas and csv, as Python writes a list or a dict; None for any other text."""
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    parsed = maybe_json(text)
    if parsed is None:
        try:
            parsed = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return parsed if isinstance(parsed, list | dict) else None


def _lettered(text: str) -> list[str] | None:
    """The pieces of one line that its letters part, in their order from A; None where fewer than two of them do."""
    starts = [match.start() for match in _LETTER_IN_LINE.finditer(text)]
    pieces = [text[a:b].strip(" ,;|") for a, b in pairwise([*starts, len(text)])]
    letters = "".join(match[1].upper() for match in map(LETTERED.match, pieces) if match)
    is_whole = len(pieces) > 1 and starts[0] == len(text) - len(text.lstrip())
    return pieces if is_whole and "\n" not in text and letters == _LETTERS[: len(pieces)] else None


def answer_among(value: Any, choices: Sequence[str]) -> str:
    """The right choice's text, from its text, with or without its letter, or from the letter alone."""
    text = str(value).strip()
    bare = LETTERED.sub("", text, count=1)
    for candidate in (text, bare):
        if candidate in choices:
            return candidate
    letter = re.fullmatch(r"\(?([A-Za-z])[).:]?", text)
    index = ord(letter[1].lower()) - 97 if letter else -1
    if 0 <= index < len(choices):
        return choices[index]
    raise RecordError("answer", f"{text!r} is none of the choices {list(choices)!r}")


def several(value: object) -> tuple[str, ...]:
    """The texts of a value that is one text or a list of them; null and blank ones left out."""
    values = value if isinstance(value, list) else [value]
    texts = [str(item).strip() for item in values if item is not None]
    return tuple(dict.fromkeys(text for text in texts if text))


def labels_of(*pairs: tuple[str, str | None]) -> Labels:
    return tuple((name, value) for name, value in pairs if value)


def below(name: str) -> tuple[str, str]:
    """The owner's path ("./audio/x.wav"), and the file alone, where --audio names the folder itself."""
    return os.path.normpath(name), os.path.basename(name)


# --- values of a row of predictions ----------------------------------------------------------------------


def id_in(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if isinstance(value, int) and not isinstance(value, bool) and field != "id":
        return str(value)  # AIR-Bench's and MELD's are numbers
    if not isinstance(value, str) or not value:
        raise RecordError(field, f"must be text, got {value!r:.80}", remedy=COPY)
    return value


def answer_in(row: Mapping[str, Any], field: str) -> str | None:
    """The right choice's text; None where the row has none, as in a test set whose answers are kept secret."""
    value = row.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise RecordError(field, f"must be text, got {value!r:.80}", remedy=COPY)
    return value


def plain_id(id_: str) -> str:
    """MELD's clip without the split that questions of ours name before it: "meld-test-dia0_utt0" is "dia0_utt0"."""
    return id_.rpartition("-")[2] if id_.startswith("meld-") else id_
