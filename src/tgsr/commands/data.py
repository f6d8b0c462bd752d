"""transcribe, build, look, pack, export."""

from __future__ import annotations

import argparse
import shlex
import sys
from itertools import chain
from pathlib import Path
from typing import Any

from tgsr.commands.shared import _add_shards, _command, _shards_of


def _add_transcribe(commands: Any) -> None:
    from tgsr.data.corpora.which import CORPORA

    about = (
        "Words with times for a corpus: a folder as its publisher ships it, a folder of audio, or a manifest."
    )
    example = "tgsr transcribe LibriSpeech/ --out data/libri/clips.jsonl --workers 2"
    command = _command(commands, "transcribe", _transcribe, about, example)
    command.add_argument(
        "source", type=Path, help="a corpus' folder, a folder of audio, clips.jsonl, or .parquet"
    )
    command.add_argument("--corpus", choices=("auto", *CORPORA), default="auto", help="what it is")
    command.add_argument(
        "--alignments", type=Path, help="existing word times: TextGrid, CTM, SRT, VTT, WhisperX, ..."
    )
    how = command.add_argument_group("who hears")
    backends = ("faster-whisper", "transformers", "whisper-timestamped")
    how.add_argument("--backend", choices=backends, default="faster-whisper", help="who writes words down")
    how.add_argument("--model", help="in the back end's own format; the packaged Whisper base if not given")
    how.add_argument(
        "--align", default="pocketsphinx", help="forced alignment: pocketsphinx, ctc:MODEL, or none"
    )
    how.add_argument("--language", default="auto", help="auto detects it; en takes English for granted")
    how.add_argument("--max-seconds", type=float, default=3600.0, help="longer clips are flagged, not heard")
    how.add_argument("--device", default="cpu", help="of the back end transformers")
    how.add_argument(
        "--timestamped-python", default=sys.executable, help="of whisper-timestamped's environment"
    )
    _add_shards(command)
    command.add_argument("--out", type=Path, required=True, help="clips.jsonl; errors.jsonl lies beside it")


def _transcribe(args: argparse.Namespace) -> None:
    from tgsr.data.corpora.which import clips_of, corpus_of, with_alignments
    from tgsr.data.shards import Step, run
    from tgsr.data.transcribe.clips import Transcription, transcribe_rows
    from tgsr.errors import Bad
    from tgsr.records import as_row

    out = args.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    corpus = corpus_of(args.source) if args.corpus == "auto" else args.corpus
    language = None if args.language == "auto" else args.language
    clips = clips_of(args.source, corpus, out.parent, language=language)
    if args.alignments:
        clips = with_alignments(clips, args.alignments)
    settings = Transcription(
        str(out.parent),
        args.backend,
        args.model,
        args.align,
        args.language,
        args.max_seconds,
        args.device,
        1 if args.workers > 1 else 0,
        args.timestamped_python,
    )
    rows = (clip if isinstance(clip, Bad) else as_row(clip) for clip in clips)
    counts = run(Step(transcribe_rows, settings), rows, out, root=out.parent, **_shards_of(args))
    print(
        f"{args.out}: {counts.kept} clips of {counts.given} ({corpus}), {counts.flagged} with flags", end=""
    )
    print(f"; {counts.left_out} left out, see {out.parent / 'errors.jsonl'}" if counts.left_out else "")


def _add_build(commands: Any) -> None:
    about = "Make questions: sta (phrases to be located) or qa (choices that need the audio)."
    example = "tgsr build sta --digits 500 --split train --out data/sta"
    command = _command(commands, "build", _build, about, example)
    command.add_argument("stage", choices=("sta", "qa"))
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--digits", type=int, metavar="N", help="compose N clips of spoken digits")
    about_clips = "clips with words and times (tgsr transcribe), JSONL; several become one set"
    source.add_argument("--clips", type=Path, nargs="+", help=about_clips)
    splits = ("train", "heldout-recordings", "heldout-speaker")
    command.add_argument("--split", choices=splits, default="train", help="whose recordings (with --digits)")
    command.add_argument("--first", type=int, default=0, help="the first clip's seed (with --digits)")
    command.add_argument("--phrases", type=int, default=8, help="phrases a clip (stage sta)")
    command.add_argument("--seed", type=int, default=0, help="seed of the questions")
    clips = command.add_argument_group("with --clips")
    clips.add_argument(
        "--least-confidence", type=float, default=0.5, help="of each word of a phrase (stage sta)"
    )
    clips.add_argument("--max-words", type=int, default=12, help="of a phrase (stage sta)")
    clips.add_argument("--n-choices", type=int, default=4, help="of a question, at most (stage qa)")
    clips.add_argument(
        "--without", nargs="*", default=[], metavar="TASK", help="tasks that are not asked (stage qa)"
    )
    about_llm = "an LLM that writes questions too (stage qa): a folder, hub id, or http://HOST:PORT/v1#MODEL"
    clips.add_argument("--llm", help=about_llm)
    clips.add_argument("--open", type=int, default=4, help="questions that it writes about a clip, at most")
    about_filter = (
        "an LLM without audio; what it answers right whatever the choices' order is left out (stage qa)"
    )
    clips.add_argument("--text-model", help=about_filter)
    by = ("publisher", "speaker", "clip")
    clips.add_argument("--split-by", choices=by, default="publisher", help="who decides what is for testing")
    clips.add_argument(
        "--test-share", type=float, default=0.05, help="of the speakers, or clips, with --split-by"
    )
    _add_shards(command)
    command.add_argument("--out", type=Path, required=True, help="a new folder")


def _build(args: argparse.Namespace) -> None:
    from tgsr.data.questions.build import ask_about, compose_clips, require_new, write_questions

    require_new(args.out)
    if args.clips:
        _build_from_clips(args)
        return
    clips = compose_clips(args.digits, args.split, args.first, args.out)
    questions = ask_about(clips, args.stage, args.phrases, args.seed)
    path = write_questions(clips, questions, args.out)
    print(f"{path}: {len(questions)} questions about {len(clips)} clips")


def _build_from_clips(args: argparse.Namespace) -> None:
    from tgsr.data.corpora.which import clips_of
    from tgsr.data.questions.build import Stage1, Stage2, choices_of, describe, phrases_of, rows_of
    from tgsr.data.questions.by_rule import Choices
    from tgsr.data.questions.phrases import Phrases
    from tgsr.data.questions.written import add_open_questions, leave_out_answerable
    from tgsr.data.shards import Step, run
    from tgsr.data.splits import Split
    from tgsr.errors import BuildError
    from tgsr.models.fetch import cache_folder

    if not 0 <= args.least_confidence <= 1 or not 0 <= args.test_share <= 1:
        raise BuildError("--least-confidence and --test-share: must be in [0, 1]")
    if args.phrases < 1 or args.max_words < 2 or args.n_choices < 2:
        raise BuildError("--phrases must be 1 or more, --max-words and --n-choices 2 or more")
    split = Split(args.split_by, args.test_share, args.seed)
    if args.stage == "sta":
        wanted = Phrases(args.phrases, 2, args.max_words, args.least_confidence, seed=args.seed)
        step = Step(phrases_of, Stage1(wanted, split))
    else:
        step = Step(choices_of, Stage2(Choices(args.n_choices, tuple(args.without), args.seed), split))
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    made = out / "questions.jsonl"
    clips = chain.from_iterable(clips_of(path, "clips", out) for path in args.clips)
    counts = run(step, rows_of(clips), made, root=out, **_shards_of(args))
    if args.stage == "qa" and args.llm:
        add_open_questions(
            args.clips, out, args.llm, args.open, args.seed, split, cache_folder(), **_shards_of(args)
        )
    if args.stage == "qa" and args.text_model:
        leave_out_answerable(out, args.text_model, cache_folder(), **_shards_of(args))
    n_kept = sum(1 for _ in made.open())
    if not n_kept:
        made.unlink()
        raise BuildError(
            f"{args.clips[0]}: no question could be made of {counts.given} clips; see {out / 'errors.jsonl'}"
        )
    describe(args.clips, out, split, f"tgsr {shlex.join(sys.argv[1:])}")
    print(
        f"{args.out / 'questions.jsonl'}: {n_kept} questions about {counts.given - counts.left_out} clips",
        end="",
    )
    print(f"; {counts.left_out} clips left out, see errors.jsonl; the card is {args.out / 'card.md'}")


def _add_look(commands: Any) -> None:
    about = "Pages to look through questions or clips: waveform, words, spans, and their sound."
    command = _command(
        commands, "look", _look, about, "tgsr look data/sta/questions.jsonl --out look --seed 0"
    )
    command.add_argument("file", type=Path, help="questions.jsonl or clips.jsonl")
    command.add_argument("--n", type=int, default=60, help="items shown")
    command.add_argument("--first", type=int, default=0, help="the first item, from 0 on")
    command.add_argument("--seed", type=int, help="a random sample instead of the first ones")
    command.add_argument("--out", type=Path, required=True, help="folder of pages; index.html is the first")


def _look(args: argparse.Namespace) -> None:
    from tgsr.report.look import look

    pages = look(args.file, args.out, first=args.first, n=args.n, seed=args.seed)
    print(f"{pages[0]}: {len(pages)} pages")


def _add_pack(commands: Any) -> None:
    about = "Clips or questions with their sound as shards that trainers stream: WebDataset tars, or Parquet."
    command = _command(
        commands, "pack", _pack, about, "tgsr pack data/clips.jsonl --to webdataset --out shards"
    )
    command.add_argument("file", type=Path, help="clips.jsonl or questions.jsonl")
    command.add_argument(
        "--to", required=True, choices=("webdataset", "parquet"), help="parquet needs pyarrow"
    )
    command.add_argument("--samples-per-shard", type=int, default=1000, help="clips in a file")
    command.add_argument("--out", type=Path, required=True, help="folder of shards")


def _pack(args: argparse.Namespace) -> None:
    from tgsr.data.pack import pack

    packed = pack(args.file, args.out, args.to, samples_per_shard=args.samples_per_shard)
    print(f"{args.out}: {packed.samples} samples of {packed.rows} rows in {packed.shards} shards", end="")
    print(f"; {packed.left_out} rows left out, see {args.out / 'errors.jsonl'}" if packed.left_out else "")


def _add_export(commands: Any) -> None:
    about = "Questions as another trainer reads them (ms-swift, trl, verl, nemo-rl), or back."
    example = "tgsr export data/qa/questions.jsonl --to trl --out qa-trl.jsonl"
    command = _command(commands, "export", _export, about, example)
    command.add_argument("questions", type=Path, help="questions.jsonl; with --back that trainer's file")
    command.add_argument(
        "--to", required=True, choices=("ms-swift", "trl", "verl", "nemo-rl"), help="the trainer"
    )
    command.add_argument(
        "--family", choices=("qwen_omni", "audio_flamingo3"), default="qwen_omni", help="its words"
    )
    command.add_argument(
        "--kind", choices=("phrase", "choice"), help="where the file has both: stage 1's or stage 2's"
    )
    command.add_argument(
        "--back", action="store_true", help="the other way: from that trainer's file to questions"
    )
    command.add_argument("--out", type=Path, required=True, help=".jsonl; .parquet for verl")


def _export(args: argparse.Namespace) -> None:
    from tgsr.data.other_trainers import export, import_back
    from tgsr.records import read_questions, write_jsonl

    if args.back:
        write_jsonl(args.out, import_back(args.questions, args.to))
        print(args.out)
        return
    questions = [q for q in read_questions(args.questions) if args.kind in (None, q.kind)]
    exported = [q for q in questions if q.kind == "choice" or q.evidence]
    print(export(exported, args.questions, args.to, args.out, args.family), end="")
    left_out = len(questions) - len(exported)
    print(
        f": {len(exported)} questions" + (f"; {left_out} phrases without a span left out" if left_out else "")
    )
