"""Debian's package of Flight of the Amazon Queen: fetched once, gone on with where it was interrupted, checked."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError

from tqdm import tqdm

from tgsr.data.corpora.amazon_queen_bundle import member_of_package
from tgsr.disk.lock import held
from tgsr.disk.whole import disk_errors, sha256_of, write_whole
from tgsr.errors import DiskError, FetchError

MIRROR = "TGSR_DEBIAN_MIRROR"
LICENCE = """\
The game is freeware, (C) 1995 John Passfield and Steven Stamatiadis. Its licence lets you give it away for free, or in
a collection, and change it (and say so), with its readme and notices; it may not be sold by itself. The licence: {}"""
BLOCK = 1 << 18
RANGE_REFUSED = 416
TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a package in Debian's archive: `pool` is its folder there, `size` in bytes."""

    name: str
    version: str
    pool: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        return f"{self.name}_{self.version}_all.deb"


QUEEN = Package(
    "flight-of-the-amazon-queen",
    "1.0.0-9",
    "pool/main/f/flight-of-the-amazon-queen",
    34_859_620,
    "40c08fd258d6fe95c46c1eaf5e9137f84ba330657995a281bd887c94a560a0f1",
)


def fetch_package(folder: Path, package: Package = QUEEN, addresses: Sequence[str] | None = None) -> Path:
    """The package's file in the folder, downloaded the first time, its hash checked every time; licence beside it.

    `addresses` are tried in order (None: `addresses_of`). What was downloaded of it before is kept as NAME.part.
    Raises FetchError, with every reason, where none serves, where what came is not the package, and where the file
    that is there was altered.
    """
    target = folder / package.file
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with held(target):
            if not target.is_file():
                _download(package, target, addresses_of(package) if addresses is None else addresses)
    if (got := sha256_of(target)) != package.sha256:
        remedy = "altered; delete it and run `tgsr fetch amazon-queen`"
        raise FetchError(f"{target}: the SHA-256 is {got}, expected {package.sha256}: {remedy}")
    return target


def licence_of(file: Path) -> str:
    """What the game's licence comes to, and where its text lies: beside the package's file."""
    text = file.with_name("LICENCE")
    if not text.is_file():
        write_whole(text, member_of_package(file, ["copyright"]))
    return LICENCE.format(text)


def addresses_of(package: Package) -> list[str]:
    """Where the package is: on the mirror that TGSR_DEBIAN_MIRROR names alone, else where apt has it, and Debian's."""
    if mirror := os.environ.get(MIRROR):
        if not mirror.startswith(("http://", "https://")):
            remedy = "must begin with http:// or https://, as https://deb.debian.org/debian"
            raise FetchError(f"{MIRROR}={mirror}: {remedy}")
        return [f"{mirror.rstrip('/')}/{package.pool}/{package.file}"]
    debians = f"https://deb.debian.org/debian/{package.pool}/{package.file}"
    return [*(address for address in _apts(package) if address != debians), debians]


def _apts(package: Package) -> list[str]:
    """The address in apt's own lists; none where there is no apt, or it does not know the package."""
    if shutil.which("apt-get") is None:
        return []
    command = ["apt-get", "--print-uris", "download", f"{package.name}={package.version}"]
    # apt prints nothing about a file that is in its folder already
    said = subprocess.run(command, capture_output=True, text=True, cwd="/")
    addresses = [line.split("'")[1] for line in said.stdout.splitlines() if line.startswith("'http")]
    return addresses if said.returncode == 0 else []


def _download(package: Package, target: Path, addresses: Sequence[str]) -> None:
    part = target.with_name(f"{target.name}.part")
    reasons = []
    for n, address in enumerate(addresses):
        before, begun = -1, _size(part)
        while before < _size(part) < package.size or before < 0:  # again as long as that brings more
            before = _size(part)
            try:
                _go_on(package, part, address)
                reasons.append(f"{address}: ended at byte {_size(part):,} of {package.size:,}")
            except DiskError:
                raise
            except (OSError, http.client.HTTPException) as error:
                reasons.append(f"{address}: {error}")
                if isinstance(error, HTTPError) and error.code == RANGE_REFUSED and part.is_file():
                    part.unlink()
                    before = -1
        if _size(part) >= package.size:
            if (got := sha256_of(part)) == package.sha256:
                with disk_errors(target):
                    os.replace(part, target)
                return
            part.unlink()
            if begun:  # what was there may have been the beginning of another file
                return _download(package, target, addresses[n:])
            reasons.append(f"{address}: what came has the SHA-256 {got}, expected {package.sha256}")
    raise FetchError(
        f"{package.file} could not be downloaded. Set {MIRROR} to a mirror of Debian that this machine reaches and run "
        f"the same command again (it goes on where it was), or put the file, from https://packages.debian.org/"
        f"{package.name}, at {target}. What was tried:\n" + "\n".join(dict.fromkeys(reasons))
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _go_on(package: Package, part: Path, address: str) -> None:
    """Downloads what the part lacks, as far as it comes; all of it where the server cannot begin in the middle.

    HTTPException, before anything is written, where the server has a file of another length.
    """
    done = _size(part)
    request = urllib.request.Request(address, headers={"Range": f"bytes={done}-"} if done else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        begins = done if answer.status == 206 else 0
        left = answer.headers["Content-Length"]
        if left is not None and begins + int(left) != package.size:
            found = f"a file of {begins + int(left):,} bytes, not of {package.size:,}"
            raise http.client.HTTPException(found)
        with (
            disk_errors(part),
            part.open("ab" if begins else "wb") as file,
            tqdm(total=package.size, initial=begins, desc=package.name, unit="B", unit_scale=True) as bar,
        ):
            while begins < package.size and (block := answer.read(BLOCK)):
                file.write(block)
                begins += len(block)
                bar.update(len(block))
