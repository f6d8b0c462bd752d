"""Stage 2's questions as an LLM writes them over the timed transcript: free in what they ask, strict in what is kept.

Each comes with three wrong choices and a quote. The quote is looked up in the transcript, and its words' times are the
evidence: the LLM never writes a time. What it writes is counted, never raised.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tgsr.data.questions.by_rule import Choices, in_order, unfit
from tgsr.data.questions.draft import Draft
from tgsr.data.questions.phrases import in_time
from tgsr.data.shards import Made
from tgsr.data.splits import Split, drawn
from tgsr.data.transcribe.transcript import lines_of
from tgsr.disk.jsonl import Row
from tgsr.errors import Bad, OptionError
from tgsr.llm.by_name import llm_of
from tgsr.llm.decoding import Decoding, Failed
from tgsr.llm.served import TextPrompt
from tgsr.reasoning import plain_words
from tgsr.records import Clip, Question, clip_of
from tgsr.timeline import Seconds, Span, Word, cover

TASK = "open question"
N_WRONG = 3
TOKENS = 200  # for one question, its choices and its quote
SHORTEST, LONGEST = 0.4, 1.6  # of the right choice, as a share of the wrong ones' mean: length must not tell
MOST_KEPT = 500  # characters of a refused draft in errors.jsonl
DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Open:
    """Who writes questions, and how many about a clip, at most.

    `llm` is a folder or hub id of transformers, or http://HOST:PORT/v1#MODEL; `cache` keeps a server's replies.
    """

    llm: str
    cache: Path
    n_a_clip: int = 4
    seed: int = 0
    split: Split = field(default_factory=Split)

    def __post_init__(self) -> None:
        if self.n_a_clip < 1:
            raise OptionError(f"--open {self.n_a_clip}: must be 1 or more")


@dataclass(frozen=True, slots=True)
class LlmDraft:
    """A question as the LLM wrote it; nothing is known yet of whether it is any good."""

    question: str
    answer: str
    wrong: tuple[str, ...]
    quote: str
    text: str  # the JSON that it was read from


@dataclass(frozen=True, slots=True)
class Refused:
    """What the LLM wrote and why it is no question; `reason` is one of a few, so that reasons can be counted."""

    reason: str
    text: str


def open_questions_of(settings: Open, rows: Sequence[Row]) -> Made:
    """Up to n_a_clip questions about each clip, and each draft that was refused. A step of shards.run.

    A clip may have more refused drafts than one, so that shards.run needs most_bad = math.inf.
    """
    bad: list[Bad] = []
    clips: list[Clip] = []
    for clip in map(clip_of, rows):
        if reason := unfit(clip):
            bad.append(Bad(clip.id, reason, None, "flags"))
        elif not clip.words:
            bad.append(Bad(clip.id, "nothing is said in it", None, "words"))
        else:
            clips.append(replace(clip, split=settings.split.of(clip)))
    llm = llm_of(settings.llm, settings.cache)
    prompts = [TextPrompt(prompt_of(clip, settings, llm.characters)) for clip in clips]
    decoding = Decoding(max_new_tokens=TOKENS * settings.n_a_clip, seed=settings.seed)
    questions: list[Question] = []
    for clip, reply in zip(clips, llm.replies(prompts, decoding), strict=True):
        if isinstance(reply, Failed):
            bad.append(Bad(clip.id, f"no questions were written: {reply.reason}", None, "words"))
            continue
        kept, refused = questions_in(reply, clip, settings)
        questions += kept
        written = [(draft.reason, _storable(draft.text[:MOST_KEPT])) for draft in refused]
        bad += [Bad(clip.id, reason, None, TASK, text) for reason, text in written]
    return Made(questions, bad)


def prompt_of(clip: Clip, settings: Open, characters: int) -> str:
    """The timed transcript and what to write. Of one that is too long, a stretch that follows from the clip's id."""
    timed = ((line.span, line.text) for line in lines_of(_by_start(clip.words)))
    lines = [f"[{span.start:.1f} - {span.end:.1f}] {text}" for span, text in timed]
    if sum(len(line) + 1 for line in lines) > characters:
        rng = np.random.default_rng(drawn(settings.seed, f"{clip.id} stretch"))
        lines = _stretch(lines, characters, rng)
    transcript = "\n".join(lines)
    return (
        f"This is the transcript of a recording, with the times of each line in seconds:\n{transcript}\n\n"
        f"Write {settings.n_a_clip} multiple-choice questions that only someone who hears this recording can answer. "
        "Write each as a JSON object on a line of its own, and nothing else:\n"
        '{"question": "...", "answer": "...", "wrong": ["...", "...", "..."], "quote": "..."}\n'
        '"answer" is short and does not stand in the question. "wrong" are three different answers that sound as '
        'plausible, are as long, and are wrong. "quote" are the words that show the answer, three or more in a row, '
        "copied from the transcript without times."
    )


def _stretch(lines: Sequence[str], characters: int, rng: np.random.Generator) -> list[str]:
    """Neighbouring lines that fit, one at least, from a line on that is drawn from those with enough after them."""
    ends = np.cumsum([0, *(len(line) + 1 for line in lines)])  # of the text before each line, and of all
    last = min(int(np.searchsorted(ends, ends[-1] - characters)), len(lines) - 1)
    first = int(rng.integers(last + 1))
    stop = int(np.searchsorted(ends, ends[first] + characters, side="right")) - 1
    return list(lines[first : max(stop, first + 1)])


# --- what is kept --------------------------------------------------------------------------------------------------


def drafts_in(text: str) -> list[LlmDraft | Refused]:
    """Each JSON object that the LLM wrote, in order; words around them are passed over. Never raises."""
    drafts: list[LlmDraft | Refused] = []
    place = text.find("{")
    while place >= 0:
        try:
            row, stop = DECODER.raw_decode(text, place)
            drafts.append(_written(row, text[place:stop]))
        except (ValueError, RecursionError):
            end = text.find("\n", place)
            stop = end if end >= 0 else len(text)
            drafts.append(Refused("is not JSON", text[place:stop]))
        place = text.find("{", stop)
    return drafts or [Refused("holds no JSON object", text)]


def _written(row: dict[str, object], text: str) -> LlmDraft | Refused:
    question, answer, quote, wrong = (row.get(name) for name in ("question", "answer", "quote", "wrong"))
    for name, value in (("question", question), ("answer", answer), ("quote", quote)):
        if not isinstance(value, str) or not plain_words(value):
            return Refused(f'"{name}" must be text that is not blank', text)
    if not isinstance(wrong, list) or len(wrong) != N_WRONG:
        return Refused(f'"wrong" must be a list of {N_WRONG} texts', text)
    if not all(isinstance(one, str) and plain_words(one) for one in wrong):
        return Refused('"wrong" must be texts that are not blank', text)
    texts = [str(one).strip() for one in (question, answer, quote, *wrong)]
    if any(one != _storable(one) for one in texts):
        return Refused("holds half of a character", text)
    return LlmDraft(texts[0], texts[1], tuple(texts[3:]), texts[2], text)


def questions_in(text: str, clip: Clip, settings: Open) -> tuple[list[Question], list[Refused]]:
    """The questions to keep of what the LLM wrote about a clip, and what was refused. Never raises."""
    kept: list[Question] = []
    refused: list[Refused] = []
    before: set[tuple[str, ...]] = set()
    for written in drafts_in(text):
        if isinstance(written, Refused):
            refused.append(written)
            continue
        number = len(kept) + 1
        draft = draft_of(written, clip, f"{TASK} {number}")
        question = plain_words(written.question)
        if isinstance(draft, Refused):
            refused.append(draft)
        elif question in before:
            refused.append(Refused("the same question as before", written.text))
        elif number > settings.n_a_clip:
            refused.append(Refused(f"more than the {settings.n_a_clip} that were asked for", written.text))
        else:
            before.add(question)
            numbered = in_order(clip, draft, Choices(N_WRONG + 1, seed=settings.seed))
            kept.append(replace(numbered, task=TASK))  # the number is for the id alone
    return kept, refused


def draft_of(written: LlmDraft, clip: Clip, task: str) -> Draft | Refused:
    """The draft with its evidence, or the first thing that is wrong with it."""
    choices = [plain_words(text) for text in (written.answer, *written.wrong)]
    if len(set(choices)) < len(choices):
        return Refused("two choices are the same", written.text)
    if _follow(choices[0], plain_words(written.question)):
        return Refused("the question holds its answer", written.text)
    mean = sum(map(len, written.wrong)) / len(written.wrong)
    if not SHORTEST * mean <= len(written.answer) <= LONGEST * mean:
        longer = "longer" if len(written.answer) > mean else "shorter"
        return Refused(f"the answer is much {longer} than the wrong ones", written.text)
    spans = spans_of(written.quote, clip.words, clip.duration)
    if not spans:
        return Refused("nobody says the quote", written.text)
    if any(span.start < hole.end and hole.start < span.end for span in spans for hole in in_time(clip)[1]):
        return Refused("words are missing where the quote is said", written.text)
    if len(spans) > 1:  # then nobody knows which of them shows it
        return Refused("the quote is said more than once", written.text)
    return Draft(task, written.question, written.answer, written.wrong, (spans[0],))


def spans_of(quote: str, words: Sequence[Word], duration: Seconds) -> list[Span]:
    """Every stretch of the clip in which the quote's words are said in a row; case and punctuation do not count."""
    wanted = plain_words(quote)
    # A Word may hold blanks ("New York"), or punctuation alone.
    parts = [(part, word.span) for word in _by_start(words) for part in plain_words(word.text)]
    places = _follow(wanted, [part for part, _ in parts])
    spans = [cover(span for _, span in parts[first : first + len(wanted)]) for first in places]
    return [Span(one.start, min(one.end, duration)) for one in spans if one and one.start < duration]


def _follow(wanted: Sequence[str], words: Sequence[str]) -> list[int]:
    """Where the wanted words stand in a row."""
    n = len(wanted)
    return [first for first in range(len(words) - n + 1) if list(words[first : first + n]) == list(wanted)]


def _by_start(words: Sequence[Word]) -> list[Word]:
    return sorted(words, key=lambda word: word.start)


def _storable(text: str) -> str:
    """The text as a UTF-8 file can hold it: halves of surrogate pairs become "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")
