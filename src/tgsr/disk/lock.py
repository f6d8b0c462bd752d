"""One process at a time for what is written over hours: a run's folder, a file of answers."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tgsr.disk.whole import StrPath, disk_errors
from tgsr.errors import RunError


@contextmanager
def held(path: StrPath) -> Iterator[None]:
    """Within it no other block of any process holds the file or folder `path`, which need not be there yet.

    The lock is a file beside it, .NAME.lock, and the kernel's: it ends with the process, however that ends, and the
    file goes with the block. RunError where another one holds it, with its number, its machine and its start. What is
    neither a file nor a folder (/dev/stdout, a pipe) is not held. A file system without locks is said on stderr.
    """
    target = Path(os.path.realpath(path))
    if Path(path).exists() and not (target.is_file() or target.is_dir()):
        yield
        return
    lock = target.with_name(f".{target.name}.lock")
    with disk_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(lock, path)
    try:
        with disk_errors(lock):
            os.ftruncate(file, 0)
            os.pwrite(file, _who(), 0)
        yield
    finally:
        # while it is held: whoever waits for it finds that it has gone, and makes its own
        lock.unlink(missing_ok=True)
        os.close(file)


def _locked(lock: Path, path: StrPath) -> int:
    """The lock's file, open and held by this process alone."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 1000, 0)
            os.close(file)
            raise RunError(
                f"{path}: is being written by {_said(holder)}; wait for its end, stop it, or choose another --out"
            ) from None
        except OSError as error:
            print(
                f"{path}: two runs on it would not be noticed: {lock.parent} has no locks ({error})",
                file=sys.stderr,
            )
            return file
        try:
            is_there = os.path.samestat(os.fstat(file), lock.stat())
        except FileNotFoundError:
            is_there = False
        if is_there:
            break
        os.close(file)  # the one before has just ended, and removed it
    return file


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
