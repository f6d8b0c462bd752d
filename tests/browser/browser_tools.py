"""Servers in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError


@contextmanager
def server(*command: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`tgsr ...` until the block ends: the address that it prints, and its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tgsr.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    said = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"http://\S+", line):
                _wait_for(found[0])
                yield found[0], process
                break
        else:
            raise AssertionError("".join(said))
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")
