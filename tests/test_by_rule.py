"""Questions by rule: each has one right answer, and the spans that show it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tgsr.data.questions.by_rule import (
    Choices,
    by_label,
    by_sound,
    by_speaker,
    by_words,
    choice_questions_of,
    turns_of,
)
from tgsr.data.questions.phrases import Phrases, fitting_phrases, plain_word, spread_phrases
from tgsr.records import Clip, Question
from tgsr.timeline import Event, Span, Word

TEXT = (
    "the quick brown fox jumps over the lazy dog while seven wise men look at a blue moon and "
    "nobody ever asks why that old green bus never stops near my small house on sunny days"
)


def spoken(
    text: str, *, start: float = 0.0, speaker: str | None = None, pause: float = 0.1
) -> tuple[Word, ...]:
    return tuple(
        Word(word, start + i * (0.3 + pause), start + i * (0.3 + pause) + 0.3, speaker, "exact", 0.9)
        for i, word in enumerate(text.split())
    )


def clip_of(words: tuple[Word, ...], **more: object) -> Clip:
    return Clip(
        str(more.pop("id", "c")), "c.wav", max(words[-1].end, 1.0) + 1 if words else 10.0, words, **more
    )  # type: ignore[arg-type]


CLIP = clip_of(spoken(TEXT))
OTHERS = [
    clip_of(spoken("a ship sails far beyond grey rocks into some other harbour tonight"), id="o1"),
    clip_of(spoken("please bring three red apples before lunch or else we cannot bake"), id="o2"),
    clip_of(spoken("her brother plays piano better than most teachers at school do"), id="o3"),
]
OTHERS = [Clip(c.id, f"{c.id}.wav", c.duration, c.words) for c in OTHERS]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --- phrases ---------------------------------------------------------------------------------------------------


def test_phrases_are_spread_over_the_clip() -> None:
    found = spread_phrases(CLIP, rng(), Phrases(n_a_clip=6))
    middles = [(q.evidence[0].start + q.evidence[0].end) / 2 / CLIP.duration for q in found]
    assert {int(middle * 3) for middle in middles} == {0, 1, 2}
    assert len({q.phrase for q in found}) == 6


def test_a_phrase_is_said_once_whatever_its_case_and_commas() -> None:
    words = spoken("Good morning, Anna. GOOD MORNING Ben")
    texts = {
        tuple(plain_word(word.text) for word in words[a:b]) for a, b in fitting_phrases(words, Phrases())
    }
    assert ("good", "morning") not in texts
    assert ("morning", "anna") in texts


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"confidence": 0.2}, "an unsure word"),
        ({"text": "--"}, "no word at all"),
        ({"speaker": "Bo"}, "two voices"),
    ],
)
def test_a_phrase_never_holds(change: dict[str, object], reason: str) -> None:
    from dataclasses import replace

    words = spoken("one two three four five six seven", speaker="Ann")
    changed = replace(words[3], **change)  # type: ignore[arg-type]
    words = (*words[:3], changed, *words[4:])
    inside = [words[a:b] for a, b in fitting_phrases(words, Phrases())]
    assert inside
    assert not any(changed in phrase for phrase in inside), reason


def test_a_phrase_does_not_cross_a_long_pause() -> None:
    words = (*spoken("one two three"), *spoken("four five six", start=9.0))
    assert all(not (a < 3 < b) for a, b in fitting_phrases(words, Phrases()))


def test_questions_follow_from_the_clip_and_the_seed() -> None:
    assert spread_phrases(CLIP, rng(), Phrases()) == spread_phrases(CLIP, rng(), Phrases())
    assert all(2 <= len(q.question.split()) <= 12 for q in spread_phrases(CLIP, rng(), Phrases(n_a_clip=30)))


# --- labels ----------------------------------------------------------------------------------------------------


def test_a_label_becomes_a_question_over_its_closed_set() -> None:
    clip = clip_of(spoken("oh no"), labels=(("emotion", "joy"), ("sentiment", "positive"), ("season", "8")))
    drafts = {draft.task: draft for draft in by_label(clip)}
    assert set(drafts) == {"emotion", "sentiment"}
    assert drafts["emotion"].answer == "joy"
    assert len(drafts["emotion"].wrong) == 6
    assert drafts["sentiment"].evidence == (Span(0.0, clip.words[-1].end),)
    assert by_label(clip_of((), labels=(("emotion", "bored"),))) == []


def test_intents_are_chosen_among_those_of_the_corpus() -> None:
    clip, other = (clip_of((), labels=(("intent", name),)) for name in ("play music", "set an alarm"))
    (draft,) = by_label(clip, [other])
    assert (draft.task, draft.answer, draft.wrong) == ("intent", "play music", ("set an alarm",))
    assert by_label(clip, []) == []


# --- speakers --------------------------------------------------------------------------------------------------

DIALOGUE = clip_of(
    (
        *spoken("hello there dear friend", speaker="Ann"),
        *spoken("what a nice day", start=3.0, speaker="Bo"),
        *spoken("shall we go now", start=6.0, speaker="Cy"),
        *spoken("yes let us go", start=9.0, speaker="Ann"),
    )
)


def test_speakers_are_called_by_the_order_in_which_they_are_heard() -> None:
    drafts = {draft.task: draft for draft in by_speaker(DIALOGUE, rng())}
    assert drafts["speaker count"].answer == "three"
    assert len(drafts["speaker count"].evidence) == 3
    who = drafts["who says it"]
    said = {"hello there dear friend": "first", "what a nice day": "second", "shall we go now": "third"}
    expected = next((name for text, name in said.items() if text in who.question), "first")
    assert who.answer == f"the {expected} speaker"
    assert drafts["who speaks next"].answer not in drafts["who speaks next"].wrong


def test_turns_come_from_events_where_words_have_no_speaker() -> None:
    events = (Event("speaker Ann", 0.0, 2.0), Event("speaker Bo", 2.5, 4.0), Event("dog", 1.0, 1.5))
    clip = Clip("c", "c.wav", 5.0, events=events)
    assert [speaker for speaker, _, _ in turns_of(clip)] == ["Ann", "Bo"]
    assert [draft.answer for draft in by_speaker(clip, rng())] == ["two"]


def test_one_voice_is_counted_and_nothing_else_is_asked() -> None:
    clip = clip_of(spoken(TEXT, speaker="Ann"))
    assert [draft.task for draft in by_speaker(clip, rng())] == ["speaker count"]
    assert by_speaker(clip_of(spoken(TEXT)), rng()) == []
    assert by_speaker(clip_of(spoken(TEXT, speaker="Ann"), speaker="Ann"), rng()) == []


# --- words -----------------------------------------------------------------------------------------------------


def test_what_is_said_first_comes_before_all_other_choices() -> None:
    said = " ".join(word.text for word in CLIP.words)
    for seed in range(20):
        drafts = {d.task: d for d in by_words(CLIP, OTHERS, np.random.default_rng(seed))}
        first = drafts["said first"]
        assert all(said.index(first.answer) < said.index(wrong) for wrong in first.wrong)
        if "said next" in drafts:
            follows = drafts["said next"]
            before = follows.question.split('"')[1]
            assert f"{before} {follows.answer}" in said
        at_all = drafts["said at all"]
        assert at_all.answer in said
        assert all(wrong not in said for wrong in at_all.wrong)


def test_evidence_holds_the_words_that_are_the_answer() -> None:
    for draft in by_words(CLIP, OTHERS, rng()):
        inside = " ".join(
            word.text
            for word in CLIP.words
            if any(span.start <= word.start and word.end <= span.end for span in draft.evidence)
        )
        assert draft.answer in inside


# --- sounds ----------------------------------------------------------------------------------------------------


def test_sounds_with_their_times_become_questions_by_the_same_record() -> None:
    events = (Event("dog", 1.0, 1.5), Event("bell", 3.0, 3.5), Event("dog", 5.0, 5.4))
    clip = Clip("s", "s.wav", 10.0, events=events)
    other = Clip("t", "t.wav", 10.0, events=(Event("rain", 0.0, 9.0), Event("car", 1.0, 2.0)))
    drafts = {draft.task: draft for draft in by_sound(clip, [other], rng())}
    assert drafts["sound first"].answer == "dog"
    count = drafts["sound count"]
    assert count.answer == ("two" if "dog" in count.question else "one")
    assert set(drafts["sound at all"].wrong) == {"rain", "car"}
    assert by_sound(CLIP, [other], rng()) == []


def test_sounds_without_a_name_are_not_asked_about_and_counts_need_all_of_them() -> None:
    events = (
        Event("dog", 1.0, 1.5),
        Event("/m/05tny_", 3.0, 3.5),
        Event("17", 4.0, 4.5),
        Event("bell", 5.0, 5.4),
    )
    other = Clip("t", "t.wav", 10.0, events=(Event("rain", 0.0, 9.0), Event("/t/dd00125", 1.0, 2.0)))
    drafts = by_sound(Clip("s", "s.wav", 10.0, events=events), [other], rng())
    assert {draft.task for draft in drafts} == {"sound first", "sound count", "sound at all"}
    said = " ".join(text for draft in drafts for text in (draft.question, draft.answer, *draft.wrong))
    assert not any(label in said for label in ("/m/", "/t/", "17"))
    assert by_sound(Clip("s", "s.wav", 10.0, events=events, flags=("events-left-out",)), [other], rng()) == []
    assert by_sound(Clip("s", "s.wav", 10.0, events=events[1:3]), [other], rng()) == []


# --- all of them -----------------------------------------------------------------------------------------------


def many(n: int = 300) -> list[Question]:
    questions = []
    for i in range(n):
        words = spoken(" ".join(np.random.default_rng(i).permutation(TEXT.split())))
        questions += choice_questions_of(Clip(f"c{i}", f"c{i}.wav", 30.0, words), OTHERS, Choices())
    return questions


def test_letters_and_lengths_give_nothing_away() -> None:
    questions = [q for q in many() if len(q.choices) == 4]
    letters = Counter(q.choices.index(str(q.answer)) for q in questions)
    assert all(0.2 < letters[i] / len(questions) < 0.3 for i in range(4))
    at_all = [q for q in questions if q.task == "said at all"]
    longest = sum(len(str(q.answer)) == max(map(len, q.choices)) for q in at_all) / len(at_all)
    assert longest < 0.45


def test_choices_differ_and_tasks_can_be_left_out() -> None:
    for question in many(20):
        assert len(set(question.choices)) == len(question.choices)
        assert question.choices.count(str(question.answer)) == 1
    without = choice_questions_of(CLIP, OTHERS, Choices(without=("said first",)))
    assert "said first" not in {question.task for question in without}


def test_a_clip_that_nothing_is_known_of_is_asked_nothing() -> None:
    assert choice_questions_of(Clip("c", "c.wav", 3.0), OTHERS, Choices()) == []
