"""The cascade: Whisper writes down what is said and when, a text LLM answers over the timed transcript and cites it.

A baseline to hold audio models against, and what `tgsr ask` uses for any English recording unless told otherwise.
`cascade` answers with the packaged SmolLM2-135M-Instruct, `cascade:FOLDER_OR_ID` with another text model of
transformers, `cascade:http://HOST:PORT/v1#MODEL` with any OpenAI-compatible server. `cascade+MODEL` lets another model
listen where Whisper has found a phrase, and say its seconds.

A model of 135M parameters cannot be trusted to copy times or to follow a format. It is asked for what it can do: how
likely the question is after each line (which line answers it), and how likely each choice is after the lines that do.
Times and quotations are then copied from the transcript, and so is the answer to an open question. Any other LLM gets
the transcript and the paper's instruction (B.1.3) and writes the response itself. Either way each cited interval is
held against the transcript, and marked where that does not support it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tgsr.answering.citing import SAME, bare_words, find_phrase, marked, relevance
from tgsr.answering.in_windows import hear_windows, window_around
from tgsr.answering.responder import ClipQuestion, Responder
from tgsr.audio import SAMPLE_RATE, content_hash
from tgsr.choices import letter
from tgsr.data.transcribe.transcript import Line, lines_of
from tgsr.data.transcribe.whisper import HEARING, SOURCE, Transcript, transcribe
from tgsr.disk.whole import write_whole
from tgsr.engine.generate import NotFiniteLogits
from tgsr.engine.sampling import NOT_FINITE
from tgsr.llm.chat import chat_endpoint
from tgsr.llm.decoding import Cut, Decoding, Failed
from tgsr.llm.endpoint import Limits
from tgsr.llm.served import Llm, ServedLlm
from tgsr.llm.text_models import LocalLlm
from tgsr.models.lalm import Lalm
from tgsr.models.packaged_weights import language_model
from tgsr.prompts import REASONING_OPENING, phrase_answer_af3
from tgsr.timeline import Hole, Seconds, Span, Word

LIMITS = (
    "cascade: hears English words only, no voices, feelings, music or noises; Whisper base's word times are 0.1 s off "
    "in the median"
)
SMALL_LIMITS = (
    "; the packaged LLM (135M parameters) finds the lines that answer and quotes them, it concludes nothing"
)
READ_MOST = 48  # lines that the small LLM reads for a question: those that share most with it
CITED_MOST = 2  # lines
WORTH = 0.5  # a second line is cited where it scores at least this share of the best
ANSWERED = 0.6  # relevance + LIKELIER x PMI of the best line, from which on the recording is taken to say it
LIKELIER = 0.5
NOT_SAID = "the recording does not say"
NOT_THERE = "The segment is not in the transcript."
LISTENING = "cascade+"  # how names begin that have a listener behind them
HEARD_AROUND: Seconds = 12.0  # of the recording, around what was found
NEAR = 0.2  # IoU with what Whisper found, from which on the listener is believed to mean the same words
MAX_SECONDS: Seconds = 6 * 3600.0


def is_cascade(name: str) -> bool:
    return name == "cascade" or name.startswith(("cascade:", LISTENING))


def load_cascade(
    name: str, *, cache: Path, limits: Limits | None = None, listener: Lalm | None = None
) -> Cascade:
    """The cascade called `name`; `cache` keeps transcripts and a server's responses; `listener` is the MODEL of
    `cascade+MODEL`.

    Raises ModelError for an LLM that cannot be loaded, FetchError where the packaged models cannot be had.
    """
    llm = "" if name.startswith(LISTENING) else name.partition(":")[2]
    if llm.startswith(("http://", "https://")):
        served = ServedLlm(*chat_endpoint(llm, cache=cache, limits=limits))
        return Cascade(name, cache, ByPrompt(served, served.characters))
    if llm:
        local = LocalLlm.load(llm)
        # Three characters are a token or more in English.
        return Cascade(name, cache, ByPrompt(local, 3 * (local.context - 1200)))
    return Cascade(name, cache, ByLikelihood(LocalLlm.load(str(language_model()))), listener=listener)


@dataclass
class Cascade(Responder):
    """Each clip is transcribed once, and all of its questions are answered from the transcript."""

    name: str
    cache: Path
    llm: ByPrompt | ByLikelihood
    max_seconds: Seconds = MAX_SECONDS
    at_once: int = 1
    system: str | None = None  # of the LLM's prompts
    listener: Lalm | None = None  # hears again where a phrase was found, and says its seconds

    @property
    def limits(self) -> str:
        return LIMITS + (SMALL_LIMITS if isinstance(self.llm, ByLikelihood) else "")

    def respond(
        self, clips: Sequence[np.ndarray], questions: Sequence[ClipQuestion], decoding: Decoding
    ) -> list[str | Failed]:
        transcripts = [self.transcript(samples) for samples in clips]
        return [
            self._answer(clips[question.clip], transcripts[question.clip], question, decoding)
            for question in questions
        ]

    def _answer(
        self, samples: np.ndarray, transcript: Transcript, question: ClipQuestion, decoding: Decoding
    ) -> str | Failed:
        if question.phrase is not None:
            span = found(question.phrase, transcript.words)
            if span is not None and self.listener is not None:
                span = refined(self.listener, samples, question.phrase, span)
            return NOT_THERE if span is None else phrase_answer_af3(span)
        if not transcript.words:
            why = "Somebody speaks, but no word" if transcript.holes else "No word"
            return (
                f"{REASONING_OPENING}\n{why} could be made out in this recording.\nFinal answer: {NOT_SAID}"
            )
        written = self.llm.answer(lines_of(transcript.words), question, decoding, self.system)
        if isinstance(written, Failed):
            return written
        held = marked(written, transcript.words)
        return Cut(held) if isinstance(written, Cut) else held

    def transcript(self, samples: np.ndarray) -> Transcript:
        """The clip's transcript, from the cache where it was made before; a kept one that is damaged is made again."""
        path = self.cache / "transcripts" / HEARING / f"{content_hash(samples)}.json"
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            kept = row["words"]
            words = tuple(Word(text, start, end, None, SOURCE, sure) for text, start, end, sure in kept)
            holes = tuple(Hole(start, end) for start, end in row["holes"])
            return Transcript(words, float(row["duration"]), SOURCE, holes=holes)
        except (OSError, ValueError, KeyError, TypeError):
            transcript = transcribe(samples)
        rows = [[w.text, w.start, w.end, w.confidence] for w in transcript.words]
        row = {"duration": transcript.duration, "words": rows}
        row["holes"] = [[hole.start, hole.end] for hole in transcript.holes]
        write_whole(path, json.dumps(row, ensure_ascii=False))
        return transcript


def found(phrase: str, words: Sequence[Word]) -> Span | None:
    """Where the transcript has the phrase; None where nothing reads like it."""
    span, likeness = find_phrase(phrase, words) or (None, 0.0)
    return span if likeness >= SAME else None


def refined(listener: Lalm, samples: np.ndarray, phrase: str, span: Span) -> Span:
    """Where the listener hears the phrase near `span`, in the recording's seconds; `span` where that is not near it.

    It hears up to HEARD_AROUND seconds, in whose middle the span is. ModelError as it refuses them.
    """
    duration = len(samples) / SAMPLE_RATE
    window = window_around(
        span, duration, min(listener.max_seconds, max(HEARD_AROUND, span.end - span.start + 2))
    )
    (heard,) = hear_windows(listener, samples, [window], listener.phrase_question(phrase))
    if (at := heard.located(phrase)) is None:
        return span
    moved = Span(window.start + at.start, min(duration, window.start + at.end))
    return moved if moved.iou(span) >= NEAR else span


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
    written = [f"[{line.span.start:.2f}s - {line.span.end:.2f}s] {line.text}" for line in lines]
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


# --- a small LLM, by what it finds likely -----------------------------------------------------------------------


@dataclass
class ByLikelihood:
    """Which lines answer the question, and which choice follows from them; an open question is answered with a line."""

    llm: LocalLlm

    def answer(
        self, lines: Sequence[Line], question: ClipQuestion, decoding: Decoding, system: str | None = None
    ) -> str | Failed:
        """`system` changes nothing: the packaged LLM is asked only how likely texts are."""
        try:
            return self._answer(lines, question)
        except NotFiniteLogits:
            return Failed(NOT_FINITE)

    def _answer(self, lines: Sequence[Line], question: ClipQuestion) -> str:
        scored = self.evidence(lines, question)
        evidence = sorted(scored, key=lambda line: line.span.start)
        cited = [
            f'From {line.span.start:.2f}s to {line.span.end:.2f}s, the speaker says "{line.text}".'
            for line in evidence
        ]
        reasoning = "\n".join(cited) or "Nothing in the transcript answers the question."
        if question.choices:
            chosen = self.choose(evidence, question)
            final = f"{question.choices[chosen]} ({letter(chosen)})"
        elif not evidence:
            final = NOT_SAID
        elif bare_words(question.question)[:1] == ["when"]:
            final = f"at {scored[0].span.start:.2f} s"
        else:
            final = f'"{scored[0].text}"'  # what it would say in words of its own is worse than what was said
        return f"{REASONING_OPENING}\n{reasoning}\nFinal answer: {final}"

    def evidence(self, lines: Sequence[Line], question: ClipQuestion) -> list[Line]:
        """The lines after which the question is likelier than without one, and which share words with it; best first.

        [] where the best is not good enough.
        """
        query = " ".join((question.question, *question.choices))
        shared = relevance(query, lines)
        read = sorted(range(len(lines)), key=lambda i: -shared[i])[:READ_MOST]
        prompts = [f'Write one question that this sentence answers: "{lines[i].text}"' for i in read]
        nothing = 'Write one question that this sentence answers: "..."'
        likely = self.llm.likely([*prompts, nothing], [question.question] * (len(prompts) + 1))
        score = {i: shared[i] + LIKELIER * (likely[n] - likely[-1]) for n, i in enumerate(read)}
        best = max(score.values())
        if best < ANSWERED:
            return []
        top = sorted(score, key=lambda i: -score[i])[:CITED_MOST]
        return [lines[i] for i in top if score[i] >= max(ANSWERED, WORTH * best)]

    def choose(self, evidence: Sequence[Line], question: ClipQuestion) -> int:
        """The choice that the evidence makes likelier than the question alone does; with none, the likeliest."""
        quote = " ".join(line.text for line in evidence)
        known = f'Someone says: "{quote}"\n{question.question}'
        n = len(question.choices)
        likely = self.llm.likely([known] * n + [question.question] * n, question.choices * 2)
        gains = [
            with_it - (without if evidence else 0.0)
            for with_it, without in zip(likely[:n], likely[n:], strict=True)
        ]
        quoted = set(bare_words(quote))
        choices = [set(bare_words(choice)) for choice in question.choices]
        shares = [len(words & quoted) / max(1, len(words)) for words in choices]
        return int(np.argmax([gain + share for gain, share in zip(gains, shares, strict=True)]))
