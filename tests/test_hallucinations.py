"""Text that Whisper invents: found by its numbers and its shape; what people say is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from tgsr.data.transcribe.hallucinations import Heard, compression, doubt, repeats, with_room
from tgsr.data.transcribe.transcript import judged
from tgsr.records import INVENTED, NO_SPEECH, NOT_ENGLISH
from tgsr.timeline import Word

SPEECH = np.ones(25, bool)  # 0.8 s: too little to miss words in


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
    assert doubt(Heard(said("thanks for watching " * 6))) is not None
    assert doubt(Heard(said("five five five oh one two seven seven"))) is None
    assert doubt(Heard(())) is None


def test_long_text_that_compresses_well_is_invented() -> None:
    loop = "and then he went to the store because he wanted milk " * 4
    assert compression(loop) > 2.4
    assert "compresses" in str(doubt(Heard(said(loop))))


def test_whispers_own_numbers_count_together_only() -> None:
    """A high probability of silence alone is common over quiet speech; Whisper's own rule asks for both."""
    words = said("hello there")
    assert doubt(Heard(words, logp=-0.3, no_speech=0.9)) is None
    assert doubt(Heard(words, logp=-1.4, no_speech=0.1)) is None
    assert "no speech with 0.90" in str(doubt(Heard(words, logp=-1.4, no_speech=0.9)))


def test_more_words_than_anyone_can_say_are_invented() -> None:
    assert "words in" in str(doubt(Heard(said("one two three four five six", 0.05))))
    assert doubt(Heard(said("one two three four five six", 0.2))) is None


def test_words_without_room_behind_the_sound_are_left_out_and_flagged() -> None:
    real = said("eight seven nine one eight five two")
    piled = tuple(Word(text, 2.8, 2.82) for text in ["one", "eight", "seven", "nine"])
    assert with_room(Heard((*real, *piled, Word("two", 2.8, 3.1)))) == Heard(real)
    few = (*real[:4], *(Word(text, 1.6, 1.62) for text in ("a", "in", "the")), *said("x y z w v u")[5:])
    assert with_room(Heard(few)) == Heard(few)
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
