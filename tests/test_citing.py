"""Citations held against the words that were said."""

from __future__ import annotations

import pytest

from tgsr.answering.citing import check_citations, find_phrase, marked, relevance
from tgsr.data.transcribe.transcript import lines_of
from tgsr.grounding import count_mentions, find_spans
from tgsr.timeline import Span, Word

TEXT = "The budget is mentioned here. Mr. Smith likes tea, and nobody else does. Then there is silence"


def words(text: str = TEXT, start: float = 1.0) -> list[Word]:
    """Half a second a word, a pause of two seconds after each sentence."""
    found = []
    for word in text.split():
        found.append(Word(word, start, start + 0.4))
        start += 2.5 if word.endswith(".") and word != "Mr." else 0.5
    return found


def test_lines_end_where_sentences_do_and_at_no_abbreviation() -> None:
    lines = lines_of(words())
    assert [line.text.split()[0] for line in lines] == ["The", "Mr.", "Then"]
    assert lines[0].span == Span(1.0, 3.4)
    assert sum(len(line.words) for line in lines) == len(words())
    assert max(len(line.words) for line in lines_of(words("word " * 40))) == 16


def test_rare_words_of_a_question_find_their_line() -> None:
    scores = relevance("When is the budget mentioned?", lines_of(words()))
    assert scores[0] == max(scores) > 0
    assert relevance("When is the?", lines_of(words())) == [0, 0, 0]
    assert relevance("anything", []) == []


@pytest.mark.parametrize(
    ("phrase", "span"),
    [
        ("Mr. Smith likes tea", Span(5.5, 7.4)),
        ("mister smyth likes tea", Span(5.5, 7.4)),
        ("budget", Span(1.5, 1.9)),
    ],
)
def test_a_phrase_is_found_though_it_was_misheard(phrase: str, span: Span) -> None:
    found = find_phrase(phrase, words())
    assert found is not None
    assert found[0].iou(span) > 0.7
    assert found[1] > 0.75


def test_a_phrase_that_was_not_said_reads_like_nothing() -> None:
    found = find_phrase("quarterly football results", words())
    assert found is not None
    assert found[1] < 0.6
    assert find_phrase("x", []) is None
    assert find_phrase("?!", words()) is None


@pytest.mark.parametrize(
    ("sentence", "supported", "says"),
    [
        ('From 1.0s to 3.4s, the speaker says "the budget is mentioned here".', True, ""),
        ('From 1.0s to 3.4s, the speaker says "Mr. Smith likes tea".', False, "other words"),
        ("From 5.5s to 7.4s, somebody likes tea.", True, ""),
        ("From 100.0s to 101.0s, it is loud.", False, "nothing is said there"),
        ("From 3.4s to 1.0s, it runs backwards.", False, "ends before it starts"),
    ],
)
def test_a_citation_is_held_against_what_is_said_there(sentence: str, supported: bool, says: str) -> None:
    (citation,) = check_citations(sentence, words())
    assert citation.supported is supported
    assert says in citation.reason


def test_a_quotation_belongs_to_the_interval_before_it() -> None:
    text = 'From 1.0s to 3.4s it says "the budget is mentioned", from 5.5s to 7.4s "Mr. Smith likes tea".'
    assert [citation.quote for citation in check_citations(text, words())] == [
        "the budget is mentioned",
        "Mr. Smith likes tea",
    ]


def test_marks_change_neither_the_answer_nor_the_counts() -> None:
    text = (
        'let us see:\nFrom 100.25s to 101.5s, the speaker says "nothing".\n'
        'From 1.0s to 3.4s, the speaker says "the budget is mentioned here".\nFinal answer: (b) from 90.0s to 91.0s'
    )
    found = marked(text, words())
    lines = found.split("\n")
    assert lines[2].startswith(
        "(not supported by the transcript: what is cited at 100.25 s; nothing is said there"
    )
    assert lines[-2].startswith("(not supported by the transcript: what is cited at 90 s")
    assert lines[-1] == text.split("\n")[-1]
    assert count_mentions(found) == count_mentions(text)
    assert find_spans(found) == find_spans(text)
    assert [line for line in lines if not line.startswith("(not supported")] == text.split("\n")
    assert marked("(a) no times here", words()) == "(a) no times here"
    assert marked("", words()) == ""
