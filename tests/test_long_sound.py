"""Hours of sound are heard in parts, channels by themselves, and words get their speakers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tgsr import audio
from tgsr.audio import SAMPLE_RATE
from tgsr.data.transcribe.parts import hear_in_parts, parts
from tgsr.data.transcribe.speakers import loudness, named_by_turns, turns_of, without_leaks
from tgsr.data.transcribe.transcript import Backend, Transcript
from tgsr.errors import CorpusError, RecordError
from tgsr.records import NO_SPEECH
from tgsr.timeline import Event, Hole, Word

SPOKEN = Path(__file__).parent / "data" / "speech" / "1363-135842-0000.flac"


@dataclass
class Counting(Backend):
    """A back end that hears one word in each stretch that is not silent, and is killed after so many of them."""

    most: int = 100
    heard: list[int] = field(default_factory=list)
    source: str = "counting"

    def __call__(self, samples: np.ndarray) -> Transcript:
        if len(self.heard) == self.most:
            raise KeyboardInterrupt
        self.heard.append(len(samples))
        seconds = len(samples) / SAMPLE_RATE
        if not samples.any():
            return Transcript((), seconds, self.source, None, (NO_SPEECH,))
        word = Word(f"w{round(seconds * 100)}", 0.1, 0.2, None, self.source, 0.5)
        return Transcript((word,), seconds, self.source, "fr", (), (Hole(0.3, 0.4),))


def sound() -> Iterator[np.ndarray]:
    """Speech with two pauses, in pieces of odd lengths."""
    speech, pause = audio.load(SPOKEN), audio.silence(1.0)
    whole = np.concatenate(
        [speech[: 3 * SAMPLE_RATE], pause, speech[: 2 * SAMPLE_RATE], pause, speech[:SAMPLE_RATE]]
    )
    yield from np.array_split(whole, 7)


def test_parts_are_cut_in_pauses_without_a_gap() -> None:
    whole = np.concatenate(list(sound()))
    cut = list(parts(sound(), longest=4.2, look=2.0))
    assert np.array_equal(np.concatenate([part.samples for part in cut]), whole)
    assert all(a.end == pytest.approx(b.start) for a, b in pairwise(cut))
    assert all(len(part.samples) <= 4.2 * SAMPLE_RATE for part in cut)
    first, second = cut[0].end, cut[1].end
    assert 3.0 <= first <= 4.0
    assert 6.0 <= second <= 7.0
    assert not list(parts(iter(())))


def test_what_was_heard_before_a_stop_is_not_heard_again(tmp_path: Path) -> None:
    def heard(backend: Counting, key: str = "key") -> Transcript:
        return hear_in_parts(parts(sound(), 4.2, 2.0), backend, tmp_path / "kept", key)

    with pytest.raises(KeyboardInterrupt):
        heard(killed := Counting(most=1))
    gone_on, whole = Counting(), Counting()
    after = heard(gone_on)
    assert len(killed.heard) == 1
    assert after == hear_in_parts(parts(sound(), 4.2, 2.0), whole, tmp_path / "other", "key")
    assert gone_on.heard == whole.heard[1:]
    starts = [part.start for part in parts(sound(), 4.2, 2.0)]
    assert [word.start for word in after.words] == pytest.approx([start + 0.1 for start in starts], abs=1e-3)
    assert [hole.start for hole in after.holes] == pytest.approx([start + 0.3 for start in starts], abs=1e-3)
    assert (after.language, after.flags) == ("fr", ())
    heard(other_way := Counting(), "another model")
    assert len(other_way.heard) == len(whole.heard)
    for path in (tmp_path / "kept").glob("*.json"):
        path.write_text("{", encoding="utf-8")
    assert heard(again := Counting()) == after
    assert len(again.heard) == len(whole.heard)


def test_silence_in_every_part_is_silence(tmp_path: Path) -> None:
    quiet = hear_in_parts(parts(iter([audio.silence(6.0)]), 4.0, 1.0), Counting(), tmp_path, "key")
    assert (quiet.words, quiet.flags, quiet.duration) == ((), (NO_SPEECH,), pytest.approx(6.0))


@pytest.mark.parametrize("suffix", ["wav", "ogg"])
def test_one_channel_streams_as_it_loads(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"two.{suffix}"
    sine = np.sin(np.arange(22050) / 9).astype(np.float32)
    soundfile.write(path, np.stack([sine * 0.5, np.zeros_like(sine)], axis=1), 22050)
    for channel in (0, 1):
        streamed = np.concatenate(list(audio.stream(path, channel)))
        assert np.abs(streamed - audio.load(path, channel=channel)).max() < 0.02
    assert np.abs(np.concatenate(list(audio.stream(path, 1)))).max() < 0.01


# Channels


def on(channel: str, *timed: tuple[str, float, float]) -> list[Word]:
    return [Word(text, start, end, channel) for text, start, end in timed]


def test_loudness_is_that_of_each_step() -> None:
    loud = loudness(
        iter([np.full(1000, 0.5, np.float32), np.full(600, 0.5, np.float32), np.zeros(100, np.float32)])
    )
    assert loud.tolist() == [0.5, 0.5, 0.0]


def test_a_word_that_leaks_into_another_channel_is_said_once_by_the_louder() -> None:
    left = on("CH1", ("hello", 0.0, 0.5), ("there", 0.5, 1.0), ("yes", 3.0, 3.5))
    right = on("CH2", ("Hello,", 0.02, 0.52), ("they're", 0.5, 1.0), ("hi", 2.0, 2.4), ("no", 3.1, 3.5))
    loud: dict[str | None, np.ndarray] = {"CH1": np.full(80, 0.3), "CH2": np.full(80, 0.3)}
    loud["CH2"][:20] = 0.02  # what is heard there comes from the other
    kept = without_leaks([*left, *right], loud)
    assert [(word.text, word.speaker) for word in kept] == [
        *(("hello", "CH1"), ("there", "CH1"), ("hi", "CH2"), ("yes", "CH1"), ("no", "CH2")),
    ]  # at 3 s both speak


@pytest.mark.parametrize(("n_same", "is_kept"), [(3, False), (2, True)])
def test_what_leaks_and_is_heard_otherwise_goes_where_other_words_leak_as_much(
    n_same: int, is_kept: bool
) -> None:
    words = [(text, float(n), n + 0.5) for n, text in enumerate(["one", "two", "three"][:n_same])]
    left = on("CH1", *words, ("trap", 4.0, 4.4), ("yes", 5.0, 5.4))
    right = on("CH2", *words, ("the", 4.0, 4.4), ("no", 5.0, 5.4))
    loud: dict[str | None, np.ndarray] = {"CH1": np.full(120, 0.3), "CH2": np.full(120, 0.05)}  # 15 dB
    loud["CH2"][100:] = 0.15  # somebody speaks there
    kept = [(word.text, word.speaker) for word in without_leaks([*left, *right], loud)]
    assert (("the", "CH2") in kept) == is_kept
    assert {("trap", "CH1"), ("yes", "CH1"), ("no", "CH2")} <= set(kept)
    assert len(kept) == n_same + 3 + is_kept


def test_two_channels_that_are_the_same_say_everything_once() -> None:
    words = [("one", 0.0, 0.4), ("two", 0.5, 0.9)]
    same: dict[str | None, np.ndarray] = {"CH1": np.full(20, 0.1), "CH2": np.full(20, 0.1)}
    assert without_leaks([*on("CH1", *words), *on("CH2", *words)], same) == on("CH1", *words)


# Turns


def turn(name: str, start: float, end: float) -> Event:
    return Event(f"speaker {name}", start, end)


def test_a_word_is_his_who_speaks_longest_in_it_else_of_the_nearest() -> None:
    words = [Word(str(n), n, n + 0.5) for n in (0.0, 1.0, 2.0, 3.3, 9.0)]
    turns = [turn("ann", 0.0, 1.2), turn("bob", 1.2, 2.3), turn("ann", 2.2, 2.25), turn("bob", 2.0, 3.0)]
    named = named_by_turns([*words, Word("known", 0.2, 0.4, "eve")], [*turns, Event("music", 0.0, 9.0)])
    assert [(word.text, word.speaker) for word in named] == [
        *(("0.0", "ann"), ("known", "eve"), ("1.0", "bob"), ("2.0", "bob"), ("3.3", "bob"), ("9.0", None)),
    ]


def test_turns_are_those_of_the_recording_and_wrong_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "turns.rttm"
    row = "SPEAKER {} 1 {} {} <NA> <NA> {} <NA> <NA>\n".format
    path.write_text(row("talk", 0, 2, "ann") + row("other", 0, 90, "eve"), encoding="utf-8")
    assert turns_of(path, "talk.wav", 10.0) == (turn("ann", 0.0, 2.0),)
    path.write_text(row("my talk", 0, 2, "Ann Lee") + row("my talk", 2, 2, "Ann May"), encoding="utf-8")
    assert turns_of(path, "my talk.wav", 10.0) == (turn("Ann Lee", 0.0, 2.0), turn("Ann May", 2.0, 4.0))
    path.write_text(row("my_talk", 0, 2, "Speaker 1") + row("other", 0, 90, "eve"), encoding="utf-8")
    assert turns_of(path, "my talk.wav", 10.0) == (turn("Speaker 1", 0.0, 2.0),)
    path.write_text(row("talk", 0, 2, "ann") + row("other", 0, 90, "eve"), encoding="utf-8")
    with pytest.raises(CorpusError, match="expected turns of 'third', found talk, other"):
        turns_of(path, "third.mp3", 10.0)
    path.write_text(row("call", 1, 99, "ann"), encoding="utf-8")
    assert turns_of(path, "talk.wav", 10.0) == (turn("ann", 1.0, 10.0),)  # the only one
    path.write_text(row("talk", 0, 2, "ann") + row("talk", "2.000", "0.000", "bob"), encoding="utf-8")
    assert turns_of(path, "talk.wav", 10.0) == (turn("ann", 0.0, 2.0),)
    path.write_text(row("talk", 2, -1, "ann"), encoding="utf-8")
    with pytest.raises(RecordError, match=r"turns.rttm:1: .*"):
        turns_of(path, "talk.wav", 10.0)
    path.write_text(row("talk", 0, 2, "ann") + row("talk", 20, 2, "bob"), encoding="utf-8")
    with pytest.raises(RecordError, match=r"turns.rttm:2: begins at 20 s, after the clip's end, 10 s"):
        turns_of(path, "talk.wav", 10.0)
    path.write_text("SPEAKER talk 1 zero 2 <NA> <NA> ann\n", encoding="utf-8")
    with pytest.raises(RecordError, match=r"turns.rttm:1: must be SPEAKER RECORDING CHANNEL"):
        turns_of(path, "talk.wav", 10.0)
