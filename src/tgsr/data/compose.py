"""Composed clips of continuous speech: sentences of one or two voices joined with pauses, noise and a little room.

What `tgsr transcribe` wrote, words with times and a speaker a clip, becomes clips of another length and other
neighbours; words keep their times to the sample. Which sentences a clip has is planned first, in order, so that each
is used about equally often; then every clip follows from its own row alone, in any process.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise, zip_longest
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tgsr import audio
from tgsr.audio import SAMPLE_RATE
from tgsr.data.cards import Described, card
from tgsr.data.questions.by_rule import unfit
from tgsr.data.questions.phrases import in_time, plain_words
from tgsr.data.shards import Made, errors_of
from tgsr.data.splits import leaks
from tgsr.disk.jsonl import Row
from tgsr.disk.rows import lines
from tgsr.disk.whole import write_whole
from tgsr.errors import AudioError, Bad, BuildError
from tgsr.records import HELD_OUT, SPEAKERS_GUESSED, TURNS_LEFT_OUT, Clip, read_clips
from tgsr.timeline import Seconds, Word

EDGE: Seconds = 0.05  # of the recording that stays around a sentence's words
FADE: Seconds = 0.005  # at both ends of it, so that nothing clicks
CUT_PAUSE: Seconds = 0.2  # between words, from which on an utterance may be cut there
PIECE: tuple[Seconds, Seconds] = (2.0, 8.0)  # of a longer utterance
WHOLE_SHARE = 0.5  # of the longer utterances that are used whole, where they fit
PAUSE: tuple[Seconds, Seconds] = (0.1, 0.8)
LONG_PAUSE: tuple[Seconds, Seconds] = (1.1, 2.0)
LONG_PAUSE_SHARE = 0.1
HEAD: tuple[Seconds, Seconds] = (0.05, 0.6)
TAIL: tuple[Seconds, Seconds] = (0.05, 0.5)
SPEECH_RMS = 0.1
SILENCE_RMS = 1e-5  # and below: nobody can be heard
LEVEL_DB = (-3.0, 3.0)  # of a sentence
OVERALL_DB = (-15.0, 0.0)
NOISE_DB = (-40.0, -15.0)  # over the speech
ROOM_SHARE = 1 / 3
ROOM_SECONDS = (0.1, 0.4)  # in which the room's sound decays by 60 dB
ROOM_DB = (-12.0, -3.0)  # of all that the walls give back, over the direct sound
FIRST_WALL: Seconds = 0.002
SHORTEST_WORD: Seconds = 0.001


@dataclass(frozen=True, slots=True)
class Sentence:
    """What one voice says in one recording: plain words in order of time, in seconds of the recording.

    `stamp` is the size and time of its file: a recording that was changed is composed anew.
    """

    clip_id: str
    audio: str
    stamp: str
    duration: Seconds
    words: tuple[Word, ...]
    voice: str
    split: str
    source: str | None
    licence: str | None

    @property
    def start(self) -> Seconds:
        return max(0.0, self.words[0].start - EDGE)

    @property
    def end(self) -> Seconds:
        return min(self.duration, max(word.end for word in self.words) + EDGE)

    @property
    def seconds(self) -> Seconds:
        return self.end - self.start


def sentence_of(clip: Clip, root: Path, held_out: HeldOut | None = None) -> Sentence | Bad:
    """The clip as a sentence; Bad with the reason where its words, or who says them, are not all known.

    Words become plain: lower case, without punctuation around them.
    """

    def bad(reason: str, field: str) -> Bad:
        return Bad(clip.id, reason, None, field)

    if reason := unfit(clip):
        return bad(reason, "flags")
    for flag in (TURNS_LEFT_OUT, SPEAKERS_GUESSED):
        if flag in clip.flags:
            return bad(f"flagged {flag}", "flags")
    spoken, holes = in_time(clip)
    if holes:
        return bad("something may be said that has no word", "holes")
    voices = sorted({word.speaker or clip.speaker or "" for word in spoken})
    if len(voices) != 1:
        return bad(f"has {len(voices)} speakers" if voices else "has no words", "words")
    if not voices[0]:
        return bad("nobody knows who speaks", "speaker")
    timed = [(plain, word) for word in spoken if (plain := plain_words([word.text]))]
    if not timed:
        return bad("has no words", "words")
    bounds = _with_length([word for _, word in timed], clip.duration)
    if bounds is None:
        return bad("a word has no length, and its neighbours leave it none", "words")
    words = tuple(
        replace(word, text=" ".join(plain), start=start, end=end, speaker=voices[0])
        for (plain, word), (start, end) in zip(timed, bounds, strict=True)
    )
    split = clip.split if held_out is None else held_out.split_of(clip.source, voices[0], clip.split)
    try:
        stat = os.stat(os.path.normpath(root / clip.audio))  # `root` need not be there yet
    except OSError as error:
        return bad(f"{clip.audio}: {error.strerror}", "audio")
    stamp = f"{stat.st_size} {stat.st_mtime_ns}"
    known = (clip.id, clip.audio, stamp, clip.duration, words)
    return Sentence(*known, voices[0], split, clip.source, clip.licence)


def _with_length(words: Sequence[Word], duration: Seconds) -> list[tuple[Seconds, Seconds]] | None:
    """When each word starts and ends, inside the recording; None where one has no length.

    A word of no length (less than SHORTEST_WORD), as aligners leave what was said too fast for their step, reaches to
    its neighbours, EDGE at most on either side.
    """
    bounds: list[tuple[Seconds, Seconds]] = []
    reached = 0.0
    for word, following in zip_longest(words, words[1:]):
        start, end = word.start, min(word.end, duration)
        if end - start < SHORTEST_WORD and start < duration:
            start = max(reached, word.start - EDGE)
            end = min(duration if following is None else following.start, word.start + EDGE, duration)
        if end - start < SHORTEST_WORD:
            return None
        reached = max(reached, end)
        bounds.append((start, end))
    return bounds


# --- which voices are for testing --------------------------------------------------------------------------------


@dataclass(slots=True)
class HeldOut:
    """The voices that no training may use: (corpus or None, speaker), compared by letters and digits alone."""

    listed: frozenset[tuple[str | None, str]]
    heard: set[tuple[str | None, str]] = field(default_factory=set)

    def split_of(self, source: str | None, speaker: str, published: str) -> str:
        """ "test" for a voice that is listed, or that its publisher has for testing or validation; "train" for others.

        A corpus is listed by a part of its source's name; where a clip's source is not known, by any. Its speakers may
        have its name before theirs: "libri-103" is LibriSpeech's 103.
        """
        for corpus, name in self.listed:
            of_corpus = corpus is None or source is None or corpus in _bare(source)
            if of_corpus and _own_name(name, corpus) == _own_name(_bare(speaker), corpus):
                self.heard.add((corpus, name))
                return "test"
        return "test" if HELD_OUT.match(published) else "train"

    def __str__(self) -> str:
        """What `tgsr compose` says of them: a list that names nobody here is likely one of other names."""
        return f"{len(self.heard)} of {len(self.listed)} held-out voices are among them"


def read_held_out(path: Path) -> HeldOut:
    """Lines "corpus speaker" or "speaker"; blank ones and those that begin with # are passed over.

    Raises BuildError where a line has more than two names or is not UTF-8, or no line has any.
    """
    listed = set()
    for row in lines(path):
        if isinstance(row, Bad):
            raise BuildError(f"{path}:{row.line}: {row.error}; save the file as UTF-8")
        line = row.text("line")
        names = line.partition("#")[0].split()
        if len(names) > 2:
            raise BuildError(f'{path}:{row.line}: must be "corpus speaker" or "speaker", got {line!r:.80}')
        if names:
            listed.add((_bare(names[0]) if len(names) == 2 else None, _bare(names[-1])))
    if not listed:
        raise BuildError(f'{path}: lists no voice; a line is "corpus speaker" or "speaker"')
    return HeldOut(frozenset(listed))


def _bare(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())


def _own_name(name: str, corpus: str | None) -> str:
    """The bare name without the beginning that it shares with its corpus', where that is three letters or more."""
    n_shared = [*map(eq, name, corpus or ""), False].index(False)
    return name[n_shared:] or name if n_shared >= 3 else name


# --- which sentences a clip has ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Composition:
    """How clips are composed: their lengths, the share of those with two voices, the seed."""

    seed: int = 0
    least: Seconds = 4.0
    most: Seconds = 28.0
    two_speakers: float = 0.5


@dataclass(slots=True)
class _Voice:
    """A voice's sentences, and those that are left of this round; a round uses each second of them once."""

    name: str
    source: str | None
    sentences: list[Sentence] = field(default_factory=list)
    left: list[Sentence] = field(default_factory=list)
    used: Seconds = 0.0

    @property
    def seconds(self) -> Seconds:
        return sum(sentence.seconds for sentence in self.sentences)

    def begin(self, rng: np.random.Generator, most: Seconds) -> None:
        """Another round where nothing is left of this one."""
        if not self.left:
            pieces = [piece for sentence in self.sentences for piece in cut(sentence, rng, most)]
            self.left = [pieces[int(i)] for i in rng.permutation(len(pieces))]

    def take(self, room: Seconds) -> Sentence | None:
        """The first sentence left that fits, taken out."""
        for index, sentence in enumerate(self.left):
            if sentence.seconds <= room:
                self.used += sentence.seconds
                return self.left.pop(index)
        return None

    def take_shortest(self, room: Seconds, rng: np.random.Generator, most: Seconds) -> Sentence | None:
        """The shortest sentence left, taken out; a long one is cut where nothing fits otherwise."""
        if all(sentence.seconds > room for sentence in self.left):
            self.left = [piece for sentence in self.left for piece in cut(sentence, rng, most, whole_share=0)]
        return self.take(min([room, *(sentence.seconds for sentence in self.left)]))


def cut(
    sentence: Sentence, rng: np.random.Generator, most: Seconds, whole_share: float = WHOLE_SHARE
) -> list[Sentence]:
    """The sentence whole, or where it is longer than 8 s in pieces of 2 to 8 s, as far as its pauses allow.

    It is cut in pauses of 0.2 s or more only; a piece without one is longer, and one longer than `most` is left out.
    """
    longest = min(PIECE[1], most)
    if sentence.seconds <= longest or (sentence.seconds <= most and rng.random() < whole_share):
        return [sentence]
    words = sentence.words
    ends = np.maximum.accumulate([word.end for word in words])
    cuts = [i for i in range(1, len(words)) if words[i].start - ends[i - 1] >= CUT_PAUSE - 1e-9]
    firsts = [0]
    while True:
        start = words[firsts[-1]].start
        after = [i for i in cuts if i > firsts[-1] and ends[i - 1] - start >= PIECE[0]]
        after = [i for i in after if sentence.end - words[i].start >= PIECE[0]]  # nor is the rest too short
        if not after or sentence.end - start <= longest:
            break
        short = [i for i in after if ends[i - 1] - start <= longest - 2 * EDGE]
        firsts.append(short[int(rng.integers(len(short)))] if short else after[0])
    pieces = [replace(sentence, words=words[a:b]) for a, b in pairwise((*firsts, len(words)))]
    return [piece for piece in pieces if piece.seconds <= most]


def plan(sentences: Iterable[Sentence], n: int, settings: Composition) -> Iterator[Row]:
    """One row a clip: its sentences with the pauses before them; the same for the first n, whatever n is.

    The voice whose sentences were used least comes first, give or take a round; a second one is of the same corpus.
    Raises BuildError where no sentence fits, or where they are of several splits.
    """
    voices: dict[tuple[str | None, str], _Voice] = {}
    digest = hashlib.sha256(repr(settings).encode())
    splits = set()
    rng = np.random.default_rng((settings.seed, 0))
    most = settings.most - HEAD[1]
    for sentence in sentences:
        splits.add(sentence.split)
        digest.update(repr((sentence.clip_id, sentence.words)).encode())
        who = (sentence.source, sentence.voice)
        if pieces := [sentence] if sentence.seconds <= most else cut(sentence, rng, most):
            voices.setdefault(who, _Voice(sentence.voice, sentence.source)).sentences.extend(pieces)
    if not voices:
        raise BuildError(f"no sentence of at most {most:g} s: nothing can be composed")
    if len(splits) > 1:
        raise BuildError(f"voices of different splits are never composed together, got {sorted(splits)}")
    everybody = list(voices.values())
    seconds = np.array([voice.seconds for voice in everybody])
    used = np.zeros(len(everybody))
    sources = np.array([str(voice.source) for voice in everybody])
    (split,) = splits
    name = f"composed-{split}-{digest.hexdigest()[:8]}"
    for index in range(n):
        turn = used / seconds + rng.random(len(everybody))
        first = int(turn.argmin())
        turn[(sources != sources[first]) | (np.arange(len(turn)) == first)] = np.inf
        talking = [first]
        if rng.random() < settings.two_speakers and np.isfinite(turn).any():
            talking.append(int(turn.argmin()))
        told = _clip_of([everybody[i] for i in talking], rng, settings)
        for i in talking:
            used[i] = everybody[i].used
        yield {"id": f"{name}-{index:06d}", "seed": [settings.seed, index], "least": settings.least, **told}


def _clip_of(talking: Sequence[_Voice], rng: np.random.Generator, settings: Composition) -> Row:
    """Sentences of the voices in turns of one or two, as many as fit into a length drawn."""
    length = rng.uniform(settings.least, settings.most)
    for voice in talking:
        voice.begin(rng, settings.most - HEAD[1])
    said: list[Row] = []
    at = edge = 0.0  # the clip's length so far; what lies in it behind the last word
    who, n_in_turn = 0, int(rng.integers(1, 3))
    stuck = 0
    while stuck < len(talking):
        voice = talking[who]
        pause = float(rng.uniform(*_pause(rng) if said else HEAD))
        sentence = voice.take(length - at - pause)
        if sentence is None and all(row["voice"] != voice.name for row in said):  # everybody gets a word in
            pause = min(pause, PAUSE[1])
            sentence = voice.take_shortest(settings.most - at - pause, rng, settings.most - HEAD[1])
        if sentence is None:
            stuck += 1
        else:
            stuck = 0
            # pauses are between words
            gap = max(0.0, pause - edge - (sentence.words[0].start - sentence.start))
            edge = sentence.end - max(word.end for word in sentence.words)
            at += gap + sentence.seconds
            said.append({**asdict(sentence), "gap": gap, "start": sentence.start, "end": sentence.end})
            n_in_turn -= 1
        if sentence is None or n_in_turn == 0:
            who, n_in_turn = (who + 1) % len(talking), int(rng.integers(1, 3))
    return {"sentences": said, "tail": float(min(rng.uniform(*TAIL), max(0.0, settings.most - at)))}


def _pause(rng: np.random.Generator) -> tuple[Seconds, Seconds]:
    return LONG_PAUSE if rng.random() < LONG_PAUSE_SHARE else PAUSE


# --- how it sounds ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rendering:
    """Where clips are written, and where paths start from."""

    root: str


def render(settings: Rendering, rows: Sequence[Row]) -> Made:
    """Each planned clip, its sound in audio/; one whose recordings cannot be read is left out. A step of shards.run."""
    root = Path(settings.root)
    clips, bad = [], []
    for row in rows:
        try:
            samples, clip = composed(row, root)
        except AudioError as error:
            bad.append(Bad(str(row["id"]), str(error), None, "audio"))
            continue
        audio.save_flac(root / clip.audio, samples)
        clips.append(clip)
    return Made(clips, bad)


def composed(row: Row, root: Path) -> tuple[npt.NDArray[np.float32], Clip]:
    """The samples and the record of one planned clip. AudioError where a sentence's recording cannot be read."""
    given: Any = row
    rng = np.random.default_rng(given["seed"])
    parts: list[npt.NDArray[np.float32]] = []
    words: list[Word] = []
    position = 0
    for said in given["sentences"]:
        first = round(said["start"] * SAMPLE_RATE)
        path = Path(os.path.normpath(root / said["audio"]))
        samples = audio.load(path, start=said["start"], end=said["end"])
        spoken = [(word["start"] - said["start"], word["end"] - said["start"]) for word in said["words"]]
        parts += [audio.silence(said["gap"]), _levelled(path, samples, spoken, rng.uniform(*LEVEL_DB))]
        shift = (position + len(parts[-2]) - first) / SAMPLE_RATE
        position += len(parts[-2]) + len(samples)
        for word in said["words"]:
            start, end = (round(word[side] + shift, 4) for side in ("start", "end"))
            end = min(end, position / SAMPLE_RATE)
            words.append(Word(word["text"], start, end, said["voice"], word["source"], word["confidence"]))
    n_least = round(given["least"] * SAMPLE_RATE)
    parts.append(np.zeros(max(round(given["tail"] * SAMPLE_RATE), n_least - position), np.float32))
    speech = np.concatenate(parts)
    if rng.random() < ROOM_SHARE:
        speech = in_room(speech, rng)
    noise = _noise(len(speech), rng) * (SPEECH_RMS * 10 ** (rng.uniform(*NOISE_DB) / 20))
    loud = (speech + noise) * 10 ** (rng.uniform(*OVERALL_DB) / 20)
    mixed = (loud / max(1.0, float(np.abs(loud).max()))).astype(np.float32)
    file, duration = f"audio/{given['id']}.flac", len(mixed) / SAMPLE_RATE
    split = given["sentences"][0]["split"]
    told = ([said[name] or "unknown" for said in given["sentences"]] for name in ("source", "licence"))
    source, licence = (" and ".join(dict.fromkeys(some)) for some in told)
    return mixed, Clip(given["id"], file, duration, tuple(words), split, source, licence)


def _levelled(
    path: Path, samples: npt.NDArray[np.float32], spoken: Sequence[tuple[float, float]], db: float
) -> npt.NDArray[np.float32]:
    """The sentence with its words at that level over SPEECH_RMS, faded in and out. AudioError where they are silent."""
    inside = np.concatenate([samples[round(a * SAMPLE_RATE) : round(b * SAMPLE_RATE)] for a, b in spoken])
    rms = float(np.sqrt((inside.astype(np.float64) ** 2).mean())) if len(inside) else 0.0
    if rms < SILENCE_RMS:
        remedy = "correct their times, or leave the clip out"
        raise AudioError(str(path), "silence where its words are said", remedy)
    samples = samples * np.float32(SPEECH_RMS * 10 ** (db / 20) / rms)
    n_fade = min(round(FADE * SAMPLE_RATE), len(samples) // 2)
    ramp = np.linspace(0, 1, n_fade, dtype=np.float32)
    samples[:n_fade] *= ramp
    samples[len(samples) - n_fade :] *= ramp[::-1]
    return samples


def in_room(samples: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The samples as a small room gives them back, of the same length; the direct sound stays where it is."""
    n = round(rng.uniform(*ROOM_SECONDS) * SAMPLE_RATE)
    walls = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    walls[: round(FIRST_WALL * SAMPLE_RATE)] = 0
    walls *= np.sqrt(10 ** (rng.uniform(*ROOM_DB) / 10) / (walls**2).sum())
    walls[0] = 1
    size = 1 << (len(samples) + n - 1).bit_length()
    both = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(walls, size), size)
    return both[: len(samples)].astype(np.float32)


def _noise(n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Noise of power 1, between white and pink."""
    size = 1 << (n - 1).bit_length()
    spectrum = np.fft.rfft(rng.standard_normal(size))
    spectrum /= np.maximum(1, np.arange(len(spectrum))) ** (rng.random() / 2)
    noise = np.fft.irfft(spectrum, size)[:n]
    return np.asarray(noise / np.sqrt((noise**2).mean()))


# --- all of it -------------------------------------------------------------------------------------------------------


def chosen(
    clips: Iterable[Clip | Bad], root: Path, split: str, held_out: HeldOut | None = None
) -> tuple[list[Sentence], list[Bad]]:
    """The sentences of that split, and what cannot be used. Raises BuildError where there is no sentence of it."""
    sentences: list[Sentence] = []
    bad: list[Bad] = []
    others: Counter[str] = Counter()
    seen: set[tuple[str | None, str]] = set()
    for clip in clips:
        made = clip if isinstance(clip, Bad) else sentence_of(clip, root, held_out)
        if isinstance(made, Sentence) and (made.source, made.clip_id) in seen:
            made = Bad(made.clip_id, "the id of another sentence of the same source", None, "id")
        if isinstance(made, Bad):
            bad.append(made)
            continue
        seen.add((made.source, made.clip_id))
        if made.split == split:
            sentences.append(made)
        else:
            others[made.split] += 1
    if not sentences:
        there = ", ".join(f"{n} of split {name}" for name, n in sorted(others.items())) or "none at all"
        why = f"; {len(bad)} cannot be used, the first ({bad[0].file}): {bad[0].error}" if bad else ""
        found = f"no sentence of split {split!r}: there are {there}{why}"
        raise BuildError(f"{found}; --split says whose are composed")
    return sentences, bad


def describe(path: Path, command: str) -> None:
    """card.md beside the composed clips: sources, licences, voices, what was left out and why."""
    described = Described()
    clips = read_clips(path)
    for clip in clips:
        described.hear(clip)
        described.splits[clip.split] += 1
    voices = Counter(voice for clip in clips for voice in {word.speaker for word in clip.words})
    with errors_of(path).open(encoding="utf-8") as lines:
        for line in lines:
            described.leave_out(json.loads(line)["error"])
    listed = "".join(f"| {voice} | {n:,} |\n" for voice, n in sorted(voices.items(), key=str))
    text = card(described, path.parent.name, command, leaks(clips))
    write_whole(path.parent / "card.md", f"{text}\n| voice | clips |\n|---|---|\n{listed}")
