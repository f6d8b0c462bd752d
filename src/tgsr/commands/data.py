"""compose, build, look, pack, export."""

from __future__ import annotations

import argparse
import shlex
import sys
from itertools import chain
from pathlib import Path
from typing import get_args

from tgsr.commands import shared
from tgsr.disk.jsonl import Row
from tgsr.errors import Bad, BuildError, NothingDone, OptionError


def add_compose(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    about = "sentences with words, times and a speaker (tgsr transcribe); several files become one set"
    flag("sentences", type=Path, nargs="+", metavar="SENTENCES.jsonl", help=about)
    flag("--n", type=int, required=True, help="clips")
    flag("--seed", type=int, default=0, help="the same seed gives the same bytes")
    flag("--split", default="train", help="whose sentences: train, test, or what their publisher says")
    about = 'voices for testing, a line "corpus speaker" or "speaker" each; all others are for training'
    flag("--held-out", type=Path, metavar="FILE", help=about)
    about = "length of a clip"
    flag("--seconds", type=float, nargs=2, default=(4.0, 28.0), metavar=("LEAST", "MOST"), help=about)
    flag("--two-speakers", type=float, default=0.5, help="share of the clips in which two take turns")
    shared.add_audio(flag)
    flag("--out", type=Path, required=True, help="a folder: clips.jsonl, audio/, card.md")
    shared.add_shards(command)
    example = (
        "tgsr compose libri/clips.jsonl so762/clips.jsonl --n 1000 --held-out heldout.txt --out composed"
    )
    shared.finish(command, compose, example, holds_out=True, keeps=shared.DONE_CLIPS)


def compose(args: argparse.Namespace) -> None:
    shared.require_there(*args.sentences, args.held_out, args.audio)
    shared.require_writable("--out", args.out, folder=True)
    least, most = args.seconds
    if args.n < 1 or args.seed < 0 or not 0 <= args.two_speakers <= 1 or not 1 <= least <= most <= 600:
        raise OptionError(
            "--n must be 1 or more, --seed 0 or more, --two-speakers in [0, 1], --seconds 1 <= LEAST <= MOST <= 600"
        )
    from tgsr.data import compose as composing
    from tgsr.data.corpora.which import clips_of
    from tgsr.data.shards import Step, run

    out = args.out.resolve()
    if out / "clips.jsonl" in (path.resolve() for path in args.sentences):
        problem = "its clips.jsonl is read, and would be written over"
        raise OptionError(f"--out {args.out}: {problem}; choose another")
    held_out = composing.read_held_out(args.held_out) if args.held_out else None
    clips = chain.from_iterable(clips_of(path, "clips", out, audio=args.audio) for path in args.sentences)
    sentences, bad = composing.chosen(clips, out, args.split, held_out)
    settings = composing.Composition(args.seed, least, most, args.two_speakers)
    rows: chain[Row | Bad] = chain(composing.plan(sentences, args.n, settings), bad)
    (out / "audio").mkdir(parents=True, exist_ok=True)
    path = out / "clips.jsonl"
    step = Step(composing.render, composing.Rendering(str(out)))
    counts = run(step, rows, path, root=out, **shared.shards_of(args))
    if not counts.kept:
        raise NothingDone(f"{args.sentences[0]}: nothing could be composed; see {out / 'errors.jsonl'}")
    composing.describe(path, f"tgsr {shlex.join(sys.argv[1:])}")
    n_voices = len({(sentence.source, sentence.voice) for sentence in sentences})
    held = f"; {held_out}" if held_out else ""
    print(
        f"{args.out / 'clips.jsonl'}: {counts.kept} clips of {len(sentences)} sentences of {n_voices} voices{held}"
        f"; {counts.left_out} left out, see errors.jsonl; the card is {args.out / 'card.md'}"
    )


def add_build(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("stage", choices=("sta", "qa"))
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--digits", type=int, metavar="N", help="compose N clips of spoken digits")
    about = "clips with words and times (tgsr transcribe), JSONL; several become one set"
    source.add_argument("--clips", type=Path, nargs="+", help=about)
    splits = ("train", "heldout-recordings", "heldout-speaker")
    flag("--split", choices=splits, default="train", help="whose recordings (with --digits)")
    flag("--first", type=int, default=0, help="the first clip's seed (with --digits)")
    flag("--phrases", type=int, default=8, help="phrases a clip (stage sta)")
    about = "share of the phrases that are surely not said in their clip (stage sta): others', and one word changed"
    flag("--absent", type=float, default=0.0, metavar="SHARE", help=about)
    flag("--seed", type=int, default=0, help="seed of the questions")
    flag("--out", type=Path, required=True, help="a new folder")
    flag = command.add_argument_group("with --clips").add_argument
    shared.add_audio(flag)
    flag("--least-confidence", type=float, default=0.5, help="of each word of a phrase (stage sta)")
    flag("--max-words", type=int, default=12, help="of a phrase (stage sta)")
    flag("--n-choices", type=int, default=4, help="of a question, at most (stage qa)")
    flag("--without", nargs="*", default=[], metavar="TASK", help="tasks that are not asked (stage qa)")
    flag("--llm", help=f"an LLM that writes questions too (stage qa): {shared.LLM}")
    flag("--open", type=int, default=4, help="questions that it writes about a clip, at most")
    about = "an LLM without audio; what it answers right whatever the choices' order is left out (stage qa)"
    flag("--text-model", help=about)
    by = ("publisher", "speaker", "clip")
    flag("--split-by", choices=by, default="publisher", help="who decides what is for testing")
    flag("--test-share", type=float, default=0.05, help="of the speakers, or clips, with --split-by")
    shared.add_shards(command)
    example = "tgsr build sta --digits 500 --split train --out data/sta"
    shared.finish(command, build, example, holds_out=True, keeps=shared.DONE_CLIPS)


def build(args: argparse.Namespace) -> None:
    shared.require_there(*args.clips or (), args.audio)
    shared.require_writable("--out", args.out, folder=True)
    if not 0 <= args.least_confidence <= 1 or not 0 <= args.test_share <= 1:
        raise OptionError("--least-confidence and --test-share: must be in [0, 1]")
    if not 0 <= args.absent < 1 or (args.absent and args.stage != "sta"):
        raise OptionError(f"--absent {args.absent:g}: must be in [0, 1), and is for `tgsr build sta`")
    if args.phrases < 1 or args.max_words < 2 or args.n_choices < 2:
        raise OptionError("--phrases must be 1 or more, --max-words and --n-choices 2 or more")
    from tgsr.data.questions.build import ask_about, compose_clips, require_new, with_absent, write_questions

    require_new(args.out, args.clips or ())
    if args.clips:
        _build_from_clips(args)
        return
    clips = compose_clips(args.digits, args.split, args.first, args.out)
    questions = ask_about(clips, args.stage, args.phrases, args.seed, args.without)
    questions = with_absent(clips, questions, args.absent, args.seed)
    path = write_questions(clips, questions, args.out)
    print(f"{path}: {len(questions)} questions about {len(clips)} clips")


def _build_from_clips(args: argparse.Namespace) -> None:
    from tgsr.data.corpora.which import clips_of
    from tgsr.data.questions import build as making
    from tgsr.data.questions.by_rule import Choices
    from tgsr.data.questions.phrases import Phrases
    from tgsr.data.shards import Step, run
    from tgsr.data.splits import Split
    from tgsr.llm.by_name import require_llm
    from tgsr.models.packaged_weights import cache_folder

    split, shards = Split(args.split_by, args.test_share, args.seed), shared.shards_of(args)
    if args.stage == "sta":
        wanted = Phrases(args.phrases, 2, args.max_words, args.least_confidence, seed=args.seed)
        step = Step(making.phrases_of, making.Stage1(wanted, split), "tgsr.build.phrases_of", version=3)
    else:
        choices = Choices(args.n_choices, tuple(args.without), args.seed)
        step = Step(making.choices_of, making.Stage2(choices, split), "tgsr.build.choices_of", version=5)
    for llm in (args.llm, args.text_model) if args.stage == "qa" else ():
        if llm:  # now, so that one that cannot be had leaves no folder behind
            require_llm(llm, cache_folder())
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    path = out / "questions.jsonl"
    # The last file of this build; what is there is that of one whose questions were deleted.
    (out / "card.md").unlink(missing_ok=True)
    clips = chain.from_iterable(clips_of(path, "clips", out, audio=args.audio) for path in args.clips)
    counts = run(step, making.rows_of(clips), path, root=out, **shards)
    if args.stage == "qa" and args.llm:
        how = {"split": split, "cache": cache_folder(), **shards}
        making.add_open_questions(args.clips, out, args.llm, args.open, args.seed, **how)
    if args.stage == "qa" and args.text_model:
        making.leave_out_answerable(out, args.text_model, cache_folder(), **shards)
    if args.absent:
        making.add_absent(args.clips, out, args.absent, args.seed, args.audio)
    n_kept = sum(1 for _ in path.open())
    if not n_kept:
        path.unlink()
        problem = f"no question could be made of {counts.given} clips"
        raise BuildError(f"{args.clips[0]}: {problem}; see {out / 'errors.jsonl'}")
    making.keep_clips(args.clips, out, args.audio)
    making.describe(args.clips, out, split, f"tgsr {shlex.join(sys.argv[1:])}")
    left_out = f"; {counts.left_out} clips left out, see errors.jsonl" if counts.left_out else ""
    print(
        f"{args.out / 'questions.jsonl'}: {n_kept} questions about {counts.given - counts.left_out} clips{left_out}; "
        f"the card is {args.out / 'card.md'}"
    )


def add_look(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("file", type=Path, help="questions.jsonl or clips.jsonl")
    flag("--n", type=int, default=60, help="items shown")
    flag("--first", type=int, default=0, help="the first item, from 0 on")
    flag("--seed", type=int, help="a random sample instead of the first ones")
    shared.add_audio(flag)
    flag("--out", type=Path, required=True, help="folder of pages; index.html is the first")
    shared.finish(command, look, "tgsr look data/sta/questions.jsonl --out look --seed 0")


def look(args: argparse.Namespace) -> None:
    shared.require_there(args.file, args.audio)
    shared.require_writable("--out", args.out, folder=True)
    from tgsr.report.look import look

    pages = look(args.file, args.out, first=args.first, n=args.n, seed=args.seed, audio=args.audio)
    print(f"{pages[0]}: {len(pages)} pages")


def add_pack(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("file", type=Path, help="clips.jsonl or questions.jsonl")
    flag("--to", required=True, choices=("webdataset", "parquet"), help="parquet needs pyarrow")
    flag("--samples-per-shard", type=int, default=1000, help="clips in a file")
    shared.add_audio(flag)
    flag("--out", type=Path, required=True, help="folder of shards")
    example = "tgsr pack data/clips.jsonl --to webdataset --out shards"
    shared.finish(command, pack, example, holds_out=True, keeps="the shards that are done")


def pack(args: argparse.Namespace) -> None:
    shared.require_there(args.file, args.audio)
    shared.require_writable("--out", args.out, folder=True)
    from tgsr.data.pack import pack

    packed = pack(**shared.arguments_of(args, pack, path=args.file))
    errors = args.out / "errors.jsonl"
    left_out = f"; {packed.left_out} rows left out, see {errors}" if packed.left_out else ""
    print(f"{args.out}: {packed.samples} samples of {packed.rows} rows in {packed.shards} shards{left_out}")
    if not packed.samples:
        raise NothingDone(f"{args.file}: nothing was packed{left_out}")


def add_export(command: argparse.ArgumentParser) -> None:
    from tgsr.data.other_trainers import Family, Target

    flag = command.add_argument
    flag("questions", type=Path, help="questions.jsonl; with --back that trainer's file")
    flag("--to", required=True, choices=get_args(Target), help="the trainer")
    flag("--family", choices=get_args(Family), default="qwen_omni", help="whose words prompts have")
    flag("--kind", choices=("phrase", "choice"), help="where the file has both: stage 1's or stage 2's")
    about = "with the words' times, which some rewards need; clips.jsonl beside the questions if not given"
    flag("--clips", type=Path, help=about)
    shared.add_audio(flag)
    flag("--back", action="store_true", help="the other way: from that trainer's file to questions")
    flag("--out", type=Path, required=True, help=".jsonl; .parquet for verl")
    more = "The rewards of tgsr train grpo come as a plug-in for each trainer: docs/rewards.md, recipes/."
    shared.finish(command, export, "tgsr export data/qa/questions.jsonl --to trl --out qa-trl.jsonl", more)


def export(args: argparse.Namespace) -> None:
    shared.require_there(args.questions, args.clips, args.audio)
    shared.require_writable("--out", args.out)
    from tgsr.data import plugins
    from tgsr.data.other_trainers import export, import_back, known_words
    from tgsr.records import is_held_out, moved, read_clips, read_questions, resolve_audio, write_jsonl

    if args.back:
        write_jsonl(args.out, import_back(args.questions, args.to))
        print(args.out)
        return
    questions = [q for q in moved(read_questions(args.questions), args.audio) if args.kind in (None, q.kind)]
    exported = [q for q in questions if q.kind == "choice" or q.evidence or q.is_absent]
    choices = [question for question in exported if question.kind == "choice"]
    clips = args.clips or args.questions.with_name("clips.jsonl")
    words = known_words(read_clips(clips)) if choices and (args.clips or clips.exists()) else {}
    path = export(exported, args.questions, args.to, args.out, args.family, words)
    n_left_out = len(questions) - len(exported)
    left_out = f"; {n_left_out} phrases without a span left out" if n_left_out else ""
    if n_held_out := sum(map(is_held_out, exported)):
        left_out += f"; {n_held_out} are for testing, by their split: keep them out of training"
    sounds = {resolve_audio(question, args.questions) for question in exported}
    if n_gone := sum(not sound.exists() for sound in sounds):
        gone = f"of {len(sounds)} sound files {n_gone} are not there"
        left_out += f"; {gone}: --audio FOLDER says where they lie now"
    print(f"{path}: {len(exported)} questions{left_out}")
    if choices:
        n_mute = sum(question.clip_id not in words for question in choices)
        why = f"; {n_mute} are without their clip's words, for the paper's reward only" if n_mute else ""
        print(f"rewards: {Path(plugins.__file__).with_name(plugins.FILES[args.to])}{why}")
    if not exported:
        raise NothingDone(f"{args.questions}: no question was written{left_out}")
