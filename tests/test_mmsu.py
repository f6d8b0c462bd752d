import json

import pytest

from tgsr.disk.rows import Entry
from tgsr.evaluation.owners.files import OWNERS, benchmark_questions, owner_of
from tgsr.evaluation.scoring.files import format_of
from tgsr.evaluation.scoring.score import read_predictions, score

ROW = {
    "id": "long_speech_1", "audio_path": "long_speech_1.wav", "question": "What is the mood?", "choice_a": "calm",
    "choice_b": "angry", "choice_c": "sad", "choice_d": "happy", "answer_gt": "angry", "task_name": "mood",
    "category": "Perception", "sub-category": "Paralinguistics", "sub-sub-category": "Speaker Traits",
    "linguistics_sub_discipline": "",
}  # fmt: skip
"""As its owner's mmsu_inference.py writes them, with values of ours."""


def test_its_rows_are_not_airbenchs():
    assert format_of({**ROW, "response": "B"}) == "mmsu"
    assert owner_of(ROW).name == "mmsu"
    airbench = {
        "path": "a.wav",
        "answer_gt": "x",
        "choice_a": "x",
        "task_name": "t",
        "dataset_name": "d",
        "uniq_id": 1,
    }
    assert format_of({**airbench, "response": "A"}) == "airbench"
    assert owner_of(airbench).name == "airbench"


@pytest.mark.parametrize(
    ("response", "official"),
    [
        ("B", True),
        ("B. angry", True),
        ("The answer is B.", True),
        ("A", False),
        ("Both of them", True),  # its scorer reads the first character
        ("I hear anger", None),  # left out of its denominator
        ("", False),
        ("None", False),
    ],
)
def test_right_by_its_owners_rule(response, official):
    choices = tuple(ROW[f"choice_{one}"] for one in "abcd")
    assert OWNERS["mmsu"].ruling(response, choices, "angry").official is official


def test_a_file_of_its_rows_is_scored_and_asked(tmp_path):
    answers = ["B", "A", "", "no idea"]
    rows = [{**ROW, "id": f"r{n}", "response": text} for n, text in enumerate(answers)]
    path = tmp_path / "mmsu.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    scores = score(read_predictions(path)).benchmark
    assert (scores.n, scores.n_unscored, scores.accuracy_official.value) == (4, 1, pytest.approx(1 / 3))
    assert scores.accuracy_official_by_category["Perception"].n == 3
    questions = list(benchmark_questions(path))
    assert [question.id for question in questions] == ["r0", "r1", "r2", "r3"]
    assert questions[0].about("a.wav", 2.0).labelled("benchmark") == ("mmsu",)
    assert OWNERS["mmsu"].question(Entry(path, 1, ROW)).places[0] == "long_speech_1.wav"
