"""Many questions about recordings that were heard once: the prompt, a pipe, JSON, folders. One test alone hears."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from test_cascade import keep, said
from tgsr import audio
from tgsr.answering.ask import MOST_LETTERS, CitedAnswer
from tgsr.answering.conversation import (
    Answer,
    Conversation,
    Prompt,
    free_name,
    play,
    questions_in,
)
from tgsr.answering.open import open_model
from tgsr.cli import main
from tgsr.commands.answer import asked_of, model_named
from tgsr.errors import AudioError, ModelError, OptionError
from tgsr.models.packaged_weights import cache_folder
from tgsr.models.whisper_checkpoint import FOLDER
from tgsr.timeline import Span

STORIES = {
    "budget.wav": "Welcome to the meeting. The budget was cut by ten percent in March. Thank you all for coming.",
    "cats.wav": "A cat sat on the warm roof. It slept until noon. Then it climbed down to drink some milk.",
    "ships.wav": "The ship left the harbour at dawn. Nobody saw the storm. Two sailors sang all night long.",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recordings of different noise, whose transcripts are kept where the cascade looks for them.

    Beside these are the weights by which `tgsr ask` refines a phrase's times: a cache without them would download them
    again for each test.
    """
    fetched = cache_folder()
    monkeypatch.setenv("TGSR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    for weights in ("whisper-base", FOLDER):
        if (fetched / weights).exists():
            (tmp_path / "cache" / weights).symlink_to(fetched / weights)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "calls").mkdir()
    for number, (name, text) in enumerate(STORIES.items()):
        noise = np.random.default_rng(number).uniform(-0.1, 0.1, 16000 * 30)
        soundfile.write(tmp_path / "calls" / name, noise, 16000)
        keep(tmp_path / "cache", audio.load(tmp_path / "calls" / name), said(text))
    return tmp_path / "calls"


def conversation(folder: Path) -> Conversation:
    return Conversation(open_model("cascade", folder.parent / "cache"), sorted(folder.iterdir()))


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_of_a_folder_the_file_that_says_it_answers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ask", folder, "--phrase", "climbed down to drink") == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{folder / 'cats.wav'}:\n")
    assert "evidence: 9.50 - 11.40 s" in told
    assert soundfile.info("evidence.wav").duration == pytest.approx(2.9, abs=0.01)


def test_questions_from_a_pipe_are_one_json_object_each(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = f"\ufeffthe budget was cut\n\n{'long ' * MOST_LETTERS}\r\nsailors sang\n  \nfootball results"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert (
        run("ask", folder / "budget.wav", folder / "ships.wav", "--phrase", "--json", "--model", "cascade")
        == 0
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["question"].split()[0] for row in rows] == ["the", "long", "sailors", "football"]
    assert rows[0]["evidence"] == [{"start": 4.0, "end": 5.9, "text": None}]
    assert rows[0]["recording"].endswith("budget.wav")
    assert "characters" in rows[1]["error"]
    assert rows[2]["recording"].endswith("ships.wav")
    assert rows[3]["evidence"] == []
    assert not list(folder.parent.glob("*.wav"))  # no sound but where it is asked for


def test_commands_in_a_pipe_are_obeyed_and_not_asked(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they say goes to standard error, so that standard output holds answers alone."""
    lines = [":help", ":plya 2", ":phrase the budget was cut", ":save it.wav", ":save", ":quit", "who sang?"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert run("ask", folder / "budget.wav", "--json") == 0
    out, err = capsys.readouterr()
    (row,) = map(json.loads, out.splitlines())
    assert (row["question"], row["evidence"]) == (
        "the budget was cut",
        [{"start": 4.0, "end": 5.9, "text": None}],
    )
    assert err.startswith("a question  ")
    assert ":plya: no such command" in err
    assert "it.wav: 2.90 s to listen to" in err
    assert soundfile.info("it.wav").duration == pytest.approx(2.9, abs=0.01)
    assert Path("evidence.wav").exists()


@pytest.mark.parametrize("lines", ["", "\n \n", ":help"])
def test_a_pipe_without_a_question_is_an_error(
    folder: Path, lines: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert run("ask", folder) == 2
    assert "no question came" in capsys.readouterr().err


def test_a_pipe_of_another_encoding_is_an_error(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO("Où?\n".encode("latin-1")), encoding="utf-8")
    )
    assert run("ask", folder) == 2
    assert "not UTF-8 (byte 0xf9" in capsys.readouterr().err


def test_what_was_heard_once_is_not_decoded_again_unless_the_file_changes(folder: Path) -> None:
    path = folder / "cats.wav"
    assert len(conversation(folder).ask("a cat sat", phrase=True)[0].cited.spans) == 1
    cascade = open_model("cascade", folder.parent / "cache")
    before = cascade.spoken_in(path)
    stat = path.stat()
    path.write_bytes(b"x" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = open_model("cascade", folder.parent / "cache")
    assert again.spoken_in(path) == before
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    with pytest.raises(AudioError, match=r"cats\.wav"):
        open_model("cascade", folder.parent / "cache").spoken_in(path)


def test_a_file_that_cannot_be_heard_is_named_and_the_others_answer(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.mp3").write_bytes(b"")
    assert run("ask", folder, "two sailors sang", "--phrase", "--model", "cascade") == 0
    told = capsys.readouterr()
    assert "ships.wav" in told.out
    assert "broken.mp3" in told.err
    for path in folder.glob("*.wav"):
        path.unlink()
    assert run("ask", folder, "two sailors sang", "--phrase") == 2


def test_a_file_that_is_damaged_behind_its_header_is_left_out_and_so_is_one_that_is_too_long(
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 10 * audio.SAMPLE_RATE)
    for name, samples in (("damaged.flac", noise), ("long.wav", np.tile(noise, 2)), ("whole.wav", noise)):
        soundfile.write(tmp_path / name, samples, audio.SAMPLE_RATE)
    content = bytearray((tmp_path / "damaged.flac").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(n * 7 % 256 for n in range(3000))
    (tmp_path / "damaged.flac").write_bytes(content)
    model: Any = SimpleNamespace(name="m", max_seconds=15.0, longer="cut it")
    one = Conversation(model, sorted(tmp_path.iterdir()))
    wrong = [str(error) for error in one.hear()]
    assert one.recordings == [tmp_path / "whole.wav"]
    assert wrong[0].startswith(f"{tmp_path / 'damaged.flac'}: decoding fails after ")
    assert len(wrong) == 2
    assert "20" in wrong[1]


def test_a_recording_that_goes_is_one_questions_error(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, n_asked = Conversation.ask, []

    def gone_once(self: Conversation, *asked: Any, **how: Any) -> list[Answer]:
        n_asked.append(1)
        if len(n_asked) == 1:
            raise AudioError("ships.wav", "no such file", "check the path")
        return real(self, *asked, **how)

    monkeypatch.setattr(Conversation, "ask", gone_once)
    monkeypatch.setattr("sys.stdin", io.StringIO("sailors sang\nthe budget was cut"))
    assert run("ask", folder / "budget.wav", "--phrase", "--json", "--model", "cascade") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["error"] == "ships.wav: no such file; check the path"
    assert rows[1]["evidence"]


@pytest.mark.parametrize(
    ("words", "files", "question"),
    [
        (["a.wav", "Who?"], ["a.wav"], "Who?"),
        (["a.wav"], ["a.wav"], None),
        (["a.wav", "b.wav"], ["a.wav", "b.wav"], None),
        (["a.wav", "b.wav", "a.wav", "What is b.wav"], ["a.wav", "b.wav"], "What is b.wav"),
        (["more", "who? " * 900], ["more/c.wav"], "who? " * 900),
        ([".", "Who?"], ["a.wav", "b.wav", "more/c.wav"], "Who?"),
    ],
)
def test_the_last_word_is_the_question_unless_it_is_a_file(
    words: list[str], files: list[str], question: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    for name in ("a.wav", "b.wav", "more/c.wav", "notes.txt"):
        (tmp_path / name).touch()
    assert asked_of(words) == ([Path(file) for file in files], question)


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["none.wav", "Who?"], FileNotFoundError, "none.wav"),
        (["a.wav", "typo.mp3"], FileNotFoundError, "typo.mp3"),
        (["https://example.org/a.wav", "Who?"], OptionError, "download it first"),
        (["empty", "Who?"], OptionError, "holds no sound file"),
    ],
)
def test_a_recording_that_is_not_there_is_no_question(
    words: list[str], error: type[Exception], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=says):
        asked_of(words)


@pytest.fixture
def prompt(folder: Path) -> tuple[Prompt, Callable[[str], str]]:
    """A prompt for phrases, and what it says after each line; its player keeps the file that it gets."""
    told: list[str] = []
    player = ("sh", "-c", f'cp "$0" {folder.parent}/played.wav')
    one = Prompt(conversation(folder), (), True, lambda answer: answer.text, told.append, told.append, player)

    def type_(line: str) -> str:
        told.clear()
        assert one.take(line)
        return "\n".join(told)

    return one, type_


def test_a_prompt_answers_plays_saves_and_goes_on_after_what_is_wrong(
    prompt: tuple[Prompt, Callable[[str], str]], folder: Path
) -> None:
    one, type_ = prompt
    assert "no evidence" in type_(":play")
    assert "nothing was asked" in type_(":save notes.txt")
    assert type_("   ") == ""
    assert "4.00 seconds" in type_("the budget was cut")
    assert type_(":play") == ""
    assert soundfile.info(folder.parent / "played.wav").duration == pytest.approx(2.9, abs=0.01)
    assert type_(":play 1") == ""
    assert soundfile.info(folder.parent / "played.wav").duration == pytest.approx(1.9, abs=0.01)
    for wrong in (":play 2", ":play x", ":play 0"):
        assert "cites 1 interval(s)" in type_(wrong)
    assert type_(":save").startswith("evidence.wav: 2.90 s")
    assert type_(":save").startswith("evidence-2.wav")
    assert "exists" in type_(":save evidence.wav")
    assert "FILE.wav" in type_(":save it.mp3")
    assert type_(":save notes.txt") == "notes.txt: 1 answers"
    assert Path("notes.txt").read_text().startswith("> the budget was cut\n")
    assert ":plya: no such command" in type_(":plya")
    assert type_(":help").startswith("a question")
    assert "characters" in type_("x" * (MOST_LETTERS + 1))
    one.player = None
    assert "none of ffplay" in type_(":play")
    one.player = ("sh", "-c", "echo no device >&2; exit 3")
    assert "sh ended with 3: no device" in type_(":play")
    assert not one.take(":q")


def test_times_of_a_stretch_are_the_recordings_when_played(folder: Path) -> None:
    samples = np.arange(16000 * 4, dtype=np.float32) / 64000
    (folder / "cats.wav").unlink()
    soundfile.write(folder / "cats.wav", samples, 16000)
    asked = Conversation(open_model("cascade", folder.parent), [folder / "cats.wav"], start=1.0)
    cited = CitedAnswer("", (Span(2.0, 3.0),), 0, samples[:16000])
    player = ("sh", "-c", f'cp "$0" {folder.parent}/played.wav')
    one = Prompt(
        asked, (), False, str, print, print, player, Answer("?", folder / "cats.wav", 3.0, cited, False)
    )
    one.play("1")
    played, _ = soundfile.read(folder.parent / "played.wav", dtype="float32")
    assert np.allclose(played, samples[32000:48000], atol=1e-4)


def test_an_answer_is_given_where_no_wav_can_be_written(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.chmod(0o555)
    monkeypatch.chdir(folder)
    if os.access(folder, os.W_OK):
        pytest.skip("the superuser writes anywhere")
    try:
        assert run("ask", "cats.wav", "a cat sat", "--phrase", "--model", "cascade") == 0
        told = capsys.readouterr()
        assert "evidence: 1.00 - 2.40 s" in told.out
        assert "--evidence FILE.wav writes it elsewhere" in told.err
        assert run("ask", "cats.wav", "a cat sat", "--phrase", "--evidence", "x.wav") == 2
        assert run("transcribe", "cats.wav", "--to", "srt") == 2
        assert "name another one by --out" in capsys.readouterr().err
    finally:
        folder.chmod(0o755)


def test_what_cannot_be_kept_is_not_heard(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TGSR_CACHE", str(folder / "cats.wav"))
    for words in (("ask", folder / "cats.wav", "Where?"), ("transcribe", folder / "cats.wav", "--to", "srt")):
        assert run(*words) == 2
        assert "set TGSR_CACHE" in capsys.readouterr().err


def test_an_llm_is_a_cascades() -> None:
    assert model_named("mini", None) == "mini"
    assert model_named("cascade", "http://localhost:1/v1#m") == "cascade:http://localhost:1/v1#m"
    for model, llm, says in (
        ("mini", "folder", "give one of the two"),
        ("cascade", "a.GGUF", "llama-server"),
    ):
        with pytest.raises(OptionError, match=says):
            model_named(model, llm)


def test_a_question_is_refused_before_a_model_is_asked(folder: Path) -> None:
    for question in ("", " \n", "x" * (MOST_LETTERS + 1)):
        with pytest.raises(ModelError):
            conversation(folder).ask(question)


def test_small_things(tmp_path: Path) -> None:
    assert list(questions_in(["\ufeffone\r\n", "", " two "])) == ["one", "two"]
    (tmp_path / "e.wav").touch()
    (tmp_path / "e-2.wav").touch()
    assert free_name(tmp_path / "e.wav") == tmp_path / "e-3.wav"
    assert "No such file" in play(np.zeros(10, np.float32), (str(tmp_path / "no-player"),))
