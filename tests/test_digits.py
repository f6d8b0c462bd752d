from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from tgsr.data.corpora.spoken_digits import compose
from tgsr.data.questions.build import ask_about
from tgsr.data.questions.digits import (
    NO_PAUSE,
    TASKS,
    choice_question,
    choice_questions,
    count,
    follows,
    pause,
    twice,
    who,
)
from tgsr.errors import BuildError
from tgsr.records import Clip, Question
from tgsr.timeline import Span, Word


@cache
def asked() -> tuple[tuple[Clip, Question], ...]:
    rng = np.random.default_rng(0)
    clips = [compose(seed, "train").clip for seed in range(300)]
    return tuple((clip, question) for clip in clips for question in choice_questions(clip, rng))


def of_task(task: str) -> list[tuple[Clip, Question]]:
    return [(clip, question) for clip, question in asked() if question.task == task]


def words(text: str, gap: float = 0.1) -> tuple[Word, ...]:
    """ "a:one b:two" as half-second words of speakers a and b; "|" is a pause of 1.5 s."""
    made: list[Word] = []
    now = 0.2
    for item in text.split():
        if item == "|":
            now += 1.5 - gap
            continue
        speaker, digit = item.split(":") if ":" in item else ("a", item)
        made.append(Word(digit, now, now + 0.5, speaker=speaker))
        now += 0.5 + gap
    return tuple(made)


def recompute(clip: Clip, question: Question) -> str:
    """The answer from the question's text and the clip's words alone, by other code."""
    texts = [word.text for word in clip.words]
    speakers = [word.speaker for word in clip.words]
    if found := re.fullmatch(r"Which digit is said right after (\w+)\?", question.question):
        return dict(pairwise(texts))[found[1]]
    if found := re.fullmatch(r"Who says (\w+)\?", question.question):
        by = {
            speaker == speakers[0] for speaker, text in zip(speakers, texts, strict=True) if text == found[1]
        }
        return {0: "nobody", 2: "both speakers"}.get(
            len(by), "the first speaker" if True in by else "the second speaker"
        )
    if question.question == "How many digits does the second speaker say?":
        return str(len(texts) - speakers.count(speakers[0]))
    if question.question == "Which digit is said twice?":
        return next(text for text in texts if texts.count(text) == 2)
    assert question.question == "Is there a pause longer than one second?"
    long = [i for i in range(len(texts) - 1) if clip.words[i + 1].start - clip.words[i].end > 1.0]
    return f"yes, after {texts[long[0]]}" if long else "no, there is none"


def test_every_task_is_asked() -> None:
    assert {question.task for _, question in asked()} == set(TASKS)
    assert min(len(of_task(task)) for task in TASKS) > 20


def test_every_answer_is_what_the_words_say() -> None:
    wrong = [(q.id, q.question, q.answer) for clip, q in asked() if recompute(clip, q) != q.answer]
    assert wrong == []


def test_no_question_has_a_second_right_answer() -> None:
    for clip, question in of_task("follows"):
        texts = [word.text for word in clip.words]
        assert texts.count(str(question.question.split()[-1]).rstrip("?")) == 1
    for clip, question in of_task("twice"):
        n_said = Counter(word.text for word in clip.words)
        assert [choice for choice in question.choices if n_said[choice] == 2] == [question.answer]
        assert sum(n == 2 for n in n_said.values()) == 1
    for clip, question in of_task("pause"):
        texts = [word.text for word in clip.words]
        if question.answer != NO_PAUSE:
            assert texts.count(str(question.answer).removeprefix("yes, after ")) == 1


@pytest.mark.parametrize("task", TASKS)
def test_four_different_choices_hold_the_answer_at_every_letter_alike(task: str) -> None:
    questions = [question for _, question in of_task(task)]
    for question in questions:
        assert len(question.choices) == len(set(question.choices)) == 4
        assert question.answer in question.choices
    places = Counter(question.choices.index(str(question.answer)) for question in questions)
    expected = len(questions) / 4
    chi_squared = sum((places[i] - expected) ** 2 / expected for i in range(4))
    assert chi_squared < 16.3  # 3 degrees of freedom, p = 0.001; the seeds are fixed


def test_the_evidence_is_the_words_that_decide() -> None:
    for clip, question in asked():
        spans, by_text = question.evidence, {}
        for word in clip.words:
            by_text.setdefault(word.text, []).append(word)
        if question.task == "follows":
            asked_for = by_text[question.question.split()[-1].rstrip("?")][0]
            after = clip.words[clip.words.index(asked_for) + 1]
            assert spans == (Span(asked_for.start, after.end),)
        elif question.task == "who":
            said = by_text.get(question.question.split()[-1].rstrip("?"), [])
            assert spans == tuple(word.span for word in said)
            assert (spans == ()) == (question.answer == "nobody")
        elif question.task == "count":
            first = clip.words[0].speaker
            inside = [w for w in clip.words if any(s.start <= w.start and w.end <= s.end for s in spans)]
            assert inside == [w for w in clip.words if w.speaker != first]
            assert {w.start for w in inside} >= {s.start for s in spans}
            assert {w.end for w in inside} >= {s.end for s in spans}
        elif question.task == "twice":
            assert spans == tuple(word.span for word in by_text[str(question.answer)])
            assert len(spans) == 2
        elif question.answer == NO_PAUSE:
            assert spans == ()
        else:
            (before, after) = [w for w in clip.words if w.span.overlap(spans[0])]
            assert spans == (Span(before.start, after.end),)
            assert after.start - before.end > 1.0


def test_no_is_not_the_safe_guess_about_pauses() -> None:
    answers = [question.answer for _, question in of_task("pause")]
    assert 0.1 < answers.count(NO_PAUSE) / len(answers) < 0.4


@pytest.mark.parametrize("task", ["follows", "who", "twice"])
def test_no_answer_is_right_so_often_that_listening_is_not_worth_it(task: str) -> None:
    answers = Counter(question.answer for _, question in of_task(task))
    assert max(answers.values()) / answers.total() < 0.42


def test_the_number_of_digits_is_mostly_not_the_smallest_choice_nor_the_largest() -> None:
    ranks = Counter(sorted(map(int, q.choices)).index(int(str(q.answer))) for _, q in of_task("count"))
    assert max(ranks.values()) / ranks.total() < 0.5
    assert len(ranks) == 4


# --- each task by hand ---------------------------------------------------------------------------------


def test_what_follows_a_repeated_or_the_last_digit_is_not_asked() -> None:
    rng = np.random.default_rng(0)
    drafts = [follows(words("one two one three"), rng) for _ in range(10)]
    assert {(d.question, d.answer) for d in drafts if d} == {("Which digit is said right after two?", "one")}
    assert all(d and "two" not in d.wrong for d in drafts)
    assert follows(words("one one"), rng) is None
    assert follows(words("one"), rng) is None
    assert follows((), rng) is None


def test_who_and_count_need_two_speakers() -> None:
    rng = np.random.default_rng(0)
    for text in ("a:one a:two", ""):
        assert who(words(text), rng) is None
        assert count(words(text), rng) is None


def test_two_speakers_by_hand() -> None:
    said = words("b:one b:two a:two a:three b:four a:five")
    rng = np.random.default_rng(0)
    answers = {d.question: d.answer for _ in range(200) if (d := who(said, rng))}
    assert answers["Who says one?"] == answers["Who says four?"] == "the first speaker"
    assert answers["Who says three?"] == answers["Who says five?"] == "the second speaker"
    assert answers["Who says two?"] == "both speakers"
    assert answers["Who says nine?"] == "nobody"
    draft = count(said, rng)
    assert draft is not None
    assert draft.answer == "3"
    assert draft.evidence == (Span(said[2].start, said[3].end), said[5].span)  # one span a turn


def test_the_second_speaker_is_never_said_to_say_fewer_than_one_digit() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        draft = count(words("a:one b:two"), rng)
        assert draft is not None
        assert draft.answer == "1"
        assert set(draft.wrong) == {"2", "3", "4"}


def test_two_doubled_digits_or_a_tripled_one_are_not_asked_about() -> None:
    rng = np.random.default_rng(0)
    assert twice(words("one one two two three"), rng) is None
    assert twice(words("one one one two three"), rng) is None
    draft = twice(words("one two one"), rng)
    assert draft is not None
    assert draft.answer == "one"


def test_a_long_clip_that_leaves_too_few_wrong_choices_is_not_asked_about() -> None:
    others = "two three four five six seven eight nine " * 3
    assert twice(words(f"one one zero {others}"), np.random.default_rng(0)) is None


def test_a_digit_said_three_times_is_no_wrong_choice_for_said_twice() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        draft = twice(words("one one one two two three"), rng)
        assert draft is not None
        assert draft.answer == "two"
        assert "one" not in draft.wrong


def test_one_pause_after_a_digit_that_is_said_once_is_asked_about() -> None:
    rng = np.random.default_rng(0)
    draft = pause(words("one two three | four five"), rng)
    assert draft is not None
    assert draft.answer == "yes, after three"
    assert NO_PAUSE in draft.wrong
    assert draft.evidence[0].duration == pytest.approx(2.5)  # the words around it are part of it
    assert pause(words("one two three | three four five"), rng) is None  # after which three?
    assert pause(words("one two | three | four five"), rng) is None  # two pauses
    assert pause(words("one two | three four"), rng) is None  # too few digits for four choices


def test_most_clips_without_a_pause_are_not_asked_about() -> None:
    rng = np.random.default_rng(0)
    drafts = [pause(words("one two three four five six"), rng) for _ in range(200)]
    made = [d for d in drafts if d]
    assert 0 < len(made) < 40
    assert all(d.answer == NO_PAUSE and NO_PAUSE not in d.wrong for d in made)


def test_one_speaker_who_was_never_trained_on_is_asked_what_needs_one_speaker() -> None:
    rng = np.random.default_rng(0)
    clips = [compose(seed, "heldout-speaker").clip for seed in range(30)]
    tasks = {q.task for clip in clips for q in choice_questions(clip, rng)}
    assert {"follows", "twice"} <= tasks
    assert tasks.isdisjoint({"who", "count"})


def test_the_same_generator_state_asks_the_same() -> None:
    clip = compose(3, "train").clip
    first, again = (choice_questions(clip, np.random.default_rng(5)) for _ in range(2))
    assert first == again


def test_a_clip_without_words_has_no_question() -> None:
    clip = Clip("c", "c.flac", 3.0)
    assert choice_questions(clip, np.random.default_rng(0)) == []
    assert choice_question(clip, "pause", np.random.default_rng(0)) is None


def test_tasks_can_be_left_out_and_the_other_questions_stay_as_they_are() -> None:
    clips = [compose(seed, "train").clip for seed in range(40)]
    every, some = ask_about(clips, "qa", 4, 0), ask_about(clips, "qa", 4, 0, ("who", "count"))
    assert some == [question for question in every if question.task not in ("who", "count")] != every
    with pytest.raises(BuildError, match=r"--without whom: .*follows, who, count, twice, pause"):
        ask_about(clips, "qa", 4, 0, ("whom",))
