"""Debian's package of a corpus: downloaded from a real server that cuts off, cannot go on, or has something else."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from local_server import Got, Reply, serving
from tgsr.data.corpora.amazon_queen_package import MIRROR, Package, addresses_of, fetch_package
from tgsr.errors import FetchError

CONTENT = bytes(range(256)) * 400
PACKAGE = Package("queen", "1", "pool/q", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def in_the_middle(got: Got) -> Reply:
    """As Debian's servers answer: what the request's range asks for; cut off after 40,000 bytes."""
    first = int(got.headers.get("range", "bytes=0-")[6:-1])
    return Reply(CONTENT[first:], status=206 if first else 200, cut=40_000)


def test_a_download_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    with serving(lambda got, _: in_the_middle(got)) as server:
        path = fetch_package(tmp_path, PACKAGE, [f"{server.url}/queen.deb"])
        assert fetch_package(tmp_path, PACKAGE, []) == path
    assert path.read_bytes() == CONTENT
    assert [got.headers.get("range") for got in server.got] == [None, "bytes=40000-", "bytes=80000-"]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("part", "answer"),
    [
        (CONTENT[:9], lambda got: Reply(CONTENT)),  # it knows no ranges
        (b"another file's", in_the_middle),
        (
            b"x" * (len(CONTENT) + 1),
            lambda got: Reply(CONTENT, status=416 if "range" in got.headers else 200),
        ),
        (b"another file's", lambda got: Reply(CONTENT, status=416 if "range" in got.headers else 200)),
    ],
    ids=["no ranges", "it was another file", "it was longer", "the range is refused"],
)
def test_what_cannot_be_gone_on_with_is_begun_again(
    tmp_path: Path, part: bytes, answer: Callable[[Got], Reply]
) -> None:
    (tmp_path / f"{PACKAGE.file}.part").write_bytes(part)
    with serving(lambda got, _: answer(got)) as server:
        assert fetch_package(tmp_path, PACKAGE, [f"{server.url}/queen.deb"]).read_bytes() == CONTENT


def test_what_is_another_file_is_refused_with_every_reason_and_nothing_is_left(tmp_path: Path) -> None:
    def answer(got: Got) -> Reply:
        paths = {"/altered": Reply(CONTENT[::-1]), "/portal": Reply(b"<html>log in</html>")}
        return paths.get(got.path, Reply(status=404))

    with serving(lambda got, _: answer(got)) as server, pytest.raises(FetchError) as told:
        fetch_package(
            tmp_path, PACKAGE, [f"{server.url}/{name}" for name in ("altered", "portal", "missing")]
        )
    for part in ("SHA-256", "a file of 19 bytes", "404", MIRROR, str(tmp_path / PACKAGE.file)):
        assert part in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_an_altered_file_is_told(tmp_path: Path) -> None:
    (tmp_path / PACKAGE.file).write_bytes(b"not it")
    with pytest.raises(FetchError, match="altered; delete it"):
        fetch_package(tmp_path, PACKAGE, [])


def test_the_mirror_that_a_variable_names_comes_alone_and_debians_own_without_apt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MIRROR, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get
    assert addresses_of(PACKAGE) == ["https://deb.debian.org/debian/pool/q/queen_1_all.deb"]
    monkeypatch.setenv(MIRROR, "http://mirror.example/debian/")
    assert addresses_of(PACKAGE) == ["http://mirror.example/debian/pool/q/queen_1_all.deb"]
    monkeypatch.setenv(MIRROR, "/mnt/debian")
    with pytest.raises(FetchError, match="http://"):
        addresses_of(PACKAGE)
