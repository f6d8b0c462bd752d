from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgsr.data.questions.phrases import Phrases, fitting_phrases, phrase_questions, phrase_spans
from tgsr.records import Clip
from tgsr.timeline import Span, Word


def clip_of(text: str) -> Clip:
    """Word i lasts from i to i + 0.75 s."""
    words = tuple(Word(t, float(i), i + 0.75) for i, t in enumerate(text.split()))
    return Clip("c", "audio/c.flac", len(words) + 1.0, words, split="heldout-recordings")


TEXTS = st.lists(st.sampled_from(["a", "b", "aa", "c", "d"]), min_size=0, max_size=12).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.integers(0, 2**31), st.integers(1, 12))
def test_every_phrase_is_said_once_and_its_span_is_exactly_those_words(text: str, seed: int, n: int) -> None:
    clip = clip_of(text)
    questions = phrase_questions(clip, np.random.default_rng(seed), n, n_min=1)
    for question in questions:
        # words have no blanks, so a blank on both sides finds whole words only
        places = [i for i in range(len(text)) if f" {text} "[i:].startswith(f" {question.phrase} ")]
        assert len(places) == 1
        first = text[: places[0]].count(" ")
        n_words = len(str(question.phrase).split())
        assert question.evidence == (Span(float(first), first + n_words - 1 + 0.75),)
    assert len({question.phrase for question in questions}) == len(questions)
    assert len({question.id for question in questions}) == len(questions) <= n


def test_a_phrase_that_overlaps_itself_is_counted_at_each_place() -> None:
    assert phrase_spans(clip_of("a a a b").words, 2, 3) == [(2, 4), (0, 3), (1, 4)]


@pytest.mark.parametrize(
    "text",
    [
        "\u201cStop\u201d he stop he",
        "\u00abStop\u00bb, he stop he",
        "\u00bfStop, he? Stop! He",
        "I\u2019m in I'm in",
        "\u4f60\u597d\uff0c \u5417\u3002 \u4f60\u597d \u5417\uff1f",
        "\u2014 \u2026 \u3002",
    ],
)
def test_what_differs_in_case_and_punctuation_alone_is_said_twice(text: str) -> None:
    clip = clip_of(text)
    spans = phrase_spans(clip.words, 2, 2)
    assert not {(0, 2), (2, 4)} & set(spans)
    assert not {(0, 2), (2, 4)} & set(fitting_phrases(clip.words, Phrases(n_max=2)))


def test_spans_worked_by_hand() -> None:
    # "a b" and "b" are said twice; of two words remain "b c" and "c a", of three all
    assert phrase_spans(clip_of("a b c a b").words, 1, 3) == [(2, 3), (1, 3), (2, 4), (0, 3), (1, 4), (2, 5)]


def test_all_phrases_are_asked_where_the_clip_has_no_more() -> None:
    questions = phrase_questions(clip_of("a b c"), np.random.default_rng(0), 8)
    assert {q.phrase for q in questions} == {"a b", "b c", "a b c"}


@pytest.mark.parametrize("text", ["", "a", "a a a a a a a a a a a a a a a a a a"])
def test_a_clip_without_a_phrase_has_no_question(text: str) -> None:
    assert phrase_questions(clip_of(text), np.random.default_rng(0), 8) == []


def test_no_questions_asked_for_gives_none() -> None:
    assert phrase_questions(clip_of("a b c"), np.random.default_rng(0), 0) == []


def test_the_same_seed_asks_the_same_and_another_asks_else() -> None:
    clip = clip_of("a b c d e f g h i j")
    asked = [[q.phrase for q in phrase_questions(clip, np.random.default_rng(seed), 6)] for seed in (1, 1, 2)]
    assert asked[0] == asked[1] != asked[2]


def test_long_phrases_are_not_crowded_out_by_the_short_ones() -> None:
    clip = clip_of(" ".join(f"w{i}" for i in range(12)))
    rng = np.random.default_rng(0)
    lengths = [len(str(q.phrase).split()) for _ in range(350) for q in phrase_questions(clip, rng, 1)]
    counts = [lengths.count(n) for n in range(2, 9)]
    assert sum(counts) == 350
    assert min(counts) > 30  # 50 expected of each; a draw by place would give length 8 only 31 of 350
    assert counts[-1] > 0.6 * counts[0]


def test_a_question_says_which_clip_it_is_about() -> None:
    question = phrase_questions(clip_of("a b"), np.random.default_rng(0), 1)[0]
    assert (question.clip_id, question.audio, question.duration) == ("c", "audio/c.flac", 3.0)
    assert (question.kind, question.task, question.split) == (
        "phrase",
        "phrase of 2 words",
        "heldout-recordings",
    )
    assert question.question == question.phrase == "a b"
