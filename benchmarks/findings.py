"""What recipes/findings.sh found: means over seeds with intervals, each seed by itself, each claim with its verdict.

    python benchmarks/findings.py gather runs/findings --out docs/findings/seeds.json.gz
    python benchmarks/findings.py tables docs/findings/seeds.json.gz --out docs/findings/seeds.md

`gather` keeps of the runs what the tables are made of: each question's measures, what the trainings' watches saw,
Verify, attention and controls of each model; with `--onto EARLIER.json.gz` also what was gathered before, of another
machine's folder say, of the same questions. `tables` leaves what the page says above the line that announces them, and
draws the watches and what altered sound does beside it.

`answers QUESTIONS OUT` writes the responses that the row "answer-only" learns: the right answer, and no reasoning. OUT
lies beside QUESTIONS: the sound is found from there. `short QUESTIONS SECONDS` writes short.jsonl beside QUESTIONS.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from robustness import CONDITIONS, folder_of

from tgsr.choices import correct_letter
from tgsr.cli import script
from tgsr.disk.whole import whole, write_whole
from tgsr.evaluation.scoring.items import ScoredChoice, ScoredPhrase, score_response
from tgsr.evaluation.scoring.spoken import Spoken
from tgsr.evidence import above_chance
from tgsr.records import Response, read_questions, read_responses, write_jsonl
from tgsr.report.typeset import Column, Group, Number, Table, TableRow, markdown
from tgsr.statistics.intervals import Bootstrap, Floats, Mean, interval_of

ROWS = {  # as recipes/findings.sh names them, in the order of the table
    "base": "Vanilla (base)",
    "sta": "Only STA",
    "short-sta": "Only STA, on clips to 5 s",
    "reasoning-sft": "Reasoning SFT",
    "answer-only": "Answer only (SFT)",
    "without-sta": "GRPO without STA",
    "without-grounding": "w/o grounding",
    "without-compaction": "w/o compaction",
    "strict": "STA + GRPO, Eq. 3, strict counter",
    "paper": "Ours: STA + GRPO, Eq. 3",
    "grounded": "STA + GRPO, grounded reward",
    "mini:paper": "ships as mini:paper",
    "mini:tgsr": "ships as mini:tgsr",
    "relisten": "STA + GRPO, Eq. 3, re-listening",
    "clock-grounded": "STA with a clock + GRPO, grounded reward",
}
SHARED = "base"  # there is one, that all seeds start from
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
ALTERED = {
    "iou": Column("phrase IoU", better="higher"),
    **{name: MEASURES[name] for name in ("evidence_hit", "accuracy")},
}
CONTROLS = ("reliance_silenced", "sufficiency_over_silence", "necessity")
BLOCKS = ("all", "reasoning", "answer", "times")
WATCHED = {  # of a training's log
    "k1": "k = 1",
    "evidence_hit": "evidence hit",
    "quote_truth": "quote truth",
    "first_place": "first place",
    "above_chance": "IoU above chance",
    "accuracy": "accuracy",
}
CITES_ONCE = 0.95
MADE = "<!-- from here on: benchmarks/findings.py tables -->\n\n"
MEASURED = {  # by commands of their own
    "verify": (
        "digits: Audiology Verify",
        {"verify": Column("Verify, citing nothing = 0", digits=3, better="higher")},
    ),
    "attention": (
        "digits: attention to the audio, by block",
        {block: Column(block, digits=3, better="higher") for block in BLOCKS},
    ),
    "controls": (
        "digits: what answers rest on",
        {
            "reliance_silenced": Column("accuracy lost on silence", "%", 100, 1),
            "sufficiency_over_silence": Column("same answer on the cited alone, over silence", "%", 100, 1),
            "necessity": Column("necessity of the cited", "%", 100, 1),
        },
    ),
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
    Claim("stage 1 alone improves answers", "paper, section 5.3: minor", "accuracy", "sta", "base"),
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
    Claim(
        "the grounding reward of Eq. 2 finds more evidence than the right answer alone",
        "paper, equation 2",
        "evidence_hit",
        "paper",
        "without-grounding",
    ),
    Claim(
        "a reward that looks where citations point finds more than the right answer alone",
        "ours",
        "evidence_hit",
        "grounded",
        "without-grounding",
    ),
    Claim("without compaction more evidence is found", "ours", "evidence_hit", "without-compaction", "paper"),
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
    Claim("so does Eq. 3 by the strict counter", "ours", "evidence_hit", "strict", "paper"),
    Claim("re-listening finds more than that", "ours", "evidence_hit", "relisten", "strict"),
    Claim("a clock in stage 1 finds more evidence", "ours", "evidence_hit", "clock-grounded", "grounded"),
    Claim("and cites it more closely", "ours", "trace_iou", "clock-grounded", "grounded"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One model's measures of each question, in the order of the questions' ids; NaN where one has no such measure."""

    ids: tuple[str, ...]
    clips: tuple[str, ...]
    values: Mapping[str, Floats]


def run_of(files: Iterable[Path]) -> Run:
    """All of one model's responses, scored: choices first, then phrases, which have an IoU and nothing else."""
    choices: list[ScoredChoice] = []
    phrases: list[ScoredPhrase] = []
    for path in files:
        spoken = Spoken(beside=[path])
        for response in read_responses(path):
            for item in score_response(response, spoken.words_of(response.question)):
                if isinstance(item, ScoredPhrase):
                    phrases.append(item)
                elif isinstance(item, ScoredChoice):
                    choices.append(item)
    choices.sort(key=lambda item: item.id)
    phrases.sort(key=lambda item: item.id)
    cases = [item.evidence for item in choices if item.evidence is not None]
    if len(cases) < len(choices):
        raise SystemExit(f"{files}: a question has no evidence")
    cited = [case.cited for case in cases]
    columns: dict[str, Sequence[float | None]] = {
        "accuracy": [item.official for item in choices],
        "evidence_hit": [one.evidence_hit for one in cited],
        "trace_iou": [one.trace_iou for one in cited],
        "above_chance": above_chance(cases),
        "quote_truth": [one.quote_truth for one in cited],
        "first_place": [one.first_place for one in cited],
        "regions": [item.n_regions for item in choices],
        "k1": [None if item.n_regions is None else item.n_regions == 1 for item in choices],
    }
    unasked = [None] * len(phrases)
    values = {name: np.array([*column, *unasked], dtype=float) for name, column in columns.items()}
    values["iou"] = np.array([*[None] * len(choices), *(item.iou for item in phrases)], dtype=float)
    items = [*choices, *phrases]
    return Run(tuple(item.id for item in items), tuple(item.clip for item in items), values)


def row_and_seed(model: str) -> tuple[str, str]:
    """ "grounded-2" is the row "grounded" with the seed "2"; "base" has none."""
    row, _, seed = model.rpartition("-") if model[-1].isdigit() else (model, "", "")
    return row, seed


def by_row(models: Mapping[str, Any], rows: Iterable[str] = ROWS) -> dict[str, dict[str, Any]]:
    """By row and seed ("" of a row that has none), in the order of `rows`. SystemExit for a row that is not in them."""
    found: dict[str, dict[str, Any]] = {row: {} for row in rows}
    for model in sorted(models, key=lambda model: (len(model), model)):  # seed 10 after seed 2
        row, seed = row_and_seed(model)
        if row not in found:
            raise SystemExit(
                f"{model}: there is no row {row!r} among {', '.join(found)}; name it in {Path(__file__).name}"
            )
        found[row][seed] = models[model]
    return {row: runs for row, runs in found.items() if runs}


# --- what the tables are made of -------------------------------------------------------------------------


def world_of(folder: Path) -> dict[str, Any]:
    """Each model's measures of the questions of one world; answers of a model are NAME-SPLIT.jsonl."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        if path.stat().st_size:
            files.setdefault(read_responses(path)[0].model, []).append(path)
    return world_with({model: run_of(paths) for model, paths in files.items()}, folder)


def world_with(runs: Mapping[str, Run], folder: Path) -> dict[str, Any]:
    """The runs as they are kept. SystemExit where there is none, or they are not of the same questions."""
    if not runs:
        raise SystemExit(f"{folder}: no model has answered yet: recipes/findings.sh goes on there")
    if len({run.ids for run in runs.values()}) > 1:
        raise SystemExit(
            f"{folder}: its models did not answer the same questions: run recipes/findings.sh to its end"
        )
    some = next(iter(runs.values()))
    models = {
        model: {
            name: [None if np.isnan(value) else round(float(value), 4) for value in column]
            for name, column in run.values.items()
        }
        for model, run in runs.items()
    }
    return {"ids": some.ids, "clips": some.clips, "models": models}


def ways_in(folder: Path) -> dict[str, Any]:
    """The answers to phrases of other ways of stage 1, WAY-SEED/phrases.jsonl; {} before one was trained."""
    runs = {path.parent.name: run_of([path]) for path in sorted(folder.glob("*/phrases.jsonl"))}
    return world_with(runs, folder) if runs else {}


def watched_in(out: Path) -> dict[str, list[dict[str, Any]]]:
    """What each training's watch saw, a row a look, by model."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(out.glob("*/metrics.jsonl")):
        rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        looks = [
            {"step": row["step"], **{name: row["watch"].get(name) for name in WATCHED}}
            for row in rows
            if row.get("watch")
        ]
        if looks and row_and_seed(path.parent.name)[0] in ROWS:
            found[path.parent.name] = looks
    return found


def model_of(name: str) -> str:
    """A command's name of a model, as the recipe's: "runs/findings/sta-0/adapter" is "sta-0", "mini" is "base"."""
    if name.endswith("/adapter"):
        return Path(name).parent.name
    return "base" if name == "mini" else name


def by_model(path: Path, measure: Callable[[Any], Any]) -> dict[str, Any]:
    """What a command measured of each model, out of its JSON; {} before it ran."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {model_of(name): measure(of_model) for name, of_model in found.get("models", found).items()}


def gather(out: Path) -> dict[str, Any]:
    """All that the tables are made of, out of the folder that the recipe wrote; "left" is what it has not run of it."""
    if not (out / "answers").is_dir():
        raise SystemExit(f"{out}: no model has answered yet: recipes/findings.sh goes on there")
    state = (out / "state.tsv").read_text(encoding="utf-8").splitlines()[1:-1]  # less its head and its sum
    how_of = {name: how for name, how, _ in (line.split("\t") for line in state)}
    return {
        "done": [name for name, how in how_of.items() if how == "done"],
        "left": [name for name, how in how_of.items() if how != "done"],
        "worlds": {folder.name: world_of(folder) for folder in sorted((out / "answers").iterdir())},
        "altered": {
            name: world_of(folder)
            for name in CONDITIONS
            if (folder := out / "altered" / folder_of(name)).is_dir()
        },
        "ways": ways_in(out / "options"),
        "watched": watched_in(out),
        "attention": by_model(
            out / "attention" / "attention.json",
            lambda found: {block: found["by_phase"][block]["audio"]["value"] for block in BLOCKS},
        ),
        "controls": by_model(
            out / "controls" / "controls.json",
            lambda found: {name: found[name]["value"] for name in CONTROLS},
        ),
        "verify": by_model(
            out / "behaviour" / "behaviour.json", lambda found: {"verify": found["verify_zero"]["value"]}
        ),
    }


def world_onto(earlier: Mapping[str, Any], world: Mapping[str, Any]) -> dict[str, Any]:
    """One world of two folders. SystemExit where they are not of the same questions."""
    if earlier and world and list(earlier["ids"]) != list(world["ids"]):
        raise SystemExit("gather: the earlier models did not answer the same questions: leave --onto out")
    return {**earlier, **world, "models": {**earlier.get("models", {}), **world.get("models", {})}}


def worlds_onto(earlier: Mapping[str, Any], worlds: Mapping[str, Any]) -> dict[str, Any]:
    return {name: world_onto(earlier.get(name, {}), worlds.get(name, {})) for name in {**earlier, **worlds}}


def onto(earlier: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """What was gathered earlier and now: of a model that both have, what was gathered now.

    Steps that only one of both knows, because the recipe has grown or was run for fewer seeds, are left until it has
    done them. A file of before "done" was kept has done what it does not name as left.
    """
    of_model = ("watched", "attention", "controls", "verify")
    done = {*found["done"], *earlier.get("done", {*found["left"]} - {*earlier["left"]})}
    return {
        "done": sorted(done),
        "left": [step for step in dict.fromkeys((*earlier["left"], *found["left"])) if step not in done],
        **{name: worlds_onto(earlier[name], found[name]) for name in ("worlds", "altered")},
        "ways": world_onto(earlier["ways"], found["ways"]) if earlier["ways"] or found["ways"] else {},
        **{name: {**earlier[name], **found[name]} for name in of_model},
    }


def read_gathered(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return found


def runs_of(world: Mapping[str, Any], rows: Iterable[str] = ROWS) -> dict[str, dict[str, Run]]:
    ids, clips = tuple(world["ids"]), tuple(world["clips"])
    return {
        row: {
            seed: Run(ids, clips, {name: np.array(column, dtype=float) for name, column in values.items()})
            for seed, values in seeds.items()
        }
        for row, seeds in by_row(world["models"], rows).items()
    }


# --- tables ----------------------------------------------------------------------------------------------


def mean_over(runs: Mapping[str, Run], measure: str, bootstrap: Bootstrap) -> tuple[Mean, Floats]:
    """The mean over seeds with its interval over seeds and clips, and the resamples behind it.

    Its `n` is that of the seed with the fewest scored questions.
    """
    clips = next(iter(runs.values())).clips
    columns = [run.values[measure] for run in runs.values()]
    value, draws = bootstrap.over_runs(columns, clips)
    n = min(int(np.isfinite(column).sum()) for column in columns)
    # no number where no item has the measure, no interval where few have
    mean, low, high = (None if np.isnan(end) else end for end in (value, *interval_of(draws)))
    return Mean(mean, low, high, n, len(clips) - n), draws


def difference(
    first: Mapping[str, Run], second: Mapping[str, Run], measure: str, bootstrap: Bootstrap
) -> tuple[float, float, float]:
    """How much more the first row has, and the ends of its interval, paired by clip and, of as many runs, by seed.

    Of all runs of both. NaN where a row has no such measure, the ends also where there is no interval.
    """
    (more, more_draws), (less, less_draws) = (mean_over(runs, measure, bootstrap) for runs in (first, second))
    value = np.nan if more.value is None or less.value is None else more.value - less.value
    return value, *interval_of(more_draws - less_draws)


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


def kinds_of(world: str, rows: Mapping[str, Mapping[str, Run]], bootstrap: Bootstrap) -> Table:
    """Accuracy by what is asked, which a question's id ends with."""
    first = next(iter(next(iter(rows.values())).values()))  # all have the same questions
    pairs = zip(first.ids, first.clips, strict=True)
    kind_of = [id_.removeprefix(f"{clip}-").replace("-", " ") for id_, clip in pairs]
    kinds = sorted(set(kind_of))

    def accuracy(runs: Mapping[str, Run], kind: str) -> Mean:
        asked = [place for place, of_it in enumerate(kind_of) if of_it == kind]
        some = {
            seed: Run(
                tuple(run.ids[place] for place in asked),
                tuple(run.clips[place] for place in asked),
                {"accuracy": run.values["accuracy"][asked]},
            )
            for seed, run in runs.items()
        }
        return mean_over(some, "accuracy", bootstrap)[0]

    made = tuple(
        TableRow(ROWS[row], tuple(accuracy(runs, kind) for kind in kinds)) for row, runs in rows.items()
    )
    columns = tuple(Column(f"{kind}, {kind_of.count(kind)}", "%", 100, 1, "higher") for kind in kinds)
    return Table(f"{world}-kinds", f"{world}: accuracy by what is asked", "row", columns, (Group("", made),))


def claims_of(world: str, rows: Mapping[str, Mapping[str, Run]], bootstrap: Bootstrap) -> Table:
    """Each claim whose rows were run: the difference with its interval, and what it says."""
    judged = []
    for claim in CLAIMS:
        if not {claim.first, claim.second} <= rows.keys():
            continue
        value, low, high = difference(rows[claim.first], rows[claim.second], claim.measure, bootstrap)
        verdict = "holds" if low > 0 else "does not hold" if high < 0 else "cannot tell"
        once = any(row != SHARED and len(rows[row]) == 1 for row in (claim.first, claim.second))
        if once and verdict != "cannot tell":
            verdict = "one seed"
        column = MEASURES[claim.measure]
        told = "" if np.isnan(value) else f"{column.scale * value:+.{column.digits}f}"
        if told and not np.isnan(low):
            ends = (f"{column.scale * end:.{column.digits}f}" for end in (low, high))
            told += f" [{', '.join(ends)}]"
        cells: tuple[Number, ...] = (
            verdict,
            column.name,
            f"{ROWS[claim.first]} less {ROWS[claim.second]}",
            told,
            claim.source,
        )
        judged.append(TableRow(claim.text, cells))
    heads = ("verdict", "measure", "difference of", "difference", "who says so")
    notes = [
        "Holds: the 95 % interval is above 0; does not hold: it is below; cannot tell: it has 0 in it. Of three seeds "
        "an interval reaches from about the least to the greatest: it has the mean of all seeds three times in four. "
        "One seed: a row was trained once, and the interval is over clips alone."
    ]
    if single := [ROWS[row] for row, runs in rows.items() if len(runs) == 1]:
        notes.append(
            f"Trained once: {', '.join(single)}. What another seed would change there is in no interval."
        )
    return Table(
        f"{world}-claims",
        f"{world}: the claims",
        "claim",
        tuple(Column(head) for head in heads),
        (Group("", tuple(judged)),),
        tuple(notes),
    )


def seeds_table(title: str, columns: Mapping[str, Column], models: Mapping[str, Mapping[str, Any]]) -> Table:
    """Means over seeds of what a command measured, and the first measure's of each seed."""
    rows = []
    for row, seeds in by_row(models).items():
        each = {name: [values[name] for values in seeds.values()] for name in columns}
        means = [float(np.mean(known)) if None not in known else None for known in each.values()]
        first, column = next(iter(each.values())), next(iter(columns.values()))
        told = ", ".join(
            "-" if value is None else f"{column.scale * value:.{column.digits}f}" for value in first
        )
        rows.append(TableRow(ROWS[row], (*means, told)))
    heads = (*columns.values(), Column(f"{next(iter(columns.values())).name}, each seed"))
    return Table("", title, "row", heads, (Group("", tuple(rows)),))


def turns(looks: Sequence[Mapping[str, Any]]) -> dict[str, Number]:
    """When a training came to cite once, and did so to its last look, and what became of its evidence."""
    n_once = sum(1 for _ in takewhile(lambda look: look["k1"] >= CITES_ONCE, reversed(looks)))
    best = max(looks, key=lambda look: look["evidence_hit"])
    return {
        f"k = 1 in {100 * CITES_ONCE:.0f} % from step": looks[-n_once]["step"] if n_once else None,
        "hit at first": looks[0]["evidence_hit"],
        "highest hit": best["evidence_hit"],
        "at step": best["step"],
        "hit at last": looks[-1]["evidence_hit"],
        "first place at first": looks[0]["first_place"],
        "at last": looks[-1]["first_place"],
    }


def watched_table(watched: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Each training's turns, a row a seed."""
    rows = [
        TableRow(f"{ROWS[row]}, {seed}", tuple(turns(looks).values()))
        for row, seeds in by_row(watched).items()
        for seed, looks in seeds.items()
    ]
    names = turns(next(iter(watched.values())))
    columns = [Column(name) if "step" in name else Column(name, "%", 100, 0) for name in names]
    return Table(
        "watched", "digits: over the steps of stage 2", "row, seed", tuple(columns), (Group("", tuple(rows)),)
    )


def ways_table(world: Mapping[str, Any], bootstrap: Bootstrap) -> Table:
    """IoU of phrases by each way of stage 1, and how much more than plainly."""
    found = runs_of(world, WAYS)
    rows = []
    for way, runs in found.items():
        mean, _ = mean_over(runs, "iou", bootstrap)
        more = None
        if way != "plain":
            value, *ends = difference(runs, found["plain"], "iou", bootstrap)
            more = Mean(value, *(None if np.isnan(end) else end for end in ends), mean.n, 0)
        rows.append(TableRow(WAYS[way], (len(runs), mean, more)))
    columns = (
        Column("seeds"),
        Column("IoU", digits=3, better="higher"),
        Column("less stage 1", digits=3),
    )
    title = "digits: other ways of stage 1, phrases of held-out recordings"
    return Table("ways", title, "row", columns, (Group("", tuple(rows)),))


def altered_table(altered: Mapping[str, Any], bootstrap: Bootstrap) -> Table:
    """What altered sound does to each row: a group a row, a line a condition."""
    of_row: dict[str, list[TableRow]] = {}
    for name, world in altered.items():
        for row, runs in runs_of(world).items():
            cells = (mean_over(runs, measure, bootstrap)[0] for measure in ALTERED)
            of_row.setdefault(row, []).append(TableRow(f"{ROWS[row]}: {name}", (len(runs), *cells)))
    groups = tuple(Group("", tuple(rows)) for rows in of_row.values())
    columns = (Column("seeds"), *ALTERED.values())
    return Table("altered", "digits: altered sound", "row: condition", columns, groups)


def page(found: Mapping[str, Any], seed: int = 0) -> str:
    """All tables as Markdown."""
    bootstrap = Bootstrap(seed)
    tables: list[Table] = []
    for name, world in found["worlds"].items():
        rows = runs_of(world)
        tables += [*table_of(name, rows, bootstrap), kinds_of(name, rows, bootstrap)]
        tables.append(claims_of(name, rows, bootstrap))
    if found["altered"]:
        tables.append(altered_table(found["altered"], bootstrap))
    if found["ways"]:
        tables.append(ways_table(found["ways"], bootstrap))
    if found["watched"]:
        tables.append(watched_table(found["watched"]))
    for key, (title, columns) in MEASURED.items():
        if found[key]:
            tables.append(seeds_table(title, columns, found[key]))
    left = dict.fromkeys(row_and_seed(step)[0] for step in found["left"] if not step.startswith("ask-"))
    told = f"Not run, or not for all seeds: {', '.join(left)}.\n\n" if left else ""
    return told + "\n".join(map(markdown, tables))


def short(questions: Path, seconds: float) -> None:
    """Writes the questions about clips of at most so many seconds, beside all of them."""
    write_jsonl(
        questions.with_name("short.jsonl"),
        (question for question in read_questions(questions) if question.duration <= seconds),
    )


def above(path: Path) -> str:
    """What a page says above its tables, up to and with the line that says who makes them; "" of a new page."""
    if not path.is_file():
        return ""
    head, line, _ = path.read_text(encoding="utf-8").partition(MADE)
    return head + line if line else ""


def draw(path: Path, watched: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """The watches over the steps: a panel a measure, a colour a row, a thin line a seed, a thick one their mean.

    The mean is over the steps at which all seeds were watched.
    """
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(12, 6.5), layout="constrained", sharex=True)
    for panel, (measure, name) in zip(panels.flat, WATCHED.items(), strict=True):
        for colour, (row, seeds) in enumerate(by_row(watched).items()):
            lines = [
                [np.nan if look[measure] is None else look[measure] for look in looks]
                for looks in seeds.values()
            ]
            steps = [[look["step"] for look in looks] for looks in seeds.values()]
            for x, y in zip(steps, lines, strict=True):
                panel.plot(x, y, color=f"C{colour}", linewidth=0.6, alpha=0.6)
            both = sorted(set(steps[0]).intersection(*steps))  # a run may have been stopped while it looked
            mean = np.mean(
                [[y[x.index(step)] for step in both] for x, y in zip(steps, lines, strict=True)], axis=0
            )
            panel.plot(both, mean, color=f"C{colour}", linewidth=2, label=ROWS[row])
        panel.set_title(name, fontsize=10)
        panel.grid(alpha=0.3)
    for panel in panels[1]:
        panel.set_xlabel("step of GRPO")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    with whole(path) as half:
        figure.savefig(half, dpi=110)
    plt.close(figure)


def draw_altered(path: Path, altered: Mapping[str, Any], bootstrap: Bootstrap) -> None:
    """What altered sound does: a panel a measure, a colour a row, a place along the axis for each condition."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(ALTERED), figsize=(13, 4.5), layout="constrained")
    worlds = {name: runs_of(world) for name, world in altered.items()}
    rows = list(dict.fromkeys(row for world in worlds.values() for row in world))
    for panel, (measure, column) in zip(panels, ALTERED.items(), strict=True):
        for nth, row in enumerate(rows):
            asked = [at for at, world in enumerate(worlds.values()) if row in world]
            means = [
                mean_over(world[row], measure, bootstrap)[0] for world in worlds.values() if row in world
            ]
            x = np.array(asked) + 0.12 * (nth - (len(rows) - 1) / 2)
            middle, low, high = (
                np.array([getattr(mean, end) for mean in means], dtype=float)
                for end in ("value", "low", "high")
            )
            panel.errorbar(
                x, middle, [middle - low, high - middle], fmt="o", color=f"C{nth}", label=ROWS[row]
            )
        panel.set_xticks(range(len(worlds)), list(worlds), rotation=45, ha="right", fontsize=8)
        panel.set_title(column.name, fontsize=10)
        panel.set_ylim(0, 1)
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    with whole(path) as half:
        figure.savefig(half, dpi=110)
    plt.close(figure)


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
    some = steps.add_parser("short")
    some.add_argument("questions", type=Path)
    some.add_argument("seconds", type=float)
    gathered = steps.add_parser("gather")
    gathered.add_argument("runs", type=Path)
    gathered.add_argument(
        "--onto", type=Path, help="what was gathered before, kept where it is not of these models"
    )
    gathered.add_argument("--out", type=Path, required=True)
    tables = steps.add_parser("tables")
    tables.add_argument("gathered", type=Path)
    tables.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.step == "answers":
        write_answers(args.questions, args.out)
    elif args.step == "short":
        short(args.questions, args.seconds)
    elif args.step == "gather":
        found = gather(args.runs)
        if args.onto is not None:
            found = onto(read_gathered(args.onto), found)
        text = json.dumps(found, separators=(",", ":"))
        write_whole(args.out, gzip.compress(text.encode(), mtime=0))
    else:
        found = read_gathered(args.gathered)
        text = page(found)
        write_whole(args.out, above(args.out) + text)
        if found["watched"]:
            draw(args.out.with_suffix(".png"), found["watched"])
        if found["altered"]:
            draw_altered(args.out.with_name(f"{args.out.stem}-altered.png"), found["altered"], Bootstrap())
        print(text)


if __name__ == "__main__":
    raise SystemExit(script(main))
