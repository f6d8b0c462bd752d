"""CoVoST 2: Common Voice's clips/ and, in the same folder, covost_v2.SOURCE_TARGET.SPLIT.tsv with translations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tgsr.data.corpora.folders import NOTHING, Given, clips, described, locate, sound
from tgsr.disk.rows import Entry, OnDisk, require_columns, table
from tgsr.errors import Bad, CorpusError
from tgsr.records import Clip

COLUMNS = ("path", "sentence", "translation", "client_id")
TABLE = re.compile(r"covost_v2\.([\w-]+)_([\w-]+)\.(train|dev|test)\.tsv")
SOURCE = "CoVoST 2"
LICENCE = "CC0 1.0"


def read(folder: Path, given: Given = NOTHING) -> Iterator[Clip | Bad]:
    """Every row of every covost_v2.SOURCE_TARGET.SPLIT.tsv in the folder, in order of file name.

    The translation and the language it is in are the labels "translation" and "translation_language". The id holds
    the two languages: one recording is translated into several. A blank sentence or translation is flagged
    "empty-text" or "empty-translation". Clips that no table names are no fault: Common Voice has many more.

    Raises CorpusError where there is no such table or no clips/, or where a table lacks one of COLUMNS.
    """
    tables = sorted(path for path in folder.glob("covost_v2.*.tsv") if TABLE.fullmatch(path.name))
    if not tables or not (folder / "clips").is_dir():
        names = ", ".join(path.name for path in tables) or "no such table"
        contents = names if (folder / "clips").is_dir() else f"{names}, no clips/"
        raise CorpusError(folder, "covost_v2.en_de.train.tsv or the like, and clips/", contents)
    for path in tables:
        require_columns(path, COLUMNS, tabs=True)
    ids = OnDisk()
    for path in tables:
        yield from clips(table(path, tabs=True, quoted=False), lambda entry: _clip(entry, folder, given), ids)


def _clip(entry: Entry, folder: Path, given: Given) -> Clip:
    languages = TABLE.fullmatch(entry.file.name)
    assert languages is not None  # `read` chose the table by it
    spoken, written, split = languages.groups()
    path = locate(folder / "clips", entry.text("path"))
    values = {"sentence": entry.maybe("sentence"), "client_id": entry.maybe("client_id")}
    if translation := entry.maybe("translation"):
        values |= {"translation": translation, "translation_language": written}
    id_ = f"covost2-{spoken}_{written}-{Path(entry.text('path')).stem}"
    known = replace(given, split=split, source=SOURCE, licence=LICENCE, language=spoken)
    clip = described(Entry(entry.file, entry.line, values), id_, path, *sound(path), known)
    return clip if translation else replace(clip, flags=(*clip.flags, "empty-translation"))
