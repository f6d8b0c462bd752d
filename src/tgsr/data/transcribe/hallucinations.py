"""What a clip's transcript is worth: flags for clips, and the tests by which invented text is left out.

Whisper writes something whatever it hears. Voice activity detection comes first; what passes it is held against the
numbers that Whisper gives of itself and against the text's own shape.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tgsr.data.transcribe.speech import FRAME, longest_of, runs, shortened
from tgsr.timeline import Seconds, Word

MOST_COMPRESSED = 2.4  # Whisper's own bound: text that compresses better repeats itself
LEAST_LOGP = -1.0  # Whisper's own: the mean log-prob of a stretch's tokens
MOST_SILENT = 0.6  # Whisper's own: the probability of "no speech"
MOST_REPEATS = 4  # of the same words, one after the other, and of
SIZES = range(1, 5)  # so many words
FEW_MORE = 1.5  # times as many words as stretches of speech: Whisper counts badly; more are a loop
NO_TIME: Seconds = 0.04  # two steps of Whisper's, which has no room left for the word
MOST_WORDS_A_SECOND = 8.0  # fast speech has five


@dataclass(frozen=True, slots=True)
class Heard:
    """A stretch of a transcript with what its model says of it; None where a back end does not say.

    `logp` is the mean log-prob of its tokens, `no_speech` the probability that nobody speaks. `twice`: what is said
    again and again in it was heard so a second time.
    """

    words: tuple[Word, ...]
    logp: float | None = None
    no_speech: float | None = None
    twice: bool = False


def with_room(heard: Heard, speech: np.ndarray) -> Heard:
    """The stretch without words that there is no room for, in a clip whose frames are `speech` or not.

    Its end, from where MOST_REPEATS words follow each other in no time: a loop that goes on behind the sound. Of a word
    that is said again and again, those that are more than the stretches of speech, where they are few: those with the
    least speech.
    """
    words = heard.words
    for first in range(len(words) - MOST_REPEATS + 1):
        if all(word.end - word.start <= NO_TIME for word in words[first : first + MOST_REPEATS]):
            words = words[:first]
            break
    left_out: set[Word] = set()
    for first, stop, n in _of_size(plain([word.text for word in words]), 1):
        if n > MOST_REPEATS:
            said = words[first:stop]
            n_most = n_stretches(said, n, speech)
            if n_most < n <= FEW_MORE * n_most:
                left_out |= set(sorted(said, key=lambda word: _n_spoken(word, speech))[: n - n_most])
    kept = tuple(word for word in words if word not in left_out)
    return heard if kept == heard.words else replace(heard, words=kept)


def doubt(heard: Heard, speech: np.ndarray) -> str | None:
    """Why a stretch is held to be invented, or None. A stretch without words is not.

    `speech` says of each frame of its clip whether somebody speaks.
    """
    if not heard.words:
        return None
    if not heard.twice and (unsaid := said_too_often(heard.words, speech)):
        return f"the same words {unsaid} times in a row"
    # Short texts always compress badly, long ones well only where they repeat themselves.
    if (n := compression(" ".join(once([word.text for word in heard.words])))) > MOST_COMPRESSED:
        return f"compresses {n:.1f} times"
    if heard.no_speech is not None and heard.no_speech > MOST_SILENT and (heard.logp or 0.0) < LEAST_LOGP:
        return f"no speech with {heard.no_speech:.2f}, log-prob {heard.logp:.2f}"
    seconds: Seconds = heard.words[-1].end - heard.words[0].start
    if len(heard.words) > MOST_REPEATS and len(heard.words) > MOST_WORDS_A_SECOND * seconds:
        return f"{len(heard.words)} words in {seconds:.1f} s"
    return None


def said_too_often(words: Sequence[Word], speech: np.ndarray) -> int:
    """How often the same words follow each other, where that is more than MOST_REPEATS and more than `n_stretches`; 0
    where nothing does."""
    found = repeated(plain([word.text for word in words]))
    often = [(n, words[first:stop]) for first, stop, n in found if n > MOST_REPEATS]
    return max((n for n, said in often if n > n_stretches(said, n, speech)), default=0)


def n_stretches(said: Sequence[Word], n: int, speech: np.ndarray) -> int:
    """In how many stretches of speech these words are, the same n times; none that lasts longer than they do once.

    Who counts, insists or stammers leaves a pause behind each; a loop over fluent speech, music or silence finds none.
    """
    longest = sum(longest_of(word.text) for word in said[: len(said) // n])
    start, end = shortened(said[0]).start, said[-1].end
    spans = ((first * FRAME, stop * FRAME) for first, stop in runs(speech))
    return sum(first < end and stop > start and stop - first <= longest for first, stop in spans)


def _n_spoken(word: Word, speech: np.ndarray) -> int:
    """The frames of speech in a word's time."""
    return int(speech[round(shortened(word).start / FRAME) : round(word.end / FRAME)].sum())


def plain(texts: Sequence[str]) -> list[str]:
    return [text.lower().strip(".,!?") for text in texts]


def compression(text: str) -> float:
    """How many times zlib makes the text smaller; 0 for no text. Whisper's measure of repetition."""
    return len(text.encode()) / len(zlib.compress(text.encode())) if text else 0.0


def once(texts: Sequence[str]) -> list[str]:
    """The words, those that follow each other more than MOST_REPEATS times written once."""
    left = list(texts)
    for size in SIZES:
        for first, stop, n in reversed(_of_size(plain(left), size)):
            if n > MOST_REPEATS:
                del left[first + size : stop]
    return left


def repeats(words: Sequence[str]) -> int:
    """How often in a row the same one to four words are said, at most; 1 where nothing repeats, 0 for no words.

    Digits are said twice and three times by people, "no" sometimes more often; a loop of Whisper's goes on.
    """
    return max((n for _, _, n in repeated(words)), default=min(1, len(words)))


def repeated(words: Sequence[str]) -> list[tuple[int, int, int]]:
    """Each stretch [first, stop) of words in which the same one to four follow each other n >= 2 times."""
    return [of for size in SIZES for of in _of_size(words, size)]


def _of_size(words: Sequence[str], size: int) -> list[tuple[int, int, int]]:
    same = np.array([word == later for word, later in zip(words, words[size:], strict=False)], bool)
    return [(a, b + size, (b - a) // size + 1) for a, b in runs(same) if b - a >= size]
