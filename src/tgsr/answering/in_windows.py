"""A recording that is longer than a model hears: heard in windows that overlap, of which one answers.

Words that are to be located, and words that a question quotes, say where to listen: the window where the model is sure
of the place and, asked to write down what it hears there, writes these words. Sureness alone is not enough: the digits'
miniature is as sure of any place, since the last digits of its times are guesses everywhere. A question without such
words is asked of every window, and the answer that the model is surest of is the one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tgsr.answering.citing import find_phrase
from tgsr.answering.predict import as_long_as_fits, said_by, sampled
from tgsr.audio import SAMPLE_RATE
from tgsr.engine.features import without_cache
from tgsr.grounding import asked_span, find_asked
from tgsr.llm.decoding import GREEDY, Decoding, Failed
from tgsr.models.lalm import Lalm, writing_times
from tgsr.timeline import Seconds, Span, Word

OVERLAP = 0.25  # of a window: what is said across a border is whole in the next window
AT_ONCE = 4  # windows; what Whisper base's decoder looks into is 37 MB for 30 s
MARGIN: Seconds = 0.2  # of sound around a span that is written down, or more, so that it lasts
LEAST: Seconds = 4.0  # in all: models write nonsense about a snatch
HEARD_AROUND: Seconds = 12.0  # of the recording, around what a transcript has found
NEAR = 0.2  # IoU with what was found, from which on the listener is believed to mean the same words
MOST_FIRST, MOST_A_SECOND = 16, 8  # tokens that are written down: fast speech has five words a second
TRANSCRIBE = "Transcribe the input speech."
QUOTED = re.compile(r'["“”]([^"“”]{2,200})["“”]')


@dataclass(frozen=True, slots=True)
class Heard:
    """A model's answer about one window of a recording, on the window's own clock.

    `sure` is the mean log-prob of the tokens that it wrote, in nats; -inf where it failed. `likeness`, 0 to 1, says how
    much what it writes down of the located span reads like the phrase.
    """

    window: Span
    text: str | Failed
    sure: float
    likeness: float = 0.0

    def located(self, phrase: str) -> Span | None:
        """Where the phrase is said by the answer; None where that is no one span inside the window."""
        span = None if isinstance(self.text, Failed) else asked_span(find_asked(self.text, phrase))
        return span if span is not None and span.end <= self.window.end - self.window.start + 0.5 else None


def windows(duration: Seconds, longest: Seconds, overlap: float = OVERLAP) -> list[Span]:
    """The fewest windows as long as that which cover a recording and share about that part; one where it fits.

    They begin at hundredths of a second, so that times that are moved by it stay short.
    """
    if duration <= longest:
        return [Span(0.0, duration)]
    n = math.ceil((duration - longest) / (longest * (1 - overlap)) - 1e-9) + 1
    starts = [math.ceil(100 * i * (duration - longest) / (n - 1) - 1e-6) / 100 for i in range(n)]
    return [Span(start, min(duration, start + longest)) for start in starts]


def window_around(span: Span, duration: Seconds, longest: Seconds) -> Span:
    """The window with the span in its middle, as far as the recording reaches."""
    start = max(0.0, min((span.start + span.end - longest) / 2, duration - longest))
    start = math.floor(100 * start) / 100
    return Span(start, min(duration, start + longest))


def cut(samples: np.ndarray, window: Span) -> np.ndarray:
    """The window's samples."""
    return samples[round(window.start * SAMPLE_RATE) : round(window.end * SAMPLE_RATE)]


def hear_windows(
    lalm: Lalm, samples: np.ndarray, spans: Sequence[Span], text: str, decoding: Decoding = GREEDY
) -> list[Heard]:
    """The answer to a user turn about each window, in order. ModelError as `without_cache` raises it."""
    prompt = lalm.prompt(text).after
    heard: list[Heard] = []
    for first in range(0, len(spans), AT_ONCE):
        some = spans[first : first + AT_ONCE]
        features = [without_cache(lalm, cut(samples, span)) for span in some]
        prompts = [(place, prompt) for place in range(len(some))]
        drawn = sampled(lalm, features, prompts, as_long_as_fits(lalm, prompt, features, decoding))
        for span, one in zip(some, drawn, strict=True):
            sure = -math.inf if one.failed else float(np.mean(one.logps))
            heard.append(Heard(span, said_by(lalm, one), sure))
    return heard


def written_down(lalm: Lalm, samples: np.ndarray, spans: Sequence[Span]) -> list[str]:
    """What the model hears in each span of the recording and a little around it, as words; "" where it fails."""
    duration, longest = len(samples) / SAMPLE_RATE, lalm.max_seconds
    lengths = [min(longest, max(LEAST, span.duration + 2 * MARGIN)) for span in spans]
    wider = [window_around(span, duration, n) for span, n in zip(spans, lengths, strict=True)]
    most = MOST_FIRST + round(MOST_A_SECOND * max(span.duration for span in wider))
    with writing_times(lalm, "words"):  # a model that writes times as tokens would write some here too
        heard = hear_windows(lalm, samples, wider, TRANSCRIBE, replace(GREEDY, max_new_tokens=most))
    return ["" if isinstance(one.text, Failed) else one.text for one in heard]


def likeness(phrase: str, text: str) -> float:
    """How much the best stretch of a text reads like the phrase, 0 to 1."""
    words = [Word(word, float(n), n + 1.0) for n, word in enumerate(text.split())]
    return (find_phrase(phrase, words) or (None, 0.0))[1]


def locate_in_windows(lalm: Lalm, samples: np.ndarray, phrase: str, longest: Seconds) -> Heard:
    """The answer of the window with the largest sum of `likeness` and `sure`; where none locates it, the surest."""
    duration = len(samples) / SAMPLE_RATE
    heard = hear_windows(lalm, samples, windows(duration, longest), lalm.phrase_question(phrase))
    located = [
        (one, Span(one.window.start + span.start, min(duration, one.window.start + span.end)))
        for one in heard
        if (span := one.located(phrase)) and one.window.start + span.start < duration
    ]
    if not located:
        return max(heard, key=lambda one: one.sure)
    texts = written_down(lalm, samples, [span for _, span in located])
    pairs = zip(located, texts, strict=True)
    held = [replace(one, likeness=likeness(phrase, text)) for (one, _), text in pairs]
    return max(held, key=lambda one: one.likeness + one.sure)


def answer_in_windows(lalm: Lalm, samples: np.ndarray, text: str, question: str, longest: Seconds) -> Heard:
    """The answer of one window to the user turn `text`, which was made of the question."""
    duration = len(samples) / SAMPLE_RATE
    spans = windows(duration, longest)
    if quoted := QUOTED.search(question):
        words = quoted[1]
        found = locate_in_windows(lalm, samples, words, longest)
        if span := found.located(words):
            at = found.window.start
            spans = [window_around(Span(at + span.start, at + span.end), duration, longest)]
    return max(hear_windows(lalm, samples, spans, text), key=lambda one: one.sure)


def refined(listener: Lalm, samples: np.ndarray, phrase: str, span: Span) -> Span:
    """Where the listener hears the phrase near `span`, in the recording's seconds; `span` where that is not near it.

    It hears up to HEARD_AROUND seconds, in whose middle the span is. ModelError as it refuses them.
    """
    duration = len(samples) / SAMPLE_RATE
    length = min(listener.max_seconds, max(HEARD_AROUND, span.duration + 2))
    window = window_around(span, duration, length)
    (heard,) = hear_windows(listener, samples, [window], listener.phrase_question(phrase))
    if (at := heard.located(phrase)) is None:
        return span
    moved = Span(window.start + at.start, min(duration, window.start + at.end))
    return moved if moved.iou(span) >= NEAR else span
