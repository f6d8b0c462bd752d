"""Whom a question names, among the speakers of a recording."""

from __future__ import annotations

import pytest

from tgsr.answering.named_speakers import named

LETTERED = ("B", "A")
DIARISED = ("SPEAKER_01", "SPEAKER_00")
CHANNELS = ("CH2", "CH1")
PEOPLE = ("Anna Smith", "Bob Smith", "Will")


@pytest.mark.parametrize(
    ("question", "speakers", "expected"),
    [
        ("What does speaker B say about lunch?", LETTERED, ("B",)),
        ("What does SPEAKER_00 say?", DIARISED, ("SPEAKER_00",)),
        ("What does speaker 1 want?", DIARISED, ("SPEAKER_01",)),
        ("What does speaker one want?", DIARISED, ("SPEAKER_01",)),
        ("What does the second speaker want?", DIARISED, ("SPEAKER_00",)),  # the order of speaking
        ("In the left channel, who is late?", CHANNELS, ("CH1",)),
        ("What does the right-hand speaker sell?", CHANNELS, ("CH2",)),
        ("What is said on channel 2?", CHANNELS, ("CH2",)),
        ("What is said in CH1?", CHANNELS, ("CH1",)),
        ("Who is on the first channel?", CHANNELS, ("CH1",)),
        ("What does anna think?", PEOPLE, ("Anna Smith",)),
        ("What did Anna tell Bob?", PEOPLE, ("Anna Smith", "Bob Smith")),
        ("What does Will say?", PEOPLE, ("Will",)),
        ("When will it end?", PEOPLE, ()),
        ("Is there a speaker at the door?", LETTERED, ()),
        ("What is a channel?", CHANNELS, ()),
        ("Who is it?", ("I", "A"), ()),
        ("Is the speaker a man?", LETTERED, ()),
        ("Are the speakers happy?", ("S", "T"), ()),
        ("What does speaker b say?", LETTERED, ("B",)),
        ("What did Smith say?", PEOPLE, ()),  # two are called so
        ("What does speaker A say?", (), ()),
    ],
)
def test_a_question_names_speakers(
    question: str, speakers: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert named(question, speakers).speakers == expected


@pytest.mark.parametrize(
    ("question", "speakers", "about"),
    [
        ("What did CH2 say about the house?", CHANNELS, "What did they say about the house?"),
        ("What did the right channel say about it?", CHANNELS, "What did they say about it?"),
        ("Where did SPEAKER_00 go?", DIARISED, "Where did they go?"),
        ("What is said by Anna Smith about lunch?", PEOPLE, "What is said  about lunch?"),
        ("What did anna think of it?", PEOPLE, "What did they think of it?"),
        ("When will Will go?", PEOPLE, "When will they go?"),
        ("What did speaker D say?", LETTERED, "What did speaker D say?"),
        ("When will it end?", PEOPLE, "When will it end?"),
    ],
)
def test_what_is_asked_is_found_without_the_speakers_names(
    question: str, speakers: tuple[str, ...], about: str
) -> None:
    """The score of a passage fell from 0.87 to 0.48: nobody says "CH2"."""
    assert named(question, speakers).about == about


@pytest.mark.parametrize(
    ("question", "speakers", "unknown"),
    [
        ("What does speaker D say?", LETTERED, ("speaker D",)),
        ("What does speaker B say?", (), ("speaker B",)),
        ("Who is in the left channel?", LETTERED, ("left channel",)),
        ("What does the third speaker say?", LETTERED, ("third speaker",)),
        ("What does the speaker say?", LETTERED, ()),
    ],
)
def test_who_is_named_and_not_there_is_told(
    question: str, speakers: tuple[str, ...], unknown: tuple[str, ...]
) -> None:
    assert named(question, speakers).unknown == unknown
