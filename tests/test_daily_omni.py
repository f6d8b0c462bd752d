"""Daily-Omni: letters inside of options, answers by letter, no ids."""

import json

import pytest

from tgsr.errors import Bad
from tgsr.evaluation.owners.files import OWNERS, benchmark_questions, owner_of, write_official
from tgsr.evaluation.scoring.files import format_of
from tgsr.evaluation.scoring.score import read_predictions, score
from tgsr.records import Response

ROW = {
    "Question": "What is said when the door opens?", "Choice": ["A. 'Hello'", "B. 'A dog.'", "C. Nothing", "D. 'Go'"],
    "Answer": "B", "video_id": "abc", "Type": "AV Event Alignment", "video_category": "Education",
    "video_duration": "30s",
}  # fmt: skip
"""qa.json's columns (20 May 2025), with values of ours."""

# What evaluate_answer of test_model_api/test_utils.py says, run apart from here; a failed request is no answer there.
ANSWERS = [
    ("B", True), ("b) x", True), ("The answer is B", False), (" B.", True), ("Both", True), ("", False),
    ("None", False), ("A", False), ("\nB\n", True), ("(B)", False), ("error_max_retries", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "official"), ANSWERS)
def test_right_by_its_owners_rule(text, official):
    owner = OWNERS["daily-omni"]
    assert owner.ruling(text, owner.options(ROW), "'A dog.'").official is official


def test_letters_are_no_part_of_its_options_and_the_answer_is_one(tmp_path):
    path = tmp_path / "qa.json"
    path.write_text(json.dumps([ROW, ROW, {**ROW, "Question": "Another?"}, {**ROW, "Answer": "E"}]), "utf-8")
    assert (owner_of(ROW).name, format_of({**ROW, "api_answer": "B"})) == ("daily-omni", "daily-omni")
    found = list(benchmark_questions(path))
    good = [one for one in found if not isinstance(one, Bad)]
    assert good[0].choices == ("'Hello'", "'A dog.'", "Nothing", "'Go'")
    assert {q.answer for q in good} == {"'A dog.'"}
    assert [q.id[:4] for q in good] == ["abc-", "abc-"]
    assert good[0].id != good[1].id
    assert good[0].places[0] == "Videos/abc/abc_audio.wav"
    assert ["already" in bad.error or "none of the choices" in bad.error for bad in found if isinstance(bad, Bad)] == [
        True, True,
    ]  # fmt: skip


def test_answers_are_scored_and_handed_over_by_their_letter(tmp_path):
    asked = tmp_path / "qa.json"
    asked.write_text(json.dumps([ROW]), "utf-8")
    (question,) = benchmark_questions(asked)
    response = Response(question.about("a.wav", 30.0), "m", "Final answer: (b) 'A dog.'")
    assert write_official(asked, tmp_path / "out.json", [response]).n == 1
    (row,) = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert row == {**ROW, "api_answer": "B"}
    scores = score(read_predictions(tmp_path / "out.json")).benchmark
    assert (scores.n, scores.accuracy_official.value, scores.accuracy_strict.value) == (1, 1.0, 1.0)
    assert scores.accuracy_official_by_category["AV Event Alignment"].n == 1
