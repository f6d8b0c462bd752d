"""What ms-swift, TRL and verl log is scored as any prediction file is; tests/parity/plugins.py made the logs."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from answered import WORDS, asked, responses
from tgsr.data.other_trainers import kept
from tgsr.errors import ImportFileError, NothingDone, RecordError
from tgsr.evaluation.scoring.files import Foreign
from tgsr.evaluation.scoring.importing import import_predictions
from tgsr.evaluation.scoring.responses import read_answers
from tgsr.evaluation.scoring.score import read_predictions, score_file
from tgsr.evaluation.scoring.trainer_logs import is_log, log_files, read_log
from tgsr.prompts import choice_question
from tgsr.records import Clip, Question, Response, read_responses, write_jsonl
from tgsr.report.results import gather

LOGS = Path(__file__).parent / "data" / "trainer_logs"
SWIFT = LOGS / "ms_swift" / "completions.jsonl"
VERL = LOGS / "verl" / "7.jsonl"
TRL = LOGS / "trl" / "completions" / "completions_00001.parquet"
needs_pyarrow = pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
FIRST_TWENTY = [(question, text) for question in asked()[:2] for text in responses(question)]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    folder = tmp_path / "questions"
    folder.mkdir()
    write_jsonl(folder / "questions.jsonl", asked())
    write_jsonl(folder / "clips.jsonl", [Clip(q.clip_id, q.audio, 6.5, WORDS) for q in asked()])
    return folder / "questions.jsonl"


def swift_row(prompts: list[str], texts: list[str], **columns: list[Any]) -> str:
    n = len(prompts)
    return json.dumps(
        {"step": ["1"] * n, "prompt": prompts, "completion": texts, "advantages": [0.0] * n, **columns}
    )


def prompt_of(question: Question) -> str:
    """As a chat template has it, with the mark of the audio."""
    return f"<|im_start|>user\n<audio>{choice_question(question.question, question.choices)}<|im_end|>\n"


# --- the real logs


@pytest.mark.parametrize("log", [SWIFT, VERL], ids=["ms-swift", "verl"])
def test_a_log_is_scored_as_the_responses_in_it_are(log: Path, questions: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "same.jsonl", [Response(question, "m", text) for question, text in FIRST_TWENTY])
    (same,) = score_file(tmp_path / "same.jsonl", clips=[questions.with_name("clips.jsonl")]).models.values()
    metrics = score_file(log, questions)
    assert metrics.n == 20
    assert metrics.models == {f"{log.parent.name}/{log.stem}": same}
    assert read_predictions(log).format == "tgsr" if log == VERL else is_log(log)


@needs_pyarrow
def test_trls_log_holds_its_questions(questions: Path) -> None:
    assert is_log(TRL)
    found = list(read_log(TRL))
    assert len(found) == 10
    assert {response.question.id for response in found} <= {question.id for question in asked()}
    assert all(response.question in asked() for response in found)
    metrics = score_file(TRL, questions)
    assert (metrics.n, set(metrics.models)) == (10, {"completions/completions_00001"})


def test_what_a_step_did_not_ask_is_not_missing(questions: Path) -> None:
    (scores,) = score_file(VERL, questions).models.values()
    assert "q9" not in json.dumps(scores.missing)
    assert not scores.missing


def test_a_log_without_questions_says_where_they_may_come_from(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"completions\.jsonl:1: does not say which question.*--questions"):
        read_predictions(SWIFT)
    (tmp_path / "completions.jsonl").write_bytes(SWIFT.read_bytes())
    write_jsonl(tmp_path / "questions.jsonl", asked())
    assert len(read_predictions(tmp_path / "completions.jsonl").responses) == 20


def test_a_log_is_reported_and_so_is_a_folder_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "rollouts"
    folder.mkdir()
    for name in ("10.jsonl", "9.jsonl"):
        (folder / name).write_bytes(VERL.read_bytes())
    assert [path.name for path in log_files(folder)] == ["9.jsonl", "10.jsonl"]
    results = gather([folder, VERL])
    assert results.models == ("rollouts", "verl/7")
    assert len(results.responses) == 60
    assert len(read_answers(VERL, tmp_path / "errors.jsonl")) == 20


def test_a_table_with_a_prompt_and_a_completion_is_no_log(questions: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    write_jsonl(table, [{"id": "q0", "prompt": "?", "completion": "(c)"}])
    assert not is_log(table)
    assert import_predictions(table, tmp_path / "p.jsonl", questions=questions, model="m").n == 1


def test_a_log_is_imported_for_what_wants_predictions(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.jsonl"
    imported = import_predictions(SWIFT, out, questions=questions, model="step 1")
    assert (imported.format, imported.n, imported.n_bad, imported.n_unanswered) == ("tgsr", 20, 0, 8)
    assert read_responses(out, several=True) == [Response(q, "step 1", text) for q, text in FIRST_TWENTY]
    write_jsonl(questions, asked()[2:])
    with pytest.raises(ImportFileError, match="none of its 20 completions"):
        import_predictions(SWIFT, out, questions=questions)


# --- whose question it was


def found_in(folder: Path, asked_: list[Question], prompts: list[str], **columns: list[Any]) -> list[Any]:
    log = folder / "completions.jsonl"
    log.write_text(swift_row(prompts, ["(a)"] * len(prompts), **columns) + "\n", encoding="utf-8")
    return list(read_log(log, {question.id: question for question in asked_}))


def test_of_questions_that_end_alike_the_longest_is_meant(tmp_path: Path) -> None:
    short = replace(asked()[0], id="short", question="Who?")
    long = replace(short, id="long", question="No: Who?")
    prompts = [prompt_of(short), prompt_of(long), prompt_of(long).replace("<audio>", "< audio>\n ")]
    found = found_in(tmp_path, [short, long], prompts)
    assert [response.question for response in found[:2]] == [short, long]
    assert found[2].question == long


def test_a_prompt_that_many_clips_have_is_right_or_wrong_and_nobodys_evidence(tmp_path: Path) -> None:
    one = replace(asked()[1], id="one", question="Who?")
    two = replace(one, id="two", clip_id="other", audio="other.wav", duration=9.0)
    other = replace(one, id="other", answer=one.choices[0])
    prompts = [prompt_of(one)] * 3
    found = found_in(tmp_path, [one, two, other], prompts, solution=["c", "a", "b"])
    assert found[0].question == replace(
        one, id="one or 1 more", clip_id="one or 1 more", audio="one or 1 more", duration=9.0, evidence=()
    )
    assert found[1].question == other
    assert isinstance(found[2], Foreign)
    assert isinstance(found_in(tmp_path, [one, other], prompts[:1])[0], Foreign)  # no letter says which


def test_a_log_about_other_questions_is_refused(questions: Path, tmp_path: Path) -> None:
    log = tmp_path / "completions.jsonl"
    log.write_text(swift_row(["What is 1 + 1?"], ["2"]))
    with pytest.raises(NothingDone, match="none of its 1 predictions is for a question of"):
        score_file(log, questions)
    row = {
        "input": "",
        "output": "(a)",
        "score": 0.0,
        "step": 1,
        "tgsr_question": kept(replace(asked()[0], id="else")),
    }
    log.write_text(json.dumps(row))
    (foreign,) = read_log(log, {question.id: question for question in asked()})
    assert isinstance(foreign, Foreign)
    assert foreign.id == "else"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (swift_row(["a"], ["b"], solution=[]), r":1: .*differ in length"),
        (
            '{"input": "a", "output": "b", "score": 1, "step": 1}\n{"input": "a"',
            ":2: the last line is half-written",
        ),
        (
            '{"input": "a", "output": "b", "score": 1, "step": 1}\n{"in": "a"}',
            ":2: is no row of a completions log",
        ),
        (
            json.dumps({"input": "a", "output": "b", "score": 1, "step": 1, "tgsr_question": "{}"}),
            ':1: field "tgsr": is no question',
        ),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(row: str, message: str, questions: Path, tmp_path: Path) -> None:
    log = tmp_path / "completions.jsonl"
    log.write_text(row)
    with pytest.raises(RecordError, match=message):
        score_file(log, questions)


@needs_pyarrow
def test_other_parquet_is_no_log(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["x"]}), path)
    assert not is_log(path)
    messages = [{"role": "assistant", "content": "(a)"}]
    table = {
        "step": [1],
        "prompt": [[{"role": "user", "content": prompt_of(asked()[0])}]],
        "completion": [messages],
    }
    pyarrow.parquet.write_table(pyarrow.table(table), path)  # as TRL's other trainers log conversations
    (response,) = read_log(path, {question.id: question for question in asked()})
    assert (response.question, response.text) == (asked()[0], "(a)")
