"""What the tests of the listening study share."""

from pathlib import Path

import numpy as np

from tgsr import audio
from tgsr.records import Question, Response, write_jsonl
from tgsr.timeline import Span

N_CLIPS = 12


def predictions(folder: Path, n: int = N_CLIPS, seconds: float = 6.0) -> Path:
    """Two models on noise clips: `sharp` cites the evidence, `blunt` another second."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(n):
        audio.save_wav(folder / f"{k}.wav", rng.uniform(-0.3, 0.3, int(seconds * 16000)).astype("float32"))
        question = Question(
            f"q{k}", f"c{k}", f"{k}.wav", seconds, "choice", f"What is said in {k}?", "yes", ("yes", "no"),
            evidence=(Span(1.0, 2.0),),
        )  # fmt: skip
        rows.append(Response(question, "sharp", "From 1.00s to 2.00s, yes is said.\nFinal answer: (a) yes"))
        rows.append(Response(question, "blunt", "From 4.00s to 5.00s, no is said.\nFinal answer: (b) no"))
    write_jsonl(folder / "predictions.jsonl", rows)
    return folder / "predictions.jsonl"
