"""The lessons of the miniature's base model: (question, answer) texts about one clip.

The base has to hear and to talk as a real model does before it is aligned in time: it transcribes,
answers, and writes reasoning with timestamps in every notation, but the times that it learns for
plain audio are bad ones, and its reasoning is now good, now empty. Lessons with true times exist
too: they are given only while a time code is added to the audio embeddings or the clip is read as text
(base.py), so that the decoder can read times without the aligner writing them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np

from tgsr.choices import format_choices, letter
from tgsr.data.corpora.spoken_digits import DIGITS, pauses, speakers_in_order
from tgsr.data.questions.digits import WHO, choice_questions
from tgsr.data.questions.phrases import phrase_questions
from tgsr.prompts import REASONING_OPENING, choice_question, phrase_answer_af3, phrase_question_af3
from tgsr.records import Clip, Question
from tgsr.timeline import Span, Word, cover

ORDINALS = ("first", "second")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TextLesson:
    """One turn of a conversation about a clip.

    `words` are the clip's words that stand, one after the other and nothing else spoken between them, in
    the question ("phrase") or in the answer (transcripts); () for other kinds.
    """

    question: str
    answer: str
    kind: str
    words: tuple[Word, ...] = ()


def shuffled(items: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [items[int(i)] for i in rng.permutation(len(items))]


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def subtitle_clock(seconds: float) -> str:
    total_ms = round(seconds * 1000)  # rounded once: 1.9996 s is 00:00:02,000
    return f"00:{total_ms // 60000:02d}:{total_ms // 1000 % 60:02d},{total_ms % 1000:03d}"


def cite(span: Span, statement: str, rng: np.random.Generator) -> str:
    """A sentence that cites a span in one of the notations that models use."""
    s, e = span.start, span.end
    forms = (
        f"From {s:.2f}s to {e:.2f}s, {statement}.",
        f"From {s:.2f} seconds to {e:.2f} seconds, {statement}.",
        f"The segment starts at {s:.2f} seconds and ends at {e:.2f} seconds: {statement}.",
        f"[{s:.2f}s – {e:.2f}s] {statement}.",
        f"({s:.2f}-{e:.2f} s) {statement}.",
        f"({s:.2f} – {e:.2f} s) {statement}.",
        f"({s:.2f}s-{e:.2f}s) {statement}.",
        f"At {s:.2f}s, {statement}.",
        f"Between {s:.2f} and {e:.2f} seconds, {statement}.",
        f"<seg>{s:.2f},{e:.2f}</seg> {statement}.",
        f"{clock(s)} - {clock(e + 1)}: {statement}.",
        f"{subtitle_clock(s)} --> {subtitle_clock(e)} {statement}.",
    )
    p = np.array([6, 2, 2, 1, 1, 0.5, 2, 1, 1, 0.5, 0.5, 0.5])
    return forms[int(rng.choice(len(forms), p=p / p.sum()))]


def bad_span(duration: float, rng: np.random.Generator) -> Span:
    """A span that has nothing to do with the audio, as a model without time writes it: anywhere, and brief."""
    start = rng.uniform(0, max(0.2, duration - 0.5))
    return Span(start, start + rng.uniform(0.3, max(0.6, min(1.5, duration - start))))


def speaker_of(words: tuple[Word, ...], speakers: tuple[str, ...]) -> str:
    """ "first speaker" or "second speaker", or "speaker" where there is only one or nobody knows."""
    if len(speakers) < 2 or words[0].speaker is None:
        return "speaker"
    return f"{ORDINALS[speakers.index(words[0].speaker)]} speaker"


def spoken(words: tuple[Word, ...], speakers: tuple[str, ...]) -> str:
    """'the first speaker says "seven two"', or just 'the speaker says ...' where there is only one."""
    text = " ".join(word.text for word in words)
    return f'the {speaker_of(words, speakers)} says "{text}"'


def turns(words: tuple[Word, ...], longest: int) -> list[tuple[Word, ...]]:
    """The transcript in pieces of at most `longest` words that one speaker says."""
    pieces: list[list[Word]] = []
    for word in words:
        if pieces and pieces[-1][0].speaker == word.speaker and len(pieces[-1]) < longest:
            pieces[-1].append(word)
        else:
            pieces.append([word])
    return [tuple(piece) for piece in pieces]


def within(words: tuple[Word, ...], span: Span) -> tuple[Word, ...]:
    return tuple(w for w in words if w.start < span.end and w.end > span.start)


NO_EVIDENCE = ("The speaker says several digits.", "The audio has spoken digits.", "I listen to the digits.")
HABITS = {"none": 0.35, "all": 0.40, "evidence": 0.25}  # shares
RIGHT = {"none": 0.5, "all": 0.7, "evidence": 0.95}  # how often each habit's answer is right


def reasoning(question: Question, clip: Clip, rng: np.random.Generator, true_times: bool) -> str:
    """A stage-2 response as a model writes it before stage 2: opening, reasoning, final answer.

    Three habits, as in real outputs: no evidence at all, the whole clip piece by piece, the one place that
    matters (HABITS). The better the evidence, the more often the answer is right (RIGHT): stage 2 has
    something to choose from.
    """
    habit = str(rng.choice(list(HABITS), p=list(HABITS.values())))
    if habit == "none":
        body = str(rng.choice(NO_EVIDENCE))
    elif habit == "all":
        pieces = turns(clip.words, int(rng.integers(3, 6)))
        body = " ".join(quote(piece, clip, rng, true_times) for piece in pieces)
    else:
        body = evidence(question, clip, rng, true_times)
    answer = str(question.answer)
    if rng.random() >= RIGHT[habit]:
        answer = str(rng.choice([choice for choice in question.choices if choice != answer]))
    return f"{REASONING_OPENING}\n{body}\n{final_answer(question, answer)}"


def quote(words: tuple[Word, ...], clip: Clip, rng: np.random.Generator, true_times: bool) -> str:
    """A sentence that cites where consecutive words are said, and by whom."""
    speakers = speakers_in_order(clip.words)
    span = cover(word.span for word in words)
    assert span is not None
    statement = " and ".join(spoken(turn, speakers) for turn in turns(words, len(words)))
    return cite(span if true_times else bad_span(clip.duration, rng), statement, rng)


def evidence(question: Question, clip: Clip, rng: np.random.Generator, true_times: bool) -> str:
    """The one place that answers a question, quoted: all words from its evidence's first second to its last.

    For a pause these are the words around it.
    """
    whole = cover(question.evidence)
    if whole is None:
        return "It is not said."
    words = tuple(w for w in clip.words if w.start <= whole.end and w.end >= whole.start)
    return quote(words, clip, rng, true_times)


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
        for turn in turns(clip.words, len(clip.words))
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
    words of it are said (`words` are the clip's then). A decoder that copies from its context can do all of
    it, and everything that is asked about audio needs the same.
    """
    kind = DRILLS[int(rng.choice(3, p=(0.25, 0.4, 0.35)))]
    once = said_once(clip)
    if kind == "times" and once:
        words = [once[int(rng.integers(len(once)))] for _ in range(n_lines)]
        lines = [f"When is {w.text}: {w.start:.2f} - {w.end:.2f}" for w in words]
        return TextLesson(written(clip), "\n".join(lines), "drill times", clip.words)
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
    return TextLesson(question, answer, "each", words)


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
        lessons.append(TextLesson(prompt, answer, "phrase" if true_times else "bad phrase", words))
    return lessons


def transcript_lesson(clip: Clip) -> TextLesson:
    text = " ".join(w.text for w in clip.words)
    return TextLesson("Transcribe the input speech.", text, "transcript", clip.words)


def turns_lesson(clip: Clip) -> TextLesson:
    """The transcript with who says what."""
    answer = "; ".join(by_speaker(clip, " ", lambda word: word.text))
    return TextLesson("Who says what?", answer, "turns", clip.words)


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
        made.append(TextLesson("Transcribe with timestamps.", answer, kind, clip.words))
    made = shuffled(made, rng)
    return with_reasoning(made, chosen, clip, rng, true_times, first=0.5)


def talking_lessons(clip: Clip, rng: np.random.Generator, true_times: bool) -> list[TextLesson]:
    """The lessons for a model that has learned to hear: questions above all, and what questions rest on.

    That is: lessons that ask for several words at once, and for the place that answers a question.
    """
    chosen = shuffled(choice_questions(clip, rng), rng)
    made = [direct_lesson(question) for question in chosen[:3]]
    made += [evidence_lesson(question, clip, rng, true_times) for question in chosen[:3]]
    made += several(clip, rng)[:3]
    made += phrase_lessons(clip, rng, 2 if true_times else 1, true_times)
    if rng.random() < 0.3:
        two = len(speakers_in_order(clip.words)) == 2
        made.append(turns_lesson(clip) if two else transcript_lesson(clip))
    made = shuffled(made, rng)
    return with_reasoning(made, chosen, clip, rng, true_times, first=0.6)


def evidence_lesson(question: Question, clip: Clip, rng: np.random.Generator, true_times: bool) -> TextLesson:
    """A question, the one place that answers it, and the answer: the best habit, when it is asked for."""
    prompt = choice_question(question.question, question.choices, instruction="Cite the place, then answer.")
    answer = f"{evidence(question, clip, rng, true_times)}\n{final_answer(question, str(question.answer))}"
    return TextLesson(prompt, answer, f"evidence {question.task}")


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
    parts = [
        f"{ORDINALS[speakers.index(str(turn[0].speaker))]} {len(turn)}"
        for turn in turns(clip.words, len(clip.words))
    ]
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
    questions: list[Question],
    clip: Clip,
    rng: np.random.Generator,
    true_times: bool,
    first: float,
) -> list[TextLesson]:
    """The lessons and the last question reasoned about: before them for a share `first`, else after them."""
    if not questions:
        return made
    prompt = choice_question(questions[-1].question, questions[-1].choices)
    thought = TextLesson(prompt, reasoning(questions[-1], clip, rng, true_times), "reasoning")
    return [thought, *made] if rng.random() < first else [*made, thought]


def direct_lesson(question: Question) -> TextLesson:
    """A question that is answered at once."""
    prompt = choice_question(question.question, question.choices, instruction="")
    return TextLesson(prompt, final_answer(question, str(question.answer)), f"answer {question.task}")
