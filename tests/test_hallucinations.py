"""Text that Whisper invents: found by its numbers and its shape; what people say is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from tgsr.data.transcribe.hallucinations import Heard, compression, doubt, once, repeats, with_room
from tgsr.data.transcribe.speech import FRAME
from tgsr.data.transcribe.transcript import judged
from tgsr.records import INVENTED, NO_SPEECH, NOT_ENGLISH
from tgsr.timeline import Word

SPEECH = np.ones(25, bool)  # 0.8 s: too little to miss words in
FLUENT = np.ones(1000, bool)  # 32 s of it without a pause


def said(text: str, seconds: float = 0.4) -> tuple[Word, ...]:
    return tuple(Word(word, i * seconds, (i + 1) * seconds) for i, word in enumerate(text.split()))


@pytest.mark.parametrize(
    ("words", "n"),
    [
        ("", 0),
        ("one two three", 1),
        ("five five three", 2),
        ("thank you thank you thank you", 3),
        ("so thank you thank you thank you", 3),
        ("a b c d a b c d x", 2),
    ],
)
def test_repeats_are_counted_in_a_row_wherever_they_begin(words: str, n: int) -> None:
    assert repeats(words.split()) == n


def test_a_loop_is_invented_and_a_telephone_number_is_not() -> None:
    assert doubt(Heard(said("thanks for watching " * 6)), FLUENT) is not None
    assert doubt(Heard(said("five five five oh one two seven seven")), FLUENT) is None
    assert doubt(Heard(()), FLUENT) is None


def test_long_text_that_compresses_well_is_invented() -> None:
    loop = "and then he went to the store because he wanted milk " * 4
    assert compression(loop) > 2.4
    assert "compresses" in str(doubt(Heard(said(loop)), FLUENT))


def test_whispers_own_numbers_count_together_only() -> None:
    """A high probability of silence alone is common over quiet speech; Whisper's own rule asks for both."""
    words = said("hello there")
    assert doubt(Heard(words, logp=-0.3, no_speech=0.9), FLUENT) is None
    assert doubt(Heard(words, logp=-1.4, no_speech=0.1), FLUENT) is None
    assert "no speech with 0.90" in str(doubt(Heard(words, logp=-1.4, no_speech=0.9), FLUENT))


def test_more_words_than_anyone_can_say_are_invented() -> None:
    assert "words in" in str(doubt(Heard(said("one two three four five six", 0.05)), FLUENT))
    assert doubt(Heard(said("one two three four five six", 0.2)), FLUENT) is None


def test_words_without_room_behind_the_sound_are_left_out_and_flagged() -> None:
    real = said("eight seven nine one eight five two")
    piled = tuple(Word(text, 2.8, 2.82) for text in ["one", "eight", "seven", "nine"])
    assert with_room(Heard((*real, *piled, Word("two", 2.8, 3.1))), FLUENT) == Heard(real)
    few = (*real[:4], *(Word(text, 1.6, 1.62) for text in ("a", "in", "the")), *said("x y z w v u")[5:])
    assert with_room(Heard(few), FLUENT) == Heard(few)
    kept = judged([Heard((*real, *piled))], SPEECH, 3.0, "whisper", "en", 0.9)
    assert (kept.words, kept.flags) == (real, (INVENTED,))


def test_what_is_left_out_is_flagged() -> None:
    loop, real = Heard(said("thanks for watching " * 6)), Heard(said("hello there"))
    kept = judged([loop, real], SPEECH, 20.0, "whisper", "en", 0.9)
    assert [word.text for word in kept.words] == ["hello", "there"]
    assert kept.flags == (INVENTED,)
    assert judged([loop], SPEECH, 20.0, "whisper", "en", 0.9).flags == (INVENTED, NO_SPEECH)
    assert judged([], SPEECH, 20.0, "whisper", None, 0.0).flags == (NO_SPEECH,)


def test_another_language_has_its_words_and_is_flagged_unless_whisper_is_unsure() -> None:
    real = Heard(said("hello there"))
    french = judged([real], SPEECH, 9.0, "whisper", "fr", 0.97)
    assert (french.words, french.language, french.flags) == (real.words, "fr", (NOT_ENGLISH,))
    assert judged([], SPEECH, 9.0, "whisper", "fr", 0.97).flags == (NOT_ENGLISH, NO_SPEECH)
    unsure = judged([real], SPEECH, 9.0, "whisper", "cy", 0.4)
    assert (unsure.words, unsure.language, unsure.flags) == (real.words, "en", ())


def apart(n: int, seconds: float = 0.5, pause: float = 0.3) -> np.ndarray:
    """Frames in which somebody speaks n times, so long each, with a pause behind each."""
    spoken, silent = (np.full(round(of / FRAME), is_one) for of, is_one in ((seconds, True), (pause, False)))
    return np.tile(np.concatenate([spoken, silent]), n)


@pytest.mark.parametrize(
    ("text", "speech", "is_kept"),
    [
        ("five " * 12, apart(12), True),  # it compresses 3 times
        ("five " * 12, apart(14), True),
        ("five " * 5 + "nine " * 7, apart(12), True),
        ("thank you " * 6, apart(6, 1.3), True),
        ("five " * 12, FLUENT, False),  # over somebody who says something else
        ("thank you " * 6, apart(3, 2.5), False),
        ("five " * 12, apart(6, 1.3), False),  # longer than "five" is
        ("five " * 12, np.zeros(1000, bool), False),
        ("five " * 30, apart(12), False),  # it goes on
        ("and then he went to the store because he wanted milk " * 4, apart(44), False),  # no word five times
    ],
)
def test_a_word_that_is_said_again_and_again_has_a_stretch_of_speech_each_time(
    text: str, speech: np.ndarray, is_kept: bool
) -> None:
    heard = Heard(said(text, 0.8))
    assert (doubt(with_room(heard, speech), speech) is None) == is_kept
    assert not is_kept or with_room(heard, speech) == heard


def test_where_whisper_counts_badly_words_too_many_are_left_out_where_nobody_speaks() -> None:
    times = [(0.0, 0.5), (0.8, 1.3), (1.6, 2.1), (2.1, 2.2), (2.4, 2.9), (3.2, 3.7), (3.7, 3.75)]
    heard = Heard(tuple(Word("nine", *time) for time in times))
    kept = with_room(heard, apart(5))
    assert [word.start for word in kept.words] == [0.0, 0.8, 1.6, 2.4, 3.2]
    assert doubt(kept, apart(5)) is None
    assert with_room(heard, apart(3)) == heard  # that is a loop


def test_words_said_many_times_are_written_once_to_see_whether_the_rest_repeats_itself() -> None:
    assert once(["no", "no", "no", "no", "no", "no", "well", "well"]) == ["no", "well", "well"]
    assert once(("thank you " * 5 + "all").split()) == ["thank", "you", "all"]
    assert once([]) == []
