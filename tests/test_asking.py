"""The questions that are kept in the repository, and how their benchmark counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgsr.answering.citing import find_phrase
from tgsr.timeline import Span, Word

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize(
    ("name", "n_recordings", "n_said"),
    [("asked", 8, 60), ("asked_unseen", 5, 30), ("asked_third", 6, 30), ("asked_fourth", 6, 64)],
)
def test_every_question_is_about_a_recording_and_its_answer_is_said_where_it_says(
    name: str, n_recordings: int, n_said: int
) -> None:
    from asking import Question, Recording, rows

    folder = BENCHMARKS / name
    recordings = {one.audio: one for one in rows(folder / "recordings.jsonl", Recording)}
    questions = rows(folder / "questions.jsonl", Question)
    assert len(recordings) >= n_recordings
    assert {one.recording for one in questions} == set(recordings)
    assert all((folder / name).is_file() for name in recordings)
    assert sum(one.said is not None for one in questions) >= n_said
    assert len({(one.recording, one.question) for one in questions}) == len(questions)
    for one in questions:
        if one.said is None or one.start is None or one.end is None:
            continue
        inside = [
            Word(*word)
            for word in recordings[one.recording].words
            if one.start <= word[1] < word[2] <= one.end
        ]
        _, likeness = find_phrase(one.said, inside) or (None, 0.0)
        assert likeness > 0.8, one


def test_evidence_of_a_declined_answer_is_wrong_and_the_threshold_serves_both() -> None:
    from asking import Outcome, Question, area, best_threshold

    said = Question("a", "Who?", "Anna", 2.0, 3.0)
    outcomes = [
        Outcome(said, 0.9, (Span(2.0, 3.0),), ""),
        Outcome(said, 0.8, (Span(0.0, 1.0), Span(1.0, 2.6)), ""),
        Outcome(said, 0.7, (Span(2.6, 9.0),), ""),
        Outcome(Question("a", "Whom?"), 0.75, (Span(2.0, 3.0),), ""),
        Outcome(Question("a", "What?"), 0.3, (Span(2.0, 3.0),), ""),
    ]
    assert [one.is_right(0.5) for one in outcomes] == [True, True, False, False, True]
    assert [one.is_right(0.85) for one in outcomes] == [True, False, False, True, True]
    assert best_threshold(outcomes) == 0.8
    assert area(outcomes) == pytest.approx(2 / 3)  # both of the right ones score above what nobody says
    between = Outcome(Question("a", "Whom?"), 0.85, (Span(2.0, 3.0),), "")
    assert area([*outcomes[:3], between, outcomes[4]]) == pytest.approx(2 / 3 / 2 + 1 / 3 / 2)
