"""Clocks, peaks of memory, and what a result says of the machine it was measured on."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from tgsr.engine.branch_cache import KeyValues
from tgsr.engine.plain_decoder import PlainDecoder
from tgsr.engine.shared_prefix import SharedPrefix

HERE = Path(__file__).parent
ROOT = HERE.parent
UpdateOf = Callable[
    ..., dict[str, Any]
]  # a side's update by its setting and its name: in_fresh_process, or planted


def in_turn(
    calls: Mapping[str, Callable[[], object]], runs: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each side's runs; the sides in turn, so that a machine that slows down slows them all.

    By `time.process_time` they are the processor's, which other work on the machine changes little.
    """
    seconds: dict[str, list[float]] = {side: [] for side in calls}
    for _ in range(runs):
        for side, call in calls.items():
            start = clock()
            call()
            if torch.cuda.is_available():  # what was asked of a GPU is not yet done
                torch.cuda.synchronize()
            seconds[side].append(clock() - start)
    return seconds


class Stopwatch:
    """Processor seconds by part, exclusive: while a part is open inside another, only the inner one's clock runs."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    def _turn(self) -> None:
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    @contextmanager
    def inside(self, encoder: Any, decoder: Any) -> Iterator[None]:
        """Within it, the encoder's calls count as "encode", and the decoder's first one ends "prefill", as does
        PlainDecoder's, which calls no module."""

        def begin(*_: Any) -> None:
            self._turn()
            self._open.append("encode")

        def end(*_: Any) -> None:
            self._turn()
            self._open.pop()

        def decoding(*_: Any) -> None:
            if self._open and self._open[-1] == "prefill":
                self._turn()
                self._open[-1] = "decoding"

        prefill = PlainDecoder.prefill

        def counted(plain: PlainDecoder, prefix: SharedPrefix) -> KeyValues:
            kept = prefill(plain, prefix)
            decoding()
            return kept

        hooks = [
            encoder.register_forward_pre_hook(begin),
            encoder.register_forward_hook(end),
            decoder.register_forward_hook(decoding),
        ]
        try:
            with patch.object(PlainDecoder, "prefill", counted):
                yield
        finally:
            for hook in hooks:
                hook.remove()


def resident(key: str = "VmRSS") -> int:
    """Bytes of this process's memory by a name in /proc/self/status; MemTotal is the machine's (Linux)."""
    file = "/proc/meminfo" if key.startswith("Mem") else "/proc/self/status"
    return int(re.findall(rf"{key}:\s+(\d+) kB", Path(file).read_text())[0]) * 1024


def peak_memory(call: Callable[[], object]) -> int:
    """Bytes of resident memory that the call needed at its peak, above what was resident before (Linux)."""
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is resident now
    call()
    return resident("VmHWM") - before


def in_child(call: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What the call returns, in a fork of this process, which has one thread: its memory begins as it is here.

    {} where the child did not come to its end.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, json.dumps(call()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        answer = file.read()
    os.waitpid(child, 0)
    returned: dict[str, float] = json.loads(answer or b"{}")
    return returned


def in_fresh_process(setting: Any, side: str, **options: str | int | float | bool) -> dict[str, Any]:
    """What one_update.py measures for this side in a process of its own; {"failed": why} where it ended early."""
    return said_by("one_update.py", flags_of(setting, side=side, **options))


def flags_of(setting: Any, **options: str | int | float | bool) -> list[str]:
    """The flags of a setting's fields, and of options besides."""
    flags = []
    for name, value in {**asdict(setting), **options}.items():
        if value is not False:
            flags.append(f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}"))
    return flags


def said_by(script: str, flags: Sequence[str], **environment: str) -> dict[str, Any]:
    """The last line of a script here, run in a process of its own; {"failed": why} where it ended early."""
    done = subprocess.run(
        [sys.executable, str(HERE / script), *flags],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def about() -> dict[str, Any]:
    """Machine, versions and command, for the head of a result."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    packages = ("torch", "transformers", "peft", "tgsr")
    # `python` stands for the interpreter, whose path means nothing elsewhere.
    script = Path(sys.argv[0]).resolve()
    named = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "machine": {
            **({"gpu": gpu.name, "gpu_memory_gib": round(gpu.total_memory / 2**30, 1)} if gpu else {}),
            "cpu": cpu.group(1) if cpu else platform.processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_gib": round(memory / 2**30, 1),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "command": shlex.join(["python", str(named), *sys.argv[1:]]),
    }
