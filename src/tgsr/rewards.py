"""What a response earns in stage 2: Eq. 1, 2 and 3, in this order; then how a completion's text is read.

Rewards have the signature that TRL calls them by: a list of completions, the data set's columns by keyword, a list
of floats back. What the model wrote never raises: text that nothing can be read from earns 0. What the caller
passes is checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tgsr.choices import extract_choice, official_letter
from tgsr.grounding import count_distinct, count_mentions
from tgsr.reading.thoughts import with_thoughts

Completion = str | list[dict[str, Any]]
"""A text, or the messages of one response as TRL passes them for conversational data."""

K_REF, K_MAX, C_MAX, C_MIN = 1, 5, 0.5, 0.1
"""Eq. 2's settings; k_max, which the paper omits, is the value that its authors use."""

THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Where TRL and servers put what a model thought, so that its message's content lacks it."""

Counter = Literal["official", "strict"]
AnswerReader = Literal["official", "strict"]
_COUNTERS: dict[str, Callable[[str], int]] = {"official": count_mentions, "strict": count_distinct}
_LABEL = re.compile(r"\(([a-z])\)|([a-z])", re.IGNORECASE)

# --- Eq. 1 --------------------------------------------------------------------------------------------------------


def answer_reward(
    completions: Sequence[Completion],
    label: Sequence[str],
    reader: AnswerReader = "official",
    choices: Sequence[Sequence[str]] | None = None,
    **columns: Any,
) -> list[float]:
    """1.0 where the response's answer is the label, else 0.0: one float a completion.

    `label` holds one option letter a completion: "b", "B" or "(b)". With the reader "official" the letter of a response
    is the first "(a)" to "(d)" in its last line that is not blank, so a label "e" is never met. "strict" takes the
    option that a careful reader sees meant, of any number of them; it needs the `choices` of each completion, and
    counts a choice of the same text as the right one.
    ValueError where the lengths differ, a label is no letter, or a strict one is none of its choices.
    Source: Eq. 1; the official extraction is the one that the paper's authors use.
    """
    if isinstance(label, str) or len(label) != len(completions):
        raise ValueError(
            f"label must be a list of {len(completions)} letters, one for each completion, got {label!r}"
        )
    letters = []
    for index, text in enumerate(label):
        match = _LABEL.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f'label[{index}] must be one option letter such as "b" or "(b)", got {text!r}')
        letters.append((match[1] or match[2]).lower())
    texts = [completion_text(completion) for completion in completions]
    if reader == "official":
        return [float(official_letter(text) == letter) for text, letter in zip(texts, letters, strict=True)]
    if reader != "strict":
        raise ValueError(f"reader must be official or strict, got {reader!r}")
    if choices is None or len(choices) != len(completions):
        raise ValueError(f"choices must be a list of {len(completions)} lists: the strict reader needs them")
    return list(map(_strictly_right, texts, letters, choices))


def _strictly_right(text: str, letter: str, choices: Sequence[str]) -> float:
    place = ord(letter) - ord("a")
    if place >= len(choices):
        raise ValueError(f"label {letter!r} is none of the {len(choices)} choices {list(choices)!r:.80}")
    chosen = extract_choice(text, choices)
    return float(chosen is not None and choices[chosen] == choices[place])


def is_payable(label: str) -> bool:
    """Whether the official reward can ever be 1 for this right option's letter: it reads "(a)" to "(d)"."""
    return answer_reward([f"({label})"], [label]) == [1.0]


# --- Eq. 2 --------------------------------------------------------------------------------------------------------


def compaction(
    k: int, k_ref: int = K_REF, k_max: int = K_MAX, c_max: float = C_MAX, c_min: float = C_MIN
) -> float:
    """The reward for k timestamps: 0 for none, c_max up to k_ref, c_min from k_max on, a line between.

    With c_min = c_max any number of them earns the same ("w/o compaction").
    ValueError for k < 0, k_ref < 0, k_max <= k_ref or c_min > c_max. Source: Eq. 2.
    """
    check_compaction(k_ref, k_max, c_max, c_min)
    if k < 0:
        raise ValueError(f"k counts timestamps and must be >= 0, got {k}")
    if k == 0:
        return 0.0
    if k <= k_ref:
        return c_max
    if k >= k_max:
        return c_min
    return c_max - (k - k_ref) * (c_max - c_min) / (k_max - k_ref)


def timestamp_grounding_reward(
    completions: Sequence[Completion],
    k_ref: int = K_REF,
    k_max: int = K_MAX,
    c_max: float = C_MAX,
    c_min: float = C_MIN,
    counter: Counter = "official",
    **columns: Any,
) -> list[float]:
    """The compaction score of each response's timestamps: one float in {0} or [c_min, c_max] a completion.

    counter "official" counts mentions of the five surface forms that the paper's authors count, "strict"
    distinct intervals in any notation, look-alikes left out. With the defaults 0, 1, 2, 3, 4, 5 or
    more timestamps earn 0, .5, .4, .3, .2, .1.
    ValueError for an unknown counter and where `compaction` refuses the parameters.
    Source: Eq. 2; k_max = 5, which the paper omits, is the value that its authors use.
    """
    if counter not in _COUNTERS:
        raise ValueError(f"counter must be one of {sorted(_COUNTERS)}, got {counter!r}")
    check_compaction(k_ref, k_max, c_max, c_min)  # also where there is no completion
    count = _COUNTERS[counter]
    return [
        compaction(count(completion_text(completion)), k_ref, k_max, c_max, c_min)
        for completion in completions
    ]


def check_compaction(k_ref: int, k_max: int, c_max: float, c_min: float) -> None:
    """ValueError unless 0 <= k_ref < k_max and c_min <= c_max."""
    if not (0 <= k_ref < k_max and c_min <= c_max):
        raise ValueError(
            "need 0 <= k_ref < k_max and c_min <= c_max, "
            f"got k_ref={k_ref}, k_max={k_max}, c_max={c_max}, c_min={c_min}"
        )


# --- Eq. 3 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RewardTerm:
    """One summand of a reward: what it is called, how it is computed, what it weighs.

    `function` is called as TRL calls rewards: function(completions=..., **columns) -> list of floats.
    Settings go in by functools.partial(timestamp_grounding_reward, counter="strict").
    ValueError for an empty name or a weight that is not finite.
    """

    name: str
    function: Callable[..., Sequence[float]]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.name or not math.isfinite(self.weight):
            raise ValueError(
                f"a reward term needs a name and a finite weight, got {self.name!r} and {self.weight}"
            )


PAPER_TERMS = (
    RewardTerm("answer", answer_reward),
    RewardTerm("timestamp_grounding", timestamp_grounding_reward),
)
"""Eq. 3: R = R_answer + R_tg, each with the weight 1."""


def score_completions(
    completions: Sequence[Completion], terms: Sequence[RewardTerm] = PAPER_TERMS, **columns: Any
) -> tuple[dict[str, list[float]], list[float]]:
    """Every term's rewards by name, unweighted, and the weighted totals: one float a completion each.

    ValueError where two terms share a name, or where one returns another number of rewards than there
    are completions or one that is not finite. Source: Eq. 3.
    """
    weights = {term.name: term.weight for term in terms}
    if len(weights) != len(terms):
        raise ValueError(f"reward terms must have distinct names, got {[term.name for term in terms]}")
    rewards: dict[str, list[float]] = {}
    for term in terms:
        returned = term.function(completions=completions, **columns)
        values = [math.nan if value is None else float(value) for value in returned]
        if len(values) != len(completions) or not all(map(math.isfinite, values)):
            raise ValueError(
                f"reward term {term.name!r} must return a finite reward for each of the {len(completions)} "
                f"completions, got {values}"
            )
        rewards[term.name] = values
    totals = [
        math.fsum(weights[name] * values[index] for name, values in rewards.items())
        for index in range(len(completions))
    ]
    return rewards, totals


def completion_text(completion: Any) -> str:
    """What the model wrote, as one text: the completion, or its assistant messages joined by line breaks.

    A message's content is a text or a list of parts, of which the text parts count. What a trainer or server has filed
    under thoughts is what the model wrote, too, and comes back in <think> tags before the content. Whatever else
    stands there has no text: "" for a completion that holds none.
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Mapping):
        completion = [completion]
    if not isinstance(completion, Sequence):
        return ""
    messages = [m for m in completion if isinstance(m, Mapping) and m.get("role", "assistant") == "assistant"]
    return "\n".join(map(_message_text, messages))


def _message_text(message: Mapping[str, Any]) -> str:
    parts = message.get("content")
    parts = parts if isinstance(parts, Sequence) and not isinstance(parts, str) else ()
    filed = [
        *map(message.get, THOUGHTS),
        *(part.get("thinking") for part in parts if isinstance(part, Mapping)),
    ]
    thoughts = next((text.strip() for text in filed if isinstance(text, str) and text.strip()), "")
    return with_thoughts(thoughts, _content_text(message.get("content")))


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    return "".join(text for text in texts if isinstance(text, str))
