"""What a reward can be cheated with: degenerate policies beside honest ones, and what each would earn.

A policy is a function from a question and its clip's words to a response. None hears anything: the honest ones are
told where the evidence is, the degenerate ones fill in a template, and nearly all are told the right answer, so
that what differs is the grounding alone. A reward that pays a template as much as the honest reference can be
learned without listening.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise

import numpy as np
from tqdm import tqdm

from tgsr.choices import correct_letter, extract_choice, letter
from tgsr.data.splits import drawn
from tgsr.dense_reward import dense_grounding_reward, grounded_reward
from tgsr.disk.whole import StrPath, whole, write_whole
from tgsr.errors import RecordError
from tgsr.grounding import find_regions, valid_spans
from tgsr.overlap import trace_iou
from tgsr.prompts import REASONING_OPENING
from tgsr.reasoning import words_in
from tgsr.records import Question, Response
from tgsr.rewards import answer_reward, timestamp_grounding_reward
from tgsr.statistics.intervals import Bootstrap, Mean
from tgsr.timeline import Span, Word

Words = tuple[Word, ...]
Steps = Callable[[Question, Words, np.random.Generator], list[str]]

REWARDS = {
    "answer": "R_answer",
    "answer strict": "our reading of the final answer",
    "R_tg official": "Eq. 2, the authors' counter",
    "R_tg strict": "Eq. 2, distinct intervals",
    "paper": "Eq. 3: R_answer + R_tg, official",
    "place": "the place of --reward grounded",
    "place, words only": "the same where no evidence is marked",
    "grounded": "R_answer + place, as --reward grounded",
    "dense": "dense grounding reward",
    "dense, words only": "the same where no evidence is marked",
    "paper + dense": "Eq. 3 + dense, as --reward dense",
    "trace IoU": "avg_iou; a measure, no reward",
}
"""What is measured, with the meaning of each, in the table's order."""

GROUNDING = tuple(reward for reward in REWARDS if not reward.startswith("answer"))

GENERIC = "this part of the audio shows what is asked about"


@dataclass(frozen=True, slots=True)
class Earned:
    """What a policy, or a model, earns: means over the questions by reward, with intervals over clips.

    `behind` is the reference's reward less this one's on the same questions; where its interval is not above 0, the
    reward does not tell this one from the reference. `example` is its response to the first question.
    """

    name: str
    kind: str
    about: str
    rewards: dict[str, Mean]
    behind: dict[str, Mean]
    example: str

    def is_told(self, reward: str) -> bool | None:
        """Whether the reference earns more by that reward (95 %); None where this one is not scored by it.

        No means that it pays as well to be this one.
        """
        if self.rewards[reward].value is None:
            return None
        low = self.behind[reward].low
        return low is not None and low > 0


@dataclass(frozen=True, slots=True)
class Hacking:
    """What hacking.json holds. `blind` lists by reward the degenerate policies that it does not tell apart.

    The answer's rewards are not in it: nearly all policies are told the right answer.
    """

    file: str
    n_questions: int
    n_left_out: int
    policies: tuple[Earned, ...]
    blind: dict[str, list[str]] = field(default_factory=dict)


# --- policies ----------------------------------------------------------------------------------------------------


def _right(question: Question, rng: np.random.Generator) -> str:
    return f"Final answer: ({correct_letter(question)}) {question.answer}"


def _wrong(question: Question, rng: np.random.Generator) -> str:
    wrong = [choice for choice in question.choices if choice != question.answer]
    return _right(replace(question, answer=wrong[int(rng.integers(len(wrong)))]), rng)


def _every_letter(question: Question, rng: np.random.Generator) -> str:
    letters = " ".join(f"({letter(index)})" for index in range(len(question.choices)))
    return f"{REASONING_OPENING}\nFinal answer: {letters}"


@dataclass(frozen=True, slots=True)
class Policy:
    """A way to respond. `kind` is "reference" (one), "honest" or "degenerate"; `about` says what it does.

    `steps` are the reasoning, between B.1.3's opening and the `final` line; None for a response of that line alone.
    """

    name: str
    kind: str
    about: str
    steps: Steps | None
    final: Callable[[Question, np.random.Generator], str] = _right

    def write(self, question: Question, words: Words, rng: np.random.Generator) -> str:
        """The response to a question about a clip with these words."""
        if self.steps is None:
            return self.final(question, rng)
        steps = " ".join(self.steps(question, words, rng))
        return f"{REASONING_OPENING}\n{steps}\n{self.final(question, rng)}"


def _cited(spans: Iterable[Span], explanation: str = GENERIC) -> list[str]:
    """A step a span, of which each says the same."""
    return [f"From {_seconds(span, ' to ', 's')}, {explanation}." for span in spans]


def _quoted(span: Span, said: Sequence[str]) -> str:
    """A step that quotes what is said, or says that nothing is."""
    (step,) = _cited([span], f'the speaker says "{" ".join(said)}"' if said else "there is a pause")
    return step


def _bare(spans: Iterable[Span]) -> list[str]:
    return [f"({_seconds(span, '-')})." for span in spans]


def _seconds(span: Span, joiner: str, unit: str = "") -> str:
    """Both times to two decimals, at least 0.01 s apart."""
    end = max(span.end, span.start + 0.01)
    return f"{span.start:.2f}{unit}{joiner}{end:.2f}{unit or ' s'}"


def _texts(words: Sequence[Word]) -> list[str]:
    return [word.text for word in words]


def _evidence(question: Question, words: Words, rng: np.random.Generator | None = None) -> list[str]:
    return [_quoted(span, _texts(words_in(words, span))) for span in question.evidence]


def _anywhere(question: Question, rng: np.random.Generator) -> Span:
    """A span of a twentieth to a half of the clip."""
    length = float(rng.uniform(0.05, 0.5)) * question.duration
    start = float(rng.uniform(0, question.duration - length))
    return Span(start, start + length)


def _shifted_five_times(question: Question, words: Words, rng: np.random.Generator) -> list[str]:
    span = question.evidence[0]
    said = _texts(words_in(words, span))
    return [_quoted(Span(span.start + 0.01 * n, span.end + 0.01 * n), said) for n in range(5)]


def _tiny_spans(question: Question, words: Words, rng: np.random.Generator) -> list[str]:
    starts = rng.uniform(0, max(0.01, question.duration - 0.05), size=3)
    return _cited([Span(float(start), float(start) + 0.05) for start in starts])


def _each_second(question: Question, words: Words, rng: np.random.Generator) -> list[str]:
    seconds = range(math.ceil(question.duration))
    return _cited([Span(float(second), min(second + 1.0, question.duration)) for second in seconds])


def _true_quote_anywhere(question: Question, words: Words, rng: np.random.Generator) -> list[str]:
    span = question.evidence[0]
    start = float(rng.uniform(0, max(0.01, question.duration - span.duration)))
    return [_quoted(Span(start, start + span.duration), _texts(words_in(words, span)))]


def _another_word(question: Question, words: Words, rng: np.random.Generator) -> list[str]:
    """One word, rightly quoted and placed, that touches no evidence; the clip's first word where all do."""
    elsewhere = [w for w in words if not any(w.span.overlap(span) for span in question.evidence)] or words[:1]
    word = elsewhere[int(rng.integers(len(elsewhere)))]
    return [_quoted(word.span, [word.text])]


def _recital(question: Question, words: Words, rng: np.random.Generator) -> list[str]:
    runs = [words[first : first + 4] for first in range(0, len(words), 4)]
    return [_quoted(Span(run[0].start, run[-1].end), _texts(run)) for run in runs]


def _recital_even_times(question: Question, words: Words, rng: np.random.Generator) -> list[str]:
    each = question.duration / max(1, len(words))
    even = [replace(word, start=each * i, end=each * (i + 1)) for i, word in enumerate(words)]
    return _recital(question, tuple(even), rng)


def _at_the_evidence(quote: Callable[[Question, Words], Sequence[str]]) -> Steps:
    """Steps at the true places that quote something else."""
    return lambda question, words, rng: [_quoted(span, quote(question, words)) for span in question.evidence]


def _commonest_word_each_second(question: Question, words: Words, rng: np.random.Generator) -> list[str]:
    ((commonest, _),) = Counter(_texts(words)).most_common(1)
    return [_quoted(span, [commonest]) for span in _windows(question.duration, 1.0)]


def _overlapping_windows(question: Question, words: Words, rng: np.random.Generator) -> list[str]:
    windows = _windows(question.duration, 0.5)
    return [_quoted(span, _texts(words_in(words, span))) for span in windows]


def _windows(duration: float, hop: float) -> list[Span]:
    """Spans of a second, `hop` seconds apart, cut to the clip."""
    starts = np.arange(0, max(hop, duration - 0.05), hop)
    return [Span(float(start), min(float(start) + 1.0, duration)) for start in starts]


def _first_word_of_the_evidence_widely(
    question: Question, words: Words, rng: np.random.Generator
) -> list[str]:
    """One word that is said in the evidence, in 0.45 of the clip around it."""
    span = question.evidence[0]
    start = min(max(0.0, span.start - 0.2 * question.duration), 0.55 * question.duration)
    wide = Span(start, start + 0.45 * question.duration)
    return [_quoted(wide, _texts(words_in(words, span))[:1])]


def _past_the_end_too(question: Question, words: Words, rng: np.random.Generator) -> list[str]:
    past = Span(question.duration + 1.0, question.duration + 2.0)
    return [*_evidence(question, words), _quoted(past, [str(question.answer)])]


def _middle(question: Question, words: Words, rng: np.random.Generator) -> list[str]:
    half = min(0.5, question.duration / 2)
    return [_quoted(Span(question.duration / 2 - half, question.duration / 2 + half), [str(question.answer)])]


POLICIES = (
    Policy("true evidence, quoted", "reference", "cites the evidence and quotes what is said there", _evidence),
    Policy("the same, wrong answer", "honest", "the same, and a wrong letter", _evidence, _wrong),
    Policy("true evidence, unquoted", "honest", "cites the evidence with a stock phrase",
           lambda question, words, rng: _cited(question.evidence)),
    Policy("right answer, no evidence", "honest", "cites nothing",
           lambda question, words, rng: ["The audio makes this clear."]),
    Policy("whole clip", "degenerate", "one span over the whole clip, a stock phrase",
           lambda question, words, rng: _cited([Span(0.0, question.duration)])),
    Policy("whole clip, transcript", "degenerate", "the same, all that is said as its quote",
           lambda question, words, rng: [_quoted(Span(0.0, question.duration), _texts(words))]),
    Policy("first second", "degenerate", "0 to 1 s, a stock phrase",
           lambda question, words, rng: _cited([Span(0.0, min(1.0, question.duration))])),
    Policy("fixed example", "degenerate", "the same span and quote, whatever the clip",
           lambda question, words, rng: [_quoted(Span(0.4, 1.9), ["that", "is", "the", "one"])]),
    Policy("evidence x 5", "degenerate", "the true step five times",
           lambda question, words, rng: _evidence(question, words)[:1] * 5),
    Policy("evidence x 5, shifted", "degenerate", "five times, each 0.01 s later", _shifted_five_times),
    Policy("evidence, bare", "degenerate", "the true spans without a word",
           lambda question, words, rng: _bare(question.evidence)),
    Policy("random span, bare", "degenerate", "a random span without a word",
           lambda question, words, rng: _bare([_anywhere(question, rng)])),
    Policy("tiny spans", "degenerate", "three random spans of 0.05 s, a stock phrase", _tiny_spans),
    Policy("each second", "degenerate", "a span for each second, a stock phrase", _each_second),
    Policy("random span", "degenerate", "a random span, a stock phrase",
           lambda question, words, rng: _cited([_anywhere(question, rng)])),
    Policy("random span, true quote", "degenerate", "what is said in the evidence, anywhere", _true_quote_anywhere),
    Policy("random span, answer quoted", "degenerate", "the right answer's text, anywhere",
           lambda question, words, rng: [_quoted(_anywhere(question, rng), [str(question.answer)])]),
    Policy("another word", "degenerate", "a true word at its true place, beside the point", _another_word),
    Policy("recital", "degenerate", "the whole transcript in runs of four words, true times", _recital),
    Policy("recital, even times", "degenerate", "the same, times by dividing the clip evenly", _recital_even_times),
    Policy("whole clip, question quoted", "degenerate", "one span over the whole clip, the question as its quote",
           lambda question, words, rng: [_quoted(Span(0.0, question.duration), [question.question])]),
    Policy("commonest word, each second", "degenerate", "the clip's commonest word, in a span for each second",
           _commonest_word_each_second),
    Policy("first second, first word", "degenerate", "0 to 1 s, the clip's first word as its quote",
           lambda question, words, rng: [_quoted(Span(0.0, min(1.0, question.duration)), _texts(words[:1]))]),
    Policy("overlapping windows", "degenerate", "a second each half second, what is said there", _overlapping_windows),
    Policy("middle, answer quoted", "degenerate", "the clip's middle second, the right answer's text", _middle),
    Policy("evidence's word, wide", "degenerate", "a word of the evidence, in 0.45 of the clip around it",
           _first_word_of_the_evidence_widely),
    Policy("evidence, empty quote", "degenerate", "the true spans, a blank as their quote",
           _at_the_evidence(lambda question, words: [" "])),
    Policy("evidence, choices quoted", "degenerate", "the true spans, all choices as their quote",
           _at_the_evidence(lambda question, words: question.choices)),
    Policy("evidence, transcript quoted", "degenerate", "the true spans, all that is said as their quote",
           _at_the_evidence(lambda question, words: _texts(words))),
    Policy("evidence, and past the end", "degenerate", "the true steps, and one after the clip", _past_the_end_too),
    Policy('"from 2 to 3 people"', "degenerate", "no time at all; counted by the authors' counter",
           lambda question, words, rng: ["The voices grow from 2 to 3 people."]),
    Policy('"(3, 5)"', "degenerate", "no time at all; counted by the authors' counter",
           lambda question, words, rng: ["Two of the options (3, 5) can be ruled out."]),
    Policy("letter only", "degenerate", "the right letter alone", None,
           lambda question, rng: f"({correct_letter(question)})"),
    Policy("every letter", "degenerate", "all letters on the last line", None, _every_letter),
)  # fmt: skip
"""The reference first. All but two say the right answer: what is compared is the grounding."""


# --- what they earn ----------------------------------------------------------------------------------------------


def rewards_of(question: Question, words: Words, text: str) -> dict[str, float | None]:
    """What one response earns by each of REWARDS; None for a trace IoU without a valid span."""
    (answer,) = answer_reward([text], [correct_letter(question)])
    (official,) = timestamp_grounding_reward([text])
    (strict,) = timestamp_grounding_reward([text], counter="strict")
    (dense,) = dense_grounding_reward([text], [words], [question.duration], [question.evidence])
    (dense_words,) = dense_grounding_reward([text], [words], [question.duration])
    (place,) = grounded_reward([text], [words], [question.duration], [question.evidence])
    (place_words,) = grounded_reward([text], [words], [question.duration])
    chosen = extract_choice(text, question.choices)
    return {
        "answer": answer,
        "answer strict": float(chosen is not None and question.choices[chosen] == question.answer),
        "R_tg official": official,
        "R_tg strict": strict,
        "paper": answer + official,
        "place": place,
        "place, words only": place_words,
        "grounded": answer + place,
        "dense": dense,
        "dense, words only": dense_words,
        "paper + dense": answer + official + dense,
        "trace IoU": trace_iou(valid_spans(find_regions(text)), question.evidence),
    }


def compare(
    questions: Sequence[Question],
    words: Mapping[str, Words],
    responses: Sequence[Response] = (),
    file: str = "",
    seed: int = 0,
    n_resamples: int = 1000,
) -> Hacking:
    """What every policy, and every model with `responses` to the questions, earns by each reward.

    `words` are the clips' words by clip id. Questions without choices, evidence or words are left out and
    counted: there the honest reference is unknown. Equal input and seed give equal output. Intervals are over
    clips. RecordError where no question is left.
    """
    usable = [q for q in questions if q.kind == "choice" and q.evidence and words.get(q.clip_id)]
    if not usable:
        problem = f"none of its {len(questions)} questions has choices, evidence, and words in the clips file"
        remedy = "give questions of `tgsr build qa` and the clips that they were made from"
        raise RecordError(None, problem, file or "questions", remedy=remedy)
    texts: dict[tuple[str, str, str], dict[str, str]] = {}
    for policy in POLICIES:
        written = texts[policy.name, policy.kind, policy.about] = {}
        for q in usable:
            rng = np.random.default_rng(drawn(seed, f"{policy.name} {q.id}"))
            written[q.id] = policy.write(q, words[q.clip_id], rng)
    for response in responses:
        texts.setdefault((response.model, "model", "its responses"), {})[response.question.id] = response.text
    bootstrap = Bootstrap(seed, n_resamples)
    earned: list[Earned] = []
    reference: dict[str, dict[str, float | None]] = {}
    for (name, kind, about), by_question in tqdm(texts.items(), desc="rewards", unit="policy"):
        answered = [q for q in usable if q.id in by_question]
        if not answered:
            continue
        scored = {q.id: rewards_of(q, words[q.clip_id], by_question[q.id]) for q in answered}
        reference = reference or scored
        mine, best = (  # NaN where a response is not scored
            {reward: np.array([of[q.id][reward] for q in answered], dtype=float) for reward in REWARDS}
            for of in (scored, reference)
        )
        clips, example = [q.clip_id for q in answered], by_question[answered[0].id]
        behind = bootstrap.means({reward: best[reward] - mine[reward] for reward in REWARDS}, clips)
        earned.append(Earned(name, kind, about, bootstrap.means(mine, clips), behind, example))
    degenerate = [policy for policy in earned if policy.kind == "degenerate"]
    blind = {one: [policy.name for policy in degenerate if policy.is_told(one) is False] for one in GROUNDING}
    return Hacking(file, len(usable), len(questions) - len(usable), tuple(earned), blind)


def write_hacking(hacking: Hacking, path: StrPath) -> None:
    """hacking.json. What was not scored is null."""
    write_whole(path, json.dumps(asdict(hacking), ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def table(hacking: Hacking) -> str:
    """One row a policy, one column a reward; "=" after a mean that the reward does not tell from the reference's."""
    wide = max(len(policy.name) for policy in hacking.policies) + 2
    widths = {reward: max(7, len(reward)) + 2 for reward in REWARDS}
    lines = [" " * wide + "".join(reward.rjust(widths[reward]) for reward in REWARDS)]
    kind = ""
    for policy in hacking.policies:
        if policy.kind != kind:
            kind = policy.kind
            lines.append(f"{kind}:")
        cells = []
        for reward in REWARDS:
            value = policy.rewards[reward].value
            is_told = kind == "reference" or reward not in GROUNDING or policy.is_told(reward)
            same = "=" if is_told is False else " "
            cells.append((("-" if value is None else f"{value:.3f}") + same).rjust(widths[reward]))
        lines.append(policy.name.ljust(wide) + "".join(cells))
    n = sum(policy.kind == "degenerate" for policy in hacking.policies)
    n_questions = f"{hacking.n_questions} questions, {hacking.n_left_out} left out"
    lines.append(f"{n_questions}; = not told from the reference")
    blind = ((reward, len(names)) for reward, names in hacking.blind.items())
    lines += [f"{reward}: {n_blind} of {n} degenerate policies not told" for reward, n_blind in blind]
    return "\n".join(lines)


def draw(hacking: Hacking, path: StrPath) -> None:
    """The same as a picture: each cell is coloured by its share of what the reference earns by that reward."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure  # slow to import

    rewards = [reward for reward in REWARDS if hacking.policies[0].rewards[reward].value]
    rows = [[policy.rewards[reward].value for reward in rewards] for policy in hacking.policies]
    values = np.array(rows, dtype=float)
    shares = np.minimum(1.0, values / values[0])
    figure = Figure(figsize=(12.5, 1.4 + 0.3 * len(hacking.policies)), layout="constrained")
    axes = figure.subplots()
    shades = LinearSegmentedColormap.from_list("share", ("#ffffff", "#c7dbe0", "#20867a"))
    colours = shades.with_extremes(bad="#f3f1ec")  # not scored
    axes.imshow(shares, cmap=colours, vmin=0, vmax=1, aspect="auto")
    for row, policy in enumerate(hacking.policies):
        for column, reward in enumerate(rewards):
            value, blind = values[row, column], policy.name in hacking.blind.get(reward, ())
            text = "-" if np.isnan(value) else f"{value:.2f}"
            colour = "white" if shares[row, column] > 0.75 else "#24292f"
            weight = "bold" if blind else "normal"
            axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color=colour, weight=weight)
            if blind:
                axes.plot(column + 0.36, row, marker="o", markersize=4, color="#bb5566")
    axes.set_xticks(range(len(rewards)), [reward.replace(" ", "\n", 1) for reward in rewards], fontsize=9)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(hacking.policies)), [policy.name for policy in hacking.policies], fontsize=9)
    for row, (policy, following) in enumerate(pairwise(hacking.policies)):
        if policy.kind != following.kind:
            axes.axhline(row + 0.5, color="#24292f", linewidth=1)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors="#24292f")
    legend = "dot: a degenerate policy that the reward does not tell from the reference"
    legend = f"mean over {hacking.n_questions} questions; colour: share of the reference's\n{legend}"
    axes.set_xlabel(legend, fontsize=9)
    with whole(path) as half:
        figure.savefig(half, dpi=110, format="png", facecolor="white")
