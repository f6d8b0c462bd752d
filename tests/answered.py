"""A hundred responses to ten questions about clips whose words are known, in every form that a reward reads."""

from __future__ import annotations

from tgsr.choices import correct_letter, letter
from tgsr.records import Question
from tgsr.timeline import Span, Word

SAID = "we meet at ten past nine and the train leaves at eleven"
WORDS = tuple(
    Word(text, round(0.5 * i + 0.1, 2), round(0.5 * i + 0.4, 2)) for i, text in enumerate(SAID.split())
)
CHOICES = (
    ("the host", "the guest", "nobody"),
    ("at ten", "at nine", "at eleven", "never"),
    ("a", "b", "c", "d", "five of them"),  # its answer is (e), which the official reader does not know
)


def asked() -> list[Question]:
    """Ten questions, one of them with two places of evidence and some with none, of two to five choices."""
    questions = []
    for n in range(10):
        choices = CHOICES[n % 3]
        evidence = (Span(1.1, 2.9), Span(4.1, 5.9))[: (n + 2) % 3]
        questions.append(
            Question(
                f"q{n}", f"c{n}", f"a{n}.wav", 6.5, "choice", f"Who or when, {n}?", choices=choices,
                answer=choices[-1 - n % 2], evidence=evidence, task="order" if n % 2 else None, split="train",
            )
        )  # fmt: skip
    return questions


def words_by_clip() -> dict[str, tuple[Word, ...]]:
    return {question.clip_id: WORDS for question in asked()}


def responses(question: Question) -> list[str]:
    right = correct_letter(question)
    wrong = letter((question.choices.index(str(question.answer)) + 1) % len(question.choices))
    return [
        f'From 1.1 seconds to 2.9 seconds he says "at ten past nine".\nFinal answer: ({right})',
        f'From 1.1 seconds to 2.9 seconds he says "the train leaves".\n({right})',
        f'[1.00s - 3.00s] "ten past nine" and (4.1-5.9 s) "the train leaves at eleven".\nFinal answer: ({wrong})',
        f"From 0 to 6.5 seconds they talk.\nFinal answer: ({right}) {question.answer}",
        " ".join(f"From {n} to {n + 1} seconds it goes on." for n in range(7)) + f"\n({right.upper()})",
        f"From 9.0 to 12.0 seconds, from 3 to 2 seconds, and 0:04 - 0:05.\nThe answer is {question.answer}.",
        f"There is a pause from 1930s to 1940s, options (3, 4).\n\n({wrong})\n",
        f"<think>From 1.2 seconds to 1.5 seconds.</think>\n{question.answer}",
        "",
        f"Er sagt \u201eat ten\u201c von 1.1 s bis 1.9 s \u2013 also ({right}).\u2028\U0001f600",
    ]
