"""pyarrow, which is installed only where somebody wants Parquet or Arrow files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tgsr.disk.whole import whole
from tgsr.errors import MissingPackage, install


def pyarrow_for(purpose: str) -> Any:
    """The package with its readers and writers. MissingPackage, which says the purpose, where it is missing."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise MissingPackage(f"{purpose} needs pyarrow, {install('parquet')}") from None
    return pyarrow


def write_parquet(path: Path, schema: Any, groups: Iterable[list[dict[str, Any]]]) -> None:
    """Groups of rows, each on disk before the next is made; the file takes its name when it is whole."""
    pyarrow = pyarrow_for("Parquet")
    with whole(path) as half, pyarrow.parquet.ParquetWriter(half, schema) as writer:
        for group in groups:
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
