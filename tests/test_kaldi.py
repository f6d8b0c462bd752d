"""Kaldi's data folders, in small, from real recordings of spoken digits; and their faults."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tgsr import audio
from tgsr.data.corpora import kaldi
from tgsr.data.corpora.folders import Given
from tgsr.data.corpora.spoken_digits import compose
from tgsr.data.corpora.which import clips_of, corpus_of
from tgsr.errors import Bad, CorpusError, RecordError
from tgsr.records import Clip

SPOKEN = compose(0, "train", seconds=(3.0, 4.0))
SECONDS, WORDS = SPOKEN.clip.duration, SPOKEN.clip.words
TEXT = " ".join(word.text for word in WORDS)


def folder(path: Path, **files: str) -> Path:
    """A data folder; wav/a.wav and wav/b.flac lie two folders above it."""
    path.mkdir(parents=True)
    for name in ("a.wav", "b.flac"):
        sound_file = path.parent.parent / "wav" / name
        sound_file.parent.mkdir(exist_ok=True)
        soundfile.write(sound_file, SPOKEN.samples, 16_000)
    for name, content in files.items():
        (path / ("wav.scp" if name == "wav_scp" else name)).write_text(content, encoding="utf-8", newline="")
    return path


def parted(read: Iterable[Clip | Bad]) -> tuple[list[Clip], list[Bad]]:
    both = list(read)
    return [r for r in both if isinstance(r, Clip)], [r for r in both if isinstance(r, Bad)]


def test_utterances_with_text_speaker_and_labels(tmp_path: Path) -> None:
    files = {
        "wav_scp": "a wav/a.wav\r\nb flac -c -d -s wav/b.flac |\r\n",
        "text": f"a {TEXT}\r\nb\tÜBER\u3000ALLES\r\n",
        "utt2spk": "a anna\r\nb bert\r\n",
        "spk2gender": "anna f\nbert m\n",
        "utt2lang": "a English\nb deu\n",
    }
    data = folder(tmp_path / "data" / "dev", **files)
    assert corpus_of(data) == corpus_of(tmp_path / "data") == "kaldi"
    clips, bad = parted(clips_of(tmp_path / "data", "kaldi", tmp_path / "out"))
    assert [(c.id, c.text, c.speaker, c.split) for c in clips] == [
        ("a", TEXT, "anna", "dev"),
        ("b", "ÜBER\u3000ALLES", "bert", "dev"),
    ]
    assert [c.language for c in clips] == ["en", "deu"]
    assert [c.labels for c in clips] == [(("sex", "f"),), (("sex", "m"),)]
    assert [c.audio for c in clips] == ["../wav/a.wav", "../wav/b.flac"]
    assert (bad, clips[0].duration, clips[0].flags) == ([], SECONDS, ())


def test_segments_are_files_of_their_own_with_the_words_of_their_recordings_ctm(tmp_path: Path) -> None:
    middle = WORDS[len(WORDS) // 2]
    ctm = "".join(f"a 1 {w.start} {w.end - w.start} {w.text}\n" for w in WORDS)
    files = {
        "wav_scp": "a wav/a.wav\n",
        "segments": f"a-1 a 0 {middle.start}\na-2 a {middle.start} -1\n",
        "text": f"a-1 {' '.join(w.text for w in WORDS[: len(WORDS) // 2])}\na-2 x\n",
        "ctm": ctm,
    }
    clips, bad = parted(kaldi.read(folder(tmp_path / "data" / "train", **files), Given(tmp_path / "out")))
    assert bad == []
    assert [c.audio for c in clips] == ["audio/a-1.flac", "audio/a-2.flac"]
    assert sum(clip.duration for clip in clips) == pytest.approx(SECONDS, abs=1e-3)
    assert audio.duration(tmp_path / "out" / clips[1].audio) == clips[1].duration
    assert [w.text for c in clips for w in c.words] == [w.text for w in WORDS]
    assert clips[1].words[0].start == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("a b.wav", "a b.wav"),
        ("cat x.wav |", "x.wav"),
        ("flac -c -d -s x.flac |", "x.flac"),
        ("/usr/bin/flac -cds 'my x.flac' |", "my x.flac"),
        ("sox x.sph -t wav - |", "x.sph"),
        ("sph2pipe -f wav x.sph |", "x.sph"),
        ("ffmpeg -v 8 -i x.m4a -f wav -acodec pcm_s16le - |", "x.m4a"),
        ("ffmpeg -threads 1 -i x.opus -ac 1 -ar 16k -f wav pipe:1 2>/dev/null |", "x.opus"),
        ("ffmpeg -i x.mp4 -map 0:a:0 -f wav -|", "x.mp4"),
        ("sox -G x.flac -c1 -r16k -b16 -t wav - |", "x.flac"),
        ("opusdec --rate 16000 --force-wav --quiet x.opus - |", "x.opus"),
    ],
)
def test_a_command_that_only_writes_a_file_out_is_that_file(source: str, file: str) -> None:
    assert kaldi.source_of(source) == (file, None)


@pytest.mark.parametrize(
    ("source", "channel"),
    [
        ("sph2pipe -f wav -p -c 1 x.sph |", 0),
        ("sph2pipe -p -c 2 -f wav x.sph |", 1),
        ("sox x.wav -t wav - remix 2 |", 1),
    ],
)
def test_a_command_that_keeps_one_channel_is_that_channel(source: str, channel: int) -> None:
    file, kept = kaldi.source_of(source)
    assert (file[:2], kept) == ("x.", channel)


@pytest.mark.parametrize(
    "source",
    [
        "sph2pipe -f wav -c 0 x.sph |",
        "sph2pipe -f wav x.sph -c |",
        "sph2pipe -f wav -t 1:2 x.sph |",
        "sox x.wav -t wav - remix 1,2 |",
        "sox x.wav -t wav - remix 1 speed 1.1 |",
        "ffmpeg -i x.wav -ar 8k -f wav - |",
        "sox x.wav -r8k -t wav - |",
        "ffmpeg -ss 3 -i x.wav -f wav - |",
        "sox x.wav -r 8000 -t wav - |",
        "sox x.wav -t wav - speed 1.1 |",
        "sox x.wav y.wav -t wav - |",
        "sox -v 0.5 x.wav -t wav - |",
        "cat x.wav | sox -t wav - -r 16000 -t wav - |",
        "flac -c -d 'x.flac |",
        "gunzip -c x.gz |",
        "|",
        "wav.ark:1234",
        "",
    ],
)
def test_other_commands_and_archives_are_refused(source: str) -> None:
    with pytest.raises(RecordError, match=r"wav\.scp"):
        kaldi.source_of(source)


def test_faults_of_rows_are_told_and_the_others_read(tmp_path: Path) -> None:
    files = {
        "wav_scp": "a wav/a.wav\nb wav/b.flac\na wav/b.flac\nc wav/missing.wav\nd gunzip -c d.gz |\n",
        "text": f"a {TEXT}\na {TEXT}\nz said without audio\n",
    }
    clips, bad = parted(kaldi.read(folder(tmp_path / "data" / "train", **files)))
    assert [(c.id, c.flags) for c in clips] == [("a", ()), ("b", ("no-text",))]
    told = "\n".join(f"{b.file}:{b.line}: {b.error}" for b in bad)
    for part in (
        "wav.scp:3: 'a' was already",
        "text:2: 'a' was already",
        "missing.wav",
        "'gunzip",
        "z: wav.scp has no",
    ):
        assert part in told


def test_a_folder_without_wav_scp_is_told(tmp_path: Path) -> None:
    (tmp_path / "feats.scp").write_text("a raw_fbank.ark:10\n")
    with pytest.raises(CorpusError, match=r"wav\.scp, found feats\.scp"):
        list(kaldi.read(tmp_path))


def test_tabs_blank_lines_a_byte_order_mark_and_blanks_of_other_scripts(tmp_path: Path) -> None:
    """As lhotse's and Kaldi's users met them: a tab after the name, an empty last line, a mark that Windows adds."""
    files = {
        "wav_scp": "\ufeffa\twav/a.wav\n\n",
        "text": f"a\t\t{TEXT}\u00a0\n\n",
        "segments": "a-1\ta\t0.5  1.5\r\n\r\n",
        "utt2spk": "a-1  anna\n",
    }
    files["text"] = files["text"].replace("a\t", "a-1\t")
    (clip,), bad = parted(kaldi.read(folder(tmp_path / "data" / "x", **files), Given(tmp_path, "dev")))
    assert (clip.id, clip.text, clip.speaker, clip.duration, clip.split) == ("a-1", TEXT, "anna", 1.0, "dev")
    assert bad == []


@pytest.mark.parametrize(
    ("segment", "seconds", "says"),
    [
        (f"a 1 {SECONDS + 0.4}", SECONDS - 1, ""),  # as far past the end as Kaldi allows
        ("a 0 -1", SECONDS, ""),
        ("a 0.25 0.75 0", 0.5, ""),
        ("a 0.25 0.75 -1", 0.5, ""),
        ("a 0.25 0.75 3", None, "channel"),
        ("a 0.25 0.75 A", None, "finite number, got 'A'"),
        ("a 0.25 0.75 0.5", None, "a number of one, from 0"),
        (f"a 1 {SECONDS + 0.6}", None, "is not in the recording"),
        (f"a {SECONDS + 1} -1", None, "is not in the recording"),
        ("a 2 1", None, "1 s is not after the start, 2 s"),
        ("a -1 1", None, "is not after the start"),
        ("a one two", None, "finite number, got 'one'"),
        ("a 1", None, "UTTERANCE RECORDING START END"),
        ("c 0 1", None, "no recording 'c'"),
    ],
)
def test_segments(segment: str, seconds: float | None, says: str, tmp_path: Path) -> None:
    files = {"wav_scp": "a wav/a.wav\nb wav/b.flac\n", "segments": f"a-1 {segment}\nb-1 b 0 1\n"}
    clips, bad = parted(kaldi.read(folder(tmp_path / "data" / "train", **files), Given(tmp_path)))
    assert [clip.duration for clip in clips if clip.id == "a-1"] == (
        [] if seconds is None else [pytest.approx(seconds)]
    )
    assert len(clips) == 2 - (seconds is None)
    assert [one.file.endswith("segments") and one.line == 1 and says in one.error for one in bad[:1]] == [
        True
    ] * bool(says)


def test_recordings_without_a_segment_and_texts_without_one_are_told(tmp_path: Path) -> None:
    files = {"wav_scp": "a wav/a.wav\nb wav/b.flac\n", "segments": "a-1 a 0 1\n", "text": "a-1 x\na-2 y\n"}
    _, bad = parted(kaldi.read(folder(tmp_path / "data" / "train", **files), Given(tmp_path)))
    assert [(Path(one.file).name, one.error.partition(":")[0]) for one in bad] == [
        ("wav.scp", "b"),
        ("text", "a-2"),
    ]


def ctm_of(name: str) -> str:
    return "".join(f"{name} {w.start} {w.end - w.start} {w.text}\n" for w in WORDS)


def test_words_by_utterance_by_recording_and_by_file_and_channel(tmp_path: Path) -> None:
    files = {
        "wav_scp": "a wav/a.wav\nb wav/b.flac\nc-B wav/a.wav\n",
        "text": f"a {TEXT}\nb {TEXT} more\nc-B {TEXT}\n",
        "reco2file_and_channel": "c-A c A\nc-B c B\n",
        "ctm": f";; made by hand\n{ctm_of('a 1')}{ctm_of('b 1')}c A 0 0.2 nobody\n{ctm_of('c B')}",
    }
    clips, (told,) = parted(kaldi.read(folder(tmp_path / "data" / "train", **files)))
    assert told.error.startswith("words of 1 names, the first 'c-A': no utterance and no recording")
    for clip in clips:
        assert [w.text for w in clip.words] == [w.text for w in WORDS]
        assert [w.end for w in clip.words] == pytest.approx([w.end for w in WORDS], abs=1e-5)
    assert [clip.flags for clip in clips] == [(), ("words-missing",), ()]
    assert [hole.text for clip in clips for hole in clip.holes] == ["more"]


def test_a_broken_line_of_a_ctm_costs_its_recordings_words_alone(tmp_path: Path) -> None:
    files = {
        "wav_scp": "a wav/a.wav\nb wav/b.flac\n",
        "text": f"a {TEXT}\nb {TEXT}\n",
        "words.ctm": f"a 1 zero 0.2 one\n{ctm_of('b 1')}",
    }
    clips, bad = parted(kaldi.read(folder(tmp_path / "data" / "train", **files)))
    assert [clip.flags for clip in clips] == [("alignment-left-out",), ()]
    assert [len(clip.words) for clip in clips] == [0, len(WORDS)]
    assert [(one.line, one.field) for one in bad] == [(1, "ctm")]


def test_both_channels_of_a_telephone_call(tmp_path: Path) -> None:
    """As Switchboard's folders have them: by wav.scp's commands, or by the channels of segments."""
    data = folder(
        tmp_path / "data" / "train",
        wav_scp="c-A sox wav/c.wav -t wav - remix 1 |\nc-B sox wav/c.wav -t wav - remix 2 |\n",
    )
    both = np.stack([SPOKEN.samples, np.zeros_like(SPOKEN.samples)], 1)
    soundfile.write(tmp_path / "wav" / "c.wav", both, 16_000)
    (data / "ctm").write_text("c A 0.1 0.2 here\nc B 0.1 0.2 there\nc B x 0.2 there\n")
    (data / "reco2file_and_channel").write_text("c-A c A\nc-B c B\n")
    (data / "text").write_text("c-A here\nc-B there\n")
    clips, _ = parted(kaldi.read(data, Given(tmp_path)))
    assert [(c.id, [w.text for w in c.words], c.flags) for c in clips] == [
        ("c-A", ["here"], ()),
        ("c-B", [], ("alignment-left-out",)),
    ]
    assert [audio.load(tmp_path / c.audio).max() > 0.1 for c in clips] == [True, False]

    (data / "wav.scp").write_text("c wav/c.wav\n")
    (data / "ctm").write_text("c A 0.1 0.2 here\nc B 0.1 0.2 there\nc B 0.4 0.2 too\n")
    (data / "segments").write_text("u c 0 1 0\nv c 0 1 1\nw c 0 1\n")
    (data / "reco2file_and_channel").unlink()
    (data / "text").unlink()
    clips, bad = parted(kaldi.read(data, Given(tmp_path)))
    assert [[w.text for w in c.words] for c in clips[:2]] == [["here"], ["there", "too"]]
    assert (len(clips[2].words), bad) == (3, [])


def test_one_channel_of_a_file_that_has_no_other_is_the_file(tmp_path: Path) -> None:
    data = folder(
        tmp_path / "data" / "train",
        wav_scp="a sph2pipe -f wav -p -c 1 wav/a.wav |\nb sph2pipe -f wav -c 2 wav/a.wav |\n",
    )
    (clip,), (told,) = parted(kaldi.read(data, Given(tmp_path)))
    assert (clip.audio, "channel" in told.error) == ("wav/a.wav", True)


def test_a_folder_above_is_every_data_folder_nearest_below_it(tmp_path: Path) -> None:
    for name, id_ in (("train", "a"), ("test", "b"), ("train/split2/1", "a")):
        data = folder(tmp_path / "data" / name, wav_scp=f"{id_} {tmp_path}/data/../x.wav\n")
    soundfile.write(tmp_path / "x.wav", SPOKEN.samples, 16_000)
    assert corpus_of(data / "wav.scp") == "kaldi"
    clips, bad = parted(kaldi.read(tmp_path / "data"))
    assert ([(clip.id, clip.split) for clip in clips], bad) == ([("b", "test"), ("a", "train")], [])


def test_a_line_that_is_not_utf8_is_told_and_its_recording_read(tmp_path: Path) -> None:
    data = folder(tmp_path / "data" / "train", wav_scp="a wav/a.wav\n")
    (data / "text").write_bytes("a déjà\n".encode("latin-1"))
    (clip,), (told,) = parted(kaldi.read(data))
    assert (clip.flags, told.error) == (("no-text",), "byte 0xe9 is not UTF-8")


def test_an_utterance_of_two_folders_keeps_the_sound_of_the_first(tmp_path: Path) -> None:
    for name, start in (("dev", 0), ("train", 1)):
        folder(tmp_path / "data" / name, wav_scp="a wav/a.wav\n", segments=f"u a {start} {start + 1}\n")
    (clip,), (told,) = parted(kaldi.read(tmp_path / "data", Given(tmp_path)))
    assert audio.load(tmp_path / clip.audio) == pytest.approx(SPOKEN.samples[:16_000], abs=1e-3)
    assert (clip.split, "'u' was already at segments:1" in told.error) == ("dev", True)


def test_segments_of_a_file_that_is_decoded_from_its_beginning_are_those_of_the_whole(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", wav_scp="a a.mp3\n", segments="u a 0.5 1.25\nv a 1 -1\nw a 0 -1\n")
    for samples in (SPOKEN.samples, SPOKEN.samples[::-1]):  # the second time the file is another one
        soundfile.write(data / "a.mp3", samples, 16_000)
        clips, bad = parted(kaldi.read(data, Given(tmp_path)))
        heard = [audio.load(tmp_path / clip.audio) for clip in clips]
        alone = [
            audio.load(data / "a.mp3", start=start, end=end)
            for start, end in ((0.5, 1.25), (1, None), (0, None))
        ]
        assert bad == []
        for part, whole in zip(heard, alone, strict=True):
            assert part == pytest.approx(whole, abs=1e-3)
