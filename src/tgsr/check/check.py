"""`tgsr check`: all rows of all parts, a table of them, check.json and a page."""

from __future__ import annotations

import json
import shutil
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from importlib.metadata import version
from pathlib import Path

import torch

from tgsr.check import computation, cost, labels, learning, sound
from tgsr.check.bench import WHOLE, Bench, Size, shipped_speech, with_questions_of
from tgsr.check.rows import PARTS, Row, measured
from tgsr.disk.whole import write_whole
from tgsr.models.aligner_and_lora import parts_table
from tgsr.models.clock import clock_off
from tgsr.models.foreign_adapter import AdapterRead
from tgsr.models.lalm import Lalm, device_of
from tgsr.report.page import write_document
from tgsr.training.steps import spelled_out

WORK = ".check"  # in --out: questions, runs and features of the rows that train
MARKS = {True: "ok", False: "FAILS", None: "-"}
WIDTH = 100  # of a number's column in the terminal
VERSIONS = ("tgsr", "torch", "transformers", "peft")

Measure = Callable[[Bench], Row]

ROWS: tuple[tuple[int, str, Measure], ...] = (
    (1, "audio tokens", sound.audio_tokens),
    (1, "embeddings", sound.embeddings),
    *((1, what, partial(sound.change, what=what)) for what in sound.CHANGES),
    (1, "transcription", sound.transcription),
    (2, "log-probs", computation.log_probs),
    (2, "range", computation.finite),
    (2, "gradients", computation.gradients),
    (2, "sampler", computation.sampler),
    (2, "drawn tokens", computation.drawn),
    (2, "head", computation.head),
    (2, "adapter", computation.adapter),
    (3, "targets", labels.targets),
    (3, "end tokens", labels.end_tokens),
    (3, "special tokens", labels.special_tokens),
    (4, "stage 1", learning.stage_1),
    (4, "GRPO", learning.stage_2),
    (5, "resumed", learning.resumed),
    (6, "tokens a second", cost.cost),
)
"""Every row: its part, its name where it could not be measured, and how it is measured."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A model's rows, its parameters by block, and the plan that rests on what was measured ("" without part 6)."""

    model: str
    device: str
    precision: str
    speech: str
    rows: tuple[Row, ...]
    parameters: str
    plan: str
    seconds: float
    n_bad: int = 0

    @property
    def passed(self) -> bool:
        """Whether no row of parts 1 to 5 fails."""
        return not any(row.fails for row in self.rows)


def check(
    lalm: Lalm,
    out: Path,
    data: Path | None = None,
    *,
    bfloat16: bool = False,
    parts: Sequence[int] = tuple(PARTS),
    size: Size = WHOLE,
    learning_rate: float | None = None,
    read: AdapterRead | None = None,
    audio: Path | None = None,
    tell: Callable[[Row], None] = lambda row: None,
) -> Checked:
    """All rows of the parts, each told as it is done; the model is given back as it was. A clock of its is off.

    `out` gets check.json and page.html; what rows write lies in a folder of its own there, which is made anew. `read`
    says how another trainer's adapter was read; `audio` is the folder that the sound of `data` has moved to. A row
    that raises fails, for want of memory too; the others run.
    """
    began, work = time.monotonic(), out / WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    speech, n_bad = shipped_speech(lalm, work / "speech", size), 0
    if data is not None:
        errors = out / "errors.jsonl"
        errors.unlink(missing_ok=True)
        speech, n_bad = with_questions_of(speech, data, work, errors, audio)
    bench = Bench(lalm, speech, work, bfloat16, size, learning_rate)
    rows: list[Row] = []
    if read is not None:
        rows.append(computation.adapter_file(read))
        tell(rows[0])
    plan = ""
    with clock_off(lalm):
        for part, name, measure in ROWS:
            if part in parts:
                rows.append(measured(part, name, partial(measure, bench)))
                tell(rows[-1])
        if 6 in parts:
            plan = cost.plan_of(bench, rows[-1])
    device = device_of(lalm)
    checked = Checked(
        lalm.name,
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        bench.precision,
        speech.about,
        tuple(rows),
        parts_table(lalm),
        plan,
        time.monotonic() - began,
        n_bad,
    )
    write_whole(out / "check.json", json.dumps(as_json(checked), indent=1, ensure_ascii=False) + "\n")
    write_document(out / "page.html", f"tgsr check: {lalm.name}", page_parts(checked))
    return checked


def as_json(checked: Checked) -> dict[str, object]:
    """What check.json holds; a number that JSON has no name for is text."""
    return {
        "model": checked.model,
        "passed": checked.passed,
        "device": checked.device,
        "precision": checked.precision,
        "speech": checked.speech,
        "bad_rows_of_data": checked.n_bad,
        "seconds": round(checked.seconds, 1),
        "versions": {name: version(name) for name in VERSIONS},
        "rows": [spelled_out(asdict(row)) for row in checked.rows],
        "plan": checked.plan,
    }


# --- in the terminal ------------------------------------------------------------------------------------------------


def line_of(row: Row) -> str:
    """A row in the terminal: whether it passes, what was measured, and the remedy where it does not."""
    head = f"{MARKS[row.passed]:6}{row.part}  {row.name:17}"
    bar = f"  [{row.bar}]" if row.bar else ""
    said = " ".join(f"{row.number}{bar}".split())
    lines = textwrap.wrap(said, WIDTH) or [""]
    if row.passed is False:
        lines += textwrap.wrap(f"-> {row.remedy}", WIDTH)
    return "\n".join([head + lines[0], *(" " * len(head) + line for line in lines[1:])])


def summary(checked: Checked, out: Path) -> str:
    """What stands under the rows: the verdict in one line, and where all of it lies."""
    failed = [row for row in checked.rows if row.fails]
    verdict = (
        "passes: no row of parts 1 to 5 fails"
        if checked.passed
        else f"FAILS: {', '.join(row.name for row in failed)}"
    )
    said = f"{checked.model} {verdict} ({checked.precision} on {checked.device}, {checked.seconds:.0f} s)"
    bad = (
        f"\n{checked.n_bad} rows of the data could not be read: {out / 'errors.jsonl'}"
        if checked.n_bad
        else ""
    )
    return f"{checked.plan}\n\n{said}{bad}\n{out / 'page.html'}".lstrip()


# --- the page -------------------------------------------------------------------------------------------------------


def page_parts(checked: Checked) -> list[str]:
    """The page: the verdict, a table for each part, the parameters, the plan."""
    failed = [row.name for row in checked.rows if row.fails]
    verdict = f"fails: {', '.join(failed)}" if failed else "passes"
    lead = (
        f"{checked.model} {verdict}. Heard: {checked.speech}. In {checked.precision} on {checked.device}, "
        f"{checked.seconds:.0f} s."
    )
    sections = [f"<header><h1>tgsr check</h1><p>{escape(lead)}</p></header>"]
    for part, title in PARTS.items():
        rows = [row for row in checked.rows if row.part == part]
        if rows:
            body = "".join(_table_row(row) for row in rows)
            sections.append(
                f"<section><h2>{part}. {escape(title)}</h2><table><thead><tr><th></th><th>row</th><th>measured</th>"
                f"<th>bar</th></tr></thead><tbody>{body}</tbody></table></section>"
            )
    sections.append(f"<section><h2>Parameters</h2><pre>{escape(checked.parameters)}</pre></section>")
    if checked.plan:
        sections.append(f"<section><h2>The whole training</h2><pre>{escape(checked.plan)}</pre></section>")
    return sections


def _table_row(row: Row) -> str:
    remedy = f'<br><b class="soft">{escape(row.remedy)}</b>' if row.passed is False else ""
    cells = (MARKS[row.passed], row.name, row.number, row.bar)
    marked = [f"<td>{escape(cell)}</td>" for cell in cells]
    marked[2] = f"<td>{escape(row.number)}{remedy}</td>"
    return f"<tr>{''.join(marked)}</tr>"
