"""Questions asked on the page: one at a time, a few waiting, the text as it is written.

The answer is that of `tgsr ask`. A Lalm's tokens are seen where its head scores them: decoding is greedy, so the
highest score is the token that comes. Models that only answer come in one piece.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tgsr import audio
from tgsr.answering.ask import MOST_LETTERS
from tgsr.answering.cascade import Cascade
from tgsr.answering.responder import Responder
from tgsr.errors import AudioError, ModelError, TgsrError
from tgsr.grounding import find_asked, find_spans
from tgsr.llm.decoding import GREEDY, Cut
from tgsr.models.lalm import Lalm
from tgsr.overlap import evidence_crop
from tgsr.pages.view.index import mention_rows
from tgsr.pages.view.sound import BrowserSound, Sounds, track_to_wav
from tgsr.timeline import Seconds, Span

MOST_BYTES = 100 * 2**20  # of an uploaded recording
MOST_SECONDS: Seconds = audio.MAX_SECONDS
MOST_WAITING = 8  # questions, the one under way among them
MOST_KEPT = 20  # answers whose sound can still be heard
OVER = ("done", "failed", "cancelled")

log = logging.getLogger(__name__)
Event = tuple[str, dict[str, Any]]


class Busy(Exception):
    """As many questions wait as may."""


class Cancelled(Exception):
    """It was cancelled: no answer is wanted."""


@dataclass(slots=True, kw_only=True)
class Job:
    """What the one worker does for the page. `events` only grow; the last one says how it ended."""

    events: list[Event] = field(default_factory=list)
    sound: BrowserSound | None = None
    is_cancelled: threading.Event = field(default_factory=threading.Event)
    future: Future[None] | None = None

    @property
    def is_over(self) -> bool:
        return bool(self.events) and self.events[-1][0] in OVER

    def tell(self, name: str, **content: Any) -> None:
        """Adds an event, unless the question is over."""
        if not self.is_over:
            self.events.append((name, content))

    def require_wanted(self) -> None:
        if self.is_cancelled.is_set():
            raise Cancelled

    def cancel(self) -> None:
        """Where it waits it never starts; under way it ends with the next token, or stretch of sound."""
        self.is_cancelled.set()
        if self.future is not None:
            self.future.cancel()


@dataclass(slots=True)
class PendingQuestion(Job):
    """One question on its way.

    `upload`: the file that was sent, deleted with the job; None where an item's own sound is asked about.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    is_phrase: bool
    model: str
    path: Path
    upload: Path | None

    def remove_upload(self) -> None:
        """Deletes what was sent, and what was made of it."""
        if self.upload is not None:
            for path in self.upload.parent.glob(f"{self.upload.name}*"):
                path.unlink(missing_ok=True)


@dataclass(slots=True)
class Asker:
    """The models that can be asked, each loaded with its first question and kept, and their one worker."""

    models: Sequence[str]
    open_model: Callable[[str], Lalm | Responder]
    sounds: Sounds
    most_bytes: int = MOST_BYTES
    most_seconds: Seconds = MOST_SECONDS
    _opened: dict[str, Lalm | Responder] = field(default_factory=dict)
    _jobs: dict[str, PendingQuestion] = field(default_factory=dict)
    _hearings: list[Job] = field(default_factory=list)
    _arriving: list[Path] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _worker: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1, "tgsr-ask"))

    def require_room(self) -> None:
        """Busy where a question would be turned away. A recording that arrives is a question already."""
        if len(self._waiting()) + len(self._arriving) >= MOST_WAITING:
            raise Busy

    def require_askable(self, question: str, choices: tuple[str, ...], model: str) -> None:
        """ModelError for what cannot be asked, whatever the recording: asked before one is taken."""
        if (model or self._first_model) not in self.models:
            raise ModelError(f"model {model!r} is not served here: start `tgsr view` with --model {model}")
        if len(question) + sum(map(len, choices)) > MOST_LETTERS:
            raise ModelError(f"question and choices have more than {MOST_LETTERS} characters: shorten them")

    @contextmanager
    def arriving(self) -> Iterator[Path]:
        """Where to put a recording that is sent, counted as a question meanwhile. Raises Busy.

        Unless a question about it is waiting at the end, the file is removed.
        """
        upload = self.sounds.folder / f"upload-{secrets.token_hex(8)}"
        with self._lock:
            self.require_room()
            self._arriving.append(upload)
        try:
            yield upload
        finally:
            with self._lock:
                if upload in self._arriving:  # `ask` has not taken it
                    self._arriving.remove(upload)
                    upload.unlink(missing_ok=True)

    @property
    def _first_model(self) -> str:
        return self.models[0] if self.models else ""

    def ask(
        self,
        question: str,
        choices: tuple[str, ...],
        is_phrase: bool,
        model: str,
        path: Path,
        upload: Path | None = None,
    ) -> PendingQuestion:
        """Queues a question about the audio file `path`. Raises Busy, or ModelError for what cannot be asked."""
        self.require_askable(question, choices, model)
        model = model or self._first_model
        with self._lock:
            if upload in self._arriving:  # it has its room
                self._arriving.remove(upload)
            else:
                self.require_room()
            id_ = secrets.token_urlsafe(12)
            job = PendingQuestion(id_, question, choices, is_phrase, model, path, upload)
            self._jobs[job.id] = job
            self._forget()
            self._tell_places()
            job.future = self._worker.submit(self._answer, job)
            job.future.add_done_callback(lambda future: self._ended(job, future))
        return job

    def hear(self, job: Job, work: Callable[[], None], hidden: str = "") -> None:
        """Queues work that is not a question; `hidden` is a path that is not to be told. Raises Busy."""
        with self._lock:
            self.require_room()
            self._hearings = [*(one for one in self._hearings if not one.is_over), job]
            self._tell_places()
            job.future = self._worker.submit(work)
            job.future.add_done_callback(lambda future: self._told_end(job, future, hidden))

    def opened(self, name: str) -> Lalm | Responder:
        """The model, loaded the first time: by the worker alone."""
        if name not in self._opened:
            self._opened[name] = self.open_model(name)
        return self._opened[name]

    def job(self, id_: str) -> PendingQuestion | None:
        return self._jobs.get(id_)

    def close(self) -> None:
        for job in (*self._jobs.values(), *self._hearings):
            job.cancel()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _answer(self, job: PendingQuestion) -> None:
        from tgsr.answering.ask import ask, asked, cited_spans

        job.require_wanted()
        if job.upload is None and isinstance(model := self.opened(job.model), Cascade):
            # Its transcript is asked: the sound need not be decoded again.
            question = asked(model, job.question, job.choices, job.is_phrase)
            job.sound = self.sounds.open(job.path)
            job.tell("heard", seconds=job.sound.seconds)
            written = model.about_file(job.path, question, GREEDY)
            cited = cited_spans(written, job.question, job.is_phrase, model.name)
            self._done(job, *cited, job.sound.seconds)
            return
        path = job.path if job.upload is None else _as_file(job.path, self.most_seconds)
        job.sound = self.sounds.open(path)
        samples = audio.load(job.sound.wav or path, max_seconds=self.most_seconds)
        job.tell("heard", seconds=job.sound.seconds)
        model = self.opened(job.model)
        job.require_wanted()
        with _watched(model, job):
            answer = ask(model, samples, job.question, job.choices, phrase=job.is_phrase)
        self._done(job, answer.text, answer.spans, answer.n_invalid, len(samples) / audio.SAMPLE_RATE)

    def _done(
        self, job: PendingQuestion, text: str, spans: Sequence[Span], n_invalid: int, seconds: Seconds
    ) -> None:
        job.require_wanted()
        job.tell(
            "done",
            text=str(text),
            truncated=isinstance(text, Cut),
            spans=[[span.start, span.end] for span in spans],
            n_invalid=n_invalid,
            mentions=mention_rows(text, seconds, find_asked(text, job.question) if job.is_phrase else None),
            evidence=[[span.start, span.end] for span in evidence_crop(spans, seconds)],
            seconds=seconds,
        )

    def _ended(self, job: PendingQuestion, future: Future[None]) -> None:
        self._told_end(job, future, "" if job.upload is None else str(job.upload))
        if job.sound is None:  # it was never heard: nobody can play it
            job.remove_upload()

    def _told_end(self, job: Job, future: Future[None], hidden: str = "") -> None:
        """Says how it ended, where it has not said so itself; `hidden` is a path that nobody has given."""
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or isinstance(error, Cancelled):
            job.tell("cancelled")
        elif isinstance(error, TgsrError | OSError):
            job.tell("failed", problem=str(error).replace(hidden, "the recording") if hidden else str(error))
        elif error is not None:  # a fault of ours: the page says so, the terminal shows where
            log.error("a question, or a hearing, failed", exc_info=error)
            job.tell("failed", problem=f"{type(error).__name__}: {error}")
        self._tell_places()

    def _waiting(self) -> list[Job]:
        jobs: list[Job] = [*list(self._jobs.values()), *self._hearings]
        return [job for job in jobs if not job.is_over]

    def _tell_places(self) -> None:
        """Each waiting question's number of questions before it, where it has changed."""
        for place, job in enumerate(self._waiting()):
            if not job.events or (job.events[-1][0] == "queued" and job.events[-1][1] != {"place": place}):
                job.tell("queued", place=place)

    def _forget(self) -> None:
        """Drops the oldest answers beyond MOST_KEPT, and what was sent with them."""
        over = [job for job in self._jobs.values() if job.is_over]
        for job in over[: max(0, len(over) - MOST_KEPT)]:
            del self._jobs[job.id]
            job.remove_upload()


# --- tokens ----------------------------------------------------------------------------------------------


@contextmanager
def _watched(model: Lalm | Responder, job: PendingQuestion) -> Iterator[None]:
    """Tells the text while a Lalm writes it, and stops it when the job is cancelled."""
    if not isinstance(model, Lalm):
        yield
        return
    ids: list[int] = []

    def see(module: Any, args: Any, logits: Any) -> None:
        job.require_wanted()
        highest, token = logits.reshape(-1, logits.shape[-1])[-1].max(-1)
        if bool(highest.isfinite()):  # else no token can be told from them, and the answer fails
            ids.append(int(token))
            _tell_text(job, model.text(ids))

    hook = model.lm_head.register_forward_hook(see)
    try:
        yield
    finally:
        hook.remove()


def _tell_text(job: PendingQuestion, text: str) -> None:
    """Tells the new end of the text, and its spans. A character that is not whole yet waits for its other bytes."""
    sent = "".join(content["piece"] for name, content in job.events if name == "text")
    if text.endswith("\ufffd") or not text.startswith(sent) or text == sent:
        return
    job.tell("text", piece=text[len(sent) :])
    spans = [[span.start, span.end] for span in dict.fromkeys(find_spans(text))]
    known = [[], *(content["spans"] for name, content in job.events if name == "spans")]
    if spans != known[-1]:
        job.tell("spans", spans=spans)


# --- uploads ---------------------------------------------------------------------------------------------


def _as_file(upload: Path, most_seconds: Seconds) -> Path:
    """The upload as a file that tgsr.audio reads: by what it holds, whatever the browser calls it."""
    suffix = suffix_of(upload.open("rb").read(16))
    if suffix == ".wav":
        if audio.duration(upload) > most_seconds:
            raise AudioError(str(upload), f"is longer than the {most_seconds:g} s allowed", "cut it")
        return upload
    wav = upload.with_name(f"{upload.name}.wav")
    track_to_wav(upload, wav, most_seconds)
    return wav


def suffix_of(start: bytes) -> str:
    """The suffix of a file with these first 16 bytes: ".wav" for all that libsndfile reads, else what FFmpeg reads."""
    marks = ((".webm", 0, b"\x1a\x45\xdf\xa3"), (".mp4", 4, b"ftyp"), (".avi", 8, b"AVI "))
    for suffix, place, mark in (*marks, (".wma", 0, b"\x30\x26\xb2\x75")):
        if start.startswith(mark, place):
            return suffix
    if len(start) > 1 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0:  # ADTS; an mp3's layer bits are not 0
        return ".aac"
    return ".wav"
