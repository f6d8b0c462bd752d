"""The page as a folder that needs no server: the same front end, its answers as files, its clips as wav.

What it holds is told at the top of server.py. Any web server can hand it out, an address of GitHub Pages too; opened as
a file, browsers let no page read other files.
"""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from tqdm import tqdm

from tgsr.disk.whole import whole, write_whole
from tgsr.errors import AudioError, NothingDone, ViewError
from tgsr.pages.view import index as data
from tgsr.pages.view.index import Index, ViewedQuestion
from tgsr.pages.view.server import static_files
from tgsr.pages.view.sound import HEADER_BYTES, BrowserSound, Sounds, file_of, read_bytes

N_PEAKS = 1200
MARK = '<meta name="tgsr-static" content="0">'
DONE = "export.json"  # last of all; a folder that has it may be written over


def export(index: Index, out: Path) -> tuple[int, int]:
    """How many items of the folder that is written have sound, and how many have none.

    A clip is written once, however many items are about it; a missing one is said on its items. An export goes over an
    earlier one of the same place. ViewError where `out` holds something else, NothingDone for an index without items.
    """
    if not index.items:
        raise NothingDone(f"--export {out}: none of the runs holds a response")
    if out.is_dir() and any(out.iterdir()) and not (out / DONE).is_file():
        raise ViewError(f"--export {out}: holds other files; give a new folder")
    if out.exists() and not out.is_dir():
        raise ViewError(f"--export {out}: is a file; give a folder")
    for name in ("api/item", "api/peaks", "sound", "static"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
    write_whole(out / DONE, "{}\n")
    _write_front_end(out)
    notes = [without_folders(note) for note in index.notes]
    _write(out / "api" / "run.json", data.run_row(index) | {"notes": notes, "ask": None, "hears": False})
    n_heard = 0
    written: dict[Path, str] = {}
    with closing(Sounds()) as sounds:
        for item in tqdm(index.items, desc=f"export {out}", unit="item"):
            sound = _write_sound(index, item, out, sounds, written)
            n_heard += bool(sound["ok"])
            _write(out / "api" / "item" / f"{item.key}.json", data.item_row(index, item) | {"sound": sound})
    items = [_searched(item) for item in index.items]
    _write(out / "api" / "items.json", {"n": len(items), "page": 0, "size": len(items), "items": items})
    return n_heard, len(items) - n_heard


def _write_front_end(out: Path) -> None:
    page = (files("tgsr.pages.view") / "static" / "index.html").read_text(encoding="utf-8")
    if MARK not in page:
        raise AssertionError(f"index.html lacks {MARK}")
    page = page.replace(MARK, MARK.replace('"0"', '"1"'))
    write_whole(out / "index.html", page.replace("CSP-NONCE", ""))
    for name, path in static_files().items():
        write_whole(out / "static" / name, path.read_bytes())


def _write_sound(
    index: Index, item: ViewedQuestion, out: Path, sounds: Sounds, written: dict[Path, str]
) -> dict[str, object]:
    """The item's row about its sound. The clip and its peaks have the name of the first item about it."""
    try:
        path = file_of(index, item)
        sound = sounds.open(path)
        if path not in written:
            _write_wav(sound, out / "sound" / f"{item.key}.wav")
            written[path] = item.key
        peaks = out / "api" / "peaks" / f"{item.key}.json"
        if written[path] != item.key:
            write_whole(peaks, (out / "api" / "peaks" / f"{written[path]}.json").read_bytes())
        else:
            _write(peaks, sounds.peaks_row(sound, N_PEAKS))
    except (AudioError, OSError) as error:
        problem = without_folders(str(error))
        return {"ok": False, "problem": problem, "seconds": item.question.duration, "long": False}
    file = f"sound/{written[path]}.wav"
    return {"ok": True, "problem": None, "seconds": sound.seconds, "long": sound.wav is None, "file": file}


def _write_wav(sound: BrowserSound, path: Path) -> None:
    with whole(path) as half:
        if sound.wav is not None:
            shutil.copyfile(sound.wav, half)
            return
        with half.open("wb") as file:
            file.writelines(read_bytes(sound, 0, HEADER_BYTES + 2 * sound.n_samples))


def without_folders(text: str) -> str:
    """A text whose absolute paths are names alone: where files lay on the machine that exports is nobody's business."""
    return re.sub(r"(?<![\w./])/(?:[^/:;\n]+/)+", "", text)


def _searched(item: ViewedQuestion) -> dict[str, object]:
    """A summary with all that filters, search and orders need."""
    verdicts = item.verdicts.items()
    return data.summary_row(item) | {
        "search": item.text,
        "labels": data.labels_row(item.question),
        **{flag: {model: flag in verdict.flags for model, verdict in verdicts} for flag in data.FLAGS},
        "quality": {model: verdict.quality for model, verdict in verdicts},
        "place": {model: verdict.place for model, verdict in verdicts},
        "disagree": item.disagree,
    }


def _write(path: Path, value: object) -> None:
    write_whole(path, json.dumps(value, allow_nan=False))
