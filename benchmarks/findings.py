"""What recipes/findings.sh found: means over seeds with intervals, each seed by itself, each claim with its verdict.

    python benchmarks/findings.py tables runs/findings --out docs/findings/seeds.md

`answers QUESTIONS OUT` writes the responses that the row "answer-only" learns: the right answer, and no reasoning. OUT
lies beside QUESTIONS: the sound is found from there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tgsr.choices import correct_letter
from tgsr.disk.whole import write_whole
from tgsr.evaluation.scoring.items import ScoredChoice, ScoredPhrase, score_response
from tgsr.evaluation.scoring.spoken import Spoken
from tgsr.evidence import above_chance
from tgsr.records import Response, read_questions, read_responses, write_jsonl
from tgsr.report.typeset import Column, Group, Number, Table, TableRow, markdown
from tgsr.statistics.intervals import Bootstrap, Floats, Mean, interval_of

ROWS = {  # as recipes/findings.sh names them, in the order of the table
    "base": "Vanilla (base)",
    "sta": "Only STA",
    "reasoning-sft": "Reasoning SFT",
    "answer-only": "Answer only (SFT)",
    "without-sta": "GRPO without STA",
    "without-grounding": "w/o grounding",
    "without-compaction": "w/o compaction",
    "paper": "Ours: STA + GRPO, Eq. 3",
    "grounded": "STA + GRPO, grounded reward",
    "relisten": "STA + GRPO, Eq. 3, re-listening",
}
WAYS = {  # of stage 1, as benchmarks/stage1_options.py names them
    "plain": "Stage 1",
    "clock": "with a clock on the aligned audio",
    "soft": "with a Gaussian over times as target",
    "tokens": "with a token for each 0.1 s",
}
MEASURES = {
    "accuracy": Column("accuracy", "%", 100, 1, "higher"),
    "evidence_hit": Column("evidence hit", "%", 100, 1, "higher"),
    "trace_iou": Column("trace IoU", digits=3, better="higher"),
    "above_chance": Column("above chance", "IoU", digits=3, better="higher"),
    "quote_truth": Column("quote truth", "%", 100, 1, "higher"),
    "first_place": Column("first place", "%", 100, 1),
    "regions": Column("Regions Explored", digits=2),
    "k1": Column("k = 1", "%", 100, 1),
}


@dataclass(frozen=True, slots=True)
class Claim:
    """`first` has more of `measure` than `second` has. `source`: who says so."""

    text: str
    source: str
    measure: str
    first: str
    second: str


CLAIMS = (
    Claim("both stages answer better than the base", "paper, table 2", "accuracy", "paper", "base"),
    Claim("stage 1 alone improves answers", "paper, section 4.3: minor", "accuracy", "sta", "base"),
    Claim("both stages answer better than stage 1 alone", "paper, table 2", "accuracy", "paper", "sta"),
    Claim("reasoning SFT answers better than the base", "paper, table 2", "accuracy", "reasoning-sft", "base"),
    Claim(
        "both stages answer better than reasoning SFT", "paper, table 2", "accuracy", "paper", "reasoning-sft"
    ),
    Claim("compaction helps answers", "paper, table 3", "accuracy", "paper", "without-compaction"),
    Claim(
        "without compaction more regions are cited", "paper, table 3", "regions", "without-compaction", "paper"
    ),
    Claim(
        "without the grounding reward fewer regions are cited",
        "paper, table 3",
        "regions",
        "paper",
        "without-grounding",
    ),
    Claim(
        "without the grounding reward quotes are less true (Verify)",
        "paper, table 3",
        "quote_truth",
        "paper",
        "without-grounding",
    ),
    Claim("stage 1 makes cited evidence right", "paper, section 3.1", "evidence_hit", "sta", "base"),
    Claim("GRPO needs stage 1: evidence", "paper, section 3", "evidence_hit", "paper", "without-sta"),
    Claim("GRPO needs stage 1: answers", "paper, section 3", "accuracy", "paper", "without-sta"),
    Claim("reasoning helps answers", "paper, section 1", "accuracy", "paper", "answer-only"),
    Claim("a reward that looks where citations point finds more evidence", "ours", "evidence_hit", "grounded", "paper"),
    Claim("and quotes more truly", "ours", "quote_truth", "grounded", "paper"),
    Claim("and answers better", "ours", "accuracy", "grounded", "paper"),
    Claim("and answers better than the base", "ours", "accuracy", "grounded", "base"),
    Claim("re-listening helps answers", "paper, appendix D", "accuracy", "relisten", "paper"),
    Claim("re-listening finds more evidence", "ours", "evidence_hit", "relisten", "paper"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One model's measures of each question, in the order of the questions' ids; NaN where one has no such measure."""

    ids: tuple[str, ...]
    clips: tuple[str, ...]
    values: Mapping[str, Floats]


def run_of(files: Iterable[Path]) -> Run:
    """All of one model's responses, scored."""
    items: list[ScoredChoice] = []
    for path in files:
        spoken = Spoken(beside=[path])
        for response in read_responses(path):
            scored = score_response(response, spoken.words_of(response.question))
            items += [item for item in scored if isinstance(item, ScoredChoice)]
    items.sort(key=lambda item: item.id)
    cases = [item.evidence for item in items if item.evidence is not None]
    if len(cases) < len(items):
        raise SystemExit(f"{files}: a question has no evidence")
    cited = [case.cited for case in cases]
    columns: dict[str, Sequence[float | None]] = {
        "accuracy": [item.official for item in items],
        "evidence_hit": [one.evidence_hit for one in cited],
        "trace_iou": [one.trace_iou for one in cited],
        "above_chance": above_chance(cases),
        "quote_truth": [one.quote_truth for one in cited],
        "first_place": [one.first_place for one in cited],
        "regions": [item.n_regions for item in items],
        "k1": [None if item.n_regions is None else item.n_regions == 1 for item in items],
    }
    values = {name: np.array(column, dtype=float) for name, column in columns.items()}
    return Run(tuple(item.id for item in items), tuple(item.clip for item in items), values)


def row_and_seed(model: str) -> tuple[str, str]:
    """ "grounded-2" is the row "grounded" with the seed "2"; "base" has none."""
    row, _, seed = model.rpartition("-") if model[-1].isdigit() else (model, "", "")
    return row, seed


def runs_of(folder: Path) -> dict[str, dict[str, Run]]:
    """By row and seed ("" of a row that has none), in the order of ROWS; answers of a run are NAME-SPLIT.jsonl."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        if path.stat().st_size:
            files.setdefault(read_responses(path)[0].model, []).append(path)
    found: dict[str, dict[str, Run]] = {row: {} for row in ROWS}
    for model, paths in files.items():
        row, seed = row_and_seed(model)
        found[row][seed] = run_of(paths)
    asked = {run.ids for runs in found.values() for run in runs.values()}
    if len(asked) > 1:
        raise SystemExit(
            f"{folder}: its models did not answer the same questions: run recipes/findings.sh to its end"
        )
    return {row: runs for row, runs in found.items() if runs}


def mean_over(runs: Mapping[str, Run], measure: str, bootstrap: Bootstrap) -> tuple[Mean, Floats]:
    """The mean over seeds with its interval over seeds and clips, and the resamples behind it."""
    clips = next(iter(runs.values())).clips
    columns = [run.values[measure] for run in runs.values()]
    value, draws = bootstrap.over_runs(columns, clips)
    n = int(np.isfinite(columns[0]).sum())
    low, high = (
        None if np.isnan(end) else end for end in interval_of(draws)
    )  # where few items have the measure
    return Mean(value, low, high, n, len(clips) - n), draws


def table_of(world: str, rows: Mapping[str, Mapping[str, Run]], bootstrap: Bootstrap) -> list[Table]:
    """Means over seeds, and each seed by itself."""
    means = [
        TableRow(ROWS[row], (len(runs), *(mean_over(runs, measure, bootstrap)[0] for measure in MEASURES)))
        for row, runs in rows.items()
    ]
    single = [
        TableRow(
            f"{ROWS[row]}, {seed}" if seed else ROWS[row],
            tuple(mean_over({seed: run}, measure, bootstrap)[0].value for measure in MEASURES),
        )
        for row, runs in rows.items()
        for seed, run in runs.items()
    ]
    columns = tuple(MEASURES.values())
    return [
        Table(
            f"{world}",
            f"{world}: means over seeds",
            "row",
            (Column("seeds"), *columns),
            (Group("", tuple(means)),),
        ),
        Table(f"{world}-seeds", f"{world}: each seed", "row, seed", columns, (Group("", tuple(single)),)),
    ]


def claims_of(world: str, rows: Mapping[str, Mapping[str, Run]], bootstrap: Bootstrap) -> Table:
    """Each claim whose rows were run: the difference with its interval, and what it says."""
    judged = []
    for claim in CLAIMS:
        if not {claim.first, claim.second} <= rows.keys():
            continue
        (first, first_draws), (second, second_draws) = (
            mean_over(rows[row], claim.measure, bootstrap) for row in (claim.first, claim.second)
        )
        low, high = interval_of(first_draws - second_draws)
        value = (first.value or 0.0) - (second.value or 0.0)
        verdict = "holds" if low > 0 else "does not hold" if high < 0 else "cannot tell"
        column = MEASURES[claim.measure]
        scaled = [column.scale * number for number in (value, low, high)]
        told = (
            f"{scaled[0]:+.{column.digits}f} [{scaled[1]:.{column.digits}f}, {scaled[2]:.{column.digits}f}]"
        )
        cells: tuple[Number, ...] = (
            verdict,
            column.name,
            f"{ROWS[claim.first]} less {ROWS[claim.second]}",
            told,
            claim.source,
        )
        judged.append(TableRow(claim.text, cells))
    heads = ("verdict", "measure", "difference of", "difference", "who says so")
    return Table(
        f"{world}-claims",
        f"{world}: the claims",
        "claim",
        tuple(Column(head) for head in heads),
        (Group("", tuple(judged)),),
        ("Holds: the 95 % interval is above 0; does not hold: it is below; cannot tell: it has 0 in it.",),
    )


def phrases_of(path: Path) -> Run:
    """One model's answers to phrases, scored."""
    scored = [one for response in read_responses(path) for one in score_response(response)]
    items = sorted((one for one in scored if isinstance(one, ScoredPhrase)), key=lambda item: item.id)
    iou = np.array([item.iou for item in items], dtype=float)
    return Run(tuple(item.id for item in items), tuple(item.clip for item in items), {"iou": iou})


def ways_of(folder: Path, bootstrap: Bootstrap) -> Table | None:
    """IoU of phrases by each way of stage 1, and how much more than plainly; None before one was trained."""
    found: dict[str, dict[str, Run]] = {}
    for path in sorted(folder.glob("*/phrases.jsonl")):
        way, seed = row_and_seed(path.parent.name)
        found.setdefault(way, {})[seed] = phrases_of(path)
    rows = []
    for way in (way for way in WAYS if way in found):
        mean, draws = mean_over(found[way], "iou", bootstrap)
        more = None
        if way != "plain" and "plain" in found:
            plain, plain_draws = mean_over(found["plain"], "iou", bootstrap)
            more = Mean(
                (mean.value or 0.0) - (plain.value or 0.0), *interval_of(draws - plain_draws), mean.n, 0
            )
        rows.append(TableRow(WAYS[way], (len(found[way]), mean, more)))
    columns = (
        Column("seeds"),
        Column("IoU", digits=3, better="higher"),
        Column("less stage 1", digits=3),
    )
    title = "digits: other ways of stage 1, phrases of held-out recordings"
    return Table("ways", title, "row", columns, (Group("", tuple(rows)),)) if rows else None


def behaviour_of(path: Path) -> Table | None:
    """Audiology Verify, a mean over seeds and each seed's; None before it was measured."""
    if not path.is_file():
        return None
    models = json.loads(path.read_text(encoding="utf-8"))["models"]
    by_row: dict[str, list[float]] = {}
    for model, found in models.items():
        value = found["verify_zero"]["value"]
        by_row.setdefault(row_and_seed(model)[0], []).append(value)
    rows = tuple(
        TableRow(ROWS[row], (float(np.mean(by_row[row])), ", ".join(f"{value:.3f}" for value in by_row[row])))
        for row in ROWS
        if row in by_row
    )
    columns = (Column("Verify, citing nothing = 0", digits=3, better="higher"), Column("each seed"))
    return Table("verify", "digits: Audiology Verify", "row", columns, (Group("", rows),))


def page(out: Path, seed: int) -> str:
    """All tables as Markdown."""
    bootstrap = Bootstrap(seed)
    state = (out / "state.tsv").read_text(encoding="utf-8").splitlines()[1:]
    left = [name for name, how, _ in (line.split("\t") for line in state) if how != "done" and name != "all"]
    tables: list[Table] = []
    for folder in sorted((out / "answers").iterdir()):
        rows = runs_of(folder)
        tables += [*table_of(folder.name, rows, bootstrap), claims_of(folder.name, rows, bootstrap)]
    verify = behaviour_of(out / "behaviour" / "behaviour.json")
    ways = ways_of(out / "options", bootstrap)
    tables += [table for table in (verify, ways) if table is not None]
    told = f"Not run: {', '.join(left)}.\n\n" if left else ""
    return told + "\n".join(map(markdown, tables))


def write_answers(questions: Path, out: Path) -> None:
    """The right answer to each question as a response without reasoning."""
    write_jsonl(
        out,
        (
            Response(question, "answer-only", f"Final answer: {question.answer} ({correct_letter(question)})")
            for question in read_questions(questions)
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    answers = steps.add_parser("answers")
    answers.add_argument("questions", type=Path)
    answers.add_argument("out", type=Path)
    tables = steps.add_parser("tables")
    tables.add_argument("runs", type=Path)
    tables.add_argument("--out", type=Path, required=True)
    tables.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.step == "answers":
        write_answers(args.questions, args.out)
    else:
        text = page(args.runs, args.seed)
        write_whole(args.out, text)
        print(text)


if __name__ == "__main__":
    main()
