"""One question about one recording: the response, the spans that it cites, and their sound."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

import numpy as np

from tgsr import audio
from tgsr.answering.responder import ClipQuestion, Responder, require_heard
from tgsr.errors import ModelError
from tgsr.grounding import Mention, find_asked, find_mentions, valid_spans
from tgsr.llm.decoding import GREEDY, Cut, Failed
from tgsr.models.lalm import Lalm
from tgsr.notation.times import AFTER, BEFORE, NUMBER_HEAD, Time, plain, times_of
from tgsr.overlap import evidence_crop
from tgsr.prompts import choice_question, open_question
from tgsr.records import MOST_CHOICES
from tgsr.timeline import Seconds, Span

MOST_LETTERS = 4000  # of a question and its choices together
AskedLong = Literal["refuse", "split", "windows"]
"""What is done about a recording that is longer than a model hears."""


@dataclass(frozen=True, slots=True)
class CitedAnswer:
    """A response and its evidence.

    `spans` are the distinct valid spans that the text cites, in order of appearance; `evidence` is their sound, each
    padded by 0.5 s, 16 kHz mono, empty where nothing inside the recording is cited. `unmoved` are the text's times that
    `moved` has left as they were. `window` is the part of a longer recording that was heard for it.
    """

    text: str
    spans: tuple[Span, ...]
    n_invalid: int
    evidence: np.ndarray
    unmoved: tuple[str, ...] = ()
    window: Span | None = None

    def moved(self, by: Seconds, choices: Sequence[str] = (), phrase: str | None = None) -> CitedAnswer:
        """The same on the clock of a recording of which `by` seconds were left out before what was heard.

        Times in the words of one of the `choices` stay: they are the asker's. `phrase` is what was to be located.
        """
        spans = tuple(Span(span.start + by, span.end + by) for span in self.spans)
        text, unmoved = moved_times(self.text, by, choices, phrase)
        window = None if self.window is None else Span(self.window.start + by, self.window.end + by)
        return replace(
            self,
            text=Cut(text) if isinstance(self.text, Cut) else text,
            spans=spans,
            unmoved=tuple(dict.fromkeys((*self.unmoved, *unmoved))),
            window=window,
        )


def ask(
    model: Lalm | Responder,
    samples: np.ndarray,
    question: str,
    choices: tuple[str, ...] = (),
    *,
    phrase: bool = False,
    long_audio: AskedLong = "refuse",
) -> CitedAnswer:
    """The model's greedy response under the paper's prompts: B.1.1 or B.1.2 for a phrase, B.1.3 for a question.

    It is cut where the model's context ends.
    With "windows" a recording longer than a Lalm hears is heard in several, and one of them answers (in_windows.py).

    Raises ModelError for a blank question, one choice, choices with a phrase, a recording that is too long for the
    model, and where the model gives no response.
    """
    about = asked(model, question, choices, phrase)
    text = about.text
    duration = len(samples) / audio.SAMPLE_RATE
    if not isinstance(model, Lalm):
        require_heard(model, duration)
        (answer,) = model.respond([samples], [about], GREEDY)
        return _cited(answer, samples, question, phrase, model.name)
    # They need torch, without which a cascade quotes.
    from tgsr.answering.in_windows import answer_in_windows, cut, locate_in_windows
    from tgsr.answering.predict import as_long_as_fits, respond
    from tgsr.engine.features import without_cache

    if long_audio == "windows" and duration > model.max_seconds:
        if phrase:
            one = locate_in_windows(model, samples, question, model.max_seconds)
        else:
            one = answer_in_windows(model, samples, text, question, model.max_seconds)
        cited = _cited(one.text, cut(samples, one.window), question, phrase, model.name)
        moved = cited.moved(one.window.start, choices, about.phrase)
        return replace(moved, window=one.window)
    heard = without_cache(model, samples, "refuse" if long_audio == "windows" else long_audio)
    prompt = model.prompt(text).after
    (answer,) = respond(model, [heard], [(0, prompt)], as_long_as_fits(model, prompt, [heard]))
    return _cited(answer, samples, question, phrase, model.name)


def asked(
    model: Lalm | Responder, question: str, choices: tuple[str, ...] = (), phrase: bool = False
) -> ClipQuestion:
    """The question as the model is asked it, under the paper's prompts. ModelError for what cannot be asked."""
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
        text = model.open_question(question) if isinstance(model, Lalm) else open_question(question)
    return ClipQuestion(0, text, question, choices, question if phrase else None)


def _cited(answer: str | Failed, samples: np.ndarray, question: str, phrase: bool, name: str) -> CitedAnswer:
    """The answer about these samples with what it cites of them. ModelError where there is none."""
    text, spans, n_invalid = cited_spans(answer, question, phrase, name)
    cited = evidence_crop(spans, len(samples) / audio.SAMPLE_RATE)
    return CitedAnswer(text, spans, n_invalid, audio.crop(samples, cited))


def cited_spans(
    answer: str | Failed, question: str, phrase: bool, name: str
) -> tuple[str, tuple[Span, ...], int]:
    """The response, the distinct valid spans that it cites, and the number of invalid ones.

    ModelError where there is no response.
    """
    if isinstance(answer, Failed):
        raise ModelError(f"{name}: no response: {answer.reason}")
    mentions = find_asked(answer, question) if phrase else find_mentions(answer)
    spans = tuple(dict.fromkeys(valid_spans(mentions)))
    return answer, spans, sum(not mention.is_valid for mention in mentions)


_NUMBER = re.compile(r"(?:\A-)?[0-9]+(?::[0-5][0-9])*(?:[.,][0-9]+)?")
# What stands before and after a time that is a place in the recording, and one that is a length or a time of day.
_PLACE = re.compile(
    r"(?:\b(?:at|until|till|since|starts?|begins?|ends?|stops?|occurs?|second|t ?[=:])|@|第)\s?"
    + NUMBER_HEAD
    + r"\Z",
    re.IGNORECASE,
)
_PLACE_AFTER = re.compile(r"\s{1,3}(?:on|onwards?|into|marks?)\b", re.IGNORECASE)
_LENGTH = re.compile(
    r"\b(?:for|of|lasts?|lasting|(?:duration|length)(?: of| is|:)?)\s" + NUMBER_HEAD + r"\Z", re.IGNORECASE
)
_LENGTH_AFTER = re.compile(
    r"[\s-]?(?:long|later|earlier|apart|of|in (?:length|total)|[ap]\.?m\b|o'clock)\b", re.IGNORECASE
)
_LISTED = re.compile(r"\s?(?:[,、&]|,?\s?(?:and|or))\s?(?:at\s)?" + NUMBER_HEAD, re.IGNORECASE)


def moved_times(
    text: str, by: Seconds, choices: Sequence[str] = (), phrase: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """The text with its times `by` seconds later, each as it was written: "0:02", "2.5", "00:00:02,500".

    Moved are the intervals that `find_mentions` reads, of an answer to where `phrase` is said also that which
    `find_asked` reads ("[3, 5]"), and points in time ("at 2.5 s", "the 4-second mark", "[0:02]").
    What cannot be moved as it was written (minutes in words) is written anew. The second value are the other times as
    they stand: lengths ("for 4 seconds"), what may be either, and those in the words of one of the `choices`.
    """
    if not by:
        return text, ()
    pieces: list[tuple[int, int, str]] = []
    levelled = plain(text)
    times = times_of(levelled)
    timed = [choice for choice in choices if any(time.unit for time in times_of(plain(choice)))]
    kept = [found.span() for choice in timed for found in re.finditer(re.escape(choice), text, re.IGNORECASE)]

    def is_kept(start: int, end: int) -> bool:
        return any(first < end and start < last for first, last in kept)

    for mention in _stated(text, phrase):
        if is_kept(mention.text_start, mention.text_end):
            continue
        apart = _apart(mention, times)
        if apart:  # a text stands between the two times: {"start": 1.2, "text": "...", "end": 3.4}
            pieces += [(time.at, time.number_stop, later(time.written, by)) for time in apart]
            continue
        written = text[mention.text_start : mention.text_end]
        expected = (round(mention.start + by, 6), round(mention.end + by, 6))
        numbers = list(_NUMBER.finditer(written))
        anew = _at_both_ends(written, numbers, by)
        context = text[: mention.text_start] + anew + text[mention.text_end :]
        read = [(m.start, m.end) for m in _stated(context, phrase) if m.text_start == mention.text_start]
        if read != [expected]:
            anew = f"{expected[0]:.2f} s to {expected[1]:.2f} s"
        pieces.append((mention.text_start, mention.text_end, anew))
    single = [time for time in times if not any(first <= time.at < last for first, last, _ in pieces)]
    points = {time.at: time for time in _points(levelled, single) if not is_kept(time.at, time.unit_stop)}
    pieces += [_moved_point(time, by) for time in points.values()]
    unmoved = tuple(text[time.at : time.unit_stop] for time in single if time.unit and time.at not in points)
    for start, end, anew in sorted(set(pieces), reverse=True):
        text = text[:start] + anew + text[end:]
    return text, unmoved


def _stated(text: str, phrase: str | None) -> list[Mention]:
    stated = [] if phrase is None else [*find_asked(text, phrase)]
    asked = [(one.text_start, one.text_end) for one in stated]
    for one in find_mentions(text):
        if not any(one.text_start < end and start < one.text_end for start, end in asked):
            stated.append(one)
    return stated


def _points(text: str, times: Sequence[Time]) -> list[Time]:
    """Those of a plain text's times that say where something is, and not for how long.

    In a list ("at 3, 5 and 7 seconds") they are all of the kind of the first, but for those that are followed by a word
    that says otherwise.
    """
    points: list[Time] = []
    listed: list[Time] = []
    for n, time in enumerate(times):
        before, after = text[max(0, time.at - BEFORE) : time.at], text[time.stop : time.stop + AFTER]
        goes_on = listed and _LISTED.fullmatch(text, listed[-1].stop, time.at)
        is_place = _PLACE.search(before) or _PLACE_AFTER.match(after) or time.is_mark
        is_place = is_place or (time.unit == "clock" and not _LENGTH.search(before))
        if not (goes_on or is_place) or _LENGTH_AFTER.match(after):
            listed = []
            continue
        listed = [*listed, time] if goes_on else [time]
        is_last = n + 1 == len(times) or not _LISTED.fullmatch(text, time.stop, times[n + 1].at)
        if time.unit or time.is_mark:
            points += listed
            listed = listed[-1:]
        elif is_last:
            listed = []
    return points


def _moved_point(time: Time, by: Seconds) -> tuple[int, int, str]:
    """Where a time stands, and what to write there for the one `by` seconds later."""
    as_written = time.unit in ("", "s", "clock") and _NUMBER.fullmatch(time.written)
    if as_written and (time.unit == "clock" or "," not in time.written):
        return time.at, time.number_stop, later(time.written, by)
    return time.at, time.unit_stop, f"{round(time.seconds + by, 6):g} s"


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
    whole = sum(int(part) * 60 ** (n + 1) for n, part in enumerate(reversed(larger)))
    total = Decimal(seconds) + whole + Decimal(str(by)).normalize()
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
