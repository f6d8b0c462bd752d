"""Words of manifests, which may lack what a clip needs of them."""

from __future__ import annotations

import sys
from dataclasses import asdict

from tgsr.data.alignments.alignment import Alignment, missing_in
from tgsr.data.alignments.timed import Timed
from tgsr.data.transcribe.repair import WORDS_CUT, WORDS_MISSING, WORDS_PAST_END
from tgsr.disk.jsonl import Row
from tgsr.timeline import END_SLACK, Word


def within(row: Row) -> Row:
    """The row with what its clip cannot hold put right, and flagged.

    Words that end after the clip are cut there, those that begin after it are left out, and those without times or
    length leave holes. A row with values that are wrong in another way comes back as it is.
    """
    words, duration = row.get("words"), row.get("duration")
    if not isinstance(words, list) or not isinstance(duration, int | float) or duration > sys.float_info.max:
        return row
    flags: list[str] = []
    kept: list[object] = []
    entries: list[Word | Timed] = []
    for word in words:
        start, end = (word.get(key) if isinstance(word, dict) else None for key in ("start", "end"))
        try:
            if isinstance(start, int | float) and isinstance(end, int | float) and end > duration + END_SLACK:
                flags.append(WORDS_CUT if start < duration else WORDS_PAST_END)
                if start >= duration:
                    continue
                word = {**word, "end": duration}
            text, speaker = word["word"], word.get("speaker")
            if (start is None or end is None or end <= start) and text.strip():
                entries.append(Timed("", text, start, end, None, speaker))
                flags.append(WORDS_MISSING)
                continue
            entries.append(Word(text, start, word["end"], speaker))  # type: ignore[arg-type]
        except (AttributeError, KeyError, TypeError, ValueError):  # what is wrong, the record says
            return row
        kept.append(word)
    if not flags:
        return row
    _, holes = Alignment(missing=tuple(missing_in(entries))).on(duration)
    before = {name: value if isinstance(value := row.get(name), list) else [] for name in ("flags", "holes")}
    flags = [*before["flags"], *dict.fromkeys(flags)]
    return {**row, "words": kept, "flags": flags, "holes": [*before["holes"], *map(asdict, holes)]}
