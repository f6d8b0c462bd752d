from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tgsr.audio import SAMPLE_RATE
from tgsr.data.corpora.spoken_digits import (
    DIGITS,
    HELD_OUT_SPEAKER,
    HELD_OUT_TAKES,
    LONG_PAUSE,
    SPLITS,
    VOICE_RATES,
    DigitClip,
    compose,
    pack,
    pauses,
    recordings,
    speakers_in_order,
    trim,
)
from tgsr.timeline import Span, Word

N_CLIPS = 60
PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "fsdd" / "recordings"


def clips(split: str = "train", n: int = N_CLIPS) -> Iterator[DigitClip]:
    return (compose(seed, split) for seed in range(n))


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two stretches of samples; 1 where they differ in level only."""
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def at(made: DigitClip, start: float, end: float) -> np.ndarray:
    return made.samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]


@pytest.mark.parametrize("split", SPLITS)
def test_each_word_is_one_recording_of_its_speaker_to_the_sample(split: str) -> None:
    pool = recordings(split)
    for made in clips(split, 6):
        for word in made.clip.words:
            takes = pool[str(word.speaker), DIGITS.index(word.text)]
            heard = at(made, word.start, word.end)
            fitting = [take.samples for take in takes if len(take.samples) == len(heard)]
            scores = [similarity(heard, samples) for samples in fitting]
            assert max(scores) > 0.95  # noise is at least 12 dB below the quietest word
            said = fitting[int(np.argmax(scores))]
            first = round(word.start * SAMPLE_RATE)
            for shift in (-8, -1, 1, 8):
                shifted = made.samples[max(0, first + shift) : first + shift + len(said)]
                assert similarity(shifted[: len(said)], said[: len(shifted)]) < max(scores)


def test_between_the_words_there_is_only_the_clips_noise() -> None:
    for made in clips(n=20):
        words = made.clip.words
        edges = [0.0, *(t for w in words for t in (w.start, w.end)), made.clip.duration]
        gaps = [at(made, start, end) for start, end in zip(edges[::2], edges[1::2], strict=True)]
        noise = rms(np.concatenate(gaps))
        assert all(0.8 * noise < rms(gap) < 1.25 * noise for gap in gaps if len(gap) > 800)
        assert all(np.abs(gap).max() < 6 * noise for gap in gaps if len(gap))
        assert all(rms(at(made, w.start, w.end)) > 3 * noise for w in words)


def test_no_recording_is_in_two_splits_nor_twice_in_the_set() -> None:
    owner: dict[str, str] = {}
    n_recordings = 0
    for split in SPLITS:
        for takes in recordings(split).values():
            for take in takes:
                n_recordings += 1
                digest = hashlib.sha256(take.samples.tobytes()).hexdigest()
                assert owner.setdefault(digest, split) == split
    assert n_recordings == 3000
    assert len(owner) == 3000


def test_the_splits_hold_what_they_are_named_after() -> None:
    found = {split: recordings(split) for split in SPLITS}
    assert {split: sum(map(len, found[split].values())) for split in SPLITS} == {
        "train": 5 * 10 * 45,
        "heldout-recordings": 5 * 10 * 5,
        "heldout-speaker": 500,
    }
    assert {speaker for speaker, _ in found["heldout-speaker"]} == {HELD_OUT_SPEAKER}
    for split in ("train", "heldout-recordings"):
        assert HELD_OUT_SPEAKER not in {speaker for speaker, _ in found[split]}
        takes = {take.take for value in found[split].values() for take in value}
        assert takes.isdisjoint(HELD_OUT_TAKES) == (split == "train")


def test_the_held_out_speaker_is_heard_in_his_split_only() -> None:
    for split in SPLITS:
        heard = {w.speaker for made in clips(split, 30) for w in made.clip.words}
        assert (HELD_OUT_SPEAKER in heard) == (split == "heldout-speaker")
        assert len(heard) == (1 if split == "heldout-speaker" else 5)


def test_an_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"train, heldout-recordings, heldout-speaker, got 'test'"):
        recordings("test")


def test_a_seed_gives_the_same_clip_and_no_other_seed_or_split_does() -> None:
    first, again = compose(7, "train"), compose(7, "train")
    assert first.clip == again.clip
    assert np.array_equal(first.samples, again.samples)
    others = [compose(8, "train"), compose(7, "heldout-recordings")]
    assert all(other.clip.words != first.clip.words for other in others)


def test_clips_last_two_to_ten_seconds_and_say_so_exactly() -> None:
    lengths = []
    for split in SPLITS:
        for made in clips(split, 40):
            assert made.clip.duration == len(made.samples) / SAMPLE_RATE
            assert 2.0 <= made.clip.duration <= 10.0
            assert made.clip.split == split
            lengths.append(made.clip.duration)
    assert min(lengths) < 3.5
    assert max(lengths) > 9.0


def test_every_clip_has_words_in_order_that_do_not_overlap() -> None:
    for made in clips():
        words = made.clip.words
        assert len(words) >= 2
        assert all(word.source == "exact" and word.text in DIGITS for word in words)
        assert all(a.end + 0.05 <= b.start + 1e-4 for a, b in pairwise(words))
        assert words[-1].end <= made.clip.duration


def test_no_pause_is_near_the_limit_that_questions_ask_about() -> None:
    gaps = [b.start - a.end for made in clips() for a, b in pairwise(made.clip.words)]
    assert not [gap for gap in gaps if 0.61 < gap < 1.09]
    long = [gap for gap in gaps if gap > LONG_PAUSE]
    assert 0 < len(long) < len(gaps) / 5
    assert max(gaps) < 1.61


def test_so_many_clips_have_long_pauses_and_second_speakers_as_is_said() -> None:
    """By default 29 % and 45 %, not half; of 400, three standard errors are 7 %."""
    made = [made.clip.words for made in clips(n=400)]
    assert sum(bool(pauses(words)) for words in made) / 400 == pytest.approx(0.29, abs=0.07)
    assert sum(len(speakers_in_order(words)) == 2 for words in made) / 400 == pytest.approx(0.45, abs=0.075)


def test_speakers_are_one_or_two_as_asked_and_take_turns() -> None:
    def n_speakers(two_speakers: float) -> list[int]:
        made = [compose(seed, "train", seconds=(8, 10), two_speakers=two_speakers) for seed in range(25)]
        return [len(speakers_in_order(m.clip.words)) for m in made]

    assert set(n_speakers(0.0)) == {1}
    assert set(n_speakers(1.0)) == {2}
    assert set(n_speakers(0.5)) == {1, 2}


def test_samples_are_16_bit_so_that_a_file_gives_the_same_clip() -> None:
    for made in clips(n=5):
        assert made.samples.dtype == np.float32
        assert np.abs(made.samples).max() <= 1.0
        stream = io.BytesIO()
        soundfile.write(stream, made.samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        stream.seek(0)
        assert np.array_equal(soundfile.read(stream, dtype="float32")[0], made.samples)


def test_levels_differ_so_that_loudness_tells_nothing() -> None:
    levels = [20 * np.log10(rms(made.samples)) for made in clips(n=40)]
    assert max(levels) - min(levels) > 8


def test_trimming_keeps_a_planted_tone_and_ten_milliseconds_around_it() -> None:
    rate = 8000
    tone = np.sin(2 * np.pi * 440 * np.arange(1600) / rate)  # 0.2 s
    quiet = 1e-3 * np.ones(2400)  # 0.3 s, 57 dB below the tone
    kept = trim(np.concatenate([quiet, tone, quiet]).astype(np.float32), rate)
    assert len(kept) == 1600 + 2 * 80
    assert np.allclose(kept[80:-80], tone, atol=1e-6)


def test_trimming_keeps_what_is_quiet_but_speech() -> None:
    rate = 8000
    tone = np.sin(2 * np.pi * 440 * np.arange(1600) / rate)
    kept = trim(np.concatenate([0.05 * tone, tone]).astype(np.float32), rate)  # 26 dB below
    assert len(kept) == 3200


@pytest.mark.parametrize("n_samples", [0, 1, 79])
def test_less_than_a_frame_is_left_as_it_is(n_samples: int) -> None:
    assert len(trim(np.ones(n_samples, np.float32), 8000)) == n_samples


def test_silence_is_not_trimmed_to_nothing() -> None:
    assert len(trim(np.zeros(800, np.float32), 8000)) == 800


def test_a_pause_is_what_lasts_more_than_a_second_between_words() -> None:
    words = (Word("one", 1.5, 2.0), Word("two", 3.0, 3.5), Word("three", 4.75, 5.0))
    assert pauses(words) == [Span(3.5, 4.75)]  # not the 1.0 s before, nor the silence before the first word
    assert pauses(words[:1]) == []
    assert pauses(()) == []


def test_speakers_are_named_in_order_of_their_first_word() -> None:
    words = tuple(Word("one", i, i + 0.5, speaker=s) for i, s in enumerate(["bo", "al", "bo", None]))
    assert speakers_in_order(words) == ("bo", "al")
    assert speakers_in_order(()) == ()


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the dataset as published is not beside the repository")
def test_the_shipped_recordings_are_the_published_ones_sample_by_sample() -> None:
    folder = files("tgsr") / "assets" / "fsdd"
    rows = json.loads((folder / "index.json").read_text())["nicolas"]
    with (folder / "nicolas.flac").open("rb") as stream:
        shipped, rate = soundfile.read(stream, dtype="int16")
    assert rate == 8000
    published = [
        soundfile.read(PUBLISHED / f"{digit}_nicolas_{take}.wav", dtype="int16")[0] for digit, take, _ in rows
    ]
    assert [len(samples) for samples in published] == [n for _, _, n in rows]
    assert np.array_equal(np.concatenate(published), shipped)


def test_packing_keeps_every_sample_in_the_order_of_the_index(tmp_path: Path) -> None:
    takes = {"7_ann_0": [1, -2, 3], "0_ann_1": [40, 50], "3_bo_0": [-600]}
    for name, samples in takes.items():
        soundfile.write(tmp_path / f"{name}.wav", np.array(samples, np.int16), 8000)
    pack(tmp_path, tmp_path)
    assert json.loads((tmp_path / "index.json").read_text()) == {
        "ann": [[0, 1, 2], [7, 0, 3]],
        "bo": [[3, 0, 1]],
    }
    assert soundfile.read(tmp_path / "ann.flac", dtype="int16")[0].tolist() == [40, 50, 1, -2, 3]
    assert soundfile.read(tmp_path / "bo.flac", dtype="int16")[0].tolist() == [-600]


def test_packing_refuses_another_rate_by_name(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "1_ann_0.wav", np.zeros(9, np.int16), 16000)
    with pytest.raises(ValueError, match=r"1_ann_0.wav: expected 8 kHz mono, got 16000 Hz"):
        pack(tmp_path, tmp_path)


def test_varied_voices_say_the_same_words_at_other_rates_and_times_stay_exact() -> None:
    rates = set()
    for seed in range(30):
        varied = compose(seed, "train", vary_voices=True)
        for word in varied.clip.words:
            name, _, rate = str(word.speaker).partition(" x")
            assert name in {speaker for speaker, _ in recordings("train")}
            rates.add(float(rate or 1))
            lasts = [
                len(r.samples) / float(rate or 1) for r in recordings("train")[name, DIGITS.index(word.text)]
            ]
            n_samples = (word.end - word.start) * SAMPLE_RATE
            assert min(abs(n_samples - length) for length in lasts) <= 1.5
        again = compose(seed, "train", vary_voices=True)
        assert np.array_equal(varied.samples, again.samples)
    assert rates == set(VOICE_RATES)
