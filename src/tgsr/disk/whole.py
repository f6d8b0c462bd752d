"""Files and folders that are on disk as a whole or not at all: every writer of this package goes through here."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from safetensors import SafetensorError

from tgsr.errors import DISK_REMEDIES, DiskError

StrPath = str | os.PathLike[str]
HALF = ".half-"  # how names begin that only a process killed in the middle leaves behind
LONG_AGO = 86400.0  # seconds; what nobody has written to for so long was left behind


@contextmanager
def disk_errors(path: StrPath) -> Iterator[None]:
    """DiskError with a remedy where the block cannot write `path`: a full or read-only disk, or no permission."""
    try:
        yield
    except DiskError:
        raise
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else _number(error)
        if number not in DISK_REMEDIES or not _is_about(error, Path(os.path.realpath(path))):
            raise
        remedy = f"{DISK_REMEDIES[number]} and run the same command again"
        raise DiskError(f"{path}: {os.strerror(number)}; {remedy}") from error


def _number(error: SafetensorError) -> int | None:
    """The system's number of a failed write, which safetensors has in the text of an error of its own."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _is_about(error: OSError | SafetensorError, target: Path) -> bool:
    """Whether it was the target that could not be written, and not something else that the block used."""
    if isinstance(error, SafetensorError) or error.filename is None:  # a write
        return True
    path = Path(os.path.realpath(os.fsdecode(error.filename)))
    return path == target or path in target.parents or any(part.startswith(HALF) for part in path.parts)


@contextmanager
def whole(path: StrPath) -> Iterator[Path]:
    """The path to write to: the file there takes the name `path` after the block, when it is on disk.

    Whatever fails in the block, an old file at `path` stays and nothing is left beside it. The target of a link is
    replaced, not the link. A new file has the mode of the umask, a replaced one keeps its mode. Threads and processes
    with the same target do not meet: the last one counts. Missing folders are made. What is no file (/dev/stdout, a
    pipe) is written to as it is. Raises DiskError as `disk_errors` does.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    # the suffix tells some writers the format; what is none (answers.2026-01-31) may be too long a name
    half = target.with_name(half_name() + (target.suffix if _SUFFIX.fullmatch(target.suffix) else ""))
    with disk_errors(path):
        if Path(path).exists() and not target.is_file():
            yield Path(path)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        with _gone_after(half):
            yield half
            with half.open("rb+") as file:
                os.fsync(file.fileno())
            if target.exists():
                half.chmod(stat.S_IMODE(target.stat().st_mode))
            os.replace(half, target)


def write_whole(path: StrPath, content: str | bytes) -> None:
    """Write a file as `whole` does. Text is UTF-8; half of a surrogate pair, which is none, becomes JSON's \\udc00."""
    with whole(path) as half:
        half.write_bytes(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))


@contextmanager
def whole_folder(path: StrPath) -> Iterator[Path]:
    """A new folder to write into: it takes the name `path` after the block, unless another process was faster.

    Where anything fails in the block, nothing is left. Folders above it are made. Raises DiskError as `disk_errors`.
    """
    target = Path(path)
    with disk_errors(path), _half_folder(target.parent) as half:
        yield half
        try:
            half.rename(target)
        except OSError:
            if not target.is_dir():
                raise


@contextmanager
def whole_files(folder: StrPath) -> Iterator[Path]:
    """A folder to write into: its files then go into `folder`, each as `whole` writes one; the others there stay.

    For writers of other packages, which choose the files' names themselves.
    """
    target = Path(folder)
    with disk_errors(target), _half_folder(target) as half:
        yield half
        for path in sorted(half.rglob("*")):
            if path.is_file():
                with whole(target / path.relative_to(half)) as file:
                    os.replace(path, file)


@contextmanager
def _half_folder(parent: Path) -> Iterator[Path]:
    """An unfinished folder in `parent`, which is made where it is missing; it goes with the block."""
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    half = parent / half_name()
    with _gone_after(half):
        half.mkdir()
        yield half


@contextmanager
def _gone_after(half: Path) -> Iterator[None]:
    """After the block the unfinished file or folder is gone, also where Ctrl-C comes while it is removed."""
    try:
        yield
    finally:
        try:
            _remove(half)
        finally:
            _remove(half)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def half_name() -> str:
    """A new name for something unfinished: `sweep` can tell from it whether its process has died."""
    return f"{HALF}{_here()}-{os.getpid()}-{secrets.token_hex(6)}"


@cache
def sweep(folder: Path) -> None:
    """Removes what killed processes left unfinished in a folder, once for each process and folder.

    Of processes of this machine what is not running any more; of others what nobody has written to for a day.
    """
    for path in folder.glob(f"{HALF}*"):
        if is_left_behind(path):
            _remove(path)


_SUFFIX = re.compile(r"\.\w{1,16}")
_HALF_NAME = re.compile(re.escape(HALF) + r"(?:([0-9a-f]{8})-(\d+)-)?[0-9a-f]{12}\w*(\..+)?", re.DOTALL)


def is_left_behind(path: Path) -> bool:
    """Whether a file or folder has an unfinished one's name and nobody finishes it any more."""
    if (name := _HALF_NAME.fullmatch(path.name)) is None:
        return False
    where, process, _ = name.groups()
    if where == _here():
        return not _is_running(int(process))
    try:
        return time.time() - path.stat().st_mtime > LONG_AGO
    except OSError:  # finished or swept a moment ago
        return False


def _is_running(process: int) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@cache
def _here() -> str:
    """This machine since it was started, and this container: where a process' number means the same process."""
    parts = [os.uname().nodename]
    with suppress(OSError):  # not Linux
        parts.append(os.readlink("/proc/self/ns/pid"))
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes, which are read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
