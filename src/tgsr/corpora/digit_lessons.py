"""What the miniature's base model is taught: (question, answer) texts about one clip.

The base has to hear and to talk as a real model does before it is aligned in time: it transcribes,
answers, and writes reasoning with timestamps in every notation, but the times that it learns for
plain audio are bad ones, and its reasoning is now good, now empty. Lessons with true times exist
too: they are given only while a time code is added to the audio embeddings (training/base.py), so that
the decoder can read times without the aligner writing them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tgsr.choices import letter
from tgsr.corpora.digit_questions import choice_questions
from tgsr.corpora.spoken_digits import DIGITS, speakers_in_order
from tgsr.prompts import REASONING_OPENING, choice_question, phrase_answer_af3, phrase_question_af3
from tgsr.queries import phrase_questions
from tgsr.records import Clip, Question
from tgsr.timeline import Span, Word, cover

ORDINALS = ("first", "second")


@dataclass(frozen=True, slots=True)
class Lesson:
    """One turn of a conversation about a clip.

    `words` are the clip's words that stand, one after the other and nothing else spoken between them, in
    the question ("phrase") or in the answer (transcripts); () for other kinds.
    """

    question: str
    answer: str
    kind: str
    words: tuple[Word, ...] = ()


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def subtitle_clock(seconds: float) -> str:
    total_ms = round(seconds * 1000)  # rounded once: 1.9996 s is 00:00:02,000
    return f"00:{total_ms // 60000:02d}:{total_ms // 1000 % 60:02d},{total_ms % 1000:03d}"


def cite(span: Span, said: str, rng: np.random.Generator) -> str:
    """A sentence that cites a span in one of the notations that models use."""
    s, e = span.start, span.end
    forms = (
        f"From {s:.2f}s to {e:.2f}s, {said}.",
        f"From {s:.2f} seconds to {e:.2f} seconds, {said}.",
        f"The segment starts at {s:.2f} seconds and ends at {e:.2f} seconds: {said}.",
        f"[{s:.2f}s – {e:.2f}s] {said}.",
        f"({s:.2f}-{e:.2f} s) {said}.",
        f"({s:.2f} – {e:.2f} s) {said}.",
        f"({s:.2f}s-{e:.2f}s) {said}.",
        f"At {s:.2f}s, {said}.",
        f"Between {s:.2f} and {e:.2f} seconds, {said}.",
        f"<seg>{s:.2f},{e:.2f}</seg> {said}.",
        f"{clock(s)} - {clock(e + 1)}: {said}.",
        f"{subtitle_clock(s)} --> {subtitle_clock(e)} {said}.",
    )
    p = np.array([6, 2, 2, 1, 1, 0.5, 2, 1, 1, 0.5, 0.5, 0.5])
    return forms[int(rng.choice(len(forms), p=p / p.sum()))]


def bad_span(duration: float, rng: np.random.Generator) -> Span:
    """A span that has nothing to do with the audio, as a model without time writes it."""
    start = rng.uniform(0, max(0.2, duration - 0.5))
    return Span(start, start + rng.uniform(0.3, max(0.6, min(4.0, duration - start))))


def spoken(words: tuple[Word, ...], speakers: tuple[str, ...]) -> str:
    """'the first speaker says "seven two"', or just 'the speaker says ...' where there is only one."""
    text = " ".join(word.text for word in words)
    if len(speakers) < 2 or words[0].speaker is None:
        return f'the speaker says "{text}"'
    return f'the {ORDINALS[speakers.index(words[0].speaker)]} speaker says "{text}"'


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


def reasoning(question: Question, clip: Clip, rng: np.random.Generator, true_times: bool) -> str:
    """A stage-2 response as a model writes it before stage 2: opening, reasoning, final answer.

    Three habits, as in real outputs: no evidence at all (35 %), the whole clip piece by piece (40 %),
    the one place that matters (25 %). The answer is right more often the better the evidence is:
    60 %, 80 % and 95 %: stage 2 has something to choose from.
    """
    speakers = speakers_in_order(clip.words)
    habit = rng.choice(("none", "all", "evidence"), p=(0.35, 0.40, 0.25))
    sentences: list[str] = []
    if habit == "none":
        sentences.append(
            str(
                rng.choice(
                    (
                        "The speaker says several digits.",
                        "The audio has spoken digits.",
                        "I listen to the digits.",
                    )
                )
            )
        )
    else:
        if habit == "all":
            pieces = turns(clip.words, int(rng.integers(3, 6)))
        else:
            whole = cover(question.evidence)
            inside = within(clip.words, whole) if whole else ()
            pieces = [inside] if inside else []
            if question.task in ("who", "count") and question.evidence:
                pieces = [w for w in (within(clip.words, span) for span in question.evidence) if w]
                pieces = pieces[: int(rng.integers(1, 3))]
            if question.task == "pause" and question.evidence:
                gap = question.evidence[0]
                around = tuple(w for w in clip.words if w.end == gap.start or w.start == gap.end)
                pieces = [around] if around else pieces[:1]
        for piece in pieces:
            span = cover(w.span for w in piece)
            assert span is not None
            shown = span if true_times else bad_span(clip.duration, rng)
            said = " and ".join(spoken(turn, speakers) for turn in turns(piece, len(piece)))
            sentences.append(cite(shown, said, rng))
        if not sentences:
            sentences.append("It is not said.")
    right = rng.random() < {"none": 0.6, "all": 0.8, "evidence": 0.95}[str(habit)]
    answer = (
        question.answer if right else str(rng.choice([c for c in question.choices if c != question.answer]))
    )
    body = " ".join(sentences)
    return f"{REASONING_OPENING}\n{body}\n{final_answer(question, str(answer))}"


def final_answer(question: Question, answer: str) -> str:
    """The last line: the text first and its letter second, so that a small decoder can take one step at a time."""
    return f"Final answer: {answer} ({letter(question.choices.index(answer))})"


def timed_transcript(clip: Clip, rng: np.random.Generator, true_times: bool) -> str:
    """Each word after its start; bad times are sorted random ones, so that only the audio could correct them."""
    starts = [w.start for w in clip.words]
    if not true_times:
        starts = sorted(rng.uniform(0, clip.duration, len(starts)))
    return " ".join(f"{start:.2f} {word.text}" for start, word in zip(starts, clip.words, strict=True))


def text_lookup(rng: np.random.Generator) -> Lesson:
    """A timed transcript in the question itself, and a phrase of it to be found there."""
    n = int(rng.integers(3, 9))
    starts = np.cumsum(rng.uniform(0.25, 0.9, n))
    digits = [DIGITS[int(d)] for d in rng.permutation(10)[:n]]
    timed = " ".join(f"{s:.2f} {d}" for s, d in zip(starts, digits, strict=True))
    first = int(rng.integers(0, n - 1))
    last = int(rng.integers(first + 1, n))
    phrase = " ".join(digits[first : last + 1])
    return Lesson(f"{timed}\nWhen is: {phrase}", f"{starts[first]:.2f} - {starts[last]:.2f}", "text lookup")


def phrase_lessons(
    clip: Clip, rng: np.random.Generator, n: int, *, n_max: int = 8, long_prompt: float = 0.2
) -> list[Lesson]:
    """Phrase queries with true times, in short words or, for a share `long_prompt`, in the paper's (B.1.2)."""
    lessons = []
    for question in phrase_questions(clip, rng, n, n_min=1, n_max=n_max):
        span = question.evidence[0]
        words = within(clip.words, span)
        if rng.random() < long_prompt:
            asked, answer = phrase_question_af3(question.question), phrase_answer_af3(span)
        else:
            asked, answer = f"When is: {question.question}", f"{span.start:.2f} - {span.end:.2f}"
        lessons.append(Lesson(asked, answer, "phrase", words))
    return lessons


def transcript_lesson(clip: Clip) -> Lesson:
    text = " ".join(w.text for w in clip.words)
    return Lesson("Transcribe the input speech.", text, "transcript", clip.words)


def timed_transcript_lesson(clip: Clip, rng: np.random.Generator, true_times: bool) -> Lesson:
    kind = "true times" if true_times else "bad times"
    answer = timed_transcript(clip, rng, true_times)
    return Lesson("Transcribe with timestamps.", answer, kind, clip.words)


def plain_lessons(clip: Clip, rng: np.random.Generator) -> list[Lesson]:
    """Lessons for audio without a time code: words, answers, and times that are bad."""
    lessons = [transcript_lesson(clip)]
    if rng.random() < 0.3:
        lessons.append(timed_transcript_lesson(clip, rng, true_times=False))
    return lessons + question_lessons(clip, rng, true_times=False)


def timed_lessons(clip: Clip, rng: np.random.Generator, n_max: int = 8) -> list[Lesson]:
    """Lessons for audio with a time code: phrases and transcripts with true times, and the same reasoning."""
    lessons = phrase_lessons(clip, rng, 4, n_max=n_max)
    if rng.random() < 0.3:
        lessons.append(transcript_lesson(clip))
    if rng.random() < 0.3:
        lessons.append(timed_transcript_lesson(clip, rng, true_times=True))
    return lessons + question_lessons(clip, rng, true_times=True)[: int(rng.integers(0, 3))]


def talking_lessons(clip: Clip, rng: np.random.Generator, true_times: bool) -> list[Lesson]:
    """The second half of the base's schooling: mostly questions, reasoned about and answered at once.

    Phrases come along where times are true, so that they are not forgotten.
    """
    lessons: list[Lesson] = []
    if questions := choice_questions(clip, rng):
        for index in rng.permutation(len(questions))[:2]:
            question = questions[int(index)]
            asked = choice_question(question.question, question.choices)
            lessons.append(Lesson(asked, reasoning(question, clip, rng, true_times), "reasoning"))
    others = [lesson for lesson in question_lessons(clip, rng, true_times) if lesson.kind != "reasoning"]
    others += phrase_lessons(clip, rng, 3) if true_times else [transcript_lesson(clip)]
    return [*lessons[:1], *(others[i] for i in rng.permutation(len(others))), *lessons[1:]]


def question_lessons(clip: Clip, rng: np.random.Generator, true_times: bool) -> list[Lesson]:
    """The clip's questions answered at once, then one of them with reasoning under the paper's prompt (B.1.3)."""
    questions = choice_questions(clip, rng)
    lessons = []
    for question in questions:
        direct = choice_question(question.question, question.choices, instruction="")
        lessons.append(
            Lesson(direct, final_answer(question, str(question.answer)), f"answer {question.task}")
        )
    if questions:
        question = questions[int(rng.integers(len(questions)))]
        asked = choice_question(question.question, question.choices)
        lessons.append(Lesson(asked, reasoning(question, clip, rng, true_times), "reasoning"))
    return [lessons[i] for i in rng.permutation(len(lessons))]
