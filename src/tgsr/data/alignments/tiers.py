"""Alignments in tiers: Praat's TextGrid, and which tiers hold words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from tgsr.data.alignments.marks import kind
from tgsr.data.alignments.timed import Cue, Timed, number, said, shared_out
from tgsr.errors import AlignmentError
from tgsr.timeline import Seconds

TEXTGRID = "textgrid"

# What a tier's name says that it holds. WebMAUS's ORT-MAU holds words, its MAU phones; Praat's "silences" neither.
WORDS = ("words", "word", "ort", "token", "tokens", "tokensalign")  # the first of them that a file has
NO_WORDS = (
    "phones phone phonemes phoneme phon phn segments segment seg mau kan sampa ipa syllables syllable syll "
    "tones tone tobi breaks break silences silence events notes note comments comment misc pos lemma gloss "
    "translation points noise vad"
)
OTHERS = frozenset(NO_WORDS.split())
NEVER_WORDS = OTHERS - {"mau", "kan"}  # whatever else the name says
PHONE = 2  # characters: a tier whose labels are mostly no longer holds phones
FEWEST_LABELS = 5  # that can show it


class Tier(NamedTuple):
    name: str
    speaker: str | None
    intervals: list[tuple[Seconds | None, Seconds | None, str, int]]  # start, end, text, line

    @property
    def kinds(self) -> set[str]:
        """What its name says of it, in lower case."""
        return set(re.findall(r"[^\W_]+", self.name.casefold()))

    @property
    def labels(self) -> list[str]:
        return [text for *_, text, _ in self.intervals if kind(" ".join(text.split())) is None]


def timed(source: str, tiers: Sequence[Tier]) -> Iterator[Timed]:
    """The words of the tiers that hold them."""
    chosen, are_words = word_tiers(tiers)
    for tier in chosen:
        who = tier.speaker
        if are_words:
            yield from (
                Timed(source, text, start, end, line, who) for start, end, text, line in tier.intervals
            )
        else:
            yield from shared_out(
                [Cue(source, said(text, who), start, end, line) for start, end, text, line in tier.intervals]
            )


def word_tiers(tiers: Sequence[Tier]) -> tuple[list[Tier], bool]:
    """The tier of words, or one a speaker, by their names; and whether each of their labels is a word.

    Failing that, the only tier that may hold speech: labels of several words are utterances. Raises AlignmentError
    where there is none, or more than one: which is meant cannot be told.
    """
    for name in WORDS:
        if chosen := [tier for tier in tiers if name in tier.kinds and not tier.kinds & NEVER_WORDS]:
            speaking = [tier for tier in chosen if tier.speaker]
            if len({tier.speaker for tier in chosen}) == len(chosen) or not speaking:
                chosen = speaking or chosen
            if len(chosen) == 1 or len({tier.speaker for tier in speaking}) == len(chosen):
                return chosen, True
            raise AlignmentError(_which(chosen), 'name them "ANN - words", "BO - words"')
    candidates = [tier for tier in tiers if not tier.kinds & OTHERS and tier.labels]
    candidates = [tier for tier in candidates if not _holds_phones(tier.labels)]
    if len(candidates) > 1:
        raise AlignmentError(_which(candidates), 'name the right one "words", or each "SPEAKER - words"')
    if not candidates and any(not tier.kinds & OTHERS and not tier.labels for tier in tiers):
        return [], True  # nobody spoke
    if not candidates:
        names = ", ".join(repr(tier.name) for tier in tiers) or "none"
        raise AlignmentError(f"has no interval tier of words (interval tiers: {names})", 'name one "words"')
    return candidates, not any(len(label.split()) > 1 for label in candidates[0].labels)


def _holds_phones(labels: Sequence[str]) -> bool:
    return len(labels) >= FEWEST_LABELS and median(map(len, labels)) <= PHONE


def _which(tiers: Sequence[Tier]) -> str:
    return f"has several tiers that may hold the words ({', '.join(repr(tier.name) for tier in tiers)})"


def speaker_of(name: str) -> str | None:
    """Who speaks on the tier, by its name: "ann" of "ann - words", "words_ann" or "Ann [words]"; None of "ORT-MAU"."""
    for pattern in (r"(.+?)[\s_:|/[(-]+({})[\])]*", r"({})[\s_:|/-]+(.+)"):
        names = "|".join(WORDS)
        if match := re.fullmatch(pattern.format(names), name.strip(), re.IGNORECASE):
            speaker = next(part for part in match.groups() if part.casefold() not in WORDS)
            return None if speaker.casefold() in {*OTHERS, "tier"} else speaker.strip()
    return None


# Praat TextGrid. Its labels ("xmin =", "item [1]:") are comments: only free-standing strings and numbers count.

TOKEN = re.compile(
    r'"(?P<string>[^"]*(?:""[^"]*)*)"(?!")'
    r"|(?P<number>[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)s?(?!\S)"
    r"|![^\n]*|\S+"
)


class _Tokens:
    """A TextGrid's strings and numbers in turn. AlignmentError where the other kind, or nothing, follows."""

    def __init__(self, text: str) -> None:
        self._tokens = TOKEN.finditer(text)
        self._held: re.Match[str] | None = None
        self._text, self._offset, self.line = text, 0, 1

    def string(self, what: str) -> str:
        return self._next("string", what).replace('""', '"')

    def number(self, what: str) -> float:
        value = number(found := self._next("number", what))
        if value is None:
            raise AlignmentError(f"{what} is {found:.60}", "save it anew in Praat", self.line)
        return value

    def number_follows(self) -> bool:
        token = self._peek()
        return token is not None and token.lastgroup == "number"

    def _peek(self) -> re.Match[str] | None:
        if self._held is None:
            self._held = next((token for token in self._tokens if token.lastgroup is not None), None)
        return self._held

    def _next(self, kind: str, what: str) -> str:
        token = self._peek()
        if token is None:
            last = self._text.rstrip().count("\n") + 1
            problem = f"ends where {what} is expected"
            raise AlignmentError(problem, "it may be half-written: save it again", last)
        self._held = None
        self.line += self._text.count("\n", self._offset, token.start())
        self._offset = token.start()
        if token.lastgroup != kind:
            raise AlignmentError(f"{what} expected, got {token[0]:.60}", "save it anew in Praat", self.line)
        return str(token[kind])


def textgrid(text: str) -> Iterator[Timed]:
    tokens, _ = _opened(text)
    return timed(TEXTGRID, tuple(_tiers(tokens, int(tokens.number("the number of tiers")))))


def bounds(text: str) -> tuple[Seconds, Seconds]:
    """A TextGrid's own start and end."""
    return _opened(text)[1]


def _opened(text: str) -> tuple[_Tokens, tuple[Seconds, Seconds]]:
    tokens = _Tokens(text)
    file_type, object_class = tokens.string("a file type"), tokens.string("an object class")
    if not file_type.startswith("ooTextFile") or object_class != "TextGrid":
        raise AlignmentError(f"holds {file_type!r}, {object_class!r}", "save a TextGrid as text in Praat", 1)
    return tokens, (tokens.number("the start"), tokens.number("the end"))


def _tiers(tokens: _Tokens, n_tiers: int) -> Iterator[Tier]:
    """The interval tiers; tiers of points are read over."""
    for _ in range(n_tiers):
        class_, name = tokens.string("a tier's class"), tokens.string("a tier's name")
        if class_ not in ("IntervalTier", "TextTier"):
            raise AlignmentError(f"a tier's class is {class_!r}", "save it anew in Praat", tokens.line)
        tokens.number("a tier's start"), tokens.number("a tier's end")
        intervals: list[tuple[Seconds | None, Seconds | None, str, int]] = []
        size = int(tokens.number("a tier's size"))
        while len(intervals) < size or tokens.number_follows():  # some aligners state too small a size
            start, line = tokens.number("a start"), tokens.line
            end = tokens.number("an end") if class_ == "IntervalTier" else start
            intervals.append((start, end, tokens.string("a text"), line))
        if class_ == "IntervalTier":
            yield Tier(name, speaker_of(name), intervals)
