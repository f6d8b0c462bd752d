"""MMAR: JSON lines of questions; a prediction is right by MMAU's rule."""

from __future__ import annotations

from tgsr.evaluation.owners.mmau import Mmau


class Mmar(Mmau):
    """MMAU's layout with other names for the prediction, the sound file, the domain and the data set."""

    name = "mmar"
    key = "answer_prediction"
    marks = ("answer_prediction", "audio_path", "modality")
    question_marks = ("audio_path", "modality")
    audio = "audio_path"
    domain = "modality"
    dataset = "source"
