"""Where somebody speaks, by voice activity detection, and where words are missing there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from unicodedata import east_asian_width

import numpy as np

from tgsr.audio import SAMPLE_RATE, content_hash
from tgsr.data.transcribe.forced_alignment import LEAST_UNHEARD
from tgsr.data.transcribe.spelling import spell
from tgsr.timeline import Seconds, Span, Word

FRAME: Seconds = 512 / SAMPLE_RATE  # silero's step
SPEECH = 0.5  # the probability from which a frame is speech; silero's own bounds
STILL_SPEECH = 0.35  # and to which it stays so
LOUD, QUIETEST = 0.3, 1e-6  # the peak that silero hears well; one below which there is nothing but rounding

LONG_SILENCE: Seconds = 3.0
EDGE: Seconds = 0.5

A_WORD: Seconds = 0.4  # that a word may last, and
A_LETTER: Seconds = 0.1  # for each of its letters; a word that lasts longer has swallowed others
SYLLABLE = 3  # letters
FEWEST_LETTERS = 4.0  # a second of speech; slow dictation has eight
LEAST_FOR_RATE: Seconds = 3.0  # of speech, before its rate is looked at

MOST_KNOWN = 64  # sounds, which are parts of 900 s at most: 7 MB in all
_known: dict[str, np.ndarray] = {}  # by content


def speech_probability(samples: np.ndarray) -> np.ndarray:
    """16 kHz mono -> the probability of speech in each frame of 0.032 s; the last may be cut short.

    By silero, which comes with faster-whisper, of the sound made `audible`; where nothing is found for LONG_SILENCE or
    longer, of that stretch made audible by itself: somebody may speak far off after somebody who is near.

    The last MOST_KNOWN are known again, since hearing, aligning and telling voices apart all ask; they are read-only.
    """
    samples = audible(samples)
    key = content_hash(samples)
    if key in _known:
        return _known[key]
    probability = _probability(samples)
    for first, stop in runs(probability < STILL_SPEECH):
        stretch = samples[first * 512 : stop * 512]
        edge = round(EDGE * SAMPLE_RATE)  # what is loud may end in it
        if (stop - first) * FRAME >= LONG_SILENCE and (gain := _gain(stretch[edge:-edge])) > 1:
            probability[first:stop] = _probability(np.clip(stretch * gain, -1.0, 1.0).astype(np.float32))
    probability.flags.writeable = False
    while len(_known) >= MOST_KNOWN:
        _known.pop(next(iter(_known)))
    _known[key] = probability
    return probability


def _probability(samples: np.ndarray) -> np.ndarray:
    from faster_whisper.vad import get_vad_model

    n_frames = -(-len(samples) // 512)
    if not n_frames:
        return np.zeros(0, np.float32)
    sound = np.zeros(n_frames * 512, np.float32)
    sound[: len(samples)] = samples
    return np.asarray(get_vad_model()(sound), np.float32).reshape(-1)[:n_frames]


def audible(samples: np.ndarray) -> np.ndarray:
    """Quiet sound made louder: silero hears no speech below -60 dB, and Whisper less of it. Silence stays silence.

    A constant offset that is larger than the sound is taken out first: nobody hears it, but silero then hears nothing.
    """
    if len(samples) and abs(offset := samples.mean(dtype=np.float64)) > samples.std(dtype=np.float64):
        samples = (samples - offset).astype(np.float32)
    gain = _gain(samples)
    return samples if gain == 1 else np.clip(samples * gain, -1.0, 1.0).astype(np.float32)


def _gain(samples: np.ndarray) -> float:
    peak = float(np.quantile(np.abs(samples), 0.999)) if len(samples) else 0.0  # not a click's
    return LOUD / peak if QUIETEST < peak < LOUD / 10 else 1.0


def is_speech(probability: np.ndarray) -> np.ndarray:
    """Which frames are speech: from SPEECH on, until it falls below STILL_SPEECH."""
    state = np.where(probability >= SPEECH, 1, np.where(probability < STILL_SPEECH, 0, -1))
    known = np.where(state >= 0, np.arange(len(state)), 0)
    return state[np.maximum.accumulate(known)] == 1 if len(state) else np.zeros(0, bool)


def runs(frames: np.ndarray) -> list[tuple[int, int]]:
    """[first, stop) of each run of true frames, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], frames.astype(np.int8), [0]])))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]


def unheard(speech: np.ndarray, words: Sequence[Word], start: Seconds = 0.0) -> list[Span]:
    """Stretches in which somebody speaks and no word is, in order; () where the words can be all that is said.

    `speech` says of each frame from `start` on whether it is speech. Counted are LEAST_UNHEARD of speech or more
    between two words that follow each other, or before the first, or after the last, where a word lasts no longer than
    its letters allow; and all speech where words are far too few for it altogether.
    """
    free = speech.copy()
    said = sorted((shortened(word) for word in words), key=lambda word: word.start)
    bounds = [0]
    for word in said:
        first, stop = (round((time - start) / FRAME) for time in (word.start, word.end))
        free[max(0, first) : max(0, stop)] = False
        bounds.append(min(max(bounds[-1], stop), len(speech)))
    bounds.append(len(speech))
    found = []
    rest = speech.copy()  # that words are there for
    for first, stop in pairwise(bounds):
        places = np.flatnonzero(free[first:stop])
        if len(places) * FRAME >= LEAST_UNHEARD:
            a, b = first + int(places[0]), first + int(places[-1]) + 1
            found.append(Span(start + a * FRAME, start + b * FRAME))
            rest[a:b] = False
    letters = sum(_n_letters(word.text) for word in words)
    seconds = float(rest.sum()) * FRAME
    if words and seconds >= LEAST_FOR_RATE and letters < FEWEST_LETTERS * seconds:
        places = np.flatnonzero(speech)
        return [Span(start + int(places[0]) * FRAME, start + (int(places[-1]) + 1) * FRAME)]
    return found


def is_among(speech: np.ndarray, words: Sequence[Word]) -> bool:
    """Whether somebody speaks in a quarter of these words' time; Whisper thanks for watching where music plays."""
    said: set[int] = set()
    for word in map(shortened, words):
        said.update(range(round(word.start / FRAME), round(word.end / FRAME)))
    return 4 * sum(frame < len(speech) and bool(speech[frame]) for frame in said) >= len(said)


def shortened(word: Word) -> Word:
    """The word, no longer than its letters allow: its end, since Whisper's words begin with the pause before them."""
    longest = longest_of(word.text)
    return word if word.end - word.start <= longest else replace(word, start=word.end - longest)


def longest_of(text: str) -> Seconds:
    """How long a word may last."""
    return A_WORD + A_LETTER * _n_letters(text)


def _n_letters(text: str) -> int:
    """As it is said: "1985" has the letters of nineteen eighty-five, a wide character those of a syllable."""
    n_wide = sum(east_asian_width(character) in "WF" for character in text)
    return max(len(text) + (SYLLABLE - 1) * n_wide, len("".join(spell(text))))
