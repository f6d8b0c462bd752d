"""Sentences of continuous English that ship with the package: LibriSpeech's, 40 people (assets/english/CREDITS.md).

Enough for a demo and for tests, far too few to train on: each of the 28 voices of split "train", and of the 12 of split
"test", which no shipped weights were trained on, says one utterance of 7 to 16 s.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def sentences() -> Path:
    """clips.jsonl with the words, their times and the speakers; its sounds beside it. What `tgsr compose` takes."""
    return Path(str(files("tgsr") / "assets" / "english" / "clips.jsonl"))
