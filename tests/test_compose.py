"""Composed clips: words where they are heard, voices of one split, sentences used equally often, the same bytes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tgsr import cli
from tgsr.audio import SAMPLE_RATE, save_flac
from tgsr.data.compose import Composition, Sentence, chosen, composed, cut, plan, read_held_out
from tgsr.errors import AudioError, BuildError
from tgsr.records import Clip, read_clips, write_jsonl
from tgsr.timeline import Hole, Word

NAMES = ["ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "yew"]


def sentence(
    folder: Path, voice: str, n_words: int, pitch: float, *, pause: float = 0.3, split: str = "train"
) -> Clip:
    """Words that are tones of 0.3 s, a pitch a voice, with a pause of half a second around all of them."""
    starts = [0.5 + i * (0.3 + pause) for i in range(n_words)]
    seconds = starts[-1] + 0.8
    samples = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    tone = 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(0.3 * SAMPLE_RATE)) / SAMPLE_RATE)
    for start in starts:
        first = round(start * SAMPLE_RATE)
        samples[first : first + len(tone)] = tone
    name = f"{voice}-{n_words}-{pause}"
    if not (folder / f"{name}.flac").exists():
        save_flac(folder / f"{name}.flac", samples)
    texts = (f"{NAMES[i % len(NAMES)].capitalize()}," for i in range(n_words))
    words = tuple(Word(text, start, start + 0.3) for text, start in zip(texts, starts, strict=True))
    return Clip(name, f"{name}.flac", seconds, words, split, "Trees", "CC0", voice)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sentences")


@pytest.fixture(scope="module")
def clips(folder: Path) -> list[Clip]:
    return [
        sentence(folder, voice, n, pitch)
        for voice, pitch in (("Ann", 300.0), ("Bo", 500.0), ("Cy", 700.0))
        for n in (3, 5, 30)
    ]


def sentences(clips: list[Clip], folder: Path) -> list[Sentence]:
    return chosen(clips, folder, "train")[0]


def test_every_word_is_where_it_is_heard_in_a_room_and_noise_too(clips: list[Clip], folder: Path) -> None:
    for row in plan(sentences(clips, folder), 12, Composition(seed=3)):
        samples, clip = composed(row, folder)
        assert len(samples) == round(clip.duration * SAMPLE_RATE)
        assert 4.0 <= clip.duration <= 28.0
        power = np.convolve(samples.astype(np.float64) ** 2, np.ones(160) / 160, "same")
        for word in clip.words:
            first, stop = (round(time * SAMPLE_RATE) for time in (word.start, word.end))
            middle = power[first + 400 : stop - 400].mean()
            before = power[first - 480 : first - 160].mean()
            assert middle > 10 * before, word  # the tone begins where the word does


def test_words_are_plain_and_said_by_their_voice_and_turns_are_taken(clips: list[Clip], folder: Path) -> None:
    rows = list(plan(sentences(clips, folder), 40, Composition(seed=1)))
    n_voices = Counter(len({said["voice"] for said in row["sentences"]}) for row in rows)  # type: ignore[attr-defined]
    assert set(n_voices) == {1, 2}
    assert 10 <= n_voices[2] <= 30
    composed_clips = [composed(row, folder)[1] for row in rows[:8]]
    assert {word.text for clip in composed_clips for word in clip.words} <= set(NAMES)
    assert {word.speaker for clip in composed_clips for word in clip.words} == {"Ann", "Bo", "Cy"}
    assert all(clip.source == "Trees" and clip.licence == "CC0" for clip in composed_clips)


def test_sentences_are_used_about_equally_often(clips: list[Clip], folder: Path) -> None:
    used: Counter[str] = Counter()
    lengths = {s.clip_id: s.seconds for s in sentences(clips, folder)}
    for row in plan(sentences(clips, folder), 200, Composition(seed=0)):
        for said in row["sentences"]:  # type: ignore[attr-defined]
            used[said["clip_id"]] += said["end"] - said["start"]
    times = [used[name] / lengths[name] for name in lengths]
    assert max(times) < 1.15 * min(times)


def test_pauses_between_sentences_are_short_or_longer_than_a_second(clips: list[Clip], folder: Path) -> None:
    pauses = []
    for row in plan(sentences(clips, folder), 20, Composition(seed=2)):
        told = row["sentences"]
        at, last = 0.0, None
        for said in told:  # type: ignore[attr-defined]
            shift = at + said["gap"] - said["start"]
            pauses += [] if last is None else [said["words"][0]["start"] + shift - last]
            last, at = said["words"][-1]["end"] + shift, said["end"] + shift
    assert all(0.1 - 1e-9 <= pause <= 0.8 + 1e-9 or 1.1 - 1e-9 <= pause <= 2.0 + 1e-9 for pause in pauses)
    assert 0 < sum(pause > 1 for pause in pauses) < len(pauses) / 4


def test_the_same_seed_gives_the_same_sound_and_more_clips_begin_the_same(
    clips: list[Clip], folder: Path
) -> None:
    few = list(plan(sentences(clips, folder), 3, Composition(seed=5)))
    many = list(plan(sentences(clips, folder), 6, Composition(seed=5)))
    assert many[:3] == few
    assert list(plan(sentences(clips, folder), 3, Composition(seed=6))) != few
    once, again = (composed(few[0], folder) for _ in range(2))
    assert (once[0] == again[0]).all()
    assert once[1] == again[1]


@pytest.mark.parametrize("seed", range(8))
def test_a_cut_goes_through_pauses_only(seed: int, folder: Path) -> None:
    clip = sentence(folder, "Dee", 40, 400.0)
    tight = replace(
        clip, words=tuple(replace(w, end=w.start + 0.55) for w in clip.words[:20]) + clip.words[20:]
    )
    (whole,) = sentences([tight], folder)
    pieces = cut(whole, np.random.default_rng(seed), 20.0)
    assert [word for piece in pieces for word in piece.words] == list(whole.words)
    assert all(a.end <= b.start for a, b in pairwise(pieces))
    assert len(pieces[0].words) >= 20  # no pause of 0.2 s among them
    assert all(2.0 <= piece.seconds <= 8.0 for piece in pieces[1:])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"holes": (Hole(1.0, 1.2),)}, "no word"),
        ({"flags": ("text-differs",)}, "text-differs"),
        ({"flags": ("turns-left-out",)}, "turns-left-out"),
        ({"speaker": None}, "nobody knows"),
        ({"words": ()}, "no words"),
        ({"audio": "gone.flac"}, "gone.flac"),
    ],
)
def test_a_sentence_whose_words_or_voice_are_unknown_is_not_used(
    change: dict[str, object], reason: str, clips: list[Clip], folder: Path
) -> None:
    good, bad = chosen([replace(clips[0], **change), clips[1]], folder, "train")  # type: ignore[arg-type]
    assert [s.clip_id for s in good] == [clips[1].id]
    assert reason in bad[0].error


def test_a_voice_of_one_long_utterance_each_still_takes_turns(folder: Path) -> None:
    """LibriSpeech as it is often shared: two whole utterances do not fit into one clip, parts of them do."""
    long = [sentence(folder, f"long{n}", 26, 300.0 + 50 * n) for n in range(6)]
    rows = list(plan(sentences(long, folder), 60, Composition(seed=0, most=22.0)))
    n_two = sum(len({said["voice"] for said in row["sentences"]}) == 2 for row in rows)  # type: ignore[attr-defined]
    assert 20 <= n_two <= 40


def test_a_word_ends_where_its_recording_does_and_one_after_it_is_none(
    clips: list[Clip], folder: Path
) -> None:
    clip = clips[0]
    last = replace(clip.words[-1], start=clip.duration - 0.2, end=clip.duration + 0.04)
    good, _ = chosen([replace(clip, words=(*clip.words[:-1], last))], folder, "train")
    assert good[0].words[-1].end == good[0].end == clip.duration
    gone = replace(last, start=clip.duration, end=clip.duration + 0.04)
    _, bad = chosen([replace(clip, words=(*clip.words[:-1], gone)), clips[1]], folder, "train")
    assert "no length" in bad[0].error


def test_a_word_without_length_reaches_to_its_neighbours(clips: list[Clip], folder: Path) -> None:
    """The words of `sentence` last 0.3 s and have pauses of 0.3 s: the second one is said from 1.1 to 1.4 s."""
    clip = clips[0]
    first, second, third = clip.words
    for start, expected in ((1.2, (1.15, 1.25)), (0.82, (0.8, 0.87)), (1.69, (1.64, 1.7))):
        short = replace(second, start=start, end=start + 0.0005)
        good, bad = chosen([replace(clip, words=(first, short, third))], folder, "train")
        assert not bad
        word = good[0].words[1]
        assert (word.start, word.end) == pytest.approx(expected)
    touching = (replace(first, end=1.2), replace(second, start=1.2, end=1.2005), replace(third, start=1.2))
    _, bad = chosen([replace(clip, words=touching), clips[1]], folder, "train")
    assert "its neighbours leave it none" in bad[0].error


def test_a_file_that_is_given_twice_is_used_once(clips: list[Clip], folder: Path) -> None:
    good, bad = chosen([*clips, *clips], folder, "train")
    assert (len(good), len(bad)) == (len(clips), len(clips))


def written(clips: list[Clip], folder: Path) -> Path:
    write_jsonl(folder / "sentences.jsonl", clips)
    return folder / "sentences.jsonl"


def content(out: Path) -> dict[str, bytes]:
    names = ("clips.jsonl", "audio/*.flac")
    return {path.name: path.read_bytes() for name in names for path in sorted(out.glob(name))}


def test_the_command_writes_the_same_bytes_whatever_the_folder_and_goes_on(
    clips: list[Clip], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "heldout.txt"
    listed.write_text("Trees Cy\nTrees Dee\n")
    gone = replace(clips[0], id="gone", audio="gone.flac")
    source = str(written([*clips, gone], folder))
    compose = ["compose", source, "--seed", "7", "--held-out", str(listed), "--seconds", "4", "9", "--n"]
    for name, n in (("a", "5"), ("b", "3"), ("b", "5")):
        assert cli.main([*compose, n, "--out", str(tmp_path / name), "--rows-per-shard", "2"]) == 0
    assert content(tmp_path / "a") == content(tmp_path / "b")
    made = read_clips(tmp_path / "a" / "clips.jsonl")
    assert len(made) == 5
    assert {word.speaker for clip in made for word in clip.words} == {"Ann", "Bo"}
    assert all((tmp_path / "a" / clip.audio).exists() for clip in made)
    said = capsys.readouterr().out
    assert "1 of 2 held-out voices" in said
    assert "1 left out" in said
    text = (tmp_path / "a" / "card.md").read_text()
    for told in (
        "Trees | 5",
        "CC0 | 5",
        "| Ann |",
        "gone.flac",
        "No speaker and no recording is in two splits",
    ):
        assert told in text


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--n", "0"], "--n must be 1 or more"),
        (["--n", "1", "--seconds", "9", "4"], "--seconds"),
        (["--n", "1", "--two-speakers", "2"], "--two-speakers"),
        (["--n", "1", "--split", "test"], "no sentence of split 'test'"),
        (["--n", "1", "--seconds", "1", "1"], "no sentence of at most 0.4 s"),
    ],
)
def test_what_cannot_be_composed_is_said_and_nothing_is_written(
    flags: list[str],
    problem: str,
    clips: list[Clip],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = str(written(clips, folder))
    assert cli.main(["compose", source, *flags, "--out", str(tmp_path / "out")]) == 2
    assert problem in capsys.readouterr().err
    assert not list(tmp_path.rglob("clips.jsonl"))


def test_the_sentences_own_file_is_never_written_over(
    clips: list[Clip], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(clips, folder).rename(folder / "clips.jsonl")
    before = source.read_bytes()
    assert cli.main(["compose", str(source), "--n", "1", "--out", str(source.parent)]) == 2
    assert "its clips.jsonl is read, and would be written over" in capsys.readouterr().err
    assert source.read_bytes() == before
    source.unlink()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a b c\n", ":1: must be"),
        (b"# nobody\n\n", "lists no voice"),
        ("trees ann\n".encode("utf-16"), ":1: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("bo\r\ntrees jos\u00e9\r\n".encode("latin-1"), ":2: byte 0xe9 is not UTF-8"),
    ],
)
def test_a_list_of_voices_that_is_none_is_named(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "heldout.txt").write_bytes(content)
    with pytest.raises(BuildError, match=problem):
        read_held_out(tmp_path / "heldout.txt")


def test_held_out_voices_are_for_testing_and_all_others_for_training(
    clips: list[Clip], folder: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "heldout.txt"
    listed.write_bytes(b"\xef\xbb\xbf# voices\r\ntrees ann  # his\r\nother-corpus Bo\r\n\r\n")
    held_out = read_held_out(listed)
    test, _ = chosen(clips, folder, "test", held_out)
    train, _ = chosen(clips, folder, "train", held_out)
    assert {s.voice for s in test} == {"Ann"}
    assert {s.voice for s in train} == {"Bo", "Cy"}
    with pytest.raises(BuildError, match="never composed together"):
        list(plan([*test, *train], 2, Composition()))
    with pytest.raises(
        BuildError, match=r"no sentence of split 'dev': there are .* of split .*; --split says"
    ):
        chosen(clips, folder, "dev", held_out)


def test_a_speaker_may_be_listed_with_the_name_of_the_corpus(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "heldout.txt"
    listed.write_text("librispeech libri-103\n")
    held_out = read_held_out(listed)
    assert held_out.split_of("LibriSpeech train-clean-100", "103", "train") == "test"
    assert held_out.split_of("LibriSpeech via others", "libri-103", "train") == "test"
    assert held_out.split_of("LibriSpeech train-clean-100", "1033", "train") == "train"
    assert held_out.split_of("Amazon Queen", "103", "train") == "train"
    assert held_out.split_of(None, "libri-103", "train") == "test"  # it might be
    assert held_out.split_of("LibriSpeech", "librispeech-103", "train") == "test"  # the corpus' whole name
    listed.write_text("LJSpeech LJSpeech\n")  # a corpus of one voice
    assert read_held_out(listed).split_of("LJSpeech", "LJSpeech", "train") == "test"
    assert read_held_out(listed).split_of("LJSpeech", "LJS", "train") == "train"


@pytest.mark.parametrize("published", ["test", "test-clean", "dev", "validation", "eval", "heldout-speaker"])
def test_what_a_publisher_has_for_testing_never_becomes_training(published: str, tmp_path: Path) -> None:
    listed = tmp_path / "heldout.txt"
    listed.write_text("librispeech 103\n")
    assert read_held_out(listed).split_of("LibriSpeech", "84", published) == "test"


def test_words_of_which_nothing_can_be_heard_are_not_composed(folder: Path) -> None:
    clip = sentence(folder, "Eve", 3, 300.0)
    save_flac(folder / "silent.flac", np.zeros(round(clip.duration * SAMPLE_RATE), np.float32))
    (row,) = plan(sentences([replace(clip, audio="silent.flac")], folder), 1, Composition())
    with pytest.raises(AudioError, match=r"silent\.flac: silence where its words are said"):
        composed(row, folder)
