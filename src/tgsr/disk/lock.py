"""One process at a time for what is written over hours: a run's folder, a file of answers."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from tgsr.disk.whole import StrPath, disk_errors
from tgsr.errors import RunError

N_TRIES = 20
LOCK = ".lock"  # of a folder, in it: what is around it may not be writable


@contextmanager
def held(path: StrPath) -> Iterator[None]:
    """Within it no other block of any process holds the file `path`, which need not be there yet.

    The lock is a file beside it, .NAME.lock, and the kernel's: it ends with the process, however that ends, and the
    file goes with the block. RunError where another one holds it, with its number, its machine and its start. What is
    no file (/dev/stdout, a pipe) is not held. A file system without locks is said on stderr.
    """
    target = Path(os.path.realpath(path))
    if Path(path).exists() and not target.is_file():
        yield
        return
    with _held(target.with_name(f".{target.name}{LOCK}"), path):
        yield


@contextmanager
def held_folder(path: StrPath) -> Iterator[None]:
    """The same for a folder, which is made where it is missing, and goes again where the block leaves it empty.

    RunError where a file has its name.
    """
    folder = Path(os.path.realpath(path))
    is_new = not folder.exists()
    if not is_new and not folder.is_dir():
        raise RunError(f"{path}: is a file, and must be a folder; choose another --out")
    try:
        with _held(folder / LOCK, path):
            yield
    finally:
        if is_new:
            with suppress(OSError):  # not empty, or gone
                folder.rmdir()


@contextmanager
def _held(lock: Path, path: StrPath) -> Iterator[None]:
    with disk_errors(lock):
        file = _locked(lock, path)
    try:
        with disk_errors(lock):
            os.ftruncate(file, 0)
            os.pwrite(file, _who(), 0)
        yield
    finally:
        try:
            _remove(lock, file)
        finally:  # Ctrl-C may have come before it was gone
            _remove(lock, file)
            os.close(file)


def _remove(lock: Path, file: int) -> None:
    """Removes the lock's file while it is held: whoever waits for it finds that it has gone, and makes its own.

    The second time there is nothing of it, or already another one's.
    """
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file), lock.stat()):
            lock.unlink()


def _open(lock: Path) -> int:
    """The lock's file in its folder, which the one before may be removing again at this moment."""
    for _ in range(N_TRIES):
        with suppress(FileNotFoundError, FileExistsError):
            return _made(lock)
    return _made(lock)


def _made(lock: Path) -> int:
    lock.parent.mkdir(parents=True, exist_ok=True)
    return os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)


def _locked(lock: Path, path: StrPath) -> int:
    """The lock's file, open and held by this process alone."""
    while True:
        file = _open(lock)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 1000, 0)
            os.close(file)
            remedy = "wait for its end, stop it, or choose another --out"
            raise RunError(f"{path}: is being written by {_said(holder)}; {remedy}") from None
        except OSError as error:
            why = f"{lock.parent} has no locks ({error})"
            print(f"{path}: two runs on it would not be noticed: {why}", file=sys.stderr)
            return file
        try:
            is_there = os.path.samestat(os.fstat(file), lock.stat())
        except FileNotFoundError:
            is_there = False
        if is_there:
            return file
        os.close(file)  # the one before has just ended, and removed it


def _who() -> bytes:
    """What a lock's file says of its holder."""
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    words = {"process": os.getpid(), "machine": os.uname().nodename, "since": now}
    return json.dumps(words).encode() + b"\n"


def _said(content: bytes) -> str:
    """Who holds a lock, from what it wrote there; it may have been stopped before it wrote."""
    try:
        words = json.loads(content)
        return f"process {words['process']} on {words['machine']} since {words['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
