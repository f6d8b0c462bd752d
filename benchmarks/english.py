"""The table of the miniature that hears English, and its learning curves.

    recipes/mini_en_table.sh                                        # asks and scores, in runs/en/table
    python benchmarks/english.py table runs/en/table                # the table, as Markdown
    python benchmarks/english.py curves docs/logs/mini-en-*.jsonl   # docs/english.png

A folder of the recipe has, for each set of test clips, phrases-SET.json and choices-SET.json (`tgsr score`), the items
of both (`--items`), and what was asked: phrases-SET/questions.jsonl, choices-SET/questions.jsonl. Intervals are 95 %,
over clips.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tgsr.cli import script
from tgsr.disk.jsonl import row_of
from tgsr.overlap import high_overlap
from tgsr.records import Question, read_questions
from tgsr.statistics.intervals import LEVELS, Bootstrap, Mean, codes_of, number, percent
from tgsr.statistics.pictures import Curve, curve_panels, lines_png
from tgsr.timeline import Span

Row = dict[str, Any]
ROOT = Path(__file__).parent.parent
N_CHOICES = 4  # of the questions whose kinds are averaged
N_PLACES = 400  # at which a span of chance may start
COLUMNS = (
    *("phrase IoU", "IoU ≥ .7 (%)", "start, end off (s)", "choices of four (%)"),
    *("evidence hit (%)", "quote truth (%)", "k", "accuracy (%)"),
)
GATES = {  # of metrics.jsonl: how they are called in the picture
    "iou_timed_words": "base, with time code: IoU in words",
    "iou_timed_tokens": "base, with time code: IoU in tokens",
    "iou_plain_words": "base, plain: IoU in words",
    "choices": "base: choices",
}
CURVES = {
    **GATES,
    "phrase_iou": "phrase IoU",
    "evidence_hit": "evidence hit",
    "quote_truth": "quote truth",
    "accuracy": "accuracy",
}


def chance_of_phrases(questions: Sequence[Question], bootstrap: Bootstrap) -> tuple[Mean, Mean]:
    """IoU and the share of .7 or more of a span as long as phrases are on average, anywhere in the clip."""
    length = float(np.mean([piece.duration for question in questions for piece in question.evidence]))
    ious, shares = [], []
    for question in questions:
        longest = min(length, question.duration)
        found = [
            Span(start, start + longest).iou(question.evidence[0])
            for start in np.linspace(0, question.duration - longest, N_PLACES).tolist()
        ]
        ious.append(float(np.mean(found)))
        shares.append(float(np.mean([high_overlap(iou) for iou in found])))
    clips = [question.clip_id for question in questions]
    means = bootstrap.means({"iou": ious, "share": shares}, clips)
    return means["iou"], means["share"]


def mean_over_kinds(
    items: Iterable[tuple[str, bool]], questions: Mapping[str, Question], bootstrap: Bootstrap
) -> Mean:
    """The accuracy of each kind of question with four choices, averaged over the kinds; items are (id, is right)."""
    asked = [
        (question, is_right)
        for id_, is_right in items
        if len((question := questions[id_]).choices) == N_CHOICES
    ]
    kinds = sorted({str(question.task) for question, _ in asked})
    if not asked:
        return Mean(None, None, None, 0, 0)
    of_kind_KN = np.array([[question.task == kind for question, _ in asked] for kind in kinds], float)
    right_N = np.array([is_right for _, is_right in asked], float)
    codes = codes_of([question.clip_id for question, _ in asked])
    sums, draws_RM = bootstrap.sums([*(of_kind_KN * right_N), *of_kind_KN], codes)

    def mean(sums_RM: np.ndarray) -> np.ndarray:
        right_RK, all_RK = np.split(sums_RM, 2, axis=1)
        return np.nanmean(right_RK / np.where(all_RK, all_RK, np.nan), axis=1)

    low, high = (None, None) if draws_RM is None else map(float, np.percentile(mean(draws_RM), LEVELS))
    return Mean(float(mean(sums[None])[0]), low, high, len(asked), 0)


def read_rows(path: Path) -> list[Row]:
    return [row_of(line) for line in path.read_bytes().splitlines() if line.strip()]


def scores_of(path: Path, kind: str) -> dict[str, Row]:
    """What `tgsr score` says of each model's phrases or choices."""
    models = json.loads(path.read_text())["models"]
    return {name: scores["all"][kind] for name, scores in models.items() if scores["all"][kind]}


def mean_of(row: Row) -> Mean:
    return Mean(**row)


def phrase_cells(scores: Row) -> dict[str, str]:
    errors = (scores["start_error"], scores["end_error"])
    medians = [f"{one['median']:.2f}" if one and one["median"] is not None else "-" for one in errors]
    return {
        COLUMNS[0]: number(mean_of(scores["iou"]), 2),
        COLUMNS[1]: percent(mean_of(scores["high_overlap"]), ""),
        COLUMNS[2]: ", ".join(medians),
    }


def choice_cells(scores: Row, of_four: Mean) -> dict[str, str]:
    evidence = scores["evidence"]
    cites = evidence is not None and evidence["n_citations"] > 0
    return {
        COLUMNS[3]: percent(of_four, ""),
        COLUMNS[4]: percent(mean_of(evidence["evidence_hit"]), "") if cites else "",
        COLUMNS[5]: percent(mean_of(evidence["quote_truth"]), "") if cites else "",
        COLUMNS[6]: number(mean_of(scores["mentions_official"]), 2),
        COLUMNS[7]: percent(mean_of(scores["accuracy_official"]), ""),
    }


def table_of(folder: Path, name: str, bootstrap: Bootstrap) -> list[str]:
    """One set's table: a row a model in the order in which they were asked, chance first."""
    asked = {
        kind: {q.id: q for q in read_questions(folder / f"{kind}-{name}" / "questions.jsonl")}
        for kind in ("phrases", "choices")
    }
    phrases = scores_of(folder / f"phrases-{name}.json", "phrase")
    choices = scores_of(folder / f"choices-{name}.json", "choice")
    right: dict[str, list[tuple[str, bool]]] = {}
    for item in read_rows(folder / f"choices-{name}.items.jsonl"):
        right.setdefault(item["model"], []).append((item["id"], bool(item["official"])))
    iou, share = chance_of_phrases(list(asked["phrases"].values()), bootstrap)
    by_chance = float(np.mean([1 / len(q.choices) for q in asked["choices"].values()]))
    rows: dict[str, dict[str, str]] = {
        "chance": {
            COLUMNS[0]: number(iou, 2),
            COLUMNS[1]: percent(share, ""),
            COLUMNS[3]: f"{100 / N_CHOICES:.1f}",
            COLUMNS[7]: f"{100 * by_chance:.1f}",
        }
    }
    for model in dict.fromkeys((*phrases, *choices)):
        cells = phrase_cells(phrases[model]) if model in phrases else {}
        counted = ((phrases, "phrases"), (choices, "choices"))
        fewer = [
            f"{of[model]['n']} {kind}"
            for of, kind in counted
            if 0 < of.get(model, {"n": 0})["n"] < len(asked[kind])
        ]
        if model in choices:
            of_four = mean_over_kinds(right[model], asked["choices"], bootstrap)
            cells |= choice_cells(choices[model], of_four)
        rows[f"{model} ({', '.join(fewer)})" if fewer else model] = cells
    counts = " and ".join(f"{len(asked[kind])} {kind}" for kind in asked)
    n_clips = len({q.clip_id for of_kind in asked.values() for q in of_kind.values()})
    return [
        f"{name}: {counts} about {n_clips} clips",
        "",
        "| | " + " | ".join(COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
        *(
            f"| {model} | " + " | ".join(cells.get(c, "") for c in COLUMNS) + " |"
            for model, cells in rows.items()
        ),
    ]


def sets_of(folder: Path) -> list[str]:
    found = (re.fullmatch(r"phrases-(.+)\.json", path.name) for path in sorted(folder.iterdir()))
    return [name[1] for name in found if name]


def curves_of(log: Path) -> list[Curve]:
    """The measures of one run's metrics.jsonl that are in CURVES, against its steps."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in read_rows(log):
        gates = {
            name: row[name] for name in GATES if name in row
        }  # other numbers of a step are of its own few clips
        for name, value in {**gates, **row.get("watch", {})}.items():
            if name in CURVES and value is not None:
                points.setdefault(name, []).append((row["step"], value))
    run = log.name.removesuffix(".jsonl").removesuffix(".metrics")
    return [
        Curve(run, "steps", CURVES[name], *map(tuple, zip(*points[name], strict=True)))
        for name in CURVES
        if name in points
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    table = kinds.add_parser("table")
    table.add_argument("folder", type=Path)
    curves = kinds.add_parser("curves")
    curves.add_argument("logs", type=Path, nargs="+", help="metrics.jsonl of runs")
    curves.add_argument("--plot", type=Path, default=ROOT / "docs" / "english.png")
    args = parser.parse_args(argv)
    if args.kind == "table":
        for name in sets_of(args.folder):
            print(*table_of(args.folder, name, Bootstrap()), "", sep="\n")
        return
    panels = curve_panels([curve for log in args.logs for curve in curves_of(log)], is_noisy=False)
    lines_png([replace(panel, is_share=True) for panel in panels], args.plot)
    print(args.plot)


if __name__ == "__main__":
    raise SystemExit(script(main))
