"""A run as one HTML file to look at and listen to: tables, curves, items with their sound.

Nothing is loaded from elsewhere: sound, pictures, style and script are inside, and the page's policy lets no other
script run. What models wrote is text, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import platform
import shlex
import sys
from collections.abc import Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from itertools import permutations
from pathlib import Path

from tgsr.disk.whole import write_whole
from tgsr.evaluation.scoring.spoken import Spoken
from tgsr.report import typeset
from tgsr.report.figures import dot_panel, line_panel, scatter_panel
from tgsr.report.items import Answered, EmbeddedSound, choose_items, group_by_question, item_html, sound_of
from tgsr.report.results import Results
from tgsr.report.sections import Example, Section
from tgsr.statistics.pictures import tint

LEAD = (
    "Audio-language models were asked about recordings and cite the seconds that support their answers: how "
    "well those times and answers agree with the recordings, and some responses to listen to."
)


def write_page(
    out: Path, results: Results, sections: Sequence[Section], *, title: str, n_items: int = 8, seed: int = 0
) -> None:
    """Writes the page, whole or not at all; missing folders are made.

    `n_items` questions are shown with their sound; `seed` chooses them. Files that could not be read, and questions
    whose audio cannot be, are said so on the page.
    """
    asked = group_by_question((source.path, source.responses) for source in results.sources)
    answering = {response.model for response in results.responses}
    items = choose_items(asked, [model for model in results.models if model in answering], n_items, seed)
    write_document(out, title, page_parts(title, results, sections, items), footer(results, seed))


# --- the document ----------------------------------------------------------------------------------------


def write_document(
    out: Path, title: str, parts: Sequence[str], after: str = "", more_style: str = ""
) -> None:
    """Writes the page around its parts. Its policy names our styles and script by their hashes: no others count."""
    folder = files("tgsr") / "report"
    style, script = (f"\n{(folder / name).read_text(encoding='utf-8')}" for name in ("page.css", "page.js"))
    styles = [text for text in (style, more_style) if text]
    hashes = " ".join(f"'{content_hash(text)}'" for text in styles)
    policy = (
        f"default-src 'none'; style-src {hashes}; script-src '{content_hash(script)}'; "
        "media-src data:; img-src data:; base-uri 'none'; form-action 'none'"
    )
    elements = "\n".join(f"<style>{text}</style>" for text in styles)
    main = "\n".join(part for part in parts if part)
    html = (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n{elements}\n<body>\n<main>\n{main}\n</main>{after}\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )
    # half of a surrogate pair, which JSON and a model's text may hold, has no UTF-8
    write_whole(out, html.encode("utf-8", errors="xmlcharrefreplace"))


def content_hash(text: str) -> str:
    """The text's SHA-256 as a content security policy states it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def page_parts(
    title: str, results: Results, sections: Sequence[Section], items: Sequence[tuple[Answered, str]]
) -> list[str]:
    models = results.models
    keys = "".join(f"<li>{model_key(models, model)}</li>" for model in models)
    legend = f'<ul class="legend">{keys}</ul>' if keys else ""
    return [
        f"<header><h1>{escape(title)}</h1><p>{LEAD}</p>{legend}</header>",
        note_box(results.notes),
        *(section_html(section, models) for section in sections),
        item_section(items, models, results.spoken),
    ]


def note_box(notes: Sequence[str]) -> str:
    """What is not on the page, where nobody can miss it; nothing where all was read."""
    if not notes:
        return ""
    listed = "".join(f"<li>{escape(typeset.plain(note))}</li>" for note in notes)
    return f'<aside class="notes"><h2>Not everything could be read</h2><ul>{listed}</ul></aside>'


def footer(results: Results, seed: int) -> str:
    """What the page was made from, so that it can be made again."""
    read = "".join(
        f"<li><code>{escape(str(s.path))}</code>, {len(s.responses) + len(s.rows)} responses, "
        f"SHA-256 {s.digest}…</li>"
        for s in results.sources
    )
    read += "".join(f"<li><code>{escape(str(path))}</code></li>" for path in results.others)
    packages = ("tgsr", "torch", "transformers", "numpy", "soundfile")
    versions = ", ".join(f"{name} {installed(name)}" for name in packages)
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


# --- sections --------------------------------------------------------------------------------------------


def model_key(models: Sequence[str], model: str) -> str:
    return key(model, tint(models, model))


def key(name: str, colour: str) -> str:
    return f'<span class="model"><span class="key {colour}"></span>{escape(name)}</span>'


def section_html(section: Section, models: Sequence[str]) -> str:
    """Heading, lead, tables, legend and pictures; a folded one opens at a press."""
    names = {model: model_key(models, model) for model in models}
    for one, other in permutations(models, 2):
        names[f"{one} less {other}"] = f"{names[one]} <span>less</span> {names[other]}"
    parts = [sentence_list("warnings", section.warnings), sentence_list("findings", section.findings)]
    if section.scatters:
        parts.append(f'<div class="panels">{"".join(map(scatter_panel, section.scatters))}</div>')
    parts += [typeset.html(table, names) for table in section.tables]
    if any(colour for _, colour in section.keys):
        listed = "".join(f"<li>{key(name, colour)}</li>" for name, colour in section.keys)
        parts.append(f'<ul class="legend">{listed}</ul>')
    if section.dots:
        parts.append(f'<div class="panels">{"".join(map(dot_panel, section.dots))}</div>')
    if section.lines:
        parts.append(f'<div class="panels learning">{"".join(map(line_panel, section.lines))}</div>')
    parts += [image_html(path) for path in section.images]
    parts.append(example_list(section.examples))
    body = f"<p>{escape(section.lead)}</p>{''.join(parts)}"
    if section.is_folded:
        return f"<details><summary>{escape(section.title)}</summary>{body}</details>"
    return f'<section id="{section.key}"><h2>{escape(section.title)}</h2>{body}</section>'


def sentence_list(kind: str, sentences: Sequence[str]) -> str:
    listed = "".join(f"<li>{escape(typeset.plain(sentence))}</li>" for sentence in sentences)
    return f'<ul class="{kind}">{listed}</ul>' if sentences else ""


def example_list(examples: Sequence[Example]) -> str:
    """Under each title the ids of its questions, as links to those that are on the page."""
    listed = []
    for example in examples:
        ids = [
            escape(id_) if anchor is None else f'<a href="#{anchor}">{escape(id_)}</a>'
            for id_, anchor in zip(example.ids, example.anchors, strict=True)
        ]
        listed.append(f"<li>{escape(example.title)}: {', '.join(ids)}</li>")
    return f'<h3>Examples</h3><ul class="findings">{"".join(listed)}</ul>' if listed else ""


def image_html(path: Path) -> str:
    """A PNG that another command drew, inside the page and folded: our own pictures come first."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    name = escape(path.name)
    return (
        f"<details><summary>{name}</summary><div class='wide'>"
        f'<img alt="{name}" src="data:image/png;base64,{data}" /></div></details>'
    )


def anchor_of(place: int) -> str:
    """Where the item of that place, from 0, stands on the page."""
    return f"item-{place + 1}"


def item_section(items: Sequence[tuple[Answered, str]], models: Sequence[str], spoken: Spoken) -> str:
    head = '<section id="items"><h2>Questions, responses and their evidence</h2>'
    if not items:
        return f"{head}<p>There are no responses to show.</p></section>"
    sounds: dict[Path, EmbeddedSound] = {}
    articles = "\n".join(
        item_html(asked, rule, models, sound_of(asked.audio, sounds), spoken, anchor_of(place))
        for place, (asked, rule) in enumerate(items)
    )
    elements = "".join(sound.element for sound in sounds.values())
    return (
        f"{head}<p>Press a time, or a bar, to hear exactly that. The shaded columns are the true evidence. "
        "A time that cannot be is crossed out. Below a response stands what each cited place "
        "holds. <kbd>space</kbd> pauses and resumes, <kbd>esc</kbd> stops. A located "
        "phrase is right from an IoU of 0.7 on; best and worst go by IoU, for choices by accuracy and trace IoU."
        f"</p>\n{articles}\n{elements}</section>"
    )
