"""transcribe."""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tgsr.commands import shared
from tgsr.data.alignments.cues import FORMATS, SUFFIXES, Format, Layout
from tgsr.errors import DISK_REMEDIES, Bad, CorpusError, DiskError, NothingDone, OptionError

if TYPE_CHECKING:
    from tgsr.data.corpora import Corpus
    from tgsr.data.shards import Counts
    from tgsr.records import Clip

STDOUT = Path("-")
NAMES_THEM = "--channels separate, --speakers voices or a file of turns names the speakers"
MOST_LINES = 20  # of what is missing in a recording


def add_transcribe(command: argparse.ArgumentParser) -> None:
    from tgsr.data.corpora import CORPORA

    flag = command.add_argument
    about = "recordings (sound or video), a folder of them, a corpus' folder, clips.jsonl, or .parquet"
    flag("source", type=Path, nargs="+", metavar="SOURCE", help=about)
    flag("--corpus", choices=("auto", *CORPORA), default="auto", help="what it is")
    shared.add_audio(flag)
    flag("--alignments", type=Path, help="existing word times: TextGrid, CTM, SRT, VTT, WhisperX, ...")
    about = (
        "what is said in the recording: its words get times, what is not in both is listed; also .srt, .vtt"
    )
    flag("--words-from", type=Path, metavar="TEXT.txt", help=about)
    about = "with --to: a file, a folder, or - (standard output); beside the recording if not given. Else clips.jsonl"
    flag("--out", type=Path, help=about)
    flag = command.add_argument_group("what is written").add_argument
    flag("--to", choices=FORMATS, action="append", default=[], help="may be given several times")
    flag("--overwrite", action="store_true", help="files that are there already are written anew")
    flag("--highlight", action="store_true", help="srt and vtt: each word lit while it is said")
    shared.add_config(command.add_argument_group("subtitles"), Layout)
    flag = command.add_argument_group("who hears").add_argument
    backends = ("faster-whisper", "transformers", "whisper-timestamped")
    flag("--backend", choices=backends, default="faster-whisper", help="who writes words down")
    flag("--model", help="in the back end's own format; the packaged Whisper base if not given")
    flag("--align", default="pocketsphinx", help="forced alignment: pocketsphinx, qwen3, ctc:MODEL, or none")
    about = (
        "auto detects it; en, fr, german, ... take it for granted. Only English is aligned by pocketsphinx"
    )
    flag("--language", default="auto", help=about)
    flag("--max-seconds", type=float, default=8 * 3600.0, help="longer recordings are flagged, not heard")
    flag("--device", default="cpu", help="of the back end transformers, and of --align qwen3 and ctc")
    flag("--timestamped-python", default=sys.executable, help="of whisper-timestamped's environment")
    flag = command.add_argument_group("who speaks").add_argument
    about = "separate: hear each channel by itself, and name words by it (CH1, CH2)"
    flag("--channels", choices=("mixed", "separate"), default="mixed", help=about)
    about = "turns from elsewhere, whose speakers words get; voices, or how many: a guess from the voices"
    flag("--speakers", metavar="FILE.rttm|voices|N", help=about)
    shared.add_shards(command)
    example = "tgsr transcribe talk.mp4 --to srt; tgsr transcribe LibriSpeech/ --out data/libri/clips.jsonl --workers 2"
    more = "A corpus is read as its publisher ships it."
    shared.finish(command, transcribe, example, more, keeps=shared.DONE_CLIPS)


def transcribe(args: argparse.Namespace) -> None:
    args.speakers, voices = _speakers(args.speakers)
    shared.require_there(*args.source, args.audio, args.alignments, args.words_from, args.speakers)
    formats: list[Format] = list(dict.fromkeys(args.to or _format_of(args.out)))
    if args.out is None and not formats:
        raise OptionError(f"--to {'|'.join(FORMATS)}, or --out clips.jsonl: one of them says what to write")
    if args.words_from and (len(args.source) > 1 or args.source[0].is_dir() or args.channels == "separate"):
        raise OptionError("--words-from: is for one recording, and for its channels together")
    if (args.speakers or voices is not None) and args.channels == "separate":
        raise OptionError("--speakers and --channels separate: both say who speaks; give one of them")
    _require_aligner(args.align)
    layout = shared.config_of(args, Layout)
    args.language = shared.language_code(args.language)
    if not formats:
        shared.require_writable("--out", args.out)
        out = args.out.resolve()
        _summarise(args, args.out, _run(args, out, _clips(args, out.parent), voices))
        return
    targets = _Targets(args.out, formats, args.overwrite)
    if not targets.has_clips:
        shared.require_cache()
    targets.require_writable(args.source)
    out = args.out.resolve() if targets.has_clips else _work_folder(args).resolve() / "clips.jsonl"
    counts = _run(args, out, targets.without_done(_clips(args, out.parent), out.parent), voices)
    _write(targets, out, layout, args.highlight)
    for line in targets.left:
        print(line, file=targets.says)
    errors = [json.loads(line) for line in (out.parent / "errors.jsonl").read_text("utf-8").splitlines()]
    told = [(str(bad["file"]), str(bad["error"])) for bad in errors]
    problems = [why if why.startswith(f"{file}: ") else f"{file}: {why}" for file, why in told]
    problems += targets.empty
    if not targets.written and problems:
        raise NothingDone("; ".join(problems[:MOST_LINES]))
    for problem in problems:
        print(f"tgsr: {problem}", file=sys.stderr)
    if not counts.given and not targets.left:
        raise NothingDone(f"{args.source[0]}: there is no clip")


def _speakers(given: str | None) -> tuple[Path | None, int | None]:
    """--speakers as a file of turns, or how many voices: 0 where nobody knows. OptionError for fewer than one."""
    if given == "voices":
        return None, 0
    if given is None or not given.lstrip("-").isdecimal():
        return (None if given is None else Path(given)), None
    if int(given) < 1:
        raise OptionError(f"--speakers {given}: somebody speaks; voices, where nobody knows how many")
    return None, int(given)


def _require_aligner(name: str) -> None:
    kind, _, model = name.partition(":")
    if (kind == "ctc" and model) or kind == "qwen3" or name in ("pocketsphinx", "none"):
        return
    raise OptionError(f"--align {name}: is none of pocketsphinx, qwen3, qwen3:MODEL, ctc:MODEL and none")


def _format_of(out: Path | None) -> list[Format]:
    """The format that a file's suffix asks for, [] where it asks for none: .json may be anything."""
    name = "" if out is None else out.name.casefold()
    asked = [to for to in FORMATS if to not in ("json", "txt") and name.endswith(SUFFIXES[to].casefold())]
    return asked[:1]


def _clips(args: argparse.Namespace, root: Path) -> Iterator[Clip | Bad]:
    """The clips of all sources, with what the flags say of them; audio as seen from the folder `root`.

    What is wrong with the flags' own files is raised before the first clip.
    """
    from tgsr.data.alignments.reading import plain_text

    text = plain_text(args.words_from) if args.words_from else None
    corpora = list(_corpora(args))
    root.mkdir(parents=True, exist_ok=True)
    return _of_sources(args, corpora, root, text)


def _corpora(args: argparse.Namespace) -> Iterator[Corpus]:
    from tgsr.data.corpora.which import corpus_of

    yield from (corpus_of(source) if args.corpus == "auto" else args.corpus for source in args.source)


def _of_sources(
    args: argparse.Namespace, corpora: Sequence[Corpus], root: Path, text: str | None
) -> Iterator[Clip | Bad]:
    from tgsr.data.alignments.belonging import with_alignments
    from tgsr.data.corpora.which import clips_of
    from tgsr.data.transcribe.speakers import turns_of

    language = None if args.language == "auto" else args.language
    ids: set[str] = set()
    for source, corpus in zip(args.source, corpora, strict=True):
        clips = clips_of(source, corpus, root, language=language, audio=args.audio)
        if args.alignments:
            clips = with_alignments(clips, args.alignments, source, root)
        for clip in clips:
            if isinstance(clip, Bad):
                yield clip
                continue
            if len(args.source) > 1 and clip.id in ids:
                clip = replace(clip, id=clip.audio)
            ids.add(clip.id)
            if text is not None and len(ids) > 1:
                raise OptionError(f"--words-from: is for one recording, and {source} has several")
            if text is not None:
                clip = replace(clip, text=text, words=())
            if args.speakers:
                try:
                    turns = turns_of(args.speakers, Path(clip.audio).name, clip.duration)
                except CorpusError as error:
                    yield Bad(clip.id, str(error))
                    continue
                clip = replace(clip, events=turns)
            yield clip


def _run(args: argparse.Namespace, out: Path, clips: Iterable[Clip | Bad], voices: int | None) -> Counts:
    """Writes clips.jsonl, and errors.jsonl beside it."""
    from tgsr.data.shards import Step, run
    from tgsr.data.transcribe.clips import Transcription, transcribe_rows
    from tgsr.records import as_row

    given = {"root": str(out.parent), "threads": 1 if args.workers > 1 else 0, "voices": voices}
    given |= {"words_from_text": args.words_from is not None, "by_turns": args.speakers is not None}
    settings = shared.config_of(args, Transcription, **given)
    models = (args.model, args.align.partition(":")[2] or None)
    step = Step(transcribe_rows, settings, "tgsr.transcribe.clips.transcribe_rows", version=6, models=models)
    rows = (clip if isinstance(clip, Bad) else as_row(clip) for clip in clips)
    return run(step, rows, out, root=out.parent, **shared.shards_of(args))


def _summarise(args: argparse.Namespace, out: Path, counts: Counts) -> None:
    errors = out.resolve().parent / "errors.jsonl"
    left_out = f"; {counts.left_out} left out, see {errors}" if counts.left_out else ""
    flags = ", ".join(f"{n} {flag}" for flag, n in sorted(counts.by_flag.items()))
    kept = f"{counts.kept} clips of {counts.given} ({', '.join(dict.fromkeys(_corpora(args)))})"
    print(f"{out}: {kept}, {counts.flagged} with flags{f' ({flags})' if flags else ''}{left_out}")
    if not counts.kept:
        raise NothingDone(f"{args.source[0]}: no clip could be read{left_out or ': there is none'}")


def _work_folder(args: argparse.Namespace) -> Path:
    """Where clips.jsonl lies that nobody has asked for: what was heard is found there by the next run."""
    from tgsr.models.packaged_weights import cache_folder

    paths = (*args.source, args.audio, args.alignments, args.words_from)
    named = [str(path and path.resolve()) for path in paths]
    digest = hashlib.sha256(os.fsencode("\n".join(named))).hexdigest()[:16]
    return cache_folder() / "transcripts" / "files" / digest


@dataclass
class _Targets:
    """Which files a clip is written to, and what became of them."""

    out: Path | None
    formats: Sequence[Format]
    overwrite: bool
    planned: dict[Path, str] = field(default_factory=dict)  # whose they are
    written: set[Path] = field(default_factory=set)
    left: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    @property
    def has_clips(self) -> bool:
        """Whether --out is clips.jsonl, and the rest lies beside the recordings."""
        return self.out is not None and self.out.suffix == ".jsonl"

    @property
    def is_file(self) -> bool:
        if self.out is None or self.out == STDOUT or self.has_clips:
            return False
        return not self.out.is_dir() and bool(self.out.suffix)

    @property
    def says(self) -> TextIO:
        """What is told of it goes where the words do not."""
        return sys.stderr if self.out == STDOUT else sys.stdout

    def require_writable(self, sources: Sequence[Path]) -> None:
        """OptionError where the output cannot be written, before anyone listens."""
        if self.out == STDOUT or self.is_file:
            if len(self.formats) > 1:
                raise OptionError(f"--out {self.out}: is one file, and there are {len(self.formats)} formats")
            if len(sources) > 1 or sources[0].is_dir():
                raise OptionError(f"--out {self.out}: is one file, for one recording; name a folder")
        if self.out is None:
            for source in sources:
                folder = source if source.is_dir() else source.absolute().parent
                remedy = "name another one by --out"
                shared.require_writable("beside the recording,", folder, folder=True, remedy=remedy)
        elif self.out != STDOUT:
            shared.require_writable("--out", self.out, folder=not (self.is_file or self.has_clips))

    def of(self, clip: Clip, root: Path, to: Format) -> Path:
        """The clip's file; named by the whole name of its recording where another clip's has the short one."""
        assert self.out != STDOUT
        if self.out is not None and self.is_file:
            return self.out
        sound = Path(os.path.normpath(root / clip.audio))
        if self.out is None and sound.is_relative_to(root):
            raise OptionError(f"--out FOLDER: {clip.id} is a part of a file, and has no place of its own")
        if self.out is not None and not self.has_clips:
            inside = [part for part in clip.id.split("/") if part not in ("", ".", "..")]
            sound = self.out.joinpath(*inside)
        short = sound.with_name(_stem(sound.name) + SUFFIXES[to])
        taken = self.planned.setdefault(short, clip.id) != clip.id
        return sound.with_name(sound.name + SUFFIXES[to]) if taken else short

    def without_done(self, clips: Iterable[Clip | Bad], root: Path) -> Iterator[Clip | Bad]:
        """The clips but those whose files are all there, which nobody has to hear. OptionError where several clips are
        to be one file.
        """
        is_one = self.out == STDOUT or self.is_file
        for n, clip in enumerate(clips):
            if is_one and n:
                problem = "is one file, and there are several recordings"
                raise OptionError(f"--out {self.out}: {problem}; name a folder")
            if isinstance(clip, Bad) or self.overwrite or is_one:
                yield clip
                continue
            paths = [self.of(clip, root, to) for to in self.formats]
            if all(path.exists() for path in paths) and not self.has_clips:
                self.left += [f"{path}: is there already, and left as it is (--overwrite)" for path in paths]
            else:
                yield clip


def _stem(name: str) -> str:
    """The name without the suffix of a sound or video."""
    from tgsr.disk.sound_folder import FORMATS as SOUNDS

    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and f".{suffix.casefold()}" in SOUNDS else name


def _write(targets: _Targets, out: Path, layout: Layout, highlight: bool) -> None:
    """Every clip of clips.jsonl in every format; says what was written, and what is missing in it."""
    from tgsr.data.alignments.writing import written
    from tgsr.disk.jsonl import row_of
    from tgsr.disk.whole import write_whole
    from tgsr.records import clip_of

    with out.open("rb") as lines:
        for line in lines:
            clip = clip_of(row_of(line))
            tracks, sound = _tracks(out.parent / clip.audio), Path(clip.audio).name
            if not clip.words:
                why = "; ".join([", ".join(clip.flags) or "nothing was heard", *tracks])
                targets.empty.append(f"{sound}: has no words ({why}{_remedy(clip.flags)})")
                continue
            for to in targets.formats:
                content = written(clip, to, layout, highlight)
                if not content:
                    targets.empty.append(f"{sound}: has no turns, as nobody is named; {NAMES_THEM}")
                    continue
                if targets.out == STDOUT:
                    _to_stdout(content)
                    targets.written.add(STDOUT)
                    name = sound
                else:
                    path = targets.of(clip, out.parent, to)
                    if path.exists() and not targets.overwrite and not targets.is_file:
                        targets.left.append(f"{path}: is there already, and left as it is (--overwrite)")
                        continue
                    write_whole(path, content)
                    targets.written.add(path)
                    name = str(path)
                flags = f" ({', '.join(clip.flags)})" if clip.flags else ""
                print(f"{name}: {len(clip.words)} words of {clip.duration:.1f} s{flags}", file=targets.says)
            for note in (*tracks, *_notes(clip)):
                print(f"  {note}", file=targets.says)


def _tracks(sound: Path) -> list[str]:
    """That a file has more sound tracks than the one that is heard: another language, or a microphone each."""
    from tgsr import audio
    from tgsr.errors import AudioError

    try:
        n = audio.n_tracks(sound)
    except (AudioError, OSError):  # words may be given, and the sound gone since
        return []
    other = f"ffmpeg -i {sound.name} -map 0:a:1 OUT.wav gives the second"
    return [f"the first of {n} sound tracks was heard; {other}"] if n > 1 else []


def _remedy(flags: Sequence[str]) -> str:
    from tgsr.records import NOT_ENGLISH, TOO_LONG

    remedies = {TOO_LONG: "; raise --max-seconds", NOT_ENGLISH: "; name it: --language fr"}
    return next((remedies[flag] for flag in flags if flag in remedies), "")


def _notes(clip: Clip) -> list[str]:
    """What the words lack, with its seconds."""
    from tgsr.data.transcribe.given_text import gap_lines
    from tgsr.records import SPEAKERS_GUESSED

    unheard = [hole for hole in clip.holes if hole.text is None]
    guess = f"who speaks is a guess: {_voices(clip)}; --to rttm to correct it"
    notes = [guess] if SPEAKERS_GUESSED in clip.flags else []
    notes += gap_lines(clip.holes)
    notes += [f"{hole.start:.2f} - {hole.end:.2f} s: speech without words" for hole in unheard]
    more = [f"and {len(notes) - MOST_LINES} more; --to json has all"] if len(notes) > MOST_LINES else []
    return [*notes[:MOST_LINES], *more]


def _voices(clip: Clip) -> str:
    """Who says how many words."""
    said = Counter(word.speaker or "nobody" for word in clip.words)
    return ", ".join(f"{name} {n} words" for name, n in sorted(said.items()))


def _to_stdout(content: str) -> None:
    try:
        sys.stdout.write(content)
        sys.stdout.flush()
    except OSError as error:
        # Python would try to write what is left when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:  # who reads has enough
            return
        remedy = DISK_REMEDIES.get(error.errno or 0, "write it elsewhere")
        raise DiskError(
            f"standard output: {error.strerror}; {remedy} and run the same command again"
        ) from error
