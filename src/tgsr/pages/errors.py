"""The error of the pages' input, apart from what needs a web server, so that every command can name it."""

from __future__ import annotations

from importlib.util import find_spec

from tgsr.errors import ViewError


def require_extra() -> None:
    """ViewError where what the pages need is not installed."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ViewError(f"the local pages need {' and '.join(missing)}: pip install 'tgsr[view]'")
