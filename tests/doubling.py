"""A step that doubles rows, apart from what tests import, so that processes that are killed start at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tgsr.data.shards import Made
from tgsr.disk.jsonl import Row
from tgsr.errors import Bad


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the step says that it ran, and how long it takes a row."""

    log: str
    seconds: float = 0.0
    times: int = 1


def doubled(settings: Settings, rows: Sequence[Row]) -> Made:
    with open(settings.log, "a") as log:
        log.write("x")
    time.sleep(settings.seconds * len(rows))
    bad = [Bad("rows", "is odd", None, "n") for row in rows if int(str(row["n"])) % 5 == 4]
    kept = [
        {**row, "m": i, "flags": ["even"] if int(str(row["n"])) % 2 == 0 else []}
        for row in rows
        if int(str(row["n"])) % 5 != 4
        for i in range(settings.times)
    ]
    return Made(kept, bad)


def numbers(n: int) -> list[Row | Bad]:
    return [{"n": i} for i in range(n)]
