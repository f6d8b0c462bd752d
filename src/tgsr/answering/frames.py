"""The frame baseline answers: where a phrase is said, by a head over the encoder's frames (models/frame_head.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from tgsr.answering.responder import ClipQuestion, Responder
from tgsr.data.transcribe.spelling import spell
from tgsr.engine.features import FeatureCache
from tgsr.errors import ModelError
from tgsr.llm.decoding import Decoding, Failed
from tgsr.models.frame_head import FRAMES_FILE, FrameHead, load_frame_head
from tgsr.models.lalm import Lalm
from tgsr.models.load import load
from tgsr.prompts import phrase_answer_af3
from tgsr.timeline import Seconds, Span

UNHEARD = "The segment could not be located."
ONLY_PHRASES = "a frame head only locates phrases; ask with --phrase, or ask another model"


def is_frame_head(folder: Path) -> bool:
    return (folder / FRAMES_FILE).exists()


@dataclass
class FrameAnswers(Responder):
    """Locates phrases, and answers no other question."""

    name: str
    lalm: Lalm
    head: FrameHead
    cache: FeatureCache
    at_once: int = 1

    @property
    def max_seconds(self) -> Seconds:  # type: ignore[override]
        return self.lalm.max_seconds

    def respond(
        self, clips: Sequence[np.ndarray], questions: Sequence[ClipQuestion], decoding: Decoding
    ) -> list[str | Failed]:
        frames = [self.cache.get(self.lalm, samples) for samples in clips]
        return [self._located(question.phrase, frames[question.clip]) for question in questions]

    def _located(self, phrase: str | None, frames_FD: Tensor) -> str | Failed:
        """B.1.2's answer, numbers read as they are said; without times where nothing of the phrase can be read."""
        if phrase is None:
            return Failed(ONLY_PHRASES)
        place = self.head.place(frames_FD, spell(phrase))
        if place is None:
            return UNHEARD
        unit = self.lalm.seconds_per_frame
        return phrase_answer_af3(Span(place.first * unit, place.stop * unit))


def load_frames(folder: Path, cache: Path) -> FrameAnswers:
    """The head in `folder` over the frames of the encoder that it was trained on; `cache` keeps those.

    ModelError where a file is unusable, and where the model's encoder is another one now.
    """
    head, heard_by = load_frame_head(folder)
    lalm = load(heard_by.model)
    if lalm.encoder_key != heard_by.encoder:
        raise ModelError(
            f"{folder}: was trained on the frames of another encoder than {heard_by.model} has now; "
            "train it again with `tgsr train frames`"
        )
    return FrameAnswers(str(folder), lalm, head, FeatureCache(cache / "features"))
