"""MMAR: JSON lines of questions; a prediction is right by MMAU's rule."""

from __future__ import annotations

from tgsr.disk.rows import Entry
from tgsr.evaluation.owners.mmau import Mmau
from tgsr.evaluation.owners.owner import Labels, labels_of, several


class Mmar(Mmau):
    """MMAU's layout with other names for the prediction, the sound file and the domain."""

    name = "mmar"
    key = "answer_prediction"
    marks = ("answer_prediction", "audio_path", "modality")
    question_marks = ("audio_path", "modality")
    audio = "audio_path"
    domain = "modality"

    def labels(self, entry: Entry) -> Labels:
        return labels_of(
            ("benchmark", self.name),
            ("domain", entry.maybe("modality")),
            *(("category", category) for category in several(entry.values.get("category"))),
            ("sub-category", entry.maybe("sub-category")),
            ("dataset", entry.maybe("source")),
            *(("language", language) for language in (entry.maybe("language") or "").split("|")),
        )
