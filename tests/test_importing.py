"""Predictions that other programs wrote, into the scorer."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tgsr import cli
from tgsr.choices import token_match
from tgsr.errors import ImportFileError, RecordError
from tgsr.evaluation.scoring.importing import Imported, import_predictions
from tgsr.evaluation.scoring.score import read_predictions, score
from tgsr.records import Question, Response, read_responses, write_jsonl

SHARED = Path(__file__).parents[2] / "shared" / "data"
MMAU: list[dict[str, Any]] = [
    {
        "id": f"m{i}",
        "audio_id": f"./test-mini-audios/m{i}.wav",
        "question": "Who speaks?",
        "choices": ["a man", "a woman", "a child"],
        "answer": "a woman",
        "task": "speech",
        "category": "Reasoning",
    }
    for i in range(4)
]
COMPLETIONS = [
    "From 1.0s to 2.0s I hear a man, then a child. Final answer: (b) a woman",
    "a woman",
    "It could be a man or a child.\nFinal answer: (c) a child",
    "no idea",
]


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def imported(tmp_path: Path, content: Any, name: str = "in.json", **options: Any) -> tuple[Imported, Path]:
    out = tmp_path / "out.jsonl"
    return import_predictions(write(tmp_path / name, content), out, **options), out


def errors_of(out: Path) -> list[dict[str, Any]]:
    path = out.with_name(out.name + ".errors.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def mmau_of(tmp_path: Path) -> Path:
    return write(tmp_path / "mmau.json", MMAU)


@pytest.mark.parametrize(
    ("ended", "is_cut"),
    [
        ({"truncated": True}, True),
        ({"truncated": "True"}, True),
        ({"finish_reason": "length"}, True),
        ({"stop_reason": "max_tokens"}, True),
        ({"finishReason": "MAX_TOKENS"}, True),
        ({"truncated": False}, False),
        ({"finish_reason": "stop"}, False),
        ({"finish_reason": None}, False),
    ],
)
def test_a_response_that_was_cut_stays_so(ended: dict[str, Any], is_cut: bool, tmp_path: Path) -> None:
    row = {"id": "q", "response": "The speaker", "question": "Who?", "choices": ["a", "b"], "answer": "a"}
    row |= {"audio": "a.wav", "duration": 5.0, **ended}
    _, out = imported(tmp_path, [row], model="m")
    assert [response.truncated for response in read_responses(out)] == [is_cut]


def test_our_own_responses_keep_what_they_say_of_how_they_were_asked(tmp_path: Path) -> None:
    question = Question("q", "c", "a.wav", 5.0, "choice", "Who?", "a", ("a", "b"))
    made = [Response(question, "m", "The speaker", truncated=True, system="Be brief.")]
    write_jsonl(tmp_path / "p.jsonl", made)
    import_predictions(tmp_path / "p.jsonl", tmp_path / "out.jsonl")
    assert read_responses(tmp_path / "out.jsonl") == made


def test_completions_reach_mmaus_official_score_as_choices(tmp_path: Path) -> None:
    rows = [{"id": f"m{i}", "prediction": text} for i, text in enumerate(COMPLETIONS)]
    found, out = imported(tmp_path, rows, questions=mmau_of(tmp_path))
    assert (found.format, found.n, found.n_unread, found.response_column) == ("mmau", 4, 1, "prediction")
    written = json.loads(out.read_text())
    assert [row["model_output"] for row in written] == ["a woman", "a woman", "a child", "no idea"]
    assert [row["completion"] for row in written] == COMPLETIONS
    metrics = score(read_predictions(out))
    assert metrics.benchmark is not None
    assert metrics.benchmark.accuracy_official.value == 0.5


def test_as_is_leaves_the_official_match_its_faults(tmp_path: Path) -> None:
    rows = [{"id": f"m{i}", "prediction": text} for i, text in enumerate(COMPLETIONS)]
    _, out = imported(tmp_path, rows, questions=mmau_of(tmp_path), as_is=True)
    assert [row["model_output"] for row in json.loads(out.read_text())] == COMPLETIONS
    metrics = score(read_predictions(out))
    assert metrics.benchmark is not None
    assert metrics.benchmark.accuracy_official.value == 0.25  # the first weighs the other choices


def test_lmms_evals_sample_logs(tmp_path: Path) -> None:
    lines = [
        {
            "doc_id": i,
            "doc": row,
            "target": row["answer"],
            "resps": [[text, "another"]],
            "filtered_resps": [text],
        }
        for i, (row, text) in enumerate(zip(MMAU, COMPLETIONS, strict=True))
    ]
    found, out = imported(tmp_path, "\n".join(map(json.dumps, lines)), "samples.jsonl")
    assert (found.format, found.n, found.n_more) == ("mmau", 4, 4)
    assert [row["id"] for row in json.loads(out.read_text())] == ["m0", "m1", "m2", "m3"]


def test_airbench_rows_with_durations_from_a_constant(tmp_path: Path) -> None:
    row = {
        "path": "x.wav",
        "question": "Which emotion?",
        "choice_a": "sad",
        "choice_b": "glad",
        "choice_c": None,
        "choice_d": None,
        "answer_gt": "glad",
        "task_name": "Speaker_Emotion_Recontion",
        "dataset_name": "iemocap",
        "uniq_id": 17,
        "response": "B. glad",
    }
    found, out = imported(tmp_path, json.dumps(row), "air.jsonl", model="SALMONN", columns={"duration": "=5"})
    assert found.format == "tgsr"
    (response,) = read_responses(out)
    assert response.model == "SALMONN"
    assert response.question.id == "Speaker_Emotion_Recontion_iemocap-17"
    assert response.question.choices == ("sad", "glad")
    assert dict(response.question.labels)["benchmark"] == "airbench"
    assert (response.question.answer, response.question.task) == ("glad", "Speaker_Emotion_Recontion")


def test_any_table_by_its_columns(tmp_path: Path) -> None:
    table = "nr,dia,text,emo,out,wav,sec\n1,7,Oh no!,fear,It is fear,a.wav,2.5\n2,7,Fine.,joy,joy,b.wav,1.5\n"
    columns = {
        "id": "dia+nr",
        "question": "=Which emotion?",
        "choices": "=(a) fear | (b) joy",
        "answer": "emo",
        "response": "out",
        "audio": "wav",
        "duration": "sec",
    }
    found, out = imported(tmp_path, table, "meld.csv", model="Audio-Reasoner", columns=columns)
    assert found.n == 2
    responses = read_responses(out)
    assert [r.question.id for r in responses] == ["7_1", "7_2"]
    assert responses[0].question.choices == ("fear", "joy")
    assert score(read_predictions(out)).n == 2


def test_phrases_for_table_1(tmp_path: Path) -> None:
    rows = [
        {
            "id": 1,
            "audio": "a.wav",
            "duration": 9,
            "phrase": "one two",
            "start": 1,
            "end": 2,
            "response": "1.0s - 2.0s",
        },
        {"id": 2, "audio": "a.wav", "duration": 9, "phrase": "three", "start": 3, "end": 2, "response": "x"},
    ]
    found, out = imported(tmp_path, rows, model="Gemini 2.5 Flash")
    assert (found.n, found.n_bad) == (1, 1)
    assert errors_of(out)[0]["field"] == "end"
    metrics = score(read_predictions(out))
    phrase = metrics.models["Gemini 2.5 Flash"].all.phrase
    assert phrase is not None
    assert phrase.iou.value == 1.0


def test_own_questions_come_back_whole(tmp_path: Path) -> None:
    question = Question("q1", "c1", "c1.wav", 4.0, "choice", "Which?", "one", ("one", "two"), task="next")
    write_jsonl(tmp_path / "q.jsonl", [question])
    rows = [{"id": "q1", "output": "one"}, {"id": "q9", "output": "two"}]
    found, out = imported(tmp_path, rows, model="other", questions=tmp_path / "q.jsonl")
    assert (found.n, found.n_bad) == (1, 1)
    assert read_responses(out)[0].question == question
    assert "not in the questions" in errors_of(out)[0]["error"]


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        ("", {}, "no rows"),
        ("[]", {}, "no rows"),
        ("[1]", {}, "must be an object"),
        ("[{]", {}, "is not JSON"),
        (
            '[{"id": 1, "prediction": "x", "output": "y"}]',
            {},
            r"could be in prediction, output.*--map response",
        ),
        ('[{"id": 1, "said": "x"}]', {}, r"no column is known to be the response.*Columns: id, said"),
        ('[{"id": 1, "output": "x"}]', {"columns": {"colour": "x"}}, "no such field"),
        ('[{"id": 1, "output": "x"}]', {"model": "m"}, "none of its 1 rows can be used, the first for its "),
    ],
)
def test_a_file_that_cannot_be_used_says_what_to_give(
    tmp_path: Path, content: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ImportFileError, match=says):
        imported(tmp_path, content, **options)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": None}, "id"),
        ({"id": "m0"}, "id"),  # again
        ({"choices": 5}, "choices"),
        ({"answer": "(z)"}, "answer"),
        ({"duration": "long"}, "duration"),
        ({"response": {"text": "x"}}, "response"),
        ({"question": " "}, "question"),
    ],
)
def test_a_bad_row_is_recorded_and_the_others_go_on(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    row = {
        "id": "m0",
        "question": "?",
        "choices": ["one", "two"],
        "answer": "(b)",
        "audio": "a.wav",
        "duration": 2,
        "response": "two",
    }
    found, out = imported(tmp_path, [row, {**row, "id": "m1"} | change, {**row, "id": "m2"}], model="m")
    assert (found.n, found.n_bad) == (2, 1)
    assert (errors_of(out)[0]["line"], errors_of(out)[0]["field"]) == (2, field)
    assert read_responses(out)[0].question.answer == "two"


@pytest.mark.parametrize("text", ["\ufeff", ""])
def test_byte_order_marks_line_ends_and_nulls(tmp_path: Path, text: str) -> None:
    lines = [json.dumps({"id": f"m{i}", "prediction": None if i else ["a man", "a woman"]}) for i in range(3)]
    found, out = imported(tmp_path, text + "\r\n".join(lines) + "\r\n", questions=mmau_of(tmp_path))
    assert (found.n, found.n_more, found.n_unanswered) == (3, 1, 1)
    assert [row["model_output"] for row in json.loads(out.read_text())] == ["a man", "", ""]


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": f"m{i}", "said": text} for i, text in enumerate(COMPLETIONS[:3])]
    path, out = write(tmp_path / "p.json", rows), tmp_path / "o.json"
    options = ["--questions", str(mmau_of(tmp_path)), "--map", "response=said"]
    assert cli.main(["import", str(path), "--out", str(out), *options]) == 0
    assert "3 responses (mmau), read from said\n1 questions have no response" in capsys.readouterr().out
    assert cli.main(["import", str(path), "--out", str(out), "--map", "response"]) == 2
    assert "must be FIELD=COLUMN" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mmau/mmau-test-mini.json", "mmar/MMAR-meta.jsonl"])
def test_the_real_benchmarks_score_as_their_match_does(tmp_path: Path, name: str) -> None:
    meta = SHARED / name
    if not meta.exists():
        pytest.skip(f"{meta} is not there")
    text = meta.read_text()
    rows = json.loads(text) if text.startswith("[") else list(map(json.loads, text.splitlines()))
    said = [row["choices"][i % len(row["choices"])] for i, row in enumerate(rows)]
    predictions = [
        {"id": r["id"], "output": f"I think.\nFinal answer: {s}"} for r, s in zip(rows, said, strict=True)
    ]
    out = tmp_path / "out"
    found = import_predictions(write(tmp_path / "p.json", predictions), out, questions=meta)
    expected = [token_match(s, r["answer"], r["choices"]) for r, s in zip(rows, said, strict=True)]
    metrics = score(read_predictions(out), n_resamples=10)
    assert metrics.benchmark is not None
    assert found.n == len(rows)
    assert metrics.benchmark.accuracy_official.value == pytest.approx(sum(expected) / len(expected), abs=0.02)


def test_a_column_that_no_row_has_is_no_empty_answer(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match="no row has a column outptu"):
        imported(
            tmp_path,
            [{"id": "m0", "output": "a man"}],
            questions=mmau_of(tmp_path),
            columns={"response": "outptu"},
        )


def test_a_row_without_its_response_is_an_error_and_null_is_none(tmp_path: Path) -> None:
    rows = [{"id": "m0", "prediction": None}, {"id": "m1", "error": "HTTP 500"}]
    found, out = imported(tmp_path, rows, questions=mmau_of(tmp_path))
    assert (found.n, found.n_bad) == (1, 1)
    assert errors_of(out)[0]["error"] == "the request failed: HTTP 500"


def test_choices_of_another_type_cost_their_row_alone(tmp_path: Path) -> None:
    questions = [dict(MMAU[0]), {**MMAU[1], "choices": 5}]
    rows = [{"id": "m0", "prediction": "a man"}, {"id": "m1", "prediction": "a man"}]
    found, out = imported(tmp_path, rows, questions=write(tmp_path / "mmau.json", questions))
    assert (found.n, found.n_bad) == (1, 1)
    assert errors_of(out)[0]["field"] == "choices"


def test_a_response_of_any_length_comes_through_csv(tmp_path: Path) -> None:
    long = "word " * 40_000
    found, out = imported(
        tmp_path, f"id,prediction\nm0,{long}\n", "in.csv", questions=mmau_of(tmp_path), as_is=True
    )
    assert found.n == 1
    assert len(json.loads(out.read_text())[0]["completion"]) >= 199_999


def test_a_folder_in_a_files_place_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", str(tmp_path), "--out", str(tmp_path / "x.jsonl")]) == 2
    assert str(tmp_path) in capsys.readouterr().err


AIR = {
    "path": "x.wav",
    "question": "Which emotion?",
    "choice_a": "sad",
    "choice_b": "glad",
    "choice_c": None,
    "choice_d": None,
    "answer_gt": "glad",
    "task_name": "Speaker_Emotion_Recontion",
    "dataset_name": "iemocap",
}


def test_airbench_leaves_as_its_owners_file_with_letters(tmp_path: Path) -> None:
    said = ["Certainly: the speaker is glad.", "(a) sad", "I cannot tell"]
    rows = [{**AIR, "uniq_id": i, "output": text} for i, text in enumerate(said)]
    found, out = imported(tmp_path, rows)
    assert (found.format, found.n, found.n_unread) == ("airbench", 3, 1)
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["response"] for row in written] == ["B", "A", "I cannot tell"]
    assert "choice_c" in written[0]
    assert written[0]["choice_c"] is None
    benchmark = score(read_predictions(out)).benchmark
    assert benchmark is not None
    assert (benchmark.accuracy_official.value, benchmark.n_unscored) == (0.5, 1)


def test_airbench_answers_are_joined_to_the_owners_questions(tmp_path: Path) -> None:
    meta = write(tmp_path / "meta.json", [{**AIR, "uniq_id": i} for i in range(3)])
    rows = [{"id": f"Speaker_Emotion_Recontion_iemocap-{i}", "output": "glad"} for i in range(2)]
    found, out = imported(tmp_path, rows, questions=meta)
    assert (found.format, found.n, found.n_unanswered) == ("airbench", 2, 1)
    assert json.loads(out.read_text().splitlines()[0])["uniq_id"] == 0


def test_meld_leaves_with_the_emotion_that_was_said(tmp_path: Path) -> None:
    table = (
        "Utterance,Emotion,Dialogue_ID,Utterance_ID,output\n"
        "Oh no!,fear,0,1,I hear fear.\nFine.,joy,0,2,neutral\nHm,joy,0,3,no idea\n"
    )
    found, out = imported(tmp_path, table, "meld.csv")
    assert (found.format, found.n, found.n_unread) == ("meld", 3, 1)
    metrics = score(read_predictions(out))
    assert metrics.benchmark is not None
    assert metrics.benchmark.accuracy_official.value == pytest.approx(1 / 3)


def test_meld_with_durations_becomes_labelled_responses(tmp_path: Path) -> None:
    table = "Utterance,Emotion,Dialogue_ID,Utterance_ID,output,wav\nOh no!,fear,0,1,fear,a.wav\n"
    columns = {"duration": "=2", "audio": "wav"}
    found, out = imported(tmp_path, table, "meld.csv", model="m", columns=columns)
    assert (found.format, found.n) == ("tgsr", 1)
    (response,) = read_responses(out)
    assert response.question.labelled("benchmark") == ("meld",)
    assert score(read_predictions(out)).models["m"].benchmarks["meld"].accuracy_official.value == 1.0


def test_labels_of_own_questions_are_kept(tmp_path: Path) -> None:
    labels = (("benchmark", "mmau"), ("category", "a"), ("category", "b"))
    question = Question(
        "meld-test-dia0_utt1", "c1", "c1.wav", 4.0, "choice", "?", "one", ("one", "two"), labels=labels
    )
    write_jsonl(tmp_path / "q.jsonl", [question])
    rows = [{"id": question.id, "output": "one"}]
    _, out = imported(tmp_path, rows, model="m", questions=tmp_path / "q.jsonl")
    assert read_responses(out)[0].question == question


# --- the same answers in other programs' layouts -----------------------------------------------------------------

ASKED = [
    {
        "id": f"q{i}",
        "audio": f"clips/s{i}.wav",
        "question": "How does she feel?",
        "choices": ["happy", "sad", "angry"],
        "answer": "sad",
        "duration": 10.0,
    }
    for i in range(4)
]
SAID = ["From 1.0s to 2.0s she sighs. Final answer: (b) sad", "sad", "(a) happy", ""]


def completion_of(text: str, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "reasoning_content": None}
    return {
        "id": "c",
        "object": "chat.completion",
        "choices": [{"message": message, "finish_reason": finish}],
    }


def lines_of(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def pairs() -> list[tuple[str, str]]:
    return [(str(asked["id"]), said) for asked, said in zip(ASKED, SAID, strict=True)]


LAYOUTS: dict[str, str] = {
    "a table of Weights & Biases": json.dumps(
        {"columns": ["id", "response"], "data": pairs(), "ncols": 2, "nrows": 4}
    ),
    "pandas, split": json.dumps({"columns": ["id", "response"], "index": [0, 1, 2, 3], "data": pairs()}),
    "pandas, by column": json.dumps(
        {
            "id": {str(i): id_ for i, (id_, _) in enumerate(pairs())},
            "response": {str(i): text for i, (_, text) in enumerate(pairs())},
        }
    ),
    "rows by id": json.dumps({id_: {"prediction": text, "score": 1.0} for id_, text in pairs()}),
    "responses by id": json.dumps(dict(pairs())),
    "results beside what else is said": json.dumps(
        {
            "summary": {"n": 4},
            "errors": [],
            "seeds": [1],
            "rows": [{"id": i, "output": t} for i, t in pairs()],
        }
    ),
    "OpenAI's batch": lines_of(
        *(
            {
                "id": "b",
                "custom_id": i,
                "response": {"status_code": 200, "body": completion_of(t)},
                "error": None,
            }
            for i, t in pairs()
        )
    ),
    "Gemini's batch": lines_of(
        *(
            {
                "key": i,
                "response": {
                    "candidates": [{"content": {"parts": [{"text": t or " "}]}, "finishReason": "STOP"}]
                },
            }
            for i, t in pairs()
        )
    ),
    "a batch of OpenAI's Responses": lines_of(
        *(
            {
                "id": "b",
                "custom_id": i,
                "response": {
                    "status_code": 200,
                    "body": {
                        "object": "response",
                        "status": "completed",
                        "output": [
                            {"type": "reasoning", "summary": []},
                            {"type": "message", "content": [{"type": "output_text", "text": t or " "}]},
                        ],
                    },
                },
                "error": None,
            }
            for i, t in pairs()
        )
    ),
    "chat completions": lines_of(*({"id": i, "response": completion_of(t)} for i, t in pairs())),
    "messages": lines_of(
        *(
            {"id": i, "output": [{"role": "user", "content": "?"}, {"role": "assistant", "content": t}]}
            for i, t in pairs()
        )
    ),
    "parts of a message": lines_of(
        *({"id": i, "output": [{"type": "text", "text": t or " "}]} for i, t in pairs())
    ),
    "ms-swift's infer": lines_of(
        *(
            {
                "response": t,
                "labels": "(b) sad",
                "messages": [{"role": "user", "content": "?"}],
                "audios": [a["audio"]],
            }
            for a, (_, t) in zip(ASKED, pairs(), strict=True)
        )
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_answers_are_read_from_any_layout(layout: str, tmp_path: Path) -> None:
    file, out = write(tmp_path / "outputs.json", LAYOUTS[layout]), tmp_path / "out.jsonl"
    imported = import_predictions(file, out, model="M", questions=write(tmp_path / "asked.json", ASKED))
    responses = list(read_responses(out))
    assert [(response.question.id, response.text.strip()) for response in responses] == pairs()
    assert (imported.n_bad, imported.n_unanswered) == (0, 0)


@pytest.mark.parametrize("name", ["outputs.jsonl.gz", "outputs.csv.gz"])
def test_a_compressed_file_is_read_as_what_it_holds(name: str, tmp_path: Path) -> None:
    rows = lines_of(*({"id": i, "response": t} for i, t in pairs()))
    table = "id,response\n" + "".join(f'{i},"{t}"\n' for i, t in pairs())
    file = tmp_path / name
    file.write_bytes(gzip.compress((table if "csv" in name else rows).encode()))
    out = tmp_path / "out.jsonl"
    import_predictions(file, out, model="M", questions=write(tmp_path / "asked.json", ASKED))
    assert [response.text for response in read_responses(out)] == SAID
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(RecordError, match="is no whole gzip file"):
        import_predictions(file, out, model="M", questions=tmp_path / "asked.json")


def test_a_line_that_is_broken_costs_itself(tmp_path: Path) -> None:
    rows = lines_of(*({"id": i, "response": t} for i, t in pairs()))
    file = write(
        tmp_path / "outputs.jsonl", "[1]\n".join(rows.splitlines(keepends=True)[:2]) + '{"id": "q3", "resp'
    )
    out = tmp_path / "out.jsonl"
    imported = import_predictions(file, out, model="M", questions=write(tmp_path / "asked.json", ASKED))
    assert (imported.n, imported.n_bad, imported.n_unanswered) == (2, 2, 2)
    bad = [json.loads(line) for line in (tmp_path / "out.jsonl.errors.jsonl").read_text().splitlines()]
    assert [row["line"] for row in bad] == [2, 4]
    assert "is not JSON" in bad[1]["error"]


def test_questions_with_a_broken_line_are_refused(tmp_path: Path) -> None:
    questions = write(tmp_path / "asked.jsonl", lines_of(*ASKED) + '{"id": "q4", "cho')
    file = write(tmp_path / "outputs.jsonl", lines_of({"id": "q0", "response": "sad"}))
    with pytest.raises(ImportFileError, match=r"asked\.jsonl:5: is not JSON"):
        import_predictions(file, tmp_path / "out.jsonl", model="M", questions=questions)


def test_a_request_that_failed_in_a_batch_is_no_answer(tmp_path: Path) -> None:
    body = {"error": {"message": "audio is too long"}}
    rows = lines_of(
        {"custom_id": "q0", "response": None, "error": {"code": "batch_expired"}},
        {"custom_id": "q1", "response": {"status_code": 400, "body": body}, "error": None},
        {"custom_id": "q2", "response": completion_of("sad"), "error": None},
        {"custom_id": "q3", "response": None, "error": None},
    )
    file, out = write(tmp_path / "batch.jsonl", rows), tmp_path / "out.jsonl"
    import_predictions(file, out, model="M", questions=write(tmp_path / "asked.json", ASKED))
    assert [(response.question.id, response.text) for response in read_responses(out)] == [
        ("q2", "sad"),
        ("q3", ""),
    ]
    assert [row["error"] for row in errors_of(out)] == [
        "the request failed: {'code': 'batch_expired'}",
        "the request failed: {'message': 'audio is too long'}",
    ]


def test_thoughts_and_the_limit_of_geminis_and_responses_replies_are_kept(tmp_path: Path) -> None:
    parts = [{"text": "From 1 s to 2 s.", "thought": True}, {"text": "sad"}]
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "A sigh."}]},
        {"type": "message", "content": [{"type": "output_text", "text": "It is"}]},
    ]
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": output}
    rows = lines_of(
        {"key": "q0", "response": {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}},
        {"key": "q1", "response": cut},
        {"key": "q2", "response": {"candidates": [{"finishReason": "SAFETY"}]}},
    )
    file, out = write(tmp_path / "batch.jsonl", rows), tmp_path / "out.jsonl"
    import_predictions(file, out, model="M", questions=write(tmp_path / "asked.json", ASKED))
    first, second = read_responses(out)
    assert first.text == "<think>\nFrom 1 s to 2 s.\n</think>\n\nsad"
    assert (second.text, second.truncated) == ("<think>\nA sigh.\n</think>\n\nIt is", True)
    assert "SAFETY" in errors_of(out)[0]["error"]


@pytest.mark.parametrize(
    "choices",
    [
        "['happy', \"she's sad\", 'angry']",
        '["happy", "she\'s sad", "angry"]',
        {"A": "happy", "B": "she's sad", "C": "angry"},
        "{'A': 'happy', 'B': \"she's sad\", 'C': 'angry'}",
        "A. happy B. she's sad C. angry",
        "(A) happy, (B) she's sad, (C) angry",
        "A. happy\nB. she's sad\nC. angry",
        "happy | she's sad | angry",
    ],
)
def test_choices_are_read_as_tables_and_prompts_write_them(choices: Any, tmp_path: Path) -> None:
    row = {"question_id": 7, "audio": "s.wav", "question": "How does she feel?", "duration": 9}
    row |= {"options": choices, "ground_truth": "B", "model_response": "(b)"}
    out = tmp_path / "out.jsonl"
    import_predictions(write(tmp_path / "in.jsonl", lines_of(row)), out, model="M")
    question = next(iter(read_responses(out))).question
    assert (question.id, question.choices) == ("7", ("happy", "she's sad", "angry"))
    assert question.answer == "she's sad"


def test_what_a_server_cut_or_refused_is_told_apart_from_an_answer(tmp_path: Path) -> None:
    rows = [
        {"id": "q0", "response": completion_of("From 1.0s to", "length")},
        {"id": "q1", "response": completion_of("", "content_filter")},
        {"id": "q2", "response": completion_of("sad")},
    ]
    out = tmp_path / "out.jsonl"
    imported = import_predictions(
        write(tmp_path / "o.jsonl", lines_of(*rows)),
        out,
        model="M",
        questions=write(tmp_path / "q.json", ASKED),
    )
    assert [(r.question.id, r.truncated) for r in read_responses(out)] == [("q0", True), ("q2", False)]
    assert imported.n_bad == 1
    assert "content_filter" in (tmp_path / "out.jsonl.errors.jsonl").read_text()


def test_a_missing_value_of_pandas_is_no_text_and_no_choice(tmp_path: Path) -> None:
    asked = [{**ASKED[0], "choices": ["happy", "sad", float("nan")]}]
    file = write(tmp_path / "o.jsonl", '{"id": "q0", "response": NaN}\n')
    import_predictions(file, tmp_path / "out.jsonl", model="M", questions=write(tmp_path / "q.json", asked))
    (response,) = read_responses(tmp_path / "out.jsonl")
    assert (response.text, response.question.choices) == ("", ("happy", "sad"))


def test_numbers_of_pandas_find_their_questions_unless_they_lost_digits(tmp_path: Path) -> None:
    ids = [17, 9007199254740992, 9007199254740993]
    questions = write(tmp_path / "q.json", [{**ASKED[0], "id": id_} for id_ in ids])
    file = write(tmp_path / "o.jsonl", lines_of(*({"id": float(id_), "response": "sad"} for id_ in ids)))
    imported = import_predictions(file, tmp_path / "out.jsonl", model="M", questions=questions)
    assert [response.question.id for response in read_responses(tmp_path / "out.jsonl")] == ["17"]
    assert imported.n_bad == 2


def test_a_list_within_an_object_can_be_mapped(tmp_path: Path) -> None:
    row = {"id": "q0", "reply": {"candidates": [{"content": {"parts": [{"text": "sad"}]}}]}}
    file = write(tmp_path / "o.jsonl", lines_of(row))
    columns = {"response": "reply.candidates.0.content.parts.0.text"}
    questions = write(tmp_path / "q.json", ASKED)
    import_predictions(file, tmp_path / "out.jsonl", model="M", questions=questions, columns=columns)
    assert [response.text for response in read_responses(tmp_path / "out.jsonl")] == ["sad"]
