"""Stage 1's questions: phrases of a transcript, to be located in the audio (section 3.1)."""

from __future__ import annotations

import numpy as np

from tgsr.records import Clip, Question
from tgsr.timeline import Span, Word


def occurrences(phrase: tuple[str, ...], words: tuple[Word, ...]) -> int:
    """How often the words of `phrase` follow each other in the transcript."""
    texts = [word.text for word in words]
    n = len(phrase)
    return sum(tuple(texts[i : i + n]) == phrase for i in range(len(texts) - n + 1))


def phrase_spans(words: tuple[Word, ...], n_min: int, n_max: int) -> list[tuple[int, int]]:
    """(first, last + 1) of all phrases of n_min to n_max words that are said once only.

    A phrase that is said twice has no one right place, so it is no question.
    """
    return [
        (first, first + n)
        for n in range(n_min, min(n_max, len(words)) + 1)
        for first in range(len(words) - n + 1)
        if occurrences(tuple(w.text for w in words[first : first + n]), words) == 1
    ]


def phrase_questions(
    clip: Clip, rng: np.random.Generator, n_questions: int, *, n_min: int = 2, n_max: int = 8
) -> list[Question]:
    """Up to `n_questions` different phrase questions about one clip; fewer where it is too short.

    Lengths are drawn first and places second, so that short phrases, of which there are more, do not
    crowd out long ones. The question's text is the bare phrase: the prompt is the trainer's business.
    """
    by_length: dict[int, list[tuple[int, int]]] = {}
    for first, stop in phrase_spans(clip.words, n_min, n_max):
        by_length.setdefault(stop - first, []).append((first, stop))
    chosen: list[tuple[int, int]] = []
    while by_length and len(chosen) < n_questions:
        n = int(rng.choice(list(by_length)))
        chosen.append(by_length[n].pop(int(rng.integers(len(by_length[n])))))
        if not by_length[n]:
            del by_length[n]
    questions = []
    for index, (first, stop) in enumerate(chosen):
        words = clip.words[first:stop]
        text = " ".join(word.text for word in words)
        questions.append(
            Question(
                id=f"{clip.id}-phrase{index}",
                clip_id=clip.id,
                audio=clip.audio,
                duration=clip.duration,
                kind="phrase",
                question=text,
                phrase=text,
                evidence=(Span(words[0].start, words[-1].end),),
                task=f"phrase of {len(words)} words",
                split=clip.split,
            )
        )
    return questions
