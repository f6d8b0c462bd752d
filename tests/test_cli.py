"""The command line as a user meets it: real commands, real files, errors with a remedy."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tgsr import cli
from tgsr.answering.ask import moved_times
from tgsr.commands import shared
from tgsr.grounding import find_spans
from tgsr.records import read_questions, read_responses
from tgsr.timeline import Span


def run(*words: str | Path) -> int:
    return cli.main([str(word) for word in words])


@pytest.mark.parametrize("stage", ["base", "sta", "grpo"])
def test_every_setting_of_training_is_described(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", stage, "--help-all"])
    text = " ".join(capsys.readouterr().out.split("options:")[1].split())
    settings = [setting for setting in text.split(" --")[2:] if not setting.endswith(",")]
    assert len(settings) > 10
    for setting in settings:
        words = setting.split("(default")[0].split()
        assert len([word for word in words if word.islower()]) >= 2, setting


def parsed(*words: str) -> argparse.Namespace:
    return cli.parser(words).parse_args(words)


def test_settings_are_read_by_their_types() -> None:
    words = ["train", "grpo", "--questions", "q", "--out", "o", "--epsilon-high", "0.28"]
    args = parsed(*words, "--no-scale-rewards", "--kl", "k2", "--branches-at-once", "4")
    assert (args.epsilon_high, args.scale_rewards, args.kl, args.branches_at_once) == (0.28, False, "k2", 4)
    args = parsed(*words[:6])
    assert (args.epsilon_high, args.scale_rewards, args.branches_at_once) == (None, True, None)
    with pytest.raises(SystemExit):
        parsed(*words[:6], "--kl", "k4")
    with pytest.raises(SystemExit):
        parsed("train", "grpo", "--out", "o")  # no questions


@pytest.mark.parametrize("words", [("ask", "a.wav", "Who?"), ("view", "runs")])
def test_every_command_that_asks_a_model_has_what_opening_it_needs(words: tuple[str, ...]) -> None:
    args = parsed(*words, "--max-seconds", "90", "--system", "Be brief.")
    assert shared.open_model(args, "http://localhost:1/v1#m").max_seconds == 90


def test_build_makes_questions_whose_audio_is_there(tmp_path: Path) -> None:
    assert run("build", "sta", "--digits", 3, "--split", "heldout-recordings", "--out", tmp_path / "q") == 0
    questions = read_questions(tmp_path / "q" / "questions.jsonl")
    assert len({q.clip_id for q in questions}) == 3
    for question in questions:
        info = soundfile.info(tmp_path / "q" / question.audio)
        assert info.frames / info.samplerate == pytest.approx(question.duration)
        assert question.split == "heldout-recordings"


def test_build_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("build", "qa", "--digits", 4, "--out", tmp_path / "q")
    before = (tmp_path / "q" / "questions.jsonl").read_bytes()
    assert run("build", "qa", "--digits", 2, "--out", tmp_path / "q") == 2
    assert "choose another --out" in capsys.readouterr().err
    assert (tmp_path / "q" / "questions.jsonl").read_bytes() == before


def test_build_from_own_clips_finds_their_audio_again(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16000, np.float32), 16000)
    words = [
        {"word": w, "start": i / 10, "end": i / 10 + 0.1} for i, w in enumerate(["we", "meet", "at", "noon"])
    ]
    row = {"id": "a", "audio": "a.wav", "duration": 1.0, "words": words}
    (tmp_path / "clips.jsonl").write_text(json.dumps(row) + "\n")
    assert run("build", "sta", "--clips", tmp_path / "clips.jsonl", "--out", tmp_path / "deep" / "q") == 0
    for question in read_questions(tmp_path / "deep" / "q" / "questions.jsonl"):
        assert (tmp_path / "deep" / "q" / question.audio).resolve() == tmp_path / "a.wav"


def test_a_broken_manifest_line_is_recorded_and_too_many_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {
        "id": "a",
        "audio": "a.wav",
        "duration": 2.0,
        "words": [{"word": "two", "start": 0.0, "end": 0.5}, {"word": "six", "start": 0.6, "end": 1.0}],
    }
    (tmp_path / "clips.jsonl").write_text(json.dumps(good) + "\n{broken\n")
    build = ["build", "sta", "--clips", tmp_path / "clips.jsonl", "--out"]
    assert run(*build, tmp_path / "q", "--most-bad", "0.2") == 2
    assert "1 of 2 rows were left out, more than 20%" in capsys.readouterr().err
    assert run(*build, tmp_path / "q2") == 0
    assert '"line": 2' in (tmp_path / "q2" / "errors.jsonl").read_text()
    assert len(read_questions(tmp_path / "q2" / "questions.jsonl")) == 1


def test_decoder_prints_the_servers_command(
    encoder: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("decoder", "--model", "mini:sta", "--out", tmp_path / "decoder", "--cpu") == 0
    command = capsys.readouterr().out
    assert f"--model {tmp_path / 'decoder'}" in command
    assert "--enable-prompt-embeds" in command
    assert "--no-enable-chunked-prefill --max-num-batched-tokens 4096" in command
    assert (tmp_path / "decoder" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("model", "says"),
    [("nowhere/to-be-found", "cannot be loaded"), ("EMPTY", "neither a model"), ("BROKEN", "adapter")],
)
def test_a_model_that_is_not_there_is_an_error_with_a_remedy(
    model: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run("build", "qa", "--digits", 4, "--out", tmp_path / "q")
    if model == "EMPTY":
        model = str(tmp_path / "empty")
        Path(model).mkdir()
    if model == "BROKEN":
        model = str(tmp_path / "broken")
        Path(model).mkdir()
        (Path(model) / "adapter.json").write_text('{"base": "nowhere/to-be-found"}')
        says = "cannot be loaded"
    words = [
        "predict",
        "--questions",
        tmp_path / "q" / "questions.jsonl",
        "--model",
        model,
        "--out",
        tmp_path / "p",
    ]
    assert run(*words) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("content", "says"), [(None, "no such file"), (b"", "empty"), (b"RIFFnot really a wav", "a.wav")]
)
def test_ask_names_what_is_wrong_with_a_recording(
    content: bytes | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "a.wav").write_bytes(content)
    assert run("ask", tmp_path / "a.wav", "Which digit is said?") == 2
    error = capsys.readouterr().err
    assert "a.wav" in error
    assert says in error.lower() or says in error


def test_evidence_is_never_overwritten_and_that_is_said_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16000, np.float32), 16000)
    (tmp_path / "e.wav").write_bytes(b"mine")
    words = ["ask", tmp_path / "a.wav", "When?", "--evidence", tmp_path / "e.wav", "--model", "no such model"]
    assert run(*words) == 2
    assert "e.wav: exists; choose another" in capsys.readouterr().err
    assert (tmp_path / "e.wav").read_bytes() == b"mine"


@pytest.mark.usefixtures("encoder")
def test_predict_score_and_ask_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("build", "sta", "--digits", 2, "--split", "heldout-speaker", "--phrases", 2, "--out", tmp_path / "q")
    cache = tmp_path / "cache"
    questions = tmp_path / "q" / "questions.jsonl"
    out = tmp_path / "p" / "predictions.jsonl"
    predict = ["predict", "--questions", questions, "--model", "mini:sta", "--out", out, "--cache", cache]
    assert run(*predict) == 0
    first = out.read_bytes()
    assert run(*predict) == 0  # nothing is left to do
    assert out.read_bytes() == first
    out.write_bytes(first[: first.rstrip(b"\n").rfind(b"\n") + 20])  # killed in the middle of its last line
    assert run(*predict) == 0
    assert {r.question.id for r in read_responses(out)} == {q.id for q in read_questions(questions)}
    assert out.read_bytes() == first
    assert run("score", out, "--out", tmp_path / "metrics.json") == 0
    scores = json.loads((tmp_path / "metrics.json").read_text())
    assert scores["models"]["mini:sta"]["all"]["phrase"]["n"] == 4
    audio = tmp_path / "q" / read_questions(questions)[0].audio
    capsys.readouterr()
    phrase = str(read_questions(questions)[0].phrase)
    assert run("ask", audio, phrase, "--phrase", "--model", "mini:sta", "--evidence", tmp_path / "e.wav") == 0
    said = capsys.readouterr().out
    assert "starts at" in said
    if "evidence:" in said:
        assert soundfile.info(tmp_path / "e.wav").samplerate == 16000


@pytest.mark.usefixtures("encoder")
def test_a_clip_that_cannot_be_heard_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    run(
        "build",
        "sta",
        "--digits",
        3,
        "--split",
        "heldout-recordings",
        "--phrases",
        1,
        "--out",
        tmp_path / "q",
    )
    questions = read_questions(tmp_path / "q" / "questions.jsonl")
    (tmp_path / "q" / questions[1].audio).write_bytes(b"")
    words = ["predict", "--questions", tmp_path / "q" / "questions.jsonl", "--model", "mini"]
    assert run(*words, "--out", tmp_path / "p.jsonl", "--cache", tmp_path / "cache") == 0
    assert {r.question.id for r in read_responses(tmp_path / "p.jsonl")} == {questions[0].id, questions[2].id}
    assert questions[1].id in (tmp_path / "p.jsonl.errors.jsonl").read_text()


@pytest.mark.parametrize(
    ("text", "by", "moved"),
    [
        ("From 1.20s to 2.40s, the speaker says so.", 3.0, "From 4.20s to 5.40s, the speaker says so."),
        ("[0.0s - 1.5s] then (2 s to 3 s)", 3.25, "[3.25s - 4.75s] then (5.25 s to 6.25 s)"),
        ("0:02 - 0:58", 3.0, "0:05 - 1:01"),
        ("(0.2s-1.4s)", 3.0, "(3.2s-4.4s)"),
        ("00:00:02,500 --> 00:00:04,000", 62.0, "00:01:04,500 --> 00:01:06,000"),
        ("It starts at 1.5 s and ends at 2 s.", 10.0, "It starts at 11.5 s and ends at 12 s."),
        (
            "He speaks at 2.5 s, two of 3 people, for 4 seconds.",
            3.0,
            "He speaks at 5.5 s, two of 3 people, for 4 seconds.",
        ),
        ("Final answer: (b) 3", 3.0, "Final answer: (b) 3"),
        ("At 0:07 it rings", 60.0, "At 1:07 it rings"),
        ("From 9.5 to 2 seconds", 1.0, "From 10.5 to 3 seconds"),
        ("no times", 3.0, "no times"),
        ("<|1.20|> hi <|3.40|> ho <|4.00|>", 3.0, "<|4.20|> hi <|6.40|> ho <|7.00|>"),
        (
            '{"start": "0:02", "text": "' + "hi " * 20 + '", "end": "0:04"}',
            3.0,
            '{"start": "0:05", "text": "' + "hi " * 20 + '", "end": "0:07"}',
        ),
        ("从3.2秒到5.6秒", 3.0, "从6.2秒到8.6秒"),
        ("the first 3 seconds", 3.0, "the 3.00 s to 6.00 s"),
    ],
)
def test_times_are_moved_to_the_recordings_clock_as_they_were_written(
    text: str, by: float, moved: str
) -> None:
    assert moved_times(text, by)[0] == moved
    assert moved_times(text, 0.0) == (text, ())


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("At 3.2s, 4.5s and 7s a dog barks.", "At 6.2s, 7.5s and 10s a dog barks."),
        ("heard at 3, 5 and 7 seconds", "heard at 6, 8 and 10 seconds"),
        ("at 3, 5 people speak", "at 3, 5 people speak"),
        ("Around the 0:07 mark she sighs (0:08).", "Around the 0:10 mark she sighs (0:11)."),
        ("[00:02] A: hi\n[00:59] B: ho", "[00:05] A: hi\n[01:02] B: ho"),
        ("until 5 s, and from 7 s on", "until 8 s, and from 10 s on"),
        ("the **4-second** mark", "the **7-second** mark"),
        ("at 1200 ms; at 1 minute 5 seconds", "at 4.2 s; at 68 s"),
        ("t=3.2s; 在第3秒", "t=6.2s; 在第6秒"),
    ],
)
def test_points_in_time_are_moved_too(text: str, moved: str) -> None:
    assert moved_times(text, 3.0) == (moved, ())


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("3 to 5", "6 to 8"),
        ("<answer>[3, 5]</answer>", "<answer>[6, 8]</answer>"),
        ("3.2, 5.6", "6.2, 8.6"),
        ("- Start: 3\n- End: 5", "- Start: 6\n- End: 8"),
        ("It is said between 3 and 5.", "It is said between 6 and 8."),
        ("I looked from 1 s to 9 s. Answer: 3-5", "I looked from 4 s to 12 s. Answer: 6-8"),
        ("start 3 end 5", "start 6 end 8"),
        ('"at 3 we left": 0:03 0:05', '"at 3 we left": 0:06 0:08'),
    ],
)
def test_the_span_that_answers_a_phrase_is_moved_however_it_is_read(text: str, moved: str) -> None:
    assert moved_times(text, 3.0, phrase="at 3 we left")[0] == moved


def test_the_times_of_a_choice_are_the_askers() -> None:
    choices = ("At 2 s", "at 4-6 s", "two")
    text = "From 1 s to 2.5 s two speak.\nFinal answer: (a) at 2 s"
    moved = "From 4 s to 5.5 s two speak.\nFinal answer: (a) at 2 s"
    assert moved_times(text, 3.0, choices) == (moved, ("2 s",))
    assert moved_times("(b) at 4-6 s, heard at 5 s", 3.0, choices)[0] == "(b) at 4-6 s, heard at 8 s"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("The pause lasts around 3 s.", ("3 s",)),
        ("a pause of 2 seconds, for 1:30, with a length of 0:05", ("2 seconds", "1:30", "0:05")),
        ("2 seconds later, 3 s apart, a 10-second clip", ("2 seconds", "3 s", "10-second")),
        ("(2.5s), after 5 seconds", ("2.5s", "5 seconds")),  # either may be a length
        ("they meet at 9:30 am", ("9:30",)),
    ],
)
def test_what_may_be_a_length_is_left_and_told(text: str, left: tuple[str, ...]) -> None:
    assert moved_times(text, 3.0) == (text, left)


def test_ask_prints_one_clock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("build", "qa", "--digits", 1, "--out", tmp_path / "q")
    (question, *_) = read_questions(tmp_path / "q" / "questions.jsonl")
    samples, rate = soundfile.read(tmp_path / "q" / question.audio, dtype="float32")
    silence = np.zeros(2 * rate, np.float32)
    soundfile.write(tmp_path / "later.wav", np.concatenate([silence, samples]), rate)
    words = [question.question, *(word for choice in question.choices for word in ("--choice", choice))]
    told = []
    for name, more in (("now.wav", ()), ("later.wav", ("--start", 2))):
        if name == "now.wav":
            soundfile.write(tmp_path / name, samples, rate)
        capsys.readouterr()
        evidence = tmp_path / f"{name}-evidence.wav"
        assert run("ask", tmp_path / name, *words, "--model", "mini:tgsr", *more, "--evidence", evidence) == 0
        told.append(capsys.readouterr().out)
    spans = [find_spans(text) for text in told]
    assert spans[0]
    assert spans[1] == [Span(span.start + 2, span.end + 2) for span in spans[0]]


@pytest.mark.parametrize("command", ["attend", "control", "train sta", "train grpo"])
def test_a_wrong_model_leaves_no_run_behind(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = "sta" if command == "train sta" else "qa"
    run("build", stage, "--digits", 1, "--out", tmp_path / "q")
    (tmp_path / "no-model").mkdir()
    words = [*command.split(), "--questions", tmp_path / "q" / "questions.jsonl", "--out", tmp_path / "run"]
    assert run(*words, "--model", tmp_path / "no-model") == 2
    assert "no-model" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage", ["sta", "grpo", "sft"])
def test_a_file_with_nothing_to_train_on_leaves_no_run_behind(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none.jsonl").write_text("")
    given = "--responses" if stage == "sft" else "--questions"
    words = ["train", stage, given, tmp_path / "none.jsonl", "--model", "mini:sta", "--out", tmp_path / "run"]
    assert run(*words) == 2
    assert "none.jsonl: no " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["report", "--out"], ["tables", "--out"], ["view", "--export"]])
def test_a_page_about_nothing_is_no_success(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "predictions.jsonl").write_text("")
    command, flag = words
    assert run(command, tmp_path / "predictions.jsonl", flag, tmp_path / "page") == 2
    assert "respons" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


def test_skip_bad_is_advised_where_it_is_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "q.jsonl").write_text('{"id": 5}\n')
    questions = ["--questions", tmp_path / "q.jsonl", "--model", "mini", "--out", tmp_path / "out"]
    for command, is_flag in (("predict", True), ("attend", False)):
        assert run(command, *questions) == 2
        told = capsys.readouterr().err
        assert "q.jsonl:1: " in told
        assert ("--skip-bad" in told) == is_flag


def test_a_wrong_llm_leaves_no_folder_and_hears_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("build", "qa", "--digits", 1, "--out", tmp_path / "q")
    (tmp_path / "no-model").mkdir()
    for flag in ("--llm", "--text-model"):
        words = ["build", "qa", "--clips", tmp_path / "q" / "clips.jsonl", "--out", tmp_path / "qa"]
        assert run(*words, flag, tmp_path / "no-model") == 2
        assert "no-model" in capsys.readouterr().err
        assert not (tmp_path / "qa").exists()
    (tmp_path / "p.jsonl").write_text("")
    assert (
        run("behaviour", tmp_path / "p.jsonl", "--judge", tmp_path / "no-model", "--out", tmp_path / "b") == 2
    )
    assert "no-model" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "attend", "control"])
def test_nothing_done_is_no_success(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("build", "qa", "--digits", 1, "--out", tmp_path / "q")
    for sound in (tmp_path / "q" / "audio").iterdir():
        sound.unlink()
    out = tmp_path / ("p.jsonl" if command == "predict" else "run")
    words = [command, "--questions", tmp_path / "q" / "questions.jsonl", "--model", "mini", "--out", out]
    assert run(*words) == 2
    assert "no response" in capsys.readouterr().err
    errors = tmp_path / "p.jsonl.errors.jsonl" if command == "predict" else out / "errors.jsonl"
    assert "no such file" in errors.read_text()
    (tmp_path / "none.jsonl").write_text("")
    assert run(command, "--questions", tmp_path / "none.jsonl", "--model", "mini", "--out", out) == 2
    assert "holds no question" in capsys.readouterr().err


def test_a_file_that_is_no_sound_is_no_success_of_transcribe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert run("transcribe", tmp_path / "notes.txt", "--out", tmp_path / "clips.jsonl") == 2
    assert "notes.txt" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file/below.wav", "/proc/below.wav", "."])
def test_where_nothing_can_be_written_is_said_before_a_model_is_loaded(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    soundfile.write(tmp_path / "a.wav", np.full(16000, 0.1, np.float32), 16000)
    (tmp_path / "q.jsonl").write_text("")
    for words in (
        ("ask", tmp_path / "a.wav", "Who?", "--model", "no-such-model", "--evidence", tmp_path / place),
        (
            "predict",
            "--questions",
            tmp_path / "q.jsonl",
            "--model",
            "no-such-model",
            "--out",
            tmp_path / place,
        ),
        ("score", tmp_path / "q.jsonl", "--out", tmp_path / place),
        ("transcribe", tmp_path / "a.wav", "--out", tmp_path / place),
        ("import", tmp_path / "q.jsonl", "--out", tmp_path / place),
        ("export", tmp_path / "q.jsonl", "--to", "trl", "--out", tmp_path / place),
        ("train", "sta", "--questions", tmp_path / "q.jsonl", "--out", tmp_path / place.replace(".", "file")),
        (
            "attend",
            "--questions",
            tmp_path / "q.jsonl",
            "--model",
            "no-such-model",
            "--out",
            tmp_path / "file",
        ),
        ("merge", "--model", "no-such-model", "--out", tmp_path / "file" / "merged"),
        ("report", tmp_path, "--out", tmp_path / "file"),
    ):
        assert run(*words) == 2
        told = capsys.readouterr().err
        assert "choose another" in told
        assert "no-such-model" not in told


# --- what people give by mistake ----------------------------------------------------------------------------------


def _a_prediction(folder: Path) -> Path:
    row = {
        "id": "q",
        "clip_id": "c",
        "audio": "c.wav",
        "duration": 2.0,
        "kind": "choice",
        "question": "Which?",
    }
    row |= {"choices": ["one", "two"], "answer": "one", "model": "m", "response": "(a)"}
    path = folder / "p.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


def test_a_second_file_is_named_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(_a_prediction(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["score", path, "other.jsonl", "--out", str(tmp_path / "m.json")])
    assert stopped.value.code == 2
    assert (
        "other.jsonl: more than `tgsr score` reads at a time; run it once for each" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "words",
    [
        ("score", "{p}", "--out", "{p}"),
        ("score", "{p}", "--out", "{m}", "--items", "{p}"),
        ("score", "{p}", "--out", "{m}", "--items", "{m}"),
        ("import", "{p}", "--model", "m", "--out", "{p}"),
        ("export", "{p}", "--to", "trl", "--out", "{link}"),
        ("predict", "--questions", "{p}", "--model", "mini", "--out", "{p}"),
    ],
)
def test_no_command_writes_over_what_it_reads(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, link = _a_prediction(tmp_path), tmp_path / "link.jsonl"
    link.symlink_to(path)
    before = path.read_bytes()
    assert cli.main([word.format(p=path, m=tmp_path / "m.json", link=link) for word in words]) == 2
    assert "would be replaced; choose another" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize("words", [("score",), ("audit",), ("look",), ("pack", "--to", "webdataset")])
def test_a_name_that_is_too_long_is_said(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("y" * 300)
    assert cli.main([words[0], str(_a_prediction(tmp_path)), *words[1:], "--out", str(out)]) == 2
    assert f"tgsr: {out}: File name too long; choose a shorter name" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["score", "look", "import"])
def test_a_folder_for_a_file_is_said_without_the_systems_number(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert f"tgsr: {tmp_path}: is a folder; give a file" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["score", "audit", "report"])
def test_questions_for_predictions_are_told_what_to_give(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _a_prediction(tmp_path)
    row = json.loads(path.read_text())
    path.write_text(json.dumps({key: row[key] for key in row if key not in ("model", "response")}) + "\n")
    assert cli.main([command, str(path), "--out", str(tmp_path / "o")]) == 2
    assert "or give what `tgsr predict` or `tgsr import` writes" in capsys.readouterr().err


def test_an_audit_of_nothing_names_no_file_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.jsonl").touch()
    assert cli.main(["audit", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "o")]) == 2
    assert "errors.jsonl" not in capsys.readouterr().err


def test_what_a_file_holds_reaches_no_terminal_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.flac"
    path.write_bytes(b"fLaC\x1b[31m\x07,\x00b\nc,d\n")
    assert cli.main(["rubrics", str(path), "--questions", str(path), "--out", str(tmp_path / "o")]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_closed_pipe_is_no_fault_of_ours(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tgsr.cli",
        "score",
        str(_a_prediction(tmp_path)),
        "--out",
        str(tmp_path / "m"),
    ]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
    assert json.loads((tmp_path / "m").read_text())["n"] == 1
