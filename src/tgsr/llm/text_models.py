"""Text models of transformers on this machine, which reply to prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from tgsr.engine.generate import NotFiniteLogits, generate
from tgsr.engine.sampling import NOT_FINITE
from tgsr.errors import ModelError
from tgsr.llm.decoding import Decoding, Failed, written
from tgsr.llm.served import TextPrompt, turns_of
from tgsr.models.checkpoint import read_weights
from tgsr.models.placement import LoadAs, Placement
from tgsr.models.tokens import end_ids, ids_between_marks, marked_chat, plain_ids, written_text


def generated(
    model: Any, tokenizer: Any, inputs: dict[str, Any], decoding: Decoding, name: str
) -> str | Failed:
    """What a model of transformers writes after `inputs`, 1 x N; its draws follow from the seed and the name alone."""
    response = generate(
        model,
        tokenizer,
        inputs,
        max_new_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        seed=decoding.seed,
        name=name,
    )
    text = written_text(tokenizer, response.ids, end_ids(model, tokenizer))
    return written(text, response.cut, response.failed)


@dataclass
class LocalLlm:
    """A causal language model of transformers with a chat template, on this machine."""

    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)

    @classmethod
    def load(cls, name: str) -> LocalLlm:
        """By folder or hub id, safetensors only. ModelError where it cannot be loaded or is no chat model."""
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ModelError(f"{name}: cannot be loaded as a text model: {error}") from error
        width: LoadAs = "bfloat16" if torch.cuda.is_available() else "float32"
        model: Any = read_weights(
            AutoModelForCausalLM, name, "a text model", Placement(width), unquantized=[], layers=None
        )
        if not tokenizer.chat_template:
            raise ModelError(f"{name}: has no chat template; give a model that was tuned to follow chats")
        model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        return cls(model, tokenizer)

    @property
    def context(self) -> int:
        return int(getattr(self.model.config, "max_position_embeddings", 4096))

    @property
    def characters(self) -> int:
        # Half of the context is for the transcript and the instruction; lines with times are 2 characters a token.
        return max(1000, self.context - 800)

    def replies(self, prompts: Sequence[TextPrompt], decoding: Decoding) -> list[str | Failed]:
        """One prompt at a time: a reply must not depend on its neighbours. With letters, the likeliest of them."""
        decoding = replace(decoding, max_new_tokens=min(decoding.max_new_tokens, self.context // 2))
        return [
            self.likeliest(prompt) if prompt.letters else self.write(prompt.text, decoding)
            for prompt in prompts
        ]

    @torch.no_grad()
    def likeliest(self, prompt: TextPrompt) -> str | Failed:
        """The letter with the highest next-token likelihood; the first of equals. Failed where none can be told."""
        ids = self.prompt(prompt.text)[-self.context :]
        row = torch.tensor([ids], device=self.model.device)
        logits_V = self.model(input_ids=row, logits_to_keep=1).logits[0, -1].float()
        # The last token: some tokenizers write a blank before a word that stands alone.
        tokens = [self.tokenizer(each, add_special_tokens=False)["input_ids"][-1] for each in prompt.letters]
        if not bool(torch.isfinite(logits_V[tokens]).all()):
            return Failed(NOT_FINITE)
        return prompt.letters[int(logits_V[tokens].argmax())]

    def prompt(self, text: str, system: str | None = None) -> list[int]:
        """The tokens of a user turn up to where the answer begins; names of special tokens in it are plain text."""
        chat, mark = marked_chat(self.tokenizer, turns_of, text, system, self.tokenizer.name_or_path)
        return ids_between_marks(self.tokenizer, chat, mark)

    def write(self, text: str, decoding: Decoding, system: str | None = None) -> str | Failed:
        """The model's answer to one user turn; greedy unless a temperature is given.

        What it draws follows from the seed and the turn alone. Failed for a turn that its context has no room for.
        """
        ids = self.prompt(text, system)
        room = self.context - decoding.max_new_tokens
        if len(ids) > room:
            return Failed(f"{len(ids)} tokens of prompt; the text model has room for {room}")
        row = torch.tensor([ids], device=self.model.device)
        inputs = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        return generated(self.model, self.tokenizer, inputs, decoding, text)

    @torch.no_grad()
    def likely(self, prompts: Sequence[str], answers: Sequence[str], at_once: int = 8) -> list[float]:
        """Mean log-prob of each answer's tokens after its prompt, nats a token. NotFiniteLogits where there is none."""
        rows = [(self.prompt(p), plain_ids(self.tokenizer, a)) for p, a in zip(prompts, answers, strict=True)]
        means = [0.0] * len(rows)
        # Rows of like lengths together: the less is padded.
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
        starts = tqdm(
            range(0, len(order), at_once), desc="reading", unit="batch", disable=len(order) < 24, leave=False
        )
        for start in starts:
            batch = order[start : start + at_once]
            for i, mean in zip(batch, self._likely([rows[i] for i in batch]), strict=True):
                means[i] = mean
        if not all(map(math.isfinite, means)):
            raise NotFiniteLogits
        return means

    def _likely(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        whole = [(p + a)[-self.context :] for p, a in rows]
        # Padded on the left: answers end together.
        ids_BN, mask_BN = (
            pad_sequence([torch.tensor(row) for row in rows], True, padding_side="left")
            for rows in (whole, [[1] * len(row) for row in whole])
        )
        n_kept = max(len(answer) for _, answer in rows) + 1
        device = self.model.device
        logits_BTV = self.model(
            input_ids=ids_BN.to(device),
            attention_mask=mask_BN.to(device),
            position_ids=(mask_BN.cumsum(-1) - 1).clamp(min=0).to(device),
            logits_to_keep=n_kept,
        ).logits[:, :-1]
        next_BT = ids_BN[:, -n_kept + 1 :].to(device)
        logp_BT = logits_BTV.float().log_softmax(-1).gather(-1, next_BT[..., None])[..., 0]
        return [float(logp_BT[b, -len(a) :].mean()) if a else 0.0 for b, (_, a) in enumerate(rows)]
