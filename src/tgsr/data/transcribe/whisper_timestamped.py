"""Words and their times by whisper-timestamped, the paper's tool, as a process of its own.

It is under the GPL-3 and is never imported here: its own Python runs it, on a file, and its JSON is read.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tgsr.audio import SAMPLE_RATE, save_wav
from tgsr.data.alignments.reading import read_alignment
from tgsr.data.transcribe.hallucinations import Heard
from tgsr.data.transcribe.speech import is_speech, speech_probability
from tgsr.data.transcribe.transcript import Backend, Transcript, judged
from tgsr.errors import ModelError
from tgsr.models.whisper_checkpoint import whisper_for_transformers
from tgsr.records import NO_SPEECH

SOURCE = "whisper-timestamped"


@dataclass
class WhisperTimestamped(Backend):
    """`python -m whisper_timestamped.transcribe` of the environment whose Python is `python`.

    `model` is what it takes: a name, a .pt file, a folder in transformers' layout; None is the packaged Whisper base.
    A process a clip, which loads the model each time. ModelError where the process fails, with its last words.
    """

    python: str = sys.executable
    model: str | None = None
    language: str | None = None
    source: str = field(default=SOURCE, init=False)

    def __call__(self, samples: np.ndarray) -> Transcript:
        seconds = len(samples) / SAMPLE_RATE
        if seconds < 0.1:
            return Transcript((), seconds, SOURCE, None, (NO_SPEECH,))
        with tempfile.TemporaryDirectory() as folder:
            sound = Path(folder) / "clip.wav"
            save_wav(sound, samples)
            command = [self.python, "-m", "whisper_timestamped.transcribe", str(sound)]
            command += ["--model", self.model or str(whisper_for_transformers()), "--device", "cpu"]
            command += ["--output_dir", folder, "--output_format", "json"]
            command += ["--vad", "False", "--verbose", "False"]
            command += ["--language", self.language] if self.language else []
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            written = Path(folder) / "clip.wav.words.json"
            if done.returncode or not written.exists():
                raise ModelError(
                    f"whisper-timestamped failed: {done.stderr.strip()[-600:]}; install it in an environment of its "
                    "own (pip install whisper-timestamped) and name that environment's python (--timestamped-python)"
                )
            alignment = read_alignment(written)[""]
            language = json.loads(written.read_text()).get("language")
        words, holes = alignment.on(seconds)
        speech = is_speech(speech_probability(samples))
        transcript = judged([Heard(words)] if words else [], speech, seconds, SOURCE, language, 1.0)
        return replace(transcript, holes=(*(holes if transcript.words else ()), *transcript.holes))
