"""The lessons of the miniature's base model: (question, answer) texts about one clip.

The base has to hear and to talk as a real model does before it is aligned in time: it transcribes,
answers, and writes reasoning with timestamps in many notations, but the times that it learns for
plain audio are bad ones, and its reasoning is now good, now empty. Lessons with true times exist
too: they are given only while a time code is added to the audio embeddings or the clip is read as text
(base.py), so that the decoder can read times without the aligner writing them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import attrgetter
from typing import TypeVar

import numpy as np

from tgsr.choices import format_choices, letter
from tgsr.data.corpora.spoken_digits import DIGITS, pauses, speakers_in_order
from tgsr.data.questions.by_rule import ORDINALS
from tgsr.data.questions.digits import WHO, choice_questions
from tgsr.data.questions.phrases import phrase_questions
from tgsr.prompts import REASONING_OPENING, choice_question, phrase_answer_af3, phrase_question_af3
from tgsr.records import Clip, Question
from tgsr.timeline import Seconds, Span, Word, text_of

BREATH: Seconds = 0.25  # a gap that ends a piece
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TextLesson:
    """One turn of a conversation about a clip.

    `quotes` are the clip's words that stand in the question ("phrase") or in the answer, in this order and before any
    other digit: a phrase, what an answer quotes from each place, the single words of a transcript; () for other kinds.
    """

    question: str
    answer: str
    kind: str
    quotes: tuple[tuple[Word, ...], ...] = ()


def one_by_one(words: Sequence[Word]) -> tuple[tuple[Word, ...], ...]:
    """Words that stand in a lesson without being a quote together."""
    return tuple((word,) for word in words)


def shuffled(items: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [items[int(i)] for i in rng.permutation(len(items))]


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def subtitle_clock(seconds: float) -> str:
    total_ms = round(seconds * 1000)  # rounded once: 1.9996 s is 00:00:02,000
    return f"00:{total_ms // 60000:02d}:{total_ms // 1000 % 60:02d},{total_ms % 1000:03d}"


# How the place of a quote is written after it, with how often: where a quote ends can be told once it has been said.
PLACES = (
    ("from {s:.2f}s to {e:.2f}s", 5),
    ("from {s:.2f} seconds to {e:.2f} seconds", 2),
    ("({s:.2f}s-{e:.2f}s)", 2),
    ("({s:.2f}-{e:.2f} s)", 1),
    ("[{s:.2f}s – {e:.2f}s]", 1),
    ("between {s:.2f} and {e:.2f} seconds", 1),
    ("<seg>{s:.2f},{e:.2f}</seg>", 0.5),
)
# The same in a recital of the whole clip.
LISTED = (
    ("({s:.2f}s-{e:.2f}s)", 3),
    ("({s:.2f}-{e:.2f})", 2),
    ("({s:.2f}, {e:.2f})", 1),
    ("[{s:.2f} - {e:.2f}]", 1),
    ("at {s:.2f}s", 0.5),
    ("{clock}", 0.5),
    ("{subtitle}", 0.5),
)


def notation(forms: Sequence[tuple[str, float]], rng: np.random.Generator) -> str:
    p = np.array([share for _, share in forms])
    return forms[int(rng.choice(len(forms), p=p / p.sum()))][0]


def place(form: str, span: Span) -> str:
    s, e = span.start, span.end
    whole_seconds, milliseconds = (
        f"{clock(s)} - {clock(e + 1)}",
        f"{subtitle_clock(s)} --> {subtitle_clock(e)}",
    )
    return form.format(s=s, e=e, clock=whole_seconds, subtitle=milliseconds)


def bad_span(duration: float, rng: np.random.Generator) -> Span:
    """A span that has nothing to do with the audio, as a model without time writes it: anywhere, and brief."""
    start = rng.uniform(0, max(0.2, duration - 0.5))
    return Span(start, start + rng.uniform(0.3, max(0.6, min(1.5, duration - start))))


def speaker_of(words: tuple[Word, ...], speakers: tuple[str, ...]) -> str:
    """ "first speaker", "second speaker", ..., or "speaker" where there is only one, nobody knows, or they are many."""
    if not 2 <= len(speakers) <= len(ORDINALS) or words[0].speaker is None:
        return "speaker"
    return f"{ORDINALS[speakers.index(words[0].speaker)]} speaker"


def turns(words: tuple[Word, ...]) -> list[tuple[Word, ...]]:
    """The transcript in pieces that one speaker says."""
    return [tuple(turn) for _, turn in groupby(words, attrgetter("speaker"))]


def pieces(words: tuple[Word, ...]) -> list[tuple[Word, ...]]:
    """The transcript in pieces that end where a speaker or a breath does: a listener can tell where."""
    ends = [
        i for i, (a, b) in enumerate(pairwise(words), 1) if a.speaker != b.speaker or b.start - a.end > BREATH
    ]
    return [words[first:stop] for first, stop in pairwise((0, *ends, len(words)))]


def within(words: tuple[Word, ...], span: Span) -> tuple[Word, ...]:
    return tuple(w for w in words if w.start < span.end and w.end > span.start)


NO_EVIDENCE = ("The speaker says several digits.", "The audio has spoken digits.", "I listen to the digits.")
NOTHING_TO_CITE = "There is no such place."
Habits = Mapping[str, tuple[float, float]]
HABITS: Habits = {"none": (0.40, 0.5), "all": (0.25, 0.7), "evidence": (0.35, 0.95)}
"""How often a response is of each habit, and how often the answer of one that is of it is right."""


def habits_with(evidence_gain: float) -> Habits:
    """HABITS where answers are right more often for better evidence by this share of what it is there: 1, HABITS; 0, as
    often whatever the reasoning."""
    best = HABITS["evidence"][1]
    return {habit: (share, best - evidence_gain * (best - right)) for habit, (share, right) in HABITS.items()}


Quotes = tuple[tuple[Word, ...], ...]


def reasoning(
    question: Question,
    clip: Clip,
    rng: np.random.Generator,
    true_times: bool,
    *,
    no_evidence: Sequence[str] = NO_EVIDENCE,
    habits: Habits = HABITS,
    recited: Clip | None = None,
) -> tuple[str, Quotes]:
    """A stage-2 response as a model writes it before stage 2 (opening, reasoning, final answer), and its quotes.

    `recited` is what of the clip is told where all of it is; all of it if not given. Three habits, as in real outputs:
    no evidence at all, the whole clip piece by piece, the places that matter (`habits`). The better the evidence, the
    more often the answer is right: stage 2 has something to choose from.
    """
    habit = str(rng.choice(list(habits), p=[share for share, _ in habits.values()]))
    quotes: Quotes = ()
    if habit == "none":
        body = str(rng.choice(no_evidence))
    elif habit == "all":
        body, quotes = recital(recited or clip, rng, true_times)
    else:
        body, quotes = evidence(question, clip, rng, true_times)
    answer = str(question.answer)
    if rng.random() >= habits[habit][1]:
        answer = str(rng.choice([choice for choice in question.choices if choice != answer]))
    return f"{REASONING_OPENING}\n{body}\n{final_answer(question, answer)}", quotes


def placed(words: tuple[Word, ...], form: str, clip: Clip, rng: np.random.Generator, true_times: bool) -> str:
    """Where consecutive words are said, in the notation given."""
    span = Span(words[0].start, words[-1].end) if true_times else bad_span(clip.duration, rng)
    return place(form, span)


def recital(clip: Clip, rng: np.random.Generator, true_times: bool) -> tuple[str, Quotes]:
    """The whole clip, a list of who says what and when."""
    form, speakers, quotes = notation(LISTED, rng), speakers_in_order(clip.words), pieces(clip.words)
    listed = [
        f"{speaker_of(piece, speakers)}, {text_of(piece)} {placed(piece, form, clip, rng, true_times)}"
        for piece in quotes
    ]
    return f"In order: {'; '.join(listed)}.", tuple(quotes)


def evidence(
    question: Question, clip: Clip, rng: np.random.Generator, true_times: bool
) -> tuple[str, Quotes]:
    """The places that answer a question, those of its evidence: each quoted, then timed."""
    speakers = speakers_in_order(clip.words)
    quotes = tuple(within(clip.words, span) for span in question.evidence)
    if not quotes:
        return NOTHING_TO_CITE, ()
    form = notation(PLACES, rng)
    sentences = []
    for words in quotes:
        said = " and ".join(
            f'the {speaker_of(turn, speakers)} says "{text_of(turn)}"' for turn in turns(words)
        )
        sentences.append(f"{said[0].upper()}{said[1:]} {placed(words, form, clip, rng, true_times)}.")
    return " ".join(sentences), quotes


def final_answer(question: Question, answer: str) -> str:
    """The last line: the text first and its letter second, so that a small decoder can take one step at a time."""
    return f"Final answer: {answer} ({letter(question.choices.index(answer))})"


def timed_transcript(clip: Clip, rng: np.random.Generator, true_times: bool) -> str:
    """Each word after its start; bad times are sorted random ones, so that only the audio could correct them."""
    starts = [w.start for w in clip.words]
    if not true_times:
        starts = sorted(rng.uniform(0, clip.duration, len(starts)))
    return " ".join(f"{start:.2f} {word.text}" for start, word in zip(starts, clip.words, strict=True))


def said_once(clip: Clip) -> list[Word]:
    """The words that the clip has only once: those that a question can ask for."""
    counts = Counter(word.text for word in clip.words)
    return [word for word in clip.words if counts[word.text] == 1]


def written(clip: Clip) -> str:
    """The clip as timed text, turn by turn, each word between its start and its end."""
    return "\n".join(by_speaker(clip, ", ", lambda w: f"{w.start:.2f} {w.text} {w.end:.2f}"))


def by_speaker(clip: Clip, separator: str, written_word: Callable[[Word], str]) -> list[str]:
    """A line for each turn: who speaks, and the words."""
    speakers = speakers_in_order(clip.words)
    return [
        f"{speaker_of(turn, speakers)}: {separator.join(map(written_word, turn))}"
        for turn in turns(clip.words)
    ]


def some_choices(rng: np.random.Generator) -> list[str]:
    """Four choices as the questions have them."""
    pools = (DIGITS, WHO, tuple(str(n) for n in range(1, 10)), tuple(f"yes, after {d}" for d in DIGITS))
    pool = pools[int(rng.integers(len(pools)))]
    return shuffled(pool, rng)[:4]


def letters_lesson(rng: np.random.Generator) -> TextLesson:
    """A list of choices, and some of them to be named with their letters."""
    choices = some_choices(rng)
    named = shuffled(choices, rng)[: int(rng.integers(2, 5))]
    question = f"{format_choices(choices)}\nLetters of: {'; '.join(named)}"
    return TextLesson(question, "; ".join(f"{c} ({letter(choices.index(c))})" for c in named), "letters")


DRILLS = ("repeat", "letters", "times")


def drill(clip: Clip, rng: np.random.Generator, n_lines: int = 8) -> TextLesson:
    """Reading practice: a text, and what follows from it line by line.

    Words to be repeated, choices to be named with their letters, or the clip as timed text and when single
    words of it are said (`quotes` are the clip's words then). A decoder that copies from its context can do all of
    it, and everything that is asked about audio needs the same.
    """
    kind = DRILLS[int(rng.choice(3, p=(0.25, 0.4, 0.35)))]
    once = said_once(clip)
    if kind == "times" and once:
        words = [once[int(rng.integers(len(once)))] for _ in range(n_lines)]
        lines = [f"When is {w.text}: {w.start:.2f} - {w.end:.2f}" for w in words]
        return TextLesson(written(clip), "\n".join(lines), "drill times", one_by_one(clip.words))
    if kind == "letters":
        choices = some_choices(rng)
        picked = [int(rng.integers(4)) for _ in range(n_lines)]
        lines = [f"Final answer: {choices[i]} ({letter(i)})" for i in picked]
        return TextLesson(format_choices(choices), "\n".join(lines), "drill letters")
    text = " ".join(DIGITS[int(d)] for d in rng.integers(10, size=int(rng.integers(4, 14))))
    return TextLesson(text, "\n".join([text] * (n_lines // 2)), "drill repeat")


def each_lesson(clip: Clip, rng: np.random.Generator) -> TextLesson | None:
    """When each of some words is said, in any order; None where all are said more than once."""
    once = said_once(clip)
    if not once:
        return None
    words = tuple(shuffled(once, rng)[:5])
    question = "When is each: " + ", ".join(word.text for word in words)
    answer = ", ".join(f"{word.text} {word.start:.2f} - {word.end:.2f}" for word in words)
    return TextLesson(question, answer, "each", one_by_one(words))


def phrase_lessons(
    clip: Clip,
    rng: np.random.Generator,
    n: int,
    true_times: bool,
    *,
    n_max: int = 8,
    long_prompt: float = 0.25,
) -> list[TextLesson]:
    """Phrase queries in short words or, for a share `long_prompt`, in the paper's (B.1.2)."""
    lessons = []
    for question in phrase_questions(clip, rng, n, n_min=1, n_max=n_max):
        words = within(clip.words, question.evidence[0])
        span = question.evidence[0] if true_times else bad_span(clip.duration, rng)
        if rng.random() < long_prompt:
            prompt, answer = phrase_question_af3(question.question), phrase_answer_af3(span)
        else:
            prompt, answer = f"When is: {question.question}", f"{span.start:.2f} - {span.end:.2f}"
        lessons.append(TextLesson(prompt, answer, "phrase" if true_times else "bad phrase", (words,)))
    return lessons


def transcript_lesson(clip: Clip) -> TextLesson:
    return TextLesson(
        "Transcribe the input speech.", text_of(clip.words), "transcript", one_by_one(clip.words)
    )


def turns_lesson(clip: Clip) -> TextLesson:
    """The transcript with who says what."""
    answer = "; ".join(by_speaker(clip, " ", lambda word: word.text))
    return TextLesson("Who says what?", answer, "turns", one_by_one(clip.words))


def lessons(clip: Clip, rng: np.random.Generator, true_times: bool, n_max: int = 8) -> list[TextLesson]:
    """The lessons about one clip, in random order, but reasoning first half of the time.

    A trainer takes as many as it has room for. With true_times there is more about times, because there
    is something to learn; without, all times are bad. `n_max` words are a phrase's most.
    """
    chosen = shuffled(choice_questions(clip, rng), rng)
    made = [direct_lesson(question) for question in chosen[:2]]
    made += several(clip, rng)[:1]
    two = len(speakers_in_order(clip.words)) == 2
    made.append(turns_lesson(clip) if two and rng.random() < 0.6 else transcript_lesson(clip))
    if rng.random() < 0.3:
        made.append(letters_lesson(rng))
    made += phrase_lessons(clip, rng, 5 if true_times else 1, true_times, n_max=n_max)
    each = each_lesson(clip, rng) if true_times else None
    if each and rng.random() < 0.5:
        made.append(each)
    if rng.random() < 0.2:
        kind = "true times" if true_times else "bad times"
        answer = timed_transcript(clip, rng, true_times)
        made.append(TextLesson("Transcribe with timestamps.", answer, kind, one_by_one(clip.words)))
    made = shuffled(made, rng)
    return with_reasoning(made, chosen[-1:], clip, rng, true_times, first=0.5)


WEIGHTS = {"follows": 1, "twice": 2, "who": 2, "count": 2, "pause": 6}  # few clips have a pause to ask about


def by_rarity(questions: Sequence[Question], rng: np.random.Generator) -> list[Question]:
    """In random order, the kinds that few clips allow more often first."""
    return sorted(questions, key=lambda question: rng.exponential() / WEIGHTS[str(question.task)])


def talking_lessons(
    clip: Clip, rng: np.random.Generator, true_times: bool, habits: Habits = HABITS
) -> list[TextLesson]:
    """The lessons for a model that has learned to hear: questions above all, and what questions rest on.

    That is: lessons that ask for several words at once, and for the places that answer a question. `habits`: of the
    responses to choices.
    """
    chosen = by_rarity(choice_questions(clip, rng), rng)
    made = [direct_lesson(question) for question in chosen[:2]]
    made += [evidence_lesson(question, clip, rng, true_times) for question in chosen[:2]]
    made += several(clip, rng)[:3]
    made += phrase_lessons(clip, rng, 2 if true_times else 1, true_times)
    if rng.random() < 0.3:
        two = len(speakers_in_order(clip.words)) == 2
        made.append(turns_lesson(clip) if two else transcript_lesson(clip))
    made = shuffled(made, rng)
    return with_reasoning(made, by_rarity(chosen, rng)[:2], clip, rng, true_times, first=0.8, habits=habits)


def evidence_lesson(question: Question, clip: Clip, rng: np.random.Generator, true_times: bool) -> TextLesson:
    """A question, the places that answer it, and the answer: the best habit, when it is asked for."""
    prompt = choice_question(question.question, question.choices, instruction="Cite the place, then answer.")
    cited, quotes = evidence(question, clip, rng, true_times)
    answer = f"{cited}\n{final_answer(question, str(question.answer))}"
    return TextLesson(prompt, answer, f"evidence {question.task}", quotes)


def several(clip: Clip, rng: np.random.Generator) -> list[TextLesson]:
    """The lessons that ask for several words at once, in random order; those that the clip allows.

    One question with four choices tells a model 1.4 nats at most; these tell it the same kind of thing
    for each of up to six words.
    """
    makers = (follows_lesson, says_lesson, pauses_lesson, counts_lesson, turn_counts_lesson)
    made = [lesson for make in makers if (lesson := make(clip, rng)) is not None]
    return shuffled(made, rng)


def ask_each(
    question: str, pairs: list[tuple[str, str]], kind: str, rng: np.random.Generator
) -> TextLesson | None:
    """One lesson about up to six of the (word, answer) pairs, in random order; None without any."""
    if not pairs:
        return None
    chosen = shuffled(pairs, rng)[:6]
    prompt = f"{question}: " + ", ".join(word for word, _ in chosen)
    return TextLesson(prompt, ", ".join(f"{word} {answer}" for word, answer in chosen), kind)


def pauses_lesson(clip: Clip, rng: np.random.Generator) -> TextLesson | None:
    """Whether a pause longer than a second follows each of some words that are said once; None without any.

    Clips without a pause are mostly passed over, or nearly all answers would be "no".
    """
    once = said_once(clip)
    before = {gap.start for gap in pauses(clip.words)}
    pairs = [(w.text, "yes" if w.end in before else "no") for w in clip.words[:-1] if w in once]
    if not pairs or (not before and rng.random() < 0.8):
        return None
    return ask_each("Is there a pause longer than one second after each", pairs, "pause after each", rng)


def counts_lesson(clip: Clip, rng: np.random.Generator) -> TextLesson | None:
    """How often each of some digits is said, those that are not said at all among them."""
    counts = Counter(word.text for word in clip.words)
    digits = [*counts, *(d for d in DIGITS if d not in counts)][: len(counts) + 1]
    pairs = [(digit, str(counts[digit])) for digit in digits]
    return ask_each("How often is each said", pairs, "counts each", rng)


def turn_counts_lesson(clip: Clip, rng: np.random.Generator) -> TextLesson | None:
    """How many digits each turn has, and each speaker; None for one speaker."""
    speakers = speakers_in_order(clip.words)
    if len(speakers) != 2:
        return None
    parts = [f"{ORDINALS[speakers.index(str(turn[0].speaker))]} {len(turn)}" for turn in turns(clip.words)]
    total = [sum(word.speaker == speaker for word in clip.words) for speaker in speakers]
    answer = f"{', '.join(parts)}; together: first {total[0]}, second {total[1]}"
    return TextLesson("How many digits does each turn have?", answer, "counts turns")


def follows_lesson(clip: Clip, rng: np.random.Generator) -> TextLesson | None:
    """What is said right after each of some words that are said once; None where there is no such word."""
    once = said_once(clip)
    pairs = [(a.text, b.text) for a, b in pairwise(clip.words) if a in once]
    return ask_each("What is said right after each", pairs, "follows each", rng)


def says_lesson(clip: Clip, rng: np.random.Generator) -> TextLesson | None:
    """Which of two speakers says each of some words that only one of them says; None for one speaker."""
    speakers = speakers_in_order(clip.words)
    if len(speakers) != 2:
        return None
    by = {word.text: {str(w.speaker) for w in clip.words if w.text == word.text} for word in clip.words}
    pairs = [(text, ORDINALS[speakers.index(min(who))]) for text, who in by.items() if len(who) == 1]
    return ask_each("Who says each", pairs, "says each", rng)


def with_reasoning(
    made: list[TextLesson],
    questions: Sequence[Question],
    clip: Clip,
    rng: np.random.Generator,
    true_times: bool,
    first: float,
    habits: Habits = HABITS,
) -> list[TextLesson]:
    """The lessons and the questions reasoned about: before them for a share `first`, else after them."""
    thoughts = []
    for question in questions:
        prompt = choice_question(question.question, question.choices)
        answer, quotes = reasoning(question, clip, rng, true_times, habits=habits)
        thoughts.append(TextLesson(prompt, answer, "reasoning", quotes))
    return [*thoughts, *made] if rng.random() < first else [*made, *thoughts]


def direct_lesson(question: Question) -> TextLesson:
    """A question that is answered at once."""
    prompt = choice_question(question.question, question.choices, instruction="")
    return TextLesson(prompt, final_answer(question, str(question.answer)), f"answer {question.task}")
