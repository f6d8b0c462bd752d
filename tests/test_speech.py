"""Speech that has no words is found, heard again, and said where it stays without; what people say is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tgsr.audio import load
from tgsr.data.transcribe.again import AROUND, to_hear_again, with_second
from tgsr.data.transcribe.hallucinations import Heard
from tgsr.data.transcribe.speech import FRAME, is_speech, runs, shortened, speech_probability, unheard
from tgsr.data.transcribe.transcript import judged
from tgsr.data.transcribe.windows import Region
from tgsr.records import INVENTED, NO_SPEECH, UNHEARD
from tgsr.timeline import Word

TEXT = [
    *("missus", "rachel", "lynde", "lived", "just", "where", "the", "avonlea", "main", "road"),
    *("dipped", "down", "into", "a", "little", "hollow", "fringed", "with", "alders", "and"),
    *("ladies", "eardrops", "traversed", "by", "one", "brook", "that", "had", "its", "source"),
]
SPOKEN = Path(__file__).parent / "data" / "speech"


def speech(*seconds: float) -> np.ndarray:
    """Speech and silence by turns, beginning with speech, as frames."""
    parts = [np.full(round(part / FRAME), i % 2 == 0) for i, part in enumerate(seconds)]
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def words(*timed: tuple[str, float, float]) -> tuple[Word, ...]:
    return tuple(Word(text, start, end) for text, start, end in timed)


def talk(first: float, stop: float, step: float = 0.4) -> tuple[Word, ...]:
    starts = np.arange(first, stop - 0.01, step).tolist()
    return words(*((TEXT[round(start / step) % len(TEXT)], start, start + step) for start in starts))


@pytest.mark.parametrize("gain", [1.0, 0.01, 1e-3, 1e-4])
def test_quiet_speech_is_found_as_well_as_loud_speech(gain: float) -> None:
    samples = load(SPOKEN / "1363-135842-0000.flac")
    loud = is_speech(speech_probability(samples))
    quiet = is_speech(speech_probability((samples * gain).astype(np.float32)))
    assert loud.sum() * FRAME > 3
    assert abs(int(quiet.sum()) - int(loud.sum())) <= 3


@pytest.mark.parametrize(("gain", "offset"), [(0.1, 0.4), (0.01, 0.1), (0.01, -0.4), (1.0, 0.25)])
def test_speech_on_a_constant_offset_is_found_as_well_as_without(gain: float, offset: float) -> None:
    """A faulty sound card's: nobody hears it. All of these but the last were silence to silero."""
    samples = load(SPOKEN / "1363-135842-0000.flac")
    plain = is_speech(speech_probability(samples))
    moved = np.clip(gain * samples + offset, -1.0, 1.0).astype(np.float32)
    assert abs(int(is_speech(speech_probability(moved)).sum()) - int(plain.sum())) <= 3


def test_somebody_far_off_after_somebody_near_is_found() -> None:
    samples = load(SPOKEN / "1363-135842-0000.flac")
    both = np.concatenate([samples, 0.003 * samples]).astype(np.float32)
    spoken = is_speech(speech_probability(both))
    half = len(spoken) // 2
    assert spoken[half:].sum() > 0.8 * spoken[:half].sum() > 0


@pytest.mark.parametrize("sound", ["silence", "noise", "quiet noise", "tone", "chord", "rounding", "nothing"])
def test_what_is_no_speech_is_not_taken_for_it_however_quiet(sound: str) -> None:
    t = np.arange(4 * 16000) / 16000
    rng = np.random.default_rng(0)
    samples = {
        "silence": np.zeros_like(t),
        "noise": 0.1 * rng.standard_normal(len(t)),
        "quiet noise": 1e-4 * rng.standard_normal(len(t)),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * t),
        "chord": sum(
            0.1 * np.sin(2 * np.pi * hz * t) * (1 + np.sin(4 * np.pi * t)) for hz in (220, 277, 330)
        ),
        "rounding": rng.integers(-1, 2, len(t)) / 32768,
        "nothing": np.zeros(0),
    }[sound]
    assert not is_speech(speech_probability(np.asarray(samples, np.float32))).any()


def test_speech_stays_speech_until_it_is_clearly_none() -> None:
    probability = np.array([0.4, 0.6, 0.4, 0.4, 0.2, 0.4, 0.5])
    assert is_speech(probability).tolist() == [False, True, True, True, False, False, True]
    assert runs(is_speech(probability)) == [(1, 4), (6, 7)]
    assert runs(np.zeros(0, bool)) == []


@pytest.mark.parametrize(
    ("spoken", "said", "holes"),
    [
        ((10.0,), talk(0, 10), []),
        ((14.0,), talk(0, 10.4), [(10.4, 14.0)]),  # the end is lost
        ((10.0,), talk(3, 10), [(0.0, 3.0)]),  # the beginning
        ((10.0,), (*talk(0, 4), *talk(6, 10)), [(4.0, 6.0)]),  # the middle
        ((4.0,), (), [(0.0, 4.0)]),  # all
        ((0.5,), (), []),  # less than three words may be none: a cough
        ((3.0, 5.0, 3.0), (*talk(0, 3), *talk(8, 11)), []),  # a pause is no speech
        ((3.0, 5.0, 3.0), words(*((w.text, w.start, w.end) for w in talk(0, 3))), [(8.0, 11.0)]),
        # the last word is stretched over what was lost, before it or behind it
        ((10.0,), (*talk(0, 4), *words(("end", 4.0, 10.0))), [(4.0, 9.3)]),
        # Whisper's words may begin with the pause before them
        ((3.0, 4.0, 0.5), (*talk(0, 3), *words(("end", 3.0, 7.5))), []),
        # 1985 has many letters when it is said
        ((2.5,), words(("1985,", 0.0, 2.5)), []),
        # far too few words for what is said, evenly spread
        ((12.0,), words(*(("a", 1.4 * i, 1.4 * i + 0.5) for i in range(8))), [(0.0, 12.0)]),
        ((), (), []),
    ],
)
def test_speech_without_words_is_found(
    spoken: tuple[float, ...], said: tuple[Word, ...], holes: list[tuple[float, float]]
) -> None:
    found = unheard(speech(*spoken), said)
    assert [(span.start, span.end) for span in found] == [pytest.approx(hole, abs=0.1) for hole in holes]


def test_a_word_is_no_longer_than_its_letters_allow() -> None:
    assert shortened(Word("end", 3.0, 9.0)) == Word("end", 8.3, 9.0)
    assert shortened(Word("end", 3.0, 3.5)) == Word("end", 3.0, 3.5)


def test_what_is_left_without_words_is_a_hole_and_no_silence() -> None:
    heard = judged([Heard(talk(0, 10.4))], speech(14.0), 14.0, "whisper", "en", 1.0)
    assert heard.flags == (UNHEARD,)
    (hole,) = heard.holes
    assert (hole.start, hole.end) == pytest.approx((10.4, 14.0), abs=0.1)
    assert judged([], speech(4.0), 4.0, "whisper", "en", 1.0).flags == (UNHEARD,)
    assert judged([], speech(), 4.0, "whisper", "en", 1.0).flags == (NO_SPEECH,)
    loop = Heard(words(*(("thanks", i * 0.5, i * 0.5 + 0.4) for i in range(8))))
    assert judged([loop], speech(4.0), 4.0, "whisper", "en", 1.0).flags == (INVENTED, UNHEARD)


def test_words_where_nobody_speaks_are_invented() -> None:
    thanks = Heard(words(("Thanks", 5.0, 5.4), ("for", 5.4, 5.6), ("watching!", 5.6, 6.2)), -0.3, 0.1)
    heard = judged([thanks], speech(), 15.0, "whisper", "en", 1.0)
    assert (heard.words, heard.flags) == ((), (INVENTED, NO_SPEECH))
    assert judged([thanks], speech(0, 5.2, 0.5), 15.0, "whisper", "en", 1.0).words == thanks.words


def again(spoken: np.ndarray, heard: list[Heard]) -> list[tuple[float, float]]:
    samples = np.zeros(len(spoken) * 512, np.float32)
    regions = to_hear_again(0, samples, np.where(spoken, 0.9, 0.0), heard)
    return [(region.start, region.start + region.duration) for region in regions]


def region(start: float, seconds: float) -> Region:
    return Region(0, start, np.zeros(round(seconds * 16000), np.float32))


def test_speech_without_words_is_heard_again_by_itself_never_into_a_word() -> None:
    (found,) = again(speech(10.0, 1.0, 3.0), [Heard(talk(0, 10.0))])
    assert found == pytest.approx((11.0 - AROUND, 14.0), abs=0.1)
    (found,) = again(speech(10.0), [Heard((*talk(0, 4), *talk(6, 10)))])
    assert found == pytest.approx((4.0, 6.0), abs=0.1)
    assert again(speech(10.0), [Heard(talk(0, 10))]) == []
    (short,) = again(speech(0.5), [])  # one word that was lost: nothing else is there
    assert short == pytest.approx((0.0, 0.5), abs=0.1)


def test_a_loop_is_heard_again_although_its_words_fill_the_time() -> None:
    loop = Heard(words(*(("no", i * 0.4, i * 0.4 + 0.4) for i in range(10))))
    (found,) = again(speech(4.0), [loop])
    assert found == pytest.approx((0.0, 4.0), abs=0.1)
    second = Heard(talk(0, 1.6, 0.4), -0.3, 0.0)
    assert with_second([loop], region(0.0, 4.0), second, speech(4.0)) == [second]


def test_a_word_that_somebody_says_seven_times_is_kept_when_it_is_heard_so_again() -> None:
    said, again = (Heard(words(*(("no,", i * 0.4, i * 0.4 + 0.3) for i in range(n)))) for n in (7, 6))
    other = Heard(words(*(("so", i * 0.4, i * 0.4 + 0.3) for i in range(9))))
    assert judged([said], speech(4.0), 4.0, "planted", "en", 1.0).words == ()
    (kept,) = with_second([said], region(0.0, 4.0), again, speech(4.0))
    assert judged([kept], speech(4.0), 4.0, "planted", "en", 1.0).words == said.words
    assert with_second([said], region(0.0, 4.0), other, speech(4.0)) == [said]


@pytest.mark.parametrize(
    ("second", "is_taken"),
    [
        (Heard(talk(10.4, 14), -0.3, 0.0), True),
        (Heard((), None, None), False),
        (Heard(talk(10.4, 14), -1.2, 0.0), False),  # Whisper does not believe it
        (Heard(words(("you", 10.5, 10.7)), -0.3, 0.0), False),  # accounts for nothing of what is said
        (Heard(talk(2, 4), -0.3, 0.0), False),  # is there already
        (Heard(words(*(("no", 10.4 + i * 0.4, 10.8 + i * 0.4) for i in range(9))), -0.3, 0.0), False),
    ],
)
def test_a_second_hearing_is_taken_where_it_has_words_for_what_had_none(
    second: Heard, is_taken: bool
) -> None:
    first = [Heard(talk(0, 10.4), -0.2, 0.0)]
    found = with_second(first, region(10.4, 3.6), second, speech(14.0))
    assert found == ([*first, second] if is_taken else first)
