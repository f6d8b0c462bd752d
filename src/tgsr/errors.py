"""What a reader of a corpus raises; a single bad row is never raised but comes out as a `tgsr.records.Bad`."""

from __future__ import annotations

import os


class CorpusError(ValueError):
    """A folder or file that is not of the corpus that it was read as: which, what was expected, what was found.

    `str(error)` is "path: expected ..., found ...".
    """

    def __init__(self, path: str | os.PathLike[str], expected: str, found: str) -> None:
        super().__init__(
            os.fspath(path), expected, found
        )  # all in args, so that worker processes can pickle it
        self.path, self.expected, self.found = os.fspath(path), expected, found

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, found {self.found}"
