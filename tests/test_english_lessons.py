"""Lessons of continuous English: what they ask is in the clip, their times are what they should be, and short."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from tgsr.choices import extract_choice
from tgsr.data.questions.by_rule import Choices, choice_questions_of
from tgsr.evidence import cited_evidence
from tgsr.grounding import find_spans
from tgsr.miniature.english_lessons import SHARES, english_lessons, quotable
from tgsr.miniature.lessons import TextLesson
from tgsr.prompts import REASONING_OPENING
from tgsr.records import Clip, Question
from tgsr.timeline import Span, Word

TEXTS = (
    "the quick brown fox jumps over the lazy dog while seven wise men look at a blue moon",
    "nobody ever asks why that old green bus never stops near my small house on sunny days",
    "please bring three red apples before lunch or else we cannot bake any more of those cakes",
    "her brother plays the piano better than most teachers at our school do on their best days",
)


def said(text: str, voice: str, start: float) -> tuple[Word, ...]:
    return tuple(
        Word(word, start + 0.4 * i, start + 0.4 * i + 0.35, voice) for i, word in enumerate(text.split())
    )


def clip_of(n: int) -> Clip:
    first, second = TEXTS[n % 4], TEXTS[(n + 1) % 4]
    words = (*said(first, "Ann", 0.5), *said(second, "Bo" if n % 2 else "Ann", 8.5))
    return Clip(f"c{n}", f"c{n}.flac", 16.5, words)


CLIPS = [clip_of(n) for n in range(4)]


def about(clip: Clip) -> list[Question]:
    return choice_questions_of(clip, CLIPS, Choices())


def taught(clip: Clip, n: int, true_times: bool) -> list[TextLesson]:
    return list(islice(english_lessons(clip, about(clip), np.random.default_rng(0), true_times), n))


def test_kinds_come_in_their_shares() -> None:
    kinds = Counter(lesson.kind for lesson in taught(CLIPS[1], 2000, True))
    assert set(kinds) == set(SHARES)
    assert all(abs(kinds[kind] / 2000 - share) < 0.04 for kind, share in SHARES.items())


@pytest.mark.parametrize("true_times", [True, False])
def test_times_of_phrases_are_true_or_have_nothing_to_do_with_them(true_times: bool) -> None:
    lessons = [lesson for lesson in taught(CLIPS[1], 400, true_times) if lesson.kind == "phrase"]
    ious = []
    for lesson in lessons:
        (words,) = lesson.quotes
        assert " ".join(word.text for word in words) in lesson.question
        assert 2 <= len(words) <= 8
        (span,) = find_spans(lesson.answer)
        ious.append(span.iou(Span(words[0].start, words[-1].end)))
    assert np.mean(ious) > 0.98 if true_times else np.mean(ious) < 0.2


def test_the_next_words_are_those_that_follow() -> None:
    clip = CLIPS[1]
    text = " ".join(word.text for word in clip.words)
    for lesson in taught(clip, 200, True):
        if lesson.kind == "next":
            assert f"{lesson.question.split(chr(34))[1]} {lesson.answer}" in text
            assert len(lesson.answer.split()) == 2


def test_reasoning_opens_and_ends_as_stage_2_does_and_true_times_are_evidence() -> None:
    clip = CLIPS[1]
    lessons = [lesson for lesson in taught(clip, 600, True) if lesson.kind == "choice"]
    truths = []
    for lesson in lessons:
        assert lesson.answer.startswith(REASONING_OPENING)
        question = next(q for q in about(clip) if lesson.question.startswith(q.question))
        assert extract_choice(lesson.answer, question.choices) is not None
        assert sum(map(len, lesson.quotes)) <= 40
        if 'says "' in lesson.answer:
            truths.append(cited_evidence(lesson.answer, clip.words, clip.duration).quote_truth)
    assert len(truths) > 30
    assert all(truths)


def test_text_is_plain_whatever_the_transcript_looks_like() -> None:
    clip = CLIPS[1]
    loud = replace(clip, words=tuple(replace(w, text=f"{w.text.upper()},") for w in clip.words))
    shown = [taught_of(one) for one in (clip, loud)]
    assert shown[0] == shown[1]


def taught_of(clip: Clip) -> list[tuple[str, str]]:
    lessons = islice(english_lessons(clip, (), np.random.default_rng(1), True), 60)
    return [(lesson.question, lesson.answer) for lesson in lessons]


@pytest.mark.parametrize("n", [3, 12])
def test_speakers_are_named_in_order_and_more_than_there_are_ordinals_are_no_obstacle(n: int) -> None:
    words = tuple(replace(word, speaker=f"s{i // 2 % n}") for i, word in enumerate(CLIPS[1].words))
    answers = " ".join(lesson.answer for lesson in taught(replace(CLIPS[1], words=words), 100, True))
    assert "third speaker" in answers


def test_a_clip_without_words_teaches_nothing_and_one_word_its_transcript() -> None:
    clip = CLIPS[0]
    assert list(english_lessons(replace(clip, words=()), (), np.random.default_rng(0), True)) == []
    alone = replace(clip, words=clip.words[:1])
    some = islice(english_lessons(alone, (), np.random.default_rng(0), False), 60)
    answers = {(lesson.kind, lesson.answer) for lesson in some}
    assert answers == {("transcript", "the"), ("count", "never"), ("count", '"the": once')}


def test_counted_are_as_many_places_as_are_quoted_and_those_of_no_word_are_never() -> None:
    told = "the tree and the house are the end you know all was said"
    words = tuple(Word(text, 0.4 * n, 0.4 * n + 0.3) for n, text in enumerate(told.split()))
    clip = Clip("told", "told.wav", 6.0, words)
    lessons = [lesson for lesson in taught(clip, 600, False) if lesson.kind == "count"]
    for lesson in lessons:
        word, quotes = lesson.question.split('"')[1], lesson.answer.split('"')[1::2]
        assert len(quotes) == told.split().count(word)
        assert all(word in quote.split() and quote in told for quote in quotes)
        assert lesson.answer.split(": ")[-1] == ("never", "once", "twice", "three times")[len(quotes)]
    assert {lesson.answer.split(": ")[-1] for lesson in lessons} == {"never", "once", "three times"}


def test_timed_transcripts_are_true_or_not_taught() -> None:
    lessons = [lesson for lesson in taught(CLIPS[1], 400, True) if lesson.kind == "timed"]
    assert lessons
    for lesson in lessons:
        starts, words = lesson.answer.split()[::2], lesson.answer.split()[1::2]
        (*said,) = CLIPS[1].words[:40]
        assert words == [word.text for word in said]
        assert starts == [f"{word.start:.2f}" for word in said]
    assert not [lesson for lesson in taught(CLIPS[1], 400, False) if lesson.kind == "timed"]


def test_quotes_of_evidence_are_twelve_words_at_most() -> None:
    words = CLIPS[1].words
    (span,) = quotable(words, [Span(0.0, 16.5)])
    assert sum(span.start <= word.start and word.end <= span.end for word in words) == 12
    assert quotable(words, [Span(0.0, 0.4)]) == ()
