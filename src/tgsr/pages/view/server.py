"""`tgsr view`: runs in a browser. This is its HTTP interface; guard.py guards every call.

A key is made by the server and looked up in a table: no part of a path ever comes from the browser. Numbers are
seconds; null is "nobody knows". What cannot be done is {"problem": text} with a status of 400 or more.

GET  /                    index.html, in which the text CSP-NONCE is replaced (wavesurfer's cspNonce needs it)
GET  /static/{name}       the other files of static/, those below static/vendor/ too
GET  /api/run             {title, models: [{name, n}], tasks, splits, kinds, labels: {name: [values]}, n_items,
                          measures: [{model, text, warning: text|null}], notes: [text],
                          ask: {models: [name], max_bytes, max_seconds} | null}
GET  /api/items           ?page=0&size=50&model=&wrong=1&ungrounded=1&missed=1&misquoted=1&late=1&disagree=1&kind=&task=
                          &split=&label=name:value&q=text&sort=order|worst|best|away; label may come several times, all
                          must hold
                          {n, page, size, items: [{id, key, question, kind, task, split, duration,
                          verdicts: {model: {right: bool|null, iou: number|null, k: int, grounded: bool|null,
                          hit: bool|null, quoted: bool|null, late: bool}}}]}
GET  /api/item/{key}      {key, id, question, kind, choices, answer, phrase, task, split, labels: {name: [values]},
                          duration, clip_id, evidence: [[start, end]], words: [{word, start, end, speaker|null,
                          parted: there is a blank before it}] | null,
                          responses: [{model, text, mentions: [{text_start, text_end, start, end, problem: text|null,
                          audible, cited, hit: bool|null, said: text|null, quoted: text|null, quote_true: bool|null}],
                          right, iou, k, grounded, hit, quoted, late, chosen: text|null}],
                          sound: {ok, problem: text|null, seconds, long}}
                          text_start and text_end count UTF-16 units, as JavaScript's strings do
GET  /api/peaks/{key}     ?n=1200 -> {peaks: [[low, high], ...], seconds}
GET  /sound/{key}.wav     16 kHz mono; Range requests are answered with 206
POST /api/ask             ?question=...&choice=...&choice=...&phrase=1&model=..., the audio file as the body, of any
                          kind that tgsr reads or a browser records; or, without a body, key=KEY: the sound of an item
                          -> 202 {id}; 429 while the queue is full
GET  /api/ask/{id}/events server-sent events, from the first one on: queued {place}, heard {seconds}, text {piece},
                          then one of done {text, truncated, spans: [[start, end]], n_invalid, mentions,
                          evidence: [[start, end]], seconds}, failed {problem}, cancelled {}
DELETE /api/ask/{id}      cancels
GET  /api/ask/{id}/sound.wav, /api/ask/{id}/peaks?n=1200    what was heard
GET  /api/recordings      {model, folder, max_bytes, given: key|null, recordings: [{key, name, kept: bool, state}]};
                          404 where no cascade is served
POST /api/recordings      ?name=..., a recording as the body: kept, and about to be heard -> 202 {key}; 413, 429, 507
POST /api/recordings/{key}          hears it, where it is not yet -> 202 {key}
GET  /api/recordings/{key}/events   server-sent events: queued {place}, opening {}, sound {seconds}, hearing {share},
                          outlining {}, then one of done {}, failed {problem}, cancelled {}
GET  /api/recordings/{key}          what was heard: {..., seconds, words: [[word, start, end, parted]],
                          outline: [{start, end, text, cited: [start, end]|null, own_words, supported, problem}],
                          notes, limits, formats}
GET  /api/recordings/{key}/words/{format}    a file of `tgsr transcribe --to`
GET  /api/recordings/{key}/sound.wav, /api/recordings/{key}/peaks?n=12000
DELETE /api/recordings/{key}        stops its hearing; deletes one that was kept, and its transcript -> {}
POST /api/ask             also: recording=KEY, one that was heard
POST /api/reload          reads grown prediction files again -> as /api/run

An exported folder (export.py) has no server: index.html names it in <meta name="tgsr-static" content="1">, and holds
api/run.json, api/items.json (as /api/items with all items; each has "search", lower-cased text to be searched,
"labels", "disagree", and "wrong", "ungrounded", "missed", "misquoted", "late", "quality", "place" by model),
api/item/{key}.json (its sound may have "file": the path to load, or problem), api/peaks/{key}.json and
sound/{key}.wav. All paths are relative.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, cast, get_args

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from tgsr.errors import AudioError, DiskError, ModelError, ViewError
from tgsr.pages.connections import IDLE_SECONDS, MOST_CONNECTIONS, bounded
from tgsr.pages.guard import EVERYWHERE, NONCE, App, Guard, Guarded, bracketed, guard_for
from tgsr.pages.view import index as data
from tgsr.pages.view.ask import OVER, Asker, Busy, Job, PendingQuestion
from tgsr.pages.view.index import Index, Query, ViewedQuestion
from tgsr.pages.view.recordings import OFFERED, Recording, Shelf, download, heard_row
from tgsr.pages.view.sound import BrowserSound, Sounds, file_of, read_bytes

KINDS_OF_FILE = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".txt": "text/plain",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
MOST_PEAKS = 24_000
# Bytes of a request's head: a question of MOST_LETTERS, in an address, may have 12 a letter.
MOST_HEAD = 2**16
BACKLOG = 200  # connections; so many are also accepted together, before those that are too many can be cut
LOOKS_EVERY = 0.05  # seconds, for new events
KEPT_AWAKE = 15.0  # seconds after which a silent stream says that it lives
SORTS = get_args(data.Sort)
NOT_KEPT = {"cache-control": "no-store"}


@dataclass(slots=True)
class Viewer:
    """The page's content: an index that /api/reload `read`s as a whole, the sounds, the models that answer, and the
    recordings that they hear.
    """

    index: Index
    read: Callable[[], Index]
    sounds: Sounds = field(default_factory=Sounds)
    asker: Asker | None = None
    shelf: Shelf | None = None

    def close(self) -> None:
        if self.asker is not None:
            self.asker.close()
        self.sounds.close()


# --- calls -----------------------------------------------------------------------------------------------


def routes(viewer: Viewer) -> list[BaseRoute]:
    """All calls of this module's docstring. Starlette runs those that are not async in threads."""

    def wav(sound_of: Callable[[Viewer, Request], BrowserSound]) -> Callable[[Request], Response]:
        def heard(request: Request) -> Response:
            is_head = request.method == "HEAD"
            return sound_response(sound_of(viewer, request), request.headers.get("range"), is_head)

        return heard

    def peaks(sound_of: Callable[[Viewer, Request], BrowserSound]) -> Callable[[Request], Response]:
        return lambda request: _peaks(viewer, sound_of(viewer, request), request)

    def events(job_of: Callable[[Viewer, Request], Job]) -> Callable[[Request], Awaitable[Response]]:
        async def stream(request: Request) -> Response:
            return StreamingResponse(_events(job_of(viewer, request)), 200, NOT_KEPT, "text/event-stream")

        return stream

    return [
        Route("/", _page),
        Route("/static/{name:path}", _static),
        Route("/api/run", partial(_run, viewer)),
        Route("/api/items", partial(_items, viewer)),
        Route("/api/item/{key}", partial(_item_and_sound, viewer)),
        Route("/api/peaks/{key}", peaks(_sound_of_item)),
        Route("/sound/{key}.wav", wav(_sound_of_item)),
        Route("/api/reload", partial(_reload, viewer), methods=["POST"]),
        Route("/api/ask", partial(_ask, viewer), methods=["POST"]),
        Route("/api/ask/{id}", partial(_cancel, viewer), methods=["DELETE"]),
        Route("/api/ask/{id}/events", events(_job)),
        Route("/api/ask/{id}/sound.wav", wav(_sound_of_job)),
        Route("/api/ask/{id}/peaks", peaks(_sound_of_job)),
        Route("/api/recordings", partial(_recordings, viewer)),
        Route("/api/recordings", partial(_upload, viewer), methods=["POST"]),
        Route("/api/recordings/{key}", partial(_heard, viewer)),
        Route("/api/recordings/{key}", partial(_open, viewer), methods=["POST"]),
        Route("/api/recordings/{key}", partial(_delete, viewer), methods=["DELETE"]),
        Route("/api/recordings/{key}/events", events(_recording)),
        Route("/api/recordings/{key}/words/{to}", partial(_words, viewer)),
        Route("/api/recordings/{key}/sound.wav", wav(_sound_of_recording)),
        Route("/api/recordings/{key}/peaks", peaks(_sound_of_recording)),
    ]


def _json(value: object, status: int = 200) -> Response:
    # escapes: half of a surrogate pair in a model's text cannot be UTF-8
    return Response(json.dumps(value, allow_nan=False).encode(), status, NOT_KEPT, "application/json")


def _page(request: Request) -> Response:
    page = (files("tgsr.pages.view") / "static" / "index.html").read_text(encoding="utf-8")
    content = page.replace("CSP-NONCE", request.scope.get(NONCE, ""))
    return Response(content, media_type="text/html", headers=NOT_KEPT)


def static_files() -> dict[str, Path]:
    """The front end's files by the name that a browser asks for; index.html is not among them."""
    folder = Path(str(files("tgsr.pages.view") / "static"))
    paths = sorted(path for path in folder.rglob("*") if path.suffix in KINDS_OF_FILE and path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _static(request: Request) -> Response:
    path = static_files().get(request.path_params["name"])
    if path is None:
        raise HTTPException(404, "no such file")
    return FileResponse(path, media_type=KINDS_OF_FILE[path.suffix], headers={"cache-control": "no-cache"})


def _run(viewer: Viewer, request: Request) -> Response:
    asker = viewer.asker
    ask = None
    if asker is not None:
        ask = {"models": list(asker.models), "max_bytes": asker.most_bytes, "max_seconds": asker.most_seconds}
    return _json(data.run_row(viewer.index) | {"ask": ask, "hears": viewer.shelf is not None})


def _reload(viewer: Viewer, request: Request) -> Response:
    try:
        viewer.index = viewer.read()
    except FileNotFoundError as error:
        raise HTTPException(410, f"{error}; what was read before is still shown") from None
    return _run(viewer, request)


def _items(viewer: Viewer, request: Request) -> Response:
    query, page, size = _query(request)
    items = data.select(viewer.index, query)
    shown = [data.summary_row(item) for item in items[page * size : (page + 1) * size]]
    return _json({"n": len(items), "page": page, "size": size, "items": shown})


def _query(request: Request) -> tuple[Query, int, int]:
    params = request.query_params
    sort = params.get("sort") or "order"
    if sort not in SORTS:
        raise HTTPException(400, f"sort must be one of {', '.join(SORTS)}")
    labels = [label.split(":", 1) for label in params.getlist("label") if label]
    if any(len(label) != 2 for label in labels):
        raise HTTPException(400, "label must be name:value")
    given: dict[str, Any] = {name: params.get(name, "") for name in ("model", "kind", "task", "split")}
    given |= {name: params.get(name) == "1" for name in (*data.FLAGS, "disagree")}
    pairs = tuple((name, value) for name, value in labels)
    query = Query(**given, labels=pairs, text=params.get("q", ""), sort=cast(data.Sort, sort))
    return query, _whole(params.get("page"), 0, 0, 10**9), _whole(params.get("size"), 50, 1, data.MOST_SIZE)


def _whole(text: str | None, default: int, least: int, most: int) -> int:
    if not text:
        return default
    if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise HTTPException(400, f"{text[:20]!r} must be a whole number from {least} to {most}")
    return int(text)


def _item(viewer: Viewer, key: str) -> ViewedQuestion:
    item = viewer.index.by_key.get(key)
    if item is None:
        raise HTTPException(404, "no such item; reload the page if its files have changed")
    return item


def _item_and_sound(viewer: Viewer, request: Request) -> Response:
    item = _item(viewer, request.path_params["key"])
    return _json(data.item_row(viewer.index, item) | {"sound": sound_row(viewer.index, item, viewer.sounds)})


def sound_row(index: Index, item: ViewedQuestion, sounds: Sounds) -> dict[str, object]:
    """Whether the item's clip can be heard, and if not, why. A clip of another length than the row says is heard."""
    try:
        sound = sounds.open(file_of(index, item))
    except (AudioError, OSError) as error:
        return {"ok": False, "problem": str(error), "seconds": item.question.duration, "long": False}
    problem = None
    if abs(sound.seconds - item.question.duration) > 0.5:
        problem = f"the file lasts {sound.seconds:.2f} s, its row says {item.question.duration:.2f} s"
    return {"ok": True, "problem": problem, "seconds": sound.seconds, "long": sound.wav is None}


def _sound_of_item(viewer: Viewer, request: Request) -> BrowserSound:
    try:
        return viewer.sounds.open(file_of(viewer.index, _item(viewer, request.path_params["key"])))
    except (AudioError, OSError) as error:
        raise HTTPException(422, str(error)) from None


def _sound_of_job(viewer: Viewer, request: Request) -> BrowserSound:
    sound = _job(viewer, request).sound
    if sound is None:
        raise HTTPException(409, "it has not been heard yet")
    return sound


def _peaks(viewer: Viewer, sound: BrowserSound, request: Request) -> Response:
    n = _whole(request.query_params.get("n"), 1200, 1, MOST_PEAKS)
    try:
        return _json(viewer.sounds.peaks_row(sound, n))
    except (AudioError, OSError, RuntimeError) as error:  # libsndfile's error is a RuntimeError
        raise HTTPException(422, str(error)) from None


def sound_response(sound: BrowserSound, wanted: str | None, is_head: bool = False) -> Response:
    """The wav file, or the range of it that is wanted: "bytes=first-last". A range that cannot be is 416.

    `is_head`: only its length is asked for, whatever range is (RFC 9110, 14.2), and nothing is decoded.
    """
    headers = {"cache-control": "private, no-cache", "accept-ranges": "bytes"}
    if sound.wav is not None:
        return FileResponse(sound.wav, media_type="audio/wav", headers=headers)
    first, last = 0, sound.n_bytes
    if is_head:
        return Response(headers={**headers, "content-length": str(last)}, media_type="audio/wav")
    match = re.fullmatch(r"bytes=(\d{0,15})-(\d{0,15})", wanted.strip()) if wanted else None
    if match is not None and (match[1] or match[2]):
        if match[1]:
            first = int(match[1])
            last = min(last, int(match[2]) + 1) if match[2] else last
        else:
            first = max(0, last - int(match[2]))
        if first >= last:
            return Response(status_code=416, headers={"content-range": f"bytes */{sound.n_bytes}"})
        headers["content-range"] = f"bytes {first}-{last - 1}/{sound.n_bytes}"
    headers["content-length"] = str(last - first)
    status = 206 if "content-range" in headers else 200
    blocks = iterate_in_threadpool(read_bytes(sound, first, last))
    return StreamingResponse(blocks, status, headers, "audio/wav")


# --- asking ----------------------------------------------------------------------------------------------


async def _ask(viewer: Viewer, request: Request) -> Response:
    asker = viewer.asker
    if asker is None:
        raise HTTPException(404, "no model is served here: start `tgsr view` with --model")
    params = request.query_params
    question, choices = params.get("question", "").strip(), tuple(params.getlist("choice"))
    is_phrase = params.get("phrase") == "1"
    if not question or len(choices) == 1 or (is_phrase and choices):
        raise HTTPException(400, "give a question, and no choices or at least two; a phrase takes none")
    model = params.get("model", "")
    try:
        asker.require_askable(question, choices, model)
        if "key" in params:
            item = _item(viewer, params["key"])
            path = await run_in_threadpool(file_of, viewer.index, item)
            job = asker.ask(question, choices, is_phrase, model, path)
        elif "recording" in params:
            recording = _recording(viewer, request, params["recording"])
            job = asker.ask(question, choices, is_phrase, model, recording.path)
        else:
            with asker.arriving() as upload:
                await _take(request, upload, asker.most_bytes)
                job = asker.ask(question, choices, is_phrase, model, upload, upload)
    except Busy:
        raise HTTPException(429, "as many questions wait as may: try again when one is answered") from None
    except (AudioError, ModelError) as error:
        raise HTTPException(422, str(error)) from None
    return _json({"id": job.id}, 202)


async def _take(request: Request, path: Path, most_bytes: int) -> None:
    """The request's body as a file; HTTPException where it is too large, or empty."""
    n_taken = 0
    length = request.headers.get("content-length", "")
    try:
        with path.open("wb") as file:
            async for chunk in request.stream():
                n_taken += len(chunk)
                if n_taken > most_bytes or (length.isdecimal() and int(length) > most_bytes):
                    raise HTTPException(413, f"the recording is larger than {most_bytes // 2**20} MB")
                file.write(chunk)
    except OSError as error:
        raise HTTPException(507, f"the recording cannot be kept: {error.strerror}") from None
    if n_taken == 0:
        raise HTTPException(400, "the recording is empty (0 bytes)")


def _job(viewer: Viewer, request: Request) -> PendingQuestion:
    job = None if viewer.asker is None else viewer.asker.job(request.path_params["id"])
    if job is None:
        raise HTTPException(404, "no such question; only the last ones are kept")
    return job


async def _events(job: Job) -> AsyncIterator[str]:
    """All events from the first on, the last one included; comments in between, that no proxy hangs up."""
    n_sent, silent = 0, 0.0
    while True:
        while n_sent < len(job.events):
            name, content = job.events[n_sent]
            yield f"event: {name}\ndata: {json.dumps(content)}\n\n"
            n_sent, silent = n_sent + 1, 0.0
            if name in OVER:
                return
        await anyio.sleep(LOOKS_EVERY)
        silent += LOOKS_EVERY
        if silent >= KEPT_AWAKE:
            silent = 0.0
            yield ": waiting\n\n"


def _cancel(viewer: Viewer, request: Request) -> Response:
    job = _job(viewer, request)
    job.cancel()
    return _json({"cancelled": not job.is_over or job.events[-1][0] == "cancelled"})


# --- recordings ------------------------------------------------------------------------------------------


def _shelf(viewer: Viewer) -> Shelf:
    if viewer.shelf is None:
        raise HTTPException(404, "recordings are not heard here: start `tgsr view` with --model cascade")
    return viewer.shelf


def _recording(viewer: Viewer, request: Request, key: str | None = None) -> Recording:
    recording = _shelf(viewer).recordings.get(key or request.path_params["key"])
    if recording is None:
        raise HTTPException(404, "no such recording: it was deleted")
    return recording


def _require_heard(recording: Recording) -> Recording:
    if recording.spoken is None:
        raise HTTPException(409, "it has not been heard yet")
    return recording


def _sound_of_recording(viewer: Viewer, request: Request) -> BrowserSound:
    recording = _recording(viewer, request)
    if recording.sound is None:
        raise HTTPException(409, "it has not been opened yet")
    try:
        return viewer.sounds.open(recording.path)  # made again, where room was made for others
    except (AudioError, OSError) as error:
        raise HTTPException(422, str(error)) from None


def _recordings(viewer: Viewer, request: Request) -> Response:
    shelf = _shelf(viewer)
    there = [recording for recording in list(shelf.recordings.values()) if recording.path.exists()]
    rows = [recording.as_row() for recording in there]
    given = next((recording.key for recording in there if not recording.is_kept), None)
    about = {"model": shelf.model, "folder": str(shelf.folder), "max_bytes": shelf.most_bytes, "given": given}
    return _json(about | {"recordings": rows})


async def _upload(viewer: Viewer, request: Request) -> Response:
    shelf = _shelf(viewer)
    try:
        with shelf.asker.arriving() as upload:
            await _take(request, upload, shelf.most_bytes)
            recording = await run_in_threadpool(shelf.keep, upload, request.query_params.get("name", ""))
        shelf.open(recording)
    except Busy:
        raise HTTPException(429, "as many recordings wait as may: try again when one is heard") from None
    except (OSError, DiskError) as error:
        raise HTTPException(507, f"the recording cannot be kept: {error}") from None
    return _json({"key": recording.key}, 202)


def _open(viewer: Viewer, request: Request) -> Response:
    recording = _recording(viewer, request)
    try:
        _shelf(viewer).open(recording)
    except Busy:
        raise HTTPException(429, "as many recordings wait as may: try again when one is heard") from None
    return _json({"key": recording.key}, 202)


def _heard(viewer: Viewer, request: Request) -> Response:
    recording = _require_heard(_recording(viewer, request))
    return _json(heard_row(recording, _shelf(viewer).cascade().limits))


def _words(viewer: Viewer, request: Request) -> Response:
    recording, to = _require_heard(_recording(viewer, request)), request.path_params["to"]
    if to not in OFFERED:
        raise HTTPException(404, f"words are written as {', '.join(OFFERED)}")
    content, named = download(recording, to)
    headers = {"content-disposition": named, **NOT_KEPT}
    return Response(content.encode("utf-8", "replace"), 200, headers, "application/octet-stream")


def _delete(viewer: Viewer, request: Request) -> Response:
    recording = _recording(viewer, request)
    if recording.is_kept:
        _shelf(viewer).delete(recording)
    else:
        recording.cancel()
    return _json({})


# --- serving ---------------------------------------------------------------------------------------------


def app(routes: Sequence[BaseRoute], guard: Guard) -> App:
    """Routes behind the guard. What goes wrong is answered as {"problem": text}."""
    handlers = {HTTPException: _problem, ClientDisconnect: _gone}
    starlette = Starlette(routes=list(routes), exception_handlers=handlers)
    return Guarded(cast(App, starlette), guard)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"problem": error.detail}, error.status_code, error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    return JSONResponse({"problem": "the request did not arrive whole"}, 400)  # nobody hears it


def serve(
    routes: Sequence[BaseRoute],
    host: str,
    port: int,
    path: str,
    token: str | None = None,
    *,
    opens: bool = False,
) -> None:
    """Serves until interrupted, and prints first what to open; port 0 takes a free one.

    `token` instead of a random one; `opens`: in the user's browser. ViewError for an address that cannot be had.
    """
    listening = bound(host, port)
    guard = guard_for(host, listening.getsockname()[1], token)
    address = address_of(host, guard, path)
    print(f"{address}\nCtrl-C stops it.", flush=True)
    if guard.token is not None:
        print("Whoever has this address can look and listen. Nothing is encrypted.", file=sys.stderr)
    if opens:
        webbrowser.open(address)
    config = server_config(app(routes, guard))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service that is stopped cleans up too
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn raises it again after it has closed everything
        print("stopped")
    finally:
        listening.close()


def server_config(
    app: App, idle_seconds: float = IDLE_SECONDS, most_connections: int = MOST_CONNECTIONS
) -> uvicorn.Config:
    """How the local pages are served; the bounds are those of connections.py."""
    return uvicorn.Config(
        cast(Any, app),
        http=bounded(idle_seconds, most_connections),
        h11_max_incomplete_event_size=MOST_HEAD,
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,  # addresses may hold tokens
        server_header=False,
        proxy_headers=False,  # nobody's word is taken for who they are
        ws="none",
        timeout_graceful_shutdown=2,  # a stream of events need not end
    )


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there. ViewError where the name is unknown, or the port taken or not allowed."""
    if not 0 <= port < 2**16:
        raise ViewError(f"--port {port}: must be 0 (any free one) to 65535")
    plain = host.strip("[]")
    try:
        addresses = socket.getaddrinfo(plain or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ViewError(f"--host {host}: {error.strerror or error}; 127.0.0.1 is this machine") from None
    family, *_, address = addresses[0]
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # :: hears IPv4 too
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        problem = os.strerror(error.errno) if error.errno else str(error)
        remedy = "give another --port (0 takes a free one) or --host"
        raise ViewError(f"{host}:{port}: {problem}; {remedy}") from None


def address_of(host: str, guard: Guard, path: str) -> str:
    """What to open in a browser, with the token where there is one."""
    plain = host.strip("[]")
    name = socket.gethostname() if plain in EVERYWHERE else bracketed(plain)
    return f"http://{name}:{guard.port}{path}" + ("" if guard.token is None else f"?token={guard.token}")
