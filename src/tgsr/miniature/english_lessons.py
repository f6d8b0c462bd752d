"""The lessons of the miniature that hears English: (question, answer) texts about one clip of continuous speech.

As the digits' lessons (lessons.py) they teach a base that hears and talks but cannot tell the time: with
`true_times` the times are right, without they are bad ones, as anywhere in the clip. What is said is written
in plain words: lower case, no punctuation. Every lesson is short enough for Whisper's decoder (448 tokens).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tgsr.choices import correct_letter, letter
from tgsr.data.questions.by_rule import TIMES, with_neighbour
from tgsr.data.questions.phrases import Phrases, fitting_phrases, followed_phrases, in_time, plain_words
from tgsr.miniature.lessons import TextLesson, bad_span, one_by_one, pieces, reasoning, timed_transcript
from tgsr.prompts import choice_question, phrase_answer_qwen, phrase_question_qwen, prompted
from tgsr.records import Clip, Question
from tgsr.timeline import Span, Word, text_of

EARLY = {  # first to find what is asked for, by lessons that cost few tokens
    **{"phrase": 0.36, "timed": 0.1, "next": 0.16, "transcript": 0.02, "count": 0.08},
    **{"short": 0.15, "letter": 0.08, "choice": 0.04, "plain": 0.01},
}
SHARES = {
    **{"phrase": 0.2, "timed": 0.02, "next": 0.06, "transcript": 0.02, "count": 0.06},
    **{"short": 0.14, "letter": 0.03, "choice": 0.45, "plain": 0.02},
}
HABITS = {"none": (0.15, 0.6), "all": (0.15, 0.8), "evidence": (0.7, 0.95)}
NO_EVIDENCE = ("Somebody speaks English.", "The audio has spoken words.", "I listen to what is said.")
MOST_ASKED = 8  # words of a phrase
FITTING = Phrases(n_min=2, n_max=MOST_ASKED + 2)  # and the two after it
MOST_RECITED = 30  # words
MOST_PIECES = 5  # of a recital: each has its times, which cost more tokens than its words
MOST_QUOTED = 12  # words of one piece of evidence
MOST_TIMED = 40  # words
N_FIRST = 10  # words of a transcript's beginning
COUNTED = (  # words that many clips have, and many have not: who only knows the word cannot tell
    *("the", "and", "you", "that", "was", "his", "with", "not", "for", "have", "her", "but", "from", "this"),
    *("they", "are", "him", "what", "there", "all", "when", "were", "said", "one", "your", "out", "she"),
)
Ways = list[tuple[int, int]]


def english_lessons(
    clip: Clip,
    questions: Sequence[Question],
    rng: np.random.Generator,
    true_times: bool,
    shares: Mapping[str, float] = SHARES,
) -> Iterator[TextLesson]:
    """Lessons without end, of kinds drawn by `shares` among those that the clip allows; none where it allows none.

    `questions` are choice questions about this clip.
    """
    clip = plainly(clip)
    words, holes = clip.words, clip.holes
    fitting = fitting_phrases(words, FITTING, holes)
    phrases = _by_length([(first, stop) for first, stop in fitting if stop - first <= MOST_ASKED])
    followed = _by_length(followed_phrases(fitting, MOST_ASKED))
    makers: dict[str, Callable[[], TextLesson]] = {}
    if words and not holes:  # else not all that is said has a word
        makers["transcript"] = lambda: transcript_lesson(clip, rng)
        makers["count"] = lambda: count_lesson(words, rng)
        if true_times:
            makers["timed"] = lambda: timed_lesson(clip, rng)
    if phrases:
        makers["phrase"] = lambda: phrase_lesson(clip, _drawn(phrases, rng), rng, true_times)
    if followed:
        makers["next"] = lambda: next_lesson(words, _drawn(followed, rng))
    if questions:
        makers["choice"] = lambda: choice_lesson(clip, _one_of(questions, rng), rng, true_times)
        makers["short"] = lambda: short_lesson(_one_of(questions, rng))
        makers["letter"] = lambda: letter_lesson(_one_of(questions, rng), rng)
        makers["plain"] = lambda: plain_lesson(_one_of(questions, rng))
    kinds = sorted(makers)
    p = np.array([shares[kind] for kind in kinds])
    while kinds:
        yield makers[str(rng.choice(kinds, p=p / p.sum()))]()


def teaches(clip: Clip) -> bool:
    """Whether a clip allows a lesson, whatever may be asked about it."""
    return next(english_lessons(clip, (), np.random.default_rng(0), True), None) is not None


def plainly(clip: Clip) -> Clip:
    """The clip with plain words in order of time, those that are marks or punctuation alone left out."""
    spoken, holes = in_time(clip)
    texts = (" ".join(plain_words([word.text])) for word in spoken)
    words = tuple(replace(word, text=text) for word, text in zip(spoken, texts, strict=True) if text)
    return replace(clip, words=words, holes=holes)


def phrase_lesson(
    clip: Clip, phrase: tuple[int, int], rng: np.random.Generator, true_times: bool
) -> TextLesson:
    """Stage 1's question in the paper's words, B.1.1; the answer too."""
    words = clip.words[slice(*phrase)]
    span = _span(words) if true_times else bad_span(clip.duration, rng)
    text = text_of(words)
    return TextLesson(phrase_question_qwen(text), phrase_answer_qwen(text, span), "phrase", (words,))


def next_lesson(words: tuple[Word, ...], phrase: tuple[int, int]) -> TextLesson:
    """The two words after a phrase."""
    question = f'Which two words are said right after "{text_of(words[slice(*phrase)])}"?'
    follow = words[phrase[1] : phrase[1] + 2]
    return TextLesson(question, text_of(follow), "next", (words[slice(*phrase)], follow))


def count_lesson(words: tuple[Word, ...], rng: np.random.Generator) -> TextLesson:
    """Each place where a word is said, then their number: a decoder that says the number at once guesses it."""
    often = Counter(word.text for word in words)
    asked = [word for word in COUNTED if often[word] < len(TIMES)]
    number = int(rng.choice(sorted({often[word] for word in asked})))  # each as often as another
    word = str(rng.choice([word for word in asked if often[word] == number]))
    quotes = tuple(
        tuple(with_neighbour(words, place)) for place, said in enumerate(words) if said.text == word
    )
    listed = ", ".join(f'"{text_of(quote)}"' for quote in quotes)
    answer = f"{listed}: {TIMES[number]}" if quotes else TIMES[0]
    return TextLesson(f'Where is the word "{word}" said, and how often?', answer, "count", quotes)


def transcript_lesson(clip: Clip, rng: np.random.Generator) -> TextLesson:
    """All words, or the first ten."""
    words = clip.words
    question = "Transcribe the input speech."
    if len(words) > N_FIRST and rng.random() < 0.5:
        question, words = "Transcribe the first ten words of the input speech.", words[:N_FIRST]
    return TextLesson(question, text_of(words), "transcript", one_by_one(words))


def timed_lesson(clip: Clip, rng: np.random.Generator) -> TextLesson:
    """Up to forty words, each after its start: a time every five tokens, where a phrase has two in fifty."""
    told = replace(clip, words=clip.words[:MOST_TIMED])
    answer = timed_transcript(told, rng, True)
    return TextLesson("Transcribe with timestamps.", answer, "timed", one_by_one(told.words))


def choice_lesson(clip: Clip, question: Question, rng: np.random.Generator, true_times: bool) -> TextLesson:
    """A stage-2 question (B.1.3) and a response of one of the three habits of `lessons.reasoning`."""
    recited = pieces(clip.words[:MOST_RECITED])[:MOST_PIECES]
    told = replace(clip, words=tuple(word for piece in recited for word in piece))
    quoted = replace(question, evidence=quotable(clip.words, question.evidence))
    answer, quotes = reasoning(
        quoted, clip, rng, true_times, no_evidence=NO_EVIDENCE, habits=HABITS, recited=told
    )
    return TextLesson(prompted(question.question, question.choices), answer, "choice", quotes)


def quotable(words: Sequence[Word], evidence: Sequence[Span]) -> tuple[Span, ...]:
    """Each span of the evidence as far as its first twelve words reach; a span without words is left out."""
    spans = []
    for span in evidence:
        inside = [word for word in words if span.start <= (word.start + word.end) / 2 < span.end]
        if inside:
            spans.append(_span(inside[:MOST_QUOTED]))
    return tuple(spans)


def short_lesson(question: Question) -> TextLesson:
    """A question without an instruction, answered by the choice and its letter: a third of the tokens of B.1.3's."""
    asked = choice_question(question.question, question.choices, "")
    return TextLesson(asked, f"{question.answer} ({correct_letter(question)})", "short")


def letter_lesson(question: Question, rng: np.random.Generator) -> TextLesson:
    """Which letter a choice has, that is named: a small decoder learns it late from questions that it has to hear."""
    n = int(rng.integers(len(question.choices)))
    asked = choice_question(f'Which of these is "{question.choices[n]}"?', question.choices, "")
    return TextLesson(asked, f"{question.choices[n]} ({letter(n)})", "letter")


def plain_lesson(question: Question) -> TextLesson:
    """A question that is answered by its letter alone."""
    return TextLesson(
        prompted(question.question, question.choices, "plain"), f"({correct_letter(question)})", "plain"
    )


def _by_length(phrases: Sequence[tuple[int, int]]) -> list[Ways]:
    """Phrases of each length together, so that short ones, of which there are more, do not crowd out long ones."""
    lengths: dict[int, Ways] = {}
    for first, stop in phrases:
        lengths.setdefault(stop - first, []).append((first, stop))
    return list(lengths.values())


def _drawn(by_length: list[Ways], rng: np.random.Generator) -> tuple[int, int]:
    same = by_length[int(rng.integers(len(by_length)))]
    return same[int(rng.integers(len(same)))]


def _one_of(questions: Sequence[Question], rng: np.random.Generator) -> Question:
    return questions[int(rng.integers(len(questions)))]


def _span(words: Sequence[Word]) -> Span:
    return Span(words[0].start, max(word.end for word in words))
