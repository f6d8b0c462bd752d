from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgsr.data.questions.phrases import (
    Phrases,
    Said,
    fitting_phrases,
    phrase_questions,
    phrase_spans,
    spread_phrases,
    swapped,
)
from tgsr.records import Clip
from tgsr.timeline import Span, Word


def clip_of(text: str) -> Clip:
    """Word i lasts from i to i + 0.75 s."""
    words = tuple(Word(t, float(i), i + 0.75) for i, t in enumerate(text.split()))
    return Clip("c", "audio/c.flac", len(words) + 1.0, words, split="heldout-recordings")


def spoken(text: str) -> tuple[Word, ...]:
    return tuple(Word(t, float(i), i + 0.75) for i, t in enumerate(text.split()))


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


@pytest.mark.parametrize(
    ("text", "phrase", "n"),
    [
        ("there are two and their are too many", "there are two", 2),
        ("on the right I write", "write", 2),
        ("twenty people and 20 people", "20 people", 2),
        ("a well-known man, well known", "well known", 2),
        ("cafe\u0301 noir, caf\u00e9 noir, cafe noir", "caf\u00e9 noir", 3),
        ("don\u2019t go don\u02bct go don't go", "don't go", 3),
        ("zero\u200bwidth here zerowidth here", "zerowidth here", 2),
        ("five percent, 5 %", "5 percent", 2),
        ("мы дома, Мы — дома!", "мы дома", 2),
        ("他 说 他 说", "他 说", 2),
        ("we call it we called it", "we call it", 1),
    ],
)
def test_what_sounds_the_same_is_said_twice(text: str, phrase: str, n: int) -> None:
    assert Said(spoken(text), ()).count([phrase]) == n


def test_a_phrase_that_another_voice_speaks_into_is_said_too() -> None:
    ann = [replace(word, speaker="Ann") for word in spoken("good old times good old times")]
    between = [Word("yes", 4.3, 4.6, "Bo")]  # after the second "good old"
    words = tuple(sorted([*ann, *between], key=lambda word: word.start))
    said = Said(words, ())
    assert said.count(["good", "old"]) == 2
    assert said.count(["old", "times"]) == 2
    assert said.count(["old", "yes"]) == 1  # heard one after the other
    assert said.count(["times", "yes"]) == 0
    assert [
        words[a:b] for a, b in fitting_phrases(words, Phrases(n_min=2, n_max=2)) if words[a].text == "good"
    ] == []


def test_the_words_of_a_voice_are_no_phrase_across_a_pause() -> None:
    words = (Word("two", 0, 1, "Ann"), Word("four", 1, 2, "Bo"), Word("three", 2.5, 3, "Ann"))
    assert Said(words, ()).count(["two", "three"]) == 0


def test_the_span_holds_words_that_lie_in_each_other() -> None:
    words = (Word("a", 0, 0.2), Word("long", 0.2, 2.0), Word("one", 0.5, 1.0))
    clip = Clip("c", "c.wav", 3.0, words)
    spans = {q.phrase: q.evidence for q in spread_phrases(clip, np.random.default_rng(0), Phrases())}
    assert spans["long one"] == (Span(0.2, 2.0),)


@pytest.mark.parametrize(
    ("word", "other", "made"),
    [
        ("house,", "Dog.", None),  # a name would stand out in small letters
        ("house,", "dog.", "dog,"),
        ("House", "dog", "Dog"),
        ("HOUSE", "dog", None),
        ("HOUSE", "DOG", "DOG"),
        ("house", "NASA", None),
        ("House", "NASA", None),
        ("I", "dog", None),
        ("their", "there", None),
        ("right", "write", None),
        ("two", "2", None),
        ("walked", "talked", None),
    ],
)
def test_a_word_is_swapped_for_one_that_neither_sounds_like_it_nor_stands_out(
    word: str, other: str, made: str | None
) -> None:
    assert swapped(word, other) == made
