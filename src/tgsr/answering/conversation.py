"""Questions one after another about recordings that are heard once: a prompt, lines from a pipe, one JSON object each.

Of several recordings one answers: that in which the transcript's nearest words are. A model that hears the sound
itself is asked about each of them.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tgsr import audio
from tgsr.answering.ask import MOST_LETTERS, AskedLong, CitedAnswer, ask
from tgsr.answering.cascade import Cascade, Spoken, nearest_of
from tgsr.answering.citing import check_citations
from tgsr.answering.responder import Responder, require_heard
from tgsr.disk.whole import write_whole
from tgsr.errors import AudioError, ModelError, OptionError, TgsrError
from tgsr.models.lalm import Lalm
from tgsr.timeline import Seconds

FINAL = "Final answer:"
PLAYERS = (  # each with what makes it play one file, show nothing and end
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"),
    ("mpv", "--really-quiet", "--no-video"),
    ("play", "-q"),
    ("afplay",),
    ("pw-play",),
    ("paplay",),
    ("aplay", "-q"),
)
HELP = """\
a question                asks it; --choice and --phrase hold for every one
:phrase WORDS             where these words are said
:play [N]                 plays the evidence of the last answer, or the N-th interval of it
:save [FILE.wav]          writes that evidence; evidence.wav, or the next free number, if no name is given
:save FILE.txt            writes all questions and answers so far
:help                     this
:quit, or Ctrl-D          ends; the arrow keys bring back earlier questions"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One question's answer, about one recording: its response, and what it cites, on the recording's own clock.

    `notes` say what is to be known about it: whose lines were looked at, in which language.
    """

    question: str
    recording: Path
    duration: Seconds
    cited: CitedAnswer
    located: bool  # the question was where words are said
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What follows "Final answer:", or the whole response where it has no such line."""
        return self.cited.text.rpartition(FINAL)[2].strip()

    def as_row(self, model: str, wav: Path | None) -> dict[str, Any]:
        """One JSON object: evidence with its seconds and words, and `nearest` where nothing that was said answers."""
        nearest = nearest_of(self.cited.text)
        quotes = {citation.mention.span: citation.quote for citation in check_citations(self.cited.text, ())}
        return {
            "question": self.question,
            "recording": str(self.recording),
            "answer": self.text,
            "evidence": [
                {"start": round(span.start, 2), "end": round(span.end, 2), "text": quotes.get(span)}
                for span in self.cited.spans
            ],
            "nearest": None if nearest is None else {"at": nearest[0], "text": nearest[1]},
            "response": self.cited.text,
            "notes": list(self.notes),
            "wav": None if wav is None else str(wav),
            "model": model,
        }


@dataclass
class Conversation:
    """A model with recordings, asked as often as one likes; each recording is heard once.

    `start` and `end` are the stretch that is heard of each. With a cascade the transcripts are kept, so that only the
    recording that answers is decoded. A ModelError for a question is that question's.
    """

    model: Lalm | Responder
    recordings: list[Path]
    start: Seconds = 0.0
    end: Seconds | None = None
    long_audio: AskedLong = "windows"
    heard: dict[Path, np.ndarray] = field(default_factory=dict)  # the last ones that answered
    spoken: dict[Path, Spoken] = field(default_factory=dict)  # what is said in them, of a cascade

    def hear(self) -> list[AudioError | ModelError]:
        """Hears all recordings now. Those that cannot be heard are left out; their errors are returned."""
        wrong: list[AudioError | ModelError] = []
        for path in tqdm(list(self.recordings), desc="recordings", unit="file", leave=False, delay=2.0):
            try:
                if isinstance(self.model, Cascade):
                    self.model.spoken_in(path)
                else:  # decoded, for a header may be whole where the sound is not
                    self.samples(path)
            except (AudioError, ModelError) as error:
                wrong.append(error)
                self.recordings.remove(path)
        return wrong

    def ask(self, question: str, choices: tuple[str, ...] = (), *, phrase: bool = False) -> list[Answer]:
        """The answer of the recording that has one; of a model that keeps no transcript, one answer a recording.

        Raises ModelError for a question that is blank or longer than MOST_LETTERS, and as `ask` does; AudioError.
        """
        require_question(question, choices)
        recordings = self.recordings
        if isinstance(self.model, Cascade) and len(recordings) > 1:
            recordings = [recordings[self.model.nearest(question, choices, recordings, phrase)]]
        return [self._about(recording, question, choices, phrase) for recording in recordings]

    def _about(self, recording: Path, question: str, choices: tuple[str, ...], phrase: bool) -> Answer:
        samples = self.samples(recording)
        cited = ask(self.model, samples, question, choices, phrase=phrase, long_audio=self.long_audio)
        moved = cited.moved(self.start, choices, question if phrase else None)
        notes = []
        if isinstance(self.model, Cascade) and not phrase:
            notes = self.model.notes(question, self.spoken[recording])
        return Answer(question, recording, len(samples) / audio.SAMPLE_RATE, moved, phrase, tuple(notes))

    def samples(self, recording: Path) -> np.ndarray:
        """The stretch of the recording that is heard; ModelError or AudioError where it is too long for the model."""
        if recording not in self.heard:
            duration = audio.duration(recording)
            if isinstance(self.model, Lalm):
                from tgsr.engine.features import seconds_to_decode

                most = seconds_to_decode(self.model, "refuse" if self.long_audio == "refuse" else "split")
            else:
                require_heard(self.model, (duration if self.end is None else self.end) - self.start)
                most = self.model.max_seconds
            while len(self.heard) >= 4:
                self.heard.pop(next(iter(self.heard)))
            samples = audio.load(recording, start=self.start, end=self.end, max_seconds=most)
            if isinstance(self.model, Cascade):
                self.spoken[recording] = self.model.hear(recording, samples, self.start, self.end)
            self.heard[recording] = samples
        return self.heard[recording]


def require_question(question: str, choices: Sequence[str] = ()) -> None:
    """ModelError for a blank question, and for one that no recording answers: longer than MOST_LETTERS."""
    letters = len(question) + sum(map(len, choices))
    if not question.strip():
        raise ModelError("the question is blank: write one")
    if letters > MOST_LETTERS:
        raise ModelError(
            f"question {question[:40]!r}...: {letters} characters, choices among them; ask in {MOST_LETTERS} or fewer"
        )


def questions_in(lines: Sequence[str] | Iterator[str]) -> Iterator[str]:
    """The questions of a pipe or file, one a line; blank lines and a byte order mark are none."""
    for line in lines:
        question = line.strip().removeprefix("\ufeff").strip()
        if question:
            yield question


def player_here() -> tuple[str, ...] | None:
    """The command that plays a file on this machine; None where none of PLAYERS is installed."""
    return next((player for player in PLAYERS if shutil.which(player[0])), None)


def play(samples: np.ndarray, player: Sequence[str]) -> str:
    """Plays the sound to its end, or until Ctrl-C; "" or what the player says went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "evidence.wav"
        audio.save_wav(path, samples)
        try:
            command = [*player, str(path)]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        except KeyboardInterrupt:
            return ""
        except OSError as error:
            return f"{player[0]}: {error.strerror}"
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        return f"{player[0]} ended with {done.returncode}{': ' + said[-1] if said else ''}"
    return ""


def free_name(path: Path) -> Path:
    """The path, or where it exists the next free number: evidence.wav, evidence-2.wav, ..."""
    n, free = 2, path
    while free.exists():
        free, n = path.with_name(f"{path.stem}-{n}{path.suffix}"), n + 1
    return free


@dataclass
class Prompt:
    """What a prompt does with each line that is typed, and a pipe with each that comes.

    `say` writes answers, `tell` all else to the user; `shown` turns an answer into text.
    """

    conversation: Conversation
    choices: tuple[str, ...]
    phrase: bool
    shown: Callable[[Answer], str]
    say: Callable[[str], None]
    tell: Callable[[str], None]
    player: tuple[str, ...] | None
    last: Answer | None = None
    log: list[str] = field(default_factory=list)

    def take(self, line: str) -> bool:
        """Answers or obeys one line; False where it ends the conversation. What is wrong is said, and it goes on."""
        question, phrase = self.asked(line)
        try:
            if question is None:
                return self.obey(line)
            self.answer(question, phrase)
        except (TgsrError, OSError) as error:
            self.tell(f"tgsr: {error}")
        return True

    def asked(self, line: str) -> tuple[str | None, bool]:
        """The question that a line asks, and whether it is a phrase; None for a blank line and for all else to obey."""
        line = line.strip()
        command, _, rest = line.partition(" ")
        if command == ":phrase":
            return rest.strip(), True
        return None if not line or line.startswith(":") else line, self.phrase

    def obey(self, line: str) -> bool:
        """Does what a line says that asks nothing; False where it ends the conversation. Errors as what it does."""
        command, _, rest = line.strip().partition(" ")
        if command in (":quit", ":q", ":exit"):
            return False
        if command == ":play":
            self.play(rest.strip())
        elif command == ":save":
            self.save(rest.strip())
        elif command:
            self.tell(HELP if command in (":help", ":h", ":?") else f"{command}: no such command\n{HELP}")
        return True

    def answer(self, question: str, phrase: bool) -> None:
        for answer in self.conversation.ask(question, () if phrase else self.choices, phrase=phrase):
            self.last = answer
            text = self.shown(answer)
            self.log.append(f"> {question}\n{text}\n")
            self.say(text)

    def evidence(self) -> np.ndarray:
        if self.last is None or not len(self.last.cited.evidence):
            raise OptionError("no evidence: the last answer cites nothing; ask first")
        return self.last.cited.evidence

    def play(self, number: str) -> None:
        samples = self.evidence()
        assert self.last is not None
        if number:
            spans = self.last.cited.spans
            if not number.isdecimal() or not 1 <= int(number) <= len(spans):
                raise OptionError(f":play {number}: the last answer cites {len(spans)} interval(s), from 1")
            span = spans[int(number) - 1]
            samples, start = self.conversation.samples(self.last.recording), self.conversation.start
            ends = (max(0, round((at - start) * audio.SAMPLE_RATE)) for at in (span.start, span.end))
            samples = samples[slice(*ends)]
        if self.player is None:
            names = ", ".join(player[0] for player in PLAYERS)
            raise OptionError(f":play: none of {names} is installed; :save writes a wav")
        if wrong := play(samples, self.player):
            raise OptionError(f":play: {wrong}; :save writes a wav")

    def save(self, name: str) -> None:
        path = Path(name).expanduser() if name else free_name(Path("evidence.wav"))
        if path.exists():
            raise OptionError(f":save {path}: exists; choose another")
        if path.suffix == ".txt":
            if not self.log:
                raise OptionError(":save: nothing was asked yet")
            write_whole(path, "\n".join(self.log))
            self.tell(f"{path}: {len(self.log)} answers")
        elif path.suffix in ("", ".wav"):
            samples = self.evidence()
            path = path.with_suffix(".wav")
            audio.save_wav(path, samples)
            self.tell(f"{path}: {len(samples) / audio.SAMPLE_RATE:.2f} s to listen to")
        else:
            raise OptionError(f":save {name}: write to FILE.wav (the evidence) or FILE.txt (the answers)")
