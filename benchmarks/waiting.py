"""How torch's threads wait for each other: spinning (libgomp's default), briefly (the command line's), or passively.

A process a side, each with the same model; in turn each samples a group's answers and computes an update: before all
other processes (real time, which needs root: as good as a quiet machine), beside what else runs, and beside as many
busy processes as there are cores too. Numbers are medians of seconds; a ratio is a side's over "briefly". `others` is
how many cores the rest of the machine kept busy meanwhile.

With --predict a whole command instead: `tgsr predict` of 38 phrases, its processor seconds with one thread, with a
thread a core, and so beside as many busy processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tgsr.cli import PATIENCE

HERE = Path(__file__).parent
ENVIRONMENT = {
    "spinning": {},
    "briefly": PATIENCE,
    "passive": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
WORK = ("sampling", "update")


def work(layers: int, new_tokens: int) -> None:
    """A side's process: for each line of stdin, which names a work, the seconds that this work takes."""
    from sides import Setting, grpo_case, model_under_test, update
    from speed import sample_shared

    setting = Setting(layers=layers, seconds=10.0, group=4, text=60, answer=new_tokens)
    case = grpo_case(model_under_test(setting, "lora"), setting)
    calls = {"sampling": lambda: sample_shared(case, new_tokens), "update": lambda: update(case, "shared")}
    for call in calls.values():  # what torch does once
        call()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        calls[line.strip()]()
        print(time.perf_counter() - start, flush=True)


@contextmanager
def started(
    *arguments: str, environment: dict[str, str] | None = None, real_time: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """A process of Python that ends with the block. Its OMP_... are those of `environment` alone."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=inherited | (environment or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=go_first if real_time else None,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def seconds_of(worker: subprocess.Popen[str], what: str) -> float:
    assert worker.stdin
    assert worker.stdout
    worker.stdin.write(what + "\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def busy_seconds() -> float:
    """Processor seconds that the whole machine has spent so far (Linux)."""
    user, nice, system, _, _, irq, soft, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def processes_seconds(processes: Sequence[subprocess.Popen[str]]) -> float:
    """Processor seconds that these processes have spent so far (Linux)."""
    stats = (
        Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split() for process in processes
    )
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")


def go_first() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))


def rows_of(runs: int, arguments: Sequence[str], n_busy: int, real_time: bool) -> list[dict[str, Any]]:
    """For each work every side's median, and its ratio to "briefly"."""
    with ExitStack() as stack:
        workers = {
            side: stack.enter_context(
                started(__file__, "--work", *arguments, environment=environment, real_time=real_time)
            )
            for side, environment in ENVIRONMENT.items()
        }
        for worker in workers.values():
            assert worker.stdout
            assert worker.stdout.readline() == "ready\n"
        busy = [stack.enter_context(started("-c", "while True: pass")) for _ in range(n_busy)]
        ours = [*workers.values(), *busy]
        seconds: dict[str, dict[str, list[float]]] = {what: {side: [] for side in workers} for what in WORK}
        before, began = busy_seconds() - processes_seconds(ours), time.perf_counter()
        for _ in range(runs):
            for what in WORK:
                for side, worker in workers.items():
                    seconds[what][side].append(seconds_of(worker, what))
        others = (busy_seconds() - processes_seconds(ours) - before) / (time.perf_counter() - began)
    rows = []
    for what in WORK:
        medians = {side: statistics.median(values) for side, values in seconds[what].items()}
        ratios = {side: median / medians["briefly"] for side, median in medians.items()}
        rows.append({"what": what, "busy": n_busy, "real_time": real_time, "others": round(others, 2)})
        rows[-1] |= {**medians, "ratios": ratios}
        numbers = ", ".join(f"{side} {median:.3g} s ({ratios[side]:.2f})" for side, median in medians.items())
        where = (
            "before all others"
            if real_time
            else f"beside {n_busy} busy processes and {others:.1f} cores of others"
        )
        print(f"{what} {where}: {numbers}", flush=True)
    return rows


PHRASES = 38  # of the command that --predict measures


def write_phrases(folder: Path, n: int) -> Path:
    """Stage 1's questions about phrases of spoken digits, n of them, and their sound; the questions' file."""
    import soundfile

    from tgsr.audio import SAMPLE_RATE
    from tgsr.data.corpora.spoken_digits import compose
    from tgsr.data.questions.build import ask_about
    from tgsr.records import Question, write_jsonl

    questions: list[Question] = []
    while len(questions) < n:
        made = compose(len(questions), "heldout-speaker", seconds=(6.0, 9.5))
        name = f"{len(questions)}.wav"
        soundfile.write(folder / name, made.samples, SAMPLE_RATE)
        questions += [replace(question, audio=name) for question in ask_about([made.clip], "sta", 4, 0)]
    write_jsonl(folder / "questions.jsonl", questions[:n])
    return folder / "questions.jsonl"


def predict_row(runs: int) -> dict[str, Any]:
    """Processor seconds of `tgsr predict`, start and all: medians of each side, in turn."""
    cores = os.cpu_count() or 1
    sides = {
        "one thread": (ENVIRONMENT["one thread"], 0),
        "a thread a core": ({}, 0),
        "beside busy processes": ({}, cores),
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as temporary:
        questions = write_phrases(Path(temporary), PHRASES)
        command = ["-m", "tgsr.cli", "predict", "--questions", str(questions), "--model", "mini:sta"]
        for run in range(runs):
            for side, (environment, n_busy) in sides.items():
                out = f"{temporary}/{side}-{run}.jsonl"
                with ExitStack() as stack:
                    for _ in range(n_busy):
                        stack.enter_context(started("-c", "while True: pass"))
                    before = resource.getrusage(resource.RUSAGE_CHILDREN)
                    process = stack.enter_context(started(*command, "--out", out, environment=environment))
                    if process.wait():
                        raise SystemExit(f"tgsr predict ended with {process.returncode}")
                    after = resource.getrusage(resource.RUSAGE_CHILDREN)
                seconds[side].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    medians = {side: statistics.median(of_side) for side, of_side in seconds.items()}
    ratios = {side: of_side / medians["one thread"] for side, of_side in medians.items()}
    numbers = ", ".join(f"{side} {of_side:.3g} s ({ratios[side]:.2f})" for side, of_side in medians.items())
    print(f"predict, {PHRASES} phrases, processor seconds: {numbers}", flush=True)
    return {"what": f"predict, {PHRASES} phrases, processor seconds", **medians, "ratios": ratios}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="of each work and side (%(default)s)")
    parser.add_argument("--layers", type=int, default=2, help="of the decoder's 30 (%(default)s)")
    parser.add_argument("--new-tokens", type=int, default=10, help="of each of 4 answers (%(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "waiting.json", help="the result (%(default)s)")
    parser.add_argument("--predict", action="store_true", help="measure a whole command instead")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.work:
        work(args.layers, args.new_tokens)
        return
    from timing import about

    load, arguments = os.getloadavg()[0], ("--layers", str(args.layers), "--new-tokens", str(args.new_tokens))
    rows = (
        [predict_row(args.runs)]
        if args.predict
        else [
            *(rows_of(args.runs, arguments, 0, real_time=True) if os.geteuid() == 0 else []),
            *rows_of(args.runs, arguments, 0, real_time=False),
            *rows_of(args.runs, arguments, os.cpu_count() or 1, real_time=False),
        ]
    )
    record = {**about(), "runs": args.runs, "load_before": load, "rows": rows}
    args.out.write_text(json.dumps(record, indent=2) + "\n")
    print(args.out)


if __name__ == "__main__":
    main()
