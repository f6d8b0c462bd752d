"""A run as one HTML file to look at and listen to: tables, curves, items with their sound.

Nothing is loaded from elsewhere; sound and script are inside. What models wrote is text, never markup.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import numpy as np

from tgsr import audio
from tgsr.choices import letter, official_letter
from tgsr.evaluation.grounding import Mean, item_iou
from tgsr.evaluation.score import ChoiceScores, Metrics, PhraseScores, read_predictions, score
from tgsr.grounding import find_mentions, find_spans
from tgsr.records import Question, Response, repair_jsonl, resolve_audio
from tgsr.timeline import END_SLACK
from tgsr.training.checkpoints import write_atomically

WIDTH, LEFT, WAVE, LANE = 880, 120, 84, 20  # of an item's picture, in its own units


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity against training steps; x and y are of one length."""

    name: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One question with each model's response, and the rule by which it was chosen for the page."""

    question: Question
    responses: tuple[Response, ...]
    file: Path
    chosen: str


def read_curves(log: Path, names: Sequence[str]) -> list[Curve]:
    """The named quantities of a training log, each against its step; those that it lacks are left out."""
    repair_jsonl(log)
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    curves = []
    for name in names:
        points = [(float(r["step"]), float(r[name])) for r in rows if r.get(name) is not None]
        if points:
            curves.append(Curve(name, "step", name, tuple(x for x, _ in points), tuple(y for _, y in points)))
    return curves


def write_page(
    out: Path,
    predictions: Sequence[Path],
    curves: Sequence[Curve],
    *,
    title: str,
    n_items: int = 8,
    seed: int = 0,
) -> None:
    """Scores the prediction files of ours and writes the page, whole or not at all."""
    scored = [score(read_predictions(path), file=str(path)) for path in predictions]
    by_file = [(path, read_predictions(path).responses) for path in predictions]
    models = list(dict.fromkeys(r.model for _, responses in by_file for r in responses))
    items = choose_items(by_file, models, n_items, seed)
    parts = [
        f"<h1>{escape(title)}</h1>",
        "<p>How well each model's times and answers agree with the recordings, and some of its responses "
        "with the seconds that they cite. Press a time to hear just that.</p>",
        *phrase_section(scored, models),
        *choice_section(scored, models),
        *curve_section(curves),
        "<h2>Questions, answers and their evidence</h2>",
        *(item_html(item, models) for item in items),
        footer(predictions, seed),
    ]
    write_atomically(out, document(title, "\n".join(parts)).encode("utf-8"))


def document(title: str, body: str) -> str:
    here = files("tgsr") / "report"
    style, script = (here / name for name in ("page.css", "page.js"))
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; media-src data:"
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style.read_text()}</style>\n"
        f"<body>\n{body}\n<script>\n{script.read_text()}</script>\n</body>\n</html>\n"
    )


def footer(predictions: Sequence[Path], seed: int) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("tgsr", "torch", "transformers"))
    read = ", ".join(escape(str(path)) for path in predictions)
    return f"<footer>Read: {read}. Items chosen with seed {seed}. {versions}.</footer>"


# --- tables ----------------------------------------------------------------------------------------------


def colour(models: Sequence[str], model: str) -> str:
    return f"var(--m{models.index(model) % 5})"


def model_cell(models: Sequence[str], model: str) -> str:
    return f'<td><span class="key" style="background:{colour(models, model)}"></span>{escape(model)}</td>'


def mean_cell(mean: Mean, scale: float = 1.0, digits: int = 3) -> str:
    if mean.value is None:
        return "<td>-</td>"
    text = f"{scale * mean.value:.{digits}f}"
    if mean.low is not None and mean.high is not None:
        text += f" <small>[{scale * mean.low:.{digits}f}, {scale * mean.high:.{digits}f}]</small>"
    return f"<td>{text}</td>"


def table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def phrase_section(scored: Sequence[Metrics], models: Sequence[str]) -> list[str]:
    """Table 1 in small: phrases to be located, by split and model."""
    found = [
        (split, model, group.phrase)
        for metrics in scored
        for model, scores in metrics.models.items()
        for split, group in scores.by_split.items()
        if group.phrase is not None
    ]
    if not found:
        return []

    def row(split: str, model: str, phrase: PhraseScores) -> str:
        cells = mean_cell(phrase.iou) + mean_cell(phrase.f1) + mean_cell(phrase.high_overlap, 100, 1)
        return f"<tr><td>{escape(split)}</td>{model_cell(models, model)}<td>{phrase.n}</td>{cells}</tr>"

    rows = [row(*entry) for entry in sorted(found, key=lambda e: (e[0], models.index(e[1])))]
    return [
        "<h2>Where is this phrase said?</h2>",
        "<p>Intersection over union of the predicted and the true span; 95 % intervals over clips.</p>",
        table(["split", "model", "n", "IoU", "F1", "IoU ≥ 0.7 (%)"], rows),
    ]


def choice_section(scored: Sequence[Metrics], models: Sequence[str]) -> list[str]:
    """Stage 2's questions: accuracy, how many timestamps, whether they point at the evidence."""
    found = [
        (split, model, group.choice)
        for metrics in scored
        for model, scores in metrics.models.items()
        for split, group in scores.by_split.items()
        if group.choice is not None
    ]
    if not found:
        return []

    def row(split: str, model: str, choice: ChoiceScores) -> str:
        cells = mean_cell(choice.accuracy_official, 100, 1)
        cells += f"<td>{'-' if choice.chance is None else f'{100 * choice.chance:.0f}'}</td>"
        cells += mean_cell(choice.mentions_official, 1, 2) + mean_cell(choice.share_k1_official, 100, 1)
        cells += mean_cell(choice.trace_iou)
        return f"<tr><td>{escape(split)}</td>{model_cell(models, model)}<td>{choice.n}</td>{cells}</tr>"

    def by_task(split: str, model: str, choice: ChoiceScores, tasks: Sequence[str]) -> str:
        means = choice.accuracy_official_by_task
        cells = "".join(mean_cell(means[t], 100, 0) if t in means else "<td>-</td>" for t in tasks)
        return f"<tr><td>{escape(split)}</td>{model_cell(models, model)}{cells}</tr>"

    found.sort(key=lambda e: (e[0], models.index(e[1])))
    tasks = sorted({task for _, _, choice in found for task in choice.accuracy_official_by_task})
    heads = ["split", "model", "n", "accuracy (%)", "chance", "k", "k = 1 (%)", "trace IoU"]
    return [
        "<h2>Which answer is right, and what supports it?</h2>",
        "<p>k counts the timestamps that a response cites, by the paper's official counter; trace IoU "
        "compares them with the evidence.</p>",
        table(heads, [row(*entry) for entry in found]),
        "<p class='soft'>Accuracy (%) by task</p>",
        table(["split", "model", *tasks], [by_task(*entry, tasks) for entry in found]),
    ]


# --- curves ----------------------------------------------------------------------------------------------


def curve_section(curves: Sequence[Curve]) -> list[str]:
    if not curves:
        return []
    return ["<h2>Learning</h2>", f'<div class="curves">{"".join(map(curve_html, curves))}</div>']


def smoothed(y: Sequence[float]) -> list[float]:
    """A running mean over a twentieth of the points on each side."""
    half = max(1, len(y) // 20)
    return [float(np.mean(y[max(0, i - half) : i + half + 1])) for i in range(len(y))]


def curve_html(curve: Curve) -> str:
    width, height, left, bottom = 260, 130, 40, 18
    low, high = min(curve.y), max(curve.y)
    spread = (high - low) or 1.0
    last = max(curve.x) or 1.0

    def points(values: Sequence[float]) -> str:
        return " ".join(
            f"{left + (width - left - 6) * x / last:.1f},{6 + (height - bottom - 12) * (high - y) / spread:.1f}"
            for x, y in zip(curve.x, values, strict=True)
        )

    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(curve.name)}">'
        f'<polyline points="{points(curve.y)}" fill="none" stroke="var(--line)"/>'
        f'<polyline points="{points(smoothed(curve.y))}" fill="none" stroke="var(--m1)" stroke-width="1.8"/>'
        f'<text x="0" y="14">{high:.3g}</text><text x="0" y="{height - bottom}">{low:.3g}</text>'
        f'<text x="{left}" y="{height - 3}">0</text>'
        f'<text x="{width - 4}" y="{height - 3}" text-anchor="end">{curve.x_label} {last:.0f}</text></svg>'
        f"<figcaption>{escape(curve.name)}</figcaption></figure>"
    )


# --- items -----------------------------------------------------------------------------------------------


def quality(response: Response) -> float:
    """IoU for a phrase, 1 or 0 for a choice: only to choose what the page shows."""
    question = response.question
    if question.kind == "phrase":
        spans = find_spans(response.text)
        return item_iou(spans[:1], question.evidence[0]) if question.evidence else 0.0
    right = letter(question.choices.index(str(question.answer)))
    return float(official_letter(response.text) == right)


def choose_items(
    by_file: Sequence[tuple[Path, Sequence[Response]]], models: Sequence[str], n_items: int, seed: int
) -> list[Item]:
    """A third where the last model is right and the first wrong, a third where the last is wrong, the rest random."""
    grouped: dict[str, list[Response]] = {}
    file_of: dict[str, Path] = {}
    for path, responses in by_file:
        for response in responses:
            grouped.setdefault(response.question.id, []).append(response)
            file_of.setdefault(response.question.id, path)
    rng = np.random.default_rng(seed)
    order = [list(grouped)[i] for i in rng.permutation(len(grouped))]

    def by_model(identity: str) -> dict[str, float]:
        return {r.model: quality(r) for r in grouped[identity]}

    qualities = {identity: by_model(identity) for identity in order}
    first, last = (models[0], models[-1]) if models else ("", "")
    better = [i for i in order if qualities[i].get(last, 0) >= 0.7 > 0.5 > qualities[i].get(first, 1)]
    worse = [i for i in order if qualities[i].get(last, 1) < 0.5]
    chosen: dict[str, str] = {}
    for rule, candidates, share in (
        (f"{last} right, {first} wrong", better, n_items // 3),
        (f"{last} wrong", worse, n_items // 3),
        ("at random", order, n_items),
    ):
        kinds = sorted(candidates, key=lambda i: grouped[i][0].question.kind != "choice")
        mixed = (
            [i for pair in zip(kinds, reversed(kinds), strict=True) for i in pair]
            if rule != "at random"
            else order
        )
        for identity in mixed:
            if len(chosen) >= n_items or sum(r == rule for r in chosen.values()) >= share:
                break
            chosen.setdefault(identity, rule)
    return [
        Item(
            grouped[i][0].question,
            tuple(sorted(grouped[i], key=lambda r: models.index(r.model))),
            file_of[i],
            rule,
        )
        for i, rule in chosen.items()
    ]


def item_html(item: Item, models: Sequence[str]) -> str:
    question = item.question
    asked = (
        f"Where is “{escape(str(question.phrase))}” said?"
        if question.kind == "phrase"
        else escape(question.question)
    )
    parts = [f"<h3>{asked}</h3>"]
    if question.choices:
        options = "".join(
            f"<li{' class=right' if text == question.answer else ''}>({letter(i)}) {escape(text)}</li>"
            for i, text in enumerate(question.choices)
        )
        parts.append(f'<ul class="choices" aria-label="choices, the right one underlined">{options}</ul>')
    path = resolve_audio(question, item.file)
    try:
        samples = audio.load(path)
    except audio.AudioError as error:
        parts.append(f'<p class="soft">No sound here: {escape(str(error))}</p>')
    else:
        encoded = base64.b64encode(audio.wav_bytes(samples)).decode()
        parts.append(picture(item, models, samples))
        parts.append(f'<audio preload="metadata" src="data:audio/wav;base64,{encoded}"></audio>')
        parts.append(
            f'<p class="whole"><button data-start="0" data-end="{question.duration}">play the whole clip</button></p>'
        )
    parts += [response_html(response, models) for response in item.responses]
    parts.append(
        f'<p class="soft">{escape(question.id)}, {escape(question.split)}; shown because: {escape(item.chosen)}</p>'
    )
    return f'<section class="item" data-duration="{question.duration}">{"".join(parts)}</section>'


def response_html(response: Response, models: Sequence[str]) -> str:
    """The text with each interval as a button that plays it; impossible intervals are crossed out."""
    text, position, pieces = response.text, 0, []
    for mention in find_mentions(text):
        pieces.append(escape(text[position : mention.text_start]))
        cited = escape(text[mention.text_start : mention.text_end])
        if mention.span is not None and mention.start < response.question.duration:
            pieces.append(
                f'<button data-start="{mention.start}" data-end="{mention.end}" '
                f'aria-label="play {mention.start} to {mention.end} seconds">{cited}</button>'
            )
        else:
            pieces.append(
                f'<s class="invalid" title="not inside the clip, or ends before it starts">{cited}</s>'
            )
        position = mention.text_end
    pieces.append(escape(text[position:]))
    tint = colour(models, response.model)
    name = f'<b style="color:{tint}">{escape(response.model)}</b>'
    return f'<div class="response" style="border-color:{tint}">{name}{"".join(pieces)}</div>'


def picture(item: Item, models: Sequence[str], samples: np.ndarray) -> str:
    """The waveform, the evidence below it, and a lane for each model's spans."""
    duration = item.question.duration
    scale = (WIDTH - LEFT) / duration
    lanes = [("evidence", "var(--truth)", list(item.question.evidence))]
    lanes += [(r.model, colour(models, r.model), find_spans(r.text)) for r in item.responses]
    height = WAVE + LANE * len(lanes) + 20
    parts = [f'<path class="wave" d="{wave_path(samples)}"/>']
    for row, (name, tint, spans) in enumerate(lanes):
        top = WAVE + LANE * row
        parts.append(f'<text x="0" y="{top + 13}">{escape(name[:18])}</text>')
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{top + 9}" y2="{top + 9}" stroke="var(--line)"/>')
        for span in dict.fromkeys(spans):
            if span.start >= duration:
                continue
            late = ' opacity="0.45"' if span.end > duration + END_SLACK else ""
            parts.append(
                f'<rect class="band" tabindex="0" role="button" x="{LEFT + span.start * scale:.1f}" y="{top + 3}" '
                f'width="{max(2.0, (min(span.end, duration) - span.start) * scale):.1f}" height="12" rx="2" '
                f'fill="{tint}"{late} data-start="{span.start}" data-end="{span.end}" '
                f'aria-label="{escape(name)}: play {span.start:.2f} to {span.end:.2f} seconds"/>'
            )
    step = 1 if duration <= 12 else round(duration / 10)
    for second in range(0, int(duration) + 1, step):
        x = LEFT + second * scale
        parts.append(f'<text x="{x:.1f}" y="{height - 4}" text-anchor="middle">{second}</text>')
    parts.append(
        f'<line class="head" data-left="{LEFT}" data-width="{WIDTH - LEFT}" x1="{LEFT}" x2="{LEFT}" y1="0" '
        f'y2="{height - 16}"/>'
    )
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="group" aria-label="waveform and spans">{"".join(parts)}</svg>'


def wave_path(samples: np.ndarray) -> str:
    """The waveform's outline as one closed path, scaled to the loudest sample."""
    n = 400
    stretches = audio.peaks(samples, n)
    loudest = max(1e-6, *(max(abs(low), abs(high)) for low, high in stretches))
    middle, reach = WAVE / 2, WAVE / 2 - 4
    xs = [LEFT + (WIDTH - LEFT) * (i + 0.5) / n for i in range(n)]
    upper = [
        f"{x:.1f},{middle - reach * high / loudest:.1f}" for x, (_, high) in zip(xs, stretches, strict=True)
    ]
    lower = [
        f"{x:.1f},{middle - reach * low / loudest:.1f}" for x, (low, _) in zip(xs, stretches, strict=True)
    ]
    return "M" + " L".join([*upper, *reversed(lower)]) + " Z"
