"""Whatever `--model` may name: a model that can be trained and looked into, or one that only answers."""

from __future__ import annotations

import functools
from pathlib import Path

from tgsr.answering.cascade import LISTENING, is_cascade, load_cascade
from tgsr.answering.responder import Responder
from tgsr.errors import ModelError
from tgsr.llm.endpoint import Limits
from tgsr.models.lalm import Lalm
from tgsr.models.packaged_weights import SHIPPED
from tgsr.models.placement import AS_SAVED, Placement


def open_model(
    name: str,
    cache: Path,
    placement: Placement = AS_SAVED,
    limits: Limits | None = None,
    system: str | None = None,
) -> Lalm | Responder:
    """The model called `name`. `cache` is the folder where transcripts and remote responses are kept.

    `system` is the system turn of every question, whoever answers: None is the family's own, "" the chat template's.
    A checkpoint that is of none of our families is driven by transformers' own processor and only answers. Raises
    ModelError with the remedy for what cannot be had.
    """
    model = _open(name, cache, placement, limits)
    if system is not None:
        model.system = system or None
        if isinstance(model, Lalm):
            model.prompt("?")  # a chat template without a place for it is said now, not once a question
    return model


def _open(name: str, cache: Path, placement: Placement, limits: Limits | None) -> Lalm | Responder:
    if name.startswith(LISTENING):
        listener = functools.cache(lambda: _listener(name, cache, placement, limits))
        if name.removeprefix(LISTENING) not in SHIPPED:
            listener()  # it may not be there: that is said before anyone listens
        return load_cascade(name, cache=cache, limits=limits, listener=listener)
    if is_cascade(name):
        return load_cascade(name, cache=cache, limits=limits)
    # They need torch, which a cascade may do without.
    from tgsr.answering.any_transformers import load_generic
    from tgsr.answering.frames import is_frame_head, load_frames
    from tgsr.answering.remote import is_remote, load_remote
    from tgsr.models import load as loading

    if is_remote(name):
        return load_remote(name, cache=cache, limits=limits)
    folder = Path(name)
    if is_frame_head(folder):
        return load_frames(folder, cache)
    is_ours = name in loading.OURS or any((folder / file).exists() for file in loading.OUR_FILES)
    if is_ours or loading.model_type_of(name) in loading.FAMILIES:
        return loading.load(name, placement)
    return load_generic(name, placement)


def _listener(name: str, cache: Path, placement: Placement, limits: Limits | None) -> Lalm:
    """The MODEL of `cascade+MODEL`. ModelError where it is none that hears on this machine."""
    from tgsr.models.load import only_answers

    called = name.removeprefix(LISTENING)
    listener = None if only_answers(called) else _open(called, cache, placement, limits)
    if not isinstance(listener, Lalm):
        problem = "what listens must be a model on this machine, as in cascade+mini-en:tokens"
        raise ModelError(f"{name}: {problem}")
    return listener
