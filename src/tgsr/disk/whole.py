"""Files that are on disk as a whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tgsr.errors import RunError


def write_atomically(path: Path, data: bytes) -> None:
    """The whole file or none of it; RunError where the disk is full, and the old file stays."""
    half_written = path.with_name(path.name + ".tmp")
    try:
        with half_written.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(half_written, path)
    except OSError as error:
        half_written.unlink(missing_ok=True)
        raise RunError(f"{path}: {error}; free some space and start the same command again") from error


def sha256_of(path: Path) -> str:
    """Of the file's bytes, as hexadecimal digits; read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
