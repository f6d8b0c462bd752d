"""`tgsr report` and `tgsr tables`: from run folders to a page, a report in Markdown, and tables in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tgsr.disk.whole import write_whole
from tgsr.report.page import LEAD, write_page
from tgsr.report.paper import notes_md, paper_tables, write_tables
from tgsr.report.read import find_files
from tgsr.report.results import Results, gather
from tgsr.report.sections import Section, sections
from tgsr.report.typeset import escape_markdown, markdown
from tgsr.statistics.pictures import dots_png, lines_png, scatters_png

ERRORS = ".errors.jsonl"


def report(
    runs: Sequence[Path],
    out: Path,
    *,
    title: str,
    n_items: int = 8,
    seed: int = 0,
    rows: Sequence[str] = (),
    sta: Sequence[str] = (),
    published: bool = False,
    clips: Sequence[Path] = (),
    audio: Path | None = None,
) -> Path:
    """Writes the page, and returns its path.

    Where `out` ends in .html it is the page, and all that is written. Otherwise it is a folder: index.html, report.md
    with its pictures, and tables/. Rows that could not be read go to errors.jsonl there, or beside the page. `rows`,
    `sta`, `published` and `clips` as `tables` takes them; `audio` is the folder that sound has moved to. Raises as
    `gather` does.
    """
    is_page = out.suffix.lower() in (".html", ".htm") and not out.is_dir()
    errors = out.with_name(out.name + ERRORS) if is_page else out / ERRORS[1:]
    results = gather(runs, rows, seed, errors, clips, audio)
    tables = paper_tables(results, sta, published=published)
    parts = sections(results, tables)
    page = out if is_page else out / "index.html"
    write_page(page, results, parts, title=title, n_items=n_items, seed=seed)
    if not is_page:
        write_tables(tables, out / "tables", results.notes)
        write_markdown(out, results, parts, title)
    return page


def tables(
    runs: Sequence[Path],
    out: Path,
    *,
    rows: Sequence[str] = (),
    sta: Sequence[str] = (),
    published: bool = False,
    seed: int = 0,
    clips: Sequence[Path] = (),
) -> tuple[list[Path], str]:
    """Writes the tables into the folder `out`; returns their files, and all of them as Markdown.

    `rows` are LABEL=MODEL, in order; `sta` the models that table 1 ticks; `published` adds the paper's own numbers in
    groups of their own; `clips` are files with the clips' words. Raises as `gather` does.
    """
    results = gather(runs, rows, seed, out / ERRORS[1:], clips)
    made = paper_tables(results, sta, published=published)
    written = write_tables(made, out, results.notes)
    return written, written[-1].read_text(encoding="utf-8")


def prediction_files(runs: Sequence[Path]) -> list[Path]:
    """The files among `runs`, and predictions*.jsonl in and below the folders; FileNotFoundError for none."""
    found = [path for path in find_files(runs)["predictions"] if path.suffix == ".jsonl" or path in runs]
    if not found:
        raise FileNotFoundError(
            f"{', '.join(map(str, runs))}: no prediction file (predictions*.jsonl); make one with `tgsr predict`"
        )
    return found


def write_markdown(out: Path, results: Results, parts: Sequence[Section], title: str) -> None:
    """report.md in the folder `out`: the page's tables, and its pictures as PNG beside it."""
    lines = [f"# {escape_markdown(title)}\n", f"{LEAD}\n", "The same with sound: [index.html](index.html).\n"]
    lines += notes_md(results.notes)
    for section in parts:
        lines += [f"## {section.title}\n", f"{section.lead}\n"]
        lines += [f"- **{escape_markdown(warning)}**\n" for warning in section.warnings]
        lines += [f"- {escape_markdown(finding)}" for finding in section.findings]
        lines += [""] if section.findings else []
        if section.scatters:
            scatters_png(section.scatters, out / f"{section.key}-places.png")
            lines.append(f"![{section.title}]({section.key}-places.png)\n")
        lines += [markdown(table, level=3) for table in section.tables]
        lines += [f"![{section.title}]({name})\n" for name in section_pictures(section, out)]
        for example in section.examples:
            lines.append(f"- {escape_markdown(example.title)}: {escape_markdown(', '.join(example.ids))}")
        lines += [""] if section.examples else []
    lines.append("Intervals are 95 %, bootstrap over clips.\n")
    write_whole(out / "report.md", "\n".join(lines))


def section_pictures(section: Section, out: Path) -> list[str]:
    """The section's pictures as PNG in `out`, by name: dots, lines, and those that another command drew."""
    names = []
    if section.dots:
        names.append(f"{section.key}.png")
        dots_png(section.dots, out / names[-1])
    if section.lines:
        names.append(f"{section.key}-lines.png")
        lines_png(section.lines, out / names[-1])
    for i, path in enumerate(section.images):
        names.append(f"{section.key}-as-drawn{f'-{i + 1}' if i else ''}.png")
        if path.resolve() != (out / names[-1]).resolve():
            write_whole(out / names[-1], path.read_bytes())
    return names
