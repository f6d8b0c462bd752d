"""The study as a web app: consent, practice, trials; each answer is on disk before the page says so.

What a browser gets of a trial is its text and its sounds: never the system, the condition, or which stretch is right.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from tgsr.pages.study.design import N_STRETCHES, SCALE, Study, Trial, trials_for
from tgsr.pages.study.store import MEASURES, Store

MOST_BODY = 4096  # bytes of an answer or a consent
MOST_RATERS = 10_000
CONSENT = (
    "You will listen to short stretches of recordings, read what a program said about them, and rate how well the two "
    "fit together. What is kept: your choices and ratings, when you gave them, how long each took and how often you "
    "pressed play. No name, address or sound of yours is asked for or kept. You may stop at any time, and come back "
    "by the link that you get; what you have rated until then stays in the study."
)
MOST_SECONDS = 1e9
MOST_TAB = 64  # characters of a page's id
OPENED_AGAIN = (
    "this study is open in another tab or window, where it goes on; answers from here are not taken"
)
SHOWN = ("id", "question", "choices", "response", "audio", "stretches")  # of a trial, to its rater
STATIC = {"index.html": "text/html", "study.js": "text/javascript", "study.css": "text/css"}


@dataclass(frozen=True, slots=True)
class Running:
    """A study that is being run: its folder holds media/ and the ratings."""

    study: Study
    folder: Path
    store: Store
    consent: str = CONSENT
    tabs: dict[int, str] = field(default_factory=dict)  # of each rater: the one that was opened last


def routes(running: Running) -> list[Route]:
    """The study's pages and calls, all below /study."""

    def handled(work: Callable[[Running, Request, Any], Response]) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            body = await _body(request) if request.method == "POST" else None
            try:
                return await run_in_threadpool(work, running, request, body)
            except sqlite3.OperationalError as error:
                problem = f"it could not keep this ({error}); what was kept before is not lost"
                return JSONResponse({"problem": problem}, status_code=507)

        return handle

    return [
        Route("/study", _static),
        Route("/study/r/{token}", _static),
        Route("/study/static/{name}", _static),
        Route("/study/api/consent", handled(_consent)),
        Route("/study/api/join", handled(_join), methods=["POST"]),
        Route("/study/api/{token}", handled(_state)),
        Route("/study/api/{token}/answer", handled(_answer), methods=["POST"]),
        Route("/study/media/{token}/{name}", handled(_media)),
    ]


async def _body(request: Request) -> dict[str, Any]:
    taken = bytearray()
    async for chunk in request.stream():
        taken += chunk
        if len(taken) > MOST_BODY:
            raise HTTPException(413, "too long")
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        raise HTTPException(415, "send JSON")  # a form of another site cannot send that unasked
    try:
        body = json.loads(taken)
    except (ValueError, RecursionError):
        raise HTTPException(400, "is not JSON") from None
    if not isinstance(body, dict):
        raise HTTPException(400, "must be an object")
    return body


def _static(request: Request) -> Response:
    name = request.path_params.get("name", "index.html")
    if name not in STATIC:
        raise HTTPException(404)
    content = (files("tgsr") / "pages" / "study" / "static" / name).read_bytes()
    return Response(content, media_type=STATIC[name], headers={"cache-control": "no-cache"})


def _consent(running: Running, request: Request, body: Any) -> Response:
    study = running.study
    n_trials = len(trials_for(study, 0))
    return JSONResponse({"title": study.title, "consent": running.consent, "n_trials": n_trials})


def _join(running: Running, request: Request, body: Any) -> Response:
    if body.get("agreed") is not True:
        raise HTTPException(400, "agreed must be true")
    if running.store.n_raters() >= MOST_RATERS:
        raise HTTPException(429, "the study is full")
    _, token = running.store.join(running.consent)
    return JSONResponse({"link": f"/study/r/{token}"})


def _rater(running: Running, request: Request) -> int:
    number = running.store.rater(request.path_params["token"])
    if number is None:
        raise HTTPException(404, "nobody has this link")
    return number


def _require_last_tab(running: Running, rater: int, tab: object) -> None:
    """409 for a page that the rater has opened again elsewhere since: two would overwrite each other's answers."""
    if isinstance(tab, str) and running.tabs.setdefault(rater, tab[:MOST_TAB]) != tab[:MOST_TAB]:
        raise HTTPException(409, OPENED_AGAIN)


def _state(running: Running, request: Request, body: Any) -> Response:
    """The first trial that lacks an answer, with the answers that it has; "done" after the last.

    ?tab=ID&take=1 is a page that was opened now, by which earlier ones of the same rater are stopped.
    """
    rater = _rater(running, request)
    tab = request.query_params.get("tab")
    if tab and request.query_params.get("take") == "1":
        running.tabs[rater] = tab[:MOST_TAB]
    _require_last_tab(running, rater, tab)
    trials = trials_for(running.study, rater)
    values: dict[str, dict[str, int]] = {trial.id: {} for trial in trials}
    for answer in running.store.answers(rater):
        values.setdefault(answer.trial, {})[answer.measure] = answer.value
    left = [trial for trial in trials if len(values[trial.id]) < len(MEASURES)]
    state: dict[str, Any] = {"title": running.study.title, "n": len(trials)}
    state |= {"n_done": len(trials) - len(left), "done": not left}
    if left:
        trial, answers = left[0], values[left[0].id]
        state["trial"] = {name: getattr(trial, name) for name in SHOWN}
        state["trial"] |= {"practice": trial.kind == "practice", "answers": answers}
        if _is_final(running, rater, trial):
            state["trial"]["locked"] = True
        if trial.kind == "practice" and "referent" in answers:
            state["trial"]["feedback"] = _feedback(trial, answers["referent"])
    return JSONResponse(state)


def _is_final(running: Running, rater: int, trial: Trial) -> bool:
    """Whether the rater's choice of a stretch stays: it was made, and the sound that is rated was sent."""
    chosen = {(answer.trial, answer.measure) for answer in running.store.answers(rater)}
    return (trial.id, "referent") in chosen and running.store.has_heard(rater, trial.id)


def _feedback(trial: Trial, chosen: int) -> str:
    return ("That is it. " if chosen == trial.right else "Not that one. ") + trial.feedback


def _answer(running: Running, request: Request, body: Any) -> Response:
    rater = _rater(running, request)
    trials = {trial.id: trial for trial in trials_for(running.study, rater)}
    trial = trials.get(str(body.get("trial")))
    measure, value = body.get("measure"), body.get("value")
    if trial is None or measure not in MEASURES:
        raise HTTPException(400, "no such trial of yours, or no such question")
    low, high = (0, N_STRETCHES - 1) if measure == "referent" else SCALE
    if type(value) is not int or not low <= value <= high:
        raise HTTPException(400, f"value must be a whole number from {low} to {high}")
    _require_last_tab(running, rater, body.get("tab"))
    if measure == "referent" and _is_final(running, rater, trial):
        raise HTTPException(423, "this choice is final: the sound that may tell the right one was played")
    seconds, plays = body.get("seconds"), body.get("plays")  # as the page says, which may be anything
    if type(seconds) not in (int, float) or not 0 <= seconds < MOST_SECONDS:
        seconds = None
    if type(plays) is not int or not 0 <= plays < 10**6:
        plays = None
    running.store.add(rater, trial.id, measure, value, None if seconds is None else float(seconds), plays)
    row: dict[str, Any] = {"kept": True}
    if trial.kind == "practice" and measure == "referent":
        row["feedback"] = _feedback(trial, value)
    return JSONResponse(row)


def _media(running: Running, request: Request, body: Any) -> Response:
    rater = _rater(running, request)
    name = request.path_params["name"]
    trials = trials_for(running.study, rater)
    path = running.folder / "media" / name
    if name not in {n for trial in trials for n in (trial.audio, *trial.stretches)}:
        raise HTTPException(404, "no such sound")
    if not path.is_file():
        raise HTTPException(410, "this sound is gone from the study's folder: tell whoever runs the study")
    for trial in trials:
        if trial.audio == name and not running.store.has_heard(rater, trial.id):
            running.store.hear(rater, trial.id)
    return FileResponse(path, media_type="audio/wav", headers={"cache-control": "private, max-age=3600"})
