"""Questions by rule: each has one right answer, and the spans that show it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tgsr.data.questions.by_rule import (
    TASKS,
    Choices,
    by_label,
    by_sound,
    by_speaker,
    by_words,
    choice_questions_of,
    in_order,
    turns_of,
    with_neighbour,
)
from tgsr.data.questions.draft import Draft
from tgsr.data.questions.phrases import Phrases, fitting_phrases, plain_word, spread_phrases
from tgsr.errors import OptionError
from tgsr.records import Clip, Question
from tgsr.timeline import Event, Hole, Span, Word

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


def test_no_two_choices_are_alike_but_for_case_and_punctuation() -> None:
    draft = Draft(
        "t", "Which?", "Set alarm", ("set alarm!", "Play Music", "play \u201cmusic\u201d", "?", "stop"), ()
    )
    question = in_order(CLIP, draft, Choices())
    assert sorted(question.choices) == ["?", "Play Music", "Set alarm", "stop"]
    assert question.answer == "Set alarm"
    assert len(in_order(CLIP, draft, Choices(n=2)).choices) == 2


@pytest.mark.parametrize(
    "text",
    [
        "hello world",
        "no " * 20,
        "1 2 3 4 5 6 7 1990 1991 12 7",
        "... -- , !",
        "мы пойдём домой завтра вместе",
        "今天 天气 很 好\u3002 我们 去 公园 玩 吧",
        "The Cat sat on the mat and the cat SAT on the mat . A dog ran",
        " ".join(f"w{i % 97}" for i in range(300)),
    ],
)
def test_any_text_gets_questions_with_different_choices_or_none(text: str) -> None:
    others = [*OTHERS, clip_of(spoken("THE CAT sat on a ship that sails beyond Grey Rocks"), id="o4")]
    clip = clip_of(spoken(text))
    for seed in range(5):
        for question in choice_questions_of(
            clip, [replace(o, audio=o.id) for o in others], Choices(seed=seed)
        ):
            plain = {" ".join(map(plain_word, choice.split())) for choice in question.choices}
            assert len(plain) == len(question.choices) >= 2
            assert question.evidence or question.answer in ("no", "never")
            assert question.task in TASKS


def test_a_task_that_is_none_is_told() -> None:
    with pytest.raises(OptionError, match="--without 'speakercount': is no task; tasks are intent"):
        Choices(without=("said first", "speakercount"))


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
    quoted = who.question.split('"')[1]
    (speaker,) = {
        speaker for speaker, _, words in turns_of(DIALOGUE) if quoted in " ".join(word.text for word in words)
    }
    assert (
        who.answer
        == {"Ann": "the first speaker", "Bo": "the second speaker", "Cy": "the third speaker"}[speaker]
    )
    (span,) = who.evidence
    inside = [word.text for word in DIALOGUE.words if span.start <= word.start and word.end <= span.end]
    assert " ".join(inside) == quoted
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


SAID = " ".join(word.text for word in CLIP.words)


def drafts_of(clip: Clip, others: list[Clip], n_seeds: int = 30) -> list[Draft]:
    return [d for seed in range(n_seeds) for d in by_words(clip, others, np.random.default_rng(seed))]


def said_in(clip: Clip, spans: tuple[Span, ...]) -> list[str]:
    """The words in each span."""
    return [
        " ".join(word.text for word in clip.words if span.start <= word.start and word.end <= span.end)
        for span in spans
    ]


def test_what_is_said_first_comes_before_the_other_phrase_and_both_are_evidence() -> None:
    for draft in drafts_of(CLIP, OTHERS):
        if draft.task == "said first":
            later = draft.wrong[0]
            assert SAID.index(draft.answer) < SAID.index(later)
            assert said_in(CLIP, draft.evidence) == [draft.answer, later]
            assert len(draft.wrong) == 3
            assert all(absent not in SAID for absent in draft.wrong[1:])


def test_two_words_follow_a_phrase_and_wrong_ones_are_of_this_clip_and_of_others() -> None:
    drafts = [draft for draft in drafts_of(CLIP, OTHERS) if draft.task == "said next"]
    for draft in drafts:
        cue = draft.question.split('"')[1]
        assert f"{cue} {draft.answer}" in SAID
        assert said_in(CLIP, draft.evidence) == [cue, draft.answer]
        assert {len(text.split()) for text in (draft.answer, *draft.wrong)} == {2}
        assert f"{draft.answer} {draft.wrong[0]}" not in f"{cue} {draft.answer}"
    wrong = [text for draft in drafts for text in draft.wrong[:3]]
    elsewhere = " ".join(word.text for other in OTHERS for word in other.words)
    assert any(text in SAID for text in wrong)
    assert any(text in elsewhere for text in wrong)


def test_of_four_phrases_one_is_said_and_every_one_is_a_near_miss_of_another() -> None:
    for draft in drafts_of(CLIP, OTHERS):
        if draft.task == "said at all":
            assert draft.answer in SAID
            assert len(draft.wrong) == 3
            assert all(wrong not in SAID for wrong in draft.wrong)
            near, strange, near_strange = (text.split() for text in draft.wrong)
            for one, other in ((draft.answer.split(), near), (strange, near_strange)):
                assert sum(a != b for a, b in zip(one, other, strict=True)) == 1
            assert said_in(CLIP, draft.evidence) == [draft.answer]


def test_a_near_miss_keeps_case_and_punctuation() -> None:
    clip = clip_of(spoken("Good morning, Anna Karenina. Where is Boris Petrovich today?"))
    others = [
        clip_of(
            spoken("yes, evening and again these walking crowds of"),
            id="o",
        )
    ]
    others = [Clip("o", "o.wav", others[0].duration, others[0].words)]
    near = {d.wrong[0] for d in drafts_of(clip, others, 60) if d.task == "said at all"}
    assert any("evening, Anna" in text for text in near)
    assert any("Walking" in text or "Evening" in text or "Crowds" in text or "Again" in text for text in near)


def test_a_near_miss_never_sounds_as_what_is_said() -> None:
    text = "we saw their horse near some high walls where seven knights slept"
    others = [replace(clip_of(spoken("there house hoarse were nights wails sores"), id="o"), audio="o.wav")]
    heard = {"there": "their", "hoarse": "horse", "nights": "knights"}
    for draft in drafts_of(clip_of(spoken(text)), others, 60):
        wrong = draft.wrong if draft.task == "said at all" else ()
        for one in (*wrong, draft.question.split('"')[1] if draft.answer == "no" else "?"):
            assert " ".join(heard.get(word, word) for word in one.split()) not in text


def test_a_word_is_not_counted_where_another_sounds_like_it() -> None:
    clips = [counted(n, f"n{n}") for n in range(4)]
    assert any('"tree"' in draft.question for draft in drafts_of(clips[1], clips))
    for text in ("tree-house", "TREE's tree"):
        added = Word(text.split()[0], 9.0, 9.3)
        clip = replace(clips[1], words=(*clips[1].words, added))
        asked = [draft for draft in drafts_of(clip, clips) if '"tree"' in draft.question]
        assert (asked == []) == (text == "tree-house")
    pear = [
        replace(c, words=tuple(replace(w, text=w.text.replace("tree", "pear")) for w in c.words))
        for c in clips
    ]
    heard = replace(pear[1], words=(*pear[1].words, Word("pair", 9.0, 9.3)))
    assert not any('"pear"' in draft.question for draft in drafts_of(heard, pear))


def test_what_is_not_said_has_the_words_that_are_said_instead_as_evidence() -> None:
    drafts = [draft for draft in drafts_of(CLIP, OTHERS, 60) if draft.task == "is it said"]
    assert {draft.answer for draft in drafts} == {"yes", "no"}
    found: list[int] = []
    for draft in drafts:
        asked = draft.question.split('"')[1]
        assert (draft.answer == "yes") == (asked in SAID)
        heard = said_in(CLIP, draft.evidence)
        if draft.answer == "yes":
            assert heard == [asked]
        else:  # one word is another's, or all are and there is nothing to point at
            unlike = [a != b for said in heard for a, b in zip(said.split(), asked.split(), strict=True)]
            assert sum(unlike) == len(heard) <= 1
            found.append(len(heard))
    assert {*found} == {0, 1}


def counted(n: int, name: str) -> Clip:
    """A clip in which "tree" is said n times."""
    words = spoken(" ".join(["some tall tree"] * n + ["some old house"] * (3 - n)))
    return Clip(name, f"{name}.wav", 10.0, words)


def test_every_number_of_times_is_asked_for_alike_and_all_places_are_evidence() -> None:
    clips = [counted(n, f"n{n}-{i}") for n, often in enumerate((20, 10, 5, 5)) for i in range(often)]
    drafts = [
        (clip, draft) for clip in clips for draft in drafts_of(clip, clips, 6) if draft.task == "word count"
    ]
    for clip, draft in drafts:
        word = draft.question.split('"')[1]
        assert len(word) > 2
        n = sum(said.text == word for said in clip.words)
        assert draft.answer == ("never", "once", "twice", "three times")[n]
        said = said_in(clip, draft.evidence)  # each with a word beside it
        assert [place.split().count(word) for place in said] == [1] * n
        assert {len(place.split()) for place in said} <= {2}
        assert len(draft.wrong) == 3
    answers = Counter(draft.answer for _, draft in drafts if '"tree"' in draft.question)
    assert max(answers.values()) < 2 * min(answers.values())


def test_a_counted_word_is_evidence_with_its_neighbour_unless_a_pause_or_another_voice_is_between() -> None:
    words = (
        Word("the", 1.0, 1.1, "Ann"),
        Word("end", 1.2, 1.5, "Ann"),
        Word("the", 2.5, 2.6, "Ann"),
        Word("no", 2.7, 2.9, "Bob"),
        Word("to", 2.9, 3.0, "Bob"),
        Word("the", 3.1, 3.2, "Bob"),
    )
    pairs = [" ".join(word.text for word in with_neighbour(words, place)) for place in (0, 2, 5)]
    assert pairs == ["the end", "the", "to the"]


def test_words_are_not_counted_where_some_are_not_known_nor_where_no_other_clip_tells_how_often() -> None:
    clips = [counted(n, f"n{n}") for n in range(4)]
    assert "word count" in {draft.task for draft in drafts_of(clips[1], clips)}
    holed = replace(clips[1], holes=(Hole(3.0, 3.1),))
    assert "word count" not in {draft.task for draft in drafts_of(holed, clips)}
    assert "word count" not in {draft.task for draft in drafts_of(clips[1], [])}


def test_numbers_of_speakers_are_those_that_the_corpus_has() -> None:
    one = clip_of(spoken(TEXT, speaker="Ann"))
    (alone,) = by_speaker(one, rng(), [DIALOGUE, one])
    assert (alone.answer, alone.wrong) == ("one", ("three",))


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
    sizes = [[len(choice) for choice in q.choices] for q in at_all]
    right = [len(str(q.answer)) for q in at_all]
    longest = [(n == max(of)) / of.count(max(of)) for n, of in zip(right, sizes, strict=True)]  # ties in part
    assert 0.15 < np.mean(longest) < 0.4


def test_choices_differ_and_tasks_can_be_left_out() -> None:
    for question in many(20):
        assert len(set(question.choices)) == len(question.choices)
        assert question.choices.count(str(question.answer)) == 1
    without = choice_questions_of(CLIP, OTHERS, Choices(without=("said first",)))
    assert "said first" not in {question.task for question in without}


def test_a_clip_that_nothing_is_known_of_is_asked_nothing() -> None:
    assert choice_questions_of(Clip("c", "c.wav", 3.0), OTHERS, Choices()) == []
