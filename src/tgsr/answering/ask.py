"""One question about one recording: the response, the spans that it cites, and their sound."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from tgsr import audio
from tgsr.answering.predict import respond
from tgsr.answering.responder import ClipQuestion, Responder, require_heard
from tgsr.engine.features import LongAudio, without_cache
from tgsr.errors import ModelError
from tgsr.grounding import Mention, find_asked, find_mentions
from tgsr.llm.decoding import GREEDY, Cut, Failed
from tgsr.models.lalm import Lalm
from tgsr.notation.times import Time, plain, times_of
from tgsr.overlap import evidence_crop
from tgsr.prompts import REASONING_INSTRUCTION, choice_question
from tgsr.records import MOST_CHOICES
from tgsr.timeline import Seconds, Span


@dataclass(frozen=True, slots=True)
class CitedAnswer:
    """A response and its evidence.

    `spans` are the distinct valid spans that the text cites, in order of appearance; `evidence` is their sound, each
    padded by 0.5 s, 16 kHz mono, empty where nothing inside the recording is cited.
    """

    text: str
    spans: tuple[Span, ...]
    n_invalid: int
    evidence: np.ndarray

    def moved(self, by: Seconds) -> CitedAnswer:
        """The same on the clock of a recording of which `by` seconds were left out before what was heard."""
        spans = tuple(Span(span.start + by, span.end + by) for span in self.spans)
        text = moved_text(self.text, by)
        return replace(self, text=Cut(text) if isinstance(self.text, Cut) else text, spans=spans)


def ask(
    model: Lalm | Responder,
    samples: np.ndarray,
    question: str,
    choices: tuple[str, ...] = (),
    *,
    phrase: bool = False,
    long_audio: LongAudio = "refuse",
) -> CitedAnswer:
    """The model's greedy response under the paper's prompts: B.1.1 or B.1.2 for a phrase, B.1.3 for a question.

    Raises ModelError for a blank question, one choice, choices with a phrase, a recording that is too long for the
    model, and where the model gives no response.
    """
    if not question.strip() or len(choices) == 1 or (phrase and choices):
        raise ModelError(
            f"question {question!r} with {len(choices)} choice(s): give a question that is not blank, "
            "and no choices, or at least two; --phrase takes none"
        )
    if len(choices) > MOST_CHOICES or not all(choice.strip() for choice in choices):
        raise ModelError(
            f"--choice: give at most {MOST_CHOICES}, none of them blank, got {list(choices)!r:.200}"
        )
    if phrase:
        text = model.phrase_question(question)
    elif choices:
        text = choice_question(question, choices)
    else:
        text = f"{question}\n{REASONING_INSTRUCTION}"
    if isinstance(model, Lalm):
        heard = without_cache(model, samples, long_audio)
        answer = respond(model, [heard], [(0, model.prompt(text).after)])[0]
    else:
        require_heard(model, len(samples) / audio.SAMPLE_RATE)
        about = ClipQuestion(0, text, question, choices, question if phrase else None)
        answer = model.respond([samples], [about], GREEDY)[0]
    if isinstance(answer, Failed):
        raise ModelError(f"{model.name}: no response: {answer.reason}")
    mentions = find_asked(answer, question) if phrase else find_mentions(answer)
    spans = tuple(dict.fromkeys(mention.span for mention in mentions if mention.span is not None))
    cited = evidence_crop(spans, len(samples) / audio.SAMPLE_RATE)
    n_invalid = sum(not mention.is_valid for mention in mentions)
    return CitedAnswer(answer, spans, n_invalid, audio.crop(samples, cited))


_POINT = re.compile(
    r"\b(?:at|around)\s(?:about\s)?(?P<time>[0-9]+:[0-5][0-9](?:[.,][0-9]+)?|[0-9]+(?:\.[0-9]+)?(?=\s?(?:s|sec|seconds?)\b))",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?:\A-)?[0-9]+(?::[0-5][0-9])*(?:[.,][0-9]+)?")


def moved_text(text: str, by: Seconds) -> str:
    """The text with its times `by` seconds later, each as it was written: "0:02", "2.5", "00:00:02,500".

    Moved are the intervals that `find_mentions` reads, and points in time ("at 2.5 s"). An interval that cannot be
    moved as it was written (minutes in words) is written anew.
    """
    if not by:
        return text
    pieces: list[tuple[int, int, str]] = []
    times = times_of(plain(text))
    for mention in find_mentions(text):
        apart = _apart(mention, times)
        if apart:  # a text stands between the two times: {"start": 1.2, "text": "...", "end": 3.4}
            pieces += [(time.at, time.number_stop, later(time.written, by)) for time in apart]
            continue
        written = text[mention.text_start : mention.text_end]
        expected = (round(mention.start + by, 6), round(mention.end + by, 6))
        numbers = list(_NUMBER.finditer(written))
        anew = _at_both_ends(written, numbers, by)
        context = text[: mention.text_start] + anew + text[mention.text_end :]
        read = [(m.start, m.end) for m in find_mentions(context) if m.text_start == mention.text_start]
        if read != [expected]:
            anew = f"{expected[0]:.2f} s to {expected[1]:.2f} s"
        pieces.append((mention.text_start, mention.text_end, anew))
    for point in _POINT.finditer(text):
        start, end = point.span("time")
        if not any(first <= start < last for first, last, _ in pieces):
            pieces.append((start, end, later(point["time"], by)))
    for start, end, anew in sorted(set(pieces), reverse=True):
        text = text[:start] + anew + text[end:]
    return text


def _apart(mention: Mention, times: Sequence[Time]) -> list[Time]:
    """The two times of a mention that holds the first one alone; [] of any other."""
    times = [time for time in times if time.unit in ("", "s", "clock")]  # what `later` reads
    first = next((time for time in times if time.at == mention.text_start), None)
    if first is None or mention.text_end != first.unit_stop or first.seconds != mention.start:
        return []
    after = (time for time in times if time.at > first.at and time.seconds == mention.end)
    return [first, *after][:2]


def _at_both_ends(written: str, numbers: Sequence[re.Match[str]], by: Seconds) -> str:
    for number in (numbers[-1], numbers[0]) if len(numbers) > 1 else ():
        written = written[: number.start()] + later(number[0], by) + written[number.end() :]
    return written


def later(time: str, by: Seconds) -> str:
    """A time as it is written ("2.5", "0:02", "0:00:02,500"), `by` seconds later, in the same notation."""
    comma = "," in time
    *larger, seconds = time.replace(",", ".").split(":")
    total = (
        Decimal(seconds)
        + sum(int(part) * 60 ** (n + 1) for n, part in enumerate(reversed(larger)))
        + Decimal(str(by)).normalize()
    )
    if not larger:
        return f"{total:f}"
    fields: list[int] = []
    rest = int(total)
    for _ in larger:
        rest, field = divmod(rest, 60)
        fields.insert(0, field)
    fraction = f"{total % 1:f}"[1:]
    tail = ":".join(f"{field:02d}" for field in fields)
    return f"{rest:0{len(larger[0])}d}:{tail}{fraction}".replace(".", "," if comma else ".")
