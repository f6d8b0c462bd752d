from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pytest

from tgsr.choices import extract_choice, official_letter
from tgsr.data.corpora.spoken_digits import DIGITS, compose, speakers_in_order
from tgsr.data.questions.digits import TASKS, choice_questions
from tgsr.grounding import find_spans
from tgsr.miniature.lessons import (
    BREATH,
    DRILLS,
    HABITS,
    LISTED,
    NO_EVIDENCE,
    NOTHING_TO_CITE,
    PLACES,
    Quotes,
    TextLesson,
    bad_span,
    by_rarity,
    clock,
    counts_lesson,
    drill,
    each_lesson,
    evidence_lesson,
    follows_lesson,
    lessons,
    letters_lesson,
    pauses_lesson,
    phrase_lessons,
    pieces,
    place,
    reasoning,
    recital,
    says_lesson,
    speaker_of,
    subtitle_clock,
    talking_lessons,
    timed_transcript,
    turn_counts_lesson,
    turns,
    turns_lesson,
    within,
    written,
)
from tgsr.prompts import REASONING_OPENING
from tgsr.records import Clip, Question
from tgsr.timeline import Span, Word

# Each as real models write it; the tests below ask that each is taught and read back.
NOTATIONS = {
    "from 6.2s to 10.0s": "from 1.25s to 3.50s",
    "from 6.20 seconds to 10.00 seconds": "from 1.25 seconds to 3.50 seconds",
    "(0.27s-2.95s)": "(1.25s-3.50s)",
    "(0.27-2.95 s)": "(1.25-3.50 s)",
    "[0.00s – 4.30s]": "[1.25s – 3.50s]",
    "between 3 and 5 seconds": "between 1.25 and 3.50 seconds",
    "<seg>1.2,3.4</seg>": "<seg>1.25,3.50</seg>",
    "(0.27-2.95)": "(1.25-3.50)",
    "(0.27, 2.95)": "(1.25, 3.50)",
    "[0.27 - 2.95]": "[1.25 - 3.50]",
    "at 5.2s": "at 1.25s",
    "0:12 - 0:15": "0:01 - 0:04",
    "00:00:38,127 --> 00:00:40,000": "00:00:01,250 --> 00:00:03,500",
}
Reasoned = tuple[Clip, Question, str, Quotes]


@cache
def clips() -> tuple[Clip, ...]:
    return tuple(compose(seed, "train").clip for seed in range(120))


def reasonings(true_times: bool) -> Iterator[Reasoned]:
    rng = np.random.default_rng(1)
    for clip in clips():
        for question in choice_questions(clip, rng):
            yield clip, question, *reasoning(question, clip, rng, true_times)


def covered(quote: tuple[Word, ...]) -> Span:
    return Span(quote[0].start, quote[-1].end)


def said_at(clip: Clip, said: list[str]) -> list[Span]:
    """Where the clip has these words, one after the other."""
    n = len(said)
    parts = [clip.words[i : i + n] for i in range(len(clip.words) - n + 1)]
    return [covered(part) for part in parts if [w.text for w in part] == said]


# --- notations -----------------------------------------------------------------------------------------


def test_every_notation_of_real_models_is_taught_and_no_other() -> None:
    assert {place(form, Span(1.25, 3.5)) for form, _ in (*PLACES, *LISTED)} == set(NOTATIONS.values())


def test_every_interval_is_read_back_by_the_strict_parser_after_its_quote() -> None:
    rng = np.random.default_rng(0)
    for form, _ in (*PLACES, *LISTED):
        for _ in range(50):
            start = float(rng.uniform(0, 9))
            span = Span(start, start + float(rng.uniform(0.15, 3)))
            found = find_spans(f'The speaker says "seven two" {place(form, span)}.')
            if form.startswith("at "):
                assert found == []
            elif form == "{clock}":  # whole seconds: around the span, by less than a second a side
                assert [s for s in found if s.start <= span.start and span.end <= s.end] == found != []
                assert found[0].duration < span.duration + 2
            else:
                assert len(found) == 1
                assert found[0].start == pytest.approx(span.start, abs=0.00501)
                assert found[0].end == pytest.approx(span.end, abs=0.00501)


@pytest.mark.parametrize(
    ("seconds", "plain", "subtitle"),
    [
        (0.0, "0:00", "00:00:00,000"),
        (9.999, "0:09", "00:00:09,999"),
        (3.25, "0:03", "00:00:03,250"),
        (59.5, "0:59", "00:00:59,500"),
        (1.9996, "0:01", "00:00:02,000"),
        (61.5, "1:01", "00:01:01,500"),
    ],
)
def test_clocks_by_hand(seconds: float, plain: str, subtitle: str) -> None:
    assert (clock(seconds), subtitle_clock(seconds)) == (plain, subtitle)


# --- true times ----------------------------------------------------------------------------------------


def test_timed_reasoning_quotes_and_then_times_exactly() -> None:
    n_cited = 0
    for clip, _, text, quotes in reasonings(true_times=True):
        body = text.split("\n")[1]
        exact = [s for s in find_spans(body) if not (body.startswith("In order") and ":0" in body)]
        for span, quote in zip(exact, quotes, strict=True) if exact else ():
            assert (span.start, span.end) == pytest.approx((quote[0].start, quote[-1].end), abs=0.00501)
            assert covered(quote) in said_at(clip, [word.text for word in quote])
            n_cited += 1
        place_in_body = 0  # the quotes stand in their order, each before its first number
        for quote in quotes:
            place_in_body = body.index(
                " ".join(word.text for word in quote if word.speaker == quote[0].speaker), place_in_body
            )
    assert n_cited > 300


def test_no_speaker_is_quoted_with_the_other_ones_words() -> None:
    for clip, _, text, _ in reasonings(true_times=True):
        speakers = speakers_in_order(clip.words)
        if len(speakers) == 2:
            for who, said in re.findall(r'he (first|second) speaker says "([a-z ]+)"', text):
                theirs = [w.text if w.speaker == speakers[who == "second"] else "|" for w in clip.words]
                assert f" {said} " in f" {' '.join(theirs)} "


def test_phrase_lessons_answer_with_the_true_span_of_words_that_are_asked_once() -> None:
    rng = np.random.default_rng(0)
    for clip in clips():
        for lesson in phrase_lessons(clip, rng, 4, true_times=True):
            (quote,) = lesson.quotes
            said = [word.text for word in quote]
            assert " ".join(said) in lesson.question
            places = said_at(clip, said)
            assert [(p.start, p.end) for p in places] == [(quote[0].start, quote[-1].end)]
            start, end = map(float, re.findall(r"\d+\.\d\d", lesson.answer))
            assert start == pytest.approx(places[0].start, abs=0.00501)
            assert end == pytest.approx(places[0].end, abs=0.00501)


def test_phrases_are_asked_in_the_papers_words_now_and_then() -> None:
    rng = np.random.default_rng(0)
    asked = [lesson.question for clip in clips() for lesson in phrase_lessons(clip, rng, 4, True)]
    share = sum(question.startswith("What is the timestamp") for question in asked) / len(asked)
    assert 0.17 < share < 0.33
    short = phrase_lessons(clips()[0], rng, 4, True, long_prompt=0.0)
    assert all(lesson.question.startswith("When is: ") for lesson in short)


def test_a_timed_transcript_has_each_words_start() -> None:
    clip = clips()[0]
    pairs = re.findall(r"(\d+\.\d\d) ([a-z]+)", timed_transcript(clip, np.random.default_rng(0), True))
    assert pairs == [(f"{word.start:.2f}", word.text) for word in clip.words]


def test_a_written_clip_holds_every_word_between_its_times_under_its_speaker() -> None:
    for clip in clips():
        speakers = speakers_in_order(clip.words)
        read = []
        for line in written(clip).split("\n"):
            who, _, said = line.partition(": ")
            speaker = speakers[{"speaker": 0, "first speaker": 0, "second speaker": 1}[who]]
            read += [(*item.split(), speaker) for item in said.split(", ")]
        assert read == [(f"{w.start:.2f}", w.text, f"{w.end:.2f}", w.speaker) for w in clip.words]


def test_letters_are_those_of_the_choices_above() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        lesson = letters_lesson(rng)
        choices = dict(re.findall(r"\(([a-d])\) (.+)", lesson.question))
        pairs = re.findall(r"(.+?) \(([a-d])\)(?:; |$)", lesson.answer)
        assert len(choices) == 4
        assert [choices[letter] for _, letter in pairs] == [text for text, _ in pairs]
        assert lesson.question.endswith("Letters of: " + "; ".join(text for text, _ in pairs))


def test_each_asked_word_is_said_once_and_gets_its_own_time() -> None:
    rng = np.random.default_rng(0)
    for clip in clips():
        if lesson := each_lesson(clip, rng):
            for digit, start, end in re.findall(r"([a-z]+) (\d+\.\d\d) - (\d+\.\d\d)", lesson.answer):
                (word,) = [word for word in clip.words if word.text == digit]
                assert (start, end) == (f"{word.start:.2f}", f"{word.end:.2f}")
            assert lesson.answer.count(" - ") == len(lesson.quotes) >= 1
    repeated = Clip("c", "c.wav", 2.0, (Word("one", 0, 0.5), Word("one", 1, 1.5)))
    assert each_lesson(repeated, rng) is None


def test_drills_follow_from_their_texts() -> None:
    rng = np.random.default_rng(0)
    kinds = []
    for clip in clips():
        for _ in range(3):
            lesson = drill(clip, rng)
            kinds.append(lesson.kind)
            lines = lesson.answer.split("\n")
            if lesson.kind == "drill repeat":
                assert set(lines) == {lesson.question}
            elif lesson.kind == "drill letters":
                choices = dict(re.findall(r"\(([a-d])\) (.+)", lesson.question))
                for line in lines:
                    text, letter = re.fullmatch(r"Final answer: (.+) \(([a-d])\)", line).groups()  # type: ignore[union-attr]
                    assert choices[letter] == text
            else:
                for digit, start, end in re.findall(r"When is (\w+): (\S+) - (\S+)", lesson.answer):
                    assert f"{start} {digit} {end}" in lesson.question
    assert set(kinds) == {f"drill {kind}" for kind in DRILLS}


def test_what_follows_and_who_says_it_is_true_of_every_asked_word() -> None:
    rng = np.random.default_rng(0)
    n_follows = n_says = 0
    for clip in clips():
        speakers = speakers_in_order(clip.words)
        texts = [word.text for word in clip.words]
        if lesson := follows_lesson(clip, rng):
            for word, following in re.findall(r"(\w+) (\w+)", lesson.answer):
                assert texts.count(word) == 1
                assert texts[texts.index(word) + 1] == following
                n_follows += 1
        if lesson := says_lesson(clip, rng):
            for word, who in re.findall(r"(\w+) (\w+)", lesson.answer):
                assert {w.speaker for w in clip.words if w.text == word} == {speakers[who == "second"]}
                n_says += 1
    assert n_follows > 200
    assert n_says > 100


def test_pauses_and_counts_are_true_of_every_asked_word() -> None:
    rng = np.random.default_rng(0)
    answers = []
    for clip in clips():
        texts = [word.text for word in clip.words]
        if lesson := pauses_lesson(clip, rng):
            for word, long in re.findall(r"(\w+) (yes|no)", lesson.answer):
                index = texts.index(word)
                gap = clip.words[index + 1].start - clip.words[index].end
                assert texts.count(word) == 1
                assert (long == "yes") == (gap > 1.0)
                answers.append(long)
        counted = re.findall(r"(\w+) (\d)", counts_lesson(clip, rng).answer)
        assert counted
        assert all(texts.count(digit) == int(n) for digit, n in counted)
    assert 0.04 < answers.count("yes") / len(answers) < 0.5


def test_turns_are_counted_by_hand() -> None:
    clip = Clip("c", "c.wav", 4.0, spoken_words("b:one b:two a:three b:four"))
    lesson = turn_counts_lesson(clip, np.random.default_rng(0))
    assert lesson is not None
    assert lesson.answer == "first 2, second 1, first 1; together: first 3, second 1"
    alone = Clip("c", "c.wav", 2.0, spoken_words("a:one a:two"))
    assert turn_counts_lesson(alone, np.random.default_rng(0)) is None


def test_what_a_question_rests_on_is_what_the_metric_calls_its_evidence() -> None:
    rng = np.random.default_rng(0)
    tasks = set()
    for clip in clips():
        for question in choice_questions(clip, rng):
            lesson = evidence_lesson(question, clip, rng, true_times=True)
            sentences, last = lesson.answer.split("\n")
            assert last.startswith(f"Final answer: {question.answer} (")
            if not question.evidence:
                assert sentences == NOTHING_TO_CITE
                assert question.answer in ("nobody", "no, there is none")
                continue
            assert tuple(map(covered, lesson.quotes)) == question.evidence
            said = " ".join(re.findall('"(.*?)"', sentences)).split()
            assert said == [word.text for quote in lesson.quotes for word in quote]
            cited = find_spans(sentences)
            assert [(s.start, s.end) for s in cited] == [
                pytest.approx((e.start, e.end), abs=0.00501) for e in question.evidence
            ]
            tasks.add(question.task)
    assert tasks == set(TASKS)


def test_a_recital_has_all_words_and_its_own_form() -> None:
    rng = np.random.default_rng(0)
    for clip in clips():
        text, quotes = recital(clip, rng, true_times=True)
        assert [word for quote in quotes for word in quote] == list(clip.words)
        assert text.startswith("In order: ")
        assert '"' not in text
        assert "says" not in text


def test_rare_kinds_of_questions_come_first_more_often_than_not() -> None:
    rng = np.random.default_rng(0)
    asked = [choice_questions(clip, rng) for clip in clips()]
    both = [questions for questions in asked if {"pause", "follows"} <= {q.task for q in questions}]
    assert len(both) > 5
    firsts = [by_rarity(questions, rng)[0].task for questions in both for _ in range(20)]
    assert firsts.count("pause") > 2 * firsts.count("follows")


def test_talking_is_mostly_questions() -> None:
    rng = np.random.default_rng(0)
    for true_times in (True, False):
        kinds = [lesson.kind for clip in clips() for lesson in talking_lessons(clip, rng, true_times)]
        asked = [
            kind
            for kind in kinds
            if kind.startswith(("answer ", "evidence ")) or "each" in kind or kind == "reasoning"
        ]
        assert len(asked) > 0.7 * len(kinds)
        assert ("phrase" in kinds) == true_times != ("bad phrase" in kinds)


def test_who_says_what_keeps_the_turns() -> None:
    clip = Clip("c", "c.wav", 4.0, spoken_words("b:one b:two a:three b:four"))
    answer = "first speaker: one two; second speaker: three; first speaker: four"
    assert turns_lesson(clip).answer == answer


# --- bad times -----------------------------------------------------------------------------------------


def test_the_times_of_plain_reasoning_are_of_no_use() -> None:
    ious = []
    for _, _, text, quotes in reasonings(true_times=False):
        spans = find_spans(text.split("\n")[1])
        ious += [span.iou(covered(quote)) for span, quote in zip(spans, quotes, strict=False)]
    assert len(ious) > 200
    assert np.mean(ious) < 0.35


def test_bad_spans_fit_in_the_clip_more_or_less() -> None:
    rng = np.random.default_rng(0)
    for duration in (0.3, 2.0, 10.0):
        spans = [bad_span(duration, rng) for _ in range(300)]
        assert all(0.29 < span.duration < 4.01 for span in spans)
        assert max(span.end for span in spans) < duration + 0.71
        assert min(span.start for span in spans) < 0.1


def test_the_times_of_plain_transcripts_are_random_but_sorted_and_the_words_are_right() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for clip in clips():
        pairs = re.findall(r"(\d+\.\d\d) ([a-z]+)", timed_transcript(clip, rng, False))
        starts = [float(start) for start, _ in pairs]
        assert [text for _, text in pairs] == [word.text for word in clip.words]
        assert sorted(starts) == starts
        errors += [abs(s - word.start) for s, word in zip(starts, clip.words, strict=True)]
    assert np.mean(errors) > 0.4


def kinds_of(true_times: bool) -> set[str]:
    rng = np.random.default_rng(0)
    return {lesson.kind for clip in clips() for lesson in lessons(clip, rng, true_times)}


def test_no_lesson_for_plain_audio_has_a_true_time() -> None:
    kinds = kinds_of(true_times=False)
    assert {"bad times", "bad phrase", "reasoning", "transcript", "turns", "letters"} <= kinds
    assert not {"true times", "phrase", "each"} & kinds


def test_lessons_with_true_times_have_no_bad_ones() -> None:
    kinds = kinds_of(true_times=True)
    assert {"true times", "phrase", "each", "reasoning", "transcript"} <= kinds
    assert not {"bad times", "bad phrase"} & kinds


def test_bad_phrases_are_answered_without_regard_to_the_audio() -> None:
    rng = np.random.default_rng(0)
    ious = []
    for clip in clips():
        for lesson in phrase_lessons(clip, rng, 4, true_times=False):
            start, end = map(float, re.findall(r"\d+\.\d\d", lesson.answer))
            ious.append(Span(start, end).iou(covered(lesson.quotes[0])))
    assert np.mean(ious) < 0.3


# --- reasoning -----------------------------------------------------------------------------------------


def test_reasoning_opens_as_the_paper_asks_and_ends_with_a_choice_by_its_letter() -> None:
    for _, question, text, _ in reasonings(true_times=False):
        lines = text.split("\n")
        assert len(lines) == 3
        assert lines[0] == REASONING_OPENING
        answer, letter = re.fullmatch(r"Final answer: (.+) \(([a-d])\)", lines[2]).groups()  # type: ignore[union-attr]
        assert question.choices["abcd".index(letter)] == answer
        assert extract_choice(text, question.choices) == "abcd".index(letter)
        assert str(official_letter(text)).strip("()") == letter


def test_better_evidence_goes_with_better_answers_so_that_stage_two_can_choose() -> None:
    right: dict[str, list[bool]] = {"none": [], "some": []}
    for _, question, text, _ in reasonings(true_times=False):
        cites = text.split("\n")[1] not in NO_EVIDENCE
        right["some" if cites else "none"].append(
            text.split("\n")[-1].startswith(f"Final answer: {question.answer} (")
        )
    assert len(right["none"]) > 60
    share = {habit: share for habit, (share, _) in HABITS.items()}
    is_right = {habit: often for habit, (_, often) in HABITS.items()}
    some = sum(share[habit] * is_right[habit] for habit in ("all", "evidence")) / (1 - share["none"])
    assert np.mean(right["none"]) == pytest.approx(is_right["none"], abs=0.1)
    assert np.mean(right["some"]) == pytest.approx(some, abs=0.07)
    assert is_right["none"] < is_right["all"] < is_right["evidence"]


# --- pieces --------------------------------------------------------------------------------------------


def spoken_words(text: str) -> tuple[Word, ...]:
    items = [item.split(":") for item in text.split()]
    return tuple(Word(t, float(i), i + 0.5, speaker=s) for i, (s, t) in enumerate(items))


def texts_of(parts: Sequence[Sequence[Word]]) -> list[list[str]]:
    return [[word.text for word in part] for part in parts]


def test_turns_end_with_the_speaker_and_pieces_at_a_breath_too() -> None:
    words = spoken_words("a:one a:two a:three b:four a:five")  # half a second apart
    assert texts_of(turns(words)) == [["one", "two", "three"], ["four"], ["five"]]
    assert texts_of(pieces(words)) == [["one"], ["two"], ["three"], ["four"], ["five"]]
    close = (Word("one", 0, 1, "a"), Word("two", 1 + BREATH / 2, 2, "a"), Word("three", 2, 3, "b"))
    assert texts_of(pieces(close)) == [["one", "two"], ["three"]]
    assert turns(()) == []


def test_speakers_are_named_only_where_there_are_two() -> None:
    words = spoken_words("b:one b:two a:three")
    both = speakers_in_order(words)
    assert speaker_of(words[:2], both) == "first speaker"
    assert speaker_of(words[2:], both) == "second speaker"
    assert speaker_of(words[:2], ("b",)) == "speaker"


def test_words_that_only_touch_a_span_are_not_within_it() -> None:
    words = spoken_words("a:one a:two a:three")
    assert within(words, Span(0.5, 1.0)) == ()
    assert within(words, Span(0.4, 1.1)) == words[:2]


def test_lessons_are_the_same_for_the_same_generator_state() -> None:
    for true_times in (True, False):
        first, again = (lessons(clips()[3], np.random.default_rng(9), true_times) for _ in range(2))
        assert first == again
        assert all(isinstance(lesson, TextLesson) for lesson in first)


def test_a_lessons_quotes_stand_in_its_question_or_first_in_its_answer() -> None:
    rng = np.random.default_rng(0)
    for clip in clips()[:40]:
        for lesson in [
            *lessons(clip, rng, True),
            *lessons(clip, rng, False),
            *talking_lessons(clip, rng, True),
        ]:
            text = lesson.question if "phrase" in lesson.kind else lesson.answer
            digits = [word for word in re.findall("[a-z]+", text) if word in DIGITS]
            said = [word.text for quote in lesson.quotes for word in quote]
            assert digits[: len(said)] == said
