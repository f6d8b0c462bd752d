"""recipes/answerable.py: a training that was stopped is as one that was not, and only a finished one is shipped."""

from __future__ import annotations

import json
import random
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class Tiny(nn.Module):
    """Two logits a piece, through dropout."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.ends = nn.Linear(4, 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.ends(self.dropout(batch["pieces"]))


@pytest.fixture
def answerable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The recipe with a tiny model and two stages of four steps of random pieces."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "recipes"))
    module = import_module("answerable")
    pieces = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(module, "AnswerFinder", Tiny)
    monkeypatch.setattr(module, "sentence_model", lambda: tmp_path)
    monkeypatch.setattr(module.AutoTokenizer, "from_pretrained", lambda _: None)
    monkeypatch.setattr(module, "examples", lambda *_: [("q", "lines", (0, 1)), ("q", "others", None)] * 8)
    monkeypatch.setattr(module, "collated", lambda *_: ({"pieces": pieces}, torch.tensor([[1, 2]] * 3)))
    monkeypatch.setattr(module, "separated", lambda *_: 0.5)
    monkeypatch.setattr(module, "KEPT_EVERY", 2)
    monkeypatch.setattr(module, "STAGES", (module.Stage(4, 1, 1, 0), module.Stage(4, 1, 1, 1)))
    monkeypatch.setattr(module, "ASSET", tmp_path / "asset" / "model.safetensors")
    return module


def trained(answerable: Any, folder: Path) -> dict[str, Any]:
    (folder).mkdir(exist_ok=True)
    (folder / "questions.jsonl").touch()
    answerable.train(folder)
    return torch.load(folder / "kept.pt")


@pytest.mark.parametrize(
    ("look", "told"), [(1, "2 steps of stage 1"), (2, "4 steps of stage 1"), (3, "2 steps of stage 2")]
)
def test_a_training_that_was_stopped_has_the_weights_of_one_that_was_not(
    answerable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: int, told: str
) -> None:
    whole = trained(answerable, tmp_path / "whole")
    looks = []

    def stopped(*_: object) -> float:
        looks.append(0)
        if len(looks) == look:
            raise KeyboardInterrupt
        return 0.5

    with monkeypatch.context() as patch:
        patch.setattr(answerable, "separated", stopped)
        with pytest.raises(KeyboardInterrupt):
            trained(answerable, tmp_path / "broken")
    with pytest.raises(SystemExit, match=f"{told} are done"):
        answerable.export(tmp_path / "broken")
    broken = trained(answerable, tmp_path / "broken")
    assert torch.equal(whole["model"]["ends.weight"], broken["model"]["ends.weight"])
    answerable.export(tmp_path / "broken")
    shipped = load_file(answerable.ASSET)
    answerable.export(tmp_path / "whole")
    assert torch.equal(shipped["ends.weight"], load_file(answerable.ASSET)["ends.weight"])
    last = [weights["ends.weight"] for weights in whole["last"]]
    assert len(last) == 2  # of the last stage alone
    assert torch.equal(shipped["ends.weight"], ((last[0] + last[1]) / 2).half())


def test_what_has_to_be_there_first_is_told(answerable: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="0 steps of stage 1"):
        answerable.export(tmp_path)
    with pytest.raises(SystemExit, match=r"holds no questions\.jsonl"):
        answerable.train(tmp_path)
    with pytest.raises(SystemExit, match="give a clone of FairytaleQAData"):
        answerable.pairs(tmp_path, tmp_path, [], tmp_path / "out")


def test_paragraphs_give_what_answers_and_what_only_seems_to(answerable: Any, tmp_path: Path) -> None:
    text = 'The Normans spoke French. Rollo, a Viking, was their leader (so they say). "Who else?" he said.'
    asked = [
        {"question": "Who led the Normans?", "answers": [{"text": "Rollo", "answer_start": 26}]},
        {"question": "Who led the Franks? ", "is_impossible": True, "answers": [],
         "plausible_answers": [{"text": "Rollo", "answer_start": 26}]},
        {"question": "What did they speak?", "answers": [{"text": "French. Rollo", "answer_start": 18}]},  # in two
    ]  # fmt: skip
    (tmp_path / "s.json").write_text(
        json.dumps({"data": [{"paragraphs": [{"context": text, "qas": asked}]}]})
    )
    ((sentences, questions),) = answerable.paragraphs(tmp_path / "s.json")
    assert sentences == [
        "The Normans spoke French.",
        "Rollo, a Viking, was their leader (so they say).",
        '"Who else?" he said.',
    ]
    assert questions == [
        {"question": "Who led the Normans?", "sentence": 1, "answer": (0, 5)},
        {"question": "Who led the Franks?", "sentence": 1, "answer": None},
    ]
    draw, tale_of = random.Random(0), [0, 0, 0]
    for question, place in zip(questions, ((0, 5), None), strict=True):
        made = [answerable.example(question, 1, sentences, tale_of, draw) for _ in range(20)]
        assert {(one[2] and one[1][slice(*one[2])]) for one in made} == {place and "Rollo"}
        assert all("Rollo" in one[1] for one in made)
