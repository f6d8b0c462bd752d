"""The cascade: Whisper writes down what is said and when, a text LLM answers over the timed transcript and cites it.

A baseline to hold audio models against, and what `tgsr ask` uses for any English recording unless told otherwise.
`cascade` answers with the packaged SmolLM2-135M-Instruct, `cascade:FOLDER_OR_ID` with another text model of
transformers, `cascade:http://HOST:PORT/v1#MODEL` with any OpenAI-compatible server. `cascade+MODEL` lets another model
listen where Whisper has found a phrase, and say its seconds.

A model of 135M parameters cannot be trusted to copy times or to follow a format. The passages that answer are found by
sentence embeddings and by shared words (passages.py), and the model is asked for what it can do: how likely each choice
is after them. Times and quotations are then copied from the transcript, and so is the answer to an open question. Any
other LLM gets the transcript and the paper's instruction (B.1.3) and writes the response itself. Either way each cited
interval is held against the transcript, and marked where that does not support it.

A quotation needs neither torch nor transformers, which take longer to be imported than it to be found, and neither does
a phrase that is not said: they are imported where a model of theirs answers.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tgsr import audio
from tgsr.answering.citing import SAME, bare_words, find_phrase, marked, relevance
from tgsr.answering.named_speakers import named
from tgsr.answering.passages import (
    ANSWERED,
    Match,
    Passages,
    evidence,
    least_score,
    lines_by_speaker,
    matches,
)
from tgsr.answering.responder import ClipQuestion, Responder
from tgsr.audio import content_hash
from tgsr.choices import letter
from tgsr.data.transcribe.speakers import channel_name, loudness, named_by_turns, turns_of, without_leaks
from tgsr.data.transcribe.transcript import ENGLISH, Line
from tgsr.data.transcribe.whisper import HEARING, SOURCE, FasterWhisper, Progress, Transcript
from tgsr.disk.whole import write_whole
from tgsr.llm.chat import chat_endpoint
from tgsr.llm.decoding import Cut, Decoding, Failed
from tgsr.llm.endpoint import Limits
from tgsr.llm.served import Llm, ServedLlm
from tgsr.models.answer_finder import AnswerFinder
from tgsr.models.lalm import Lalm
from tgsr.models.packaged_weights import language_model
from tgsr.models.sentence_embeddings import SentenceEmbeddings
from tgsr.prompts import REASONING_OPENING, phrase_answer_af3
from tgsr.timeline import Event, Hole, Seconds, Span, Word

if TYPE_CHECKING:
    from tgsr.llm.text_models import LocalLlm

LIMITS = (
    "cascade: hears words only, no voices, feelings, music or noises; Whisper base's word times are 0.1 s off "
    "in the median"
)
SMALL_LIMITS = (
    "; an answer is a quotation of the passages that are nearest to the question, nothing is concluded"
)
NOT_SAID = "the recording does not say"
NEAREST = re.compile(r'Nearest to it, at ([0-9.]+) s: "([^"]*)"$', re.MULTILINE)
NOT_THERE = "The segment is not in the transcript."
LISTENING = "cascade+"  # how names begin that have a listener behind them
MOST_KEPT = 1000  # recordings whose passages stay in memory
MAX_SECONDS: Seconds = 6 * 3600.0
NOBODY = ("",)  # no speaker is called so


def is_cascade(name: str) -> bool:
    return name == "cascade" or name.startswith(("cascade:", LISTENING))


def load_cascade(
    name: str, *, cache: Path, limits: Limits | None = None, listener: Callable[[], Lalm] | None = None
) -> Cascade:
    """The cascade called `name`; `cache` keeps transcripts and a server's responses; `listener` gives the MODEL of
    `cascade+MODEL`, where it is needed.

    Raises ModelError for an LLM that cannot be loaded, FetchError where the packaged models cannot be had.
    """
    llm = "" if name.startswith(LISTENING) else name.partition(":")[2]
    if llm.startswith(("http://", "https://")):
        served = ServedLlm(*chat_endpoint(llm, cache=cache, limits=limits))
        return Cascade(name, cache, ByPrompt(served, served.characters))
    if llm:
        from tgsr.llm.text_models import LocalLlm

        local = LocalLlm.load(llm)
        # Three characters are a token or more in English.
        return Cascade(name, cache, ByPrompt(local, 3 * (local.context - 1200)))
    return Cascade(name, cache, ByQuotation(), listener=listener)


@functools.cache
def packaged_embeddings() -> SentenceEmbeddings:
    """The packaged sentence embeddings, loaded once a process. FetchError where they cannot be had."""
    return SentenceEmbeddings.load()


@functools.cache
def packaged_finder() -> AnswerFinder:
    """The judge of answers that ships, loaded once a process. FetchError where its sentence model cannot be had."""
    return AnswerFinder.of(packaged_embeddings())


@functools.cache
def packaged_llm() -> LocalLlm:
    """SmolLM2-135M-Instruct, loaded once a process. FetchError where it cannot be had."""
    from tgsr.llm.text_models import LocalLlm

    return LocalLlm.load(str(language_model()))


@dataclass(frozen=True, slots=True)
class Spoken:
    """What was heard of one clip; `key` names its sound."""

    key: str
    transcript: Transcript

    @property
    def speakers(self) -> tuple[str, ...]:
        """Those who are known, in the order in which they begin to speak."""
        said = (word.speaker for word in self.transcript.words)
        return tuple(dict.fromkeys(speaker for speaker in said if speaker is not None))


@dataclass(frozen=True, slots=True)
class Hearing:
    """How recordings are heard.

    `language` is Whisper's code of what is spoken, None what it detects in each. With `by_channel` each channel is
    heard by itself and is a speaker; `turns` is an RTTM file that says who speaks when.
    """

    language: str | None = None
    by_channel: bool = False
    turns: Path | None = None

    @property
    def kept_as(self) -> str:
        """What the names of kept transcripts have beside the sound's; another number where they are made otherwise."""
        return (f".{self.language}" if self.language else "") + (".channels-2" if self.by_channel else "")


@dataclass
class Cascade(Responder):
    """Each clip is transcribed once, and all of its questions are answered from the transcript."""

    name: str
    cache: Path
    llm: ByPrompt | ByQuotation
    max_seconds: Seconds = MAX_SECONDS
    at_once: int = 1
    system: str | None = None  # of the LLM's prompts
    listener: Callable[[], Lalm] | None = None  # hears again where a phrase was found, and says its seconds
    finder: Callable[[], AnswerFinder] = packaged_finder
    hearing: Hearing = Hearing()
    kept: dict[str, Passages] = field(default_factory=dict)
    files: dict[Path, Spoken] = field(default_factory=dict)
    # Of files, whose speakers a sound alone does not tell.
    by_sound: dict[str, Spoken] = field(default_factory=dict)

    @property
    def limits(self) -> str:
        return LIMITS + (SMALL_LIMITS if isinstance(self.llm, ByQuotation) else "")

    def respond(
        self, clips: Sequence[np.ndarray], questions: Sequence[ClipQuestion], decoding: Decoding
    ) -> list[str | Failed]:
        spoken = [self.spoken(samples) for samples in clips]
        return [self._answer(clips[one.clip], spoken[one.clip], one, decoding) for one in questions]

    def about_file(self, path: Path, question: ClipQuestion, decoding: Decoding) -> str | Failed:
        """The answer about a file, which is decoded only where it was not heard yet, or a listener hears it again."""
        spoken = self.spoken_in(path)
        listens = self.listener is not None and question.phrase is not None
        samples = audio.load(path, max_seconds=self.max_seconds) if listens else np.zeros(0, dtype=np.float32)
        return self._answer(samples, spoken, question, decoding)

    def _answer(
        self, samples: np.ndarray, spoken: Spoken, question: ClipQuestion, decoding: Decoding
    ) -> str | Failed:
        transcript = spoken.transcript
        if question.phrase is not None:
            span = found(question.phrase, transcript.words)
            if span is not None and self.listener is not None:
                from tgsr.answering.in_windows import refined

                span = refined(self.listener(), samples, question.phrase, span)
            return NOT_THERE if span is None else phrase_answer_af3(span)
        if not transcript.words:
            why = "Somebody speaks, but no word" if transcript.holes else "No word"
            why = f"{why} could be made out in this recording."
            return f"{REASONING_OPENING}\n{why}\nFinal answer: {NOT_SAID}"
        asked = named(question.question, spoken.speakers)
        if asked.unknown and spoken.speakers:
            who = ", ".join(spoken.speakers)
            return Failed(f"the question is about {asked.unknown[0]!r}; who speaks here: {who}")
        if isinstance(self.llm, ByQuotation):
            ranked = self.ranked(question.question, question.choices, [spoken])
            return self.llm.answer(ranked, question, least_score(transcript.language))
        lines = lines_in_time(transcript.words, asked.speakers)
        written = self.llm.answer(lines, question, decoding, self.system)
        if isinstance(written, Failed):
            return written
        held = marked(written, transcript.words)
        return Cut(held) if isinstance(written, Cut) else held

    def notes(self, question: str, spoken: Spoken) -> list[str]:
        """What is to be known about the answer to a question about what was heard: whose lines, in which language."""
        asked = named(question, spoken.speakers)
        notes = []
        if asked.speakers:
            notes.append(f"only what {' and '.join(asked.speakers)} says was looked at")
        elif asked.unknown and spoken.transcript.words:
            notes.append(
                f"who speaks is not known, so {asked.unknown[0]!r} could not be told from others: --channels separate "
                "hears each channel by itself, --speakers FILE.rttm takes turns from elsewhere"
            )
        language = spoken.transcript.language
        if language not in (None, ENGLISH) and spoken.transcript.words:
            if self.hearing.language is None:
                notes.append(
                    f"Whisper takes the language for {language!r} and heard that; --language {language} says that it "
                    "is, --language en that it is English"
                )
            if isinstance(self.llm, ByQuotation):
                notes.append(
                    "the sentence model and its threshold know English alone: in other languages passages are found by "
                    "shared words and names; what is declined may be said all the same, and a quotation may not answer"
                )
        return notes

    def nearest(
        self, question: str, choices: Sequence[str], recordings: Sequence[Path], is_phrase: bool = False
    ) -> int:
        """Which of the recordings has the passage that is nearest to the question, or reads most like the phrase.

        The first one where nobody says a word in any.
        """
        spoken = [self.spoken_in(path) for path in recordings]
        if is_phrase:
            return _likest(question, [one.transcript.words for one in spoken])
        ranked = self.ranked(question, choices, spoken)
        return ranked[0].recording if ranked else 0

    def ranked(self, question: str, choices: Sequence[str], spoken: Sequence[Spoken]) -> list[Match]:
        """The passages of all that was heard that fit the question best, those of the speakers that it names alone.

        See `matches`. A recording that knows its speakers, but none whom the question names, has none.
        """
        asked = [named(question, one.speakers) for one in spoken]
        about = next((one.about for one in asked if one.speakers), question)
        named_somewhere = any(one.speakers for one in asked)
        allowed = [
            one.speakers or (NOBODY if named_somewhere and heard.speakers else ())
            for one, heard in zip(asked, spoken, strict=True)
        ]
        recordings = [self.passages(one) for one in spoken]
        return matches(about, self.finder(), recordings, " ".join((about, *choices)), allowed)

    def passages(self, spoken: Spoken) -> Passages:
        """The transcript's passages; their vectors are kept beside it."""
        if spoken.key not in self.kept:
            if len(self.kept) >= MOST_KEPT:  # of a benchmark of many clips, the last ones
                self.kept.pop(next(iter(self.kept)))
            kept = self.cache / "transcripts" / "passages" / spoken.key
            self.kept[spoken.key] = Passages.of(spoken.transcript.words, self.finder().embeddings, kept)
        return self.kept[spoken.key]

    def spoken_in(self, path: Path, told: Progress | None = None) -> Spoken:
        """What was heard of the file: not even decoded where it was heard before and is as long and as old as then.

        `told` is told how far it is heard. AudioError where it must be decoded and cannot be.
        """
        if path in self.files:
            return self.files[path]
        state = os.stat(path)
        stamp = [state.st_size, state.st_mtime_ns]
        index = _index(self.cache, path)
        try:
            row = json.loads(index.read_text(encoding="utf-8"))
            key = str(row["sound"]) if row["stamp"] == stamp else None
            transcript = None if key is None else self._read(key)
        except (OSError, ValueError, KeyError, TypeError):
            transcript = None
        if transcript is None:
            samples = audio.load(path, max_seconds=self.max_seconds)
            spoken = self.hear(path, samples, told=told)
            write_whole(index, json.dumps({"stamp": stamp, "sound": spoken.key}))
        else:
            spoken = self._by_turns(Spoken(str(key), transcript), path)
        self.files[path] = spoken
        return spoken

    def hear(
        self,
        path: Path,
        samples: np.ndarray,
        start: Seconds = 0.0,
        end: Seconds | None = None,
        told: Progress | None = None,
    ) -> Spoken:
        """What is heard of a stretch of the file, whose sound the samples are; each word has its speaker, if known.

        `told` is told how far it is, of each channel by itself where they are heard so. AudioError as `audio.load`;
        RecordError and CorpusError for turns that are none of this recording.
        """
        key = content_hash(samples)
        if key not in self.by_sound:
            transcript = self._read(key)
            if transcript is None and self.hearing.by_channel and (n := audio.n_channels(path)) > 1:
                transcript = self._by_channel(path, n, start, end, told)
                self.keep(key, transcript)
            heard = Spoken(key, transcript or self._hear(key, samples, told))
            self.by_sound[key] = self._by_turns(heard, path, start)
        return self.by_sound[key]

    def forget(self, path: Path) -> None:
        """As `forget`, and what is in memory."""
        key = forget(self.cache, path, self.files[path].key if path in self.files else None)
        for other, spoken in list(self.files.items()):
            if spoken.key == key:
                self.files.pop(other, None)
        if key is not None:
            self.by_sound.pop(key, None)
            self.kept.pop(key, None)

    def _by_channel(
        self, path: Path, n: int, start: Seconds, end: Seconds | None, told: Progress | None
    ) -> Transcript:
        """What is heard of each channel by itself, which is its words' speaker."""
        words: list[Word] = []
        holes: list[Hole] = []
        loud: dict[str | None, np.ndarray] = {}
        languages: list[str | None] = []
        for channel in range(n):
            samples = audio.load(path, start=start, end=end, max_seconds=self.max_seconds, channel=channel)
            heard, name = self._whisper(told)(samples), channel_name(channel)
            words += [replace(word, speaker=name) for word in heard.words]
            holes += [replace(hole, speaker=name) for hole in heard.holes]
            languages += [heard.language] if heard.words else []
            loud[name] = loudness([samples])
        duration = len(samples) / audio.SAMPLE_RATE
        language = next(iter(languages), None)
        return Transcript(tuple(without_leaks(words, loud)), duration, SOURCE, language, holes=tuple(holes))

    def _by_turns(self, spoken: Spoken, path: Path, start: Seconds = 0.0) -> Spoken:
        """With the speakers of the RTTM file, where one was given."""
        if self.hearing.turns is None:
            return spoken
        transcript = spoken.transcript
        turns = turns_of(self.hearing.turns, path.name, audio.duration(path))
        heard = [turn for turn in turns if turn.end > start]
        later = [Event(turn.label, max(0.0, turn.start - start), turn.end - start) for turn in heard]
        return Spoken(spoken.key, replace(transcript, words=named_by_turns(transcript.words, later)))

    def spoken(self, samples: np.ndarray) -> Spoken:
        """What is heard of the samples, from the cache where they were heard before."""
        key = content_hash(samples)
        return self.by_sound.get(key) or Spoken(key, self._read(key) or self._hear(key, samples))

    def transcript(self, samples: np.ndarray) -> Transcript:
        """The clip's transcript, from the cache where it was made before; a kept one that is damaged is made again."""
        return self.spoken(samples).transcript

    def _path(self, key: str) -> Path:
        return self.cache / "transcripts" / HEARING / f"{key}{self.hearing.kept_as}.json"

    def _read(self, key: str) -> Transcript | None:
        try:
            row = json.loads(self._path(key).read_text(encoding="utf-8"))
            words = tuple(
                Word(text, start, end, next(iter(who), None), SOURCE, sure)
                for text, start, end, sure, *who in row["words"]
            )
            holes = tuple(Hole(start, end) for start, end in row["holes"])
            return Transcript(words, float(row["duration"]), SOURCE, row.get("language"), holes=holes)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _whisper(self, told: Progress | None) -> FasterWhisper:
        return FasterWhisper(None, self.hearing.language, told=told)

    def _hear(self, key: str, samples: np.ndarray, told: Progress | None = None) -> Transcript:
        transcript = self._whisper(told)(samples)
        self.keep(key, transcript)
        return transcript

    def keep(self, key: str, transcript: Transcript) -> None:
        who = [[] if word.speaker is None else [word.speaker] for word in transcript.words]
        said = zip(transcript.words, who, strict=True)
        rows = [[word.text, word.start, word.end, word.confidence, *one] for word, one in said]
        row = {"duration": transcript.duration, "language": transcript.language, "words": rows}
        row["holes"] = [[hole.start, hole.end] for hole in transcript.holes]
        write_whole(self._path(key), json.dumps(row, ensure_ascii=False))


def _index(cache: Path, path: Path) -> Path:
    """Where it is kept which sound a file holds."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]
    return cache / "transcripts" / "files" / f"{name}.json"


def forget(cache: Path, path: Path, key: str | None = None) -> str | None:
    """Deletes what is kept of what was heard of the file, and of every other file with the same sound.

    `key` is the sound's where that is known. Returns it; None where the file was never heard.
    """
    index = _index(cache, path)
    try:
        key = key or str(json.loads(index.read_text(encoding="utf-8"))["sound"])
    except (OSError, ValueError, KeyError, TypeError):  # it was never heard
        return None
    index.unlink(missing_ok=True)
    for kept in (cache / "transcripts").glob(f"*/{key}*"):
        kept.unlink()
    return key


def _likest(phrase: str, spoken: Sequence[Sequence[Word]]) -> int:
    """Which transcript has the phrase word for word, else what reads most like it; the first of equals."""
    wanted = f" {' '.join(bare_words(phrase))} "
    for index, words in enumerate(spoken):
        if wanted in f" {' '.join(bare_words(' '.join(word.text for word in words)))} ":
            return index
    return int(np.argmax([(find_phrase(phrase, words) or (None, 0.0))[1] for words in spoken]))


def nearest_of(text: str) -> tuple[Seconds, str] | None:
    """When the passage begins that a response names as the nearest to a question that it declines, and its words."""
    match = NEAREST.search(text)
    return (float(match[1]), match[2]) if match else None


def found(phrase: str, words: Sequence[Word]) -> Span | None:
    """Where the transcript has the phrase; None where nothing reads like it."""
    of_each = [
        find_phrase(phrase, [word for word in words if word.speaker == speaker]) or (None, 0.0)
        for speaker in dict.fromkeys(word.speaker for word in words)
    ]
    span, likeness = max(of_each, key=lambda one: one[1], default=(None, 0.0))
    return span if likeness >= SAME else None


def lines_in_time(words: Sequence[Word], speakers: Sequence[str] = ()) -> list[Line]:
    """The transcript's lines in the order of their starts; those of the speakers alone, if there are any."""
    lines = lines_by_speaker([word for word in words if not speakers or word.speaker in speakers])
    return sorted(lines, key=lambda line: line.span.start)


# --- an LLM that writes the response itself -------------------------------------------------------------------


@dataclass
class ByPrompt:
    """The transcript, the question and the paper's instruction go in, the response comes out as it is."""

    llm: Llm
    characters: int  # of a prompt's transcript

    def answer(
        self, lines: Sequence[Line], question: ClipQuestion, decoding: Decoding, system: str | None = None
    ) -> str | Failed:
        return self.llm.write(transcript_prompt(lines, question, self.characters), decoding, system)


def transcript_prompt(lines: Sequence[Line], question: ClipQuestion, characters: int) -> str:
    """The timed transcript before the question; where it is too long, without the lines that share least with it."""
    written = [line.timed for line in lines]
    kept = set(range(len(lines)))
    scores = relevance(" ".join((question.question, *question.choices)), lines)
    size = sum(len(line) + 1 for line in written)
    for index in sorted(kept, key=lambda i: scores[i]):
        if size <= max(1000, characters):
            break
        kept.discard(index)
        size -= len(written[index]) + 1
    transcript = "\n".join(written[index] for index in sorted(kept))
    left_out = "" if len(kept) == len(lines) else f" ({len(lines) - len(kept)} lines are left out)"
    return (
        f"This is the transcript of an audio recording, with the times of each line in seconds{left_out}:\n"
        f"{transcript}\n\n{question.text}\n"
        'Cite the lines that support your answer in this form: From X.XXs to Y.YYs, the speaker says "...". '
        f"Copy times and words from the transcript. If it does not answer the question, say that {NOT_SAID}. "
        'Begin the last line with "Final answer:".'
    )


# --- the packaged models: what is nearest, quoted ----------------------------------------------------------------


def _who(line: Line) -> str:
    return "the speaker" if line.speaker is None else f"speaker {line.speaker}"


@dataclass
class ByQuotation:
    """The passages that answer are quoted; the small LLM says which choice follows from them."""

    llm: Callable[[], LocalLlm] = packaged_llm

    def answer(
        self, ranked: Sequence[Match], question: ClipQuestion, threshold: float = ANSWERED
    ) -> str | Failed:
        """The response to a question, of all passages in order of how near they are; `threshold`: see `evidence`."""
        found = evidence(ranked, threshold)
        said = [
            f'From {line.span.start:.2f}s to {line.span.end:.2f}s, {_who(line)} says "{line.text}".'
            for line in sorted(found, key=lambda line: line.span.start)
        ]
        nearest = ranked[0].line
        reasoning = "\n".join(said) or "Nothing in the transcript answers the question."
        if question.choices:
            from tgsr.engine.generate import NotFiniteLogits
            from tgsr.engine.sampling import NOT_FINITE

            try:
                chosen = self.choose(found, question)
            except NotFiniteLogits:
                return Failed(NOT_FINITE)
            final = f"{question.choices[chosen]} ({letter(chosen)})"
        elif not found:
            quote = nearest.text.replace('"', "'")
            reasoning += f'\nNearest to it, at {nearest.span.start:.2f} s: "{quote}"'
            final = NOT_SAID
        elif bare_words(question.question)[:1] == ["when"]:
            final = f"at {found[0].span.start:.2f} s"
        else:
            final = f'"{found[0].text}"'  # what an LLM says in its own words is worse than what was said
        return f"{REASONING_OPENING}\n{reasoning}\nFinal answer: {final}"

    def choose(self, found: Sequence[Line], question: ClipQuestion) -> int:
        """The choice that the evidence makes likelier than the question alone does; with none, the likeliest."""
        quote = " ".join(line.text for line in found)
        known = f'Someone says: "{quote}"\n{question.question}'
        n = len(question.choices)
        likely = self.llm().likely([known] * n + [question.question] * n, question.choices * 2)
        pairs = zip(likely[:n], likely[n:], strict=True)
        gains = [with_it - (without if found else 0.0) for with_it, without in pairs]
        quoted = set(bare_words(quote))
        choices = [set(bare_words(choice)) for choice in question.choices]
        shares = [len(words & quoted) / max(1, len(words)) for words in choices]
        return int(np.argmax([gain + share for gain, share in zip(gains, shares, strict=True)]))
