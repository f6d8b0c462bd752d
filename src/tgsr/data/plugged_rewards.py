"""What the plug-ins share: rows that `tgsr export` wrote, and what was answered to them, to the rewards of our runs.

It runs in other trainers' environments: of other packages it needs msgspec and safetensors, and inflect for rewards
that look at the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tgsr.choices import correct_letter
from tgsr.data.other_trainers import KEPT, kept_in
from tgsr.errors import RecordError
from tgsr.records import Question
from tgsr.rewards import Completion, RewardTerm, score_completions
from tgsr.timeline import Word
from tgsr.training.config import GrpoConfig
from tgsr.training.terms import reward_terms

BY_PLACE = ("place", "dense_grounding")  # terms that ask what is said where
ASKED = "tgsr_question"  # what a trainer's log calls the question, where a plug-in can write into it


def terms_of(**settings: Any) -> tuple[RewardTerm, ...]:
    """The terms of `tgsr train grpo` with these of its settings: reward, counter, answer_reader, c_max and so on.

    TypeError for a setting that it does not have, OptionError for a value that it does not take.
    """
    return reward_terms(GrpoConfig(questions="", **settings))


_ALL = [term for reward in ("paper", "grounded", "dense") for term in terms_of(reward=reward)]
TERMS: dict[str, RewardTerm] = {term.name: term for term in _ALL}
"""Each term by its name, for trainers that take and weigh them one by one: Eq. 3 is answer + timestamp_grounding,
`--reward grounded` answer + place, `--reward dense` answer + timestamp_grounding + dense_grounding."""

_STRICT = terms_of(reward="paper", counter="strict", answer_reader="strict")
STRICT: dict[str, RewardTerm] = {term.name: term for term in _STRICT}
"""Eq. 3's terms with `--counter strict` and `--answer-reader strict`."""


def rewards(
    completions: Sequence[Completion], kept: Sequence[object], terms: Sequence[RewardTerm]
) -> tuple[dict[str, list[float]], list[float]]:
    """`score_completions` of the answers to the rows whose column `tgsr` holds `kept`, one a completion.

    RecordError for a row without that column, for a phrase, and for a question whose clip's words a term needs and the
    row lacks.
    """
    asked = [_asked(one) if isinstance(one, str) else _asked_of(one) for one in kept]
    if any(term.name in BY_PLACE and term.weight for term in terms):
        for question, words in asked:
            if words is None or not (words or question.evidence):
                what = f"question {question.id!r} is without the words of its clip, which this reward needs"
                raise RecordError(KEPT, f"{what}: export again with --clips, or leave the question out")
    return score_completions(
        completions,
        terms,
        label=[correct_letter(question) for question, _ in asked],
        choices=[question.choices for question, _ in asked],
        words=[words for _, words in asked],
        duration=[question.duration for question, _ in asked],
        evidence=[question.evidence for question, _ in asked],
    )


def term_rewards(
    term: RewardTerm, completions: Sequence[Completion], kept: Sequence[object] | None
) -> list[float]:
    """One term's rewards, unweighted. `kept` is the column `tgsr`, None where there is none. Errors as in `rewards`."""
    rows = [None] * len(completions) if kept is None else kept
    return rewards(completions, rows, [term])[0][term.name]


def _asked_of(kept: object) -> tuple[Question, tuple[Word, ...] | None]:
    if kept is None:
        problem = "no such column: rewards are for files that `tgsr export` wrote; export again"
        raise RecordError(KEPT, problem)
    question, words = kept_in(kept)
    if question.kind != "choice":
        problem = f"question {question.id!r} is a {question.kind}, and rewards are for choice questions"
        raise RecordError(KEPT, f"{problem}: export with --kind choice")
    return question, words


_asked = lru_cache(maxsize=4096)(_asked_of)  # a question is answered many times in a row
