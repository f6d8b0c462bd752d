"""Who may call the pages that tgsr serves: one guard around every request.

A server on this machine is within reach of every web page that its user has open. So the Host header must be one
that was bound (else another site's name could be pointed at this address: DNS rebinding), other sites' requests are
refused, and a browser is told to run nothing but what the server itself sent. Bound to any other address than
loopback, the server also wants the token that it printed.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from tgsr.errors import ViewError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Pairs = dict[str, str]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
EVERYWHERE = ("", "0.0.0.0", "::")
SAFE_METHODS = ("GET", "HEAD")
METHODS = (*SAFE_METHODS, "POST", "DELETE")
NONCE = "tgsr.nonce"  # where the scope holds the nonce that this response's inline styles need
MONTH = 30 * 24 * 3600  # seconds: raters come back
SHORTEST_TOKEN = 16
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=(), payment=(), usb=()",
}


def policy(nonce: str) -> str:
    """The content security policy. wavesurfer writes one <style> into its shadow root, hence the nonce."""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data: blob:; "
        "media-src 'self' blob:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


@dataclass(frozen=True, slots=True)
class Guard:
    """The conditions for a caller: one of `hosts` as Host header and, where it is not None, the `token`.

    `any_address`: any IP address with the port will do for a host. No name can be pointed at one, and a server that
    listens on all of a machine's addresses cannot know them.
    """

    hosts: frozenset[str]
    port: int
    token: str | None = None
    any_address: bool = False

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise ViewError(f"the token must have {SHORTEST_TOKEN} characters or more")

    @property
    def cookie(self) -> str:
        """The cookie's name. A host's cookies are shared by all of its ports, so the port is in it."""
        return f"tgsr-{self.port}"

    def admits_host(self, host: str) -> bool:
        """Whether a Host header is one of ours; browsers leave the port 80 out."""
        host = host.lower()
        name, _, port = host.rpartition(":")
        if not port.isdigit():  # no port: "localhost", "[::1]"
            name, port = host, "80"
        if port != str(self.port):
            return False
        return name in self.hosts or (self.any_address and _is_address(name))

    def admits_token(self, token: str | None) -> bool:
        """Whether a token is the server's; compared in constant time."""
        if self.token is None:
            return True
        return token is not None and secrets.compare_digest(token.encode(), self.token.encode())


def guard_for(host: str, port: int, token: str | None = None) -> Guard:
    """The guard of a server bound to `host`: a loopback address needs no token, any other has one, random if not given.

    The hosts are the loopback names and `host` itself; for 0.0.0.0 and :: also this machine's name and any IP address.
    """
    plain = host.strip("[]").lower()
    if is_loopback(plain):
        return Guard(frozenset({*LOOPBACK, bracketed(plain)}), port)
    own = {socket.gethostname().lower(), socket.getfqdn().lower()}
    names = own if plain in EVERYWHERE else {bracketed(plain)}
    token = token or secrets.token_urlsafe(24)
    return Guard(frozenset({*LOOPBACK, *names}), port, token, plain in EVERYWHERE)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address. Of names only "localhost" is sure to be one."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bracketed(host: str) -> str:
    """A host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True, slots=True)
class Guarded:
    """An ASGI app behind its guard. Whatever leaves it, errors too, has HEADERS and the policy."""

    app: App
    guard: Guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no page of ours opens a WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return
        scope[NONCE] = nonce = secrets.token_urlsafe(16)
        ours = {"content-security-policy": policy(nonce), **HEADERS}

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                theirs = message.get("headers", ())
                kept = [(k, v) for k, v in theirs if k.decode("latin-1").lower() not in ours]
                message["headers"] = [*kept, *((k.encode(), v.encode()) for k, v in ours.items())]
            await send(message)

        stopped = stopped_by(self.guard, scope)
        if stopped is None:
            await self.app(scope, receive, send_guarded)
        else:
            await _answer(send_guarded, *stopped)


def stopped_by(guard: Guard, scope: Scope) -> tuple[int, str, Pairs] | None:
    """Status, text and headers of the guard's own answer; None where the request may pass."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    hosts = headers.get("host", [])
    if len(hosts) != 1 or not guard.admits_host(hosts[0]):
        return 421, "This address is not served here: open the one that the command printed.", {}
    if scope["method"] not in METHODS:
        return 405, "No such method here.", {"allow": ", ".join(METHODS)}
    if not is_own(scope["method"], headers, hosts[0]):
        return 403, "Another site sent this, or it does not say where it comes from (Origin).", {}
    return _without_token(guard, scope, headers)


def is_own(method: str, headers: dict[str, list[str]], host: str) -> bool:
    """Whether a page of ours makes the request. Links to us from elsewhere may be followed; no more.

    A request that changes something must say where it comes from. Browsers do; other programs add an Origin header.
    """
    origins = headers.get("origin", [])
    if any(origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}") for origin in origins):
        return False
    site = headers.get("sec-fetch-site", [""])[0]
    if method in SAFE_METHODS:
        mode, dest = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
        is_link = mode == ["navigate"] and dest == ["document"]
        return site in ("", "same-origin", "none") or is_link
    return site == "same-origin" or (not site and bool(origins))


def _without_token(
    guard: Guard, scope: Scope, headers: dict[str, list[str]]
) -> tuple[int, str, Pairs] | None:
    """The answer to a request without the token's cookie; None with it. A token in an address becomes the cookie."""
    if guard.token is None:
        return None
    pairs = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    tokens = [value for name, value in pairs if name == "token"]
    if tokens and scope["method"] in SAFE_METHODS:
        if len(tokens) == 1 and guard.admits_token(tokens[0]):
            return _let_in(guard, scope, [pair for pair in pairs if pair[0] != "token"])
        return 401, "That token is not this server's: open the whole address that the command printed.", {}
    if any(map(guard.admits_token, _cookies(headers, guard.cookie))):
        return None
    return 401, "The token is missing: open the whole address that the command printed.", {}


def _let_in(guard: Guard, scope: Scope, left: list[tuple[str, str]]) -> tuple[int, str, Pairs]:
    """A redirect to the same address without its token; the browser keeps what stands behind #.

    The cookie is lax: behind a link in somebody's mail a strict one would not come along, here and later. What lax
    lets through of other sites, following a link, changes nothing, and `is_own` stops all else.
    """
    path = "/" + quote(scope["path"].lstrip("/\\"), safe="/")  # "//other.example" would be another site's
    cookie = f"{guard.cookie}={guard.token}; Path=/; Max-Age={MONTH}; HttpOnly; SameSite=Lax"
    cookie += "; Secure" if scope.get("scheme") == "https" else ""
    return 303, "", {"location": f"{path}?{urlencode(left)}" if left else path, "set-cookie": cookie}


def _cookies(headers: dict[str, list[str]], name: str) -> list[str]:
    """The values of all cookies of that name.

    A host's cookies are sent to all of its ports: what other servers set may have any form, and our name too.
    """
    pairs = (part.partition("=") for line in headers.get("cookie", ()) for part in line.split(";"))
    return [value.strip().strip('"') for key, _, value in pairs if key.strip() == name]


async def _answer(send: Send, status: int, text: str, headers: Pairs) -> None:
    body = json.dumps({"problem": text}).encode() if text else b""
    own = {"content-type": "application/json", "cache-control": "no-store", "connection": "close"}
    own |= {"content-length": str(len(body)), **headers}
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in own.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def _is_address(host: str) -> bool:
    is_six = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if is_six else host)
    except ValueError:
        return False
    return (address.version == 6) == is_six
