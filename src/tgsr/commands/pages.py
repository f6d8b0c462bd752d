"""report, tables, study, view."""

from __future__ import annotations

import argparse
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from tgsr.commands import shared
from tgsr.errors import OptionError, StudyError, ViewError, install
from tgsr.models.placement import Placement

RUNS = (
    "folders with predictions*.jsonl, metrics.json, behaviour.json, controls.json, attention.json or training logs "
    "anywhere below them, or such files"
)


def add_rows(command: argparse.ArgumentParser) -> None:
    about = "clips.jsonl with the words that are said; those beside the questions' sound if not given"
    command.add_argument("--clips", type=Path, nargs="+", default=[], help=about)
    flag = command.add_argument_group("rows of the tables").add_argument
    about = "a model and what readers know it as, in order; without any, all models under their own names"
    flag("--row", action="append", default=[], metavar="LABEL=MODEL", help=about)
    flag("--sta", action="append", default=[], metavar="MODEL", help="went through stage 1: table 1's tick")
    flag("--published", action="store_true", help="the paper's own numbers too, in groups of their own")


def add_report(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("runs", type=Path, nargs="+", help=RUNS)
    about = "folder (index.html, report.md, tables/), or one page: X.html"
    flag("--out", type=Path, required=True, help=about)
    flag("--items", type=int, default=8, help="how many questions to show")
    shared.add_audio(flag)
    flag("--title", default="Timestamp-grounded speech reasoning", help="the page's")
    flag("--seed", type=int, default=0, help="seed of the items and of the intervals")
    add_rows(command)
    shared.finish(command, report, "tgsr report runs/demo --out runs/demo/report")


def report(args: argparse.Namespace) -> None:
    shared.require_there(*args.runs, *args.clips, args.audio)
    shared.require_writable("--out", args.out, folder=args.out.suffix != ".html")
    from tgsr.report.write import report

    print(report(**shared.arguments_of(args, report, rows=args.row, n_items=args.items)))


def add_tables(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("runs", type=Path, nargs="+", help=RUNS)
    flag("--out", type=Path, required=True, help="folder; tables.md holds all of them")
    flag("--seed", type=int, default=0, help="seed of the bootstrap")
    add_rows(command)
    example = 'tgsr tables runs/ablation --row Vanilla=mini --row "Only STA=mini:sta" --out tables'
    shared.finish(command, tables, example, "They are written as Markdown, CSV and LaTeX.")


def tables(args: argparse.Namespace) -> None:
    shared.require_there(*args.runs, *args.clips)
    shared.require_writable("--out", args.out, folder=True)
    from tgsr.report.write import tables

    paths, text = tables(**shared.arguments_of(args, tables, rows=args.row))
    print(text)
    print(*paths, sep="\n")


def add_study(command: argparse.ArgumentParser) -> None:
    steps = command.add_subparsers(required=True, metavar="STEP")

    def step(name: str, about: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = steps.add_parser(name, help=about, description=about)
        return parser

    make = step("make", "Choose items, cut their sounds, and write a study's folder.")
    flag = make.add_argument
    flag("runs", type=Path, nargs="+", help="prediction files, or folders that hold some")
    flag("--systems", nargs="+", default=[], help="models to compare; all if not given")
    flag("--items", type=int, default=30, help="questions to be rated")
    flag("--per-rater", type=int, default=0, help="questions a rater gets; 0: all")
    flag("--raters-per-trial", type=int, default=3, help="of each item and system")
    flag("--practice", type=int, default=2, help="practice parts, with feedback")
    flag("--checks", type=int, default=2, help="attention checks a rater gets")
    shared.add_audio(flag)
    flag("--title", default="Listening study", help="the page's")
    flag("--seed", type=int, default=0, help="of items, stretches and orders")
    flag("--out", type=Path, required=True, help="a new folder")
    shared.finish(make, study_make, "tgsr study make runs/predictions.jsonl --items 30 --out study")

    serve = step("serve", "Run the study as a web page; ratings go to ratings.sqlite in its folder.")
    flag = serve.add_argument
    flag("study", type=Path, help="the study's folder")
    flag("--host", default="127.0.0.1", help="any other than this one needs the printed token")
    flag("--port", type=int, default=8732, help="of the page")
    flag("--consent", type=Path, help="text file shown to raters instead of the packaged text")
    shared.finish(serve, study_serve, "tgsr study serve study --host 0.0.0.0")

    analyse = step("analyse", "Tables, plots, agreement and ratings.csv from the ratings so far.")
    flag = analyse.add_argument
    flag("study", type=Path, help="the study's folder")
    flag("--out", type=Path, required=True, help="folder")
    flag("--seed", type=int, default=0, help="of the intervals")
    shared.finish(analyse, study_analyse, "tgsr study analyse study --out study/analysis")

    size = step("size", "How many items a study needs.")
    flag = size.add_argument
    flag("--difference", type=float, default=0.5, help="of mean ratings, to be shown")
    flag("--deviation", type=float, default=1.2, help="of one rating's paired difference")
    flag("--raters", type=int, default=3, help="of each item and system")
    flag("--correlation", type=float, default=0.4, help="between raters of one item, 0 to 1")
    flag("--power", type=float, default=0.8, help="of the test, 0 to 1")
    shared.finish(size, study_size, "tgsr study size --difference 0.5 --deviation 1.2")


def study_make(args: argparse.Namespace) -> None:
    shared.require_there(*args.runs, args.audio)
    shared.require_writable("--out", args.out, folder=True)
    from tgsr.pages.study.design import make_study
    from tgsr.report.write import prediction_files

    counts = {"n_items": args.items, "n_practice": args.practice, "n_checks": args.checks}
    study = make_study(prediction_files(args.runs), **shared.arguments_of(args, make_study, **counts))
    print(f"{args.out}: {len(study.trials)} items x {len(study.systems)} systems, evidence and full clip")
    print(f"{study.n_raters} raters give each of them {study.raters_per_trial} ratings")
    for reason, n in study.left_out.items():
        print(f"{n} questions left out: {reason}")


def study_serve(args: argparse.Namespace) -> None:
    shared.require_there(args.study, args.consent)
    _require_server()
    from tgsr.pages.study.serve import serve

    serve(args.study, args.host, args.port, args.consent)


def study_analyse(args: argparse.Namespace) -> None:
    shared.require_there(args.study)
    shared.require_writable("--out", args.out, folder=True)
    from tgsr.pages.study.analysis import analyse, markdown, ratings_of, write_analysis, write_csv
    from tgsr.pages.study.design import read_study
    from tgsr.pages.study.store import RATINGS, Store

    study, file = read_study(args.study), args.study / RATINGS
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no ratings yet; run `tgsr study serve {args.study}`")
    ratings = ratings_of(study, Store.open(file, study.id))
    analysis = analyse(study, ratings, args.seed)
    write_analysis(analysis, args.out)
    write_csv(args.out / "ratings.csv", ratings)
    print(markdown(analysis))
    print(args.out / "analysis.png")


def study_size(args: argparse.Namespace) -> None:
    from tgsr.pages.study.analysis import sample_size

    try:
        print(sample_size(args.difference, args.deviation, args.raters, args.correlation, args.power))
    except ValueError as error:
        raise StudyError(str(error)) from error


def add_view(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    about = (
        "prediction files, or folders that hold some; or recordings, to be heard and asked about; with --model none "
        "need be given: recordings are then chosen on the page"
    )
    flag("paths", type=Path, nargs="*", metavar="RUN_OR_RECORDING", help=about)
    about = "clips.jsonl with words; those beside the runs if not given"
    flag("--clips", type=Path, nargs="+", default=[], help=about)
    about = "where the sound files lie now, if they have moved, and what links in the runs may lead to"
    flag("--audio", type=Path, nargs="+", default=[], metavar="FOLDER", help=about)
    about = "to be asked on the page (as in tgsr ask); several may be given. cascade, if recordings are"
    flag("--model", action="append", default=[], help=about)
    flag("--title", help="the page's; the runs' names if not given")
    flag("--host", default="127.0.0.1", help="any other than this machine's own needs the printed token")
    flag("--port", type=int, default=8731, help="0: any free one")
    flag("--open", action="store_true", help="open it in the browser")
    flag("--export", type=Path, help="write a folder that needs no server instead of serving")
    shared.add_system(command)
    shared.add_longest(command.add_argument)
    shared.add_config(command, Placement)
    command.set_defaults(at_once=1, per_minute=None)  # of a model behind an API: one visitor asks at a time
    shared.finish(command, view, "tgsr view runs/demo --open; tgsr view interview.mp3 --open")


def view(args: argparse.Namespace) -> None:
    from tgsr.disk.sound_folder import FORMATS

    shared.require_there(*args.paths, *args.clips, *args.audio)
    shared.require_writable("--export", args.export, folder=True)
    recordings = [path for path in args.paths if path.suffix.lower() in FORMATS and not path.is_dir()]
    runs = [path for path in args.paths if path not in recordings]
    if args.export and not runs:
        raise OptionError(f"--export {args.export}: is for runs; name one")
    if not args.paths and not args.model:
        ways = "name a run, a recording, or --model cascade to choose recordings on the page"
        raise OptionError(f"nothing to show: {ways}")
    _require_server()
    from tgsr.answering.cascade import is_cascade
    from tgsr.models.packaged_weights import cache_folder
    from tgsr.pages.view.ask import Asker
    from tgsr.pages.view.export import export
    from tgsr.pages.view.index import no_runs, read_index
    from tgsr.pages.view.recordings import Shelf
    from tgsr.pages.view.server import Viewer, bound, routes, serve
    from tgsr.pages.view.sound import Sounds

    if not args.export:
        bound(args.host, args.port).close()  # that the port is taken is said before a large run is read
    read = partial(no_runs, args.title)
    if runs:
        read = partial(read_index, runs, clips=args.clips, audio_roots=args.audio, title=args.title)
    index = read()
    if runs:
        print(f"{len(index.items)} questions, {len(index.models)} models", *index.notes, sep="\n")
    if args.export:
        n_heard, n_silent = export(index, args.export)
        print(f"{args.export}: {n_heard} items with sound" + (f", {n_silent} without" if n_silent else ""))
        print(f"look at it with: python -m http.server --directory {args.export}")
        return
    models = list(args.model)
    if recordings and not any(map(is_cascade, models)):
        models.append("cascade")
    hears = next(filter(is_cascade, models), None)
    with closing(Sounds()) as sounds:
        asker = Asker(models, partial(shared.open_model, args), sounds) if models else None
        shelf = Shelf.of(asker, hears, cache_folder(), recordings) if asker and hears else None
        with closing(Viewer(index, read, sounds, asker, shelf)) as viewer:
            serve(routes(viewer), args.host, args.port, "/", opens=args.open)


def _require_server() -> None:
    """ViewError where what the local pages need is not installed."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ViewError(f"the local pages need {' and '.join(missing)}, {install('view')}")
