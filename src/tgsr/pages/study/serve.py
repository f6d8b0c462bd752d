"""`tgsr study serve`: the study's app behind the guard of the local pages."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from starlette.responses import RedirectResponse
from starlette.routing import Route

from tgsr.errors import StudyError
from tgsr.pages.guard import SHORTEST_TOKEN, is_loopback
from tgsr.pages.study.app import CONSENT, Running, routes
from tgsr.pages.study.design import read_study
from tgsr.pages.study.store import RATINGS, Store
from tgsr.pages.view.server import serve as serve_routes

TOKEN = "server-token.txt"
MOST_CONSENT = 20_000  # characters


def serve(folder: Path, host: str, port: int, consent: Path | None) -> None:
    """Runs the study in `folder` until interrupted. `consent`: a text file instead of the packaged text.

    For other addresses than loopback the token is kept in the folder, so that raters' links outlive the server. Raises
    StudyError as `read_study` and `Store.open`, and for a consent that is no text; ViewError for the address.
    """
    study = read_study(folder)
    running = Running(study, folder, Store.open(folder / RATINGS, study.id), consent_of(consent))
    to_study = Route("/", lambda request: RedirectResponse("/study"))
    token = None if is_loopback(host.strip("[]").lower()) else kept_token(folder)
    serve_routes([to_study, *routes(running)], host, port, "/study", token)


def consent_of(path: Path | None) -> str:
    """The text that raters agree to. StudyError where the file holds none."""
    if path is None:
        return CONSENT
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        raise StudyError(f"{path}: is not UTF-8 text; save the consent as plain text") from None
    if not text or len(text) > MOST_CONSENT:
        raise StudyError(f"{path}: has {len(text)} characters; a consent has 1 to {MOST_CONSENT}")
    return text


def kept_token(folder: Path) -> str:
    """The folder's token, made where there is none; nobody but its owner may read the file."""
    path = folder / TOKEN
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
    except FileExistsError:
        pass
    token = path.read_text(encoding="utf-8", errors="replace").strip()
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{{SHORTEST_TOKEN},}}", token):
        raise StudyError(f"{path}: holds no token; delete it, and a new one is made")
    return token
