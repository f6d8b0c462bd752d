"""What a clip's transcript is worth: flags for clips, and the tests by which invented text is left out.

Whisper writes something whatever it hears. Voice activity detection comes first; what passes it is held against the
numbers that Whisper gives of itself and against the text's own shape.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tgsr.timeline import Seconds, Word

MOST_COMPRESSED = 2.4  # Whisper's own bound: text that compresses better repeats itself
LEAST_LOGP = -1.0  # Whisper's own: the mean log-prob of a stretch's tokens
MOST_SILENT = 0.6  # Whisper's own: the probability of "no speech"
MOST_REPEATS = 4  # of one to four words, one after the other
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


def with_room(heard: Heard) -> Heard:
    """The stretch up to where MOST_REPEATS words follow each other in no time: a loop that goes on behind the sound."""
    for first in range(len(heard.words) - MOST_REPEATS + 1):
        if all(word.end - word.start <= NO_TIME for word in heard.words[first : first + MOST_REPEATS]):
            return replace(heard, words=heard.words[:first])
    return heard


def doubt(heard: Heard) -> str | None:
    """Why a stretch is held to be invented, or None. A stretch without words is not."""
    if not heard.words:
        return None
    text = " ".join(word.text for word in heard.words)
    # Short texts always compress badly, long ones well only where they repeat themselves.
    if compression(text) > MOST_COMPRESSED:
        return f"compresses {compression(text):.1f} times"
    if not heard.twice and (n := repeats(plain(heard.words))) > MOST_REPEATS:
        return f"the same words {n} times in a row"
    if heard.no_speech is not None and heard.no_speech > MOST_SILENT and (heard.logp or 0.0) < LEAST_LOGP:
        return f"no speech with {heard.no_speech:.2f}, log-prob {heard.logp:.2f}"
    seconds: Seconds = heard.words[-1].end - heard.words[0].start
    if len(heard.words) > MOST_REPEATS and len(heard.words) > MOST_WORDS_A_SECOND * seconds:
        return f"{len(heard.words)} words in {seconds:.1f} s"
    return None


def plain(words: Sequence[Word]) -> list[str]:
    return [word.text.lower().strip(".,!?") for word in words]


def compression(text: str) -> float:
    """How many times zlib makes the text smaller; 0 for no text. Whisper's measure of repetition."""
    return len(text.encode()) / len(zlib.compress(text.encode())) if text else 0.0


def repeats(words: Sequence[str]) -> int:
    """How often in a row the same one to four words are said, at most; 1 where nothing repeats, 0 for no words.

    Digits are said twice and three times by people, "no" sometimes more often; a loop of Whisper's goes on.
    """
    most = 1 if words else 0
    for n in range(1, 5):
        for offset in range(n):
            run = 1
            for first in range(offset + n, len(words) - n + 1, n):
                run = run + 1 if list(words[first : first + n]) == list(words[first - n : first]) else 1
                most = max(most, run)
    return most
