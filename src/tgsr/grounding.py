"""Times in a model's text: the strict parser, and the paper's counter of timestamp mentions.

Both read in time linear in the text's length: a mention is looked for with repeats that are bounded, or
that one literal anchors, so that no run of digits, blanks or brackets is scanned twice from two places.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from tgsr.notation.intervals import stated, two_numbers
from tgsr.notation.points import points
from tgsr.notation.times import Stated, plain
from tgsr.reading.thoughts import said_aloud
from tgsr.records import Response
from tgsr.timeline import Seconds, Span

# --- the paper's counter -------------------------------------------------------------------------------

# Any digits, a full stop, any digits: "3." is a number. Written so that a run of digits can be split in one way only.
_NUMBER = r"\d+(?:\.\d*)?"
# An optional unit takes its blanks with it: as `\s*(unit)?\s+` a long run of blanks would be split in
# every possible way. No word boundary after it: the s of a following word is eaten.
_OPTIONAL_UNIT = r"(?:\s*(?:seconds?|s))?"
# Only the count matters, so a form may begin at the end of its first number and end at the first digit
# of its last wherever what is left out can't change whether or how often it matches.
# With each form stands a piece of it, in lower case, that no match lacks: looking for that is cheap. No piece
# holds an i, k or s, which IGNORECASE also finds in letters that have another lower case.
_OFFICIAL_FORMS = tuple(
    (piece, re.compile(form, re.IGNORECASE))
    for piece, form in (
        (
            "tart",
            rf"(?=s)starts?\s+at\s+{_NUMBER}{_OPTIONAL_UNIT}\s+and\s+ends?\s+at\s+{_NUMBER}{_OPTIONAL_UNIT}",
        ),
        ("from", rf"(?=f)from\s+{_NUMBER}{_OPTIONAL_UNIT}\s*to\s+\d"),
        ("(", rf"\({_NUMBER}s?\s*[-–]\s*{_NUMBER}s?\)"),
        ("(", rf"\({_NUMBER}\s*,\s*{_NUMBER}\)"),
        ("econd", rf"(?<=\d)\.?\s*(?:to|[-–])\s*{_NUMBER}\s*second"),
    )
)
_ANY_DIGIT = re.compile(r"\d")


def count_mentions(text: str) -> int:
    """The official k: matches of five surface forms, any case, summed, nothing de-duplicated.

    The forms: "starts at X and ends at Y"; "from X to Y"; "(X-Y)" with a hyphen or an en dash; "(X, Y)";
    "X to Y seconds" or "X-Y seconds". The first two take an optional s, second or seconds after a
    number, the third an s with no blank before it; "3." is a number. So "From 0.2 to 1.4 seconds" counts 2,
    "from 2 to 3 people" and "(3, 5)" count 1, and "[0.2s - 1.4s]", "0:12 - 0:15" and "(12.05 – 14.29 s)" count 0.
    No mention, or no text, is 0. Source: k of section 3.2's R_tg, as the authors compute it.
    """
    if _ANY_DIGIT.search(text) is None:
        return 0
    lowered = text.lower()
    return sum(len(form.findall(text)) for piece, form in _OFFICIAL_FORMS if piece in lowered)


# --- the strict parser ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mention:
    """An interval as the text states it, in seconds, at the characters [text_start, text_end).

    The characters run from the first number to the last unit; where a text stands between the two times (JSON,
    Whisper's tokens), they are the first time's. `start` and `end` are what was written: end <= start, or a start
    below 0, is the model's error, kept here and absent from `find_spans`.
    """

    text_start: int
    text_end: int
    start: Seconds
    end: Seconds

    @property
    def is_valid(self) -> bool:
        return 0 <= self.start < self.end

    @property
    def span(self) -> Span | None:
        """The interval as a span; None where it is invalid."""
        return Span(self.start, self.end) if self.is_valid else None


# A line that gives the answer, and the next one where it ends with the sign.
_ANSWER_LINE = re.compile(
    r"^[^\w\n{]{0,8}(?:(?:so|thus|therefore|hence),? )?(?:the |my )?"
    r"(?:(?:final|correct|best|right) (?:answer|choice|option)|answer|ans|答案)\b[*_\"' ]{0,4}"
    r"(?:is\b|would be\b|must be\b|should be\b|[:：=是])(?:[*_: ]{0,6}\n\s{0,8})?[^\n]*"
    r"|[\"'](?:final_)?answer[\"']\s?:\s?[\"'][^\"'\n]*",
    re.IGNORECASE | re.MULTILINE,
)
_OPTION_LINE = re.compile(r"[^\w\n(]{0,4}(?:\([a-j]\)|[a-j][.):]\s)", re.IGNORECASE)


def find_mentions(text: str) -> list[Mention]:
    """Every interval that the text states, valid or not, in order of appearance, duplicates kept.

    Read as intervals: two times that a dash, "to", "until", "between ... and", "and ends at" or "and lasts for"
    joins, alone or in brackets or tags; times labelled start and end, in JSON, lists or sentences; a table's
    start and end columns; Whisper's <|1.20|>; "the first 3 seconds"; the same in Chinese, and its
    common forms in other languages. There must be a sign that seconds are meant: a unit on one side at least, clock
    notation (m:ss or h:mm:ss) on both, a "mark", a label or a tag. Without one two decimals are taken where nothing
    but a time is likely: "starts at X and ends at Y", "From X to Y" at the head of a clause, alone in brackets or
    on a line.
    Left out: single times, decades, ages, years, dates, scores, counts and measures of something else, sums
    ("11.0 - 1.6 = 9.4 seconds"), chains ("1-2-3 s"), lengths ("for 3 to 5 seconds", "a 30-60 second clip"), times
    of day, numbers of more than six digits before the point; and what could be read in two ways.
    An empty text gives []. Source: the notations seen in the authors' and other models' outputs.
    """
    return list(_mentions(text))


@lru_cache(maxsize=64)  # scores, rewards and pages ask for the same response's several times in a row
def _mentions(text: str) -> tuple[Mention, ...]:
    return tuple(Mention(*one) for one in stated(plain(text)))


@dataclass(frozen=True, slots=True)
class Point:
    """A single time, in seconds, that the text states at the characters [text_start, text_end)."""

    text_start: int
    text_end: int
    seconds: Seconds


def find_points(text: str) -> list[Point]:
    """Every single time that the text gives as a place in a recording, in order of appearance: "at 5.2 s".

    What belongs to an interval of `find_mentions` is none; nor are lengths and times of day. An empty text gives [].
    """
    found = points(plain(text))
    intervals = find_mentions(text) if found else []  # in order, and apart
    starts = [one.text_start for one in intervals]
    single = []
    for time in found:
        before = bisect_right(starts, time.at)
        if not before or time.at >= intervals[before - 1].text_end:
            single.append(Point(time.at, time.stop, time.seconds))
    return single


def find_regions(text: str) -> list[Mention]:
    """The intervals of `find_mentions` that the reasoning states: those in the answer's line are none.

    The answer's line begins with "answer:", "The final answer is" or the like, or it is the last one and begins with an
    option, "(b)"; what stands in <answer> is one too. Where nothing else is said, reasoning and answer are one, and
    its intervals count.
    """
    mentions = find_mentions(text)
    if not mentions:
        return mentions
    answers = [match.span() for match in _ANSWER_LINE.finditer(text)] + _tagged(text)
    last = text.rstrip().rfind("\n") + 1
    if last and _OPTION_LINE.match(text, last):
        answers.append((last, len(text)))
    if not answers or not (text[: min(answers)[0]].strip() or text[max(answers)[1] :].strip()):
        return mentions
    return [m for m in mentions if not any(start <= m.text_start < end for start, end in answers)]


def find_asked(text: str, phrase: str | None = None) -> list[Mention]:
    """The distinct intervals that the answer to "when is `phrase` said?" states: one, if it can be read.

    The answer is what stands in <answer>, else behind "answer:", else behind the thoughts, else the whole text; numbers
    of the phrase, where the text repeats it, are none of the answer's. One interval is expected, so that numbers need
    no sign that they are seconds: "3.20 to 5.60", "[3, 5]", "3.20, 5.60", "Start: 3, End: 5". An interval in whole
    seconds is dropped beside the same one in decimals. [] where nothing is stated; several, or one that ends before it
    starts, are as they were written: see `asked_span`. No text raises.
    """
    text = _without(text, phrase)
    for start, end in _answers(text):
        answer = plain(text[start:end]).rstrip()
        place = start + len(answer) - len(answer.lstrip())
        answer = answer.lstrip()  # an interval at its head stands at the head of a line
        for read in (stated, partial(stated, is_asked=True), two_numbers):
            if found := _distinct(read(answer)):
                outside = _distinct(read(_QUOTED.sub(_blanks, answer))) if len(found) > 1 else []
                told = outside if len(outside) == 1 else found
                return [
                    replace(m, text_start=m.text_start + place, text_end=m.text_end + place) for m in told
                ]
    return []


_SAID = (
    r"(?:said|says?|spok\w+|utter\w*|present|appear\w*|occur\w*|heard|hear|mention\w*|found|find|locat\w+"
    r"|contain\w*|exist\w*|detect\w*|audible|there|in)"
)
_NOT_SAID = re.compile(
    rf"(?:\bnot\b|n't\b|\bnever\b)[^.;\n]{{0,30}}\b{_SAID}\b"
    r"|\b(?:cannot|can't|could ?n[o']t|unable to|failed to) (?:\w+ ){0,2}(?:find|locate|hear|detect|identify)"
    r"|\bno (?:such|matching|occurrences?|mention|instances?|match(?:es)?)\b|\b(?:absent|nowhere|inexistent)\b"
    r"|\bmissing from\b"
    r"|^\W*(?:none|null|n/?a|not applicable|no|nothing|nil|false|-1|\[\s*\])\W*$|\"(?:start|end|start_time"
    r"|end_time)\"\s*:\s*(?:null|-1)"
    r"|\bno (?:se (?:dice|menciona|escucha|oye|encuentra)|aparece|está)\b|\bn['’](?:est|apparaît|y a) pas\b"
    r"|\bnon (?:viene|si|è|compare)\b"
    r"|\bnicht (?:gesagt|erwähnt|vor\b|gefunden|enthalten|zu hören|gesprochen)|\bnão (?:é|se|aparece|foi|está)\b"
    r"|\bне (?:произн|звуч|найд|упомин|встреч|говор|сказан|слыш)"
    r"|ません|ていない|않(?:습니다|는다|음)|없(?:습니다|다|음)"
    r"|没有|沒有|未(?:出现|提到|找到|提及)|不存在|不在|找不到",
    re.IGNORECASE,
)


def says_absent(text: str, phrase: str | None = None) -> bool:
    """Whether the answer to "when is `phrase` said?" is that it is not said: in words, as null, or as 0 to 0 s.

    A text that states an interval says where, whatever else it says, and an empty one says nothing. What the text
    repeats of the phrase is no part of it. No text raises.
    """
    mentions = find_asked(text, phrase)
    if mentions:
        return all(mention.start == mention.end == 0 for mention in mentions)
    if phrase:
        text = re.sub(re.escape(phrase), _blanks, text, flags=re.IGNORECASE)
    start, end = _answers(text)[0]
    return _NOT_SAID.search(plain(text[start:end]).strip()) is not None


def mentions_in(response: Response) -> list[Mention]:
    """What a response states: `find_asked` of the answer to a phrase question, `find_mentions` of any other."""
    return _asked_or(find_mentions, response)


def regions_in(response: Response) -> list[Mention]:
    """What a response cites: `find_asked` of the answer to a phrase question, `find_regions` of any other."""
    return _asked_or(find_regions, response)


def _asked_or(find: Callable[[str], list[Mention]], response: Response) -> list[Mention]:
    question, text = response.question, response.text
    return find_asked(text, question.phrase) if question.kind == "phrase" else find(text)


def valid_spans(mentions: Iterable[Mention]) -> list[Span]:
    """The intervals of the valid mentions (0 <= start < end), in their order, duplicates kept; [] without any.

    Seconds; not cut to any clip, whose length the text doesn't know.
    """
    return [mention.span for mention in mentions if mention.span is not None]


def asked_span(mentions: Sequence[Mention]) -> Span | None:
    """The one span of `find_asked`; None where nothing, several different intervals or no valid one were stated."""
    return mentions[0].span if len(mentions) == 1 else None


def places_stated(mentions: Sequence[Mention], n_places: int) -> list[Span]:
    """What answers "where is it?": `asked_span` as a list, of a question about several places all that are stated."""
    if n_places > 1:
        return valid_spans(mentions)
    span = asked_span(mentions)
    return [] if span is None else [span]


_QUOTED = re.compile(r"\"[^\"\n]{1,400}\"")
_ANSWER_TAG = re.compile(r"<answer>", re.IGNORECASE)
_ANSWER_SIGN = re.compile(r"\banswer(?: is)?\s?:|答案\s?[:：]", re.IGNORECASE)


def _without(text: str, phrase: str | None) -> str:
    """The text with blanks where it repeats the phrase, of the same length."""
    if not phrase or not any(character.isdigit() for character in phrase):
        return text
    pattern = r"\s+".join(map(re.escape, phrase.split()))
    return re.sub(rf"(?<!\w){pattern}(?!\w|\.[0-9])", _blanks, text, flags=re.IGNORECASE)


def _blanks(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _answers(text: str) -> list[tuple[int, int]]:
    """Where the answer may stand, the likeliest place first, the whole text (without its thinking) last."""
    start, stop, is_thinking = said_aloud(text)
    if is_thinking:
        return [(len(text), len(text))]
    if "answer" not in text.lower() and "答案" not in text:
        return [(start, stop)]
    places = _tagged(text, start)
    places += [(match.end(), stop) for match in _ANSWER_SIGN.finditer(text, start, stop)][-1:]
    return [*places, (start, stop)]


def _tagged(text: str, start: int = 0) -> list[tuple[int, int]]:
    """Where the last <answer> from `start` on and its end stand; [] without one."""
    tags = [*_ANSWER_TAG.finditer(text, start)][-1:]
    ends = [text.find("</", tag.end()) for tag in tags]
    return [(tag.end(), len(text) if end < 0 else end) for tag, end in zip(tags, ends, strict=True)]


def _distinct(read: Sequence[Stated]) -> list[Mention]:
    """The mentions with different times; of two that are the same to the second the one with decimals."""
    mentions = [Mention(*one) for one in read]
    if len(mentions) < 2:
        return mentions
    different = list({(mention.start, mention.end): mention for mention in reversed(mentions)}.values())[::-1]
    finer = [m for m in different if not (m.start.is_integer() and m.end.is_integer())]
    return [
        m
        for m in different
        if m in finer or not any(abs(m.start - f.start) < 1 and abs(m.end - f.end) < 1 for f in finer)
    ]


def find_spans(text: str) -> list[Span]:
    """The `valid_spans` of `find_mentions`, in order of appearance."""
    return valid_spans(find_mentions(text))


def count_distinct(text: str) -> int:
    """The strict k: different valid intervals of `find_regions`: saying one twice counts once; 0 without any."""
    return len({(mention.start, mention.end) for mention in find_regions(text) if mention.is_valid})
