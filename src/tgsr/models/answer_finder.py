"""Whether lines answer a question: MiniLM's sentence model, whose upper layers were taught to find answers in them.

The layers ship (assets/answer_finder, by recipes/answerable.py); all else is the packaged sentence model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files

import numpy as np
import safetensors.numpy

from tgsr.models.sentence_embeddings import SentenceEmbeddings

TAUGHT = files("tgsr") / "assets" / "answer_finder" / "model.safetensors"


@dataclass(frozen=True, slots=True)
class AnswerFinder:
    """`encoder` reads a question and lines; each of its T states, W wide, is an answer's start and end in so many nats.

    `embeddings` are the sentence model as it was.
    """

    embeddings: SentenceEmbeddings
    encoder: SentenceEmbeddings
    ends_2W: np.ndarray
    bias_2: np.ndarray

    @classmethod
    def of(cls, embeddings: SentenceEmbeddings, taught: dict[str, np.ndarray] | None = None) -> AnswerFinder:
        """The sentence model with the layers that were taught, None for those that ship."""
        if taught is None:
            with as_file(TAUGHT) as path:
                taught = safetensors.numpy.load_file(path)
        tensors = {name: tensor.astype(np.float32) for name, tensor in taught.items()}
        ends_2W, bias_2 = tensors.pop("ends.weight"), tensors.pop("ends.bias")
        encoder = replace(embeddings, tensors={**embeddings.tensors, **tensors})
        return cls(embeddings, encoder, ends_2W, bias_2)

    def surety(self, question: str, passages: Sequence[str]) -> np.ndarray:
        """(len(passages),): by how many nats the likeliest answer in each is likelier than none; below 0, none is.

        -inf for a passage without a word. The pieces of the question and the passage are read up to MOST_TOKENS.
        """
        sure = np.full(len(passages), -np.inf, np.float32)
        for index, encoded in enumerate(
            self.encoder.tokenizer.encode_batch([(question, one) for one in passages])
        ):
            kinds_T, special_T = np.array(encoded.type_ids), np.array(encoded.special_tokens_mask, bool)
            of_passage_T = (kinds_T == 1) & ~special_T
            if of_passage_T.any():
                (states_TW,) = self.encoder.states(np.array([encoded.ids]), kinds_T[None])
                nats_T2 = states_TW @ self.ends_2W.T + self.bias_2
                sure[index] = (
                    nats_T2[of_passage_T].max(0) - nats_T2[0]
                ).sum()  # [CLS], the first, says "none"
        return sure
