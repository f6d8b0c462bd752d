"""pyarrow, which is installed only where somebody wants Parquet or Arrow files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tgsr.disk.whole import whole
from tgsr.errors import MissingPackage, RecordError, install


def pyarrow_for(purpose: str) -> Any:
    """The package with its readers and writers. MissingPackage, which says the purpose, where it is missing."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise MissingPackage(f"{purpose} needs pyarrow, {install('parquet')}") from None
    return pyarrow


MAGIC = b"PAR1"


def is_parquet(path: Path) -> bool:
    """By what is in it."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, but for its sound: the column `audio`.

    MissingPackage without pyarrow; RecordError for a file that cannot be read.
    """
    pyarrow = pyarrow_for(f"reading {path.name}")
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = [name for name in file.schema_arrow.names if name != "audio"]
        for batch in file.iter_batches(batch_size=1000, columns=names):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        problem = f"cannot be read as Parquet ({error})"
        raise RecordError(None, problem, str(path), remedy="copy it again") from None


def write_parquet(path: Path, schema: Any, groups: Iterable[list[dict[str, Any]]]) -> None:
    """Groups of rows, each on disk before the next is made; the file takes its name when it is whole."""
    pyarrow = pyarrow_for("Parquet")
    with whole(path) as half, pyarrow.parquet.ParquetWriter(half, schema) as writer:
        for group in groups:
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
