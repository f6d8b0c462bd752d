"""What pages say in numbers is what the files beside them hold: each number, rounded as it is written there."""

from __future__ import annotations

import doctest
import gzip
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import cost
import findings

from tgsr.statistics.intervals import Bootstrap

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
OTHERS = {  # sides of benchmarks/speed.py that are not ours, as pages call them
    "static cache": "static cache",
    "prefix grouper": "Prefix Grouper",
    "kv cache": "prefix cache with gradients",
    "careful": "careful",
    "usual": "usual",
}


def shipped(path: str) -> Any:
    return json.loads((ROOT / path).read_text("utf-8"))


def table(page: str, begin: str, without: Sequence[str] = ()) -> list[list[str]]:
    """The rows' cells of the page's first table from the one line on that begins so, less columns and rows by name."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    (start,) = (at for at, line in enumerate(lines) if line.startswith(begin))
    rest = dropwhile(lambda line: not line.startswith("|"), lines[start:])
    columns, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in takewhile(lambda line: line.startswith("|"), rest)
    )
    assert set(without) <= {*columns, *(name for name, *_ in rows)}
    return [
        [cell for name, cell in zip(columns, row, strict=True) if name not in without]
        for row in rows
        if row[0] not in without
    ]


def says(written: str, value: float) -> bool:
    """Whether `value` is `written` when it is rounded to its digits; of a whole number's, last zeros may stand for any.

    "3,530" says 3,525 to 3,535, "0.50" says 0.495 to 0.505; two digits at least are held: "100" says 95 to 105.
    """
    digits = written.replace(",", "")
    whole, _, decimals = digits.lstrip("-").partition(".")
    zeros = 0 if decimals else max(0, min(len(whole) - len(whole.rstrip("0")), len(whole) - 2))
    return abs(float(digits) - value) <= 0.5 * 10.0 ** (zeros - len(decimals)) * (1 + 1e-9)


def differs(written: str, values: Sequence[float]) -> str:
    """Where the text's numbers are not these, in this order; empty where they are."""
    found = NUMBER.findall(written)
    same = len(found) == len(values) and all(map(says, found, values))
    return "" if same else f"{written!r} is not {[float(f'{value:.6g}') for value in values]}"


@pytest.mark.parametrize(
    ("written", "value", "right"),
    [
        ("0.50", 0.5049, True),
        ("0.50", 0.5051, False),
        ("3,530", 3532.2, True),
        ("3,530", 3536.0, False),
        ("100", 95.5, True),
        ("100", 89.0, False),
        ("-1.5", 1.5, False),
        ("0", 0.6, False),
    ],
)
def test_a_number_says_what_rounds_to_its_digits(written: str, value: float, right: bool) -> None:
    assert says(written, value) == right


# --- tables -----------------------------------------------------------------------------------------------------------


def speed(what: str) -> Row:
    (row,) = (row for row in shipped("benchmarks/speed.json")["rows"] if row["what"].startswith(what))
    return row


def sides_of_sampling() -> list[list[float]]:
    row = speed("sampling")
    static = row["static cache"]
    named = ("usual", "static cache", "own modules", "shared", "int8", "products", "products, int8")
    return [[row[side], *row["spread"][side], row[side] / static] for side in named]


def sides_of_updates() -> list[list[float]]:
    return [
        [
            *(
                number
                for side in ("shared", "prefix grouper")
                for number in (row[side], *row.get("spread", {}).get(side, ()))
            ),
            *(row[side] for side in ("kv cache", "careful", "usual")),
            row["shared"] / row["prefix grouper"],
        ]
        for row in map(speed, ("GRPO", "stage 1", "memory"))
    ]


def beside_vllm() -> list[list[float]]:
    (case,) = shipped("benchmarks/beside_vllm.json")
    sides = case["sides"].values()
    return [[side[name] for side in sides] for name in ("seconds", "tokens_a_second", "same_answers")]


def waits() -> list[list[float]]:
    rows = [*shipped("benchmarks/waiting.json")["rows"], *shipped("benchmarks/waiting-loaded.json")["rows"]]
    sides = ("spinning", "briefly", "passive", "one thread")
    return [[row[side] for side in sides] for row in rows if not row["real_time"]]


def scorer() -> list[list[float]]:
    names = ("file_mb", "cpu_seconds", "predictions_a_cpu_second", "peak_mb")
    return [[row[name] for name in names] for row in shipped("benchmarks/score.json")["rows"]]


def real_size() -> list[list[float]]:
    rows = []
    for step in shipped("benchmarks/real_size.json")["steps"]:
        parts = step["step_s"]
        rows.append(
            [
                sum(parts.values()),
                *(parts[part] for part in ("sample", "update") if len(parts) > 1),
                step["plan"]["step_s"],
                *(step[name] / 1e9 for name in ("peak_bytes", "mapped_bytes")),
                step["plan"]["bytes"] / 1e9,
                step["processor_s"],
            ]
        )
    return rows


def attention_by_block() -> list[list[float]]:
    rows = shipped("benchmarks/attention.json")["rows"]
    sides = ("blocks", "spans", "heat", "eager")
    return [[row[of][side] for row in rows for of in ("ratios", "memory_ratios")] for side in sides]


PLACES = ("1 s off", "2 s off", "5 s off", "elsewhere")


def similarities() -> list[list[float]]:
    return [
        [
            of["true_median"],
            *(number for where in PLACES for number in (of[where]["auc"], *of[where]["interval"])),
        ]
        for explanation in shipped("benchmarks/audiology.json")["auc"].values()
        for of in explanation.values()
    ]


SOUNDS = ("clips", "clips joined", "people's transcripts", "digits")


def hearing() -> list[list[float]]:
    """Word errors in per cent and seconds of the processor; those of single recordings of 4 to 5 minutes together."""
    sets = shipped("benchmarks/hearing.json")["sets"]
    longest = sets.pop("recording 0, 28 clips")
    single = [of for name, of in sets.items() if name.startswith("recording ")]
    sides = ("ours", "faster-whisper, sequential", "faster-whisper, batched")
    rows = []
    for some in [*([sets[name]] for name in SOUNDS), single, [longest]]:
        words = sum(of["words"] for of in some)
        numbers = []
        for side in (side for side in sides if side in some[0]["sides"]):
            wrong = sum(round(of["sides"][side]["word_errors"] * of["words"]) for of in some)
            numbers += [100 * wrong / words, sum(of["sides"][side]["processor_s"] for of in some)]
        rows.append(numbers)
    return rows


LOG = ROOT / "docs/logs/mini-en-base.metrics.jsonl"


def gates() -> list[list[float]]:
    lessons = ("said next", "said first", "said at all", "is it said", "word count")
    return [
        [
            *(row[f"iou_timed_{kind}"] for kind in ("words", "tokens")),
            *(100 * row[name] for name in ("choices", *(f"choices {lesson}" for lesson in lessons))),
        ]
        for row in map(json.loads, LOG.read_text("utf-8").splitlines())
        if row["step"] and "choices" in row
    ]


DIGITS = (
    "base", "sta", "without-sta", "without-grounding", "without-compaction", "paper", "strict", "relisten", "grounded",
    "clock-grounded",
)  # fmt: skip
ENGLISH = ("base", "sta", "paper", "grounded")


def over_seeds(world: str, names: Sequence[str]) -> list[list[float]]:
    measured = json.loads(gzip.decompress((ROOT / "docs/findings/seeds.json.gz").read_bytes()))
    rows, bootstrap = findings.runs_of(measured["worlds"][world]), Bootstrap()

    def told(row: str, measure: str) -> list[float]:
        mean, draws = findings.mean_over(rows[row], measure, bootstrap)
        return [100 * number for number in (mean.value, *findings.interval_of(draws))]

    def each(row: str) -> list[float]:
        return [100 * float(np.nanmean(run.values["evidence_hit"])) for run in rows[row].values()]

    return [
        [
            *told(row, "evidence_hit"),
            *each(row),
            *told(row, "quote_truth"),
            *told(row, "k1"),
            *told(row, "accuracy"),
        ]
        for row in names
    ]


def cost_on_paper() -> list[list[float]]:
    return [[separate, shared, separate / shared] for _, separate, shared in cost.rows()]


def answers_of(model: str, split: str = "") -> Row:
    """What `tgsr score` says of a miniature's answers to the questions of docs/findings/miniature.md, by measure."""
    of = shipped("docs/logs/mini-qa.json")["models"][model]
    choice = (of["by_split"][split] if split else of["all"])["choice"]
    return {**choice, **choice["evidence"], **choice["accuracy_official_by_task"]}


BOUNDS = ("value", "low", "high")
NO_SHARES = ("iou", "trace_iou", "above_chance", "mentions_official")


def numbers(answers: Row, measure: str, bounds: Sequence[str] = BOUNDS) -> list[float]:
    """A mean and the ends of its interval; shares in per cent."""
    scale = 1 if measure in NO_SHARES else 100
    return [scale * answers[measure][bound] for bound in bounds]


CORPORA = ("librispeech", "speechocean", "queen")


def english(kind: str, corpus: str) -> dict[str, Row]:
    """Of each model: what `tgsr score` says of its answers to recipes/mini_en_table.sh's phrases or choices."""
    models = shipped(f"docs/logs/mini-en-table/{kind}s-{corpus}.json")["models"]
    return {name: of["all"][kind] for name, of in models.items()}


def of_english(corpus: str) -> list[list[float]]:
    choices, rows = english("choice", corpus), []
    for name, of in english("phrase", corpus).items():
        row = [*numbers(of, "iou"), *numbers(of, "high_overlap")]
        row += [of[end]["median"] for end in ("start_error", "end_error")]
        if name in choices:
            answers = {**choices[name], **choices[name]["evidence"]}
            for measure in ("evidence_hit", "quote_truth", "mentions_official", "accuracy_official"):
                row += numbers(answers, measure)
        rows.append(row)
    return rows


def by_kind_of_question() -> list[list[float]]:
    """How many questions of each kind there are, then each model's right ones in per cent: three corpora together."""
    n_asked: dict[str, Counter[str]] = {}
    n_right: dict[str, Counter[str]] = {}
    for corpus in CORPORA:
        for name, of in english("choice", corpus).items():
            for kind, mean in of["accuracy_official_by_task"].items():
                n_asked.setdefault(name, Counter())[kind] += mean["n"]
                n_right.setdefault(name, Counter())[kind] += round(mean["value"] * mean["n"])
    kinds, others = ("said next", "said first", "said at all", "word count"), ("is it said", "who says it")
    rows = [[float(n_asked["mini-en"][kind]) for kind in (*kinds, *others)]]
    for name, right in n_right.items():
        share = {kind: 100 * right[kind] / n for kind, n in n_asked[name].items()}
        mean = sum(share[kind] for kind in kinds) / len(kinds)
        rows.append([*(share[kind] for kind in kinds), mean, *(share[kind] for kind in others)])
    return rows


def earned(path: str, columns: Sequence[str], models: bool) -> list[list[float]]:
    """What `tgsr rewards` pays each policy, or each model, by each reward; nothing where it can't be told."""
    return [
        [mean["value"] for mean in (row["rewards"][name] for name in columns) if mean["value"] is not None]
        for row in shipped(path)["policies"]
        if (row["kind"] == "model") == models
    ]


PAID = (
    *("R_tg official", "R_tg strict", "paper", "place", "place, words only", "grounded", "dense"),
    *("dense, words only", "paper + dense", "trace IoU"),
)
MODELS_PAID = (
    "answer",
    "R_tg official",
    "paper",
    "place",
    "place, words only",
    "grounded",
    "dense",
    "trace IoU",
)
POLICIES = "docs/logs/rewards.json"


def policies_earn() -> list[list[float]]:
    return earned(POLICIES, PAID, models=False)


def models_earn() -> list[list[float]]:
    return earned("docs/logs/rewards-earned.json", MODELS_PAID, models=True)


def both_rewards() -> list[list[float]]:
    of = [answers_of(model) for model in ("mini:paper", "mini:tgsr")]
    whole, alone = BOUNDS, BOUNDS[:1]
    return [
        [number for answers in of for measure in measures for number in numbers(answers, measure, bounds)]
        for measures, bounds in (
            (("evidence_hit",), whole),
            (("trace_iou", "above_chance"), whole),
            (("quote_truth",), whole),
            (("start_within", "end_within"), alone),
            (("first_place",), alone),
            (("share_k1_official",), alone),
            (("accuracy_official",), whole),
        )
    ]


def before_and_after_stage_2(split: str) -> list[list[float]]:
    of = [answers_of(model, split) for model in ("mini:sta", "mini:paper", "mini:tgsr")]
    measures = ("evidence_hit", "trace_iou", "above_chance", "quote_truth", "start_within", "end_within")
    others = ("first_place", "share_k1_official", "accuracy_official", "follows", "twice", "pause")
    return [[n for answers in of for n in numbers(answers, measure)] for measure in (*measures, *others)]


def on_recordings() -> list[list[float]]:
    return before_and_after_stage_2("heldout-recordings")


def on_an_unheard_speaker() -> list[list[float]]:
    return before_and_after_stage_2("heldout-speaker")


@pytest.mark.parametrize(
    ("page", "begin", "without", "made_of"),
    [
        ("docs/findings/speed.md", "| | seconds, median", ["the bar"], sides_of_sampling),
        ("docs/findings/speed.md", "| 30-s clip | ours | Prefix Grouper", ["the bar"], sides_of_updates),
        ("docs/findings/speed.md", "| 200 questions", [], beside_vllm),
        ("docs/findings/speed.md", "| | spinning", [], waits),
        ("docs/findings/speed.md", "| predictions | file", [], scorer),
        ("docs/findings/speed.md", "| | separate | shared | ratio", [], cost_on_paper),
        ("docs/models.md", "| | the step | by plan", [], real_size),
        ("docs/attention.md", "| over a plain forward", [], attention_by_block),
        ("docs/findings/behaviour.md", "| explanation | similarity", ["similarity"], similarities),
        ("docs/data.md", "| sound | ours | sequential", [], hearing),
        ("docs/findings/rewards.md", "| | policy | R_tg", ["policy"], policies_earn),
        ("docs/findings/rewards.md", "| model | R_answer", [], models_earn),
        ("README.md", "| measure |", ["what it says of a model"], both_rewards),
        ("README.md", "| mean over seeds |", [], partial(over_seeds, "digits", DIGITS)),
        ("README.md", "| in English, mean over seeds |", [], partial(over_seeds, "english", ENGLISH)),
        ("docs/findings/miniature.md", "| held-out recordings", [], on_recordings),
        ("docs/findings/miniature.md", "| held-out speaker", [], on_an_unheard_speaker),
        *(
            (
                "docs/miniature.md",
                f"**{title}",
                ["choices of four (%)", "chance"],
                partial(of_english, corpus),
            )
            for corpus, title in zip(CORPORA, ("LibriSpeech", "speechocean762", "Amazon Queen"), strict=True)
        ),
        ("docs/miniature.md", "| right of the 300", [], by_kind_of_question),
        ("docs/miniature.md", "| steps | minutes", ["minutes"], gates),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_table_says_what_its_file_holds(
    page: str, begin: str, without: Sequence[str], made_of: Callable[[], list[list[float]]]
) -> None:
    rows, values = table(page, begin, without), made_of()
    assert len(rows) == len(values) > 1
    assert [
        wrong
        for (_, *cells), row in zip(rows, values, strict=True)
        if (wrong := differs(" ".join(cells), row))
    ] == []


def test_policies_that_a_reward_does_not_tell_are_marked() -> None:
    blind = shipped(POLICIES)["blind"]
    rows = table("docs/findings/rewards.md", "| | policy | R_tg")
    marked = {
        name: {row[1] for row in rows if row[at].endswith("=")} for at, name in enumerate(PAID, start=2)
    }
    assert marked == {name: set(blind[name]) for name in PAID}


@pytest.mark.parametrize(
    ("page", "begin"),
    [("README.md", "| 30-s clip, one thread"), ("docs/engine.md", "| 30-s clip")],
)
def test_no_measured_way_is_better_than_the_best_other_one(page: str, begin: str) -> None:
    """The last column is the usual way, or ours over the others."""
    held = ("sampling", "GRPO", "memory", "stage 1")  # rows of one run of the benchmark
    rows = {name: cells for name, *cells in table(page, begin) if name.startswith(held)}
    assert len(rows) == len(held)
    for name, (ours, other, last, *_) in rows.items():
        row = speed(name.split(",")[0].split(" of ")[0].removesuffix(" update"))
        sides = [side for side in OTHERS if side in row]
        named = sorted(
            (side for side in sides if OTHERS[side] in other), key=lambda side: other.index(OTHERS[side])
        )
        assert min(sides, key=row.__getitem__) in named
        over = [row["shared"] / row[side] for side in named]
        assert differs(f"{ours} {other}", [row["shared"], *(row[side] for side in named)]) == ""
        assert differs(last, [row["usual"]]) == "" or differs(last, over) == ""


def test_the_rewards_of_the_examples_are_those_on_the_page() -> None:
    """The fence that ends an example would be read as what it prints."""
    page = (ROOT / "docs/rewards.md").read_text("utf-8").replace("```", "")
    examples = doctest.DocTestParser().get_doctest(page, {}, "rewards.md", None, None)
    assert doctest.DocTestRunner().run(examples).failed == 0 < len(examples.examples)
