"""`tgsr view`: prediction files to a page that is served, or to a folder that needs no server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tgsr.answering.responder import Responder
from tgsr.models.lalm import Lalm
from tgsr.pages.view.ask import Asker
from tgsr.pages.view.export import export
from tgsr.pages.view.index import read_index
from tgsr.pages.view.server import Viewer, bound, routes, serve
from tgsr.pages.view.sound import Sounds


def view(
    runs: Sequence[Path],
    *,
    clips: Sequence[Path] = (),
    audio_roots: Sequence[Path] = (),
    models: Sequence[str] = (),
    open_model: Callable[[str], Lalm | Responder],
    title: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8731,
    opens: bool = False,
    export_to: Path | None = None,
) -> None:
    """Serves until interrupted, or writes the folder `export_to`. `models` are asked on the page, each loaded when
    it is first asked.

    FileNotFoundError for what does not exist, ViewError for an address or folder that cannot be had.
    """
    if export_to is None:
        bound(host, port).close()  # that the port is taken is said before a large run is read
    index = read_index(runs, clips=clips, audio_roots=audio_roots, title=title)
    print(f"{len(index.items)} questions, {len(index.models)} models")
    for note in index.notes:
        print(note)
    if export_to is not None:
        n_heard, n_silent = export(index, export_to)
        print(f"{export_to}: {n_heard} items with sound" + (f", {n_silent} without" if n_silent else ""))
        print(f"look at it with: python -m http.server --directory {export_to}")
        return
    sounds = Sounds()
    asker = Asker(models, open_model, sounds) if models else None
    viewer = Viewer(tuple(runs), index, sounds, asker, tuple(clips), tuple(audio_roots), title)
    try:
        serve(routes(viewer), host, port, "/", opens=opens)
    finally:
        viewer.close()
