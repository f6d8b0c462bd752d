"""The guard of the local pages, as browsers, other sites and programs meet it."""

import socket

import pytest

pytest.importorskip("starlette", reason="the web pages need: pip install -e '.[view]'")

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tgsr.errors import ViewError
from tgsr.pages.guard import HEADERS, NONCE, Guard, Guarded, guard_for, is_loopback
from tgsr.pages.view.server import address_of, bound

HERE = "http://127.0.0.1:8731"
TOKEN = "t" * 20


def fails(request):
    raise RuntimeError("a fault of ours")


ROUTES = [
    Route("/", lambda request: PlainTextResponse("page")),
    Route("/nonce", lambda request: PlainTextResponse(request.scope[NONCE])),
    Route("/query", lambda request: JSONResponse(dict(request.query_params))),
    Route("/change", lambda request: PlainTextResponse("changed"), methods=["POST", "DELETE"]),
    Route("/fails", fails),
]


def client(guard: Guard, base: str = HERE) -> TestClient:
    app = Guarded(Starlette(routes=ROUTES), guard)
    return TestClient(app, base_url=base, follow_redirects=False, raise_server_exceptions=False)


@pytest.fixture
def local() -> TestClient:
    return client(guard_for("127.0.0.1", 8731))


@pytest.fixture
def remote() -> TestClient:
    return client(guard_for("192.168.1.7", 8731, TOKEN), "http://192.168.1.7:8731")


# --- Host ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8731", "localhost:8731", "LOCALHOST:8731", "[::1]:8731"])
def test_the_names_of_this_machine_are_served(local, host):
    assert local.get("/", headers={"host": host}).text == "page"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8731",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.0.0.1:8732",
        "localhost.evil.example:8731",
        "127.0.0.1.evil.example:8731",
        "127.0.0.1:8731.evil.example",
        "127.0.0.1:8731@evil.example",
        "192.168.1.7:8731",
        "",
        ":8731",
        "[::1",
    ],
)
def test_a_name_that_another_site_pointed_at_us_is_refused(local, host):
    answer = local.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "page" not in answer.text


def test_two_host_headers_or_none_are_refused():
    guard = guard_for("127.0.0.1", 8731)
    for hosts in ([], ["127.0.0.1:8731", "evil.example"], ["127.0.0.1:8731", "127.0.0.1:8731"]):
        assert raw(guard, [(b"host", host.encode()) for host in hosts]) == 421


def raw(guard: Guard, headers: list[tuple[bytes, bytes]]) -> int:
    """The status of a GET whose headers no client library would send."""
    import anyio

    told = []

    async def send(message):
        told.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": headers,
        "scheme": "http", "root_path": "", "http_version": "1.1", "server": ("127.0.0.1", 8731),
    }  # fmt: skip
    anyio.run(Guarded(Starlette(routes=ROUTES), guard), scope, receive, send)
    return told[0]["status"]


def test_a_server_on_all_addresses_goes_by_addresses_and_its_own_name_alone():
    guard = guard_for("0.0.0.0", 8731)
    assert guard.admits_host("10.1.2.3:8731")
    assert guard.admits_host("[fe80::1]:8731")
    assert guard.admits_host(f"{socket.gethostname()}:8731")
    assert not guard.admits_host("evil.example:8731")
    assert not guard.admits_host("10.1.2.3:8732")
    assert not guard.admits_host("fe80::1:8731")  # no brackets: where the port begins is anybody's guess
    assert not guard_for("192.168.1.7", 8731).admits_host("10.1.2.3:8731")


def test_port_80_may_be_left_out():
    guard = guard_for("127.0.0.1", 80)
    assert guard.admits_host("localhost")
    assert guard.admits_host("[::1]")
    assert not guard.admits_host("evil.example")


# --- token -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_no_token_is_needed_where_only_this_machine_connects(host):
    assert guard_for(host, 8731).token is None
    assert guard_for(host, 8731, TOKEN).token is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.7", "localhost.evil.example", "my-machine"])
def test_any_other_address_gets_a_long_token_and_each_server_its_own(host):
    first, second = guard_for(host, 8731).token, guard_for(host, 8731).token
    assert len(first) >= 32
    assert first != second


def test_a_name_is_not_believed_to_be_loopback():
    assert not is_loopback("localhost.localdomain")
    assert not is_loopback("127.0.0.1.evil.example")
    assert not is_loopback("2130706433")


def test_the_token_becomes_a_cookie_and_leaves_the_address(remote):
    assert remote.get("/").status_code == 401
    answer = remote.get(f"/query?a=1&token={TOKEN}&b=%26%3D")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/query?a=1&b=%26%3D"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert answer.headers["cache-control"] == "no-store"
    assert remote.get(answer.headers["location"]).json() == {"a": "1", "b": "&="}


@pytest.mark.parametrize(
    "query", ["token=", "token=x", f"token={TOKEN}x", f"token={TOKEN}&token=x", "token=%ff%00", "token=тайна"]
)
def test_a_wrong_token_is_refused_and_sets_nothing(remote, query):
    answer = remote.get(f"/?{query}")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert TOKEN not in answer.text


@pytest.mark.parametrize(
    "cookie", ["tgsr-8731=", "tgsr-8731=x", f"tgsr-8732={TOKEN}", "tgsr-8731=тайна", ";=;;"]
)
def test_a_wrong_cookie_is_refused(remote, cookie):
    assert remote.get("/", headers={"cookie": cookie.encode()}).status_code == 401


@pytest.mark.parametrize(
    "foreign",
    [
        "other=1",
        'prefs={"theme": "dark", "n": [1, 2]}',
        "a b=c d",
        "name[0]=x",
        "x=1, y=2",
        "bad\xff=\xfe",
        "=nameless",
        "no-value",
        "path=/; Domain=localhost; Secure",
        "tgsr-8731=somebody-elses",
        '"quoted; semicolon"=1',
        '_xsrf=2|8a|b:c@d; username-localhost-8888="2|1:0|10:1"',
    ],
)
def test_cookies_of_other_servers_on_this_machine_are_no_matter(remote, foreign):
    for line in (f"{foreign}; tgsr-8731={TOKEN}", f"tgsr-8731={TOKEN}; {foreign}"):
        assert remote.get("/", headers={"cookie": line.encode("latin-1")}).text == "page"


def test_the_token_itself_does_not_authorise_a_change(remote):
    """A link can hold it, so another site could make a browser send it."""
    same = {"origin": "http://192.168.1.7:8731"}
    assert remote.post(f"/change?token={TOKEN}", headers=same).status_code == 401
    remote.get(f"/?token={TOKEN}")
    assert remote.post("/change", headers=same).text == "changed"


def test_no_path_makes_the_redirect_leave_this_server(remote):
    for path in ("//evil.example/", "/%2F%2Fevil.example", "/\\evil.example", "/%5Cevil.example"):
        answer = remote.get(f"http://192.168.1.7:8731{path}?token={TOKEN}")
        location = answer.headers["location"]
        assert location.startswith("/")
        assert not location.startswith(("//", "/\\"))
    answer = remote.get(f"/a%0D%0Aset-cookie:%20x=1?token={TOKEN}")
    assert "\r" not in answer.headers["location"]
    assert answer.headers["set-cookie"].startswith("tgsr-8731=")


def test_a_short_token_cannot_be_set():
    with pytest.raises(ViewError, match="16 characters"):
        guard_for("0.0.0.0", 8731, "secret")


def test_behind_tls_the_cookie_stays_there():
    answer = client(guard_for("study.example", 443, TOKEN), "https://study.example:443").get(
        f"/?token={TOKEN}", headers={"host": "study.example:443"}
    )
    assert "Secure" in answer.headers["set-cookie"]


# --- other sites -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:8731"},  # another origin than the one asked
        {"origin": "http://127.0.0.1:8731.evil.example"},
        {"origin": HERE, "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin", "origin": "http://evil.example"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_nothing_is_changed_for_another_site(local, method, headers):
    assert local.request(method, "/change", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{"origin": HERE}, {"sec-fetch-site": "same-origin"}, {"origin": HERE, "sec-fetch-site": "same-origin"}],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_our_own_page_may_change_things(local, method, headers):
    assert local.request(method, "/change", headers=headers).text == "changed"


def test_other_sites_may_link_to_us_and_read_nothing(local):
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert local.get("/", headers=link).status_code == 200
    for dest in ("image", "audio", "script", "iframe", "empty"):
        mode = "navigate" if dest == "iframe" else "no-cors"
        inside = {"sec-fetch-site": "cross-site", "sec-fetch-mode": mode, "sec-fetch-dest": dest}
        assert local.get("/", headers=inside).status_code == 403
    assert local.get("/", headers={"origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_refused(local, method):
    assert local.request(method, "/", headers={"origin": HERE}).status_code == 405


def test_no_websocket_is_opened():
    from starlette.websockets import WebSocketDisconnect

    with (
        pytest.raises(WebSocketDisconnect),
        client(guard_for("127.0.0.1", 8731)).websocket_connect("/", headers={"host": "127.0.0.1:8731"}),
    ):
        pass


# --- headers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/nowhere", "/fails", "/change"])
def test_every_answer_has_the_headers_errors_too(local, path):
    for answer in (local.get(path), local.get(path, headers={"host": "evil.example"})):
        for name, value in HEADERS.items():
            assert answer.headers.get_list(name) == [value]
        directives = answer.headers["content-security-policy"].split("; ")
        assert directives[0] == "default-src 'none'"
        assert "script-src 'self'" in directives
        assert "frame-ancestors 'none'" in directives
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers
    assert local.get("/fails").status_code == 500
    assert "a fault of ours" not in local.get("/fails").text


def test_each_answer_has_its_own_nonce(local):
    first, second = local.get("/nonce"), local.get("/nonce")
    assert first.text != second.text
    assert f"'nonce-{first.text}'" in first.headers["content-security-policy"]


# --- binding ---------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_said():
    with bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ViewError, match=f"127.0.0.1:{port}.*--port"):
            bound("127.0.0.1", port)


def test_a_port_or_host_that_cannot_be_is_said():
    with pytest.raises(ViewError, match="--port 65536"):
        bound("127.0.0.1", 65536)
    with pytest.raises(ViewError, match=r"192\.0\.2\.1:0"):
        bound("192.0.2.1", 0)  # an address for documentation: no machine's own


def test_the_address_has_the_token_where_one_is_needed():
    assert address_of("127.0.0.1", guard_for("127.0.0.1", 8731), "/") == f"{HERE}/"
    assert address_of("::1", guard_for("::1", 8731), "/study") == "http://[::1]:8731/study"
    shown = address_of("0.0.0.0", guard_for("0.0.0.0", 8731, TOKEN), "/")
    assert shown == f"http://{socket.gethostname()}:8731/?token={TOKEN}"
