"""The judge of answers: what it reads, and that the shipped layers fit the sentence model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from tgsr.models.answer_finder import TAUGHT, AnswerFinder
from tgsr.models.sentence_embeddings import SentenceEmbeddings

SAID = "who paid when is lunch the keeper late a nobody ."
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *SAID.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint in the hub's layout."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(str(folder))
    return folder


def test_surety_is_the_likeliest_answer_less_none_by_the_official_class_with_the_layers_that_were_taught(
    folder: Path,
) -> None:
    other = BertModel.from_pretrained(str(folder)).eval()
    torch.manual_seed(1)
    for parameter in other.encoder.layer[1].parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    ends = torch.nn.Linear(24, 2)
    taught = {
        f"encoder.layer.1.{name}": tensor.numpy()
        for name, tensor in other.encoder.layer[1].state_dict().items()
    }
    taught |= {f"ends.{name}": tensor.detach().numpy() for name, tensor in ends.named_parameters()}
    embeddings = SentenceEmbeddings.load(folder)
    before = embeddings.embed(["when is lunch"])
    finder = AnswerFinder.of(embeddings, taught)
    passages = ["the keeper paid", "", "lunch is late . nobody paid"]
    got = finder.surety("who paid", passages)
    for passage, nats in zip(passages, got, strict=True):
        ids = [2, 4, 5, 3, *(WORDS.index(word) for word in passage.split()), 3]
        kinds = torch.tensor([[0] * 4 + [1] * (len(ids) - 4)])
        with torch.no_grad():
            said = ends(other(torch.tensor([ids]), token_type_ids=kinds).last_hidden_state)[0]
        expected = (said[4:-1].amax(0) - said[0]).sum() if passage else -np.inf
        assert np.isclose(nats, expected, atol=1e-4)
    assert np.array_equal(embeddings.embed(["when is lunch"]), before)  # the sentence model stays what it was
    assert np.isfinite(finder.surety("who paid " * 2000, ["the keeper paid"])).all()


def test_the_layers_that_ship_are_the_sentence_models_upper_ones_and_two_ends() -> None:
    taught = safetensors.numpy.load_file(str(TAUGHT))
    assert taught["ends.weight"].shape == (2, 384)
    assert {name.split(".")[2] for name in taught if name.startswith("encoder.")} == {"3", "4", "5"}
    assert {str(tensor.dtype) for tensor in taught.values()} == {"float16"}
    assert all(np.isfinite(tensor).all() for tensor in taught.values())
