"""Passages: what is cited with a line, which one answers, what is declined. Embeddings are those of single words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tgsr.answering.passages import (
    CLOSE,
    Match,
    Passages,
    evidence,
    lacks,
    matches,
    sentence_around,
)
from tgsr.data.transcribe.transcript import Line, lines_of
from tgsr.models.answer_finder import AnswerFinder
from tgsr.models.sentence_embeddings import SentenceEmbeddings
from tgsr.timeline import Span, Word

SAID = (
    "Anna will write the report. Lunch is at noon in the garden. The budget was cut by ten percent in March."
)


def words(text: str, pause: float = 0.5, start: float = 1.0) -> list[Word]:
    """Half a second a word, and `pause` seconds after each sentence."""
    found = []
    for word in text.split():
        found.append(Word(word, start, start + 0.4))
        start += 0.4 + (pause if word.endswith(".") else 0.1)
    return found


@pytest.fixture(scope="module")
def embeddings() -> SentenceEmbeddings:
    """A BERT without layers: every word has a direction of its own, and a text is the mean of its words."""
    known = ["[UNK]", *sorted({word.strip(".").lower() for word in SAID.split()}), "who", "writes"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(known)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    vectors = np.random.default_rng(0).standard_normal((len(known), 64)).astype(np.float32)
    tensors = {
        "embeddings.word_embeddings.weight": vectors,
        "embeddings.position_embeddings.weight": np.zeros((512, 64), np.float32),
        "embeddings.token_type_embeddings.weight": np.zeros((2, 64), np.float32),
        "embeddings.LayerNorm.weight": np.ones(64, np.float32),
        "embeddings.LayerNorm.bias": np.zeros(64, np.float32),
    }
    return SentenceEmbeddings(tensors, tokenizer, 1, 1e-12)


@pytest.fixture(scope="module")
def finder(embeddings: SentenceEmbeddings) -> AnswerFinder:
    """One to whom every passage answers as surely."""
    return AnswerFinder.of(embeddings, {"ends.weight": np.zeros((2, 64)), "ends.bias": np.zeros(2)})


def test_a_long_sentence_is_cited_whole_and_no_other_with_it() -> None:
    long = "First of all Mr. Smith said that " + "he would, " * 9 + "and left."
    lines = lines_of(words(f"It was late. {long} Nobody knew why."))
    assert [len(line.words) for line in lines] == [3, 16, 11, 3]
    assert [sentence_around(lines, index) for index in range(4)] == [
        slice(0, 1),
        slice(1, 3),
        slice(1, 3),
        slice(3, 4),
    ]
    assert sentence_around(lines_of(words("word " * 48)), 1) == slice(0, 2)  # no more than MOST_WORDS


@pytest.mark.parametrize(("pause", "n"), [(1.0, 2), (1.5, 1)])
def test_no_sentence_goes_on_across_a_long_pause(pause: float, n: int) -> None:
    lines = lines_of([*words("the budget"), *words("was cut", start=2.0 + pause)])
    assert len(lines) == 2
    assert sentence_around(lines, 0) == slice(0, n)


def test_the_passage_that_shares_most_is_cited_of_the_recording_that_says_it(
    embeddings: SentenceEmbeddings, finder: AnswerFinder, tmp_path: Path
) -> None:
    recordings = [
        Passages.of(words(text, 2.0), embeddings, tmp_path / "clip")
        for text in ("", "Lunch is at noon today in the garden.", SAID)
    ]
    question = "when was the budget cut"
    ranked = matches(question, finder, recordings)
    assert len(ranked) == 4
    assert ranked[0].recording == 2
    assert ranked[0].line.text.startswith("The budget")
    assert evidence(ranked)[0] == ranked[0].line
    again = Passages.of(words(SAID, 2.0), embeddings, tmp_path / "clip")
    assert np.array_equal(again.vectors_NW, recordings[2].vectors_NW)
    assert matches(question, finder, recordings[:1]) == []
    assert evidence([]) == []


@pytest.mark.parametrize("content", [b"", b"no vectors", b"other"])
def test_kept_vectors_that_are_damaged_or_too_few_are_made_again(
    content: bytes, embeddings: SentenceEmbeddings, tmp_path: Path
) -> None:
    made = Passages.of(words(SAID), embeddings, tmp_path / "clip")
    (kept,) = tmp_path.iterdir()
    if content == b"other":
        np.save(kept, made.vectors_NW[:2])
    else:
        kept.write_bytes(content)
    again = Passages.of(words(SAID), embeddings, tmp_path / "clip")
    assert np.array_equal(again.vectors_NW, Passages.of(words(SAID), embeddings).vectors_NW)
    assert len(np.load(kept)) == len(made.lines) + 2 * len(made.sentences)


@pytest.mark.parametrize(
    ("said", "pause", "expected"),
    [
        ("Who will write the report? Anna will.", 0.8, "Who will write the report? Anna will."),
        ("The report. Anna will write it.", 1.5, "The report."),
        ("The report. Anna will write it.", 0.8, "The report. Anna will write it."),
        ("Anna will write it. Lunch is at noon.", 0.8, "Anna will write it."),
        ("Anna will write it.", 0.8, "Anna will write it."),
        ("lunch " * 40, 0.8, ("lunch " * 40).strip()),  # a sentence without a stop, longer than MOST_WORDS
    ],
)
def test_what_goes_on_is_cited_with_a_question_a_snatch_and_what_is_cut_off(
    said: str, pause: float, expected: str, embeddings: SentenceEmbeddings
) -> None:
    assert Passages.of(words(said, pause), embeddings).cited(0).text == expected


def test_lines_are_of_one_speaker_and_those_of_the_named_alone_are_found(
    embeddings: SentenceEmbeddings,
    finder: AnswerFinder,
) -> None:
    """Anna's sentence goes on while Bob, who says the same words, cuts in."""
    anna = [replace(word, speaker="A") for word in words("The budget was cut in the garden.")]
    bob = [replace(word, speaker="B") for word in words("The budget was cut by Anna.", start=1.2)]
    passages = Passages.of(sorted([*anna, *bob], key=lambda word: word.start), embeddings)
    assert all(len({word.speaker for word in line.words}) == 1 for line in passages.lines)
    assert {passages.sentence(n).text for n in range(2)} == {
        "The budget was cut in the garden.",
        "The budget was cut by Anna.",
    }
    for speaker in "AB":
        found = matches("was the budget cut", finder, [passages], speakers=[(speaker,)])
        assert {match.line.speaker for match in found} == {speaker}
    assert len(matches("was the budget cut", finder, [passages])) == 2


def line(start: float) -> Line:
    return Line((Word("word", start, start + 1.0),))


def test_a_second_passage_is_cited_where_it_is_almost_as_good_and_elsewhere() -> None:
    ranked = [Match(0, line(at), score) for at, score in ((5.0, 0.8), (5.5, 0.79), (1.0, 0.75), (9.0, 0.74))]
    assert [one.span for one in evidence(ranked)] == [Span(5.0, 6.0), Span(1.0, 2.0)]
    assert [one.span for one in evidence(ranked[:1] + ranked[3:], 0.81)] == []
    assert len(evidence([ranked[0], Match(0, line(1.0), 0.8 - CLOSE - 0.01)])) == 1


@pytest.mark.parametrize(
    ("question", "passage", "expected"),
    [
        ("How many dogs were there?", "They took their dogs along.", True),
        ("How many dogs were there?", "They took eleven dogs along.", False),
        ("How much was it?", "It cost $5.", False),
        ("How often does he call?", "He calls a lot.", False),  # a number is one way to say it
        ("In which year did it end?", "It ended in 1912.", False),
        ("In which year did it end?", "It ended well.", True),
        ("Which day was it?", "It was a Friday.", False),
        ("What colour was it?", "It was a big one.", True),
        ("What color was it?", "It was grey.", False),
        ("When is lunch?", "Lunch is in the garden.", False),  # "when" asks for the second, too
    ],
)
def test_what_is_asked_for_must_be_in_a_passage(question: str, passage: str, expected: bool) -> None:
    assert lacks(question, passage) == expected
