"""From a folder of sound to training sets by the commands, on real recorded digits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tgsr import audio, cli
from tgsr.audio import SAMPLE_RATE, save_wav
from tgsr.data.corpora.spoken_digits import compose
from tgsr.data.corpora.which import corpus_of
from tgsr.data.questions.phrases import plain_word
from tgsr.data.transcribe.clips import Transcription, sound_at, transcribe_rows
from tgsr.data.transcribe.whisper import FasterWhisper
from tgsr.data.transcribe.whisper_timestamped import WhisperTimestamped
from tgsr.data.transcribe.whisper_transformers import TransformersWhisper
from tgsr.errors import ModelError
from tgsr.models.packaged_weights import cache_folder
from tgsr.records import NO_SPEECH, TOO_LONG, UNHEARD, read_clips, read_questions, write_jsonl
from tgsr.timeline import Hole

NUMBERS = dict(enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]))


def require_whisper() -> None:
    if not (cache_folder() / "whisper-base").exists():
        pytest.skip("Whisper base is not there: `make fetch` downloads it, once")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings, silence, a file that is none, and words that exist already."""
    made = tmp_path_factory.mktemp("sounds")
    for seed in range(3):
        save_wav(made / f"digits{seed}.wav", compose(seed, "train", seconds=(5.0, 8.0)).samples)
    save_wav(made / "silence.wav", np.zeros(3 * SAMPLE_RATE, np.float32))
    (made / "broken.wav").write_text("not sound")
    return made


def test_a_folder_of_sound_gets_words_flags_and_an_errors_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_whisper()
    out = tmp_path / "clips.jsonl"
    assert cli.main(["transcribe", str(folder), "--language", "en", "--out", str(out)]) == 0
    clips = {clip.id: clip for clip in read_clips(out)}
    assert set(clips) == {"digits0.wav", "digits1.wav", "digits2.wav", "silence.wav"}
    assert clips["silence.wav"].flags == (NO_SPEECH,)
    assert clips["silence.wav"].words == ()
    for seed in range(3):
        heard, known = clips[f"digits{seed}.wav"], compose(seed, "train", seconds=(5.0, 8.0)).clip
        assert heard.duration == pytest.approx(known.duration, abs=0.01)
        assert abs(len(heard.words) - len(known.words)) <= 2
        assert {word.source for word in heard.words} <= {"forced-alignment", "whisper"}
        assert all(word.confidence is not None for word in heard.words)
    errors = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines()]
    assert len(errors) == 1
    assert "broken.wav" in errors[0]["file"]
    written = capsys.readouterr().out
    assert "4 clips of 5 (folder), " in written
    assert "1 no-speech" in written
    assert "; 1 left out, see " in written
    assert cli.main(["build", "sta", "--clips", str(out), "--out", str(tmp_path / "sta")]) == 0
    assert read_questions(tmp_path / "sta" / "questions.jsonl")


def test_a_sound_that_fails_while_it_is_heard_is_named_without_the_way_to_it(tmp_path: Path) -> None:
    """With --to what is heard is kept in the cache, from where a recording is a long way up and down."""
    (tmp_path / "disk" / "cache").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "cache")
    sound = tmp_path / "talks" / "a.flac"
    sound.parent.mkdir()
    soundfile.write(sound, np.random.default_rng(0).uniform(-0.9, 0.9, 160_000), 16_000)
    content = bytearray(sound.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(n * 7 % 256 for n in range(3000))
    sound.write_bytes(content)
    clip = {"id": "a", "audio": "../../talks/a.flac", "duration": 10.0, "words": []}
    made = transcribe_rows(Transcription(root=str(tmp_path / "link")), [clip])
    assert [bad.file for bad in made.bad] == [str(sound)]
    assert made.bad[0].error.startswith(f"{sound}: decoding fails after ")
    assert sound_at(str(tmp_path / "link"), "x/../b.wav") == tmp_path / "disk/cache/x/../b.wav"
    assert sound_at("/root", "/other/b.wav") == Path("/other/b.wav")


def test_too_many_bad_files_fail_the_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_whisper()
    few, out = tmp_path / "few", tmp_path / "clips.jsonl"
    few.mkdir()
    for name in ("silence.wav", "broken.wav"):
        shutil.copy(folder / name, few)
    command = ["transcribe", str(few), "--align", "none", "--language", "en", "--out", str(out)]
    assert cli.main([*command, "--most-bad", "0.1"]) == 2
    assert "1 of 2 rows were left out, more than 10%" in capsys.readouterr().err


def test_existing_words_are_mended_and_nobody_listens(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "given").mkdir()
    rows = [("four", 0.5, 1.0), ("not", None, None), ("one", 1.0, 9.0)]
    words = [{"word": text, "start": start, "end": end} for text, start, end in rows]
    (tmp_path / "given" / "digits0.json").write_text(json.dumps({"segments": [{"words": words}]}))
    (tmp_path / "given" / "unused.srt").write_text("1\n00:00:00,500 --> 00:00:02,000\nfour one\n")
    out = tmp_path / "out" / "clips.jsonl"
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(folder / "digits0.wav", only)
    command = ["transcribe", str(only), "--alignments", str(tmp_path / "given"), "--out", str(out)]
    assert cli.main([*command, "--model", "no such model"]) == 0
    (clip,) = read_clips(out)
    assert [word.text for word in clip.words] == ["four", "one"]
    assert {word.source for word in clip.words} == {"whisperx"}
    assert clip.holes == (Hole(1.0, 1.0, "not"),)
    assert clip.flags == ("words-cut", "words-missing")
    assert (
        "1 words have no time or no length and leave holes; the first: 'not', segment 1, word 2"
        in caplog.text
    )
    assert "1 alignments are not used" in caplog.text


def test_a_publishers_text_is_aligned_and_nobody_listens(tmp_path: Path) -> None:
    made = compose(5, "train", seconds=(4.0, 6.0))
    save_wav(tmp_path / "a.wav", made.samples)
    (tmp_path / "a.txt").write_text(" ".join(word.text for word in made.clip.words))
    out = tmp_path / "out" / "clips.jsonl"
    command = ["transcribe", str(tmp_path), "--language", "en", "--model", "no such model", "--out", str(out)]
    assert cli.main(command) == 0
    (clip,) = read_clips(out)
    assert [word.text for word in clip.words] == [word.text for word in made.clip.words]
    off = [abs(a.start - b.start) for a, b in zip(clip.words, made.clip.words, strict=True)]
    assert np.median(off) < 0.08


def test_a_publishers_text_that_lacks_what_is_said_is_flagged_with_its_seconds(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "data" / "speech" / "103-1240-0000.flac", tmp_path / "a.flac")
    (tmp_path / "a.txt").write_text("chapter one missus rachel lynde is surprised")
    out = tmp_path / "out" / "clips.jsonl"
    command = ["transcribe", str(tmp_path), "--language", "en", "--model", "no such model", "--out", str(out)]
    assert cli.main(command) == 0
    (clip,) = read_clips(out)
    assert UNHEARD in clip.flags
    (hole,) = clip.holes
    assert (hole.start, hole.end) == pytest.approx((3.5, 14.1), abs=0.5)


def test_a_text_in_another_language_is_not_aligned_as_if_it_were_english(tmp_path: Path) -> None:
    made = compose(5, "train", seconds=(4.0, 6.0))
    save_wav(tmp_path / "a.wav", made.samples)
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.wav", "text": "un deux trois", "language": "fr"}\n'
    )
    out = tmp_path / "out" / "clips.jsonl"
    assert cli.main(["transcribe", str(tmp_path), "--model", "no such model", "--out", str(out)]) == 0
    (clip,) = read_clips(out)
    assert (clip.words, clip.flags, clip.text) == ((), ("not-english",), "un deux trois")


def test_a_text_whose_language_nobody_knows_is_aligned_where_whisper_agrees(tmp_path: Path) -> None:
    require_whisper()
    made = compose(5, "train", seconds=(4.0, 6.0))
    words = [NUMBERS.get(word.text, word.text) for word in made.clip.words]
    for name, text in (
        ("right", " ".join(map(str, words))),
        ("wrong", "the weather is nice and we go out to swim"),
    ):
        save_wav(tmp_path / f"{name}.wav", made.samples)
        (tmp_path / f"{name}.txt").write_text(text)
    out = tmp_path / "out" / "clips.jsonl"
    assert cli.main(["transcribe", str(tmp_path), "--out", str(out)]) == 0
    clips = {clip.id: clip for clip in read_clips(out)}
    assert "text-differs" in clips["wrong.wav"].flags
    assert "weather" not in {word.text for word in clips["wrong.wav"].words}


def test_a_clip_beyond_the_bound_is_flagged_and_not_heard(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "clips.jsonl"
    command = ["transcribe", str(folder), "--max-seconds", "1", "--model", "no such model", "--out", str(out)]
    assert cli.main(command) == 0
    assert {clip.flags for clip in read_clips(out)} == {(TOO_LONG,)}


# --- build -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of exact digits by several voices, one of them twice, one flagged."""
    made = tmp_path_factory.mktemp("clips")
    (made / "audio").mkdir()
    rows = []
    for seed in range(12):
        found = compose(seed, "train", seconds=(5.0, 9.0))
        soundfile.write(made / found.clip.audio, found.samples, SAMPLE_RATE)
        rows.append(found.clip)
    rows.append(replace(rows[0], id="again"))
    rows.append(replace(rows[1], id="flagged", flags=("not-english",), words=rows[1].words[:4]))
    write_jsonl(made / "clips.jsonl", rows)
    return made / "clips.jsonl"


@pytest.mark.parametrize("stage", ["sta", "qa"])
def test_clips_become_a_set_with_its_card(clips: Path, tmp_path: Path, stage: str) -> None:
    out = tmp_path / stage
    command = [
        "build",
        stage,
        "--clips",
        str(clips),
        "--out",
        str(out),
        "--split-by",
        "clip",
        "--test-share",
        "0.3",
    ]
    assert cli.main([*command, "--workers", "2", "--rows-per-shard", "5"]) == 0
    questions = read_questions(out / "questions.jsonl")
    assert {question.split for question in questions} == {"train", "test"}
    assert all((out / question.audio).exists() for question in questions)
    assert {question.kind for question in questions} == {"phrase" if stage == "sta" else "choice"}
    reasons = [json.loads(line)["error"] for line in (out / "errors.jsonl").read_text().splitlines()]
    assert any("the same words at the same times" in reason for reason in reasons)
    assert "flagged not-english" in reasons
    card = (out / "card.md").read_text()
    assert f"{len(questions):,} questions" in card
    assert "leaks between splits" in card  # divided by clip, a voice is on both sides
    counts = json.loads((out / "statistics.json").read_text())
    assert sum(counts["splits"].values()) == len(questions)
    assert (out / "statistics.png").stat().st_size > 1000


def test_phrases_do_not_depend_on_shards_or_workers(clips: Path, tmp_path: Path) -> None:
    texts = []
    for name, more in (
        ("a", ["--rows-per-shard", "3", "--workers", "2"]),
        ("b", ["--rows-per-shard", "100"]),
    ):
        assert cli.main(["build", "sta", "--clips", str(clips), "--out", str(tmp_path / name), *more]) == 0
        texts.append((tmp_path / name / "questions.jsonl").read_text())
    assert texts[0] == texts[1]


def test_times_past_the_end_are_cut_and_bytes_that_are_no_text_cost_their_row(
    clips: Path, tmp_path: Path
) -> None:
    row = json.loads(clips.read_text().splitlines()[0])
    row["words"][-1]["end"] = row["duration"] + 3
    row["words"].append({"word": "late", "start": row["duration"] + 1, "end": row["duration"] + 2})
    (tmp_path / "audio").symlink_to(clips.parent / "audio")
    (tmp_path / "clips.jsonl").write_bytes(json.dumps(row).encode() + b'\n{"id": "caf\xe9"}\n')
    out = tmp_path / "again.jsonl"
    assert cli.main(["transcribe", str(tmp_path / "clips.jsonl"), "--out", str(out)]) == 0
    (clip,) = read_clips(out)
    assert clip.flags == ("words-cut", "words-past-end")
    assert clip.words[-1].text != "late"
    assert clip.words[-1].end <= clip.duration
    (error,) = (json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines())
    assert (error["line"], "UTF-8" in error["error"]) == (2, True)


def test_a_flagged_clip_is_asked_about_its_labels_alone_and_a_mixed_up_one_nothing(
    clips: Path, tmp_path: Path
) -> None:
    whole = replace(read_clips(clips)[0], labels=(("emotion", "joy"),))
    rows = [
        replace(whole, id="a", flags=("not-english",)),
        replace(whole, id="b", flags=("text-differs",), words=whole.words[1:]),
    ]
    (tmp_path / "audio").symlink_to(clips.parent / "audio")
    write_jsonl(tmp_path / "clips.jsonl", rows)
    assert (
        cli.main(["build", "qa", "--clips", str(tmp_path / "clips.jsonl"), "--out", str(tmp_path / "q")]) == 0
    )
    assert [(q.clip_id, q.task) for q in read_questions(tmp_path / "q" / "questions.jsonl")] == [
        ("a", "emotion")
    ]


def test_several_files_become_one_set_whose_ids_are_its_own(clips: Path, tmp_path: Path) -> None:
    rows = read_clips(clips)[2:5]
    other = tmp_path / "other"
    other.mkdir()
    (other / "audio").symlink_to(clips.parent / "audio")
    write_jsonl(other / "clips.jsonl", [replace(rows[0], id="new", words=rows[0].words[1:]), rows[1]])
    files = [str(clips), str(other / "clips.jsonl")]
    assert cli.main(["build", "sta", "--clips", *files, "--out", str(tmp_path / "set")]) == 0
    questions = read_questions(tmp_path / "set" / "questions.jsonl")
    assert len({question.id for question in questions}) == len(questions)
    assert "new" in {question.clip_id for question in questions}
    reasons = [
        json.loads(line)["error"] for line in (tmp_path / "set" / "errors.jsonl").read_text().splitlines()
    ]
    assert "the id of another clip of this set" in reasons


def test_clips_that_lie_in_the_folder_of_the_questions_stay_as_they_are(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "set" / "clips.jsonl"
    (tmp_path / "set" / "audio").mkdir(parents=True)
    own.write_bytes(clips.read_bytes() + b"\nno JSON\n")
    before = own.read_bytes()
    command = ["build", "sta", "--out", str(own.parent), "--clips"]
    assert cli.main([*command, str(own), str(clips)]) == 2
    assert "set: holds clips.jsonl already; choose another --out" in capsys.readouterr().err
    assert cli.main([*command, str(own.parent / "audio" / ".." / "clips.jsonl")]) == 0
    assert own.read_bytes() == before
    assert read_questions(own.parent / "questions.jsonl")


def test_a_cluster_makes_the_same(clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="a cluster's runner: pip install -e '.[ray]'")
    texts = []
    for runner in ("here", "ray"):
        command = [
            "build",
            "sta",
            "--clips",
            str(clips),
            "--out",
            str(tmp_path / runner),
            "--rows-per-shard",
            "5",
        ]
        assert cli.main([*command, "--runner", runner, "--workers", "2"]) == 0
        texts.append((tmp_path / runner / "questions.jsonl").read_text())
    assert texts[0] == texts[1]


def test_clips_without_words_make_no_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tgsr.records import Clip

    write_jsonl(tmp_path / "clips.jsonl", [Clip("a", "a.wav", 2.0)])
    assert (
        cli.main(["build", "sta", "--clips", str(tmp_path / "clips.jsonl"), "--out", str(tmp_path / "x")])
        == 2
    )
    assert "no question could be made of 1 clips" in capsys.readouterr().err


def test_a_broken_line_costs_itself_alone(clips: Path, tmp_path: Path) -> None:
    content = clips.read_text().splitlines()
    broken = tmp_path / "clips.jsonl"
    broken.write_text("\n".join(["{", '{"id": 1}', *content]) + "\n")
    shutil.copytree(clips.parent / "audio", tmp_path / "audio")
    assert cli.main(["build", "sta", "--clips", str(broken), "--out", str(tmp_path / "x")]) == 0
    errors = [json.loads(line) for line in (tmp_path / "x" / "errors.jsonl").read_text().splitlines()]
    assert [row["line"] for row in errors if row["file"] == str(broken)] == [1, 2]


# --- which corpus ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "corpus"),
    [
        (["train_sent_emo.csv"], "meld"),
        (["covost_v2.fr_en.train.tsv"], "covost"),
        (["dev-clean/84/121123/84-121123.trans.txt"], "librispeech"),
        (["recordings.jsonl.gz", "supervisions.jsonl.gz"], "lhotse"),
        (["data/train-0.parquet"], "huggingface"),
        (["a.rttm", "a.wav"], "multispeaker"),
        (["000000.tar", "000001.tar"], "webdataset"),
        (["a.wav"], "folder"),
    ],
)
def test_a_folder_says_which_corpus_it_is(files: list[str], corpus: str, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert corpus_of(tmp_path) == corpus


def test_what_is_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["transcribe", str(tmp_path / "no"), "--out", str(tmp_path / "x.jsonl")]) == 2
    assert "no: " in capsys.readouterr().err


# --- other back ends -------------------------------------------------------------------------------------------


def test_transformers_whisper_hears_what_faster_whisper_hears(folder: Path) -> None:
    """The same weights, converted; in float32 instead of int8, and by other code for the words' times."""
    require_whisper()
    samples = audio.load(folder / "digits2.wav")
    fast, slow = FasterWhisper(language="en")(samples), TransformersWhisper(language="en")(samples)
    a, b = ([plain_word(word.text) for word in heard.words] for heard in (fast, slow))
    assert len(set(a) & set(b)) >= 0.6 * len(set(a))
    assert {word.source for word in slow.words} == {"whisper-transformers"}
    assert all(0 <= word.start < word.end <= slow.duration for word in slow.words)
    assert all(word.confidence is not None and 0 < word.confidence <= 1 for word in slow.words)
    assert TransformersWhisper()(np.zeros(SAMPLE_RATE, np.float32)).flags == (NO_SPEECH,)
    with pytest.raises(ModelError, match="cannot be loaded as a Whisper model"):
        TransformersWhisper(str(folder), "en")(samples)


def test_whisper_timestamped_that_is_not_there_is_named(folder: Path) -> None:
    require_whisper()
    with pytest.raises(ModelError, match=r"whisper-timestamped failed: .*install it in an environment"):
        WhisperTimestamped()(audio.load(folder / "digits0.wav"))


def test_a_word_to_which_whisper_timestamped_gives_no_time_leaves_a_hole(
    folder: Path, tmp_path: Path
) -> None:
    rows = [("did", 0.5, 0.9), ("not", 0.9, 0.9), ("[*]", 0.9, 1.0), ("say", 1.0, 1.4)]
    words = [{"text": text, "start": start, "end": end} for text, start, end in rows]
    (tmp_path / "words.json").write_text(json.dumps({"segments": [{"words": words}], "language": "en"}))
    python = tmp_path / "python"  # as a process of its own, it may be any program
    python.write_text(f'''#!/bin/sh
while [ "$1" != --output_dir ]; do shift; done
cp "{tmp_path}/words.json" "$2/clip.wav.words.json"
''')
    python.chmod(0o755)
    transcript = WhisperTimestamped(str(python), "base")(audio.load(folder / "digits0.wav"))
    assert [word.text for word in transcript.words] == ["did", "say"]
    assert transcript.holes[:2] == (Hole(0.9, 0.9, "not"), Hole(0.9, 1.0))
