"""What a tracker gets beside metrics.jsonl: a record that goes on where it began, numbers by name, texts as tables."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tgsr.disk.run_folder import RunFolder
from tgsr.training.checkpoints import kept_checkpoints

ID = "tracked_as"  # in run.json
MOST_ROWS = 200  # of a table that is sent again and again: the newest


def opening(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """How each tracker opens its record of a run, by the tracker's name.

    A run that goes on goes on in its record: wandb's and trackio's by the id that run.json keeps (wandb's own variable
    WANDB_RUN_ID comes first), tensorboard's without the steps that are made again.
    """
    described = folder.read()
    id_ = os.environ.get("WANDB_RUN_ID") or described.get(ID) or secrets.token_hex(4)
    if id_ != described.get(ID):
        folder.write(described | {ID: id_})
    kept = kept_checkpoints(folder)
    return {
        "wandb": {"dir": str(Path(folder.path).resolve()), "id": id_, "resume": "allow"},
        "trackio": {"name": id_, "resume": "allow"},
        "tensorboard": {"purge_step": max(kept) + 1 if kept else 0},
    }


def numbers_of(row: Mapping[str, Any], within: str = "") -> dict[str, float]:
    """A row's numbers by name, those of an object within it as "object/name", as trackers group them."""
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            numbers |= numbers_of(value, f"{within}{name}/")
        elif isinstance(value, int | float):
            numbers[within + name] = value
    return numbers


def log_table(tracker: Any, name: str, rows: Sequence[Mapping[str, Any]], step: int) -> None:
    """Rows of the same columns as one table, of a tracker that has tables or texts; accelerate's `tracker`.

    wandb shows the last table under a name, and never looks at a table twice: so it gets a new one of all rows.
    tensorboard, which keeps the texts of each step, gets the step's.
    """
    columns = list(rows[0])
    cells = [[row.get(column) for column in columns] for row in rows]
    if tracker.name == "wandb":
        tracker.log_table(name, columns=columns, data=cells, step=step)
    elif tracker.name == "tensorboard":
        of_step = [row for row in cells if row[0] == step]
        tracker.log({name: markdown(columns, of_step)}, step=step)


def markdown(columns: Sequence[str], cells: Sequence[Sequence[object]]) -> str:
    """A table as markdown; a cell's line breaks and bars do not break it."""
    plain = [[str(cell).replace("|", "\\|").replace("\n", "<br>") for cell in row] for row in cells]
    lines = [columns, ["---"] * len(columns), *plain]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
