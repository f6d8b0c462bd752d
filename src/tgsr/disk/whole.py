"""Files and folders that are on disk as a whole or not at all: every writer of this package goes through here."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tgsr.errors import DiskError

StrPath = str | os.PathLike[str]
HALF = ".half-"  # how names begin that only a process killed in the middle leaves behind
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole(path: StrPath) -> Iterator[Path]:
    """The path to write to: the file there takes the name `path` after the block, when it is on disk.

    Whatever fails in the block, an old file at `path` stays and nothing is left beside it. The target of a link is
    replaced, not the link. A new file has the mode of the umask, a replaced one keeps its mode. Threads and processes
    with the same target do not meet: the last one counts. Missing folders are made. What is no file (/dev/stdout, a
    pipe) is written to as it is. Raises DiskError where the disk is full.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    # the suffix tells some writers the format
    half = target.with_name(f"{HALF}{secrets.token_hex(6)}{target.suffix}")
    try:
        if Path(path).exists() and not target.is_file():
            yield Path(path)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        yield half
        with half.open("rb+") as file:
            os.fsync(file.fileno())
        if target.exists():
            half.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(half, target)
    except OSError as error:
        if error.errno not in FULL:
            raise
        remedy = "free some space and run the same command again"
        raise DiskError(f"{path}: {error.strerror}; {remedy}") from error
    finally:
        half.unlink(missing_ok=True)


def write_whole(path: StrPath, content: str | bytes) -> None:
    """Write a file as `whole` does. Text is UTF-8; half of a surrogate pair, which is none, becomes JSON's \\udc00."""
    with whole(path) as half:
        half.write_bytes(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))


@contextmanager
def whole_folder(path: StrPath) -> Iterator[Path]:
    """A new folder to write into: it takes the name `path` after the block, unless another process was faster.

    Where anything fails in the block, nothing is left. Folders above it are made.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f"{HALF}{secrets.token_hex(6)}")
    half.mkdir()
    try:
        yield half
        try:
            half.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(half, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes, which are read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
