"""What a model's outputs are worth, response by response: the measures that stand elsewhere, side by side.

Nothing is measured anew here but how a text goes about its citing: in which notation, in which order with its answer,
and whether its reasoning ends where its answer does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tgsr.choices import correct_letter, extract_choice, read_choice
from tgsr.evaluation.behaviour.consistency import reasoning_of
from tgsr.evaluation.reward_hacking import POLICIES
from tgsr.evaluation.scoring.items import ScoredChoice, score_response
from tgsr.evaluation.scoring.responses import UNKNOWN_LENGTH, Answered, official_of
from tgsr.grounding import count_mentions, find_points, mentions_in, regions_in, valid_spans
from tgsr.reading.thoughts import MARK
from tgsr.reasoning import reasoning_steps
from tgsr.records import Question, Response
from tgsr.rewards import PAPER_TERMS, score_completions, timestamp_grounding_reward
from tgsr.statistics.intervals import Bootstrap, Mean, mcnemar_exact
from tgsr.timeline import ROUNDING, Word, is_past_end

WIDE = 0.5  # of a clip: an interval that covers more of it points at nothing
MOST_NOTATIONS = 8
N_LETTERS = 26  # an option after (z) has none, and no reward
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_ANNOUNCES = re.compile(
    r"\b(?:answers?|options?|choices?|correct|final|choose|pick|select)\b|\([a-z]\)|答案", re.IGNORECASE
)
_BESIDE = 24  # characters beside an option's name in which a text says that it is the answer
_TAG = re.compile(MARK, re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reward:
    """What Eq. 3 pays a response: for its letter, and for its citations.

    `is_ungrounded`: what it cites is not the evidence, or, where none is marked, what it quotes is not said there; None
    where nobody knows, or it cites or quotes nothing. `blind` is what a policy that hears nothing is paid for the
    question on the average: one citation of the first second, and a guess.
    """

    answer: float
    citing: float
    blind: float
    is_ungrounded: bool | None

    @property
    def paid(self) -> float:
        return self.answer + self.citing


@dataclass(frozen=True, slots=True)
class Audited:
    """One response. What cannot be said of it is None; shares are over those of which it can.

    official: by the benchmark's owner's rule on the answer as it was handed over, without an owner by the letter in the
    last line; strict: the option that the text ends up with. k_official and k_strict: mentions by the authors' counter,
    distinct intervals by ours. n_points: single times. is_invalid, is_past_end, is_wide: whether an interval ends
    before it starts, ends after the clip, covers more than half of it; of responses with intervals alone. answer_first:
    the text announces an option as its answer before it cites any time. contradicts: its reasoning, read by itself,
    announces another option than its answer is; None where either is unclear. follows: a judge's verdict. verify: the
    similarity of what it says is said at its intervals with what a recogniser hears there.
    """

    id: str
    model: str
    clip: str
    official: bool | None
    strict: bool | None
    k_official: int
    k_strict: int
    n_points: int
    notations: tuple[str, ...]
    is_invalid: bool | None = None
    is_past_end: bool | None = None
    is_wide: bool | None = None
    evidence_hit: bool | None = None
    quote_truth: bool | None = None
    is_unclear: bool | None = None
    answer_first: bool | None = None
    contradicts: bool | None = None
    follows: bool | None = None
    verify: float | None = None
    reward: Reward | None = None

    @property
    def cites(self) -> bool:
        return bool(self.k_strict or self.is_invalid)


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of the audit: its value for one response, None where it has none, and which responses show it."""

    key: str
    title: str
    value: Callable[[Audited], float | None]
    shows: Callable[[Audited], object]
    is_share: bool = True


def _has(name: str) -> Callable[[Audited], float | None]:
    return lambda one: getattr(one, name)


def _lacks(name: str) -> Callable[[Audited], object]:
    return lambda one: getattr(one, name) is False


def _of_reward(part: Callable[[Reward], float]) -> Callable[[Audited], float | None]:
    return lambda one: None if one.reward is None else part(one.reward)


MEASURES = (
    Measure("official", "right, by the owner's scorer", _has("official"), lambda one: one.strict != one.official),
    Measure("strict", "right, by what the text ends up with", _has("strict"), _lacks("strict")),
    Measure("unclear", "names no option clearly", _has("is_unclear"), _has("is_unclear")),
    Measure("cites", "cites an interval", lambda one: one.cites, lambda one: one.cites),
    Measure(
        "points", "cites single times alone",
        lambda one: bool(one.n_points) and not one.cites, lambda one: one.n_points and not one.cites,
    ),
    Measure("counted", "cites something that the authors' counter sees", lambda one: one.k_official > 0,
            lambda one: one.k_official and not one.cites),
    Measure("once", "is counted to cite once (k = 1)", lambda one: one.k_official == 1,
            lambda one: one.k_official == 1 and one.k_strict != 1),
    Measure("invalid", "an interval that ends before it starts", _has("is_invalid"), _has("is_invalid")),
    Measure("past_end", "an interval past the clip's end", _has("is_past_end"), _has("is_past_end")),
    Measure("wide", "an interval over more than half of the clip", _has("is_wide"), _has("is_wide")),
    Measure("evidence", "cites the evidence", _has("evidence_hit"), _lacks("evidence_hit")),
    Measure("quotes", "quotes what is said there", _has("quote_truth"),
            lambda one: one.quote_truth is False and one.cites),
    Measure("answer_first", "answers before it cites", _has("answer_first"), _has("answer_first")),
    Measure("contradicts", "reasons to another answer than it gives", _has("contradicts"), _has("contradicts")),
    Measure("follows", "its answer follows from its reasoning (judge)", _has("follows"), _lacks("follows")),
    Measure("k_official", "k, the authors' counter", lambda one: float(one.k_official),
            lambda one: one.k_official > 4, is_share=False),
    Measure("k_strict", "k, distinct intervals", lambda one: float(one.k_strict),
            lambda one: one.k_strict > 4, is_share=False),
    Measure("verify", "Audiology Verify", _has("verify"),
            lambda one: one.verify is not None and one.verify < 0.2, is_share=False),
    Measure("paid", "reward by the paper's rule", _of_reward(lambda reward: reward.paid),
            lambda one: one.reward and one.reward.citing and not one.reward.answer, is_share=False),
    Measure("paid_answer", "of it for the answer", _of_reward(lambda reward: reward.answer),
            lambda one: one.reward and one.strict and not one.reward.answer, is_share=False),
    Measure("paid_citing", "of it for citing", _of_reward(lambda reward: reward.citing),
            lambda one: one.reward and one.cites and not one.reward.citing, is_share=False),
    Measure("paid_blind", "what is paid for a guess and “0 to 1 s”", _of_reward(lambda reward: reward.blind),
            lambda one: False, is_share=False),
    Measure("paid_ungrounded", "of what is paid for citing, for what is not there",
            lambda one: None if one.reward is None or one.reward.is_ungrounded is None or not one.reward.citing
            else float(one.reward.is_ungrounded),
            lambda one: one.reward and one.reward.citing and one.reward.is_ungrounded),
)  # fmt: skip
"""What the audit says of each model, in the table's order; docs/audit.md says what each means."""


@dataclass(frozen=True, slots=True)
class Paired:
    """How often a measure holds of `other` less how often of `model`, on responses to the same questions.

    p_mcnemar: the exact test, of shares alone; None where no question tells the two apart.
    """

    model: str
    other: str
    measure: str
    difference: Mean
    p_mcnemar: float | None


# --- one response ------------------------------------------------------------------------------------------------


def audited(
    answer: Answered,
    words: Sequence[Word] | None = None,
    *,
    verify: float | None = None,
    follows: bool | None = None,
) -> Audited:
    """The measures of one answer; `words` are its clip's, where they are known. No text raises."""
    response = answer.response
    question, text = response.question, response.text
    mentions = regions_in(response)
    length = None if UNKNOWN_LENGTH in question.labels else question.duration
    spans = valid_spans(mentions)
    has_length = bool(mentions) and length is not None
    choice = next((item for item in score_response(response, words) if isinstance(item, ScoredChoice)), None)
    cited = choice.evidence.cited if choice is not None and choice.evidence is not None else None
    evidence_hit = None if cited is None else cited.evidence_hit
    quote_truth = None if cited is None else cited.quote_truth
    return Audited(
        id=question.id,
        model=response.model,
        clip=question.clip_id,
        official=None if choice is None else official_of(answer),
        strict=None if choice is None else choice.strict,
        k_official=count_mentions(text),
        k_strict=len({(span.start, span.end) for span in spans}) if choice is None else choice.n_regions or 0,
        n_points=0 if choice is None else _n_points(text, question.choices),
        notations=tuple(dict.fromkeys(notation(text[m.text_start : m.text_end]) for m in mentions)),
        is_invalid=any(mention.span is None for mention in mentions) if mentions else None,
        is_past_end=any(is_past_end(m.end, length or 0) for m in mentions) if has_length else None,
        is_wide=any(s.duration > WIDE * (length or 0) + ROUNDING for s in spans) if has_length else None,
        evidence_hit=evidence_hit,
        quote_truth=quote_truth,
        is_unclear=None if choice is None else choice.chosen is None,
        answer_first=None if choice is None else _answers_first(response),
        contradicts=None if choice is None else _contradicts(response),
        follows=follows,
        verify=verify,
        reward=None if choice is None else _reward(response, evidence_hit, quote_truth),
    )


def _n_points(text: str, choices: Sequence[str]) -> int:
    """The single times that the text gives; those that are an option ("00:10:00") point at nothing."""
    written = (text[point.text_start : point.text_end] for point in find_points(text))
    return sum(not any(one in choice for choice in choices) for one in written)


def notation(written: str) -> str:
    """The form of an interval as it is written, with N for each number: "N:N-N:N", "Ns to Ns"."""
    return " ".join(_NUMBER.sub("N", written.lower().replace("–", "-")).split())


def _answers_first(response: Response) -> bool | None:
    """Whether what stands before the first time announces an option as the answer; None where no time is cited."""
    text, choices = response.text, response.question.choices
    places = [mention.text_start for mention in mentions_in(response)]
    places += [point.text_start for point in find_points(text)]
    if not places:
        return None
    return _announced(_TAG.sub("", text[: min(places)]), choices) is not None


def _contradicts(response: Response) -> bool | None:
    text, choices = response.text, response.question.choices
    chosen = extract_choice(text, choices)
    reasoned = _announced(reasoning_of(text, choices), choices)
    return None if chosen is None or reasoned is None else choices[chosen] != choices[reasoned]


def _announced(text: str, choices: Sequence[str]) -> int | None:
    """The option that the text says is the answer, in such words; None where it only speaks of it, as thoughts do."""
    reading = read_choice(text, choices)
    beside = text[max(0, reading.start - _BESIDE) : reading.end + _BESIDE]
    return reading.index if _ANNOUNCES.search(beside) else None


def _reward(response: Response, evidence_hit: bool | None, quote_truth: bool | None) -> Reward | None:
    question = response.question
    if question.choices.index(str(question.answer)) >= N_LETTERS:
        return None
    paid, _ = score_completions([response.text], PAPER_TERMS, label=[correct_letter(question)])
    is_grounded = evidence_hit
    if is_grounded is None and any(step.is_quoted for step in reasoning_steps(response.text)):
        is_grounded = quote_truth
    (answer,), (citing,) = paid["answer"], paid["timestamp_grounding"]
    is_ungrounded = None if is_grounded is None or not citing else not is_grounded
    # Of letters: Eq. 1 pays one, also where two choices have the right text.
    guess = 1 / len(question.choices)
    return Reward(answer, citing, guess + _blind(question), is_ungrounded)


def _blind(question: Question) -> float:
    """What Eq. 2 pays the policy that cites the first second, whatever it is asked."""
    policy = next(policy for policy in POLICIES if policy.name == "first second")
    (paid,) = timestamp_grounding_reward([policy.write(question, (), np.random.default_rng(0))])
    return paid


# --- many responses ----------------------------------------------------------------------------------------------


def audit_means(items: Sequence[Audited], bootstrap: Bootstrap) -> dict[str, Mean]:
    """The mean of each of MEASURES with its 95 % interval over clips; `n` says of how many responses it is."""
    columns = {measure.key: [_number(measure, item) for item in items] for measure in MEASURES}
    return bootstrap.means(columns, [item.clip for item in items])


def notation_means(items: Sequence[Audited], bootstrap: Bootstrap) -> dict[str, Mean]:
    """Of the responses that cite intervals, how many do so in each notation; the most frequent, the others as one."""
    citing = [item for item in items if item.notations]
    counts = Counter(one for item in citing for one in item.notations)
    first = [name for name, _ in counts.most_common(MOST_NOTATIONS)]
    columns = {name: [float(name in item.notations) for item in citing] for name in first}
    if len(counts) > len(first):
        columns["others"] = [float(not set(first).issuperset(item.notations)) for item in citing]
    return bootstrap.means(columns, [item.clip for item in citing]) if citing else {}


def examples(items: Sequence[Audited], seed: int = 0, n: int = 5) -> dict[str, tuple[Audited, ...]]:
    """For each measure the first n responses that show it, of all in one random order: so that a few show much."""
    order = [items[index] for index in np.random.default_rng(seed).permutation(len(items))]
    return {measure.key: tuple([item for item in order if measure.shows(item)][:n]) for measure in MEASURES}


def paired(model: Sequence[Audited], other: Sequence[Audited], bootstrap: Bootstrap) -> list[Paired]:
    """Each measure's difference on the questions that both answered once and of which it is known of both."""
    before, after = _once(model), _once(other)
    shared = [id_ for id_ in before if id_ in after]
    found = []
    for measure in MEASURES:
        pairs = [(_number(measure, before[id_]), _number(measure, after[id_])) for id_ in shared]
        differences = [None if a is None or b is None else b - a for a, b in pairs]
        mean, _ = bootstrap.paired(differences, [before[id_].clip for id_ in shared])
        if mean is None or mean.value is None:
            continue
        p = mcnemar_exact(differences.count(-1.0), differences.count(1.0)) if measure.is_share else None
        found.append(Paired(model[0].model, other[0].model, measure.key, mean, p))
    return found


def _once(items: Sequence[Audited]) -> Mapping[str, Audited]:
    n_answers = Counter(item.id for item in items)
    return {item.id: item for item in items if n_answers[item.id] == 1}


def _number(measure: Measure, item: Audited) -> float | None:
    value = measure.value(item)
    return None if value is None else float(value)
