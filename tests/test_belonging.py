"""An alignment belongs to a clip by its path, else by a name that nothing else has; what is left over is counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tgsr import cli
from tgsr.audio import save_wav
from tgsr.data.alignments.belonging import with_alignments
from tgsr.data.corpora import folders
from tgsr.errors import AlignmentError, Bad
from tgsr.records import Clip

SECONDS = 3.0


def srt(*words: str) -> str:
    return f"1\n00:00:00,500 --> 00:00:02,000\n{' '.join(words)}\n"


def grid(*words: str) -> str:
    rows = [f'{0.5 * n} {0.5 * n + 0.5} "{word}"' for n, word in enumerate(words)]
    return f'"ooTextFile" "TextGrid" 0 3 <exists> 1 "IntervalTier" "words" 0 3 {len(rows)} {" ".join(rows)}\n'


def whisper(*words: str) -> str:
    rows = [{"text": word, "start": 0.5 * n, "end": 0.5 * n + 0.4} for n, word in enumerate(words)]
    return json.dumps({"segments": [{"text": " ".join(words), "words": rows}]})


def segments(*words: str) -> str:
    return json.dumps({"segments": [{"text": " ".join(words), "start": 0.0, "end": 2.0}]})


def laid_out(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def corpus(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_wav(folder / name, np.zeros(int(SECONDS * 16000), np.float32))
    return folder


def served(sounds: Path, given: Path, out: Path) -> dict[str, str]:
    """What each clip is said to say, by its id; Bad by its file's name."""

    def texts() -> Iterator[tuple[str, str]]:
        for clip in with_alignments(folders.read(sounds, folders.Given(out)), given, sounds, out):
            if isinstance(clip, Bad):
                yield Path(clip.file).name, clip.error
            else:
                yield clip.id, " ".join(word.text for word in clip.words)

    return dict(texts())


@pytest.mark.parametrize(
    ("sounds", "files", "said"),
    [
        (["talk.wav"], {"talk.wav.words.json": whisper("hi", "you")}, {"talk.wav": "hi you"}),
        (["talk.wav"], {"talk.en.vtt": f"WEBVTT\n\n{srt('hi')}"}, {"talk.wav": "hi"}),
        (["talk.wav"], {"talk.wav.json": whisper("hi")}, {"talk.wav": "hi"}),
        (["talk.wav"], {"talk.en-US.srt": srt("hi")}, {"talk.wav": "hi"}),
        (["talk.wav"], {"talk.eng.sdh.srt": srt("hi")}, {"talk.wav": "hi"}),
        (["dr.smith.wav"], {"dr.smith.TextGrid": grid("hi")}, {"dr.smith.wav": "hi"}),
        (
            ["a/talk.wav", "b/talk.wav"],
            {"a/talk.TextGrid": grid("one"), "b/talk.TextGrid": grid("two")},
            {"a/talk.wav": "one", "b/talk.wav": "two"},
        ),
        (["caf\u00e9.wav"], {"cafe\u0301.TextGrid": grid("hi")}, {"caf\u00e9.wav": "hi"}),
        # a name that one clip and one file have, wherever they are
        (["talk.wav", "x.wav"], {"deep/talk.TextGrid": grid("hi")}, {"talk.wav": "hi", "x.wav": ""}),
        (["deep/talk.wav", "x.wav"], {"talk.TextGrid": grid("hi")}, {"deep/talk.wav": "hi", "x.wav": ""}),
        # the path goes before the name
        (["talk.wav"], {"talk.TextGrid": grid("hi"), "old/talk.TextGrid": grid("no")}, {"talk.wav": "hi"}),
        # a file of its own before the language of another
        (
            ["talk.wav", "talk.en.wav"],
            {"talk.wav.vtt": f"WEBVTT\n\n{srt('one')}", "talk.en.vtt": f"WEBVTT\n\n{srt('two')}"},
            {"talk.wav": "one", "talk.en.wav": "two"},
        ),
        (["a.wav", "a.flac.wav"], {"a.wav.json": whisper("hi")}, {"a.wav": "hi", "a.flac.wav": ""}),
    ],
)
def test_files_belong_by_path_then_by_a_unique_name(
    tmp_path: Path, sounds: list[str], files: dict[str, str], said: dict[str, str]
) -> None:
    given = laid_out(tmp_path / "given", files)
    assert served(corpus(tmp_path / "sounds", *sounds), given, tmp_path) == said


@pytest.mark.parametrize(
    ("sounds", "files"),
    [
        (["a/talk.wav", "b/talk.wav"], {"talk.TextGrid": grid("hi")}),
        (["talk.wav"], {"a/talk.TextGrid": grid("one"), "b/talk.TextGrid": grid("two")}),
        (["talk.wav"], {"talk.en.srt": srt("hi"), "talk.de.srt": srt("hallo")}),
        (["dr.wav"], {"dr.smith.TextGrid": grid("hi")}),
        (["talk.wav"], {"talk.part2.json": whisper("hi")}),
        (["talk.wav"], {"talk.old.json": whisper("hi")}),
        (["talk.wav"], {"talk.en.forced.srt": srt("hi")}),  # subtitles of foreign parts alone
    ],
)
def test_what_may_belong_elsewhere_is_not_guessed_but_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sounds: list[str], files: dict[str, str]
) -> None:
    files, sounds = {**files, "sure.TextGrid": grid("sure")}, [*sounds, "sure.wav"]
    given = laid_out(tmp_path / "given", files)
    said = served(corpus(tmp_path / "sounds", *sounds), given, tmp_path)
    assert said == {**dict.fromkeys(sounds, ""), "sure.wav": "sure"}
    assert f"{given}: {len(files) - 1} alignments are not used: " in caplog.text
    assert f"{given}: {len(sounds) - 1} clips have no alignment: {sounds[0]}" in caplog.text


def test_times_of_words_go_before_those_of_cues(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {
        "talk.vtt": f"WEBVTT\n\n{srt('cue', 'words')}",
        "talk.words.json": whisper("timed", "words"),
        "talk.json": segments("only", "segments"),
    }
    sounds, given = corpus(tmp_path / "sounds", "talk.wav"), laid_out(tmp_path / "given", files)
    assert served(sounds, given, tmp_path) == {"talk.wav": "timed words"}
    assert "2 alignments are not used" in caplog.text


def test_a_clips_language_chooses_among_captions(tmp_path: Path) -> None:
    files = {"talk.en.srt": srt("hi"), "talk.de.srt": srt("hallo")}
    sounds, given = corpus(tmp_path / "sounds", "talk.wav"), laid_out(tmp_path / "given", files)
    clips = folders.read(sounds, folders.Given(tmp_path, language="de"))
    (clip,) = with_alignments(clips, given, sounds, tmp_path)
    assert isinstance(clip, Clip)
    assert [word.text for word in clip.words] == ["hallo"]


LIBRISPEECH = 'talk ",HI,YOU," "0.5,0.9,1.2,3.0"\nother ",WE," "0.5,0.9,3.0"\n'
CTM = "sub/talk 1 0.5 0.4 HI 0.9\nsub/talk 1 1.0 0.4 YOU 0.9\nother.wav 1 0.5 0.5 WE\nnobody 1 0 1 GONE\n"


@pytest.mark.parametrize("name", ["all.ctm", "deep/one.alignment.txt", "one.txt"])
@pytest.mark.parametrize("alone", [True, False])
def test_files_about_many_recordings_work_alone_and_in_a_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, alone: bool
) -> None:
    given = laid_out(tmp_path / "given", {name: CTM if name == "all.ctm" else LIBRISPEECH})
    sounds = corpus(tmp_path / "sounds", "sub/talk.wav", "other.wav", "third.wav")
    said = served(sounds, given / name if alone else given, tmp_path)
    assert said == {"sub/talk.wav": "HI YOU", "other.wav": "WE", "third.wav": ""}
    assert "1 clips have no alignment: third.wav" in caplog.text
    assert ("1 alignments are not used" in caplog.text) == (name == "all.ctm")


def test_one_file_serves_one_clip_whatever_it_is_called(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sounds = corpus(tmp_path / "sounds", "talk.wav")
    given = laid_out(tmp_path / "given", {"final.TextGrid": grid("hi")})
    assert served(sounds, given / "final.TextGrid", tmp_path) == {"talk.wav": "hi"}
    assert not caplog.records
    assert served(sounds, given, tmp_path) == {"talk.wav": ""}  # a folder is for any number of clips
    assert "no clip has an alignment: name each as its sound file, or as the clip's id" in caplog.text


def test_files_that_are_no_alignment_are_passed_over(tmp_path: Path) -> None:
    sounds = corpus(tmp_path / "both", "talk.wav", "talk2.wav", "talk3.wav")
    laid_out(
        sounds,
        {
            "talk.TextGrid": grid("hi"),
            "talk.txt": "what is said",
            "talk.info.json": '{"title": "A talk", "tags": []}',
            "talk2.srt": srt("yes"),
            "talk3.json": '{"title": "Another talk"}',
            ".talk.srt": "hidden",
        },
    )
    assert served(sounds, sounds, tmp_path) == {"talk.wav": "hi", "talk2.wav": "yes", "talk3.wav": ""}


def test_a_bad_file_costs_its_own_clip(tmp_path: Path) -> None:
    files = {
        "a.srt": "no cue at all",
        "b.srt": srt("yes"),
        "c.json": json.dumps({"segments": [{"words": [{"word": "untimed"}]}]}),
        "d.json": json.dumps({"words": [{"text": "milliseconds", "start": 500, "end": 900}]}),
    }
    sounds = corpus(tmp_path / "s", "a.wav", "b.wav", "c.wav", "d.wav")
    said = served(sounds, laid_out(tmp_path / "g", files), tmp_path)
    assert said["b.wav"] == "yes"
    assert "has no cue" in said["a.srt"]
    assert "no word has a time that can be used" in said["c.json"]
    assert "all words lie after the recording's end, 3 s" in said["d.json"]


@pytest.mark.parametrize("text", ['{"title": "no alignment"}', "[1, 2", '{"text": "hi", "words": []}'])
def test_one_file_that_cannot_be_read_is_an_error(tmp_path: Path, text: str) -> None:
    given = laid_out(tmp_path / "given", {"talk.json": text})
    with pytest.raises(AlignmentError, match=r"talk\.json"):
        served(corpus(tmp_path / "sounds", "talk.wav"), given / "talk.json", tmp_path)


def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sounds = corpus(tmp_path / "sounds", "talk.wav")
    with pytest.raises(AlignmentError, match="does not exist"):
        served(sounds, tmp_path / "none", tmp_path)
    command = [
        "transcribe",
        str(sounds),
        "--alignments",
        str(tmp_path / "none"),
        "--out",
        str(tmp_path / "o"),
    ]
    assert cli.main(command) == 2
    assert "none" in capsys.readouterr().err
