"""ask, outline, predict."""

from __future__ import annotations

import argparse
import json
import os
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tgsr.commands import shared
from tgsr.errors import DiskError, NothingDone, OptionError, RecordError
from tgsr.llm.decoding import Decoding
from tgsr.models.placement import Placement

if TYPE_CHECKING:
    from tgsr.answering.conversation import Answer, Conversation
    from tgsr.answering.outline import OutlineLine

MODEL = (
    "mini, mini:sta, mini:paper, mini:tgsr (spoken digits); mini-en, mini-en:sta, mini-en:tokens, mini-en:paper, "
    "mini-en:tgsr (English); mini-lm; a folder or hub id; cascade or cascade:LLM (Whisper, then a text LLM: a folder, "
    "hub id or http://HOST:PORT/v1#MODEL), cascade+MODEL (MODEL says the seconds of phrases that the cascade has "
    "found); gemini:MODEL, openai:MODEL, or any OpenAI-compatible server with audio as http://HOST:PORT/v1#MODEL"
)

LOCATOR = "cascade+mini-en:tokens"  # for phrases of an unheard voice: IoU 0.96, where the cascade has 0.87

TAUGHT = (
    "mini-en:tgsr was taught questions with choices about which words follow others, are said first, at all or how "
    "often, the words in quotation marks (eight to ten of ten are right, how often five of ten; mini-en's seconds are "
    "made up); without choices only 'Which two words are said right after \"...\"?' and 'Transcribe the input "
    "speech.'; all else is a guess"
)


def add_ask(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    about = (
        "recordings (any sound or video file), or folders of them, and the question last; without a question a prompt "
        "that keeps models and transcripts, or, where lines are piped in, one question a line. With --phrase the "
        "question is the words to be located"
    )
    flag("words", nargs="+", metavar="RECORDING", help=about)
    flag("--choice", action="append", default=[], help="an answer to choose from; give several")
    flag("--phrase", action="store_true", help="locate the words (stage 1's prompt)")
    flag("--json", action="store_true", help="one JSON object a question, and nothing else, on stdout")
    flag("--model", help=f"{MODEL}. If not given: cascade, with --phrase {LOCATOR}. {TAUGHT}")
    about = f"writes the answer over the transcript, instead of quoting it: {shared.LLM}; short for --model cascade:LLM"
    flag("--llm", metavar="LLM", help=about)
    about = (
        "a code or name (fr, French): what is spoken, heard by Whisper base; auto, if not given, has it detected. The "
        "cascade's, as the two that follow"
    )
    flag("--language", default="auto", help=about)
    about = (
        "separate: each channel is heard by itself and is a speaker, CH1 (left) the first; a question that names a "
        "speaker (speaker B, left channel, a name in FILE.rttm) is answered from that speaker's lines alone"
    )
    flag("--channels", choices=("mixed", "separate"), default="mixed", help=about)
    flag("--speakers", type=Path, metavar="FILE.rttm", help="turns from elsewhere, whose speakers words get")
    flag("--start", type=float, default=0.0, help="hear from this second on")
    flag("--end", type=float, help="hear up to this second")
    about = "where to write the wav; evidence.wav if not given, and none for questions from a pipe"
    flag("--evidence", type=Path, help=about)
    shared.add_system(command)
    shared.add_config(command, Placement)
    shared.add_limits(command)
    shared.add_long_audio(command, windows=True)
    example = 'tgsr ask recording.wav "When did she clean the house?"; tgsr ask talk.mp4 "caught in a trap" --phrase'
    shared.finish(command, ask, example)


def model_named(model: str | None, llm: str | None, phrase: bool = False) -> str:
    """The name of the model that answers. OptionError for an LLM beside another model, and for one in a single file."""
    if llm is None:
        return model or (LOCATOR if phrase else "cascade")
    if model not in (None, "cascade"):
        problem = "an LLM reads a cascade's transcript; give one of the two"
        raise OptionError(f"--llm {llm} --model {model}: {problem}")
    if llm.lower().endswith(".gguf"):
        raise OptionError(
            f"--llm {llm}: serve it, as by `llama-server -m {llm} --port 8080`, and give http://localhost:8080/v1#NAME"
        )
    return f"cascade:{llm}"


def ask(args: argparse.Namespace) -> None:
    name = model_named(args.model, args.llm, args.phrase)
    language = shared.language_code(args.language)
    if args.speakers and args.channels == "separate":
        raise OptionError("--speakers and --channels separate: both say who speaks; give one of them")
    shared.require_there(args.speakers)
    recordings, question = asked_of(args.words)
    if args.evidence and args.evidence.exists():
        raise OptionError(f"--evidence {args.evidence}: exists; choose another")
    shared.require_writable("--evidence", args.evidence)
    from tgsr import audio

    if question is None and sys.stdin.isatty() and args.json:
        raise OptionError("--json: give a question, or pipe questions in, one a line")
    if len(recordings) > 1 and (args.start or args.end is not None):
        raise OptionError(f"--start, --end: are of one recording, not of {len(recordings)}")
    if len(recordings) == 1:
        audio.duration(recordings[0])  # one that cannot be read is said before a model is loaded
    from tgsr.answering.cascade import Cascade, Hearing
    from tgsr.answering.conversation import Conversation, require_question

    choices = tuple(args.choice)
    if question is not None:
        require_question(question, choices)
    model = shared.open_model(args, name)
    hearing = Hearing(None if language == "auto" else language, args.channels == "separate", args.speakers)
    if isinstance(model, Cascade):
        model.hearing = hearing
    elif hearing != Hearing():
        flags = "--language, --channels, --speakers"
        raise OptionError(f"{flags}: are the cascade's; {name} hears the sound itself")
    conversation = Conversation(model, recordings, args.start, args.end, args.long_audio)
    if len(recordings) > 1:
        for error in conversation.hear():
            print(f"tgsr: {error}; left out", file=sys.stderr)
        if not recordings:
            raise NothingDone("none of the recordings can be heard")
    if question is not None:
        for answer in conversation.ask(question, choices, phrase=args.phrase):
            wav = _save_evidence(answer, args.evidence)
            print(*_lines(args, conversation, answer, wav), sep="\n", flush=True)
        return
    if sys.stdin.isatty():
        _prompt(args, conversation, choices)
        return
    _pipe(args, conversation, choices)


def _pipe(args: argparse.Namespace, conversation: Conversation, choices: tuple[str, ...]) -> None:
    """Answers each line of standard input, and obeys the prompt's commands; what these say goes to standard error."""
    from tgsr.answering.conversation import Prompt, player_here, questions_in
    from tgsr.errors import AudioError, ModelError

    n_asked = n_failed = 0

    def shown(answer: Answer) -> str:
        wav = _save_evidence(answer, args.evidence) if args.evidence else None
        lines = [] if args.json else [f"> {answer.question}"]
        return "\n".join((*lines, *_lines(args, conversation, answer, wav, limits=n_asked == 1)))

    say, tell = partial(print, flush=True), partial(print, file=sys.stderr, flush=True)
    prompt = Prompt(conversation, choices, args.phrase, shown, say, tell, player_here())
    for line in _utf8(questions_in(sys.stdin)):
        question, phrase = prompt.asked(line)
        if question is None:
            if not prompt.take(line):
                break
            continue
        n_asked += 1
        try:
            prompt.answer(question, phrase)
        except (AudioError, ModelError) as error:
            n_failed += 1
            row = {"question": question, "error": str(error), "model": conversation.model.name}
            say(json.dumps(row, ensure_ascii=False) if args.json else f"> {question}\ntgsr: {error}")
    if n_asked == n_failed:
        what = "none was answered" if n_asked else "no question came: give one, or pipe them in, one a line"
        raise NothingDone(f"{n_asked} questions from the pipe: {what}")


def _utf8(questions: Iterator[str]) -> Iterator[str]:
    try:
        yield from questions
    except UnicodeDecodeError as error:
        raise OptionError(
            f"questions from the pipe: not UTF-8 (byte {error.object[error.start]:#x}, {error.reason}); convert them, "
            "as by iconv -f UTF-16 -t UTF-8"
        ) from error


def asked_of(words: Sequence[str]) -> tuple[list[Path], str | None]:
    """The recordings, those of folders each by itself, and the question: the last of the words, unless that is the
    only one or is there as a file or folder.

    Raises OptionError for a URL and a folder without sound, FileNotFoundError for a recording that is not there.
    """
    from tgsr.disk.sound_folder import FORMATS

    *given, last = words
    is_file = os.path.exists(last) or (" " not in last and Path(last).suffix.lower() in FORMATS)
    names, question = (words, None) if not given or is_file else (given, last)
    recordings: dict[Path, None] = {}
    for name in names:
        if name.startswith(("http://", "https://")):
            raise OptionError(f"{name}: is an address; download it first, then ask about the file")
        path = Path(name)
        shared.require_there(path)
        found = [path]
        if path.is_dir():
            from tgsr.data.corpora.folders import walk

            found = list(walk(path, FORMATS))
        if not found:
            raise OptionError(f"{path}: holds no sound file; known are {', '.join(sorted(FORMATS))}")
        recordings |= dict.fromkeys(found)
    return list(recordings), question


def _save_evidence(answer: Answer, given: Path | None) -> Path | None:
    """Where the sound of the answer's evidence was written; None where it has none.

    Where no path was `given` it is a file in the folder that one is in, which need not take any: that is said.
    """
    from tgsr import audio
    from tgsr.answering.conversation import free_name

    if not len(answer.cited.evidence):
        return None
    path = free_name(given or Path("evidence.wav"))
    try:
        audio.save_wav(path, answer.cited.evidence)
    except DiskError as error:
        if given is not None:
            raise
        print(f"tgsr: {error}; or --evidence FILE.wav writes it elsewhere", file=sys.stderr)
        return None
    return path


def _lines(
    args: argparse.Namespace,
    conversation: Conversation,
    answer: Answer,
    wav: Path | None,
    limits: bool = True,
) -> list[str]:
    """What is printed of an answer."""
    if args.json:
        return [json.dumps(answer.as_row(conversation.model.name, wav), ensure_ascii=False)]
    lines = [_told(conversation, answer, limits=limits)]
    if wav is not None:
        from tgsr import audio

        lines.append(f"{wav}: {len(answer.cited.evidence) / audio.SAMPLE_RATE:.2f} s to listen to")
    return lines


def _told(conversation: Conversation, answer: Answer, *, limits: bool) -> str:
    """The answer as people read it: the response, what is to be known about it, and the seconds that it cites."""
    from tgsr import audio
    from tgsr.answering.citing import SAME
    from tgsr.llm.decoding import Cut
    from tgsr.models.lalm import Lalm
    from tgsr.timeline import Span

    model, start, cited = conversation.model, conversation.start, answer.cited
    lines = [f"{answer.recording}:"] if len(conversation.recordings) > 1 else []
    lines.append(cited.text)
    lines += [f"note: {note}" for note in answer.notes]
    if isinstance(cited.text, Cut):
        lines.append("the response was cut off at its limit and may lack its answer")
    if start:
        lines.append(f"times are the recording's; the model heard it from {start:g} s on")
    if cited.window:
        heard = f"{cited.window.start:.2f} - {cited.window.end:.2f} s of {start + answer.duration:.2f} s"
        lines.append(
            f"the recording is longer than {model.name} hears; this is about {heard}, the best of its windows"
        )
    samples = conversation.samples(answer.recording)
    spans = [span for span in cited.spans[:1] if span.start - start < len(samples) / audio.SAMPLE_RATE]
    if answer.located and isinstance(model, Lalm) and spans:
        from tgsr.answering.in_windows import likeness, written_down

        heard_at = Span(max(0.0, spans[0].start - start), spans[0].end - start)
        (words,) = written_down(model, samples, [heard_at])
        other = "" if likeness(answer.question, words) >= SAME else ": not the words that were asked for"
        lines.append(f'asked what is said around there, the model writes "{words}"{other}')
    if cited.unmoved:
        lines.append(f"left as written, lengths or counted from {start:g} s on: {', '.join(cited.unmoved)}")
    if limits and (what := getattr(model, "limits", "")):
        lines.append(f"limits: {what}")
    lines += [f"evidence: {span.start:.2f} - {span.end:.2f} s" for span in cited.spans]
    if cited.n_invalid:
        lines.append(f"{cited.n_invalid} cited interval(s) end before they start: left out")
    if not len(cited.evidence):
        lines.append("no evidence: the response cites no valid span inside the recording")
    return "\n".join(lines)


def _prompt(args: argparse.Namespace, conversation: Conversation, choices: tuple[str, ...]) -> None:
    """Asks at the terminal until Ctrl-D; Ctrl-C leaves a line, or an answer that takes too long."""
    from tgsr.answering.conversation import HELP, Prompt, player_here
    from tgsr.models.packaged_weights import cache_folder

    n = len(conversation.recordings)
    print(f"{conversation.recordings[0] if n == 1 else f'{n} recordings'}, {conversation.model.name}\n{HELP}")
    if limits := getattr(conversation.model, "limits", ""):
        print(f"limits: {limits}")
    told = partial(_told, conversation, limits=False)
    prompt = Prompt(conversation, choices, args.phrase, told, print, print, player_here())
    with _history(cache_folder() / "ask_history"):
        while True:
            try:
                if not prompt.take(input("? ")):
                    return
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print("\n(Ctrl-D or :quit ends)")


@contextmanager
def _history(path: Path) -> Iterator[None]:
    """Arrow keys and the questions of earlier times, where this Python has readline; kept for the user alone."""
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    if path.is_file():
        readline.read_history_file(path)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
        readline.write_history_file(path)


def add_outline(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("recording", type=Path, metavar="RECORDING", help="any sound or video file")
    flag("--lines", type=int, metavar="N", help="at most; if not given about one a minute, and 60")
    flag("--json", action="store_true", help="one JSON object, and nothing else, on stdout")
    about = f"writes each line in its own words, which are held against the transcript: {shared.LLM}; else quotations"
    flag("--llm", metavar="LLM", help=about)
    shared.add_system(command)
    shared.add_config(command, Placement)
    shared.add_limits(command)
    more = (
        "In a terminal the times are links that play; into a file they are written as Markdown. "
        "`tgsr view RECORDING` shows the same beside the transcript."
    )
    shared.finish(command, outline, "tgsr outline lecture.mp3 --lines 12 > lecture.md", more)


def outline(args: argparse.Namespace) -> None:
    shared.require_there(args.recording)
    if args.lines is not None and args.lines < 1:
        raise OptionError(f"--lines {args.lines}: must be 1 or more")
    from tgsr import audio
    from tgsr.answering.outline import notes_of
    from tgsr.answering.outline import outline as outline_of

    audio.duration(args.recording)  # one that cannot be read is said before a model is loaded
    model = shared.open_model(args, model_named(None, args.llm))
    spoken = model.spoken_in(args.recording)
    lines, notes = outline_of(model, spoken, args.lines), notes_of(spoken)
    address = args.recording.resolve().as_uri()
    if args.json:
        rows = [line.as_row() | {"link": playing(address, line)} for line in lines]
        seconds = round(spoken.transcript.duration, 2)
        row = {"recording": str(args.recording), "seconds": seconds, "model": model.name, "notes": notes}
        print(json.dumps(row | {"lines": rows}, ensure_ascii=False))
        return
    print(f"{args.recording}: {clock(spoken.transcript.duration)}, {model.name}")
    for note in notes:
        print(f"({note})")
    longest = len(clock(spoken.transcript.duration))
    for line in lines:
        print(outlined(line, playing(address, line), longest, sys.stdout.isatty()))


def outlined(line: OutlineLine, link: str, longest: int, is_terminal: bool) -> str:
    """One line as people read it: its clock, which is a link, its seconds, and what is said.

    A terminal's link is OSC 8, which those without it leave out; elsewhere it is Markdown's.
    """
    at = clock(line.span.start)
    shown = f"\x1b]8;;{link}\x1b\\{at}\x1b]8;;\x1b\\" if is_terminal else f"- [{at}]({link})"
    blanks = " " * (longest - len(at)) if is_terminal else ""
    text = line.text if line.is_own else f'"{line.text}"'
    seconds = f"{line.span.start:.2f} - {line.span.end:.2f} s"
    mark = f" (not supported by the transcript: {line.problem})" if line.problem and line.is_own else ""
    return f"{blanks}{shown}  {seconds}  {text}{mark or (line.problem and f' ({line.problem})')}"


def playing(address: str, line: OutlineLine) -> str:
    """The address with the line's stretch as a media fragment: a browser plays that, and no more."""
    return f"{address}#t={line.span.start:.2f},{line.span.end:.2f}"


def clock(seconds: float) -> str:
    """ "4:52", or "1:04:52": whole seconds, rounded down."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def add_predict(command: argparse.ArgumentParser) -> None:
    from tgsr.prompts import Prompt

    flag = command.add_argument
    shared.add_questions(command)
    about = (
        "how choices are asked: reasoning (the paper's B.1.3) unless the questions say otherwise, plain (the "
        "letter alone), cot (step by step, no timestamps), airbench (its owner's words, letters A to D)"
    )
    flag("--prompt", choices=typing.get_args(Prompt), help=about)
    flag("--name", help="the model's name in OUT; runs of one model lie side by side under several names")
    flag("--model", required=True, help=MODEL)
    flag("--out", type=Path, required=True, help="JSONL file; appended to")
    about = "also write the answers as the benchmark's own scorer reads them"
    flag("--official", type=Path, help=about)
    about = "record bad rows of questions.jsonl in OUT.errors.jsonl and go on; a benchmark's always are"
    flag("--skip-bad", action="store_true", help=about)
    shared.add_config(command, Decoding)
    shared.add_system(command)
    shared.add_config(command, Placement)
    shared.add_limits(command)
    shared.add_cache(command)
    example = "tgsr predict --questions mmau-test-mini.json --only speech --model mini:tgsr --out mmau.jsonl"
    shared.finish(command, predict, example, keeps="the responses that are there")


def predict(args: argparse.Namespace) -> None:
    shared.require_there(args.questions)
    shared.require_writable("--out", args.out)
    shared.require_writable("--official", args.official)
    decoding = shared.config_of(args, Decoding)
    from tgsr.answering.predict import predict_to_file
    from tgsr.evaluation.owners.files import require_scorer, write_official
    from tgsr.models.lalm import Lalm
    from tgsr.prompts import asked_with
    from tgsr.records import read_responses

    if args.official:
        require_scorer(args.questions)
    try:
        questions = shared.questions_of(args, args.skip_bad)
    except RecordError as error:
        if error.line is None or args.skip_bad:
            raise
        remedy = f"{error.remedy}, or pass --skip-bad"
        raise RecordError(error.field, error.problem, error.file, error.line, remedy) from error
    if args.prompt:
        questions = asked_with(questions, args.prompt)
    model = shared.open_model(args, args.model)
    n_done, n_left = predict_to_file(
        model, questions, args.questions, args.out, shared.cache_of(args), decoding, name=args.name
    )
    ids, name = {question.id for question in questions}, args.name or model.name
    responses = read_responses(args.out) if args.out.exists() else []
    mine = [r for r in responses if r.model == name and r.question.id in ids]
    left = f", {n_left} left without (see its errors file)" if n_left else ""
    print(f"{args.out}: {n_done} responses{left}")
    if n_cut := sum(response.truncated for response in mine):
        print(f"{n_cut} of {len(mine)} were cut off at --max-new-tokens and may lack their answer")
    if not isinstance(model, Lalm) and (spent := model.spent()):
        print(spent)
    if n_left and n_left == len(questions):
        problem = f"no response to any of {n_left} questions"
        raise NothingDone(f"{args.out}: {problem}; see {args.out}.errors.jsonl")
    if args.official:
        written = write_official(args.questions, args.official, mine)
        unclear = f", {written.n_without_choice} without a clear choice" if written.n_without_choice else ""
        print(f"{args.official}: {written.n} of {len(ids)} rows{unclear}")
