"""Excel's workbooks (.xlsx), read by openpyxl, which is installed only where somebody has one."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tgsr.errors import MissingPackage, RecordError, install

ZIP, OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
AS_XLSX = "save it as .xlsx or as CSV UTF-8"


def is_workbook(path: Path) -> bool:
    """Whether a spreadsheet program saved the file in a format of its own, told by what it holds, not by its name."""
    with path.open("rb") as file:
        return file.read(4) in (ZIP, OLE)


def sheet_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of the only sheet that has some, each with its number; blank rows are skipped, blank cells are "".

    Values are texts: 1.5 is "1.5" in every country, 12.0 is "12", a time is "0:10:44.500" or "2026-11-29", true is
    "TRUE". Of a formula the value that the program last computed.

    Raises MissingPackage without openpyxl, RecordError for what is no workbook of Excel 2007 or later, is encrypted or
    damaged, and for one with several sheets that hold rows.
    """
    where = str(path)
    with path.open("rb") as file:
        if file.read(4) == OLE:
            problem = "is a workbook of Excel before 2007, or has a password"
            raise RecordError(None, problem, where, remedy=f"{AS_XLSX}, without a password")
        try:
            import openpyxl
        except ImportError:
            raise MissingPackage(f"{path}: Excel's files need openpyxl, {install('excel')}") from None
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            problem = f"is no workbook that can be read ({error!s:.80})"
            raise RecordError(None, problem, where, remedy=AS_XLSX) from None
        filled = []
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # what a file says of its own size is often wrong
            if any(any(value is not None for value in row) for row in sheet.iter_rows(values_only=True)):
                filled.append(sheet)
        if len(filled) > 1:
            problem = f"has {len(filled)} sheets with rows: {', '.join(sheet.title for sheet in filled)}"
            raise RecordError(None, problem, where, remedy="save the one that is meant in a file of its own")
        for sheet in filled:
            for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
                values = [_text(value) for value in row]
                while values and not values[-1]:
                    values.pop()
                if values:
                    yield number, values


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, str):
        from openpyxl.utils.escape import unescape

        return str(unescape(value)).replace("\r\n", "\n").replace("\r", "\n")
    return str(value)
