"""Who speaks, by voice: planted voices are told apart, however they come; the packaged model is the published one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tgsr import audio, cli
from tgsr.audio import SAMPLE_RATE, Samples
from tgsr.data.alignments.writing import written
from tgsr.data.corpora.spoken_english import sentences as english
from tgsr.data.questions.by_rule import by_speaker
from tgsr.data.transcribe import speech
from tgsr.data.transcribe.parts import Part
from tgsr.data.transcribe.speakers import named_by_turns, turns_of
from tgsr.data.transcribe.voices import clusters, likeliest, voice_turns, voices_of, window_starts
from tgsr.models.voice_embedding import N_MELS, WINDOW, VoiceEmbedding, mel_powers
from tgsr.records import SPEAKERS_GUESSED, Clip, read_clips
from tgsr.timeline import Event, Seconds, Word


def planted(voices: Sequence[np.ndarray], per_voice: int, spread: float, seed: int = 0) -> np.ndarray:
    """Vectors of length 1 around each voice's, voice after voice."""
    draw = np.random.default_rng(seed)
    all_NW = np.concatenate([voice + draw.normal(0, spread, (per_voice, len(voice))) for voice in voices])
    vectors: np.ndarray = (all_NW / np.linalg.norm(all_NW, axis=1, keepdims=True)).astype(np.float32)
    return vectors


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_as_many_voices_are_found_as_differ_and_as_many_as_are_asked_for(n: int) -> None:
    vectors = planted(list(np.eye(16)[:n] + 0.3), 20, 0.05)
    assert len(voices_of(vectors)) == n
    for asked in (1, 2, 4):
        assert len(voices_of(vectors, asked)) == asked
    assert len(voices_of(vectors[:2], 5)) <= 2


def test_voices_that_are_near_to_each_other_are_one() -> None:
    vectors = planted([np.eye(16)[0], np.eye(16)[0] + 0.02], 20, 0.01)
    assert len(voices_of(vectors)) == 1


def test_points_that_lie_together_are_one_cluster_whatever_their_order() -> None:
    points = np.array([[0.0, 0], [5, 5], [0.1, 0], [5, 5.1], [9, 0], [0, 0.1]])
    of = clusters(points, 3)
    assert of[0] == of[2] == of[5]
    assert of[1] == of[3]
    assert len(set(of.tolist())) == 3
    assert clusters(np.zeros((4, 2)), 2).tolist() == [0, 0, 0, 0]


def test_a_voice_changes_where_it_costs_least() -> None:
    scores = np.array([[1.0, 0], [1, 0.9], [0.5, 0.9], [0, 1], [0.2, 1]])
    assert likeliest(scores, np.full(5, 0.4)).tolist() == [0, 0, 1, 1, 1]
    assert likeliest(scores, np.full(5, 9.0)).tolist() == [1] * 5
    assert likeliest(np.array([[0.0], [1.0]]), np.ones(2)).tolist() == [0, 0]


def test_windows_are_where_somebody_speaks() -> None:
    speech = np.zeros(300, bool)
    assert window_starts(speech) == []
    speech[10:15] = True  # too short to fill half of a window
    assert len(window_starts(speech)) == 1
    speech[100:200] = True
    starts = window_starts(speech)
    assert all(3.2 - WINDOW / 2 - 0.1 <= start <= 6.4 - WINDOW / 2 + 0.1 for start in starts)
    assert len(starts) >= 6


def two_readers() -> Samples:
    """Three turns of 4 s, of one reader, another, and the first again."""
    clips = read_clips(english())[:2]
    sounds = [audio.load(english().parent / clip.audio) for clip in clips]
    turns = [
        sounds[0][: 4 * SAMPLE_RATE],
        sounds[1][: 4 * SAMPLE_RATE],
        sounds[0][4 * SAMPLE_RATE : 8 * SAMPLE_RATE],
    ]
    return np.concatenate(turns)


def of_the_reader(samples: Samples, starts: Sequence[Seconds]) -> np.ndarray:
    """A voice that is known by when it speaks."""
    is_second = [4.0 <= start + WINDOW / 2 < 8.0 for start in starts]
    return np.eye(2, dtype=np.float32)[np.array(is_second, int)]


@pytest.mark.parametrize(("n_voices", "cut"), [(None, 12.0), (2, 4.0)])
def test_turns_follow_the_voices_in_one_part_and_in_several(n_voices: int | None, cut: Seconds) -> None:
    samples, n = two_readers(), round(cut * SAMPLE_RATE)
    sound = [Part(0.0, samples[:n]), Part(cut, samples[n:])][: 1 if cut == 12.0 else 2]
    begins = {len(part.samples): part.start for part in sound}

    def embed(samples: Samples, starts: Sequence[Seconds]) -> np.ndarray:
        return of_the_reader(samples, [start + begins[len(samples)] for start in starts])

    turns = voice_turns(sound, n_voices, embed)
    names = [turn.label for turn in turns]
    assert names[0] == "speaker VOICE1"
    assert set(names) == {"speaker VOICE1", "speaker VOICE2"}
    for turn in turns:
        second = turn.label.endswith("2")
        middle = (turn.start + turn.end) / 2
        assert (4.0 <= middle < 8.0) == second
    assert all(a.end <= b.start for a, b in pairwise(turns))


def test_nobody_in_silence_and_one_who_speaks_alone() -> None:
    assert voice_turns([], None, of_the_reader) == ()
    assert voice_turns([Part(0.0, np.zeros(2 * SAMPLE_RATE, np.float32))], None, of_the_reader) == ()
    samples = two_readers()
    turns = voice_turns([Part(0.0, samples[: 3 * SAMPLE_RATE])], None, of_the_reader)
    assert {turn.label for turn in turns} == {"speaker VOICE1"}


def test_a_voice_does_not_depend_on_its_neighbours_or_on_what_follows(tmp_path: Path) -> None:
    """Random weights in the kept file's layout; a window at the end is filled with silence."""
    torch.manual_seed(0)
    lstm, linear = torch.nn.LSTM(N_MELS, 8, 3, batch_first=True), torch.nn.Linear(8, 8)
    weights = {f"lstm.{k}": v for k, v in lstm.state_dict().items()}
    save_file(
        weights | {f"linear.{k}": v for k, v in linear.state_dict().items()}, tmp_path / "model.safetensors"
    )
    embed = VoiceEmbedding.load(tmp_path)
    samples = two_readers()
    samples = samples[: 5 * SAMPLE_RATE]
    together = embed(samples, [0.0, 1.2, 4.5])
    assert together.shape == (3, 8)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.allclose(embed(samples, [1.2])[0], together[1], atol=1e-6)
    longer = np.concatenate([samples, np.zeros(SAMPLE_RATE * 3, np.float32)])
    assert np.allclose(embed(longer, [4.5])[0], together[2], atol=1e-3)
    assert embed(samples, []).shape == (0, 8)


def test_a_mel_frame_is_the_power_of_a_tone_in_its_band() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    powers = mel_powers(tone)
    assert powers.shape == (101, N_MELS)
    assert powers[50].argmax() == np.argmin(np.abs(_middles() - 1000))


def _middles() -> np.ndarray:
    """Of the bands, in Hz: Slaney's scale is linear up to 1 kHz (200/3 Hz a mel), then 27 mels an octave's e-fold."""
    top = 15 + 27 * np.log(8.0) / np.log(6.4)
    mels = np.linspace(0, top, N_MELS + 2)[1:-1]
    middles: np.ndarray = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    return middles


def test_where_somebody_speaks_is_computed_once_for_hearing_and_for_voices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of quiet sound too, which is made louder first: here it is the samples themselves and what Whisper gets."""
    computed: list[int] = []
    monkeypatch.setattr(
        speech, "_probability", lambda x: (computed.append(len(x)), np.ones(-(-len(x) // 512)))[1]
    )
    for level in (0.5, 0.01):
        samples = np.random.default_rng(7).uniform(-level, level, 16000).astype(np.float32)
        speech.speech_probability(speech.audible(samples))
        voice_turns([Part(0.0, samples)], 1, lambda _, starts: np.ones((len(starts), 1)))
    assert computed == [16000, 16000]
    with pytest.raises(ValueError, match="read-only"):
        speech.speech_probability(samples)[0] = 0.0


def guessed() -> Clip:
    words = (Word("Where", 0.5, 0.8), Word("there", 2.0, 2.4))
    events = (Event("bell", 0.0, 0.1), Event("speaker VOICE1", 0.4, 1.0), Event("speaker VOICE2", 1.9, 2.5))
    return Clip(
        "talk", "talk.wav", 3.0, named_by_turns(words, events), events=events, flags=(SPEAKERS_GUESSED,)
    )


def test_turns_come_back_from_rttm(tmp_path: Path) -> None:
    clip = guessed()
    (tmp_path / "talk.rttm").write_text(written(clip, "rttm"), encoding="utf-8")
    assert turns_of(tmp_path / "talk.rttm", "talk.wav", clip.duration) == clip.events[1:]
    heard = Clip("talk", "my talk.wav", 3.0, clip.words)
    lines = written(heard, "rttm").splitlines()
    assert lines == [
        "SPEAKER my_talk 1 0.500 0.300 <NA> <NA> VOICE1 <NA> <NA>",
        "SPEAKER my_talk 1 2.000 0.400 <NA> <NA> VOICE2 <NA> <NA>",
    ]


def test_no_question_is_asked_about_who_is_only_guessed() -> None:
    assert by_speaker(guessed(), np.random.default_rng(0)) == []


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--speakers", "0"), "--speakers 0: somebody speaks"),
        (("--speakers", "-3"), "--speakers -3: somebody speaks"),
        (("--speakers", "voices", "--channels", "separate"), "both say who speaks"),
        (("--speakers", "nobody.rttm"), "nobody.rttm: no such file"),
        (("--align", "qwen2"), "--align qwen2: is none of pocketsphinx"),
        (("--align", "ctc:"), "--align ctc:: is none of pocketsphinx"),
    ],
)
def test_a_flag_that_says_nothing_is_refused(
    flags: Sequence[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talk.wav").touch()
    joined = [f"{flags[0]}={flags[1]}", *flags[2:]]
    assert cli.main(["transcribe", str(tmp_path / "talk.wav"), "--to", "srt", *joined]) == 2
    assert problem in capsys.readouterr().err
