"""Stage 2's questions from clips of any corpus, by rule: each with its choices, its answer and the spans that show it.

What a clip is known to hold decides what is asked: labels of the whole clip (emotion, sentiment), who speaks when, what
is said in which order, and sounds with their times (appendix D). Speakers are named by the order in which they are
heard: a listener cannot know their names.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from tgsr.data.questions.draft import Draft, question_id
from tgsr.data.questions.phrases import (
    N_NEXT,
    PUNCTUATION,
    Phrases,
    Said,
    fitting_phrases,
    followed_phrases,
    in_time,
    plain_words,
    sounds,
    swapped,
    unbroken,
)
from tgsr.data.splits import drawn
from tgsr.errors import OptionError
from tgsr.records import (
    EVENTS_LEFT_OUT,
    NO_SPEECH,
    NOT_ENGLISH,
    SPEAKERS_GUESSED,
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
TASKS = (
    *("intent", "emotion", "sentiment", "speaker count", "who says it", "who speaks next"),
    *("said next", "said first", "said at all", "is it said", "word count"),
    *("sound first", "sound count", "sound at all"),
)
TURN = "speaker "  # how events name a speaker's turn
QUOTED = 10  # words of a turn
NEIGHBOUR = 0.5  # seconds between two words that are said together, at most
TIMES = ("never", "once", "twice", "three times")  # a word is said
MACHINE_ID = re.compile(r"/[a-z]+/\S+|[A-Za-z]{0,4}[_-]?\d+")  # /m/05tny_, 17, dd00125, ev_3
PAUSE: Seconds = 0.05  # apart: what comes first must be heard to come first


@dataclass(frozen=True, slots=True)
class Choices:
    """How many choices a question has, at most, and which of TASKS are left out; OptionError for any other."""

    n: int = 4
    without: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := sorted({*self.without} - {*TASKS}):
            raise OptionError(f"--without {unknown[0]!r}: is no task; tasks are {', '.join(TASKS)}")


def choice_questions_of(clip: Clip, others: Sequence[Clip], settings: Choices) -> list[Question]:
    """One question a task that the clip allows; `others` are clips of the same corpus, whose phrases are wrong."""
    rng = np.random.default_rng(drawn(settings.seed, clip.id))
    drafts = [*by_label(clip, others), *by_speaker(clip, rng, others)]
    drafts += [*by_words(clip, others, rng), *by_sound(clip, others, rng)]
    usable = (draft for draft in drafts if draft.wrong and draft.task not in settings.without)
    return [in_order(clip, draft, settings) for draft in usable]


def after(clips: Sequence[Clip], place: int, n: int) -> tuple[Clip, ...]:
    """The n clips that come after one, as in a ring: whose phrases may be its wrong choices."""
    return tuple([*clips[place + 1 :], *clips][:n])


def in_order(clip: Clip, draft: Draft, settings: Choices) -> Question:
    """The draft as a question. Where its right choice stands follows from its id, so that letters balance.

    No two choices sound alike.
    """
    id_ = question_id(clip, draft.task)
    unlike: dict[str, str] = {}
    for text in (draft.answer, *draft.wrong):
        unlike.setdefault(" ".join(sounds([text])) or text, text)
    wrong = list(unlike.values())[1 : settings.n]
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
        turns.append((str(speaker), _span(words), words))
    if turns:
        return turns
    events = sorted((e for e in clip.events if e.label.startswith(TURN)), key=lambda event: event.start)
    return [(event.label.removeprefix(TURN), event.span, ()) for event in events]


def by_speaker(clip: Clip, rng: np.random.Generator, others: Sequence[Clip] = ()) -> list[Draft]:
    """How many speak, and, where two or more do, who says a phrase and who follows whom.

    Wrong numbers are those of the other clips, where these differ. Nothing is asked where somebody may speak of whom no
    word is known: in a hole, in a turn that was left out, or unnamed among named ones.
    """
    if TURNS_LEFT_OUT in clip.flags or SPEAKERS_GUESSED in clip.flags:
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
    answer, wrong = _number(n, rng)
    heard = {_number(m, rng)[0] for other in others if 0 < (m := n_speakers(other)) <= len(NUMBERS)}
    wrong = tuple(text for text in wrong if text in heard) or wrong
    drafts = [Draft("speaker count", question, answer, wrong, firsts)]
    if n < 2:
        return drafts
    called = {speaker: f"the {ORDINALS[index]} speaker" for index, speaker in enumerate(speakers)}

    def ask(task: str, question: str, speaker: str, *evidence: Span) -> None:
        wrong = tuple(name for name in called.values() if name != called[speaker])
        question = f"Counting speakers in the order in which they are first heard, {question}?"
        drafts.append(Draft(task, question, called[speaker], wrong, evidence))

    said = Said(words, holes)
    phrases: dict[str, list[tuple[Word, ...]]] = {}
    for first, stop in fitting_phrases(words, SHORT, holes):
        phrases.setdefault(str(words[first].speaker), []).append(words[first:stop])
    if phrases:  # the speaker is drawn first: who speaks most is no likelier to be asked about
        speaker = str(rng.choice(sorted(phrases)))
        phrase = phrases[speaker][int(rng.integers(len(phrases[speaker])))]
        ask("who says it", f'who says "{_text(phrase)}"', speaker, _span(phrase))
    followed = []
    for (before, span, words_before), (after, its_span, next_words) in itertools.pairwise(turns):
        text = _text(_pieces(words_before, holes)[-1][-QUOTED:])
        is_clear = len(text.split()) >= 2 and said.count(text.split()) == 1
        if is_clear and before != after and len(_pieces((words_before[-1], next_words[0]), holes)) == 1:
            followed.append((text, span, after, its_span))
    if n >= 3 and followed:
        text, span, speaker, its_span = followed[int(rng.integers(len(followed)))]
        ask("who speaks next", f'who speaks right after "{text}"', speaker, span, its_span)
    return drafts


def n_speakers(clip: Clip) -> int:
    """How many speakers are known of: by words whose speaker is known, else by events."""
    named = {word.speaker for word in clip.words if word.speaker}
    return len(named or {event.label for event in clip.events if event.label.startswith(TURN)})


def _pieces(words: Sequence[Word], holes: Sequence[Hole]) -> list[Sequence[Word]]:
    """The words cut at each hole between two of them; one piece, of no words, where there are none."""
    cuts = [n for n, is_whole in enumerate(unbroken(words, holes), 1) if not is_whole]
    return [words[first:stop] for first, stop in itertools.pairwise((0, *cuts, len(words)))]


def _number(n: int, rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
    """A number as a word, and the others up to eight, the nearest first."""
    near = sorted(range(1, len(NUMBERS) + 1), key=lambda other: (abs(other - n), rng.random()))
    return NUMBERS[n - 1], tuple(NUMBERS[other - 1] for other in near if other != n)


# --- what is said --------------------------------------------------------------------------------------------------

SHORT = Phrases(n_min=2, n_max=6)
LEAST_QUOTED = 3  # words of a phrase that is a choice
CUE = 4  # words that are quoted, at most, where the two after them are asked for
N_ELSEWHERE = 8  # other clips whose phrases and words are wrong choices


def by_words(clip: Clip, others: Sequence[Clip], rng: np.random.Generator) -> list[Draft]:
    """Which of two phrases is said first, what follows one, which is said, whether one is, how often a word is.

    Wrong choices are of the clip, of other clips, and near misses: a phrase with one word of another clip in it.
    """
    words, holes = in_time(clip)
    heard = _Heard(words, holes, Said(words, holes), fitting_phrases(words, SHORT, holes))
    order = rng.permutation(len(others))
    strangers = [others[int(index)] for index in order if others[int(index)].audio != clip.audio]
    elsewhere = _Elsewhere.of(strangers, rng, heard.said)
    drafts = [*_next(heard, elsewhere, rng), *_how_often(heard, strangers, rng)]
    apart = _apart(words, heard.fitting, rng, 2)
    if len(apart) == 2:
        # One as long as each: were both as long as the first phrase, the later one would stand out.
        absent = elsewhere.like(apart[0])[:1]
        absent += [text for text in elsewhere.like(apart[1]) if text not in absent][:1]
        wrong = (_text(apart[1]), *absent)
        spans = tuple(map(_span, apart))
        drafts.append(Draft("said first", "Which of these is said first?", _text(apart[0]), wrong, spans))
    if apart:
        drafts += _at_all(heard, apart[int(rng.integers(len(apart)))], elsewhere, rng)
    return drafts


@dataclass(frozen=True, slots=True)
class _Heard:
    """A clip's words in order of time, its holes, all that is known to be said, and the phrases that may be quoted."""

    words: tuple[Word, ...]
    holes: tuple[Hole, ...]
    said: Said
    fitting: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Of some other clips: all words, and of each a phrase that is not said in this one, and what follows another."""

    words: tuple[str, ...]
    phrases: tuple[tuple[Word, ...], ...]
    follow: tuple[tuple[Word, ...], ...]

    @classmethod
    def of(cls, strangers: Iterable[Clip], rng: np.random.Generator, said: Said) -> _Elsewhere:
        texts: list[str] = []
        phrases: list[tuple[Word, ...]] = []
        follow: list[tuple[Word, ...]] = []
        for other in strangers:
            words, holes = in_time(other)
            texts += (text for word in words if (text := word.text.strip(PUNCTUATION)))
            fitting = fitting_phrases(words, SHORT, holes)
            phrases += (one for one in _apart(words, fitting, rng, 1) if not said.count(w.text for w in one))
            if cues := followed_phrases(fitting, CUE):
                stop = cues[int(rng.integers(len(cues)))][1]
                follow.append(words[stop : stop + N_NEXT])
            if len(phrases) >= N_ELSEWHERE:
                break
        return cls(tuple(texts), tuple(phrases), tuple(follow))

    def like(self, phrase: Sequence[Word]) -> list[str]:
        """The phrases, those of like length first: neither the longest nor the shortest choice gives itself away."""
        n = len(_text(phrase))
        return sorted(map(_text, self.phrases), key=lambda text: abs(len(text) - n))

    def near_miss(self, text: str, said: Said, rng: np.random.Generator) -> str | None:
        """The text with one of its longer words replaced by one as long from another clip; None where none fits.

        It is not said. Long words, because who mishears a short one has hardly misheard; as long ones, because then
        neither word is the likelier one to who only reads.
        """
        words = text.split()
        bare = [word.strip(PUNCTUATION) for word in words]
        long = [n for n, word in enumerate(bare) if len(word) >= LONG_WORD]
        for place in map(int, rng.permutation(long or len(words))):
            old = bare[place]
            alike = [word for word in self.words if len(word) == len(old)]
            candidates = [alike[int(index)] for index in rng.permutation(len(alike))]
            # Where a capital stands, first those that have one: "to London", "to Warsaw", not "to Walked".
            for new in sorted(candidates, key=lambda word: word[0].isupper() != old[0].isupper()):
                one = swapped(words[place], new)
                changed = [*words[:place], one or "", *words[place + 1 :]]
                if one is not None and not said.count(changed):
                    return " ".join(changed)
        return None


LONG_WORD = 4  # letters


def _next(heard: _Heard, elsewhere: _Elsewhere, rng: np.random.Generator) -> list[Draft]:
    """Which two words follow a phrase; the wrong ones are two neighbours too, of this clip and of others."""
    words = heard.words
    cues = followed_phrases(heard.fitting, CUE)
    if not cues:
        return []
    first, stop = cues[int(rng.integers(len(cues)))]
    cue, follow = words[first:stop], words[stop : stop + N_NEXT]
    here = [words[end : end + N_NEXT] for _, end in cues]  # drawn as the right one is: nobody sees which was
    shuffled = [here[int(index)] for index in rng.permutation(len(here))]
    here = [pair for pair in shuffled if not {*pair} & {*cue, *follow}]
    mixed = itertools.chain.from_iterable(itertools.zip_longest(here, elsewhere.follow))
    wrong = (_text(pair) for pair in mixed if pair is not None)
    unlike = dict.fromkeys(text for text in wrong if sounds([text]) != sounds([_text(follow)]))
    question = f'Which words are said right after "{_text(cue)}"?'
    return [Draft("said next", question, _text(follow), tuple(unlike), (_span(cue), _span(follow)))]


def _at_all(
    heard: _Heard, phrase: tuple[Word, ...], elsewhere: _Elsewhere, rng: np.random.Generator
) -> list[Draft]:
    """Which of four phrases is said, and whether one is.

    Among the four are that phrase and another clip's, each with its near miss: who only reads sees two alike pairs.
    """
    text, said = _text(phrase), heard.said
    strange = elsewhere.like(phrase)[:1]
    pairs = [(one, elsewhere.near_miss(one, said, rng)) for one in (text, *strange)]
    wrong = tuple(one for pair in pairs for one in pair if one is not None and one != text)
    drafts = []
    if len(wrong) >= 2:
        question = "Which of these is said in the recording?"
        drafts.append(Draft("said at all", question, text, wrong, (_span(phrase),)))
    absent = [one for one in wrong if one in (pairs[0][1], *strange)]
    if absent:
        is_said = rng.random() < 0.5
        asked = text if is_said else absent[int(rng.integers(len(absent)))]
        answers = ("yes", "no") if is_said else ("no", "yes")
        evidence = () if asked in strange else (_span(phrase),)  # of a near miss: what is said instead
        question = f'Is "{asked}" said in the recording?'
        drafts.append(Draft("is it said", question, answers[0], answers[1:], evidence))
    return drafts


def _how_often(heard: _Heard, strangers: Sequence[Clip], rng: np.random.Generator) -> list[Draft]:
    """How often a word of three letters or more is said, never to three times; not where something is not known.

    Only a word that some clips have each number of times is asked for, and the more frequent a number is, the more
    seldom: who only knows the word cannot tell.
    """
    if heard.holes:
        return []
    here = Counter(heard.said.words)
    known: dict[str, Counter[int]] = {}
    for counts in (here, *(Counter(plain_words(word.text for word in other.words)) for other in strangers)):
        for word, n in counts.items():
            known.setdefault(word, Counter())[n] += 1
    for numbers in known.values():
        numbers[0] = len(strangers) + 1 - numbers.total()
    long = {word: numbers for word, numbers in known.items() if len(word) > 2}
    rarest = {word: min(numbers[n] for n in range(len(TIMES))) for word, numbers in long.items()}
    # A word that sounds as another one does that is said, or as a part of one, cannot be counted by ear.
    words = sorted(word for word, n in rarest.items() if n and heard.said.count([word]) == here[word])
    order = sorted(words, key=lambda word: rng.exponential() / rarest[word])
    drawn_ones = (w for w in order if rng.random() * known[w][here[w]] < rarest[w] and here[w] < len(TIMES))
    asked = next(drawn_ones, None)
    if asked is None:
        return []
    answer = TIMES[here[asked]]
    wrong = tuple(text for text in TIMES if text != answer)
    places = (n for n, word in enumerate(heard.words) if asked in plain_words([word.text]))
    spans = tuple(_span(with_neighbour(heard.words, place)) for place in places)
    return [Draft("word count", f'How often is the word "{asked}" said?', answer, wrong, spans)]


def with_neighbour(words: Sequence[Word], place: int) -> Sequence[Word]:
    """A word and the one said right after it, else before it, by the same speaker; alone where neither is.

    "the" takes a tenth of a second: who cites a place where it is said cites it with its noun.
    """
    word = words[place]
    for first, stop in ((place, place + 2), (place - 1, place + 1)):
        pair = words[max(first, 0) : stop]
        if len(pair) == 2 and pair[1].start - pair[0].end <= NEIGHBOUR and pair[0].speaker == pair[1].speaker:
            return pair
    return [word]


def _apart(
    words: tuple[Word, ...], phrases: Iterable[tuple[int, int]], rng: np.random.Generator, n: int
) -> list[tuple[Word, ...]]:
    """Up to n of the phrases that are long enough, in order, none of which overlaps another."""
    fitting = [words[first:stop] for first, stop in phrases if stop - first >= LEAST_QUOTED]
    chosen: list[tuple[Word, ...]] = []
    for index in rng.permutation(len(fitting)):
        phrase = fitting[int(index)]
        span, spans = _span(phrase), map(_span, chosen)
        if all(span.end + PAUSE < other.start or other.end + PAUSE < span.start for other in spans):
            chosen.append(phrase)
        if len(chosen) == n:
            break
    return sorted(chosen, key=lambda phrase: phrase[0].start)


def _text(phrase: Sequence[Word]) -> str:
    return " ".join(word.text for word in phrase).strip(PUNCTUATION)


def _span(phrase: Sequence[Word]) -> Span:
    """From the first of the words to where the last one ends: words of one voice may lie in each other."""
    return Span(phrase[0].start, max(word.end for word in phrase))


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
