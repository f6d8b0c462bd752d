"""Stage 2's questions about spoken digits: each needs the audio, has four choices and its evidence.

Five tasks: which digit follows another ("follows"), who says one ("who"), how many digits the second
speaker says ("count"), which is said twice ("twice"), is there a pause longer than a second ("pause").
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby, pairwise
from operator import attrgetter

import numpy as np

from tgsr.data.corpora.spoken_digits import DIGITS, pauses, speakers_in_order
from tgsr.data.questions.draft import Draft
from tgsr.data.questions.phrases import in_time
from tgsr.records import Clip, Question
from tgsr.timeline import Span, Word

TASKS = ("follows", "who", "count", "twice", "pause")
WHO = ("the first speaker", "the second speaker", "both speakers", "nobody")
NO_PAUSE = "no, there is none"
SKIPPED_WITHOUT_PAUSE = 0.94  # share of clips without a pause that are not asked: "no" is right about 1 in 4


def _others(rng: np.random.Generator, candidates: set[str], n: int = 3) -> tuple[str, ...]:
    return tuple(str(c) for c in rng.choice(sorted(candidates), n, replace=False))


def follows(words: tuple[Word, ...], rng: np.random.Generator) -> Draft | None:
    """Which digit is said right after one that is said once and is not the last."""
    counts = Counter(word.text for word in words)
    places = [i for i in range(len(words) - 1) if counts[words[i].text] == 1]
    if not places:
        return None
    i = int(rng.choice(places))
    answer = words[i + 1].text
    wrong = _others(rng, set(DIGITS) - {answer, words[i].text})
    evidence = (Span(words[i].start, words[i + 1].end),)
    return Draft("follows", f"Which digit is said right after {words[i].text}?", answer, wrong, evidence)


def who(words: tuple[Word, ...], rng: np.random.Generator) -> Draft | None:
    """Which of two speakers says a digit; "nobody" and "both speakers" are right now and then."""
    speakers = speakers_in_order(words)
    if len(speakers) != 2:
        return None
    said = {digit: {w.speaker for w in words if w.text == digit} for digit in DIGITS}
    by_answer: dict[str, list[str]] = {}
    for digit, by in said.items():
        answer = WHO[3] if not by else WHO[2] if len(by) == 2 else WHO[speakers.index(str(next(iter(by))))]
        by_answer.setdefault(answer, []).append(digit)
    answers = sorted(by_answer)
    # "nobody" half as often as the others: it has no evidence to point at
    weights = np.array([0.5 if answer == WHO[3] else 1.0 for answer in answers])
    answer = str(rng.choice(answers, p=weights / weights.sum()))
    digit = str(rng.choice(by_answer[answer]))
    evidence = tuple(word.span for word in words if word.text == digit)
    return Draft("who", f"Who says {digit}?", answer, tuple(w for w in WHO if w != answer), evidence)


def count(words: tuple[Word, ...], rng: np.random.Generator) -> Draft | None:
    """How many digits the second speaker says; the wrong numbers are the nearest ones."""
    speakers = speakers_in_order(words)
    if len(speakers) != 2:
        return None
    n = sum(word.speaker == speakers[1] for word in words)
    lowest = max(1, n - int(rng.integers(0, 4)))
    wrong = tuple(str(k) for k in range(lowest, lowest + 4) if k != n)
    turns = [(speaker, list(turn)) for speaker, turn in groupby(words, attrgetter("speaker"))]
    evidence = tuple(Span(t[0].start, t[-1].end) for speaker, t in turns if speaker == speakers[1])
    return Draft("count", "How many digits does the second speaker say?", str(n), wrong, evidence)


def twice(words: tuple[Word, ...], rng: np.random.Generator) -> Draft | None:
    """Which digit is said twice, where exactly one is; the wrong ones are said once, if there are enough."""
    counts = Counter(word.text for word in words)
    doubles = [digit for digit, n in counts.items() if n == 2]
    if len(doubles) != 1:
        return None
    once = {digit for digit, n in counts.items() if n == 1}
    if len(once) < 3:
        once |= set(DIGITS) - set(counts)
    if len(once) < 3:
        return None
    evidence = tuple(word.span for word in words if word.text == doubles[0])
    return Draft("twice", "Which digit is said twice?", doubles[0], _others(rng, once), evidence)


def pause(words: tuple[Word, ...], rng: np.random.Generator) -> Draft | None:
    """Whether there is a pause longer than one second, and after which digit.

    What shows it are the two words around it: one hears how long nothing is said between them. That there is none
    has no place.
    """
    long = pauses(words)
    counts = Counter(word.text for word in words)
    if len(long) > 1 or len(counts) < 5:
        return None
    around = next(((a, b) for a, b in pairwise(words) if long and a.end == long[0].start), None)
    before = around[0].text if around else None
    if before is not None and counts[before] > 1:
        return None
    if before is None and rng.random() < SKIPPED_WITHOUT_PAUSE:
        return None
    answer = NO_PAUSE if before is None else f"yes, after {before}"
    wrong = {f"yes, after {w.text}" for w in words[:-1]} - {answer}
    if len(wrong) < 3:
        return None
    chosen = _others(rng, wrong) if before is None else (NO_PAUSE, *_others(rng, wrong, 2))
    evidence = (Span(around[0].start, around[1].end),) if around else ()
    return Draft("pause", "Is there a pause longer than one second?", answer, chosen, evidence)


MAKERS = {"follows": follows, "who": who, "count": count, "twice": twice, "pause": pause}


def choice_question(clip: Clip, task: str, rng: np.random.Generator) -> Question | None:
    """One question of the task about the clip, its choices in random order; None where the clip has none."""
    draft = MAKERS[task](clip.words, rng)
    if draft is None:
        return None
    choices = [draft.answer, *draft.wrong]
    return draft.about(clip, [choices[i] for i in rng.permutation(len(choices))])


def choice_questions(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """One question of each task that the clip allows; none about a clip with holes, whose digits are not all known."""
    if in_time(clip)[1]:
        return []
    return [q for task in TASKS if (q := choice_question(clip, task, rng)) is not None]
