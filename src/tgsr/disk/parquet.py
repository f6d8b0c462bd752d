"""pyarrow, which is installed only where somebody wants Parquet or Arrow files."""

from __future__ import annotations

from typing import Any


def pyarrow_for(purpose: str) -> Any:
    """The package with its readers and writers. ModuleNotFoundError, which says the purpose, where it is missing."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise ModuleNotFoundError(f"{purpose} needs pyarrow: pip install pyarrow") from None
    return pyarrow
