"""Times in a model's text: the strict parser, and the paper's counter of timestamp mentions.

Both read in time linear in the text's length: a mention is looked for with repeats that are bounded, or
that one literal anchors, so that no run of digits, blanks or brackets is scanned twice from two places.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

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
    No mention, or no text, is 0. Source: k of section 4.2's R_tg, as the authors compute it.
    """
    if _ANY_DIGIT.search(text) is None:
        return 0
    lowered = text.lower()
    return sum(len(form.findall(text)) for piece, form in _OFFICIAL_FORMS if piece in lowered)


# --- the strict parser ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mention:
    """An interval as the text states it, in seconds, at the characters [text_start, text_end).

    The characters run from the first number to the last unit. `start` and `end` are what was written:
    end <= start, or a start below 0, is the model's error, kept here and absent from `find_spans`.
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


# One character for one, so that offsets stay true: any dash is a hyphen, emphasis and odd spaces are blanks.
_PLAIN = str.maketrans({**dict.fromkeys("‐‑‒–—―−", "-"), **dict.fromkeys("*`\u00a0\u2009\u202f", " ")})

_WS = r"\s{1,4}"
_GAP = r"[ \t]{0,4}"
_CLOCK = r"[0-9]{1,3}:[0-5][0-9](?::[0-5][0-9])?(?:[.,][0-9]{1,3})?"
_SECONDS = r"[0-9]{1,6}(?:\.[0-9]{1,20})?"
# A number ends where no more of it follows: not in the middle of 1.2.3, 1:2:3 or 1,000.
_STOP = r"(?![0-9]|[.:][0-9]|,[0-9]{3}(?![0-9]))"
_TIME = rf"(?:{_CLOCK}|{_SECONDS}){_STOP}"
# A bare number begins where no more of it precedes (2024-01, v1.2, $3), or with a minus sign of its own.
_BEGIN = r"(?:(?<![\w:$£€#/])(?<![0-9][.,])(?<!\w-)|(?:(?<=\w )|(?<=[(\[]))-)"
_UNIT = r"\s{0,2}(?:seconds?|secs?\.?|s)(?!\w)"
_LAST_UNIT = rf"(?P<ub>[)\]]?{_UNIT})"
_NO_UNIT = r"(?![\w%°])"
_NO_CHAIN = rf"(?!{_GAP}-{_GAP}[0-9])"
_ABOUT = rf"(?:(?:about|around|approximately|roughly|exactly){_WS})?"
_TO = rf"""[)\]"']?(?:{_GAP}(?:-{{1,2}}>?|→|~){_GAP}|{_WS}(?:to|until|till|through){_WS}{_ABOUT})[(\["']?"""
_FIRST = rf"(?P<a>-?{_TIME})(?P<ua>{_UNIT})?"
_LAST = rf"(?P<b>{_TIME})(?:{_LAST_UNIT}|{_NO_UNIT})"

# Each form begins with what its first character can be: most characters are passed over at a glance.
_TAG = (
    rf"<seg>\s{{0,4}}(?P<a>{_SECONDS})(?P<ua>{_UNIT})?\s{{0,4}}"
    rf",\s{{0,4}}(?P<b>{_SECONDS})(?P<ub>{_UNIT})?\s{{0,4}}</seg>"
)
_STARTS_ENDS = (
    rf"(?=[sb])\b(?:start|begin)(?:s|ing|ning)?(?:[ _]time)?"
    rf"(?:{_WS}(?:at|from)|\s{{0,2}}[:=])\s{{0,4}}{_ABOUT}{_FIRST}"
    rf"[,;]?{_WS}(?:and{_WS})?(?:it{_WS})?(?:end|stop|finish)(?:s|es|ing)?(?:[ _]time)?"
    rf"(?:{_WS}at|\s{{0,2}}[:=])\s{{0,4}}{_ABOUT}{_LAST}"
)
_BETWEEN = rf"(?=b)\bbetween{_WS}{_ABOUT}{_FIRST}{_WS}and{_WS}{_ABOUT}{_LAST}"
_FROM = rf"(?=f)\bfrom{_WS}{_ABOUT}{_FIRST}{_TO}{_LAST}"
_BRACKET = (
    rf"[(\[]\s{{0,2}}{_FIRST}\s{{0,2}},\s{{0,2}}"
    rf"(?P<b>{_TIME})(?:(?P<ub>{_UNIT}(?=\s{{0,2}}[)\]])|[)\]]{_UNIT})|\s{{0,2}}[)\]])"
)
_HEAD = r"(?=[-0-9])"
_BARE = (
    rf"{_HEAD}(?P<a>{_BEGIN}{_TIME})(?P<ua>{_UNIT})?{_TO}"
    rf"(?P<b>{_TIME})(?:{_LAST_UNIT}|(?(ua){_NO_UNIT}|(?!))){_NO_CHAIN}"  # (?!): a unit on neither side
)
_CLOCKS = (
    rf"{_HEAD}(?P<a>{_BEGIN}{_CLOCK}{_STOP})(?P<ua>{_UNIT})?{_TO}"
    rf"(?P<b>{_CLOCK}{_STOP})(?:{_LAST_UNIT}|{_NO_UNIT}){_NO_CHAIN}"
)

_BEFORE, _AFTER = 48, 24  # characters of context that the look-alike rules see
_LENGTH_BEFORE = re.compile(
    r"(?:\b(?:for|last(?:s|ed|ing)?|every|tak(?:es?|ing)|took|wait(?:s|ed|ing)?)"
    r"|\b(?:pause|silence|gap|duration|length|delay)s? of)"
    r"(?:\s(?:about|around|approximately|only|just|at least|between)){0,2}\s{1,4}$",
    re.IGNORECASE,
)
_LENGTH_AFTER = re.compile(r"\s{1,2}(?:long|apart|later|ago|(?:long|short|fast|slow)er|intervals?)\b", re.I)
_DECADE_BEFORE = re.compile(r"(?:'|\b(?:the|his|her|their|early|late|mid)[ -])$", re.IGNORECASE)
_CHAIN_BEFORE = re.compile(rf"[0-9]{_UNIT}{_GAP}-{_GAP}$", re.IGNORECASE)
_SUM_AFTER = re.compile(r"\s{0,3}[=≈]")
_OTHER_MEASURE = re.compile(
    r"\s{0,2}-?(?:%|°|percent|k?hz|db|ms|milliseconds?|h|hrs?|hours?|min(?:ute)?s?|days?|weeks?|months?"
    r"|years?|[ap]\.?m|o'clock|times|words|people|points?)(?!\w)",
    re.IGNORECASE,
)
_CLAUSE_BEFORE = re.compile(r"(?:^|[\n.!?:;,(\[\"'>-]\s{0,2}|\b(?:is|are|was|were)\s{1,2})$", re.IGNORECASE)
_CLAUSE_AFTER = re.compile(
    r"\s*(?:$|[.,;:!?)\]\"'-]|(?:the|an?|there|and|in|i|we|you|he|she|it|they|is|where|when|someone)\b)",
    re.IGNORECASE,
)


def _before(text: str, end: int) -> str:
    return text[max(0, end - _BEFORE) : end]


def _after(text: str, start: int) -> str:
    return text[start : start + _AFTER]


def _has_unit(match: re.Match[str]) -> bool:
    return bool(match["ua"] or match["ub"]) or (":" in match["a"] and ":" in match["b"])


def _counts_something_else(text: str, match: re.Match[str]) -> bool:
    """Whether the second number, which has no unit of its own, is one of minutes, Hz, people, a.m., ..."""
    return not match["ub"] and _OTHER_MEASURE.match(_after(text, match.end())) is not None


def _is_length(text: str, match: re.Match[str]) -> bool:
    """ "for 3 to 5 seconds", "2-3 seconds long": how long, not when."""
    return bool(
        _LENGTH_BEFORE.search(_before(text, match.start())) or _LENGTH_AFTER.match(_after(text, match.end()))
    )


def _is_tag(text: str, match: re.Match[str]) -> bool:
    return True


def _is_named_pair(text: str, match: re.Match[str]) -> bool:
    both_decimal = "." in match["a"] and "." in match["b"]
    return (_has_unit(match) or both_decimal) and not _counts_something_else(text, match)


def _is_between(text: str, match: re.Match[str]) -> bool:
    return _has_unit(match) and not _counts_something_else(text, match) and not _is_length(text, match)


def _is_clause(text: str, match: re.Match[str]) -> bool:
    """ "From 0.2 to 1.4, the ...": no unit, but two decimals that open a clause and measure nothing else."""
    return (
        not _has_unit(match)
        and "." in match["a"]
        and "." in match["b"]
        and _CLAUSE_BEFORE.search(_before(text, match.start())) is not None
        and _CLAUSE_AFTER.match(_after(text, match.end())) is not None
    )


def _is_bracket(text: str, match: re.Match[str]) -> bool:
    return _has_unit(match)


def _is_bare_pair(text: str, match: re.Match[str]) -> bool:
    before, after = _before(text, match.start()), _after(text, match.end())
    return not (
        _CHAIN_BEFORE.search(before)
        or _SUM_AFTER.match(after)
        or _is_decade(match, before)
        or _counts_something_else(text, match)
        or _is_length(text, match)
    )


def _is_decade(match: re.Match[str], before: str) -> bool:
    """ "1930s to 1940s", "in the 60s to 70s", "his 20s to 30s"."""
    attached = match["ua"] in ("s", "S") or match["ub"] in ("s", "S")
    years = match["a"]
    if not (attached and years.isdigit() and years.endswith("0")):
        return False
    return 1000 <= int(years) < 2100 or _DECADE_BEFORE.search(before) is not None


# As with the official forms: of these pieces in lower case a match holds at least one.
_FORMS: tuple[tuple[tuple[str, ...], re.Pattern[str], Callable[[str, re.Match[str]], bool]], ...] = tuple(
    (pieces, re.compile(form, re.IGNORECASE), is_believable)
    for pieces, form, is_believable in (
        (("</",), _TAG, _is_tag),
        (("tart", "beg"), _STARTS_ENDS, _is_named_pair),
        (("between",), _BETWEEN, _is_between),
        (("from",), _FROM, _is_clause),
        (("(", "["), _BRACKET, _is_bracket),
        (("",), _BARE, _is_bare_pair),
        ((":0", ":1", ":2", ":3", ":4", ":5"), _CLOCKS, _is_bare_pair),
    )
)
_DIGIT = re.compile("[0-9]")


def _seconds(written: str) -> Seconds:
    """Seconds of "1.2", "-1.2", "0:12", "00:14:38,127"."""
    if ":" not in written and "," not in written:
        return round(float(written), 6) + 0.0  # of "-0" too, 0
    total = 0.0
    for part in written.replace(",", ".").split(":"):
        total = total * 60 + float(part)
    return round(total, 6)  # 878.127, not 878.1270000000001: equal times must compare equal


def _plain(text: str) -> str:
    return text if text.isascii() and "*" not in text and "`" not in text else text.translate(_PLAIN)


def _candidates(text: str) -> list[Mention]:
    lowered, candidates = text.lower(), []
    for pieces, form, is_believable in _FORMS:
        for piece in pieces:
            if piece in lowered:
                break
        else:
            continue
        for match in form.finditer(text):
            if is_believable(text, match):
                start, end = _seconds(match["a"]), _seconds(match["b"])
                text_end = match.end("ub" if match["ub"] else "b")
                candidates.append(Mention(match.start("a"), text_end, start, end))
    return candidates


def find_mentions(text: str) -> list[Mention]:
    """Every interval that the text states, valid or not, in order of appearance, duplicates kept.

    Read as intervals: "from X to Y", "starts at X and ends at Y", "between X and Y", X and Y joined by a
    hyphen, a dash or an arrow, alone or in round or square brackets, "(X, Y)", and "<seg>X,Y</seg>".
    There must be a sign that seconds are meant: a unit (s, sec, second, seconds) on one side at least,
    clock notation (m:ss or h:mm:ss) on both, or the tag. Without one, only "starts at X and ends at Y",
    and "From X to Y" at the head of a clause, are taken, and only with decimals on both sides.
    Left out as look-alikes: decades, years, dates, scores, options, counts of something else, sums
    ("11.0 - 1.6 = 9.4 seconds"), chains ("1-2-3 s"), lengths ("for 3 to 5 seconds"), times of day,
    minutes and hours in words, numbers of more than six digits before the point.
    An empty text gives []. Source: the notations seen in the authors' and other models' outputs.
    """
    if _DIGIT.search(text) is None:
        return []
    candidates = _candidates(_plain(text))
    if len(candidates) < 2:
        return candidates
    mentions: list[Mention] = []
    for mention in sorted(candidates, key=lambda m: (m.text_start, -m.text_end)):
        if not mentions or mention.text_start >= mentions[-1].text_end:
            mentions.append(mention)
    return mentions


def find_spans(text: str) -> list[Span]:
    """The valid intervals of `find_mentions` (0 <= start < end), in order of appearance, duplicates kept.

    Seconds; not cut to any clip, whose length the text doesn't know. [] where there are none.
    """
    return [Span(m.start, m.end) for m in find_mentions(text) if m.is_valid]


def find_invalid(text: str) -> int:
    """How many stated intervals end before or where they start, or start below 0: the model's errors."""
    return sum(not mention.is_valid for mention in find_mentions(text))


def count_distinct(text: str) -> int:
    """The strict k: different valid intervals, so that saying one twice counts once; 0 without any."""
    return len(set(find_spans(text)))
