"""A run as one HTML file to look at and listen to: tables, curves, items with their sound.

Nothing is loaded from elsewhere: sound, style and script are inside, and the page's policy lets no other
script run. What models wrote is text, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from tgsr.evaluation.intervals import Mean
from tgsr.evaluation.score import ChoiceScores, GroupScores, Metrics, PhraseScores, Predictions, score
from tgsr.records import RecordError, Response, read_responses
from tgsr.report.figures import Curve, Dot, curve_panel, dot_panel, tint
from tgsr.report.items import Asked, Sound, choose_items, group_by_question, item_html, load_sounds
from tgsr.training.checkpoints import write_atomically

LEAD = (
    "Audio-language models were asked about recordings and cite the seconds that support their answers: how "
    "well those times and answers agree with the recordings, and some responses to listen to."
)
NO_VALUE = '<td class="none">–</td>'

T = TypeVar("T", PhraseScores, ChoiceScores)
Split = tuple[str, list[tuple[str, T]]]  # a split's name, and its models with their scores


@dataclass(frozen=True, slots=True)
class Source:
    """A prediction file that was read: its first 12 digits of SHA-256 say which version of it."""

    path: Path
    digest: str
    responses: tuple[Response, ...]


def write_page(
    out: Path,
    predictions: Sequence[Path],
    curves: Sequence[Curve],
    *,
    title: str,
    n_items: int = 8,
    seed: int = 0,
) -> None:
    """Scores prediction files of ours and writes the page, whole or not at all; missing folders are made.

    All files are scored together: a model's responses may lie in several. `n_items` questions are shown
    with their sound; `seed` chooses them. Files without responses, and questions whose audio cannot be
    read, are said so on the page. Raises RecordError for a bad row, OSError for a file that is not there.
    """
    sources = [read_source(path) for path in predictions]
    responses = tuple(response for source in sources for response in source.responses)
    models = list(dict.fromkeys(response.model for response in responses))
    metrics = score(Predictions("tgsr", responses=responses))
    asked = group_by_question((source.path, source.responses) for source in sources)
    items = choose_items(asked, models, n_items, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    body = page_body(title, metrics, models, curves, items, load_sounds(items))
    html = document(title, body + footer(sources, seed))
    # half of a surrogate pair, which a model's text may hold, has no UTF-8
    write_atomically(out, html.encode("utf-8", errors="xmlcharrefreplace"))


def read_source(path: Path) -> Source:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return Source(path, digest, tuple(read_responses(path, several=True)))


def read_curves(metrics_jsonl: Path, names: Sequence[str]) -> list[Curve]:
    """The named quantities of a training log, each against its step; those that it lacks are left out.

    The log may still be written to: it is only read, and a half-written last line is left out. Raises
    RecordError for any other line that is no JSON object with a step, and for a value that is no number.
    """
    rows = log_rows(metrics_jsonl)
    curves = []
    for name in names:
        points = [(step, log_number(row, name, line, metrics_jsonl)) for line, step, row in rows]
        known = [(step, value) for step, value in points if value is not None]
        if known:
            x, y = zip(*known, strict=True)
            curves.append(Curve(name, "step", name, x, y))
    return curves


def log_rows(path: Path) -> list[tuple[int, float, dict[str, object]]]:
    """(line, step, row) of each row of a training log."""
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, content in enumerate(lines, 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except ValueError as error:  # not UTF-8 either
            if number == len(lines):
                break
            problem = f"is not JSON: {error}"
            raise RecordError(None, problem, str(path), number, "delete that line") from None
        step = log_number(row, "step", number, path) if isinstance(row, dict) else None
        if step is None:
            raise RecordError("step", f"is missing in {row!r:.80}", str(path), number, "delete that line")
        rows.append((number, step, row))
    return rows


def log_number(row: dict[str, object], name: str, line: int, path: Path) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(name, f"must be a number, got {value!r:.80}", str(path), line, "correct the row")
    return float(value)


# --- the document ----------------------------------------------------------------------------------------


def document(title: str, body: str) -> str:
    """The page around its body. Its policy names our style and script by their hashes: no others count."""
    folder = files("tgsr") / "report"
    style, script = (f"\n{(folder / name).read_text(encoding='utf-8')}" for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src '{content_hash(style)}'; script-src '{content_hash(script)}'; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n"
        f"<body>\n{body}\n<script>{script}</script>\n</body>\n</html>\n"
    )


def content_hash(text: str) -> str:
    """The text's SHA-256 as a content security policy states it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def page_body(
    title: str,
    metrics: Metrics,
    models: Sequence[str],
    curves: Sequence[Curve],
    items: Sequence[tuple[Asked, str]],
    sounds: dict[Path, Sound],
) -> str:
    keys = "".join(f"<li>{model_key(models, model)}</li>" for model in models)
    parts = [
        f"<header><h1>{escape(title)}</h1><p>{LEAD}</p><ul class='legend'>{keys}</ul></header>",
        phrase_section(metrics, models),
        choice_section(metrics, models),
        trouble_section(metrics, models),
        curve_section(curves),
        item_section(items, models, sounds),
    ]
    return "<main>\n" + "\n".join(part for part in parts if part) + "\n</main>"


def footer(sources: Sequence[Source], seed: int) -> str:
    """What the page was made from, so that it can be made again."""
    read = "".join(
        f"<li><code>{escape(str(s.path))}</code>, {len(s.responses)} responses, SHA-256 {s.digest}…</li>"
        for s in sources
    )
    versions = ", ".join(
        f"{name} {installed(name)}" for name in ("tgsr", "torch", "transformers", "numpy", "soundfile")
    )
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return (
        f"<footer><h2>How this page was made</h2><ul>{read}</ul>"
        f"<p>Seed {seed} chose the items. Intervals: 95 %, bootstrap over clips.</p>"
        f"<p>Command: <code>{escape(command)}</code></p>"
        f"<p>Python {platform.python_version()}, {versions}.</p></footer>"
    )


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from its source folder
        return "(not installed)"


# --- tables ----------------------------------------------------------------------------------------------


def model_key(models: Sequence[str], model: str) -> str:
    return f'<span class="model"><span class="key {tint(models, model)}"></span>{escape(model)}</span>'


def mean_cell(mean: Mean, scale: float = 1.0, digits: int = 3) -> str:
    """A mean over its 95 % interval; how many items are in it where some could not be scored."""
    if mean.value is None:
        return NO_VALUE
    text = f"{scale * mean.value:.{digits}f}"
    if mean.low is not None and mean.high is not None:
        low, high = f"{scale * mean.low:.{digits}f}", f"{scale * mean.high:.{digits}f}"
        text += f"<small>{low} to {high}</small>" if mean.low < 0 else f"<small>{low}–{high}</small>"
    if mean.n_unscored:
        text += f"<small>n = {mean.n}</small>"
    return f"<td>{text}</td>"


def table(caption: str, heads: Sequence[str], groups: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Rows in groups, each under its name; `heads` and rows are markup."""
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    bodies = "".join(
        f'<tbody><tr class="group"><th colspan="{len(heads)}" scope="rowgroup">{escape(name)}</th></tr>'
        f"{''.join(rows)}</tbody>"
        for name, rows in groups
    )
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>{bodies}</table></div>"
    )


def row(head: str, cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{head}</th>{"".join(cells)}</tr>'


def by_split(
    metrics: Metrics, models: Sequence[str], kind: Callable[[GroupScores], T | None]
) -> list[Split[T]]:
    """Splits in order of name; in each, the models that have scores of that kind, in the page's order."""
    names = sorted({split for scores in metrics.models.values() for split in scores.by_split})
    found = []
    for split in names:
        groups = [(model, metrics.models[model].by_split.get(split)) for model in models]
        scored = [(model, s) for model, group in groups if group and (s := kind(group)) is not None]
        if scored:
            found.append((split, scored))
    return found


def panels(
    splits: Sequence[Split[T]],
    models: Sequence[str],
    quantities: Sequence[tuple[str, Callable[[T], Mean], dict[str, float] | None]],
) -> str:
    """A dot panel for each (title, mean, marks)."""
    pictures = [
        dot_panel(
            title,
            {split: [Dot(m, tint(models, m), mean(s)) for m, s in scored] for split, scored in splits},
            marks,
        )
        for title, mean, marks in quantities
    ]
    return f'<div class="panels">{"".join(pictures)}</div>'


def phrase_section(metrics: Metrics, models: Sequence[str]) -> str:
    """Table 1 in small: phrases to be located, by split and model."""
    splits = by_split(metrics, models, lambda group: group.phrase)
    if not splits:
        return ""

    def cells(s: PhraseScores) -> list[str]:
        return [f"<td>{s.n}</td>", mean_cell(s.iou), mean_cell(s.f1), mean_cell(s.high_overlap, 100, 1)]

    groups = [(split, [row(model_key(models, m), cells(s)) for m, s in scored]) for split, scored in splits]
    heads = ["model", "n", "IoU", "F1", "IoU ≥ 0.7 <small>%</small>"]
    return (
        "<section><h2>Where is this phrase said?</h2><p>The first span that a model gives, against the true "
        "one. IoU is the time that both share over the time that either covers.</p>"
        + table("Mean over the phrases, with its 95 % interval", heads, groups)
        + panels(
            splits,
            models,
            [
                ("IoU", lambda s: s.iou, None),
                ("F1", lambda s: s.f1, None),
                ("Share with IoU ≥ 0.7", lambda s: s.high_overlap, None),
            ],
        )
        + "</section>"
    )


def choice_section(metrics: Metrics, models: Sequence[str]) -> str:
    """Stage 2's questions: accuracy, how many timestamps, whether they point at the evidence."""
    splits = by_split(metrics, models, lambda group: group.choice)
    if not splits:
        return ""

    def cells(s: ChoiceScores) -> list[str]:
        chance = NO_VALUE if s.chance is None else f"<td>{100 * s.chance:.1f}</td>"
        return [
            f"<td>{s.n}</td>",
            mean_cell(s.accuracy_official, 100, 1),
            chance,
            mean_cell(s.mentions_official, 1, 2),
            mean_cell(s.share_k1_official, 100, 1),
            mean_cell(s.trace_iou),
        ]

    groups = [(split, [row(model_key(models, m), cells(s)) for m, s in scored]) for split, scored in splits]
    percent = "<small>%</small>"
    heads = ["model", "n", f"accuracy {percent}", f"chance {percent}", "k", f"k = 1 {percent}", "trace IoU"]
    chance = {split: s.chance for split, scored in splits for _, s in scored if s.chance is not None}
    return (
        "<section><h2>Which answer is right, and what supports it?</h2><p>Accuracy and k, the number of "
        "timestamps in a response, are counted as the paper’s authors count them. Trace IoU compares the "
        "cited spans with the evidence; a response without spans has none.</p>"
        + table("Mean over the questions, with its 95 % interval", heads, groups)
        + panels(
            splits,
            models,
            [
                ("Accuracy; dashed: chance", lambda s: s.accuracy_official, chance),
                ("Share with k = 1", lambda s: s.share_k1_official, None),
                ("Trace IoU", lambda s: s.trace_iou, None),
            ],
        )
        + task_table(splits, models)
        + difference_table(metrics, models)
        + "</section>"
    )


def difference_table(metrics: Metrics, models: Sequence[str]) -> str:
    """One model's accuracy less another's on the same questions; nothing where two share none."""
    rows = [
        row(
            f"{model_key(models, d.other)} less {model_key(models, d.model)}",
            [f"<td>{d.n_choices}</td>", mean_cell(d.accuracy_official, 100, 1)],
        )
        for d in metrics.differences
        if d.accuracy_official is not None and {d.model, d.other} <= set(models)
    ]
    if not rows:
        return ""
    caption = "Difference in accuracy on the same questions, in points, with its 95 % interval"
    return table(caption, ["models", "n", "points"], [("all splits", rows)])


def task_table(splits: Sequence[Split[ChoiceScores]], models: Sequence[str]) -> str:
    """Accuracy with a row a task and a column a model; nothing where no question names its task."""
    groups = []
    for split, scored in splits:
        means = {model: s.accuracy_official_by_task for model, s in scored}
        tasks = sorted({task for by_task in means.values() for task in by_task})
        rows = [
            row(
                escape(task),
                [
                    mean_cell(means[model][task], 100, 1) if task in means.get(model, {}) else NO_VALUE
                    for model in models
                ],
            )
            for task in tasks
        ]
        if rows:
            groups.append((split, rows))
    if not groups:
        return ""
    return table("Accuracy by task, %", ["task", *(model_key(models, m) for m in models)], groups)


def trouble_section(metrics: Metrics, models: Sequence[str]) -> str:
    """Responses whose times are missing or impossible: they are in every score above."""
    rows = []
    for model in models:
        group = metrics.models[model].all
        kinds = [s for s in (group.phrase, group.choice) if s is not None]
        counts = [
            sum(s.n for s in kinds),
            sum(s.n_without_span for s in kinds),
            sum(s.n_invalid for s in kinds),
            sum(s.n_past_end for s in kinds),
            len(metrics.models[model].empty),
            len(metrics.models[model].several),
        ]
        rows.append(row(model_key(models, model), [f"<td>{count}</td>" for count in counts]))
    if not rows:
        return ""
    heads = ["model", "responses", "no span", "impossible", "past the end", "empty", "repeated"]
    return (
        "<details><summary>Responses without usable times</summary><p>All of them are scored. Impossible: a "
        "span that ends before it starts. Repeated: questions that the model answered more than once.</p>"
        + table("Number of responses", heads, [("all splits", rows)])
        + "</details>"
    )


# --- curves and items ------------------------------------------------------------------------------------


def curve_section(curves: Sequence[Curve]) -> str:
    if not curves:
        return ""
    return (
        "<section><h2>Learning</h2><p>Points: as logged. Lines: their running mean over a tenth of the run.</p>"
        f'<div class="panels learning">{"".join(map(curve_panel, curves))}</div></section>'
    )


def item_section(items: Sequence[tuple[Asked, str]], models: Sequence[str], sounds: dict[Path, Sound]) -> str:
    head = "<section><h2>Questions, responses and their evidence</h2>"
    if not items:
        return f"{head}<p>There are no responses to show.</p></section>"
    articles = "\n".join(item_html(asked, rule, models, sounds[asked.audio]) for asked, rule in items)
    elements = "".join(sound.element for sound in sounds.values())
    return (
        f"{head}<p>Press a time, or a bar, to hear exactly that. The shaded columns are the true evidence. "
        "A time that cannot be is crossed out. <kbd>space</kbd> pauses and resumes, <kbd>esc</kbd> stops. In "
        "the reasons for showing an item, a located phrase is right from an IoU of 0.7 on.</p>"
        f"\n{articles}\n{elements}</section>"
    )
