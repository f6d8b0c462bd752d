"""The errors that are meant for the user: wrong input, told in one message that names the place and the remedy."""

from __future__ import annotations

import errno
import os
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path


def shown(path: str | os.PathLike[str]) -> str:
    """A file's name as it can be written: bytes of it that are not UTF-8, and halves of pairs, as their escapes."""
    return os.fspath(path).encode(errors="backslashreplace").decode()


DISK_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space"),
    errno.EROFS: "choose a folder that can be written to",
    errno.ENAMETOOLONG: "choose a shorter name",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "make it writable, or choose another folder"),
}
"""What to do where the system refuses to write, by the system's number of the error."""


class TgsrError(Exception):
    """Wrong input, told in one message for the user; any other error is a fault of this program."""


def install(extra: str) -> str:
    """How to install what an extra of this package brings: from its repository, for no registry has tgsr from us.

    The repository's path is said where the package runs from it.
    """
    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file():
        return f"the extra {extra!r} of tgsr: pip install -e {shlex.quote(f'{root}[{extra}]')}"
    return f"the extra {extra!r} of tgsr: pip install '.[{extra}]' in the folder of tgsr's repository"


@dataclass(frozen=True, slots=True)
class Bad:
    """One thing that cannot be used: where it is and why. It goes to an errors file, and the run goes on."""

    file: str
    error: str
    line: int | None = None
    field: str | None = None
    row: str | None = None


class OptionError(TgsrError, ValueError):
    """A flag whose value cannot be used, or not beside the others: which, what it is, what it may be."""


def require(flag: str, value: object, wanted: str, holds: bool) -> None:
    """OptionError that names the flag, its value and what it may be, unless that `holds`."""
    if not holds:
        raise OptionError(f"--{flag.replace('_', '-')} {value}: must be {wanted}")


class CorpusError(TgsrError, ValueError):
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


class ModelError(TgsrError, ValueError):
    """A model that cannot be loaded or used as asked; the message says what to do."""


class RecordError(TgsrError, ValueError):
    """A value that a record cannot hold: where it is, what was found and required, what to do.

    `str(error)` is `file:line: field "name": problem; remedy`, less what is not known.
    """

    def __init__(
        self,
        field: str | None,
        problem: str,
        file: str | None = None,
        line: int | None = None,
        remedy: str = "correct the row",
    ) -> None:
        # all of them in args, so that worker processes can pickle it
        super().__init__(field, problem, file, line, remedy)
        self.field, self.problem, self.file, self.line, self.remedy = field, problem, file, line, remedy

    def __str__(self) -> str:
        what = self.problem if self.field is None else f'field "{self.field}": {self.problem}'
        if self.file is None:
            return what
        return f"{self.file}{'' if self.line is None else f':{self.line}'}: {what}; {self.remedy}"

    def at(self, file: str, line: int) -> RecordError:
        """The same error, found on that line of that file."""
        return RecordError(self.field, self.problem, file, line, self.remedy)


class AudioError(TgsrError, ValueError):
    """An audio file, or samples, that cannot be used: which, what was found, what to do.

    `str(error)` is "path: found; remedy".
    """

    def __init__(self, path: str, found: str, remedy: str) -> None:
        super().__init__(path, found, remedy)  # all of them in args, so that worker processes can pickle it
        self.path, self.found, self.remedy = path, found, remedy

    def __str__(self) -> str:
        return f"{shown(self.path)}: {self.found}; {self.remedy}"


class RunError(TgsrError, RuntimeError):
    """A run folder that cannot be started, resumed or written to; the message says what to do."""


class MissingPackage(TgsrError, ModuleNotFoundError):
    """A package that only some commands need is not installed; the message says for what, and which extra brings it."""


class NothingDone(TgsrError, RuntimeError):
    """A command that was run and has brought nothing; the message says what it lacks and where the reasons are."""


class DiskError(TgsrError, OSError):
    """A file that cannot be written because the disk is full or read-only; the message says what to do."""


class Stopped(SystemExit):
    """A command that a signal has ended, all that it did saved. Its exit status is the one that shells give.

    `is_told`: whether the user knows what was kept.
    """

    def __init__(self, number: int = signal.SIGTERM, is_told: bool = False) -> None:
        self.number, self.is_told = number, is_told
        self.status = 128 + number
        super().__init__(self.status)


class FetchError(TgsrError, RuntimeError):
    """The weights could not be had or are not the expected ones; the message says what to do."""


class BuildError(TgsrError, ValueError):
    """Questions that cannot be made or may not be written there; the message says what to do."""


class PackError(TgsrError, ValueError):
    """What cannot be packed at all, or not there; the message says why."""


class ShardError(TgsrError, ValueError):
    """Too many rows were left out; the message says how many, and where the reasons are."""


class AlignmentError(TgsrError, ValueError):
    """What cannot be read as an alignment: where it is, what was found, what to do.

    `str(error)` is `file:line: problem; remedy`, less the line where none is known (a value inside JSON).
    """

    def __init__(self, problem: str, remedy: str, line: int | None = None, file: str = "") -> None:
        super().__init__(problem, remedy, line, file)  # all of them in args, so that it can be pickled
        self.problem, self.remedy, self.line, self.file = problem, remedy, line, file

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f':{self.line}'}: {self.problem}; {self.remedy}"


class ImportFileError(TgsrError, ValueError):
    """A prediction file that cannot be used as it was given; the message says what to give instead."""


class StudyError(TgsrError, ValueError):
    """A study that cannot be made or used as it was asked for; the message says what to change."""


class ViewError(TgsrError, ValueError):
    """A run, a folder or an address that cannot be shown or served; the message says what to do."""


class NotFinite(TgsrError, RuntimeError):
    """A loss or gradient that is not finite: training stops before it reaches the weights."""
