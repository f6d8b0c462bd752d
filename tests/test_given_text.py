"""A text that is given finds its place in what was heard, and an error in either goes no further than it is."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from tgsr.data.corpora.spoken_english import sentences as english
from tgsr.data.transcribe.given_text import TEXT, gap_lines, matched, tokens_of
from tgsr.records import read_clips
from tgsr.timeline import Hole, Word


def heard(text: str, start: float = 1.0, step: float = 0.4) -> list[Word]:
    return [
        Word(token, round(start + n * step, 2), round(start + n * step + 0.3, 2), None, "whisper", 0.9)
        for n, token in enumerate(text.split())
    ]


TEXT_OF_A_BOOK = (
    "It was a bright cold day in April, and the clocks were striking thirteen. Winston Smith, his chin nuzzled into "
    "his breast in an effort to escape the vile wind, slipped quickly through the glass doors"
)


def gaps(text: str, words: Sequence[Word], unheard: Sequence[Hole] = ()) -> list[tuple[str | None, bool]]:
    found = matched(text, words, unheard, words[-1].end + 5)
    return [(hole.text, hole.source == TEXT) for hole in found.holes]


def test_the_texts_own_spelling_stands_at_the_times_of_what_was_heard() -> None:
    said = heard(
        "it was a bright cold day in april and the clocks were striking 13 wind stone smith his chin"
    )
    found = matched(TEXT_OF_A_BOOK, said, (), 12.0)
    assert [word.text for word in found.words][:18] == TEXT_OF_A_BOOK.split()[:18]
    assert found.words[13] == Word("thirteen.", 6.2, 6.5, None, "whisper", 0.9)
    assert (found.words[14].text, found.words[14].span.start) == ("Winston", said[14].start)
    assert found.words[14].end == pytest.approx(said[15].end)  # two words were heard for it
    assert found.holes == (Hole(said[-1].end, 12.0, " ".join(TEXT_OF_A_BOOK.split()[18:]), None, TEXT),)


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        (f"chapter one {TEXT_OF_A_BOOK}", [("chapter one", False)]),
        (f"{TEXT_OF_A_BOOK} this is the end of side one", [("this is the end of side one", False)]),
        (
            TEXT_OF_A_BOOK.replace(" his chin nuzzled into his breast", ""),
            [("his chin nuzzled into his breast", True)],
        ),
        (TEXT_OF_A_BOOK.replace("the vile", "uh the vile"), [("uh", False)]),
        (TEXT_OF_A_BOOK.replace("vile", "file"), []),  # misheard: it is the text's word
        (TEXT_OF_A_BOOK.replace("to escape", "escape"), []),  # a little word that nobody hears
    ],
)
def test_what_only_one_of_the_two_has_is_a_gap_with_its_words(
    said: str, missing: list[tuple[str, bool]]
) -> None:
    assert gaps(TEXT_OF_A_BOOK, heard(said)) == missing


def test_a_sentence_that_nobody_heard_is_placed_where_speech_has_no_words() -> None:
    before, left_out, after = (
        "it was a bright cold day in april",
        "and the clocks were striking thirteen",
        "winston smith his chin nuzzled into",
    )
    said = [*heard(before), *heard(after, start=8.0)]
    text = f"{before} {left_out} {after}"
    found = matched(text, said, [Hole(4.5, 7.0), Hole(20.0, 22.0)], 25.0)
    assert [word.text for word in found.words] == text.split()
    placed = found.words[8:14]
    assert (placed[0].start, placed[-1].end) == (4.5, 7.0)
    assert found.holes == (Hole(20.0, 22.0),)  # speech that the text does not have either
    assert gaps(text, said) == [(left_out, True)]  # a pause is no room for it


def test_an_error_does_not_run_on_in_an_hour_of_words_and_a_part_of_a_book_finds_its_place() -> None:
    rng = np.random.default_rng(0)
    stems = [
        f"{a}{b}{c}" for a in "bcdfgl" for b in ("an", "el", "or", "ut") for c in ("ing", "ed", "s", "ton")
    ]
    book = rng.choice([*stems, *["the"] * 30, *["and"] * 20], 12_000).tolist()
    part = book[5000:8000]
    said = [word if rng.random() > 0.1 else str(rng.choice(stems)) for word in part]  # a tenth is misheard
    del said[1000:1200]
    words = heard(" ".join(said))
    found = matched(" ".join(book), words, (), 2000.0)
    place = {word.start: n for n, word in enumerate(words)}
    at = [(place[word.start], word.text) for word in found.words if word.start in place]
    right = sum(part[n if n < 1000 else n + 200] == text for n, text in at)
    assert right > 0.97 * len(said)
    assert len(at) - right < 0.01 * len(said)
    longest = sorted(
        (hole for hole in found.holes if hole.source == TEXT), key=lambda hole: len(str(hole.text))
    )
    assert len(str(longest[-1].text).split()) == pytest.approx(5000, abs=10)  # before it, and 4000 after it
    assert len(str(longest[-3].text).split()) == pytest.approx(200, abs=10)


def test_a_text_of_something_else_shares_next_to_nothing() -> None:
    one, two = read_clips(english())[:2]
    own = matched(" ".join(word.text for word in one.words), one.words, (), one.duration)
    assert own.share == 1
    assert matched(" ".join(word.text for word in two.words), one.words, (), one.duration).share < 0.5


def test_numbers_dashes_marks_and_other_scripts_are_compared_as_they_are_said() -> None:
    said = heard("chapter 21 on the 3rd of may he'll pay")
    text = "Chapter Twenty-one — [music] on the 3rd of May he’ll pay <unk>"
    assert [word.text for word in matched(text, said, (), 9.0).words] == [
        *("Chapter", "Twenty-one —", "on", "the", "3rd", "of", "May", "he’ll", "pay"),
    ]
    french = heard("à côté d'un élève très âgé")
    assert not matched("À côté d’un élève, très âgé.", french, (), 9.0).holes
    paid = heard("it was £5 or 20 euros in chapter 21 of the fiancee's book")
    text = "It was five pounds or 20 € in “21” of the ﬁancée’s book"
    assert [word.text for word in matched(text, paid, (), 9.0).words] == [
        *("It", "was", "five", "pounds", "or", "20 €", "in", "“21”", "of", "the", "ﬁancée’s", "book"),
    ]


SAID = ("He was not an old man.", "At 10:30 we meet, he said.", "So it is: a trap.", "Yes, we meet again.")


@pytest.mark.parametrize(
    "layout",
    [
        "A: {}\nB: {}\nA: {}\nB: {}",
        "Ann Lee: {}\nBob (laughing): {}\nAnn Lee: {}\nBob: {}",
        "**Q:** {}\n\n**A:** {}\n\n**Q:** {}\n\n**A:** {}",
        "Q. {}\nA. {}\nQ. {}\nA. {}",
        "SUE: {} ANN: {} SUE: {} ANN: {}",
        "Speaker 1  0:00\n{}\n\nSpeaker 2  0:10\n{}\n\nSpeaker 1  0:20\n{}\n\nSpeaker 2  1:00:05\n{}",
        "00:00:00 Ann Lee\n{}\n00:00:10 Bob\n{}\n00:00:20 Ann Lee\n{}\n00:00:30 Bob\n{}",
        "0:00\n{}\n0:10\n{}\n0:20\n{}\n0:30\n{}",
        "[00:00:00] A: {}\n(0:10) {}\n[00:20.5 - 00:30.2] {}\n0:30 {}",
        "{} (laughs)\n[laughs quietly]. {}[12]\n[music] {}\n{} <unk> ♪",
    ],
)
def test_names_times_and_marks_are_not_said(layout: str) -> None:
    words = heard(" ".join(SAID))
    found = matched(layout.format(*SAID), words, (), 60.0)
    assert [(word.text, word.start) for word in found.words] == [(word.text, word.start) for word in words]
    assert (found.holes, found.share) == ((), 1)


def test_what_may_be_said_or_not_is_believed_where_it_is_heard() -> None:
    words = heard("note the time is nine as you know well it is never late")
    text = "Note: the time is (nine)\n10:00 (as you know, well) it is *never* late (end of side one)"
    found = matched(text, words, (), 60.0)
    assert [word.text for word in found.words] == [
        *(
            "Note:",
            "the",
            "time",
            "is",
            "(nine)",
            "(as",
            "you",
            "know,",
            "well)",
            "it",
            "is",
            "*never*",
            "late",
        ),
    ]
    assert [(hole.text, hole.source) for hole in found.holes] == [("(end of side one)", TEXT)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("« Quoi ? » dit-il !\n– Non – rien…", ["« Quoi ? »", "dit-il !", "Non –", "rien…"]),
        ("time—saves house--and --no —Hola", ["time—", "saves", "house--", "and", "--no", "—Hola"]),
        (
            "ami\u00adable him\u200bself [T]he th[at] _so_ # 1",
            ["amiable", "himself", "[T]he", "th[at]", "_so_", "1"],
        ),
        ("♪ — … [music] ()", []),
    ],
)
def test_signs_go_with_their_words_and_a_dash_parts_two(text: str, words: list[str]) -> None:
    assert [token.text for token in tokens_of(text)] == words


@pytest.mark.parametrize(
    "text", ["A " * 60_000, "A\n" * 60_000, "[ " * 60_000, "*a " * 60_000, "(" * 200_000]
)
def test_hostile_text_costs_time_that_is_linear_in_it(text: str) -> None:
    start = time.process_time()
    tokens_of(text)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(("text", "words"), [("", "so it is"), ("so it is", ""), ("", "")])
def test_nothing_matches_nothing(text: str, words: str) -> None:
    found = matched(text, heard(words), (), 9.0)
    assert (found.words, found.share) == ((), 0)
    assert len(found.holes) == bool(text) + bool(words)


def test_gaps_are_listed_with_their_seconds_and_long_ones_are_cut() -> None:
    holes = [
        Hole(1.0, 2.0, "so it is", None, "whisper"),
        Hole(2.0, 2.0, "word " * 100 + "end", None, TEXT),
        Hole(3.0, 4.0),
        Hole(5.0, 5.0, "so", "ANN"),
    ]
    first, second, third = gap_lines(holes)
    assert third == "5.00 - 5.00 s: has no time: so"
    assert first == "1.00 - 2.00 s: heard, not in the text: so it is"
    assert second.startswith("2.00 - 2.00 s: in the text, not heard: word word")
    assert second.endswith("word word end")
    assert len(second) < 160
