"""Corpora laid out as their publishers ship them, in small, from real recordings of spoken digits; and their faults."""

import gzip
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tgsr import audio
from tgsr.data.corpora import (
    covost,
    folders,
    huggingface,
    lhotse,
    librispeech,
    meld,
    multispeaker,
    strong_labels,
)
from tgsr.data.corpora.folders import Given
from tgsr.data.corpora.spoken_digits import compose
from tgsr.data.corpora.which import clips_of, corpus_of
from tgsr.data.questions.by_rule import by_speaker
from tgsr.disk.rows import OnDisk
from tgsr.errors import Bad, CorpusError
from tgsr.records import Clip, read_clips, resolve_audio, write_jsonl

MELD = Path(__file__).parents[2] / "shared" / "data" / "meld"
SPOKEN = compose(0, "train", seconds=(3.0, 4.0))
SAMPLES, TEXT, SECONDS = SPOKEN.samples, " ".join(w.text for w in SPOKEN.clip.words), SPOKEN.clip.duration
READERS = [covost, folders, lhotse, librispeech, meld, multispeaker, strong_labels]


def say(path: Path, samples: np.ndarray = SAMPLES, **how: str) -> Path:
    """The digits at that path, in the format of its suffix unless `how` says another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16_000, **how)
    return path


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_json(path: Path, *rows: object) -> Path:
    return write(path, *map(json.dumps, rows))


def parted(read: Iterable[Clip | Bad]) -> tuple[list[Clip], list[Bad]]:
    both = list(read)
    return [r for r in both if isinstance(r, Clip)], [r for r in both if isinstance(r, Bad)]


# Faults of single files and rows, which every reader meets in the same way


def test_a_plain_folder_in_order_of_path_with_the_text_beside(tmp_path: Path) -> None:
    for name in ("b/2.flac", "b/1.wav", "a.mp3", ".hidden.wav"):
        say(tmp_path / name)
    write(tmp_path / "b/1.txt", TEXT)
    write(tmp_path / "b/2.txt", "")
    clips, bad = parted(folders.read(tmp_path, Given(tmp_path / "out", language="en", licence="CC0")))
    assert [clip.id for clip in clips] == ["a.mp3", "b/1.wav", "b/2.flac"]
    assert [clip.text for clip in clips] == [None, TEXT, None]
    assert [clip.flags for clip in clips] == [(), (), ("empty-text",)]
    assert (clips[1].audio, clips[1].duration, clips[1].licence) == ("../b/1.wav", SECONDS, "CC0")
    (tmp_path / "b/1.txt").write_bytes("notes of José".encode("latin-1"))
    noted, more = parted(folders.read(tmp_path / "b", Given(tmp_path / "out")))
    assert (noted[0].text, noted[0].flags) == (None, ("unreadable-text",))
    assert bad == more == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("VOICE1: Where is it?\nVOICE2: Over there.\n", "Where is it?\nOver there."),
        ("Note: this line begins so.\nThis one does not.", "Note: this line begins so.\nThis one does not."),
        ("He said: come\n", "He said: come\n"),
    ],
)
def test_who_says_a_line_is_no_part_of_what_is_said(text: str, said: str) -> None:
    """As `tgsr transcribe --to txt` writes it beside a recording, where the next run takes it for its text."""
    assert folders.without_names(text) == said


def test_a_clip_can_be_written_read_and_heard(tmp_path: Path) -> None:
    say(tmp_path / "in" / "a.flac")
    for relative_to in (tmp_path / "out", None):
        write_jsonl(tmp_path / "out" / "clips.jsonl", folders.read(tmp_path / "in", Given(relative_to)))
        (clip,) = read_clips(tmp_path / "out" / "clips.jsonl")
        assert soundfile.info(resolve_audio(clip, tmp_path / "out" / "clips.jsonl")).frames == len(SAMPLES)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"RIFF, or so it says" * 9), "not audio"),
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "cut off"),
        (lambda path: say(path, np.zeros(0, np.float32)), "no samples"),
    ],
    ids=["0 bytes", "corrupt", "cut off", "no samples"],
)
def test_a_spoilt_sound_file_is_bad_and_the_next_one_is_read(tmp_path: Path, spoil, says: str) -> None:
    spoil(say(tmp_path / "a.wav"))
    say(tmp_path / "b.wav")
    clips, (bad,) = parted(folders.read(tmp_path))
    assert [clip.id for clip in clips] == ["b.wav"]
    assert bad.file == str(tmp_path / "a.wav")
    assert bad.field == "audio"
    assert says in bad.error


def test_the_content_decides_and_a_suffix_that_says_otherwise_is_flagged(tmp_path: Path) -> None:
    say(tmp_path / "a.wav", format="FLAC")
    say(tmp_path / "b.mp3", format="WAV")
    say(tmp_path / "c.wav", format="WAVEX")
    say(tmp_path / "d.opus", format="OGG", subtype="OPUS")
    clips, bad = parted(folders.read(tmp_path))
    assert [clip.flags for clip in clips] == [("wrong-extension",), ("wrong-extension",), (), ()]
    assert bad == []


def test_a_table_s_rows_and_all_that_can_be_wrong_with_them(tmp_path: Path) -> None:
    for name in ("dQw4w9WgXcQ.wav", "two.wav", "three.wav", "nobody.wav"):
        say(tmp_path / "audio" / name)
    table = write(
        tmp_path / "metadata.csv",
        "audio,text,speaker,label",
        f'audio/dQw4w9WgXcQ,"{TEXT}, she said",ann,Speech',
        "audio/two.wav,,bo,",
        "audio/two.wav,again,bo,",
        "audio/gone.wav,nothing,bo,",
        "audio/three.wav,too,many,values,here",
        ",no file,,",
    )
    with table.open("ab") as file:
        file.write(b"audio/three.wav,I\x92m not UTF-8,bo,\n\naudio/three.wav,fine,cy,Music\n")
    clips, bad = parted(folders.read(tmp_path, Given(split="dev", source="YouTube8M")))
    assert [clip.id for clip in clips] == ["audio/dQw4w9WgXcQ.wav", "audio/two.wav", "audio/three.wav"]
    assert clips[0].text == f"{TEXT}, she said"
    assert (clips[0].speaker, clips[0].labels, clips[0].split) == ("ann", (("label", "Speech"),), "dev")
    assert clips[1].flags == ("empty-text",)
    found = [(b.line, b.field, b.error.split(";")[0].split(": ")[-1]) for b in bad]
    assert found == [
        (4, "id", "'audio/two.wav' was already at metadata.csv:3"),
        (5, "audio", "no such file"),
        (6, None, "has 5 values where the header has 4"),
        (7, "file_name", "is missing"),
        (8, None, "byte 0x92 is not UTF-8"),
        (None, "audio", f"no row of {table} names this file"),
    ]
    assert "nothing" in (bad[1].row or "")
    assert "I\\x92m" in (bad[4].row or "")


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl"])
def test_the_same_table_in_other_forms(tmp_path: Path, suffix: str) -> None:
    say(tmp_path / "abc.mp3")
    row = {"ytid": "abc", "title": 'a "b', "caption": TEXT, "year": 2015}
    if suffix == ".jsonl":
        write(tmp_path / "list.jsonl", json.dumps(row), "", "[1]", "{broken")
    else:
        write(tmp_path / "list.tsv", "\t".join(row), "\t".join(map(str, row.values())))
    (clip,), bad = parted(folders.read(tmp_path))
    assert (clip.id, clip.text) == ("abc", TEXT)
    assert clip.labels == (("title", 'a "b'), ("year", "2015"))
    assert [b.line for b in bad] == ([3, 4] if suffix == ".jsonl" else [])


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_quote_that_is_never_closed_joins_no_rows(tmp_path: Path, suffix: str) -> None:
    mark = "," if suffix == ".csv" else "\t"
    rows = [
        ("file", "text"),
        ("a.wav", '"never closed'),
        ("b.wav", "two"),
        ("c.wav", '"three"'),
        ("d.wav", '5" of it'),
    ]
    for name in "abcd":
        say(tmp_path / f"{name}.wav")
    write(tmp_path / f"m{suffix}", *map(mark.join, rows))
    clips, bad = parted(folders.read(tmp_path))
    texts = {clip.id: clip.text for clip in clips}
    assert {name: texts[name] for name in ("b.wav", "c.wav", "d.wav")} == {
        "b.wav": "two",
        "c.wav": "three",
        "d.wav": '5" of it',
    }
    if suffix == ".csv":
        assert [(b.line, b.error) for b in bad][:1] == [
            (2, "is not a row (a quote is opened and not closed)")
        ]
    else:
        assert (texts["a.wav"], bad) == ('"never closed', [])


def test_quotes_of_common_voice_are_text(tmp_path: Path) -> None:
    texts = ['"では"と彼は言った。', '"open', 'lobby"s', '"""a"" b"', '"whole"']
    for n in range(len(texts)):
        say(tmp_path / "clips" / f"{n}.mp3")
    lines = [f"{n}.mp3\t{text}\t" for n, text in enumerate(texts)]  # and a mark too many
    write(tmp_path / "validated.tsv", "path\tsentence", *lines)
    clips, bad = parted(clips_of(tmp_path / "validated.tsv", "folder", tmp_path / "out"))
    assert [clip.text for clip in clips] == ['"では"と彼は言った。', '"open', 'lobby"s', '"a" b', "whole"]
    assert bad == []


def test_a_quote_that_is_never_closed_costs_its_row_only_in_a_long_table(tmp_path: Path) -> None:
    say(tmp_path / "a.wav")
    write(tmp_path / "m.csv", "file,text", 'a.wav,"never closed', *("a.wav,x" for _ in range(4_000)))
    clips, bad = parted(folders.read(tmp_path))
    assert "a quote is opened" in bad[0].error
    assert ([clip.id for clip in clips], len(bad)) == (["a.wav"], 4_000)


def test_a_quoted_value_may_go_on_over_lines(tmp_path: Path) -> None:
    for name in "ab":
        say(tmp_path / f"{name}.wav")
    write(
        tmp_path / "m.csv",
        "file,text",
        'a.wav,"one',
        "",
        'two ""and"" three, four"',
        "b.wav,five",
        "gone.wav,six",
    )
    clips, (bad,) = parted(folders.read(tmp_path))
    assert [clip.text for clip in clips] == ['one\n\ntwo "and" three, four', "five"]
    assert bad.line == 6


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("m.csv", ("file;text", 'a.wav;"one; two"')),
        ("m.csv", ("audio_file|text", "a.wav|one; two")),
        ("m.csv", ("file\ttext", "a.wav\tone; two")),
        ("m.tsv", ("file,text", "a.wav,one; two")),
        ("m.csv", ("File,Text", "a.wav,one; two")),
        ("m.tsv", ("\ufefffile\ttext", '"a.wav"\tone; two')),
    ],
)
def test_the_mark_between_values_is_seen_from_the_header(
    name: str, lines: tuple[str, ...], tmp_path: Path
) -> None:
    say(tmp_path / "a.wav")
    write(tmp_path / name, *lines)
    (clip,), bad = parted(folders.read(tmp_path))
    assert (clip.id, clip.text, bad) == ("a.wav", "one; two", [])


def test_a_table_without_a_header_is_said_and_loses_no_first_row(tmp_path: Path) -> None:
    say(tmp_path / "a.wav")
    write(tmp_path / "m.csv", "a.wav,one", "b.wav,two")
    with pytest.raises(
        CorpusError, match=r"expected a column that names the file .*found the first line 'a\.wav,one'"
    ):
        list(folders.read(tmp_path))


def test_a_table_in_utf_16_is_read(tmp_path: Path) -> None:
    say(tmp_path / "a.wav")
    (tmp_path / "m.tsv").write_text("file\ttext\r\na.wav\tone é\r\n", encoding="utf-16")
    (clip,), bad = parted(folders.read(tmp_path))
    assert (clip.text, bad) == ("one é", [])


def test_lj_speech_as_published(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        say(tmp_path / "wavs" / f"LJ001-000{n}.wav")
    write(
        tmp_path / "metadata.csv",
        'LJ001-0001|"Printed, in 1455|"Printed, in fourteen fifty-five',
        'LJ001-0002|"quoted"|"quoted"',
        "LJ001-0009|gone|gone",
    )
    clips, bad = parted(folders.read(tmp_path))
    assert [(clip.id, clip.text) for clip in clips] == [
        ("wavs/LJ001-0001.wav", '"Printed, in fourteen fifty-five'),
        ("wavs/LJ001-0002.wav", '"quoted"'),
    ]
    assert clips[0].labels == (("raw_text", '"Printed, in 1455'),)
    assert [(Path(b.file).name, b.line) for b in bad] == [("metadata.csv", 3), ("LJ001-0003.wav", None)]


def test_start_and_end_columns_make_segments(tmp_path: Path) -> None:
    say(tmp_path / "in" / "talk.wav")
    say(tmp_path / "in" / "cut.wav", SAMPLES[:16_000])
    write(
        tmp_path / "in" / "metadata.csv",
        "audio,start,end,text",
        "talk.wav,0.5,1.25,one",
        "talk.wav,0:01.5,0:00:02,two",
        "talk.wav,1.5,1.5,nothing",
        "talk.wav,2.0,99,too far",
        "talk.wav,half,1,no time",
        "talk.wav,1,,no end",
        "talk.wav,,,all of it",
        "cut.wav,30,31,cut already",
    )
    clips, bad = parted(folders.read(tmp_path / "in", Given(tmp_path / "out")))
    assert [(clip.id, clip.text, clip.duration) for clip in clips] == [
        ("talk.wav-0.5-1.25", "one", 0.75),
        ("talk.wav-1.5-2", "two", 0.5),
        ("talk.wav", "all of it", SECONDS),
        ("cut.wav-30-31", "cut already", 1.0),
    ]
    first, _ = soundfile.read(tmp_path / "out" / clips[0].audio)
    np.testing.assert_allclose(first, SAMPLES[8_000:20_000], atol=1e-4)
    assert [(b.line, b.field) for b in bad] == [(4, "end"), (5, "end"), (6, "start"), (7, "end")]
    (bad, *_) = [row for row in folders.read(tmp_path / "in") if isinstance(row, Bad)]
    assert "no folder was given" in bad.error


@pytest.mark.parametrize(
    ("row", "id_"),
    [
        ({"id": "u1", "audio": "talk.wav", "start_ms": 500, "end_ms": 1250}, "u1"),
        ({"audio_filepath": "talk.wav", "offset": 0.5, "duration": 0.75, "text": "one"}, "talk.wav-0.5-1.25"),
        ({"file": "talk.wav", "start": 0.5, "duration": 0.75}, "talk.wav-0.5-1.25"),
        ({"file": "talk.wav", "onset": 0.5, "offset": 1.25, "duration": 3}, "talk.wav-0.5-1.25"),
        ({"ytid": "talk", "start_s": 0.5, "end_s": 1.25}, "talk-0.5-1.25"),
        ({"segment_id": "s1", "path": "talk.wav", "start_time": "0.5", "end_time": "1.25"}, "s1"),
    ],
)
def test_segments_under_other_names(row: dict, id_: str, tmp_path: Path) -> None:
    say(tmp_path / "talk.wav")
    write_json(tmp_path / "m.jsonl", row)
    (clip,), bad = parted(folders.read(tmp_path, Given(tmp_path / "out")))
    assert (clip.id, clip.duration, bad) == (id_, 0.75, [])


def test_columns_are_known_however_they_are_capitalised(tmp_path: Path) -> None:
    say(tmp_path / "in" / "talk.wav")
    write(tmp_path / "in" / "list.csv", "File Name,Start Time,End Time,Text", "talk.wav,0.5,1.25,one")
    (clip,), bad = parted(folders.read(tmp_path / "in", Given(tmp_path / "out")))
    assert (clip.text, clip.duration, bad) == ("one", 0.75, [])


def test_a_name_that_no_file_can_have_costs_its_row(tmp_path: Path) -> None:
    say(tmp_path / "a.wav")
    write(tmp_path / "m.csv", "file,text", f"{'a' * 5000},one", "a.wav,two")
    (clip,), (bad,) = parted(folders.read(tmp_path))
    assert (clip.text, bad.line, bad.field) == ("two", 2, "audio")
    assert "name too long" in bad.error


def test_a_manifest_of_nemo_is_known_whatever_its_suffix(tmp_path: Path) -> None:
    say(tmp_path / "in" / "a.wav")
    for name in ("manifest.json", "manifest.jsonl"):
        row = {"audio_filepath": "a.wav", "offset": 0.5, "duration": 1.0, "text": "one"}
        write_json(tmp_path / "in" / name, row, {**row, "offset": 1.5, "text": "two"})
        assert corpus_of(tmp_path / "in" / name) == "folder"
    (tmp_path / "in" / "manifest.jsonl").unlink()
    (tmp_path / "in" / "notes.json").write_text('{"audio": [1,')
    for path in (tmp_path / "in", tmp_path / "in" / "manifest.json"):
        clips, bad = parted(folders.read(path, Given(tmp_path / "out")))
        assert [(clip.text, clip.duration) for clip in clips] == [("one", 1.0), ("two", 1.0)]
        assert not bad


def test_two_tables_are_not_chosen_between(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "file")
    write(tmp_path / "b.csv", "file")
    with pytest.raises(CorpusError, match=r"found a\.csv, b\.csv; say which"):
        next(folders.read(tmp_path))
    assert list(folders.read(tmp_path, metadata=tmp_path / "a.csv")) == []


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__.split(".")[-1])
def test_another_folder_is_no_corpus(tmp_path: Path, reader) -> None:
    write(tmp_path / "README.md", "nothing")
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CorpusError, match=r"expected .*found"):
            list(reader.read(folder))


def test_keys_that_are_not_unicode_come_back_in_order() -> None:
    kept = OnDisk()
    for key in ("b", "a\udc92", "a", "b"):  # a file's name need not be UTF-8
        kept.put(key, f"of {key}")
    assert kept.get("b") == ["of b", "of b"]
    assert kept.get("c") == []
    assert list(kept.keys()) == ["a", "a\udc92", "b"]


# LibriSpeech


def librispeech_chapter(folder: Path) -> Path:
    chapter = folder / "train-clean-100" / "103" / "1240"
    for n in (0, 1, 2, 4):
        say(chapter / f"103-1240-000{n}.flac")
    write(
        chapter / "103-1240.trans.txt",
        f"103-1240-0000 {TEXT.upper()}",
        "103-1240-0001 ONE",
        "103-1240-0002",
        "103-1240-0003 GONE",
        "103-1240-0001 AGAIN",
    )
    say(folder / "dev-other" / "84" / "1" / "84-1-0000.flac")
    write(
        folder / "SPEAKERS.TXT",
        ";ID|SEX",
        "103  | F | train-clean-100 | 25.15 | Karen | Savage",
        "84 | broken",
    )
    return chapter


def test_librispeech_and_its_faults(tmp_path: Path) -> None:
    librispeech_chapter(tmp_path)
    clips, bad = parted(librispeech.read(tmp_path, Given(tmp_path)))
    assert [clip.id for clip in clips] == ["103-1240-0000", "103-1240-0001", "103-1240-0002"]
    first = clips[0]
    assert (first.audio, first.speaker) == ("train-clean-100/103/1240/103-1240-0000.flac", "103")
    assert (first.text, first.duration, first.words) == (TEXT.upper(), SECONDS, ())
    assert (first.split, first.licence, first.language) == ("train", "CC BY 4.0", "en")
    assert first.labels == (("sex", "F"), ("name", "Karen | Savage"))
    assert (clips[2].text, clips[2].flags) == (None, ("empty-text",))
    assert [(Path(b.file).name, b.line, b.field) for b in bad] == [
        ("84-1.trans.txt", None, None),
        ("84-1-0000.flac", None, "audio"),
        ("103-1240.trans.txt", 4, "audio"),
        ("103-1240.trans.txt", 5, "id"),
        ("103-1240-0004.flac", None, "audio"),
    ]


def test_librispeech_words_get_the_times_of_the_alignments_where_they_agree(tmp_path: Path) -> None:
    librispeech_chapter(tmp_path / "LibriSpeech")
    words = SPOKEN.clip.words
    texts, ends, end = [], [], 0.0
    for word in words:
        texts += ["", word.text.upper()] if word.start > end else [word.text.upper()]
        ends += [word.start, word.end] if word.start > end else [word.end]
        end = word.end
    write(
        tmp_path / "LibriSpeech-alignments/train-clean-100/103/1240/103-1240.alignment.txt",
        f'103-1240-0000 "{",".join(texts)}," "{",".join(map(str, ends))},{SECONDS}"',
        '103-1240-0001 ",TWO," "0.1,0.5,1.0"',
        '103-1240-0002 "A,B" "0.1"',
    )
    alignments = tmp_path / "LibriSpeech-alignments"
    clips, bad = parted(librispeech.read(tmp_path / "LibriSpeech", alignments=alignments))
    assert [(w.text, w.start, w.end) for w in clips[0].words] == [
        (w.text.upper(), w.start, w.end) for w in words
    ]
    assert {word.source for word in clips[0].words} == {"librispeech-alignments"}
    assert (clips[1].words, clips[1].flags) == ((), ("alignment-left-out",))
    assert [b.error for b in bad if b.file.endswith("alignment.txt")] == ["2 words and silences but 1 ends"]


# CoVoST 2


def test_covost_one_recording_with_translations_into_two_languages(tmp_path: Path) -> None:
    for n in (1, 2, 3, 9):
        say(tmp_path / "clips" / f"common_voice_en_{n}.mp3")
    header = "path\tsentence\ttranslation\tclient_id"
    write(
        tmp_path / "covost_v2.en_de.train.tsv",
        header,
        'common_voice_en_1.mp3\t"one\t\\"eins\\"\tann',
        "common_voice_en_2.mp3\t \t\tann",
        "common_voice_en_4.mp3\tgone\tweg\tann",
    )
    write(tmp_path / "covost_v2.en_zh-CN.dev.tsv", header, "common_voice_en_1.mp3\tone\t一\tann")
    clips, (bad,) = parted(covost.read(tmp_path))
    assert [clip.id for clip in clips] == [
        "covost2-en_de-common_voice_en_1",
        "covost2-en_de-common_voice_en_2",
        "covost2-en_zh-CN-common_voice_en_1",
    ]
    assert (clips[0].text, clips[0].language, clips[0].speaker) == ('"one', "en", "ann")
    assert clips[0].labels == (("translation", '"eins"'), ("translation_language", "de"))
    assert clips[0].duration == pytest.approx(SECONDS, abs=0.1)
    assert (clips[1].text, clips[1].labels) == (None, ())
    assert clips[1].flags == ("empty-text", "empty-translation")
    assert (clips[2].split, clips[2].label("translation")) == ("dev", "一")
    assert (bad.line, bad.field) == (4, "audio")


def test_a_table_that_lacks_columns_names_them_before_anything_is_read(tmp_path: Path) -> None:
    say(tmp_path / "clips" / "a.mp3")
    write(tmp_path / "covost_v2.en_de.dev.tsv", "path\tsentence\ttranslation\tclient_id", "a.mp3\ta\tb\tc")
    write(tmp_path / "covost_v2.en_de.train.tsv", "path\ttranslation\tsplit")
    says = r"covost_v2\.en_de\.train\.tsv: expected .*found path, translation, split; missing: sentence, client_id"
    with pytest.raises(CorpusError, match=says):
        next(covost.read(tmp_path))


# MELD

MELD_HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
)


def meld_row(dialogue: int, utterance: int, text: str = "Hi", start: str = "0:00:01,000") -> str:
    return f'1,"{text}",Joey,joy,positive,{dialogue},{utterance},8,21,"{start}","00:00:05,500"'


def video(path: Path) -> Path:
    """The digits as AAC in an mp4, as MELD's clips hold their sound."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        track = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(SAMPLES[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux([*track.encode(frame), *track.encode(None)])
    return path


def test_meld_and_its_faults(tmp_path: Path) -> None:
    table = write(
        tmp_path / "train_sent_emo.csv",
        MELD_HEADER,
        meld_row(0, 0, "I’m here, Joey"),
        meld_row(0, 1, " "),
        meld_row(0, 2, start="0:00:06,000"),
        meld_row(0, 3, start="soon"),
        meld_row(0, 4),
        meld_row(0, 5),
        meld_row(0, 0),
        meld_row(125, 3),
    )
    with table.open("ab") as file:
        file.write(meld_row(0, 6, "I’m").encode("windows-1252") + b"\n")
    clips_folder = tmp_path / "train_splits"
    for name in ("dia0_utt0.wav", "dia0_utt2.wav", "dia125_utt3.wav", "dia7_utt7.flac", "final_videos_x.wav"):
        say(clips_folder / name)
    video(clips_folder / "dia0_utt1.mp4")
    write(clips_folder / "dia0_utt4.mp4", "no video")
    write(tmp_path / "dev" / "dev_sent_emo.csv", MELD_HEADER, meld_row(110, 7))
    clips, bad = parted(meld.read(tmp_path, Given(tmp_path)))
    assert [clip.id for clip in clips] == ["meld-train-dia0_utt0", "meld-train-dia0_utt1"]
    assert (clips[0].text, clips[0].speaker, clips[0].duration) == ("I’m here, Joey", "Joey", SECONDS)
    assert dict(clips[0].labels) == {
        **{"emotion": "joy", "sentiment": "positive", "dialogue": "0", "utterance": "0"},
        **{"season": "8", "episode": "21"},
    }
    assert clips[1].audio == "train_splits/dia0_utt1.mp4"
    assert clips[1].flags == ("video", "empty-text")
    assert clips[1].duration == pytest.approx(SECONDS, abs=0.15)
    assert [(Path(b.file).name, b.line, b.field) for b in bad] == [
        ("train_sent_emo.csv", 4, "EndTime"),
        ("train_sent_emo.csv", 5, "StartTime"),
        ("train_sent_emo.csv", 6, "audio"),
        ("train_sent_emo.csv", 7, "audio"),
        ("train_sent_emo.csv", 8, "id"),
        ("train_sent_emo.csv", 9, "audio"),
        ("train_sent_emo.csv", 10, None),
        ("dia7_utt7.flac", None, "audio"),
        ("dev_sent_emo.csv", 2, "audio"),
    ]
    assert "corrupt" in bad[5].error
    assert bad[6].error == "byte 0x92 is not UTF-8"
    assert "lacks this clip" in bad[8].error


@pytest.mark.skipif(not MELD.is_dir(), reason=f"MELD's csv files are not in {MELD}")
def test_every_row_of_the_real_meld_is_a_clip_or_bad(tmp_path: Path) -> None:
    for split in meld.FOLDERS:
        shutil.copy(MELD / f"{split}_sent_emo.csv", tmp_path)
    for split, name in (("train", "dia0_utt0"), ("dev", "dia0_utt1"), ("test", "dia220_utt0")):
        say(tmp_path / meld.FOLDERS[split] / f"{name}.wav")
    clips, bad = parted(meld.read(tmp_path))
    assert [clip.id for clip in clips] == ["meld-train-dia0_utt0", "meld-dev-dia0_utt1"]
    assert (
        clips[0].text
        == "also I was the point person on my company’s transition from the KL-5 to GR-6 system."
    )
    rows = Counter(Path(b.file).name for b in bad) + Counter(f"{clip.split}_sent_emo.csv" for clip in clips)
    assert rows == {"train_sent_emo.csv": 9989, "dev_sent_emo.csv": 1109, "test_sent_emo.csv": 2610}
    assert sum(any(reason in b.error for reason in meld.DAMAGED.values()) for b in bad) == len(meld.DAMAGED)
    # dia155_utt3 of test ends when it starts
    assert [b.error for b in bad if b.field == "EndTime"] == ["752.632 s is not after StartTime 752.632 s"]
    assert {b.field for b in bad} == {"audio", "EndTime"}


# Dialogues


def test_dialogues_with_turns_as_json_and_rttm(tmp_path: Path) -> None:
    for name in ("a.wav", "b.flac", "c.wav", "silent.wav", "e.wav"):
        say(tmp_path / "calls" / name)
    turns = [
        {"speaker": "bo", "start": 1.5, "end": 2.5, "text": "three\nfour"},
        {"speaker": "ann", "start": 0.5, "end": 1.6, "text": "one two"},
        {"speaker": "ann", "start": 2.0, "end": 1.0, "text": "backwards"},
        {"speaker": "ann", "start": 2.0, "end": 99.0, "text": "after the end"},
        {"speaker": "ann", "start": 98.0, "end": 99.0, "text": "never"},
        {"start": 2.0, "end": 2.5, "text": "nobody"},
    ]
    write_json(tmp_path / "calls" / "a.json", turns)
    write_json(tmp_path / "calls" / "b.json", {"turns": turns[1:2]})
    write_json(tmp_path / "calls" / "gone.json", turns)
    write(tmp_path / "calls" / "e.json", "{broken")
    write(
        tmp_path / "calls" / "all.rttm",
        "SPEAKER a 1 0.00 0.50 <NA> <NA> passed_over <NA> <NA>",
        "SPKR-INFO c 1 <NA> <NA> <NA> unknown ann <NA> <NA>",
        "SPEAKER c 1 0.10 0.20 <NA> <NA> ann <NA> <NA>",
        "SPEAKER c 1 half",
        "SPEAKER c 1 0.20 0.40 <NA> <NA> bo <NA> <NA>",
    )
    clips, bad = parted(multispeaker.read(tmp_path, Given(language="en")))
    assert [clip.id for clip in clips] == ["calls/a", "calls/b", "calls/c"]
    assert clips[0].text == "one two\nthree four\nafter the end"
    assert [(e.label, e.start, e.end) for e in clips[0].events] == [
        ("speaker ann", 0.5, 1.6),
        ("speaker bo", 1.5, 2.5),
        ("speaker ann", 2.0, SECONDS),
    ]
    assert (clips[0].speaker, clips[0].label("n_speakers")) == (None, "2")
    assert clips[0].flags == ("turns-cut", "turns-left-out")
    assert by_speaker(clips[0], np.random.default_rng(0)) == []
    assert by_speaker(clips[2], np.random.default_rng(0))[0].answer == "two"
    assert (clips[1].speaker, clips[1].flags) == ("ann", ())
    assert [(e.label, e.start, e.end) for e in clips[2].events] == [
        ("speaker ann", 0.1, 0.3),
        ("speaker bo", 0.2, 0.6),
    ]
    assert clips[2].text is None
    assert [(Path(b.file).name, b.line) for b in bad] == [
        *[("a.json", None)] * 3,
        ("e.json", None),
        ("gone.json", None),
        ("all.rttm", 4),
        ("silent.wav", None),
    ]


def test_turns_of_one_recording_may_stand_anywhere(tmp_path: Path) -> None:
    for name in "ab":
        say(tmp_path / f"{name}.wav")
    turn = "SPEAKER {} 1 {} 0.25 <NA> <NA> {} <NA> <NA>"
    write(
        tmp_path / "1.rttm",
        turn.format("b", 0.5, "ann"),
        turn.format("a", 0, "ann"),
        turn.format("b", 0, "bo"),
    )
    write(tmp_path / "2.rttm", turn.format("a", 1, "bo"))
    clips, bad = parted(multispeaker.read(tmp_path))
    assert [(clip.id, len(clip.events), clip.flags) for clip in clips] == [("b", 2, ()), ("a", 2, ())]
    assert bad == []


# Lhotse


def recording(name: str, **changes: object) -> dict[str, object]:
    source = {"type": "file", "channels": [0], "source": f"audio/{name}.wav"}
    row = {"id": name, "sources": [source], "sampling_rate": 16_000, "num_samples": len(SAMPLES)}
    return {**row, "duration": SECONDS, "channel_ids": [0], **changes}


def supervision(name: str, of: str, **changes: object) -> dict[str, object]:
    row = {"id": name, "recording_id": of, "start": 0.0, "duration": SECONDS, "channel": 0, "text": TEXT}
    return {**row, "language": "English", "speaker": "ann", **changes}


def test_lhotse_recordings_with_supervisions(tmp_path: Path) -> None:
    for name in ("r1", "r2", "r3", "r4"):
        say(tmp_path / "audio" / f"{name}.wav")
    aligned = {"word": [["one", 0.1, 0.2], ["", 0.3, 0.1], ["two", 0.5, 0.25, 0.9]]}
    two_files = recording("r1")["sources"] * 2  # type: ignore[operator]
    command = [{"type": "command", "channels": [0], "source": "sox a.wav -"}]
    write_json(
        tmp_path / "x_recordings_dev.jsonl",
        recording("r1"),
        recording("r2"),
        recording("r3", duration=60.0),
        recording("r1"),
        recording("r5", sources=two_files),
        recording("r6", sources=command),
        recording("r7"),
    )
    with gzip.open(tmp_path / "x_recordings_train.jsonl.gz", "wt") as file:
        file.write(json.dumps(recording("r4")) + "\n")
    write_json(
        tmp_path / "x_supervisions_dev.jsonl",
        supervision("s2b", "r2", start=2.0, duration=0.5, speaker="bo", text="two"),
        supervision("s1", "r1", gender="F", custom={"emotion": "joy", "dataloading": {}}, alignment=aligned),
        supervision("s2a", "r2", start=0.1, duration=0.2, text="one"),
        supervision("s1", "r1"),
        supervision("s9", "r9"),
    )
    clips, bad = parted(lhotse.read(tmp_path, Given(licence="CC0")))
    assert [(clip.id, clip.split) for clip in clips] == [
        ("r1", "dev"),
        ("r2", "dev"),
        ("r3", "dev"),
        ("r4", "train"),
    ]
    assert (clips[0].text, clips[0].speaker, clips[0].language) == (TEXT, "ann", "English")
    assert clips[0].labels == (("sex", "F"), ("emotion", "joy"))
    assert [(w.text, w.start, w.end) for w in clips[0].words] == [("one", 0.1, 0.3), ("two", 0.5, 0.75)]
    assert clips[0].events == ()
    assert (clips[1].text, clips[1].speaker) == ("one\ntwo", None)
    assert [(e.label, e.start, e.end) for e in clips[1].events] == [
        ("speaker ann", 0.1, 0.3),
        ("speaker bo", 2.0, 2.5),
    ]
    assert clips[2].flags == ("duration-disagrees", "no-text")
    assert [(Path(b.file).name, b.line, b.field) for b in bad] == [
        ("x_supervisions_dev.jsonl", 4, "id"),
        ("x_recordings_dev.jsonl", 4, "id"),
        ("x_recordings_dev.jsonl", 5, "sources"),
        ("x_recordings_dev.jsonl", 6, "sources"),
        ("x_recordings_dev.jsonl", 7, "audio"),
        ("x_supervisions_dev.jsonl", None, "recording_id"),
    ]


def test_lhotse_cuts_are_clips_where_they_are_whole_recordings(tmp_path: Path) -> None:
    say(tmp_path / "audio" / "r1.wav")
    cut = {"id": "c1", "start": 0, "duration": SECONDS, "channel": 0, "type": "MonoCut"}
    cut |= {"supervisions": [supervision("s1", "r1")], "recording": recording("r1")}
    content = "\n".join(
        map(json.dumps, [cut, {**cut, "id": "c2", "start": 1.0}, {"id": "c3", "type": "MixedCut"}])
    )
    packed = gzip.compress(f"{content}\n".encode())
    (tmp_path / "cuts.jsonl.gz").write_bytes(packed)
    (clip,), bad = parted(lhotse.read(tmp_path))
    assert (clip.id, clip.text, clip.split) == ("c1", TEXT, "train")
    assert [(b.line, b.field) for b in bad] == [(2, "start"), (3, "recording")]
    (tmp_path / "cuts.jsonl.gz").write_bytes(packed[:-20])
    assert "cannot be read further" in parted(lhotse.read(tmp_path))[1][-1].error


@pytest.mark.parametrize("name", ["Speed", "Tempo"])
def test_a_lazy_speed_of_lhotse_is_undone(name: str, tmp_path: Path) -> None:
    say(tmp_path / "audio" / "r1.wav")
    aligned = {"word": [["one", 0.4, 0.2], ["two", 0.8, 0.4]]}
    faster = {
        "duration": SECONDS / 1.25,
        "transforms": [
            {"name": name, "kwargs": {"factor": 1.25}},
            {"name": "Volume", "kwargs": {"factor": 2.0}},
        ],
    }
    write_json(
        tmp_path / "recordings.jsonl",
        recording("r1", id="r1_sp1.25", **faster),
        recording("r1", id="odd", transforms=[{"name": "Reverse", "kwargs": {}}]),
        recording("r1", id="none", transforms=[{"name": "Speed", "kwargs": {}}]),
    )
    write_json(
        tmp_path / "supervisions.jsonl",
        supervision("s1", "r1_sp1.25", start=0.4, duration=0.8, alignment=aligned),
        supervision("s2", "r1_sp1.25", start=1.6, duration=0.4, text=None),
    )
    (clip,), bad = parted(lhotse.read(tmp_path))
    assert (clip.duration, clip.flags) == (SECONDS, ("speed-undone",))
    assert [(w.text, w.start, w.end) for w in clip.words] == [("one", 0.5, 0.75), ("two", 1.0, 1.5)]
    assert [(e.start, e.end) for e in clip.events] == [(0.5, 1.5), (2.0, 2.5)]
    assert [(b.line, b.field) for b in bad] == [(2, "transforms"), (3, "factor")]


def test_what_has_no_time_in_lhotse_costs_itself(tmp_path: Path) -> None:
    say(tmp_path / "audio" / "r1.wav")
    items = [
        ["one", 0.1, 0.2, 0.875],
        ["gone", 0.3, 0.0, 0.9],
        {"start": 0.5, "duration": 0.25, "symbol": "two"},
        {"start": 0.8, "duration": 0.1},
        "1234",
        ["huge", 10**400, 1],
        ["three", 1.0, 0.25, -4.5],
        ["cut", SECONDS - 0.25, 9.0],
    ]
    write_json(tmp_path / "recordings.jsonl", recording("r1"))
    write_json(
        tmp_path / "supervisions.jsonl",
        supervision("s1", "r1", alignment={"word": items}),
        supervision("s2", "r1", start=1.0, duration=0.0),
        supervision("s3", "r1", start=2.0, duration=99.0),
        supervision("s4", "r1", start=2.0, duration=0.5, text=None, alignment={"word": 5}),
    )
    (clip,), bad = parted(lhotse.read(tmp_path))
    assert [(w.text, w.confidence) for w in clip.words] == [
        *[("one", 0.875), ("two", None), ("three", None), ("cut", None)]
    ]
    assert clip.words[-1].end == SECONDS
    assert [(hole.start, hole.end, hole.text) for hole in clip.holes] == [
        (0.3, 0.3, "gone"),
        (0.75, 1.0, None),
    ]
    assert clip.flags == ("turns-cut", "turns-left-out", "words-missing", "words-cut")
    assert [(Path(b.file).name, b.line, b.field) for b in bad] == [
        ("supervisions.jsonl", 2, None),
        ("supervisions.jsonl", 1, "alignment"),
        ("supervisions.jsonl", 1, "alignment"),
        ("supervisions.jsonl", 1, "alignment"),
        ("supervisions.jsonl", 4, "alignment"),
    ]


@pytest.mark.parametrize("channels", [5, "01", [[0]], {"0": 0}])
def test_channels_that_are_none_cost_their_recording(tmp_path: Path, channels: object) -> None:
    say(tmp_path / "audio" / "r1.wav")
    sources = [{"type": "file", "channels": channels, "source": "audio/r1.wav"}]
    write_json(tmp_path / "recordings.jsonl", recording("r1", sources=sources), recording("r2", id="r2"))
    write_json(tmp_path / "supervisions.jsonl", supervision("s1", "r1"))
    _, bad = parted(lhotse.read(tmp_path))
    assert [b.field for b in bad if b.line == 1] == ["channels"]


def test_what_lhotse_has_no_items_for_leaves_a_hole_and_supervisions_stand_in_any_order(
    tmp_path: Path,
) -> None:
    say(tmp_path / "audio" / "r1.wav")
    write_json(tmp_path / "recordings.jsonl", recording("r1"))
    write_json(
        tmp_path / "supervisions.jsonl",
        supervision("s2", "r1", start=1.5, duration=0.5, text="so", alignment={"word": [["so", 1.5, 0.25]]}),
        supervision("s3", "r1", start=1.0, duration=0.5, text="nobody aligned this"),
        supervision(
            "s1",
            "r1",
            duration=1.0,
            text="I did not, say",
            alignment={"word": [["i", 0.0, 0.25], ["say", 0.5, 0.25]]},
        ),
    )
    (clip,), bad = parted(lhotse.read(tmp_path))
    assert not bad
    assert [w.text for w in clip.words] == ["i", "say", "so"]
    assert [(hole.start, hole.end, hole.text) for hole in clip.holes] == [
        (0.25, 0.5, "did not,"),
        (1.0, 1.5, None),
    ]
    assert clip.flags == ("words-missing",)


def test_a_channel_of_lhotse_is_that_channel(tmp_path: Path) -> None:
    two = np.stack([SAMPLES, SAMPLES[::-1]], axis=1)
    say(tmp_path / "in" / "audio" / "call.wav", two)
    say(tmp_path / "in" / "audio" / "left.wav")
    say(tmp_path / "in" / "audio" / "right.wav", SAMPLES[::-1])
    stereo = [{"type": "file", "channels": [0, 1], "source": "audio/call.wav"}]
    apart = [
        {"type": "file", "channels": [n], "source": f"audio/{side}.wav"}
        for n, side in enumerate(("left", "right"))
    ]
    recordings = [
        recording("call", sources=stereo, channel_ids=[0, 1]),
        recording("one", sources=stereo, channel_ids=[0, 1]),
        recording("both", sources=stereo, channel_ids=[0, 1]),
        recording("apart", sources=apart, channel_ids=[0, 1]),
    ]
    write_json(tmp_path / "in" / "recordings.jsonl", *recordings)
    write_json(
        tmp_path / "in" / "supervisions.jsonl",
        supervision("s1", "call", channel=0, text="left"),
        supervision("s2", "call", channel=1, text="right"),
        supervision("s3", "one", channel=1, text="right"),
        supervision("s4", "both", channel=[0, 1], text="both"),
        supervision("s5", "apart", channel=1, text="right"),
    )
    clips, bad = parted(lhotse.read(tmp_path / "in", Given(tmp_path / "out")))
    assert [(clip.id, clip.text) for clip in clips] == [
        *[("call-channel0", "left"), ("call-channel1", "right"), ("one", "right"), ("both", "both")],
        ("apart", "right"),
    ]
    heard = [audio.load(tmp_path / "out" / clip.audio) for clip in clips]
    for samples, expected in zip(
        heard, [SAMPLES, SAMPLES[::-1], SAMPLES[::-1], two.mean(axis=1), SAMPLES[::-1]], strict=True
    ):
        np.testing.assert_allclose(samples, expected, atol=1e-3)
    assert bad == []
    cut = {"id": "c1", "start": 0, "duration": SECONDS, "channel": 1, "type": "MonoCut", "supervisions": []}
    write_json(
        tmp_path / "cuts" / "cuts.jsonl",
        {**cut, "recording": recording("call", sources=[{**stereo[0], "source": "../in/audio/call.wav"}])},
    )
    (clip,), bad = parted(lhotse.read(tmp_path / "cuts", Given(tmp_path / "out")))
    np.testing.assert_allclose(audio.load(tmp_path / "out" / clip.audio), SAMPLES[::-1], atol=1e-3)


# Sound events


def test_desed_as_published(tmp_path: Path) -> None:
    recordings = tmp_path / "audio" / "train" / "synthetic21_train" / "soundscapes"
    for name in ("0.wav", "1.wav", "2.wav"):
        say(recordings / name)
    write(
        tmp_path / "metadata" / "train" / "synthetic21_train" / "soundscapes.tsv",
        "filename\tonset\toffset\tevent_label",
        "0.wav\t0.5\t1.25\tSpeech",
        "0.wav\t1.0\t2.0\tDog",
        "0.wav\t2.0\t9.0\tCat",
        "0.wav\t2.0\t2.0\tCat",
        "0.wav\t8.0\t9.0\tCat",
        "1.wav\t\t\t",
        "gone.wav\t0.5\t1.0\tDog",
        "0.wav\t0.5\t1.0\tDog",
    )
    write(tmp_path / "metadata" / "train" / "weak.tsv", "filename\tevent_labels", "9.wav\tDog,Cat")
    clips, bad = parted(strong_labels.read(tmp_path, Given(tmp_path)))
    first, second = clips
    assert first.id == "train/synthetic21_train/soundscapes/0.wav"
    assert first.audio == "audio/train/synthetic21_train/soundscapes/0.wav"
    assert [(e.label, e.start, e.end) for e in first.events] == [
        *[("Speech", 0.5, 1.25), ("Dog", 1.0, 2.0), ("Cat", 2.0, SECONDS), ("Dog", 0.5, 1.0)]
    ]
    assert (first.split, first.source, first.flags) == ("train", "DESED", ("events-cut", "events-left-out"))
    assert (second.events, second.flags) == ((), ())
    assert [(Path(b.file).name, b.line, b.field) for b in bad] == [
        ("soundscapes.tsv", 5, None),
        ("soundscapes.tsv", 6, None),
        ("soundscapes.tsv", 8, "audio"),
        ("2.wav", None, "audio"),
    ]
    assert corpus_of(tmp_path) == "strong-labels"


@pytest.mark.parametrize("named", ["", "dataset", "dataset/metadata", "dataset/metadata/validation.tsv"])
def test_desed_is_known_by_its_folder_above_and_by_its_table(tmp_path: Path, named: str) -> None:
    say(tmp_path / "dataset" / "audio" / "validation" / "0.wav")
    write(
        tmp_path / "dataset" / "metadata" / "validation.tsv",
        "filename\tonset\toffset\tevent_label",
        "0.wav\t0.5\t1.25\tDog",
    )
    assert corpus_of(tmp_path / named) == "strong-labels"
    (clip,), bad = parted(strong_labels.read(tmp_path / named, Given(tmp_path)))
    assert [(e.label, e.start, e.end) for e in clip.events] == [("Dog", 0.5, 1.25)]
    assert (clip.id, clip.duration, bad) == ("validation/0.wav", SECONDS, [])


def test_audioset_strong_with_display_names(tmp_path: Path) -> None:
    say(tmp_path / "audio" / "b0RFKhbpFJA_30000.flac")
    write(
        tmp_path / "audioset_eval_strong.tsv",
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel",
        "b0RFKhbpFJA_30000\t0.000\t1.500\t/m/03m9d0z",
        "b0RFKhbpFJA_30000\t1.000\t2.000\t/m/unknown",
    )
    write(tmp_path / "mid_to_display_name.tsv", "/m/03m9d0z\tWind")
    (clip,), bad = parted(strong_labels.read(tmp_path))
    assert clip.id == "audioset_eval_strong/b0RFKhbpFJA_30000"
    assert [event.label for event in clip.events] == ["Wind", "/m/unknown"]
    assert (clip.split, clip.licence) == ("eval", "CC BY 4.0")
    assert bad == []
    assert corpus_of(tmp_path) == "strong-labels"
    (tmp_path / "mid_to_display_name.tsv").unlink()
    write(tmp_path / "class_labels_indices.csv", "index,mid,display_name", '0,/m/03m9d0z,"Wind, strong"')
    (clip,), bad = parted(strong_labels.read(tmp_path))
    assert [event.label for event in clip.events] == ["Wind, strong", "/m/unknown"]


# Hugging Face


def encoded(path: Path, **how: str) -> dict[str, object]:
    return {"bytes": say(path, **how).read_bytes(), "path": "somewhere.wav"}


def hub_table(tmp_path: Path, pa):
    """Three rows that are good and three that are not, with class labels as `datasets` notes them."""
    made = tmp_path / "made"
    sounds = [
        encoded(made / "a.flac"),
        encoded(made / "b.mp3"),
        {"bytes": None, "path": str(say(tmp_path / "elsewhere.wav"))},
        encoded(made / "c.wav"),
        {"bytes": b"no sound", "path": "x.wav"},
        None,
    ]
    features = {"emotion": {"names": ["calm", "joy"], "_type": "ClassLabel"}, "audio": {"_type": "Audio"}}
    columns = {
        "id": ["a/1", "b", "c", "b", "e", "f"],
        "audio": sounds,
        "sentence": [TEXT, "", "c", "d", "e", "f"],
        "emotion": [1, -1, 0, 0, 0, 0],
    }
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table(columns).replace_schema_metadata(noted)


def hub_is_read(folder: Path, out: Path) -> None:
    clips, bad = parted(huggingface.read(folder, out, Given(out, language="en")))
    assert [clip.id for clip in clips] == ["dev-a/1", "dev-b", "dev-c"]
    assert [clip.audio for clip in clips] == ["audio/dev-a%2F1.flac", "audio/dev-b.mp3", "../elsewhere.wav"]
    assert (clips[0].text, clips[0].labels, clips[0].split) == (TEXT, (("emotion", "joy"),), "dev")
    assert (clips[1].flags, clips[1].labels) == (("no-text",), (("emotion", "-1"),))
    assert (out / clips[0].audio).read_bytes() == (out.parent / "made" / "a.flac").read_bytes()
    assert [(b.line, b.field) for b in bad] == [(4, "id"), (5, "audio"), (6, "audio")]
    assert sorted(path.name for path in (out / "audio").iterdir()) == ["dev-a%2F1.flac", "dev-b.mp3"]


def test_a_hub_s_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    (tmp_path / "hub" / "data").mkdir(parents=True)
    shard = tmp_path / "hub" / "data" / "dev-00000-of-00001.parquet"
    pyarrow.parquet.write_table(hub_table(tmp_path, pa), shard)
    hub_is_read(tmp_path / "hub", tmp_path / "out")
    shard.write_bytes(shard.read_bytes()[:-9])
    (bad,) = huggingface.read(tmp_path / "hub", tmp_path / "out")
    assert isinstance(bad, Bad)
    assert "cannot be read further" in bad.error


def test_save_to_disk_s_arrow(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.ipc

    table = hub_table(tmp_path, pa)
    (tmp_path / "saved" / "dev").mkdir(parents=True)
    path = tmp_path / "saved" / "dev" / "data-00000-of-00001.arrow"
    with pa.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    hub_is_read(tmp_path / "saved", tmp_path / "out")


def test_without_pyarrow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match="the extra 'parquet' of tgsr"):
        next(huggingface.read(tmp_path, tmp_path / "out"))


# Names


@pytest.mark.parametrize("name", ["caf\udce9.wav", "caf\udce9/one.wav"])
def test_a_name_that_is_not_unicode_costs_itself_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / "in" / name).parent.mkdir(parents=True)
    shutil.copy(say(tmp_path / "in" / "café.wav"), tmp_path / "in" / name)
    (clip,), (bad,) = parted(folders.read(tmp_path / "in", Given(tmp_path)))
    assert clip.id == "café.wav"
    assert bad.file.endswith(name.replace("\udce9", "\\udce9"))
    assert (bad.field, "rename" in bad.error) == ("audio", True)
    bad.file.encode(), bad.error.encode()
    odd = tmp_path / "caf\udce9"
    (tmp_path / "in").rename(odd)
    assert parted(folders.read(odd, Given(odd / "out")))[0][0].audio == "../café.wav"


def test_linked_folders_are_entered_once_and_never_for_ever(tmp_path: Path) -> None:
    say(tmp_path / "elsewhere" / "deep" / "one.wav")
    corpus = tmp_path / "corpus"
    say(corpus / "two.wav")
    (corpus / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (corpus / "linked.wav").symlink_to(corpus / "two.wav")
    (corpus / "gone").symlink_to(tmp_path / "nowhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(corpus, target_is_directory=True)
    clips, bad = parted(folders.read(corpus))
    assert [clip.id for clip in clips] == ["linked.wav", "linked/deep/one.wav", "two.wav"]
    assert bad == []


@pytest.mark.parametrize("suffix", ["aif", "aiff", "caf", "w64", "oga", "au"])
def test_every_suffix_of_sound_is_found(suffix: str, tmp_path: Path) -> None:
    how = {"format": "OGG", "subtype": "VORBIS"} if suffix == "oga" else {}
    how = {"format": "AIFF"} if suffix == "aif" else how
    say(tmp_path / f"A.{suffix.upper()}", **how)
    (clip,), bad = parted(folders.read(tmp_path))
    assert (clip.id, clip.flags, bad) == (f"A.{suffix.upper()}", (), [])
    assert clip.duration == pytest.approx(SECONDS, abs=0.001)


def test_one_file_is_a_corpus_of_one(tmp_path: Path) -> None:
    path = say(tmp_path / "talk.wav")
    say(tmp_path / "other.wav")
    write(tmp_path / "metadata.csv", "file", "other.wav")
    assert corpus_of(path) == "folder"
    (clip,), bad = parted(clips_of(path, "folder", tmp_path / "out"))
    assert (clip.id, clip.audio, bad) == ("talk.wav", "../talk.wav", [])


def test_m4a_in_a_parquet_file_is_read(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    sounds = [
        {"bytes": video(tmp_path / "a.m4a").read_bytes(), "path": "a.m4a"},
        {"bytes": b"none", "path": "b"},
    ]
    path = tmp_path / "one.parquet"
    pyarrow.parquet.write_table(pa.table({"id": ["a", "b"], "audio": sounds}), path)
    (clip,), (bad,) = parted(huggingface.read(path, tmp_path / "out"))
    assert (clip.id, Path(clip.audio).name, clip.flags) == ("train-a", "train-a.m4a", ("no-text",))
    assert clip.duration == pytest.approx(SECONDS, abs=0.15)
    assert "the sound of train-b: not audio" in bad.error
    assert [file.name for file in (tmp_path / "out" / "audio").iterdir()] == ["train-a.m4a"]
