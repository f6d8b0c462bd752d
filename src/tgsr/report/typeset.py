"""Tables of numbers, and the four ways to write them down: Markdown, CSV, LaTeX (booktabs) and HTML.

A name comes from a model, a file or a command line: in each language it is text, never markup, and in CSV never a
formula. A number that nobody knows is a dash; in CSV an empty cell.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain
from typing import Any, Literal

from tgsr.statistics.intervals import Mean

DASH = "–"
TICK = "✓"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute, at once or after a blank

# What LaTeX reads as more than itself, and the signs of ours that its fonts lack.
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",  # \textquotedbl is an error in LaTeX's own encoding, OT1
    "[": "{[}",  # after a line's \\ it would be an argument
    "]": "{]}",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "−": "$-$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "✓": r"\checkmark{}",
    "–": r"\textendash{}",
    "…": r"\ldots{}",
}
_MARKDOWN = "\\`*_[]|~"

Number = Mean | float | int | str | None
Better = Literal["higher", "lower"]
Field = str | Callable[[Any], Number]
"""Where a column's numbers come from: the name of a score, or what makes the number out of the scores."""


@dataclass(frozen=True, slots=True)
class Column:
    """How the numbers of one column are written: times `scale`, with `digits` decimals, in `unit`.

    `better` says which of a group's values is set in bold. A value below `least` is written as "< least" (a p-value).
    `with_n` writes beside a mean how many items are in it.
    """

    name: str
    unit: str = ""
    scale: float = 1.0
    digits: int = 3
    better: Better | None = None
    least: float | None = None
    with_n: bool = False

    @property
    def head(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row: its name, and a cell for each of the table's columns."""

    name: str
    cells: tuple[Number, ...]


def model_rows(
    models: Iterable[str], scores: Mapping[str, object], columns: Mapping[Column, Field]
) -> tuple[TableRow, ...]:
    """A row for each of the models that has scores, in the order of the models."""

    def cells(scores: object) -> tuple[Number, ...]:
        fields = columns.values()
        return tuple(field(scores) if callable(field) else getattr(scores, field) for field in fields)

    return tuple(TableRow(model, cells(scores[model])) for model in models if model in scores)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows under one name, which may be empty. `is_ours` is False for numbers that were not measured here."""

    name: str
    rows: tuple[TableRow, ...]
    is_ours: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A table: `key` names its files. ValueError where a row has not one cell a column."""

    key: str
    title: str
    first: str  # the head of the column of names
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in chain.from_iterable(group.rows for group in self.groups):
            if len(row.cells) != len(self.columns):
                problem = f"needs {len(self.columns)} cells, got {len(row.cells)}"
                raise ValueError(f"{self.key}, row {row.name!r}: {problem}")


@dataclass(frozen=True, slots=True)
class Shown:
    """A cell as it is read: the number, its interval "[low, high]", its count; "" for what it has not."""

    text: str
    interval: str = ""
    n: str = ""


def value_of(number: Number) -> float | None:
    """The bare number of a cell; None for text and for what nobody knows."""
    if isinstance(number, Mean):
        return number.value
    return None if number is None or isinstance(number, str) else float(number)


def shown(column: Column, number: Number) -> Shown:
    """The cell in the column's unit and decimals."""
    if isinstance(number, str):
        return Shown(number)
    value = value_of(number)
    if value is None:
        return Shown(DASH)
    if isinstance(number, int):
        return Shown(str(number))
    if column.least is not None and value < column.least:
        return Shown(f"< {column.least:g}")
    text = _written(column, value)
    if not isinstance(number, Mean):
        return Shown(text)
    n = f"n = {number.n}" if column.with_n or number.n_unscored else ""
    if number.low is None or number.high is None:
        return Shown(text, "", n)
    return Shown(text, f"[{_written(column, number.low)}, {_written(column, number.high)}]", n)


def _written(column: Column, value: float) -> str:
    """In the column's unit and decimals; what rounds to 0 has no sign."""
    return f"{round(column.scale * value, column.digits) + 0.0:.{column.digits}f}"


def cells_of(group: Group, columns: Sequence[Column]) -> list[list[tuple[Shown, bool]]]:
    """A group's cells row by row as they are read, and whether each is its column's best: equal ones share the honour.

    No cell is the best in a group of one value, or in a group that was not measured here.
    """
    rows: list[list[tuple[Shown, bool]]] = [[] for _ in group.rows]
    for c, column in enumerate(columns):
        numbers = [row.cells[c] for row in group.rows]
        exact = map(value_of, numbers)
        values = [None if v is None else round(column.scale * v, column.digits) for v in exact]
        known = [value for value in values if value is not None]
        best = max if column.better == "higher" else min
        top = best(known) if column.better and len(known) > 1 and group.is_ours else None
        for row, number, value in zip(rows, numbers, values, strict=True):
            row.append((shown(column, number), top is not None and value == top))
    return rows


def plain(text: str) -> str:
    """On one line, and without what cannot be printed: controls, marks that turn the writing, halves of a pair."""
    spaced = " ".join(text.split())
    return "".join("�" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") else c for c in spaced)


# --- Markdown --------------------------------------------------------------------------------------------


def escape_markdown(text: str) -> str:
    marked = "".join(f"\\{c}" if c in _MARKDOWN else c for c in plain(text))
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown(table: Table, level: int = 2) -> str:
    """The table under its title (of that heading's level), its columns aligned in the source too."""
    cells = [[escape_markdown(text) for text in (table.first, *(column.head for column in table.columns))]]
    for group in table.groups:
        if group.name:
            cells.append([f"*{escape_markdown(group.name)}*", *([""] * len(table.columns))])
        for row, numbers in zip(group.rows, cells_of(group, table.columns), strict=True):
            cells.append([escape_markdown(row.name), *(_markdown_cell(*number) for number in numbers)])
    widths = [max(3, *(len(line[i]) for line in cells)) for i in range(len(cells[0]))]
    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])

    def joined(line: Sequence[str]) -> str:
        padded = [line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"

    rows = [joined(cells[0]), f"|{rule}|", *map(joined, cells[1:])]
    notes = "".join(f"\n{escape_markdown(note)}\n" for note in table.notes)
    return f"{'#' * level} {escape_markdown(table.title)}\n\n" + "\n".join(rows) + "\n" + notes


def _markdown_cell(cell: Shown, is_best: bool) -> str:
    text = escape_markdown(cell.text)
    parts = [f"**{text}**" if is_best else text, cell.interval, cell.n]
    return " ".join(part for part in parts if part)


# --- CSV -------------------------------------------------------------------------------------------------


def csv_text(table: Table) -> str:
    """One header, then a line a row with its group: for each column the number, and where it is a mean also its low,
    high and n. Numbers are in the column's unit, to six digits.

    Text that begins like a formula gets an apostrophe before it, as spreadsheets ask for.
    """
    rows = [row.cells for group in table.groups for row in group.rows]
    with_mean = [any(isinstance(row[c], Mean) for row in rows) for c in range(len(table.columns))]
    head = ["group", table.first]
    for column, is_mean in zip(table.columns, with_mean, strict=True):
        head += [column.head, *(f"{column.head} {what}" for what in ("low", "high", "n") if is_mean)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for group in table.groups:
        for row in group.rows:
            cells = [_csv_word(group.name), _csv_word(row.name)]
            for c, column in enumerate(table.columns):
                cells += _csv_cells(column, row.cells[c], with_mean[c])
            writer.writerow(cells)
    return out.getvalue()


def _csv_cells(column: Column, number: Number, is_mean: bool) -> list[str]:
    if isinstance(number, str):
        first = _csv_word(number)
    elif isinstance(number, int):
        first = str(number)
    else:
        value = value_of(number)
        first = "" if value is None else f"{column.scale * value:.6g}"
    if not isinstance(number, Mean):
        return [first, *([""] * 3 if is_mean else [])]
    ends = ["" if end is None else f"{column.scale * end:.6g}" for end in (number.low, number.high)]
    return [first, *ends, str(number.n)]


def no_formula(text: str) -> str:
    """The text of a CSV's cell: with an apostrophe before it where a spreadsheet would compute it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv_word(text: str) -> str:
    return no_formula(plain(text))


# --- LaTeX -----------------------------------------------------------------------------------------------


def escape_latex(text: str) -> str:
    escaped = "".join(_LATEX.get(c, c) for c in plain(text))
    return re.sub(r"([-'`])(?=\1)", r"\1{}", escaped)  # two of them are read as one sign


def latex(table: Table) -> str:
    """A table float of booktabs' rules. Its preamble needs booktabs and amssymb."""
    width = len(table.columns) + 1
    head = " & ".join(escape_latex(text) for text in (table.first, *(c.head for c in table.columns)))
    lines = [
        "% \\usepackage{booktabs,amssymb}",
        "\\begin{table}[t]",
        "\\centering",
        f"\\caption{{{escape_latex(table.title)}}}",
        f"\\label{{tab:{table.key}}}",
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        "\\toprule",
        f"{head} \\\\",
    ]
    for group in table.groups:
        lines.append("\\midrule")
        if group.name:
            lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\emph{{{escape_latex(group.name)}}}}} \\\\")
        for row, numbers in zip(group.rows, cells_of(group, table.columns), strict=True):
            cells = [escape_latex(row.name), *(_latex_cell(*number) for number in numbers)]
            lines.append(f"{' & '.join(cells)} \\\\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    lines += [f"\\par\\smallskip{{\\footnotesize {escape_latex(note)}}}" for note in table.notes]
    return "\n".join([*lines, "\\end{table}", ""])


def _latex_cell(cell: Shown, is_best: bool) -> str:
    text = escape_latex(cell.text)
    text = f"\\textbf{{{text}}}" if is_best else text
    beside = " ".join(escape_latex(part) for part in (cell.interval, cell.n) if part)
    return f"{text} {{\\scriptsize {beside}}}" if beside else text


# --- HTML ------------------------------------------------------------------------------------------------


def html(table: Table, names: dict[str, str] | None = None) -> str:
    """The table in a box of its own that scrolls, on a phone a block a row, whose cells say their column themselves.

    `names` gives markup for row names that have one (a colour key).
    """
    names = names or {}
    heads = [escape(plain(table.first))]
    for column in table.columns:
        gap = "&nbsp;" if len(column.unit) < 3 else " "  # a short unit never stands on a line alone
        unit = f"{gap}<small>{escape(column.unit)}</small>" if column.unit else ""
        heads.append(escape(plain(column.name)) + unit)
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    bodies = []
    for group in table.groups:
        rows = []
        if group.name:
            name = f"<span>{escape(plain(group.name))}</span>"
            rows.append(f'<tr class="group"><th colspan="{len(heads)}" scope="rowgroup">{name}</th></tr>')
        for row, numbers in zip(group.rows, cells_of(group, table.columns), strict=True):
            of_columns = zip(table.columns, numbers, strict=True)
            cells = "".join(_html_cell(plain(column.head), *number) for column, number in of_columns)
            name = names.get(row.name, escape(plain(row.name))) if group.is_ours else escape(plain(row.name))
            rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    notes = "".join(f'<p class="soft">{escape(plain(note))}</p>' for note in table.notes)
    label = escape(plain(table.title))
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{label}"><table><caption>{label}</caption>'
        f"<thead><tr>{head}</tr></thead>{''.join(bodies)}</table></div>{notes}"
    )


def _html_cell(column: str, cell: Shown, is_best: bool) -> str:
    head = f'data-head="{escape(column)}"'
    if cell.text == DASH:
        return f'<td class="none" {head}>{DASH}</td>'
    text = f"<b>{escape(plain(cell.text))}</b>" if is_best else escape(plain(cell.text))
    beside = "".join(f"<small>{escape(part)}</small>" for part in (cell.interval, cell.n) if part)
    return f"<td {head}>{text}{beside}</td>"
