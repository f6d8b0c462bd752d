"""Stage 2's questions from clips of any corpus, by rule: each with its choices, its answer and the spans that show it.

What a clip is known to hold decides what is asked: labels of the whole clip (emotion, sentiment), who speaks when, what
is said in which order, and sounds with their times (appendix D). Speakers are named by the order in which they are
heard: a listener cannot know their names.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from tgsr.data.questions.draft import Draft, question_id
from tgsr.data.questions.phrases import (
    PUNCTUATION,
    Phrases,
    Said,
    fitting_phrases,
    in_time,
    plain_words,
    unbroken,
)
from tgsr.data.splits import drawn
from tgsr.records import (
    EVENTS_LEFT_OUT,
    NO_SPEECH,
    NOT_ENGLISH,
    TEXT_DIFFERS,
    TOO_LONG,
    TURNS_LEFT_OUT,
    Clip,
    Question,
)
from tgsr.timeline import Event, Hole, Seconds, Span, Word, cover

EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
SENTIMENTS = ("negative", "neutral", "positive")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
TURN = "speaker "  # how events name a speaker's turn
QUOTED = 10  # words of a turn
MACHINE_ID = re.compile(r"/[a-z]+/\S+|[A-Za-z]{0,4}[_-]?\d+")  # /m/05tny_, 17, dd00125, ev_3
PAUSE: Seconds = 0.05  # apart: what comes first must be heard to come first


@dataclass(frozen=True, slots=True)
class Choices:
    """How many choices a question has, at most, and which tasks are left out."""

    n: int = 4
    without: tuple[str, ...] = ()
    seed: int = 0


def choice_questions_of(clip: Clip, others: Sequence[Clip], settings: Choices) -> list[Question]:
    """One question a task that the clip allows; `others` are clips of the same corpus, whose phrases are wrong."""
    rng = np.random.default_rng(drawn(settings.seed, clip.id))
    drafts = [*by_label(clip, others), *by_speaker(clip, rng)]
    drafts += [*by_words(clip, others, rng), *by_sound(clip, others, rng)]
    usable = (draft for draft in drafts if draft.wrong and draft.task not in settings.without)
    return [in_order(clip, draft, settings) for draft in usable]


def in_order(clip: Clip, draft: Draft, settings: Choices) -> Question:
    """The draft as a question. Where its right choice stands follows from its id, so that letters balance."""
    id_ = question_id(clip, draft.task)
    wrong = [text for text in dict.fromkeys(draft.wrong) if text != draft.answer][: settings.n - 1]
    order = np.random.default_rng(drawn(settings.seed, f"{id_} order")).permutation(len(wrong))
    choices = [wrong[int(index)] for index in order]
    choices.insert(drawn(settings.seed, f"{id_} letter") % (len(choices) + 1), draft.answer)
    return draft.about(clip, choices)


# --- what is known of the whole clip -----------------------------------------------------------------------------


def by_label(clip: Clip, others: Sequence[Clip] = ()) -> list[Draft]:
    """Emotion and sentiment from closed sets, intent from those of other clips.

    The evidence is all that is said, or the whole clip.
    """
    spoken = cover(word.span for word in clip.words)
    evidence = (spoken or Span(0.0, clip.duration),)
    intents = tuple(sorted({str(intent) for other in (clip, *others) if (intent := other.label("intent"))}))
    tasks = (
        ("intent", "What does the speaker want?", intents),
        ("emotion", "Which emotion does the speaker express?", EMOTIONS),
        ("sentiment", "What is the sentiment of what the speaker says?", SENTIMENTS),
    )
    drafts = []
    for name, question, known in tasks:
        label = clip.label(name)
        if label in known and len(known) > 1:
            rng = np.random.default_rng(drawn(0, f"{clip.id} {name}"))
            wrong = tuple(str(text) for text in rng.permutation([text for text in known if text != label]))
            drafts.append(Draft(name, question, str(label), wrong, evidence))
    return drafts


# --- who speaks ----------------------------------------------------------------------------------------------------


def turns_of(clip: Clip) -> list[tuple[str, Span, tuple[Word, ...]]]:
    """(speaker, span, words) of each turn in order: from words whose speaker is known, else from events."""
    named = (word for word in in_time(clip)[0] if word.speaker)
    turns = []
    for speaker, group in itertools.groupby(named, attrgetter("speaker")):
        words = tuple(group)
        turns.append((str(speaker), Span(words[0].start, max(word.end for word in words)), words))
    if turns:
        return turns
    events = sorted((e for e in clip.events if e.label.startswith(TURN)), key=lambda event: event.start)
    return [(event.label.removeprefix(TURN), event.span, ()) for event in events]


def by_speaker(clip: Clip, rng: np.random.Generator) -> list[Draft]:
    """How many speak, and, where two or more do, who says a phrase and who follows whom.

    Nothing is asked where somebody may speak of whom no word is known: in a hole, in a turn that was left out, or
    unnamed among named ones.
    """
    if TURNS_LEFT_OUT in clip.flags:
        return []
    turns = turns_of(clip)
    words, holes = in_time(clip)
    speakers = list(dict.fromkeys(speaker for speaker, _, _ in turns))
    if not speakers or len(speakers) > len(ORDINALS):
        return []
    known = {word.speaker for word in words} | {hole.speaker for hole in holes}
    if turns[0][2] and known - set(speakers):
        return []
    n = len(speakers)
    if n == 1 and clip.speaker:  # a corpus of one voice a clip: "one" would always be right
        return []
    firsts = tuple(next(span for who, span, _ in turns if who == speaker) for speaker in speakers)
    question = "How many different people speak in the recording?"
    drafts = [Draft("speaker count", question, *_number(n, rng), firsts)]
    if n < 2:
        return drafts
    called = {speaker: f"the {ORDINALS[index]} speaker" for index, speaker in enumerate(speakers)}

    def ask(task: str, question: str, speaker: str, *evidence: Span) -> None:
        wrong = tuple(name for name in called.values() if name != called[speaker])
        question = f"Counting speakers in the order in which they are first heard, {question}?"
        drafts.append(Draft(task, question, called[speaker], wrong, evidence))

    said = Said(words, holes)
    begun = [(speaker, span, _text(_pieces(words, holes)[0][:QUOTED])) for speaker, span, words in turns]
    clear = [turn for turn in begun if len(turn[2].split()) >= 2 and said.count(turn[2].split()) == 1]
    if clear:
        speaker, span, text = clear[int(rng.integers(len(clear)))]
        ask("who says it", f'who says "{text}"', speaker, span)
    followed = []
    for (before, span, words), (after, its_span, next_words) in itertools.pairwise(turns):
        text = _text(_pieces(words, holes)[-1][-QUOTED:])
        is_clear = len(text.split()) >= 2 and said.count(text.split()) == 1
        if is_clear and before != after and len(_pieces((words[-1], next_words[0]), holes)) == 1:
            followed.append((text, span, after, its_span))
    if n >= 3 and followed:
        text, span, speaker, its_span = followed[int(rng.integers(len(followed)))]
        ask("who speaks next", f'who speaks right after "{text}"', speaker, span, its_span)
    return drafts


def _pieces(words: Sequence[Word], holes: Sequence[Hole]) -> list[Sequence[Word]]:
    """The words cut at each hole between two of them; one piece, of no words, where there are none."""
    cuts = [n for n, is_whole in enumerate(unbroken(words, holes), 1) if not is_whole]
    return [words[first:stop] for first, stop in itertools.pairwise((0, *cuts, len(words)))]


def _number(n: int, rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
    """A number as a word, and the others up to eight, the nearest first."""
    near = sorted(range(1, len(NUMBERS) + 1), key=lambda other: (abs(other - n), rng.random()))
    return NUMBERS[n - 1], tuple(NUMBERS[other - 1] for other in near if other != n)


# --- what is said --------------------------------------------------------------------------------------------------

SHORT = Phrases(n_min=3, n_max=6)


def by_words(clip: Clip, others: Sequence[Clip], rng: np.random.Generator) -> list[Draft]:
    """What is said first, what comes after a phrase, and which phrase is said at all."""
    words, holes = in_time(clip)
    apart = _apart(words, holes, rng, 4)
    drafts = []
    if len(apart) >= 3:
        first, *later = apart
        question, wrong = "Which of these is said first?", tuple(map(_text, later))
        drafts.append(Draft("said first", question, _text(first), wrong, (_span(first),)))
        before = apart[int(rng.integers(len(apart) - 1))]
        stop = words.index(before[-1]) + 1
        follows = _pieces(words[stop - 1 : stop + 6], holes)[0][1:]
        if len(follows) >= 3:
            others_said = (_text(phrase) for phrase in apart if phrase not in (before, follows))
            wrong = tuple(text for text in others_said if not _share(text, _text(follows)))
            question, evidence = (
                f'What is said right after "{_text(before)}"?',
                (_span(before), _span(follows)),
            )
            drafts.append(Draft("said next", question, _text(follows), wrong, evidence))
    elsewhere = _elsewhere(clip, others, rng, set(Said(words, holes).words))
    if apart and len(elsewhere) >= 2:
        phrase = apart[int(rng.integers(len(apart)))]
        # Of like length, so that neither the longest nor the shortest gives itself away.
        near = sorted(elsewhere, key=lambda text: abs(len(text) - len(_text(phrase))))
        question = "Which of these is said in the recording?"
        drafts.append(Draft("said at all", question, _text(phrase), tuple(near), (_span(phrase),)))
    return drafts


def _apart(
    words: tuple[Word, ...], holes: Sequence[Hole], rng: np.random.Generator, n: int
) -> list[tuple[Word, ...]]:
    """Up to n phrases in order, none of which overlaps another."""
    fitting = [words[first:stop] for first, stop in fitting_phrases(words, SHORT, holes)]
    chosen: list[tuple[Word, ...]] = []
    for index in rng.permutation(len(fitting)):
        phrase = fitting[int(index)]
        start, end = phrase[0].start, phrase[-1].end
        if all(end + PAUSE < other[0].start or other[-1].end + PAUSE < start for other in chosen):
            chosen.append(phrase)
        if len(chosen) == n:
            break
    return sorted(chosen, key=lambda phrase: phrase[0].start)


def _elsewhere(clip: Clip, others: Iterable[Clip], rng: np.random.Generator, said: set[str]) -> list[str]:
    """Phrases of other clips of which half the words, at most, are said in this one too."""
    phrases = []
    for other in others:
        if other.audio == clip.audio:
            continue
        for phrase in _apart(*in_time(other), rng, 1):
            plain = plain_words(word.text for word in phrase)
            if sum(word in said for word in plain) <= len(plain) / 2:
                phrases.append(_text(phrase))
        if len(phrases) >= 8:
            break
    return phrases


def _text(phrase: Sequence[Word]) -> str:
    return " ".join(word.text for word in phrase).strip(PUNCTUATION)


def _span(phrase: Sequence[Word]) -> Span:
    return Span(phrase[0].start, phrase[-1].end)


def _share(text: str, other: str) -> bool:
    """Whether two phrases share half of their words: then both might be called right."""
    a, b = set(text.lower().split()), set(other.lower().split())
    return len(a & b) * 2 >= min(len(a), len(b))


# --- sounds and music ----------------------------------------------------------------------------------------------


def by_sound(clip: Clip, others: Sequence[Clip], rng: np.random.Generator) -> list[Draft]:
    """Which sound comes first, how often one is heard, and which is heard in a stretch (appendix D).

    Sounds that have no name but an id of their corpus are not asked about. Where events of the clip were left out,
    nobody knows what else is heard, and nothing is asked.
    """
    events = sorted(named_events(clip), key=lambda event: event.start)
    labels = list(dict.fromkeys(event.label for event in events))
    if not labels or EVENTS_LEFT_OUT in clip.flags:
        return []
    elsewhere = {event.label for other in others for event in named_events(other)}
    strange = [str(label) for label in rng.permutation(sorted(elsewhere - set(labels)))]
    drafts = []
    starts = [next(event for event in events if event.label == label) for label in labels]
    if len(labels) >= 2 and starts[1].start - starts[0].start > PAUSE:
        question = "Which of these sounds is heard first?"
        drafts.append(Draft("sound first", question, labels[0], (*labels[1:], *strange), (starts[0].span,)))
    label = labels[int(rng.integers(len(labels)))]
    of_label = [event for event in events if event.label == label]
    apart = all(a.end <= b.start for a, b in itertools.pairwise(of_label))
    if apart and len(of_label) <= len(NUMBERS) - 1:
        question = f'How many times is this sound heard: "{label}"?'
        spans = tuple(event.span for event in of_label)
        drafts.append(Draft("sound count", question, *_number(len(of_label), rng), spans))
    if strange:
        question = "Which of these sounds is heard?"
        drafts.append(Draft("sound at all", question, label, tuple(strange), (of_label[0].span,)))
    return drafts


def named_events(clip: Clip) -> list[Event]:
    """The clip's sounds that a listener could name: no speaker's turns, and no ids such as AudioSet's /m/05tny_."""
    return [e for e in clip.events if not (e.label.startswith(TURN) or MACHINE_ID.fullmatch(e.label))]


UNFIT = (NO_SPEECH, NOT_ENGLISH, TEXT_DIFFERS, TOO_LONG)  # flags whose clips are asked nothing


def unfit(clip: Clip) -> str | None:
    """Why nothing is asked about what is said in a clip, or None."""
    flag = next((flag for flag in clip.flags if flag in UNFIT), None)
    return f"flagged {flag}" if flag else None
