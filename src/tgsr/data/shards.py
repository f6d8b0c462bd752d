"""A step over any number of rows: cut into shards, each shard's result kept under the name of what it was made of.

A result is written whole or not at all, so that a run that was killed at any moment goes on where it was: what is
there is not made again, and the output is put together once, in the rows' order. Nothing grows with the number of
rows but the list of shards' names. The same function runs in this process, in several, or under Ray.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from itertools import islice
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from tqdm import tqdm

from tgsr.disk.jsonl import Row
from tgsr.disk.lock import held
from tgsr.disk.whole import HALF, whole
from tgsr.errors import Bad, DiskError, ShardError, Stopped, install
from tgsr.records import Clip, Question, as_row

Runner = Literal["here", "ray"]
SHARDS_A_WORKER = 8  # that Ray Data gets at a time
PATIENCE = 1.0  # seconds that a worker has to drop a shard


@dataclass(frozen=True, slots=True)
class Made:
    """What a step makes of a shard: rows to keep, and what was left out and why."""

    rows: Sequence[Clip | Question | Row]
    bad: Sequence[Bad] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """`function(settings, rows) -> Made`, a module's own function, so that other processes find it.

    `settings` is a frozen dataclass of plain values. The shard's key is made of both, of `version`, of the rows and of
    the size and time of the files that they name as audio, and of those in the folders of `models` that are here:
    change any of them, and the shard is made again. A function that was moved keeps the `name` under which its results
    were kept before, "module.function".
    """

    function: Callable[[Any, Sequence[Row]], Made]
    settings: Any
    name: str | None = None
    version: int = 1
    models: tuple[str | None, ...] = ()

    def key(self, rows: Sequence[Row], root: Path) -> str:
        name = self.name or f"{self.function.__module__}.{self.function.__qualname__}"
        settings = json.dumps(asdict(self.settings), default=str)
        digest = hashlib.sha256(f"{name} {self.version} {settings}".encode())
        for model in self.models:
            if model and (folder := Path(model)).is_dir():
                for file in sorted(folder.iterdir()):
                    digest.update(f"{file.name} {_stamp(file)}".encode())
        for row in rows:
            digest.update(json.dumps(row, sort_keys=True).encode())
            if isinstance(sound := row.get("audio"), str):
                digest.update(_stamp(root / sound).encode())
        return digest.hexdigest()[:32]


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows went in, came out, have flags, were left out; how many shards there are, and were; rows by flag."""

    given: int
    kept: int
    flagged: int
    left_out: int
    shards: int
    found: int
    by_flag: Mapping[str, int] = field(default_factory=dict)


def run(
    step: Step,
    rows: Iterable[Row | Bad],
    out: Path,
    *,
    root: Path,
    rows_per_shard: int = 64,
    workers: int = 1,
    runner: Runner = "here",
    most_bad: float = 1.0,
) -> Counts:
    """Writes what `step` makes of `rows` to `out`, and what was left out to errors.jsonl beside it.

    A Bad among the rows is left out. `root` is the folder that audio paths start from. Results of shards lie in
    .OUT.shards, which can be deleted once `out` is there; a later run with more rows finds those that it knows.
    ShardError where more than the share `most_bad` of the rows was left out: then `out` is written, all the same.
    RunError where another process makes the same `out`.
    """
    with held(out):
        kept = out.with_name(f".{out.name}.shards")
        kept.mkdir(parents=True, exist_ok=True)
        for half in (*kept.glob("half-*"), *kept.glob(f"{HALF}*")):  # of a run that was killed
            half.unlink()
        keys: list[str] = []
        n_given = n_found = 0

        def jobs() -> Iterator[ShardJob]:
            """The shards that are not there yet."""
            nonlocal n_given, n_found
            iterator = iter(rows)
            while shard := list(islice(iterator, rows_per_shard)):
                good = [row for row in shard if not isinstance(row, Bad)]
                bad = [row for row in shard if isinstance(row, Bad)]
                keys.append(step.key([*good, *map(asdict, bad)], root))
                n_given += len(shard)
                job = ShardJob(step, good, bad, kept / keys[-1])
                if job.path.exists():
                    n_found += 1
                    bar.update(job.n_rows)
                else:
                    yield job

        try:
            with tqdm(desc=out.name, unit="row") as bar:
                for n_rows in _RUNNERS[runner](jobs(), workers):
                    bar.update(n_rows)
            n_kept, n_flagged, n_bad, by_flag = _put_together(keys, kept, out)
            counts = Counts(n_given, n_kept, n_flagged, n_bad, len(keys), n_found, by_flag)
        except DiskError as error:
            raise ShardError(f"{error}: {kept.name} has what is done") from error
        if counts.left_out > most_bad * counts.given:
            problem = f"{counts.left_out} of {counts.given} rows were left out, more than {most_bad:.0%}"
            remedy = f"{errors_of(out)} says why: mend them or raise --most-bad"
            raise ShardError(f"{out}: {problem}; {remedy}")
        return counts


def errors_of(out: Path) -> Path:
    return out.with_name("errors.jsonl")


@dataclass(frozen=True, slots=True)
class ShardJob:
    """A shard to be made: its step and rows, those that were bad before, and the file of the result."""

    step: Step
    rows: Sequence[Row]
    bad: Sequence[Bad]
    path: Path

    @property
    def n_rows(self) -> int:
        return len(self.rows) + len(self.bad)

    def make(self) -> int:
        """The number of rows that were done. The result: a line a row, ["row", {...}] or ["bad", {...}]."""
        made = self.step.function(self.step.settings, self.rows) if self.rows else Made(())
        lines = [["bad", asdict(bad)] for bad in (*self.bad, *made.bad)]
        lines += [["row", dict(as_row(row))] for row in made.rows]
        with whole(self.path) as half, half.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
        return self.n_rows


def _by_processes(jobs: Iterator[ShardJob], workers: int) -> Iterator[int]:
    """Each shard's rows as it is done, in this process or in `workers` of them."""
    if workers == 1:
        yield from (job.make() for job in jobs)
        return
    others = active_children()
    processes = ProcessPoolExecutor(workers, get_context("spawn"), _end_when_asked)
    running: set[Future[int]] = set()
    try:
        for job in jobs:
            # Ctrl-C goes to all processes of a terminal: those that begin here never hear it, and this one ends them
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                running.add(processes.submit(job.make))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if len(running) >= 2 * workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield sum(future.result() for future in done)
        yield from (future.result() for future in as_completed(running))
    except BrokenProcessPool as error:
        raise ShardError(
            "a worker was killed, as a system does that has no memory left: run the same command again, with fewer "
            "--workers; what is done is kept"
        ) from error
    except BaseException:
        while workers_left := {*active_children()} - {*others}:
            for worker in workers_left:
                worker.terminate()  # what it makes; it may have more to make
            worker.join(PATIENCE)
        raise
    finally:
        processes.shutdown(cancel_futures=True)


def _end_when_asked() -> None:
    """Has a worker drop what it makes, with all that is half-written, at SIGTERM, and where its parent is gone."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    def end_with(parent: BaseProcess) -> None:
        parent.join()
        while True:  # it may have more to make
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE)

    threading.Thread(target=end_with, args=(parent_process(),), daemon=True).start()
    # Last: until here a signal ends the worker at once, and nothing is half-written.
    signal.signal(signal.SIGTERM, end)


def _by_ray(jobs: Iterator[ShardJob], workers: int) -> Iterator[int]:
    """Ray Data over some shards at a time, on the cluster that RAY_ADDRESS names, else on this machine.

    All machines must see the folder of the output, and have tgsr. A stop costs the shards that are under way.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ShardError(f"--runner ray: needs ray, {install('ray')}") from error
    ours = not ray.is_initialized()
    if ours:
        address = os.environ.get("RAY_ADDRESS")
        local: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
        ray.init(address=address, **({} if address else local))
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        while batch := list(islice(jobs, SHARDS_A_WORKER * workers)):
            items = [{"job": pickle.dumps(job)} for job in batch]
            ray.data.from_items(items, override_num_blocks=len(items)).map(_make_pickled).materialize()
            yield sum(job.n_rows for job in batch)
    finally:
        if ours:
            ray.shutdown()


def _make_pickled(item: dict[str, bytes]) -> dict[str, int]:
    return {"made": pickle.loads(item["job"]).make()}  # our own bytes, of a moment ago


_RUNNERS = {"here": _by_processes, "ray": _by_ray}


def _put_together(keys: Sequence[str], kept: Path, out: Path) -> tuple[int, int, int, dict[str, int]]:
    """All shards' results in order, into `out` and its errors; how many rows came out, have flags, were left out."""
    n_kept = n_flagged = n_bad = 0
    by_flag: Counter[str] = Counter()
    with (
        whole(errors_of(out)) as half_errors,
        whole(out) as half_rows,
        half_rows.open("w", encoding="utf-8", errors="backslashreplace") as rows,
        half_errors.open("w", encoding="utf-8", errors="backslashreplace") as errors,
    ):
        for key in keys:
            with (kept / key).open(encoding="utf-8") as lines:
                for line in lines:
                    kind, row = json.loads(line)
                    (rows if kind == "row" else errors).write(json.dumps(row, ensure_ascii=False) + "\n")
                    n_kept += kind == "row"
                    n_bad += kind == "bad"
                    flags = (row.get("flags") or ()) if kind == "row" else ()
                    n_flagged += bool(flags)
                    by_flag.update(flags)
    return n_kept, n_flagged, n_bad, dict(by_flag)
