"""How many connections the local pages hold, and for how long they wait for one that says nothing.

A connection costs a file descriptor, of which a process has some thousand: whoever opens as many and sends nothing, or
half of a request, would shut all others out.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

IDLE_SECONDS = 20.0
MOST_CONNECTIONS = 500


def bounded(idle_seconds: float = IDLE_SECONDS, most: int = MOST_CONNECTIONS) -> type[H11Protocol]:
    """uvicorn's HTTP protocol, in which no more than `most` connections are open and none is idle for longer.

    Idle is a connection whose client is to speak and does not: a request's head is not whole `idle_seconds` after it
    could begin, or nothing more of its body came for as long. Where there are too many, those that waited longest go,
    idle ones first, then those that do not take what they asked for.
    """

    class Bounded(H11Protocol):
        since: float  # when the client's turn began, or its last piece of a body came
        timer: asyncio.TimerHandle

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.since = self.loop.time()
            self.timer = self.loop.call_later(idle_seconds, self.look)
            if len(self.connections) > most:
                self.make_room()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and self.cycle.more_body:
                self.since = self.loop.time()

        def on_response_complete(self) -> None:
            self.since = self.loop.time()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self.timer.cancel()
            super().connection_lost(exc)

        def is_clients_turn(self) -> bool:
            if self.cycle is None or self.cycle.response_complete:
                return True
            return self.cycle.more_body and not self.flow.read_paused

        def look(self) -> None:
            waited = self.loop.time() - self.since if self.is_clients_turn() else 0.0
            if waited >= idle_seconds:
                self.cut()
            else:
                self.timer = self.loop.call_later(idle_seconds - waited, self.look)

        def cut(self) -> None:
            self.connections.discard(self)  # it does not count while it closes
            self.transport.abort()

        def make_room(self) -> None:
            others = [other for other in self.connections if isinstance(other, Bounded) and other is not self]
            idle = [other for other in others if other.is_clients_turn()]
            stuck = [other for other in others if other.flow.write_paused]
            if idle or stuck:
                min(idle or stuck, key=lambda other: other.since).cut()

    return Bounded
