"""Sentence embeddings in numpy: those of the class that the checkpoint's authors use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from tgsr.models.sentence_embeddings import MOST_TOKENS, SentenceEmbeddings, gelu

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
TEXTS = [
    "a",
    "when is lunch",
    "the report is late and nobody knows why",
    "",
    "zebra",
    "when is lunch",
    "a " * 400,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint in the hub's layout."""
    folder = tmp_path_factory.mktemp("bert")
    words = sorted({word for text in TEXTS for word in text.split()} - {"zebra"})
    vocabulary = {word: n for n, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=128)  # as the packaged one says, and sentence-transformers does not do
    tokenizer.save(str(folder / "tokenizer.json"))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        layer_norm_eps=1e-12,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(str(folder))
    return folder


def test_vectors_are_those_of_the_official_class_whatever_stands_beside_them(folder: Path) -> None:
    embeddings = SentenceEmbeddings.load(folder)
    got = embeddings.embed(TEXTS)
    official = BertModel.from_pretrained(str(folder)).eval()
    ids = [embeddings.tokenizer.encode(text).ids for text in TEXTS]
    assert len(ids[-1]) == MOST_TOKENS  # the rest is not read
    for row, vector in zip(ids, got, strict=True):
        with torch.no_grad():
            mean = official(torch.tensor([row])).last_hidden_state.mean(1)[0]
        assert np.allclose(vector, mean / mean.norm(), atol=1e-5)
    assert np.allclose(got[1], got[5], atol=1e-6)
    assert embeddings.embed([]).shape == (0, 24)


def test_gelu_is_the_exact_one() -> None:
    x = np.linspace(-8, 8, 401, dtype=np.float32)
    assert np.allclose(gelu(x), torch.nn.functional.gelu(torch.from_numpy(x)).numpy(), atol=1e-6)
