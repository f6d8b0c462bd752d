"""The local pages against many sockets that say nothing: a real server, real connections."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import quote

import pytest

pytest.importorskip("starlette", reason="the web pages need: pip install -e '.[view]'")

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tgsr.answering.ask import MOST_LETTERS
from tgsr.pages.guard import guard_for
from tgsr.pages.view.server import app, bound, server_config

PATIENCE = 30.0  # seconds, of a busy machine
IDLE = 4.0  # where something is to last longer: seconds that no busy machine takes for one step
N_PIECES = 4
CLOSE = "Connection: close\r\n"
taken: list[str] = []


async def slowly(request: Request) -> Response:
    """A response that takes longer than an idle connection may wait, as a stream of events does."""

    async def pieces():
        for _ in range(N_PIECES):
            await asyncio.sleep(1.2 * IDLE / N_PIECES)
            yield "piece "

    return StreamingResponse(pieces())


async def take(request: Request) -> Response:
    try:
        return PlainTextResponse(str(len(await request.body())))
    except ClientDisconnect:
        taken.append("cut")
        raise


ROUTES = [
    Route("/", lambda request: PlainTextResponse("page")),
    Route("/slowly", slowly),
    Route("/take", take, methods=["POST"]),
]


@contextmanager
def running(idle_seconds: float, most: int) -> Iterator[int]:
    """A server in a thread; its port."""
    listening = bound("127.0.0.1", 0)
    port = listening.getsockname()[1]
    config = server_config(app(ROUTES, guard_for("127.0.0.1", port)), idle_seconds, most)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listening.close()
    assert not thread.is_alive()


def connected(port: int, sends: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    with suppress(ConnectionError):  # a machine that slept in between: whoever reads sees that it is closed
        connection.sendall(sends)
    return connection


def head(port: int, method: str = "GET", path: str = "/", more: str = "") -> bytes:
    own = f"Origin: http://127.0.0.1:{port}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{own}{more}\r\n".encode()


def all_of(connection: socket.socket) -> bytes:
    """All that comes back until the server closes."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def page(port: int) -> bytes:
    """The page's answer; asked again where this process was too slow for an idle second between two of its calls."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with connected(port, head(port, more=CLOSE)) as connection:
                if told := all_of(connection):
                    return told
        except OSError:
            continue
    return b""


def n_closed(connections: list[socket.socket], least: int) -> int:
    """How many the server has closed, as soon as these are `least`, or at the end of all patience."""
    poll, closed, deadline = select.poll(), set(), time.monotonic() + PATIENCE
    for connection in connections:
        poll.register(connection, select.POLLIN)
    while len(closed) < least and time.monotonic() < deadline:
        for number, _ in poll.poll(100):
            closed.add(number)
            poll.unregister(number)
    return len(closed)


CLOSE = "Connection: close\r\n"


def test_idle_connections_are_cut_and_nobody_waits_for_them() -> None:
    with running(1.0, 500) as port, ExitStack() as stack:
        halves = (b"", b"GET / HT", head(port, "POST", "/take", "Content-Length: 9\r\n") + b"half")
        idle = [stack.enter_context(connected(port, halves[k % 3])) for k in range(200)]
        assert page(port).endswith(b"page")
        assert n_closed(idle, 200) == 200
        assert set(taken) <= {"cut"}


def test_a_head_that_trickles_is_idle() -> None:
    with running(0.5, 500) as port, connected(port, b"GET / HTTP/1.1\r\nX: ") as connection:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            time.sleep(0.05)
            try:
                connection.sendall(b"x")
            except OSError:
                return
    pytest.fail("it was not cut")


def test_a_body_that_trickles_and_a_response_that_takes_long_are_not_idle() -> None:
    with running(IDLE, 500) as port, ExitStack() as stack:
        body = head(port, "POST", "/take", f"{CLOSE}Content-Length: 10\r\n")
        slow, stream = (
            stack.enter_context(connected(port, sends))
            for sends in (body, head(port, path="/slowly", more=CLOSE))
        )
        for _ in range(10):
            time.sleep(1.2 * IDLE / 10)
            slow.sendall(b"x")
        assert all_of(slow).endswith(b"10")
        assert all_of(stream).count(b"piece ") == N_PIECES


@pytest.mark.parametrize("letter", ["彼", "\N{SPEAKER}"])
def test_a_long_question_of_any_script_arrives_in_the_packets_of_a_network(letter: str) -> None:
    """An address spells a letter as up to twelve; on the loopback device such a head comes in one piece."""
    with running(PATIENCE, 10) as port, connected(port) as connection:
        asked = head(port, path=f"/?q={quote(MOST_LETTERS * letter)}", more=CLOSE)
        for first in range(0, len(asked), 1400):
            with suppress(ConnectionError):
                connection.sendall(asked[first : first + 1400])
            time.sleep(0.005)  # else the system puts them together
        assert all_of(connection).endswith(b"page")


def test_more_connections_than_allowed_cost_those_that_waited_longest() -> None:
    with running(PATIENCE * 10, 20) as port, ExitStack() as stack:
        idle = [stack.enter_context(connected(port)) for _ in range(60)]
        assert page(port).endswith(b"page")
        assert n_closed(idle[:40], 40) == 40
        idle[-1].sendall(head(port, more=CLOSE))
        assert all_of(idle[-1]).endswith(b"page")
