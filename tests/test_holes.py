"""No question is asked across words that are missing, whoever asks it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgsr.data.corpora.which import clips_of
from tgsr.data.questions.build import Stage1, ask_about, phrases_of
from tgsr.data.questions.by_llm import LlmDraft, Refused, draft_of
from tgsr.data.questions.by_rule import by_speaker, by_words
from tgsr.data.questions.phrases import Phrases, Said, phrase_questions, spread_phrases, unbroken
from tgsr.data.splits import Split
from tgsr.errors import Bad
from tgsr.records import Clip, as_row, clip_of, read_clips, write_jsonl
from tgsr.timeline import Hole, Word

TEXT = "I did say that seven wise men look at one blue moon before they ever sleep"
NOT = Hole(0.8, 0.8, "not")  # between "did" and "say"


def clip(text: str = TEXT, *holes: Hole, speakers: str = "") -> Clip:
    """Words of 0.4 s one after the other; `speakers` has a letter a word."""
    texts = text.split()
    names = speakers or " " * len(texts)
    words = tuple(
        Word(word, round(0.4 * n, 6), round(0.4 * n + 0.4, 6), name.strip() or None)
        for n, (word, name) in enumerate(zip(texts, names, strict=True))
    )
    return Clip("c", "c.wav", 0.4 * len(texts) + 1, words, holes=holes)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def crosses(asked: str) -> bool:
    return "did say" in asked


def test_no_phrase_is_asked_across_a_missing_word() -> None:
    every = [q.phrase for q in spread_phrases(clip(), rng(), Phrases(n_a_clip=500))]
    assert any(crosses(str(phrase)) for phrase in every)
    with_hole = [q.phrase for q in spread_phrases(clip(TEXT, NOT), rng(), Phrases(n_a_clip=500))]
    assert {"I did", "say that"} <= set(with_hole)
    assert set(with_hole) == {phrase for phrase in every if not crosses(str(phrase))}
    asked = phrase_questions(clip(TEXT, NOT), rng(), 500)
    assert asked
    assert not any(crosses(str(q.phrase)) for q in asked)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 4)), max_size=6),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)), max_size=5),
)
def test_a_hole_parts_the_words_that_it_lies_between_and_no_others(
    said: list[tuple[int, int]], missing: list[tuple[int, int]]
) -> None:
    words = [Word("w", start, start + length) for start, length in sorted(said)]
    holes = [Hole(start, start + length) for start, length in missing]
    for joined, (a, b) in zip(unbroken(words, holes), pairwise(words), strict=True):
        first, last = min(a.end, b.start), max(a.end, b.start)
        assert joined == all(hole.end < first or last < hole.start for hole in holes)


def test_what_is_said_again_where_nobody_knows_when_is_said_twice() -> None:
    again = Hole(2.0, 2.4, "SAY that,")
    phrases = {q.phrase for q in spread_phrases(clip(TEXT, again), rng(), Phrases(n_a_clip=500))}
    assert "say that" not in phrases
    assert "did say that" in phrases


def test_a_phrase_is_counted_whatever_its_words_are_cut_into() -> None:
    city = (Word("New York", 0.0, 0.5), Word("--", 0.5, 0.6), Word("sleeps.", 0.6, 1.0))
    again = tuple(Word(text, n, n + 1) for n, text in enumerate(["new", "York", "sleeps"], 2))
    assert Said((*city, *again), ()).count(["New York", "sleeps"]) == 2


def test_words_that_came_out_of_order_are_no_neighbours() -> None:
    words = clip().words
    moved = replace(clip(), words=(*words[:3], words[9], *words[3:9], *words[10:]))
    phrases = {str(q.phrase) for q in spread_phrases(moved, rng(), Phrases(n_a_clip=500))}
    assert phrases
    assert not any("say that" in phrase or "at one" in phrase for phrase in phrases)


def test_what_is_said_next_is_not_asked_across_a_hole() -> None:
    of_words = clip().words
    for n, (before, after) in enumerate(pairwise(of_words)):
        holed = clip(TEXT, Hole(before.end, after.start))
        for seed in range(20):
            for draft in by_words(holed, [], np.random.default_rng(seed)):
                for text in (draft.answer, *draft.wrong, draft.question):
                    assert f"{before.text} {after.text}" not in text
                if draft.task == "said next":
                    quoted = draft.question.split('"')[1]
                    assert n != TEXT.split().index(quoted.split()[-1])


def test_speakers_are_not_counted_where_somebody_else_may_speak() -> None:
    two = {"text": "good morning all here hello to you too", "speakers": "AAAABBBB"}
    assert {draft.task for draft in by_speaker(clip(**two), rng())} == {"speaker count", "who says it"}
    assert by_speaker(clip(two["text"], Hole(1.6, 1.6, "what"), speakers="AAAABBBB"), rng()) == []
    known = by_speaker(clip(two["text"], Hole(0.4, 0.4, "very", "A"), speakers="AAAABBBB"), rng())
    assert {draft.task for draft in known} == {"speaker count", "who says it"}
    assert not any("good morning" in draft.question for draft in known)


def test_who_speaks_next_is_not_asked_where_a_word_is_missing_between_turns() -> None:
    text, speakers = "good morning all hello to you what is this", "AAABBBCCC"
    tasks = {draft.task for seed in range(5) for draft in by_speaker(clip(text, speakers=speakers), rng())}
    assert "who speaks next" in tasks
    for seed in range(20):
        holed = clip(text, Hole(1.2, 1.2, "well", "B"), speakers=speakers)
        for draft in by_speaker(holed, np.random.default_rng(seed)):
            assert draft.task != "who speaks next" or "good" not in draft.question


def test_digits_are_not_asked_about_where_some_are_missing() -> None:
    digits = clip("one two three four five six one", speakers="AAAABBB")
    assert ask_about([digits], "qa", 8, 0)
    assert ask_about([replace(digits, holes=(Hole(0.4, 0.4),))], "qa", 8, 0) == []


def test_a_quote_across_a_hole_is_refused() -> None:
    written = LlmDraft("What?", "seven men", ("two cats", "some dogs", "few birds"), "did say that", "{}")
    refused = draft_of(written, clip(TEXT, NOT), "open question 1")
    assert isinstance(refused, Refused)
    assert refused.reason == "words are missing where the quote is said"
    assert not isinstance(draft_of(replace(written, quote="say that seven"), clip(TEXT, NOT), "q 1"), Refused)


def test_holes_travel_with_the_clip(tmp_path: Path) -> None:
    holed = clip(TEXT, NOT, Hole(1.0, 2.5, None, "A"))
    write_jsonl(tmp_path / "clips.jsonl", [holed])
    assert read_clips(tmp_path / "clips.jsonl") == [holed]
    row = json.loads((tmp_path / "clips.jsonl").read_text())
    assert row["holes"][0] == {"start": 0.8, "end": 0.8, "text": "not"}
    made = phrases_of(Stage1(Phrases(n_a_clip=500), Split()), [row])
    assert made.rows
    assert not any(crosses(json.dumps(as_row(question))) for question in made.rows)


@pytest.mark.parametrize(
    ("hole", "problem"),
    [
        ({"start": 2, "end": 1}, "hole: end 1.0 s is not after its start 2.0 s"),
        ({"start": 1, "end": 99}, "hole: end 99.0 s is more than 0.05 s after"),
        ({"start": 1}, "hole: end is missing"),
        ({"start": 1, "end": 2, "text": 3}, "must be text, got 3"),
    ],
)
def test_a_bad_hole_is_named(hole: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        clip_of({**as_row(clip()), "holes": [hole]})


def test_a_manifests_words_without_times_cost_themselves(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "words": [("I", 0.0, 0.4), ("did", 0.4, 0.8), ("not", 0.8, 0.8), ("say", 0.8, 1.2)]},
        {"id": "b", "words": [("I", 0.0, 0.4), ("did", 0.4, 0.8), ("not", None, None), ("say", 0.8, 9.0)]},
        {"id": "c", "words": [("I", 0.0, 0.4), ("did", "0.4", 0.8)]},
    ]
    for row in rows:
        row |= {"audio": f"{row['id']}.wav", "duration": 2.0}
        row["words"] = [{"word": text, "start": start, "end": end} for text, start, end in row["words"]]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    a, b, c = clips_of(tmp_path / "clips.jsonl", "clips", tmp_path)
    assert isinstance(a, Clip)
    assert isinstance(b, Clip)
    assert [word.text for word in a.words] == [word.text for word in b.words] == ["I", "did", "say"]
    assert a.holes == b.holes == (Hole(0.8, 0.8, "not"),)
    assert (a.flags, b.flags) == (("words-missing",), ("words-missing", "words-cut"))
    assert isinstance(c, Bad)
    assert "start must be a number, got '0.4'" in c.error


def test_a_length_that_no_number_has_is_named(tmp_path: Path) -> None:
    row = {
        "id": "a",
        "audio": "a.wav",
        "duration": 10**400,
        "words": [{"word": "I", "start": None, "end": None}],
    }
    write_jsonl(tmp_path / "clips.jsonl", [row])
    (bad,) = clips_of(tmp_path / "clips.jsonl", "clips", tmp_path)
    assert isinstance(bad, Bad)
    assert bad.field == "duration"


def test_marks_among_words_are_in_no_phrase() -> None:
    marked = clip("I did <unk> say that [laughter] seven wise men look at JOHN: one blue moon")
    phrases = [str(q.phrase) for q in spread_phrases(marked, rng(), Phrases(n_a_clip=500))]
    assert any("that seven" in phrase for phrase in phrases)
    assert not any(mark in phrase for mark in ("<", "[", "JOHN", "did say", "at one") for phrase in phrases)
