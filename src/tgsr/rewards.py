"""What a response earns in stage 2: plain functions, named terms, weights.

`answer_reward` and `timestamp_grounding_reward` have the signature that TRL calls rewards by: a list
of completions, the data set's columns by keyword, a list of floats back; so has `dense_grounding_reward`, which
is ours (appendix D asks for one). What the model wrote never raises: text that nothing can be read from
earns 0. What the caller passes is checked.
"""

from __future__ import annotations

import math
import re
from collections import Counter as Bag
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from tgsr.choices import official_letter
from tgsr.grounding import Mention, count_distinct, count_mentions, find_mentions
from tgsr.overlap import evidence_crop, trace_iou
from tgsr.prompts import REASONING_OPENING
from tgsr.timeline import END_SLACK, Seconds, Span, Word, merge

Completion = str | list[dict[str, Any]]
"""A text, or the messages of one response as TRL passes them for conversational data."""

K_REF, K_MAX, C_MAX, C_MIN = 1, 5, 0.5, 0.1
"""Eq. 2's settings; k_max, which the paper omits, is the value that its authors use."""

Counter = Literal["official", "strict"]
_COUNTERS: dict[str, Callable[[str], int]] = {"official": count_mentions, "strict": count_distinct}
_LABEL = re.compile(r"\(([a-z])\)|([a-z])", re.IGNORECASE)


def answer_reward(completions: Sequence[Completion], label: Sequence[str], **columns: Any) -> list[float]:
    """1.0 where the response's final letter is the label, else 0.0: one float a completion.

    `label` holds one option letter a completion: "b", "B" or "(b)". The letter of a response is the
    first "(a)" to "(d)" in its last line that is not blank, so a label "e" is never met.
    ValueError where the lengths differ or a label is no letter.
    Source: Eq. 1; the extraction is the one that the paper's authors use.
    """
    if isinstance(label, str) or len(label) != len(completions):
        raise ValueError(
            f"label must be a list of {len(completions)} letters, one for each completion, got {label!r}"
        )
    letters = [_label_letter(text, at) for at, text in enumerate(label)]
    return [
        float(official_letter(completion_text(completion)) == letter)
        for completion, letter in zip(completions, letters, strict=True)
    ]


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


# --- what each reasoning step earns (appendix D) ---------------------------------------------------------------

ROUNDING: Seconds = 1e-9  # 0.6 - 0.4 is not quite 0.2
UNMARKED_SHARE = 0.5  # of a clip that may be cited for nothing where nobody marked the evidence


@dataclass(frozen=True, slots=True)
class ReasoningStep:
    """C.4's reasoning step: an interval as it was stated, with the words of its explanation.

    `heard` are the words of the quotes in it; where it quotes nothing, all its words, and `is_quoted` is False.
    """

    mention: Mention
    heard: tuple[str, ...]
    is_quoted: bool


@dataclass(frozen=True, slots=True)
class StepCredit:
    """What one reasoning step is worth, in [0, 1], and why, in words for a log.

    `said` are the words that are really said in the span, `heard` those of the explanation. `span` is None
    where the stated interval is none (its end is not after its start).
    """

    span: Span | None
    said: tuple[str, ...]
    heard: tuple[str, ...]
    credit: float
    why: str


def dense_grounding_reward(
    completions: Sequence[Completion],
    words: Sequence[Sequence[Word | Mapping[str, Any]] | None],
    duration: Sequence[Seconds],
    evidence: Sequence[Sequence[Span | Sequence[Seconds]] | None] | None = None,
    c_max: float = C_MAX,
    **columns: Any,
) -> list[float]:
    """c_max times the mean credit of a response's reasoning steps: one float in [0, c_max] a completion.

    `words` holds each clip's words with their times (Word, or {"word", "start", "end"} as clips.jsonl has
    them), `duration` its seconds, `evidence` the question's reference spans (Span or [start, end]); None or
    empty where nobody marked them. The credit of a step is `step_credits`'; every stated interval is in the
    mean, the invalid ones too, so that a false step costs a true one. 0.0 without any interval.

    ValueError where the lengths differ or c_max < 0, and where there is nothing to judge by: `words[at]` is
    None, or it is empty and no evidence is known. An empty list means that nothing is said in the clip.
    Such rows are the caller's to leave out: 0 would say that the response is wrong.
    Source: ours; appendix D asks for dense rewards that supervise both reasoning steps and grounding accuracy.
    """
    evidence = [None] * len(completions) if evidence is None else evidence
    for name, column in (("words", words), ("duration", duration), ("evidence", evidence)):
        if isinstance(column, str) or len(column) != len(completions):
            raise ValueError(f"{name} must have an item for each of the {len(completions)} completions")
    if not (math.isfinite(c_max) and c_max >= 0):
        raise ValueError(f"c_max must be 0 or more, got {c_max}")
    rewards = []
    for at, completion in enumerate(completions):
        marked = [_as_span(span, at) for span in evidence[at] or ()]
        said = words[at]
        if said is None or not (said or marked):
            raise ValueError(
                f"words[{at}] has no word, so that nobody can judge what is heard: give the clip's words "
                "(`tgsr transcribe` finds them), or leave the question out of this reward"
            )
        credits = step_credits(
            completion_text(completion), [_as_word(word, at) for word in said], duration[at], marked
        )
        rewards.append(c_max * _mean([step.credit for step in credits]))
    return rewards


def step_credits(
    text: str, words: Sequence[Word], duration: Seconds, evidence: Sequence[Span] = ()
) -> list[StepCredit]:
    """Each stated interval's credit in [0, 1], in order of appearance; [] where the text states none.

    credit = agreement x place x news x thrift, for a span [a, b) inside the clip with an explanation:

    - agreement: `word_agreement` of what the step says is heard (its quotes; without quotes its whole
      text) and of the words of the clip that lie in the span, half of each word at least.
    - place: the mean of two IoUs: of the span with the nearest place where what is heard is said (the
      stretches of as many words that share most words with it; of a text without quotes only those words are
      sought that the clip has), and with the nearest evidence. Only the first one where no evidence is known.
    - news: the share of the span that no earlier step cites; 0 for a span that is cited again.
    - thrift: min(1, allowed / cited) over the whole response: cited are the seconds that its spans cover,
      allowed are those of the evidence with 0.5 s around it (`evidence_crop`), or half of the clip where no
      evidence is known.

    Where nothing is said in the span and nothing is quoted ("there is a pause"), the agreement is 1 and the
    place is the evidence's IoU alone, 0 where none is known. No credit for a span that ends before it starts or
    more than 0.05 s after the clip, for one without explanation, and for a quote where nothing is said.
    ValueError for a duration that is not positive. Source: ours.
    """
    if not duration > 0:
        raise ValueError(f"duration must be more than 0 s, got {duration}")
    in_order = sorted(words, key=lambda word: (word.start, word.end))
    steps = reasoning_steps(text)
    inside = [span for step in steps if (span := _inside(step.mention, duration)) is not None]
    thrift = _thrift(inside, duration, evidence)
    credits: list[StepCredit] = []
    before: list[Span] = []
    for step in steps:
        span = _inside(step.mention, duration)
        if span is None:
            credits.append(StepCredit(step.mention.span, (), step.heard, 0.0, _why_outside(step, duration)))
            continue
        said = words_said(in_order, span)
        agreement, place, why = _judged(step, span, said, in_order, evidence)
        news = 1 - _seconds_of(evidence_crop(_shared(span, before), duration, 0)) / span.duration
        credit = min(1.0, max(0.0, agreement * place * news * thrift))
        if credit:
            why = f"agreement {agreement:.2f}, place {place:.2f}, news {news:.2f}, thrift {thrift:.2f}"
        elif news <= 0:
            why = "cited before"
        credits.append(StepCredit(span, said, step.heard, credit, why))
        before = merge([*before, span])
    return credits


def word_agreement(heard: Sequence[str], said: Sequence[str]) -> float:
    """How well two texts agree word by word, in order: 2 LCS / (n + m), in [0, 1]; 0 where one is empty.

    The F1 of the longest common subsequence of their words (ROUGE-L's), which are compared as they are: see
    `plain_words`.
    """
    if not heard or not said:
        return 0.0
    return 2 * _common_subsequence(heard, said) / (len(heard) + len(said))


def plain_words(text: str) -> tuple[str, ...]:
    """The text's words as they sound: lower-cased, without punctuation, apostrophes alike."""
    return tuple(_PLAIN_WORD.findall(text.lower().replace("\u2019", "'")))


def words_in(words: Sequence[Word], span: Span) -> list[Word]:
    """The words of which at least half lies in the span, in the order given."""
    return [word for word in words if span.overlap(word.span) >= 0.5 * word.span.duration - ROUNDING]


def words_said(words: Sequence[Word], span: Span) -> tuple[str, ...]:
    """The plain words that are said in the span: `words_in` it."""
    return tuple(token for word in words_in(words, span) for token in plain_words(word.text))


def places_of(heard: Sequence[str], words: Sequence[Word]) -> list[Span]:
    """Where in the clip `heard` is said: the stretches of as many words that share most words with it.

    `words` in order of time. The order within a stretch doesn't matter (`word_agreement` looks at it). [] where no
    word is shared. Linear in the number of words.
    """
    tokens = [(token, word) for word in words for token in plain_words(word.text)]
    n = min(len(heard), len(tokens))
    if not n:
        return []
    wanted, found, n_shared = Bag(heard), Bag[str](), 0
    best, places = 0, list[Span]()
    for at, (token, word) in enumerate(tokens):
        n_shared += found[token] < wanted[token]
        found[token] += 1
        if at >= n:
            gone = tokens[at - n][0]
            found[gone] -= 1
            n_shared -= found[gone] < wanted[gone]
        if at < n - 1 or not n_shared or n_shared < best:
            continue
        if n_shared > best:
            best, places = n_shared, []
        first = tokens[at - n + 1][1]
        places.append(Span(first.start, max(first.end, word.end)))
    return places


# Quotes end in their line; single quotes are no apostrophes: nothing of a word is outside of them.
_QUOTE = re.compile(
    r"\"([^\"\n]{1,4000})\"|\u201c([^\u201d\n]{1,4000})\u201d|``([^`'\n]{1,400})''"
    r"|(?<!\w)['\u2018](?=\S)([^\n]{1,400}?)['\u2019](?!\w)"
)
_SENTENCE_END = re.compile(r"[.!?]+[\"')\]\u201d\u2019]{0,4}(?=\s)|\n+")
_QUOTE_ENDS = re.compile(r"[.!?][\"'\u201d\u2019]{1,2}\s{1,4}[A-Z]")
_PLAIN_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_NOTATION = re.compile(
    r"(?:\b(?:is|are|from|between|during|start(?:s|ing)?|begin(?:s|ning)?|at|in|timestamps?|the|segment)\b\s{0,4})+"
    r"[(\[<\s\"':,-]{0,8}$",
    re.IGNORECASE,
)
_JOINERS = frozenset(("and", "or", "then", "again", "also", "to", "from", "between"))


def reasoning_steps(text: str) -> list[ReasoningStep]:
    """The intervals that a text states, each with its explanation, in order of appearance. Source: C.4.

    A step's text is its sentence without the interval; a sentence may end in its line or at . ! ?, but not
    inside a quote. Of several intervals in one sentence each has the words after it, or those before it
    where the quotes come first ("one" (1-2 s), "two" (3-4 s)); two intervals with nothing but "and" between
    share an explanation. A sentence that is an interval alone is explained by what follows, up to the next
    interval; the response's last line, where the answer is, explains nothing, and nor does B.1.3's opening.
    """
    text = text.replace(REASONING_OPENING, "\n" * len(REASONING_OPENING))
    mentions = find_mentions(text)
    sentences = _sentences(text, mentions)
    last_line = text.rstrip().rfind("\n") + 1
    steps: list[ReasoningStep] = []
    at = 0
    for first, stop in sentences:
        here = []
        while at < len(mentions) and mentions[at].text_start < stop:
            here.append(mentions[at])
            at += 1
        if not here:
            continue
        texts = _explanations(text, first, stop, here)
        if not any(plain_words(of) for of in texts):
            answer = last_line if last_line >= stop else sentences[-1][0]
            end = mentions[at].text_start if at < len(mentions) else answer
            texts = [_without_notation(text[stop : max(stop, end)])] * len(here)
        steps += [_step(mention, of) for mention, of in zip(here, texts, strict=True)]
    return steps


def _sentences(text: str, mentions: Sequence[Mention]) -> list[tuple[int, int]]:
    """Where each sentence begins and stops: at a line break, at . ! ? outside quotes and intervals, and at the
    end of a quote that ends so where a capital follows.
    """
    quotes = [match.span() for match in _QUOTE.finditer(text)]
    closed = sorted((*quotes, *((mention.text_start, mention.text_end) for mention in mentions)))
    stops = [stop for _, stop in quotes if _QUOTE_ENDS.search(text[max(0, stop - 4) : stop + 6])]
    furthest = at = 0
    for match in _SENTENCE_END.finditer(text):
        while at < len(closed) and closed[at][0] <= match.start():
            furthest = max(furthest, closed[at][1])
            at += 1
        if match.start() >= furthest:
            stops.append(match.end())
    return list(pairwise((0, *sorted(set(stops) - {0, len(text)}), len(text))))


def _explanations(text: str, first: int, stop: int, mentions: Sequence[Mention]) -> list[str]:
    """For each of a sentence's mentions the part of the sentence that explains it."""
    cuts = [first, *(cut for m in mentions for cut in (m.text_start, m.text_end)), stop]
    parts = [text[cuts[i] : cuts[i + 1]] for i in range(0, len(cuts), 2)]
    parts = [*map(_without_notation, parts[:-1]), parts[-1]]
    if len(mentions) == 1:
        return [f"{parts[0]} {parts[1]}"]
    quoted = [bool(_QUOTE.search(part)) for part in (parts[0], parts[-1])]
    comes_first = quoted == [True, False] or (
        not any(quoted) and bool(plain_words(parts[0])) and not plain_words(parts[-1])
    )
    own = parts[:-1] if comes_first else parts[:0:-1]
    shared: list[str] = []
    for part in own:
        is_empty = _JOINERS.issuperset(plain_words(part))
        shared.append(shared[-1] if is_empty and shared else part)
    return shared if comes_first else shared[::-1]


def _without_notation(part: str) -> str:
    """The part without the words that belong to the interval after it: "from", "starts at", an open bracket."""
    return part[:-80] + _NOTATION.sub("", part[-80:])


def _step(mention: Mention, text: str) -> ReasoningStep:
    quoted = " ".join(part for quote in _QUOTE.findall(text) for part in quote)
    heard = plain_words(quoted)
    return ReasoningStep(mention, heard or plain_words(text), bool(heard))


def _judged(
    step: ReasoningStep, span: Span, said: tuple[str, ...], words: Sequence[Word], evidence: Sequence[Span]
) -> tuple[float, float, str]:
    """(agreement, place) of a step inside the clip, and why there is no credit, should there be none."""
    if not step.heard:
        return 0.0, 0.0, "nothing is said to be heard there"
    near = trace_iou([span], evidence)
    if not said and not step.is_quoted:
        return 1.0, near or 0.0, "nothing is said there, and no evidence is near"
    if not said:
        return 0.0, 0.0, "a quote, and nothing is said there"
    agreement = word_agreement(step.heard, said)
    spoken = {token for word in words for token in plain_words(word.text)}
    sought = step.heard if step.is_quoted else [token for token in step.heard if token in spoken]
    place = trace_iou([span], places_of(sought, words)) or 0.0
    return (
        agreement,
        place if near is None else (place + near) / 2,
        "what is said there is something else",
    )


def _inside(mention: Mention, duration: Seconds) -> Span | None:
    """The stated interval cut to the clip; None for an invalid one and one that runs past the end."""
    span = mention.span
    if span is None or span.start >= duration or span.end > duration + END_SLACK:
        return None
    return span.padded(0, duration)


def _why_outside(step: ReasoningStep, duration: Seconds) -> str:
    m = step.mention
    return (
        f"{m.start:g} to {m.end:g} s: " + f"past the clip's end at {duration:g} s"
        if m.is_valid
        else "no interval"
    )


def _thrift(spans: Sequence[Span], duration: Seconds, evidence: Sequence[Span]) -> float:
    cited = _seconds_of(evidence_crop(spans, duration, 0))
    allowed = _seconds_of(evidence_crop(evidence, duration)) if evidence else UNMARKED_SHARE * duration
    return min(1.0, allowed / cited) if cited else 1.0


def _shared(span: Span, others: Sequence[Span]) -> list[Span]:
    """What the others cover of the span."""
    return [
        Span(max(span.start, other.start), min(span.end, other.end))
        for other in others
        if span.overlap(other) > 0
    ]


def _seconds_of(spans: Sequence[Span]) -> Seconds:
    return math.fsum(span.duration for span in spans)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the usual table at a time as the bits of one number."""
    places: dict[str, int] = {}
    for at, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << at
    all_ones = (1 << len(a)) - 1
    row = all_ones  # a zero where the length grows
    for token in b:
        matched = row & places.get(token, 0)
        row = (row + matched | row - matched) & all_ones
    return len(a) - row.bit_count()


def _as_span(span: Span | Sequence[Seconds], at: int) -> Span:
    if isinstance(span, Span):
        return span
    try:
        start, end = span
        return Span(float(start), float(end))
    except (TypeError, ValueError) as error:
        raise ValueError(f"evidence[{at}] must hold [start, end] in seconds, got {span!r:.80}") from error


def _as_word(word: Word | Mapping[str, Any], at: int) -> Word:
    if isinstance(word, Word):
        return word
    try:
        return Word(str(word["word"]), float(word["start"]), float(word["end"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'words[{at}] must hold {{"word", "start", "end"}} in seconds, got {word!r:.80}'
        ) from error


# --- terms and their sum -----------------------------------------------------------------------------------------


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
"""R = R_answer + R_tg. Source: Eq. 3."""


def total_reward(terms: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted sum of one response's named terms; 0.0 for none.

    ValueError unless both name the same terms. Source: Eq. 3, whose weights are 1.
    """
    if terms.keys() != weights.keys():
        raise ValueError(f"terms {sorted(terms)} and weights {sorted(weights)} must have the same names")
    return math.fsum(weights[name] * value for name, value in terms.items())


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
        values = [float(value) for value in term.function(completions=completions, **columns)]
        if len(values) != len(completions) or not all(map(math.isfinite, values)):
            raise ValueError(
                f"reward term {term.name!r} must return a finite reward for each of the {len(completions)} "
                f"completions, got {values}"
            )
        rewards[term.name] = values
    totals = [
        total_reward({name: values[at] for name, values in rewards.items()}, weights)
        for at in range(len(completions))
    ]
    return rewards, totals


def completion_text(completion: Any) -> str:
    """What the model wrote, as one text: the completion, or its assistant messages joined by line breaks.

    A message's content is a text or a list of parts, of which the text parts count. Whatever else
    stands there has no text: "" for a completion that holds none.
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Mapping):
        completion = [completion]
    if not isinstance(completion, Sequence):
        return ""
    messages = [m for m in completion if isinstance(m, Mapping) and m.get("role", "assistant") == "assistant"]
    return "\n".join(_content_text(message.get("content")) for message in messages)


def check_compaction(k_ref: int, k_max: int, c_max: float, c_min: float) -> None:
    """ValueError unless 0 <= k_ref < k_max and c_min <= c_max."""
    if not (0 <= k_ref < k_max and c_min <= c_max):
        raise ValueError(
            "need 0 <= k_ref < k_max and c_min <= c_max, "
            f"got k_ref={k_ref}, k_max={k_max}, c_max={c_max}, c_min={c_min}"
        )


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    return "".join(text for text in texts if isinstance(text, str))


def _label_letter(label: str, at: int) -> str:
    match = _LABEL.fullmatch(label.strip()) if isinstance(label, str) else None
    if match is None:
        raise ValueError(f'label[{at}] must be one option letter such as "b" or "(b)", got {label!r}')
    return (match[1] or match[2]).lower()
