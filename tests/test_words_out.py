"""Words as subtitles, tiers, tables and labels: what is shown together, and that every format is read back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tgsr import audio, cli
from tgsr.audio import SAMPLE_RATE, save_wav
from tgsr.data.alignments.cues import FORMATS, LONG_PAUSE, USUAL, Layout, joined, runs, subtitles, width
from tgsr.data.alignments.reading import read_alignment
from tgsr.data.alignments.writing import written
from tgsr.data.corpora.spoken_english import sentences as english
from tgsr.data.transcribe.clips import Transcription, kept_as
from tgsr.data.transcribe.parts import hear_in_parts, parts
from tgsr.data.transcribe.transcript import Backend, Transcript
from tgsr.errors import AlignmentError, OptionError
from tgsr.records import NO_SPEECH, NOT_ENGLISH, UNALIGNED, Clip, read_clips, write_jsonl
from tgsr.timeline import Word

FILLING = "Anna said that, if it rains, we stay; but nobody, not even Dr. Li, listened! So it goes."


def said(
    text: str, start: float = 0.5, speaker: str | None = None, a_letter: float = 0.06
) -> tuple[Word, ...]:
    """Words one after the other, with a pause after a comma and a longer one after a sentence."""
    words = []
    for token in text.split():
        end = start + 0.05 + a_letter * len(token)
        words.append(Word(token, round(start, 3), round(end, 3), speaker, "forced-alignment", 0.9))
        start = end + (0.35 if token[-1] in ".?!" else 0.15 if token[-1] == "," else 0.0)
    return tuple(words)


def clip_of(*words: Word) -> Clip:
    return Clip("talk.wav", "sounds/talk.wav", max((word.end for word in words), default=1.0) + 0.5, words)


def lines(words: tuple[Word, ...], layout: Layout = USUAL) -> list[list[str]]:
    return [[joined(line) for line in cue.lines] for cue in subtitles(words, layout)]


def test_a_cue_ends_with_a_sentence_or_a_clause_and_not_after_an_article() -> None:
    text = "Because there was, as he put it to me when we met in the garden of the old house that had belonged to"
    assert lines(
        said(f"{text} his grandmother, nothing at all to be said. I see what you mean by that.")
    ) == [
        ["Because there was, as he put it to me", "when we met in the garden of the old house"],
        ["that had belonged to his grandmother,", "nothing at all to be said."],
        ["I see what you mean by that."],
    ]
    for cue in lines(said("and so on to the end of the long road " * 12)):
        assert all(not line.endswith((" the", " of", " to")) for line in cue)


@pytest.mark.parametrize("text", ["Dr. Smith is here.", "1. Whisk the eggs", "J. S. Bach wrote it."])
def test_a_full_stop_that_ends_no_sentence_ends_no_cue(text: str) -> None:
    assert len(lines(said(text))) == 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*FILLING.split(), "a" * 50, "世界"]),
            st.floats(0.02, 1.5),
            st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0, 4.0]),
            st.sampled_from([None, None, None, "A"]),
        ),
        max_size=60,
    ),
    st.sampled_from([Layout(), Layout(20, 1, 3.0, 5), Layout(max_line_count=3)]),
)
def test_cues_keep_to_their_rules_whatever_is_said(
    said_so: list[tuple[str, float, float, str | None]], layout: Layout
) -> None:
    words, now = [], 0.0
    for text, length, pause, speaker in said_so:
        words.append(Word(text, round(now + pause, 3), round(now + pause + length, 3), speaker))
        now = words[-1].end
    cues = subtitles(words, layout, now)
    assert [word for cue in cues for word in cue.words] == words
    for cue, following in pairwise(cues):
        assert cue.end <= following.start + 1e-9
    for cue in cues:
        inside = cue.words
        assert cue.start == inside[0].start < cue.end <= cue.start + layout.max_cue_seconds
        assert len({word.speaker for word in inside}) == 1
        assert all(b.start - a.end < LONG_PAUSE for a, b in pairwise(inside))
        if len(inside) > 1:
            assert inside[-1].end <= cue.end + 1e-9
            assert len(cue.lines) <= layout.max_line_count
            assert layout.max_cue_words is None or len(inside) <= layout.max_cue_words
        assert all(width(joined(line)) <= layout.max_line_width or len(line) == 1 for line in cue.lines)


def test_a_cue_stays_as_long_as_it_takes_to_read_but_never_into_the_next() -> None:
    fast = said("extraordinarily complicated terminology", a_letter=0.01)
    (cue,) = subtitles(fast, Layout())
    assert cue.end - cue.start == pytest.approx(39 / 17)
    short = (Word("Yes.", 1.0, 1.2), Word("No.", 2.5, 2.8))
    first, last = subtitles(short, Layout(), duration=3.0)
    assert (first.start, first.end) == (1.0, 2.0)  # a second, though it is said in less
    assert (last.start, last.end) == (2.5, 3.0)  # the recording ends
    soon = (Word("Yes.", 1.0, 1.2, "A"), Word("No.", 1.5, 1.8, "B"))
    assert subtitles(soon, Layout())[0].end == 1.5


def test_who_speaks_meanwhile_parts_a_sentence_only_where_a_whole_word_lies_between() -> None:
    a = said("I was going to say that we should wait", 0.0, "A")
    at_once = (*a, Word("mhm", a[4].start + 0.02, a[5].end - 0.02, "B"))  # across two of A's words
    assert [len(run) for run in runs(at_once)] == [len(a), 1]
    between = (Word("so", 0.0, 0.2, "A"), Word("what?", 0.25, 0.5, "B"), Word("it", 0.55, 0.7, "A"))
    assert [len(run) for run in runs(between)] == [1, 1, 1]
    cues = subtitles(at_once, Layout())
    assert [cue.speaker for cue in cues] == ["A", "B"]
    assert cues[0].end > cues[1].start  # both speak, both are shown


def test_scripts_without_blanks_get_none_and_wide_characters_count_as_two() -> None:
    words = tuple(
        Word(c, n * 0.2, n * 0.2 + 0.2)
        for n, c in enumerate("今天天气很好我们去公园散步然后回家吃饭再看一部电影。")
    )
    shown = lines(words)
    assert "".join(line for cue in shown for line in cue) == "".join(word.text for word in words)
    assert all(width(line) <= 42 and " " not in line for cue in shown for line in cue)
    assert joined([Word("한국어", 0, 1), Word("문장", 1, 2)]) == "한국어 문장"
    dashed = ("time—", "saves", "it—", "No", "él—.", "so")
    assert joined([Word(text, n, n + 1) for n, text in enumerate(dashed)]) == "time—saves it— No él—. so"
    assert joined([Word("ราคา", 0, 1), Word("สาม", 1, 2), Word("USD", 2, 3)]) == "ราคาสาม USD"


@pytest.mark.parametrize("value", [{"max_line_width": 0}, {"max_cue_seconds": 0.2}, {"max_cue_words": 0}])
def test_a_layout_that_no_cue_can_keep_to_is_refused(value: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="must be"):
        Layout(**value)  # type: ignore[arg-type]


# What is written is read back


def two_speakers() -> tuple[Word, ...]:
    ann = said('R&D costs "dollars", she said. It is not so.', 0.3, "CH1")
    return tuple(
        sorted((*ann, *said("Really? I never knew that.", ann[-1].end + 0.2, "CH2")), key=lambda w: w.start)
    )


def read_back(clip: Clip, to: str, folder: Path, highlight: bool = False) -> tuple[Word, ...]:
    path = folder / f"talk.{to}"
    path.write_text(written(clip, to, highlight=highlight), encoding="utf-8")  # type: ignore[arg-type]
    (alignment,) = read_alignment(path).values()
    assert not alignment.missing
    return tuple(sorted(alignment.words, key=lambda word: word.start))


@pytest.mark.parametrize("to", ["textgrid", "ctm", "tsv", "labels", "json", "srt", "vtt"])
def test_every_format_is_read_back_word_for_word_with_its_times(to: str, tmp_path: Path) -> None:
    words = two_speakers()
    back = read_back(clip_of(*words), to, tmp_path, highlight=to in ("srt", "vtt"))
    assert [word.text for word in back] == [word.text for word in words]
    for word, known in zip(back, words, strict=True):
        assert (word.start, word.end) == (
            pytest.approx(known.start, abs=2e-3),
            pytest.approx(known.end, abs=2e-3),
        )
        assert to == "labels" or word.speaker == known.speaker
        assert to not in ("ctm", "tsv", "json") or word.confidence == known.confidence


@pytest.mark.parametrize("to", ["srt", "vtt"])
def test_highlighted_cues_of_one_word_are_read_once(to: str, tmp_path: Path) -> None:
    words = (
        Word("No.", 0.2, 0.5),
        Word("Yes.", 3.0, 3.3),
        Word("Yes.", 6.0, 6.4),
    )  # each cue stays to be read
    back = read_back(clip_of(*words), to, tmp_path, highlight=True)
    assert [(word.text, word.start, word.end) for word in back] == [(w.text, w.start, w.end) for w in words]


@pytest.mark.parametrize("to", ["srt", "vtt"])
def test_cues_are_read_back_with_their_words_and_speakers(to: str, tmp_path: Path) -> None:
    words = said(f"{FILLING} " * 4, 0.5, "Ann") + said("I see. Go on.", 60.0, "Ann")
    back = read_back(clip_of(*words), to, tmp_path)
    assert [(word.text, word.speaker) for word in back] == [(word.text, word.speaker) for word in words]
    for cue in subtitles(words, Layout(), names=to == "srt"):
        assert min(abs(word.start - cue.start) for word in back) < 2e-3


@pytest.mark.parametrize(("text", "in_vtt"), [("it is 5 < 6 here", "5 &lt; 6"), ("go --> on", "go -&gt; on")])
def test_an_arrow_and_signs_do_not_break_a_file_of_subtitles(text: str, in_vtt: str, tmp_path: Path) -> None:
    clip = clip_of(*said(text))
    for to in ("srt", "vtt"):
        assert [word.text for word in read_back(clip, to, tmp_path)] == [
            word for word in text.split() if word not in ("<", "-->")
        ]
    assert in_vtt in written(clip, "vtt")
    assert in_vtt.replace("&lt;", "<").replace("&gt;", ">") in written(clip, "srt")


def test_a_highlighted_word_is_lit_while_it_is_said_and_none_in_a_pause() -> None:
    words = (Word("one", 0.0, 0.4), Word("two", 0.6, 1.0), Word("three.", 1.0, 1.5))
    shown = written(clip_of(*words), "srt", highlight=True)
    assert shown.split("\n\n")[:4] == [
        "1\n00:00:00,000 --> 00:00:00,400\n<u>one</u> two three.",
        "2\n00:00:00,400 --> 00:00:00,600\none two three.",
        "3\n00:00:00,600 --> 00:00:01,000\none <u>two</u> three.",
        "4\n00:00:01,000 --> 00:00:01,500\none two <u>three.</u>",
    ]


def test_a_word_that_whisper_begins_with_the_pause_before_it_is_not_shown_early() -> None:
    words = (
        Word("so.", 1.0, 1.3, None, "whisper"),
        Word("From", 1.3, 60.0, None, "whisper"),
        Word("now", 60.0, 60.4),
    )
    first, second, _ = written(clip_of(*words), "srt").split("\n\n")
    assert first.startswith("1\n00:00:01,000 --> 00:00:02,000")
    assert second.startswith("2\n00:00:59,200 --> ")


def test_shipped_sentences_survive_every_format(tmp_path: Path) -> None:
    for clip in read_clips(english())[:6]:
        for to in ("textgrid", "ctm", "tsv", "labels", "json"):
            back = read_back(clip, to, tmp_path)
            assert [word.text for word in back] == [word.text for word in clip.words], to
            assert max(abs(b.start - w.start) for b, w in zip(back, clip.words, strict=True)) < 2e-3
        assert written(clip, "txt").split() == [word.text for word in clip.words]


def test_a_table_may_begin_with_a_blank_line(tmp_path: Path) -> None:
    table = tmp_path / "talk.tsv"
    table.write_text("\n  start\tend\tword\n0.5\t0.75\thi\n\n0.75\tsoon\tBo\n", encoding="utf-8")
    with pytest.raises(AlignmentError, match=r"talk.tsv:5: has no start and end: 0.75\tsoon"):
        read_alignment(table)
    table.write_text("\n  start\tend\tword\n0.5\t0.75\thi\n", encoding="utf-8")
    assert read_alignment(table)[""].words == (Word("hi", 0.5, 0.75, None, "tsv"),)


def test_whispers_own_table_and_audacitys_labels_with_commas_are_read(tmp_path: Path) -> None:
    table = tmp_path / "a.tsv"
    table.write_text("start\tend\ttext\n0\t1000\tHello there.\n1500\t2500\tYes\n", encoding="utf-8")
    words = read_alignment(table)[""].words
    assert [word.text for word in words] == ["Hello", "there.", "Yes"]
    assert words[-1].span.start == 1.5
    labels = tmp_path / "a.txt"
    labels.write_text("0,5\t1,0\tone\n\\\t100\t200\n1,0\t1,5\ttwo\n1,5\t1,6\tthree\n", encoding="utf-8")
    assert [(w.text, w.start, w.confidence) for w in read_alignment(labels)[""].words] == [
        ("one", 0.5, None),
        ("two", 1.0, None),
        ("three", 1.5, None),
    ]


# The command, without listening


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of each test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TGSR_CACHE", str(folder))
    return folder


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """A recording of 4 s and its words in a file of another name."""
    save_wav(tmp_path / "talk.wav", np.full(4 * SAMPLE_RATE, 0.01, np.float32))
    words = said("Where is it? It is over there.", 0.4)
    (tmp_path / "given.json").write_text(written(clip_of(*words), "json"), encoding="utf-8")
    return tmp_path / "talk.wav"


def transcribe(*words: object) -> int:
    return cli.main(["transcribe", *map(str, words), "--model", "no such model"])


def test_words_go_beside_the_recording_and_a_file_that_is_there_stays(
    talk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ("--alignments", talk.with_name("given.json"), *(flag for to in FORMATS for flag in ("--to", to)))
    assert transcribe(talk, *how) == 0
    names = {path.name for path in talk.parent.iterdir()} - {"given.json", "talk.wav"}
    assert names == {
        f"talk.{end}" for end in ("srt", "vtt", "TextGrid", "ctm", "tsv", "txt", "json", "labels.txt")
    }
    told = capsys.readouterr()
    assert "talk.srt: 7 words of 4.0 s" in told.out
    assert "talk.wav: has no turns, as nobody is named; --channels separate" in told.err
    talk.with_suffix(".srt").write_text("mine", encoding="utf-8")
    assert transcribe(talk, *how[:2], "--to", "srt") == 0
    assert talk.with_suffix(".srt").read_text(encoding="utf-8") == "mine"
    assert "talk.srt: is there already, and left as it is (--overwrite)" in capsys.readouterr().out
    assert transcribe(talk, *how[:2], "--to", "srt", "--overwrite") == 0
    assert "Where is it?" in talk.with_suffix(".srt").read_text(encoding="utf-8")


def test_words_go_to_standard_output_to_a_file_or_to_a_folder(
    talk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given_words = ("--alignments", talk.with_name("given.json"))
    assert transcribe(talk, *given_words, "--to", "vtt", "--out", "-") == 0
    written_out = capsys.readouterr()
    assert written_out.out.startswith("WEBVTT\n\n00:00:00.400 --> ")
    assert "7 words" in written_out.err
    assert transcribe(talk, *given_words, "--out", talk.with_name("x.TextGrid")) == 0
    assert "words" in talk.with_name("x.TextGrid").read_text(encoding="utf-8")
    other = talk.with_suffix(".flac")
    other.write_bytes(talk.read_bytes())
    assert transcribe(talk, other, *given_words, "--to", "srt", "--out", talk.with_name("out")) == 0
    assert {path.name for path in talk.with_name("out").iterdir()} == {"talk.srt", "talk.flac.srt"}
    for several in ((talk, other), (talk.parent,)):
        assert transcribe(*several, "--to", "srt", "--out", "one.srt") == 2
        assert "one.srt: is one file, " in capsys.readouterr().err


def test_clips_that_have_words_become_subtitles_without_anyone_listening(tmp_path: Path) -> None:
    clips = read_clips(english())[:3]
    here = [replace(clip, audio=str(english().parent / clip.audio)) for clip in clips]
    write_jsonl(tmp_path / "clips.jsonl", here)
    assert transcribe(tmp_path / "clips.jsonl", "--to", "srt", "--out", tmp_path / "out") == 0
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {clip.id for clip in clips}


def test_the_sound_of_a_video_gets_words_and_more_tracks_than_one_are_told(
    talk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = talk.with_name("film.mkv")
    with av.open(str(video), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        sound, other = (container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") for _ in range(2))
        for _ in range(30):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(picture.encode(frame))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 3 * SAMPLE_RATE), np.float32), "fltp", "mono")
        samples.sample_rate = SAMPLE_RATE
        for stream in (sound, other):
            container.mux([*stream.encode(samples), *stream.encode(None)])
        container.mux(picture.encode(None))
    assert transcribe(video, "--alignments", talk.with_name("given.json"), "--to", "srt") == 0
    assert "Where is it?" in talk.with_name("film.srt").read_text(encoding="utf-8")
    assert "the first of 2 sound tracks was heard; ffmpeg -i film.mkv -map 0:a:1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("notes.txt", b"to buy: eggs", "not audio or video that can be read"),
        ("talk.mp3", b"", "the file is empty (0 bytes)"),
        ("talk.dat", b"\0" * 100, "not audio or video that can be read"),
    ],
)
def test_what_is_no_recording_is_named_with_a_remedy(
    name: str, content: bytes, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert transcribe(tmp_path / name, "--to", "srt") == 2
    said_of_it = capsys.readouterr().err
    assert name in said_of_it
    assert error in said_of_it
    assert not (tmp_path / name).with_suffix(".srt").exists()


def test_an_address_is_to_be_downloaded_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe("https://example.org/talk.mp3", "--to", "srt") == 2
    assert "is an address, and only files are read; download it first" in capsys.readouterr().err


def test_an_encrypted_file_is_named_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locked = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16, "encryption_kid": "a7" * 16}
    with av.open(str(tmp_path / "film.mp4"), "w", options=locked) as container:
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        noise = np.random.default_rng(0).normal(0, 0.1, (1, SAMPLE_RATE)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, "fltp", "mono")
        frame.sample_rate = SAMPLE_RATE
        for part in (frame, None):
            container.mux(sound.encode(part))
    assert transcribe(tmp_path / "film.mp4", "--to", "srt") == 2
    assert "its sound is encrypted (DRM)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ((), "--to srt|vtt|textgrid|ctm|tsv|txt|json|labels|rttm, or --out clips.jsonl"),
        (("--to", "srt", "--language", "frensh"), "did you mean french?"),
        (("--to", "srt", "--words-from", "given.json", "--channels", "separate"), "--words-from"),
        (("--to", "srt", "--max-line-width", "0"), "--max-line-width 0: must be 1 or more"),
    ],
)
def test_flags_that_cannot_be_kept_to_are_refused_before_anyone_listens(
    flags: tuple[str, ...],
    error: str,
    talk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(talk.parent)
    assert transcribe(talk, *flags) == 2
    assert error in capsys.readouterr().err


def test_silence_gets_no_file_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_wav(tmp_path / "silence.wav", np.zeros(2 * SAMPLE_RATE, np.float32))
    assert transcribe(tmp_path / "silence.wav", "--to", "srt") == 2
    assert f"silence.wav: has no words ({NO_SPEECH})" in capsys.readouterr().err
    assert not (tmp_path / "silence.srt").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_disk_that_fills_while_subtitles_are_written_ends_with_one_message(
    talk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        given_words = ("--alignments", talk.with_name("given.json"))
        assert transcribe(talk, *given_words, "--to", "srt", "--out", "-") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("tgsr: standard output: No space left on device; free some space")


def test_turns_from_elsewhere_name_the_words(talk: Path) -> None:
    rttm = talk.with_name("turns.rttm")
    row = "SPEAKER other 1 {} {} <NA> <NA> {} <NA> <NA>\n".format
    rttm.write_text(row(0, 1.1, "ann") + row(1.3, 2.6, "bob"), encoding="utf-8")
    flags = ("--alignments", talk.with_name("given.json"), "--speakers", rttm, "--to", "json")
    assert transcribe(talk, *flags) == 0
    segments = json.loads(talk.with_suffix(".json").read_text(encoding="utf-8"))["segments"]
    assert [(one["speaker"], one["text"]) for one in segments] == [
        ("ann", "Where is it?"),
        ("bob", "It is over there."),
    ]


# The command, where what is heard was kept: nobody has to listen again


@dataclass
class Known(Backend):
    """A back end that hears what it is told to, in turn."""

    transcripts: list[Transcript]
    source: str = "whisper"

    def __call__(self, samples: np.ndarray) -> Transcript:
        return self.transcripts.pop(0)


@pytest.fixture
def keep(cache: Path) -> Callable[..., None]:
    """Puts transcripts of a recording's channels where the command looks for what it has heard before."""

    def kept(path: Path, transcripts: Sequence[Transcript], language: str = "auto") -> None:
        key = kept_as(Transcription("", model="no such model", language=language))
        folder = cache / "transcripts" / "parts"
        for channel, transcript in enumerate(transcripts):
            which = channel if len(transcripts) > 1 else None
            hear_in_parts(parts(audio.stream(path, which)), Known([transcript]), folder, key)

    return kept


def shipped() -> tuple[Clip, Path]:
    """A sentence that ships, and its sound."""
    clip = read_clips(english())[0]
    return clip, english().parent / clip.audio


def heard_of(clip: Clip, *flags: str, language: str = "en") -> Transcript:
    words = tuple(replace(word, source="whisper", confidence=0.9, speaker=None) for word in clip.words)
    return Transcript(words, clip.duration, "whisper", language, flags)


def test_a_given_text_gets_aligned_times_and_what_it_lacks_is_told_with_its_seconds(
    keep: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, sound = shipped()
    keep(sound, [heard_of(clip)])
    tokens = [word.text for word in clip.words]
    given_text = [*tokens[:3], *tokens[6:], "And", "this", "was", "never", "said,", "not", "at", "all."]
    (tmp_path / "text.txt").write_text(" ".join(given_text).capitalize(), encoding="utf-8-sig")
    out = tmp_path / "out.json"
    assert transcribe(sound, "--words-from", tmp_path / "text.txt", "--to", "json", "--out", out) == 0
    told = capsys.readouterr().out
    assert (
        f"{clip.words[3].start:.2f} - {clip.words[5].end:.2f} s: heard, not in the text: {' '.join(tokens[3:6])}"
        in told
    )
    assert "in the text, not heard: and this was never said, not at all." in told
    row = json.loads(out.read_text(encoding="utf-8"))
    words = [word for segment in row["segments"] for word in segment["words"]]
    assert [word["word"].lower() for word in words] == [token.lower() for token in given_text[:-8]]
    assert sum(word["source"] == "forced-alignment" for word in words) > len(words) / 2
    known = {word.text.lower(): word.start for word in clip.words}
    off = sorted(
        abs(word["start"] - known[word["word"].lower()]) for word in words if tokens.count(word["word"]) == 1
    )
    assert off[len(off) // 2] < 0.1


@pytest.mark.parametrize("name", ["untimed.srt", "subtitles.txt"])
def test_subtitles_are_timed_anew_whatever_times_they_have(
    keep: Callable[..., None], tmp_path: Path, name: str
) -> None:
    clip, sound = shipped()
    keep(sound, [heard_of(clip)])
    tokens = [word.text.upper() for word in clip.words]
    shown = "".join(f"{n}\n00:00:00,000 --> 00:00:00,000\n{token}\n\n" for n, token in enumerate(tokens, 1))
    (tmp_path / name).write_text(shown, encoding="utf-8")
    out = tmp_path / "out.tsv"
    assert transcribe(sound, "--words-from", tmp_path / name, "--to", "tsv", "--out", out) == 0
    rows = [line.split("\t") for line in out.read_text(encoding="utf-8").splitlines()[1:]]
    assert [row[2] for row in rows] == tokens
    assert all(float(row[0]) < float(row[1]) for row in rows)


def test_a_text_without_words_is_refused_and_nothing_else_taken_for_it(
    keep: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, sound = shipped()
    keep(sound, [heard_of(clip)])
    (tmp_path / "text.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\n[music]\n", encoding="utf-8")
    assert transcribe(sound, "--words-from", tmp_path / "text.srt", "--to", "srt", "--out", tmp_path) == 2
    assert "text.srt: has no words; give the text that is said" in capsys.readouterr().err
    assert not (tmp_path / f"{sound.stem}.srt").exists()


def test_a_text_of_another_recording_is_refused(
    keep: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, sound = shipped()
    keep(sound, [heard_of(clip)])
    (tmp_path / "text.txt").write_text(
        "Nothing of this has anything to do with it whatever", encoding="utf-8"
    )
    assert transcribe(sound, "--words-from", tmp_path / "text.txt", "--to", "srt", "--out", tmp_path) == 2
    assert "is not what is said here: " in capsys.readouterr().err
    assert not list(tmp_path.glob("*.srt"))


def test_words_of_another_language_keep_whispers_times_and_are_flagged(
    keep: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, sound = shipped()
    (tmp_path / "text.txt").write_text(" ".join(word.text for word in clip.words), encoding="utf-8")
    keep(sound, [heard_of(clip, NOT_ENGLISH, language="fr")], "fr")
    flags = (
        "--words-from",
        tmp_path / "text.txt",
        "--language",
        "French",
        "--to",
        "json",
        "--out",
        tmp_path / "x.json",
    )
    assert transcribe(sound, *flags) == 0
    row = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert (row["language"], row["flags"]) == ("fr", [NOT_ENGLISH, UNALIGNED])
    words = [word for segment in row["segments"] for word in segment["words"]]
    assert [word["start"] for word in words] == [word.start for word in clip.words]
    assert "(not-english, unaligned)" in capsys.readouterr().out


def test_channels_are_heard_by_themselves_and_their_words_come_in_order(
    keep: Callable[..., None], tmp_path: Path
) -> None:
    clip, sound = shipped()
    samples = audio.load(sound)
    two = np.stack([samples, np.roll(samples, SAMPLE_RATE) * 0.2], axis=1)
    soundfile.write(tmp_path / "call.wav", two, SAMPLE_RATE)
    left, right = heard_of(clip), said("Yes. I see.", 2.0)
    keep(tmp_path / "call.wav", [left, Transcript(right, clip.duration, "whisper", "en")])
    assert transcribe(tmp_path / "call.wav", "--channels", "separate", "--align", "none", "--to", "ctm") == 0
    rows = [line.split() for line in (tmp_path / "call.ctm").read_text(encoding="utf-8").splitlines()]
    assert [row[4] for row in rows if row[1] == "2"] == ["Yes.", "I", "see."]
    assert [row[4] for row in rows if row[1] == "1"] == [word.text for word in clip.words]
    assert [float(row[2]) for row in rows] == sorted(float(row[2]) for row in rows)
    assert {(row[1], row[7]) for row in rows} == {("1", "CH1"), ("2", "CH2")}
