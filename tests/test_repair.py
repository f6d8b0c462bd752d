import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tgsr.data.transcribe.repair import (
    OVERLAPS_TRIMMED,
    ROUNDING,
    SHORTEST,
    WORDS_CUT,
    WORDS_DOUBLED,
    WORDS_PAST_END,
    WORDS_SORTED,
    WORDS_WITHOUT_LENGTH,
    gaps,
)
from tgsr.data.transcribe.repair import mended as mend
from tgsr.timeline import Hole, Word

HELLO, THERE, YOU = Word("hello", 0.5, 0.9), Word("there", 0.9, 1.4), Word("you", 1.5, 2.0)


def mended(words: Sequence[Word], duration: float) -> tuple[tuple[Word, ...], tuple[str, ...]]:
    return mend(words, duration)[:2]


def times(words: tuple[Word, ...]) -> list[tuple[str, float, float]]:
    return [(word.text, word.start, word.end) for word in words]


def test_words_that_need_nothing_come_back_as_they_were() -> None:
    assert mended([HELLO, THERE, YOU], 2.0) == ((HELLO, THERE, YOU), ())
    assert mended([], 2.0) == ((), ())


def test_words_out_of_order_are_sorted() -> None:
    assert mended([YOU, HELLO, THERE], 2.0) == ((HELLO, THERE, YOU), (WORDS_SORTED,))


def test_words_that_start_together_keep_their_order() -> None:
    long, short = Word("long", 1.0, 2.0, "ann"), Word("short", 1.0, 1.5, "bo")
    assert mended([long, short], 2.0) == ((long, short), ())
    assert mended([short, long], 2.0) == ((short, long), ())


def test_neighbours_meet_in_the_middle_of_their_overlap() -> None:
    words, flags = mended([Word("a", 0.0, 1.0), Word("b", 0.5, 2.0)], 2.0)
    assert times(words) == [("a", 0.0, 0.75), ("b", 0.75, 2.0)]
    assert flags == (OVERLAPS_TRIMMED,)


def test_a_word_inside_another_takes_half_of_what_they_share() -> None:
    words, flags = mended([Word("long", 0.0, 9.0), Word("inside", 2.0, 3.0)], 9.0)
    assert times(words) == [("long", 0.0, 2.5), ("inside", 2.5, 3.0)]
    assert flags == (OVERLAPS_TRIMMED,)


def test_words_inside_words_inside_words_end_without_overlaps() -> None:
    # a and b meet at 5, b and c at 2.5: nothing is left of b, and a and c meet at 2.75
    words, flags = mended([Word("a", 0.0, 10.0), Word("b", 1.0, 9.0), Word("c", 2.0, 3.0)], 10.0)
    assert times(words) == [("a", 0.0, 2.75), ("c", 2.75, 3.0)]
    assert flags == (OVERLAPS_TRIMMED, WORDS_WITHOUT_LENGTH)


def test_speakers_may_talk_at_once() -> None:
    both = (Word("yes", 0.0, 1.0, "ann"), Word("no", 0.5, 1.5, "bo"))
    assert mended(both, 2.0) == (both, ())


def test_neighbours_of_one_speaker_are_found_around_the_other_speaker() -> None:
    a, other, b = Word("a", 0.0, 1.0, "ann"), Word("no", 0.3, 1.5, "bo"), Word("b", 0.5, 2.0, "ann")
    words, flags = mended([a, other, b], 2.0)
    assert times(words) == [("a", 0.0, 0.75), ("no", 0.3, 1.5), ("b", 0.75, 2.0)]
    assert flags == (OVERLAPS_TRIMMED,)


def test_order_holds_after_a_start_has_moved_behind_another_speaker() -> None:
    a, b, other = Word("a", 0.0, 3.0, "ann"), Word("b", 1.0, 4.0, "ann"), Word("no", 1.2, 1.8, "bo")
    words, flags = mended([a, b, other], 4.0)
    assert times(words) == [("a", 0.0, 2.0), ("no", 1.2, 1.8), ("b", 2.0, 4.0)]
    assert flags == (OVERLAPS_TRIMMED,)  # the words came in order


def test_words_past_the_end_are_cut_or_left_out() -> None:
    words, flags = mended([HELLO, THERE, Word("end", 2.0, 2.5), Word("after", 2.5, 3.0)], 1.2)
    assert times(words) == [("hello", 0.5, 0.9), ("there", 0.9, 1.2)]
    assert flags == (WORDS_PAST_END, WORDS_CUT)


def test_a_word_that_begins_as_the_recording_ends_is_past_it() -> None:
    assert mended([HELLO, THERE], 0.9) == ((HELLO,), (WORDS_PAST_END,))


def test_a_word_cut_to_almost_nothing_is_left_out() -> None:
    assert mended([HELLO, THERE], 0.905) == ((HELLO,), (WORDS_CUT, WORDS_WITHOUT_LENGTH))


def test_a_word_of_ten_milliseconds_stays_although_its_times_are_rounded() -> None:
    assert SHORTEST > 2.30 - 2.29  # by 2e-16
    assert mended([Word("a", 2.29, 2.30), Word("b", 2.5, 2.509)], 3.0) == (
        (Word("a", 2.29, 2.30),),
        (WORDS_WITHOUT_LENGTH,),
    )


def test_rounding_is_no_overlap_and_does_not_pass_the_end() -> None:
    words = (Word("a", 0.1, 0.1 + 0.2), Word("b", 0.3, 1.1 + 2.2))
    assert words[0].end > words[1].start
    assert words[1].end > 3.3
    assert mended(words, 3.3) == (words, ())


def test_doubled_words_are_dropped_but_not_words_said_twice() -> None:
    again = Word("hello", 1.0, 1.4)
    assert mended([HELLO, HELLO, again], 2.0) == ((HELLO, again), (WORDS_DOUBLED,))


def test_words_that_differ_in_their_speaker_are_not_doubled() -> None:
    both = (Word("yes", 0.0, 1.0, "ann"), Word("yes", 0.0, 1.0, "bo"))
    assert mended(both, 2.0) == (both, ())


def test_what_is_known_of_a_word_stays_with_it() -> None:
    a, b = Word("a", 0.0, 1.0, "ann", "ctm", 0.5), Word("b", 0.5, 5.0, "ann", "ctm", 0.25)
    assert mended([a, b], 2.0)[0] == (
        Word("a", 0.0, 0.75, "ann", "ctm", 0.5),
        Word("b", 0.75, 2.0, "ann", "ctm", 0.25),
    )


@pytest.mark.parametrize("duration", [0.0, -1.0, math.nan, math.inf])
def test_a_recording_without_length_is_refused(duration: float) -> None:
    with pytest.raises(ValueError, match="duration must be more than 0 s"):
        mended([HELLO], duration)


def to_words(step: float) -> st.SearchStrategy[list[Word]]:
    return st.lists(
        st.builds(
            lambda text, start, length, speaker: Word(text, start * step, (start + length) * step, speaker),
            st.sampled_from("abc"),
            st.integers(0, 60),
            st.integers(1, 40),
            st.sampled_from([None, "ann", "bo"]),
        ),
        max_size=12,
    )


any_words = st.one_of(to_words(0.05), to_words(0.003), to_words(1 / 3))


@given(any_words, st.sampled_from([0.002, 0.5, 1.0, 3.0, 30.0]))
@example([Word("a", 0.0, 10.0), Word("b", 1.0, 9.0), Word("c", 2.0, 3.0), Word("a", 1.5, 9.5)], 30.0)
def test_mended_words_fit_and_need_no_mending(words: list[Word], duration: float) -> None:
    given_words = list(words)
    kept, flags = mended(words, duration)
    assert words == given_words
    assert len(set(flags)) == len(flags)
    assert (kept == tuple(words)) == (flags == ())
    assert all(left.start <= right.start for left, right in pairwise(kept))
    assert all(word.end <= duration + ROUNDING for word in kept)
    assert all(word.end - word.start >= SHORTEST - ROUNDING for word in kept)
    for speaker in (None, "ann", "bo"):
        for left, right in pairwise(word for word in kept if word.speaker == speaker):
            assert left.end <= right.start + ROUNDING
    for word in kept:  # no time is invented
        assert any(w.text == word.text and w.start <= word.start and word.end <= w.end for w in words)
    assert mend(kept, duration) == (kept, (), ())


IF, DID, SAY = Word("if", 0.5, 0.7), Word("did", 0.7, 1.2), Word("say", 1.2, 1.5)


@pytest.mark.parametrize(
    ("words", "holes"),
    [
        ([IF, DID, SAY], ()),
        ([IF, DID, Word("not", 1.2, 1.205), SAY], (Hole(1.2, 1.2, "not"),)),
        ([IF, Word("not", 0.9, 0.905), DID, SAY], (Hole(0.7, 0.7, "not"),)),  # inside its neighbour
        ([Word("not", 0.1, 0.105), IF, DID], (Hole(0.1, 0.105, "not"),)),
        # "not" is said between "did" and "say", whatever its times are
        ([IF, DID, Word("not", 1.8, 1.9), SAY], (Hole(1.2, 1.2), Hole(1.5, 1.8))),
        ([IF, DID, Word("not", 9.0, 9.5), SAY], (Hole(1.2, 1.2),)),
        ([DID, SAY, IF], (Hole(0.7, 0.7),)),
        ([IF, DID, SAY, IF, DID, SAY], ()),  # the same words twice
        ([IF, Word("yes", 0.1, 0.2, "bo"), DID], ()),  # each speaker's words are in order
    ],
)
def test_words_that_are_missing_leave_holes(words: list[Word], holes: tuple[Hole, ...]) -> None:
    assert mend(words, 5.0).holes == holes


def test_gaps_are_between_words_that_did_not_come_in_order() -> None:
    assert gaps([IF, DID, SAY]) == ()
    assert gaps([IF, SAY, DID]) == (Hole(0.7, 0.7), Hole(1.2, 1.2))
