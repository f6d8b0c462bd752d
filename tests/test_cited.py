"""What each cited place of a response holds."""

import pytest

from tgsr.records import Question, Response
from tgsr.report.cited import cited_places
from tgsr.timeline import Span, Word

WORDS = tuple(Word(text, i, i + 0.8) for i, text in enumerate(("one", "two", "three", "four", "five")))
EVIDENCE = (Span(2.0, 3.8),)


def choice(**more: object) -> Question:
    given: dict[str, object] = {"answer": "yes", "choices": ("yes", "no"), "evidence": EVIDENCE} | more
    return Question("q", "c", "c.wav", 5.0, "choice", "Which?", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "hits", "said", "true"),
    [
        ('From 2.0s to 3.8s, "three four".\n(a) yes', [True], [("three", "four")], [True]),
        ('"Three, four!" is said (2.0s - 3.8s).\n(a) yes', [True], [("three", "four")], [True]),
        ('From 0.0s to 1.8s, "three four".\n(a) yes', [False], [("one", "two")], [False]),
        ("From 2.0s to 3.8s two numbers.\n(a) yes", [True], [("three", "four")], [None]),
        ('From 3.8s to 2.0s, "three".\n(a) yes', [False], [()], [False]),
        ('From 900s to 901s, "three".\n(a) yes', [False], [()], [False]),
        ('From 4.9s to 5.0s, "".\n(a) yes', [False], [()], [None]),
        (
            'From 0.0s to 0.8s, "one". From 2.0s to 3.8s, "nine".\n(a)',
            [False, True], [("one",), ("three", "four")], [True, False],
        ),
        ("Final answer: (a) yes", [], [], []),
        ("", [], [], []),
    ],
)  # fmt: skip
def test_each_place_is_held_against_the_evidence_and_the_words(
    text: str, hits: list[bool], said: list[tuple[str, ...]], true: list[bool | None]
) -> None:
    places = cited_places(Response(choice(), "m", text), WORDS)
    assert [place.is_hit for place in places] == hits
    assert [place.said for place in places] == said
    assert [place.is_quote_true for place in places] == true


def test_what_nobody_knows_is_neither_true_nor_false() -> None:
    text = 'From 2.0s to 3.8s, "three four".\n(a) yes'
    (place,) = cited_places(Response(choice(evidence=()), "m", text), None)
    assert (place.is_hit, place.said, place.quoted, place.is_quote_true) == (
        None,
        None,
        ("three", "four"),
        None,
    )


def test_a_located_phrase_has_the_place_that_its_answer_gives() -> None:
    question = Question("p", "c", "c.wav", 5.0, "phrase", "Where?", phrase="three four", evidence=EVIDENCE)
    (place,) = cited_places(Response(question, "m", "[2.0, 3.0]"), WORDS)
    assert (place.is_hit, place.said) == (True, ("three",))
