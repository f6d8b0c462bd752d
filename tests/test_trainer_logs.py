"""What other trainers log and answer is scored as any prediction file is.

tests/parity/plugins.py made the logs of ms-swift, TRL and verl; those of NeMo-RL were written by its own batching and
its Logger.log_batched_dict_as_jsonl (22 August 2026) of messages of ours.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from answered import WORDS, asked, responses
from tgsr.data.other_trainers import KEPT, kept, to_ms_swift
from tgsr.errors import ImportFileError, NothingDone, RecordError
from tgsr.evaluation.scoring.files import Foreign
from tgsr.evaluation.scoring.importing import import_predictions
from tgsr.evaluation.scoring.responses import read_answers
from tgsr.evaluation.scoring.score import read_predictions, score_file
from tgsr.evaluation.scoring.trainer_logs import is_log, log_files, read_log
from tgsr.prompts import choice_question
from tgsr.records import Clip, Question, Response, read_responses, write_jsonl
from tgsr.report.results import gather
from tgsr.timeline import Span

LOGS = Path(__file__).parent / "data" / "trainer_logs"
SWIFT = LOGS / "ms_swift" / "completions.jsonl"
VERL = LOGS / "verl" / "7.jsonl"
NEMO_RL = LOGS / "nemo_rl"
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


# --- NeMo-RL


@pytest.mark.parametrize("name", ["train_data_step7.jsonl", "val_data_step7.jsonl", ""])
def test_nemo_rls_log_is_scored_as_the_responses_in_it_are(
    name: str, questions: Path, tmp_path: Path
) -> None:
    """Each value is a list of one, contents stand with or without their roles, and advantages may be NaN."""
    write_jsonl(tmp_path / "same.jsonl", [Response(question, "m", text) for question, text in FIRST_TWENTY])
    (same,) = score_file(tmp_path / "same.jsonl", clips=[questions.with_name("clips.jsonl")]).models.values()
    assert list(score_file(NEMO_RL / name, questions).models.values()) == [same]


def test_a_nemo_rl_row_without_an_answer_is_named(questions: Path, tmp_path: Path) -> None:
    log = tmp_path / "train_data_step1.jsonl"
    rows = (NEMO_RL / "train_data_step7.jsonl").read_text().splitlines()
    log.write_text(f"{rows[0]}\n" + json.dumps({"content": [["?"]], "rewards": [1.0], "idx": 1}))
    with pytest.raises(
        RecordError, match=r'step1\.jsonl:2: field "content": must be a question and its answer'
    ):
        score_file(log, questions)


@pytest.mark.parametrize("log", [NEMO_RL / "train_data_step7.jsonl", NEMO_RL, VERL.parent, SWIFT], ids=str)
def test_what_audit_and_view_read_of_a_log_may_be_a_folder(
    log: Path, questions: Path, tmp_path: Path
) -> None:
    answers = read_answers(log, tmp_path / "errors.jsonl", questions=questions)
    assert [(one.response.question, one.response.text) for one in answers] == FIRST_TWENTY


# --- answers to an exported file

PHRASES = [
    Question(
        f"p{n}", f"c{n}", f"{n % 2}/a{n // 2}.wav", 6.5, "phrase", "When?", phrase=phrase, evidence=(span,)
    )
    for n, (phrase, span) in enumerate(
        [
            ("ten past nine", Span(1.1, 2.9)),
            ("ten past nine", Span(1.1, 2.9)),  # the same phrase at the same time in a file of the same name
            ("ten past nine", Span(3.0, 4.0)),
            ("ten", Span(1.1, 1.4)),
        ]
    )
]


def swift_infer(questions: list[Question], text: str, *, kept_too: bool) -> list[dict[str, Any]]:
    """`swift infer --val_dataset EXPORTED --result_path` (ms-swift 4.6, pipelines/infer/infer.py); by default it drops
    the columns that it does not know.
    """
    rows = []
    for question in questions:
        row = to_ms_swift(question, f"/data/{question.audio}", "qwen_omni")
        messages = [message for message in row["messages"] if message["role"] != "assistant"]
        target = row["messages"][-1]["content"] if question.kind == "phrase" else None
        said = {"response": text, "labels": target, "logprobs": None}
        more = {KEPT: row[KEPT]} if kept_too else {}
        messages.append({"role": "assistant", "content": text})
        rows.append({**said, "messages": messages, "audios": row["audios"], **more})
    return rows


@pytest.mark.parametrize("kept_too", [True, False])
@pytest.mark.parametrize("asked_", [PHRASES, asked()], ids=["phrases", "choices"])
def test_what_swift_infer_answers_is_joined_to_what_was_exported(
    asked_: list[Question], kept_too: bool, tmp_path: Path
) -> None:
    """Rows of messages and audios are also those of LAT-Bench's results, for which these were taken."""
    write_jsonl(tmp_path / "asked.jsonl", asked_)
    answers, out = tmp_path / "result.jsonl", tmp_path / "predictions.jsonl"
    write_jsonl(answers, swift_infer(asked_, "From 1.1 to 2.9 seconds. (c)", kept_too=kept_too))
    asks = None if kept_too else tmp_path / "asked.jsonl"
    assert import_predictions(answers, out, questions=asks, model="m").n == len(asked_)
    assert [response.question for response in read_responses(out)] == asked_
    assert score_file(answers, asks).n == len(asked_)


def test_llama_factorys_predictions_are_found_by_prompt_and_label(tmp_path: Path) -> None:
    """`generated_predictions.jsonl`: prompts with their special tokens, no sound; of two alike nobody can tell."""
    rows = [
        {
            "prompt": f"<|im_start|>user\n<|AUDIO|>{row['messages'][1]['content']}<|im_end|>\n<|im_start|>assistant\n",
            "predict": "The segment starts at 1.10 seconds and ends at 2.90 seconds.",
            "label": row["messages"][2]["content"],
        }
        for row in (to_ms_swift(question, "a.wav", "qwen_omni") for question in PHRASES)
    ]
    answers = tmp_path / "generated_predictions.jsonl"
    write_jsonl(answers, rows)
    found = list(read_log(answers, {question.id: question for question in PHRASES}))
    assert [isinstance(one, Foreign) for one in found] == [True, True, False, False]
    assert [one.question.id for one in found[2:] if isinstance(one, Response)] == ["p2", "p3"]
    only_ten = list(read_log(answers, {"p3": PHRASES[3]}))  # "ten" is not what "ten past nine" was asked for
    assert [isinstance(one, Foreign) for one in only_ten] == [True, True, True, False]


def test_answers_to_other_questions_are_no_log(tmp_path: Path) -> None:
    """ms-swift and LLaMA-Factory write the same rows for anything, LAT-Bench too."""
    for row in (
        {
            "response": "x",
            "labels": "y",
            "messages": [{"role": "user", "content": "When?"}],
            "audios": ["a.wav"],
        },
        {"response": "x", "messages": None},
        {"prompt": "<|im_start|>user\n1 + 1<|im_end|>", "predict": "2", "label": "2"},
        {"content": "text", "rewards": 1.0, "idx": 0},
    ):
        write_jsonl(tmp_path / "other.jsonl", [row])
        assert not is_log(tmp_path / "other.jsonl")


def test_a_reward_that_does_not_apply_is_nan_in_a_log(questions: Path, tmp_path: Path) -> None:
    """As json.dumps writes it, which ms-swift, verl and NeMo-RL use."""
    log = tmp_path / "completions.jsonl"
    log.write_text(swift_row([prompt_of(asked()[0])], ["(c)"], format=[float("nan")]) + "\n")
    assert "NaN" in log.read_text()
    assert score_file(log, questions).n == 1


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


def test_the_sound_says_whose_question_a_prompt_is_and_whose_not(tmp_path: Path) -> None:
    one = replace(asked()[0], id="one", question="Who?", audio="s1/001.flac")
    two = replace(one, id="two", clip_id="other", audio="s2/001.flac")
    rows = swift_infer([one, two, replace(one, audio="s1/002.flac")], "(c)", kept_too=False)
    rows[1]["audios"] = [{"bytes": None, "path": "/elsewhere/s2/001.wav"}]
    write_jsonl(tmp_path / "result.jsonl", rows)
    found = list(read_log(tmp_path / "result.jsonl", {"one": one, "two": two}))
    assert [one.question.id for one in found[:2] if isinstance(one, Response)] == ["one", "two"]
    assert isinstance(found[2], Foreign)


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
