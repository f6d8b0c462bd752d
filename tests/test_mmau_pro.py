"""MMAU-Pro: several recordings, open-ended questions and instructions; its owner's rules where they can be told."""

import json
from pathlib import Path

import pytest

from tgsr.disk.parquet import pyarrow_for
from tgsr.disk.rows import Entry
from tgsr.errors import Bad, RecordError
from tgsr.evaluation.owners.files import OWNERS, benchmark_questions, owner_of
from tgsr.evaluation.owners.following import RULES, follows, n_sentences
from tgsr.evaluation.owners.ruling import EMBEDDED
from tgsr.evaluation.scoring.importing import import_predictions
from tgsr.evaluation.scoring.score import read_predictions, score

ROW = {
    "id": "p0", "audio_path": ["data/a.wav"], "question": "Which animal is heard?", "answer": "a dog",
    "choices": ["a cat", "a dog"], "length_type": "short", "perceptual_skills": ["Sound", "Animals"],
    "reasoning_skills": [], "category": "sound", "transcription": None, "task_classification": None,
    "task_identifier": None, "kwargs": None, "sub-cat": "animals",
}  # fmt: skip
"""The columns of test.parquet, with values of ours."""
OPEN = {**ROW, "id": "p1", "choices": [], "answer": "A dog barks twice.", "category": "open"}
INSTRUCTION = {
    **ROW, "id": "p2", "choices": None, "answer": None, "category": "instruction following",
    "task_identifier": "Number Bullets", "kwargs": {"N": 2, "keyword": None},
}  # fmt: skip
TWO_SOUNDS = {**ROW, "id": "p3", "audio_path": ["data/a.wav", "data/b.wav"], "category": "multi"}
ROWS = [ROW, OPEN, INSTRUCTION, TWO_SOUNDS]

# What evaluate_aif_sample of evaluate_mmau_pro_comprehensive.py (25 September 2025) says, run apart from here with
# "What is heard?" as the question.
FOLLOWED = [
    ("Include Keywords", {"keywords": "rain, umbrella"}, "Rain and an Umbrella", True),
    ("Include Keywords", {"keywords": "rain, umbrella"}, "only rain", False),
    ("Forbidden Words", {"forbidden_words": "no, never"}, "nothing here", False),
    ("Forbidden Words", {"forbidden_words": "no, never"}, "yes it is", True),
    ("Keyword Frequency", {"keyword": "dog", "N": 2}, "Dog, dogs, dog", True),
    ("Keyword Frequency", {"keyword": "dog", "N": 3}, "Dog, dogs, dog", False),
    ("Number Paragraphs", {"N": 2}, "one *** two ***  ", True),
    ("Number Paragraphs", {"N": 2}, "one\n\ntwo", False),
    ("Number Words (at least)", {"N": 3}, "a b c", True),
    ("Number Words (at most)", {"N": 3}, "a b c d", False),
    ("Number Words (range)", {"N1": 2, "N2": 3}, "a b c", True),
    ("Number Sentences (at least)", {"N": 2}, "Dr. Smith left. He ran!", True),
    ("Number Sentences (at most)", {"N": 1}, "Dr. Smith left at 3.5 s.", True),
    ("Number Sentences (range)", {"N1": 3, "N2": 3}, 'He said "No." Then left. Why?', True),
    ("Postscript", {"postscript_marker": "P.S."}, "Bye.\np.s. call", True),
    ("Postscript", {"postscript_marker": "P.P.S"}, "P.S. call", False),
    ("Number Placeholder", {"N": 2}, "[name] at [place] and [x]", True),
    ("Number Placeholder", {"N": 2}, "[] [name]", False),
    ("Number Bullets", {"N": 2}, "* one\n* two", True),
    ("Number Bullets", {"N": 2}, "- one\n- two", False),
    ("Number Bullets", {"N": 1}, "a * b\n  * c", True),
    ("Title", {}, "<<Rain>> it falls", True),
    ("Title", {}, "<Rain>", False),
    ("Minimum Number Highlighted Section", {"N": 2}, "*a* and *b*", True),
    ("Minimum Number Highlighted Section", {"N": 2}, "**a**", False),
    ("Multiple Sections", {"N": 2, "section_splitter": "SECTION"}, "SECTION one SECTION two", True),
    ("Multiple Sections", {"N": 2, "section_splitter": "SECTION"}, "one", False),
    ("Repeat Prompt", {}, "  what is heard? A dog.", True),
    ("Repeat Prompt", {}, "A dog.", False),
    ("Two Responses", {}, "a ****** b", True),
    ("Two Responses", {}, "a ****** A", False),
    ("Two Responses", {}, "a", False),
    ("All Uppercase", {}, "RAIN 3!", True),
    ("All Uppercase", {}, "3!", False),
    ("All Lowercase", {}, "rain", True),
    ("All Lowercase", {}, "Rain", False),
    ("All-capital Words (at least)", {"N": 2}, "A DOG I saw", True),
    ("All-capital Words (at most)", {"N": 2}, "A DOG I saw", False),
    ("All-capital Words (range)", {"N1": 3, "N2": 4}, "A DOG I saw", True),
    ("Start Checker", {"start_phrase": "Well, now"}, "WELL now: rain", True),
    ("Start Checker", {"start_phrase": "Well"}, '"well"', True),
    ("Start Checker", {"start_phrase": "Well"}, " Well", False),
    ("End Checker", {"end_phrase": "the end."}, "It is The End!", True),
    ("End Checker", {"end_phrase": "the end"}, "the end \n", False),
    ("Quotation", {}, ' "all of it" ', True),
    ("Quotation", {}, '"half', False),
    ("No Commas", {}, "a; b", True),
    ("No Commas", {}, "a, b", False),
    ("Sing", {}, "la", False),
]


@pytest.mark.parametrize(("identifier", "given", "text", "expected"), FOLLOWED)
def test_instructions_are_followed_as_the_owner_checks_them(identifier, given, text, expected):
    assert follows(text, identifier, given, "What is heard?") is expected


def test_every_instruction_is_checked():
    assert {identifier for identifier, *_ in FOLLOWED} - RULES.keys() == {"Sing"}
    assert RULES.keys() - {identifier for identifier, *_ in FOLLOWED} == set()
    assert follows("a b", "Number Words (at least)", {"N": None}, "") is None  # nobody says how many


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("", 0),
        ("one", 1),
        ("Well... Yes! No.", 3),
        ("so... it is", 1),
        ('"Stop!", he said. Why?', 3),
        ("U.S. law.", 1),
    ],
)
def test_sentences_are_counted_as_punkt_counts_them(
    text, n
):  # punkt 2.2.1's sent_tokenize, run apart from here
    assert n_sentences(text) == n


def written(path: Path, rows: list[dict[str, object]], how: str) -> Path:
    lines = "".join(json.dumps(row) + "\r\n" for row in rows)
    texts = {"list": json.dumps(rows), "lines": lines, "bom": "\ufeff" + lines}
    path.write_text(texts[how], encoding="utf-8")
    return path


@pytest.mark.parametrize("how", ["list", "lines", "bom"])
def test_only_closed_questions_about_one_sound_are_asked(tmp_path, how):
    found = list(benchmark_questions(written(tmp_path / "pro", ROWS, how)))
    asked = [one for one in found if not isinstance(one, Bad)]
    assert [(q.id, q.places, q.answer) for q in asked] == [("p0", ("data/a.wav", "a.wav"), "a dog")]
    assert asked[0].entry.values["audio_path"] == ["data/a.wav"]  # as the owner's file has it
    reasons = [bad.error for bad in found if isinstance(bad, Bad)]
    assert ["open" in reasons[0], "instruction" in reasons[1], "2 recordings" in reasons[2]] == [True] * 3


def test_a_table_holds_lists_as_json():
    row = {**ROW, "audio_path": '["data/a.wav"]', "choices": '["a cat", "a dog"]'}
    assert OWNERS["mmau-pro"].question(Entry(Path(), 1, row)).choices == ("a cat", "a dog")
    with pytest.raises(RecordError, match="no list in JSON"):
        OWNERS["mmau-pro"].question(Entry(Path(), 1, {**row, "choices": "['a cat' 'a dog']"}))


def test_its_rows_are_not_mmaus():
    assert owner_of(ROW).name == "mmau-pro"
    assert owner_of({"id": "1", "audio_id": "a.wav", "choices": ["x"]}).name == "mmau"


def test_a_choices_own_text_is_nearest_to_itself_and_of_any_other_text_nothing_is_claimed():
    rule, choices = OWNERS["mmau-pro"].ruling, ROW["choices"]
    assert [rule(text, choices, "a dog").official for text in ("a dog", "a cat", "A dog", "", "(b)")] == [
        True, False, None, None, None,
    ]  # fmt: skip
    assert rule("Final answer: (b) a dog", choices, "a dog")[:2] == (None, True)
    assert rule("(b)", choices, "a dog").why == EMBEDDED


def test_a_file_of_predictions_is_scored_by_kind_and_after_import_officially(tmp_path):
    texts = ["Final answer: (b) a dog", "It barks.", "* one\n* two", "the second, a dog"]
    rows = [{**row, "model_output": text} for row, text in zip(ROWS, texts, strict=True)]
    scores = score(read_predictions(written(tmp_path / "p.jsonl", rows, "lines"))).benchmark
    assert (scores.n, scores.n_unscored, scores.accuracy_official.value) == (4, 3, 1.0)
    assert scores.accuracy_official_by_domain["instruction following"].value == 1.0
    assert scores.n_without_choice == 0
    done = import_predictions(tmp_path / "p.jsonl", tmp_path / "official.jsonl")
    assert (done.format, done.n) == ("mmau-pro", 4)
    handed = score(read_predictions(tmp_path / "official.jsonl")).benchmark
    assert (handed.n_unscored, handed.accuracy_official.value, handed.accuracy_strict.value) == (1, 1.0, 1.0)


def test_parquet_is_read_as_the_owner_ships_it(tmp_path):
    pytest.importorskip("pyarrow")
    pyarrow = pyarrow_for("the test")
    path = tmp_path / "test.parquet"
    rows = [{**row, "model_output": "a dog"} for row in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert [q.id for q in benchmark_questions(path) if not isinstance(q, Bad)] == ["p0"]
    assert score(read_predictions(path)).benchmark.n == 4
    assert import_predictions(path, tmp_path / "out.jsonl").n == 4
