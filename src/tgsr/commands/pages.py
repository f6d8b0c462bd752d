"""report, tables, study, view."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tgsr.commands.shared import _RUNS, _add_placement, _add_rows, _command, _open


def _add_report(commands: Any) -> None:
    about = "A page to look at and listen to: tables, curves, items with sound; with them the paper's tables in files."
    command = _command(commands, "report", _report, about, "tgsr report runs/demo --out runs/demo/report")
    command.add_argument("runs", type=Path, nargs="+", help=_RUNS)
    command.add_argument(
        "--out", type=Path, required=True, help="folder (index.html, report.md, tables/), or one page: X.html"
    )
    command.add_argument("--items", type=int, default=8, help="how many questions to show")
    command.add_argument("--title", default="Timestamp-grounded speech reasoning")
    command.add_argument("--seed", type=int, default=0, help="seed of the items and of the intervals")
    _add_rows(command)


def _report(args: argparse.Namespace) -> None:
    from tgsr.report.write import report

    print(
        report(
            args.runs,
            args.out,
            title=args.title,
            n_items=args.items,
            seed=args.seed,
            rows=args.row,
            sta=args.sta,
            published=args.published,
        )
    )


def _add_tables(commands: Any) -> None:
    about = "The paper's tables 1 to 4 from run folders, with intervals: Markdown, CSV and LaTeX."
    example = 'tgsr tables runs/ablation --row Vanilla=mini --row "Only STA=mini:sta" --out tables'
    command = _command(commands, "tables", _tables, about, example)
    command.add_argument("runs", type=Path, nargs="+", help=_RUNS)
    command.add_argument("--out", type=Path, required=True, help="folder; tables.md holds all of them")
    command.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    _add_rows(command)


def _tables(args: argparse.Namespace) -> None:
    from tgsr.report.write import tables

    written, text = tables(
        args.runs, args.out, rows=args.row, sta=args.sta, published=args.published, seed=args.seed
    )
    print(text)
    print(*written, sep="\n")


def _add_study(commands: Any) -> None:
    about = "The human evaluation: raters hear the cited evidence or the full clip and say what it is worth."
    group = commands.add_parser("study", help=about, description=about)
    steps = group.add_subparsers(required=True, metavar="STEP")
    _add_study_make(steps)
    about = "Run the study as a web page; ratings go to ratings.sqlite in its folder."
    command = _command(steps, "serve", _study_serve, about, "tgsr study serve study --host 0.0.0.0")
    command.add_argument("study", type=Path, help="the study's folder")
    command.add_argument(
        "--host", default="127.0.0.1", help="any other than this one needs the printed token"
    )
    command.add_argument("--port", type=int, default=8732)
    command.add_argument(
        "--consent", type=Path, help="text file shown to raters instead of the packaged text"
    )
    about = "Tables, plots, agreement and ratings.csv from the ratings so far."
    command = _command(
        steps, "analyse", _study_analyse, about, "tgsr study analyse study --out study/analysis"
    )
    command.add_argument("study", type=Path, help="the study's folder")
    command.add_argument("--out", type=Path, required=True, help="folder")
    command.add_argument("--seed", type=int, default=0, help="of the intervals")
    about = "How many items a study needs."
    command = _command(steps, "size", _study_size, about, "tgsr study size --difference 0.5 --deviation 1.2")
    command.add_argument("--difference", type=float, default=0.5, help="of mean ratings, to be shown")
    command.add_argument("--deviation", type=float, default=1.2, help="of one rating's paired difference")
    command.add_argument("--raters", type=int, default=3, help="of each item and system")
    command.add_argument("--correlation", type=float, default=0.4, help="between raters of one item, 0 to 1")
    command.add_argument("--power", type=float, default=0.8)


def _add_study_make(steps: Any) -> None:
    about = "Choose items, cut their sounds, and write a study's folder."
    command = _command(
        steps, "make", _study_make, about, "tgsr study make runs/predictions.jsonl --items 30 --out study"
    )
    command.add_argument("runs", type=Path, nargs="+", help="prediction files, or folders that hold some")
    command.add_argument("--systems", nargs="+", default=[], help="models to compare; all if not given")
    command.add_argument("--items", type=int, default=30, help="questions to be rated")
    command.add_argument("--per-rater", type=int, default=0, help="questions a rater gets; 0: all")
    command.add_argument("--raters-per-trial", type=int, default=3)
    command.add_argument("--practice", type=int, default=2, help="practice parts, with feedback")
    command.add_argument("--checks", type=int, default=2, help="attention checks a rater gets")
    command.add_argument("--title", default="Listening study")
    command.add_argument("--seed", type=int, default=0, help="of items, stretches and orders")
    command.add_argument("--out", type=Path, required=True, help="a new folder")


def _study_make(args: argparse.Namespace) -> None:
    from tgsr.pages.study.design import make_study
    from tgsr.report.write import prediction_files

    study = make_study(
        prediction_files(args.runs),
        args.out,
        systems=args.systems,
        n_items=args.items,
        per_rater=args.per_rater,
        raters_per_trial=args.raters_per_trial,
        n_practice=args.practice,
        n_checks=args.checks,
        title=args.title,
        seed=args.seed,
    )
    print(f"{args.out}: {len(study.trials)} items x {len(study.systems)} systems, evidence and full clip")
    print(f"{study.n_raters} raters give each of them {study.raters_per_trial} ratings")
    for reason, n in study.left_out.items():
        print(f"{n} questions left out: {reason}")


def _study_serve(args: argparse.Namespace) -> None:
    from tgsr.pages.errors import require_extra

    require_extra()
    from tgsr.pages.study.serve import serve

    serve(args.study, args.host, args.port, args.consent)


def _study_analyse(args: argparse.Namespace) -> None:
    from tgsr.pages.study.analysis import analyse, markdown, ratings_of, write_analysis, write_csv
    from tgsr.pages.study.design import read_study
    from tgsr.pages.study.store import RATINGS, Store

    study = read_study(args.study)
    if not (args.study / RATINGS).is_file():
        raise FileNotFoundError(
            f"{args.study / RATINGS}: no ratings yet; run `tgsr study serve {args.study}`"
        )
    ratings = ratings_of(study, Store.open(args.study / RATINGS, study.id))
    analysis = analyse(study, ratings, args.seed)
    write_analysis(analysis, args.out)
    write_csv(args.out / "ratings.csv", ratings)
    print(markdown(analysis))
    print(args.out / "analysis.png")


def _study_size(args: argparse.Namespace) -> None:
    from tgsr.errors import StudyError
    from tgsr.pages.study.analysis import sample_size

    try:
        print(sample_size(args.difference, args.deviation, args.raters, args.correlation, args.power))
    except ValueError as error:
        raise StudyError(str(error)) from error


def _add_view(commands: Any) -> None:
    about = (
        "Responses in the browser: hear what each one cites, search, compare models, ask about recordings."
    )
    command = _command(commands, "view", _view, about, "tgsr view runs/demo --open")
    command.add_argument("runs", type=Path, nargs="+", help="prediction files, or folders that hold some")
    command.add_argument(
        "--clips",
        type=Path,
        nargs="+",
        default=[],
        help="clips.jsonl with words; those beside the runs if not given",
    )
    command.add_argument(
        "--audio-root",
        type=Path,
        nargs="+",
        default=[],
        help="folders where moved recordings, or links, may lie",
    )
    command.add_argument(
        "--model",
        action="append",
        default=[],
        help="to be asked on the page (as in tgsr ask); several may be given",
    )
    _add_placement(command)
    command.add_argument("--title", help="the page's; the runs' names if not given")
    command.add_argument(
        "--host", default="127.0.0.1", help="any other than this machine's own needs the printed token"
    )
    command.add_argument("--port", type=int, default=8731, help="0: any free one")
    command.add_argument("--open", action="store_true", help="open it in the browser")
    command.add_argument("--export", type=Path, help="write a folder that needs no server instead of serving")


def _view(args: argparse.Namespace) -> None:
    from tgsr.pages.errors import require_extra

    require_extra()
    from tgsr.pages.view.run import view

    asked_one_by_one = {"at_once": 1, "per_minute": None}
    view(
        args.runs,
        clips=args.clips,
        audio_roots=args.audio_root,
        models=args.model,
        open_model=lambda name: _open(argparse.Namespace(**vars(args) | asked_one_by_one | {"model": name})),
        title=args.title,
        host=args.host,
        port=args.port,
        opens=args.open,
        export_to=args.export,
    )
