"""Stage 1's questions: phrases of a transcript, to be located in the audio (section 3.1)."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache, lru_cache
from itertools import accumulate, chain, pairwise

import numpy as np

from tgsr.data.alignments.marks import kind
from tgsr.data.questions.draft import question_about
from tgsr.data.transcribe.repair import gaps
from tgsr.data.transcribe.spelling import in_plain_letters, spell
from tgsr.records import Clip, Question
from tgsr.timeline import Hole, Seconds, Word, cover

QUOTES = "\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u2039\u203a\u300a\u300b\u300c\u300d\u300e\u300f"
FOREIGN = "\u00a1\u00bf\u3001\u3002\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f\u060c\u061b\u061f\u0964"
PUNCTUATION = ".,!?;:\"'()[]-\u2013\u2014\u2026" + QUOTES + FOREIGN
APOSTROPHES = re.compile("[\u2019\u02bc\u2032\u00b4`]")
JOINTS = re.compile(r"[-/\u2010-\u2015]+")  # of words that are written as one
ALIKE = 0.7  # of two words' spelling, from which on one may be heard for the other: "fast" and "past"
LONGEST_PAUSE: Seconds = 1.0  # in a phrase
N_NEXT = 2  # words that are asked for, after a phrase


def phrase_spans(
    words: tuple[Word, ...], n_min: int, n_max: int, holes: Sequence[Hole] = ()
) -> list[tuple[int, int]]:
    """(first, last + 1) of all phrases of n_min to n_max words that are said once only, and across no hole.

    A phrase that is said twice has no one right place, so it is no question.
    """
    joins, said = unbroken(words, holes), Said(words, ())
    return [
        (first, first + n)
        for n in range(n_min, min(n_max, len(words)) + 1)
        for first in range(len(words) - n + 1)
        if all(joins[first : first + n - 1])
        and said.count(word.text for word in words[first : first + n]) == 1
    ]


def unbroken(words: Sequence[Word], holes: Sequence[Hole]) -> list[bool]:
    """For each word but the last: whether no hole lies, or may lie, between it and the next; words in order of time."""
    ordered = sorted(holes, key=lambda hole: hole.start)
    starts = [hole.start for hole in ordered]
    # end of the first holes: of none, one, two, ...
    latest = [-1.0, *accumulate((hole.end for hole in ordered), max)]
    between = (sorted((a.end, b.start)) for a, b in pairwise(words))
    return [latest[bisect_right(starts, last)] < first for first, last in between]


def in_time(clip: Clip) -> tuple[tuple[Word, ...], tuple[Hole, ...]]:
    """The clip's words in order of their starts, without marks, and its holes: those too that order and marks show."""
    words = sorted(clip.words, key=lambda word: word.start)
    spoken = tuple(word for word in words if kind(word.text) is None)
    unknown = (word for word in clip.words if kind(word.text) == "unknown")
    marked = (Hole(word.start, word.end, None, word.speaker) for word in unknown)
    return spoken, (*clip.holes, *gaps(clip.words), *marked)


class Said:
    """All that is known to be said in a clip, in holes too, as plain words in order of time.

    Phrases are counted as they are heard (`sounds`), and where somebody else speaks in between, too: a voice goes on
    after no more than LONGEST_PAUSE.
    """

    def __init__(self, words: Sequence[Word], holes: Sequence[Hole]) -> None:
        # a hole comes before the word that begins as it does
        known: list[Word | Hole] = [*(hole for hole in holes if hole.text), *words]
        spoken = sorted(known, key=lambda one: one.start)
        self.words = plain_words(str(one.text) for one in spoken)
        self.sounds: list[str] = []
        self._voices: list[list[int]] = []  # what each voice says without a pause, as places in _sounds
        last: dict[str | None, tuple[Seconds, list[int]]] = {}
        for one in spoken:
            end, voice = last.get(one.speaker, (0.0, []))
            if not voice or one.start - end > LONGEST_PAUSE:
                self._voices.append(voice := [])
            heard = sounds([str(one.text)])
            voice += range(len(self.sounds), len(self.sounds) + len(heard))
            self.sounds += heard
            last[one.speaker] = (one.end, voice)
        if len(last) == 1:
            self._voices = []
        self._counts: dict[int, Counter[tuple[str, ...]]] = {}

    def count(self, phrase: Iterable[str]) -> int:
        """How often the words of `phrase` follow each other, whatever their case and the punctuation around them."""
        return self.count_sounds(tuple(sounds(phrase)))

    def count_sounds(self, wanted: tuple[str, ...]) -> int:
        """The same for what `sounds` gives; 0 for none."""
        n = len(wanted)
        if n not in self._counts:
            starts = range(len(self.sounds) - n + 1 if n else 0)
            counts = Counter(tuple(self.sounds[first : first + n]) for first in starts)
            for voice in self._voices if n else ():
                runs = (voice[first : first + n] for first in range(len(voice) - n + 1))
                counts.update(tuple(self.sounds[i] for i in run) for run in runs if run[-1] - run[0] >= n)
            self._counts[n] = counts
        return self._counts[n][wanted]


def sounds(texts: Iterable[str]) -> list[str]:
    """The words of the texts as they are heard: numbers and signs spelled out, joined words apart, accents off.

    Of English words that sound the same by PocketSphinx' dictionary ("their", "there") one stands for all. A word of
    another script is its plain word.
    """
    return [sound for text in texts for word in text.split() for sound in _sounds(word)]


@lru_cache(maxsize=1 << 16)
def _sounds(word: str) -> tuple[str, ...]:
    bare = "".join(char for char in unicodedata.normalize("NFKC", word) if unicodedata.category(char) != "Cf")
    plain = plain_word(APOSTROPHES.sub("'", bare))
    letters = in_plain_letters(plain)
    said = spell(letters) if letters.isascii() else JOINTS.split(plain)
    return tuple(_one_of_alike().get(part, part) for part in said or [plain] if part)


@cache
def _one_of_alike() -> dict[str, str]:
    """For each English word that sounds as one before it in the dictionary does, that one."""
    from pocketsphinx import get_model_path

    with open(get_model_path("en-us/cmudict-en-us.dict"), encoding="utf-8") as lines:
        first: dict[str, str] = {}
        pairs = (line.rstrip("\n").split(" ", 1) for line in lines)
        alike = ((word, first.setdefault(phones, word)) for word, phones in pairs if "(" not in word)
        return {word: one for word, one in alike if one != word}


def swapped(word: str, other: str) -> str | None:
    """The word with the other one in its place, within its punctuation, and with a capital where it has one.

    None where one may be heard for the other, and where it would stand out to who only reads: a name that begins small,
    small letters among capitals.
    """
    old, new = word.strip(PUNCTUATION), other.strip(PUNCTUATION)
    if not old or not new or sounds([old]) == sounds([new]):
        return None
    if SequenceMatcher(None, new.lower(), old.lower()).ratio() >= ALIKE:
        return None
    if old == old.lower():
        fits = new == new.lower()
    elif old == old.upper():
        fits = len(old) > 1 and new == new.upper()  # one alone is "I"
    else:
        fits = new != new.upper()
        new = new[0].upper() + new[1:]
    return word.replace(old, new, 1) if fits else None


def plain_words(texts: Iterable[str]) -> list[str]:
    """Every word of the texts as it sounds the same; punctuation alone is none."""
    return [plain for text in texts for word in text.split() if (plain := plain_word(word))]


def phrase_questions(
    clip: Clip, rng: np.random.Generator, n_questions: int, *, n_min: int = 2, n_max: int = 8
) -> list[Question]:
    """Up to `n_questions` different phrase questions about one clip; fewer where it is too short.

    Lengths are drawn first and places second, so that short phrases, of which there are more, do not
    crowd out long ones. The question's text is the bare phrase: the prompt is the trainer's business.
    """
    by_length: dict[int, list[tuple[int, int]]] = {}
    for first, stop in phrase_spans(clip.words, n_min, n_max, clip.holes):
        by_length.setdefault(stop - first, []).append((first, stop))
    chosen: list[tuple[int, int]] = []
    while by_length and len(chosen) < n_questions:
        chosen.append(_drawn(by_length, rng))
    return _questions(clip, clip.words, chosen)


def _drawn(by_length: dict[int, list[tuple[int, int]]], rng: np.random.Generator) -> tuple[int, int]:
    """A phrase, taken out: its length is drawn first, its place second."""
    n = int(rng.choice(list(by_length)))
    phrase = by_length[n].pop(int(rng.integers(len(by_length[n]))))
    if not by_length[n]:
        del by_length[n]
    return phrase


@dataclass(frozen=True, slots=True)
class Phrases:
    """Which phrases of a real transcript make questions, and how many of them a clip has.

    2 to 12 whole words of one speaker, said without a pause longer than `longest_pause` and without a hole, each of at
    least `least_confidence` (words whose confidence nobody knows pass), said once in the clip, `shortest` to `longest`
    long.
    """

    n_a_clip: int = 8
    n_min: int = 2
    n_max: int = 12
    least_confidence: float = 0.5
    longest_pause: Seconds = LONGEST_PAUSE
    shortest: Seconds = 0.3
    longest: Seconds = 15.0
    seed: int = 0


def spread_phrases(clip: Clip, rng: np.random.Generator, wanted: Phrases) -> list[Question]:
    """Up to `wanted.n_a_clip` different phrases, spread over the clip: one in each equal part that has any.

    A part's phrase is drawn by its length first, so that short ones, of which there are more, do not crowd out long
    ones; phrases of different parts may overlap. Parts that have none leave their place to others.
    """
    words, holes = in_time(clip)
    fitting = fitting_phrases(words, wanted, holes)
    parts: list[dict[int, list[tuple[int, int]]]] = [{} for _ in range(wanted.n_a_clip)]
    for first, stop in fitting:
        middle = (words[first].start + words[stop - 1].end) / 2
        part = min(int(middle / clip.duration * len(parts)), len(parts) - 1)
        parts[part].setdefault(stop - first, []).append((first, stop))
    chosen: list[tuple[int, int]] = []
    while len(chosen) < wanted.n_a_clip and any(parts):
        for by_length in parts:
            if by_length and len(chosen) < wanted.n_a_clip:
                chosen.append(_drawn(by_length, rng))
    return _questions(clip, words, sorted(chosen))


def fitting_phrases(
    words: tuple[Word, ...], wanted: Phrases, holes: Sequence[Hole] = ()
) -> list[tuple[int, int]]:
    """(first, last + 1) of every phrase that `wanted` allows, by place; words in order of time."""
    sure = [word.confidence is None or word.confidence >= wanted.least_confidence for word in words]
    parts = [sounds([word.text]) for word in words]
    flat, places = list(chain.from_iterable(parts)), [0, *accumulate(map(len, parts))]
    good = [bool(heard) and is_sure for heard, is_sure in zip(parts, sure, strict=True)]
    joins = [
        is_whole and a.speaker == b.speaker and b.start - a.end <= wanted.longest_pause
        for is_whole, (a, b) in zip(unbroken(words, holes), pairwise(words), strict=True)
    ]
    said = Said(words, holes)
    fitting = []
    for n in range(wanted.n_min, min(wanted.n_max, len(words)) + 1):
        for first in range(len(words) - n + 1):
            stop = first + n
            seconds = words[stop - 1].end - words[first].start
            if (
                all(good[first:stop])
                and all(joins[first : stop - 1])
                and wanted.shortest <= seconds <= wanted.longest
                and said.count_sounds(tuple(flat[places[first] : places[stop]])) <= 1
            ):
                fitting.append((first, stop))
    return sorted(fitting)


def followed_phrases(fitting: Collection[tuple[int, int]], n_max: int) -> list[tuple[int, int]]:
    """Those of `fitting_phrases` with at most n_max words after which the same voice says N_NEXT words more.

    For that the fitting phrases must reach n_max + N_NEXT words.
    """
    there = set(fitting)
    short = [(first, stop) for first, stop in fitting if stop - first <= n_max]
    return [(first, stop) for first, stop in short if (first, stop + N_NEXT) in there]


def plain_word(text: str) -> str:
    """The word as it sounds the same: lower-case, without punctuation around it; "" for punctuation alone.

    Apostrophes are alike.
    """
    return text.strip(PUNCTUATION).lower().replace("\u2019", "'")


def _questions(clip: Clip, words: Sequence[Word], phrases: Sequence[tuple[int, int]]) -> list[Question]:
    """Where these runs of neighbouring words are said, (first, last + 1)."""
    questions = []
    for index, (first, stop) in enumerate(phrases):
        text = " ".join(word.text for word in words[first:stop]).strip(PUNCTUATION)
        evidence = [span] if (span := cover(word.span for word in words[first:stop])) else []
        fields = {"question": text, "phrase": text, "task": f"phrase of {stop - first} words"}
        questions.append(question_about(clip, f"phrase{index}", evidence, kind="phrase", **fields))
    return questions
