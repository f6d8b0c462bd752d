"""One question about one recording: the response, the spans that it cites, and their sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tgsr import audio
from tgsr.answering.predict import respond
from tgsr.answering.responder import ClipQuestion, Responder, require_heard
from tgsr.engine.features import LongAudio, without_cache
from tgsr.errors import ModelError
from tgsr.grounding import find_invalid, find_spans
from tgsr.llm.decoding import GREEDY, Failed
from tgsr.models.lalm import Lalm
from tgsr.overlap import evidence_crop
from tgsr.prompts import REASONING_INSTRUCTION, choice_question
from tgsr.records import MOST_CHOICES
from tgsr.timeline import Span


@dataclass(frozen=True, slots=True)
class CitedAnswer:
    """A response and its evidence.

    `spans` are the distinct valid spans that the text cites, in order of appearance; `evidence` is their sound, each
    padded by 0.5 s, 16 kHz mono, empty where nothing inside the recording is cited.
    """

    text: str
    spans: tuple[Span, ...]
    n_invalid: int
    evidence: np.ndarray


def ask(
    model: Lalm | Responder,
    samples: np.ndarray,
    question: str,
    choices: tuple[str, ...] = (),
    *,
    phrase: bool = False,
    long_audio: LongAudio = "refuse",
) -> CitedAnswer:
    """The model's greedy response under the paper's prompts: B.1.1 or B.1.2 for a phrase, B.1.3 for a question.

    Raises ModelError for a blank question, one choice, choices with a phrase, a recording that is too long for the
    model, and where the model gives no response.
    """
    if not question.strip() or len(choices) == 1 or (phrase and choices):
        raise ModelError(
            f"question {question!r} with {len(choices)} choice(s): give a question that is not blank, "
            "and no choices, or at least two; --phrase takes none"
        )
    if len(choices) > MOST_CHOICES or not all(choice.strip() for choice in choices):
        raise ModelError(
            f"--choice: give at most {MOST_CHOICES}, none of them blank, got {list(choices)!r:.200}"
        )
    if phrase:
        text = model.phrase_question(question)
    elif choices:
        text = choice_question(question, choices)
    else:
        text = f"{question}\n{REASONING_INSTRUCTION}"
    if isinstance(model, Lalm):
        heard = without_cache(model, samples, long_audio)
        answer = respond(model, [heard], [(0, model.prompt(text).after)])[0]
    else:
        require_heard(model, len(samples) / audio.SAMPLE_RATE)
        about = ClipQuestion(0, text, question, choices, question if phrase else None)
        answer = model.respond([samples], [about], GREEDY)[0]
    if isinstance(answer, Failed):
        raise ModelError(f"{model.name}: no response: {answer.reason}")
    spans = tuple(dict.fromkeys(find_spans(answer)))
    cited = evidence_crop(spans, len(samples) / audio.SAMPLE_RATE)
    return CitedAnswer(answer, spans, find_invalid(answer), audio.crop(samples, cited))
