"""The authors' own way through a model: whole sequences, a placeholder for each frame, padded batches, `generate`.

What the engine computes is held against it, by the tests and by `tgsr check`.

Axes: C clips, B branches, N tokens of a padded row, F frames, D the decoder's width.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, GenerationMixin

from tgsr.engine.shared_prefix import Branch
from tgsr.models.lalm import Lalm, device_of
from tgsr.models.whisper_encoder import spectrogram

FEATURE_MASKS = ("input_features_mask", "feature_attention_mask")
PADDING: dict[str, dict[str, Any]] = {
    "qwen3_omni_moe_thinker": {"padding": "longest", "truncation": False},
}
"""How official processors pad features, by model type, where it is not to a window, the extractor's own way."""
Side = Literal["left", "right"]


def official_inputs(
    lalm: Lalm, clips: Sequence[np.ndarray], branches: Sequence[Branch], side: Side = "right"
) -> tuple[dict[str, Tensor], Tensor]:
    """The official forward's inputs for a batch of whole sequences padded on `side`, and its labels, B x N.

    `clips` are 16 kHz samples, none longer than a window of the feature extractor. Each sequence has as many
    placeholders as `lalm` hears frames; the class refuses another number than it computes itself.
    """
    device, audio_id = device_of(lalm), lalm.audio_id
    features = spectrogram(
        lalm.feature_extractor,
        [clips[branch.owner] for branch in branches],
        **PADDING.get(lalm.inner.config.model_type, {}),
        return_attention_mask=True,
    )
    n_frames = [len(lalm.encode_audio(clip)) for clip in clips]
    rows = [
        [*lalm.prompt("").before, *[audio_id] * n_frames[b.owner], *b.prompt, *b.answer] for b in branches
    ]
    n = max(map(len, rows))
    ids_BN, mask_BN = torch.full((len(rows), n), lalm.pad_id), torch.zeros(len(rows), n, dtype=torch.long)
    labels_BN = torch.full((len(rows), n), -100)
    for index, (row, branch) in enumerate(zip(rows, branches, strict=True)):
        end = n if side == "left" else len(row)
        ids_BN[index, end - len(row) : end] = torch.tensor(row)
        mask_BN[index, end - len(row) : end] = 1
        labels_BN[index, end - len(branch.answer) : end] = torch.tensor(branch.answer, dtype=torch.long)
    known = inspect.signature(type(lalm.inner).forward).parameters
    # Where it has no encoder, sound is as wide as the decoder's embeddings.
    encoder = next(lalm.audio_tower.parameters(), lalm.language_model.get_input_embeddings().weight)
    heard = {name: features[name] for name in features if name in known and name != "attention_mask"}
    if "attention_mask" in features:
        heard |= {name: features["attention_mask"] for name in FEATURE_MASKS if name in known}
    inputs = {"input_ids": ids_BN.to(device), "attention_mask": mask_BN.to(device)}
    for name, value in heard.items():
        inputs[name] = value.to(encoder.device, encoder.dtype if value.is_floating_point() else None)
    return inputs, labels_BN.to(device)


def official_logps(
    lalm: Lalm, clips: Sequence[np.ndarray], branches: Sequence[Branch], side: Side = "right"
) -> list[Tensor]:
    """Log-probs of each branch's answer by the official class, float32, in the branches' order; with gradients."""
    if lalm.cross_attends:
        return memory_logps(lalm, [lalm.encode_audio(clip) for clip in clips], branches)
    found: dict[int, Tensor] = {}
    for clip in range(len(clips)):  # one by one: a batch pads the features of shorter clips
        places = [place for place, branch in enumerate(branches) if branch.owner == clip]
        if not places:
            continue
        inputs, labels_BN = official_inputs(lalm, clips, [branches[place] for place in places], side)
        with aligner_of_any_width(lalm):
            logits = lalm.inner(**inputs, use_cache=False).logits
        for row, (place, labels) in enumerate(zip(places, labels_BN, strict=True)):
            found[place] = _picked(logits[row, :-1][labels[1:] != -100], labels[labels != -100])
    return [found[place] for place in range(len(branches))]


def memory_logps(lalm: Lalm, heard: Sequence[Tensor], branches: Sequence[Branch]) -> list[Tensor]:
    """`official_logps` where the frames are a memory: for each clip a padded batch of its sequences over its frames.

    `heard` holds what the encoder gives for each clip, F x D_enc: the official encoder attends to the padding of a
    short clip, and so gives other frames than these.
    """
    found: dict[int, Tensor] = {}
    device, before = device_of(lalm), lalm.prompt("").before
    for clip, features in enumerate(heard):
        places = [place for place, branch in enumerate(branches) if branch.owner == clip]
        if not places:
            continue
        rows = [torch.tensor([*before, *branches[p].prompt, *branches[p].answer]) for p in places]
        ids_BN = pad_sequence(rows, True, lalm.pad_id).to(device)
        mask_BN = pad_sequence([torch.ones_like(row) for row in rows], True, 0).to(device)
        memory = lalm.align(features).to(lalm.language_model.dtype).expand(len(rows), -1, -1)
        logits = lalm.inner(
            encoder_outputs=(memory,),
            decoder_input_ids=ids_BN,
            decoder_attention_mask=mask_BN,
            use_cache=False,
        ).logits
        for index, (place, row) in enumerate(zip(places, rows, strict=True)):
            answer = slice(len(row) - len(branches[place].answer), len(row))
            before_it = slice(answer.start - 1, answer.stop - 1)
            found[place] = _picked(logits[index, before_it], ids_BN[index, answer])
    return [found[place] for place in range(len(branches))]


def _picked(logits_MV: Tensor, ids_M: Tensor) -> Tensor:
    return logits_MV.float().log_softmax(-1).gather(-1, ids_M[:, None])[:, 0]


@torch.no_grad()
def official_frames(lalm: Lalm, samples: np.ndarray) -> Tensor:
    """The embeddings that the official class puts in the placeholders' places, F x D, float32.

    They are taken where they enter the decoder, whatever a family does between its encoder and there. ValueError of
    the class's own where it makes another number of them than `lalm` hears. For a decoder with cross-attention: the
    official encoder's, which pads to a window, through the aligner.
    """
    if lalm.cross_attends:
        encoder = lalm.inner.model.encoder
        mels = spectrogram(lalm.feature_extractor, samples).input_features
        weight = encoder.conv1.weight
        return lalm.align(encoder(mels.to(weight.device, weight.dtype)).last_hidden_state[0].float()).float()
    entered: list[Tensor] = []

    def keep(_: Any, hidden: tuple[Tensor, ...], given: dict[str, Any]) -> None:
        entered.append(given["inputs_embeds"][0] if "inputs_embeds" in given else hidden[0][0])

    inputs, _ = official_inputs(lalm, [samples], [Branch(0, lalm.prompt("x").after, (lalm.eos_id,))])
    decoder = lalm.language_model
    if decoder is lalm.inner.model:  # it puts the frames in by itself, before its first layer
        decoder = decoder.layers[0]
    hook = decoder.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with aligner_of_any_width(lalm):
            lalm.inner(**inputs, use_cache=False)
    finally:
        hook.remove()
    return entered[0][inputs["input_ids"][0] == lalm.audio_id].float()


@torch.no_grad()
def official_greedy(lalm: Lalm, samples: np.ndarray, prompt: Sequence[int], n: int) -> list[int]:
    """At most n tokens that transformers' `generate` writes after a prompt, the end token included.

    Of the checkpoint's generation config only the ids of its tokens are heeded. It ends at a placeholder of audio, too,
    which random weights may write: official classes would put the frames into its place.
    """
    model, theirs = lalm.inner, lalm.inner.generation_config
    placeholders = [] if lalm.cross_attends else [lalm.audio_id]
    model.generation_config = GenerationConfig(
        eos_token_id=list(dict.fromkeys([lalm.eos_id, *lalm.end_ids, *placeholders])),
        pad_token_id=lalm.pad_id,
        bos_token_id=theirs.bos_token_id,
        decoder_start_token_id=theirs.decoder_start_token_id,
        max_new_tokens=n,
        do_sample=False,
    )
    try:
        if lalm.cross_attends:  # its own generate cuts the prompt and rules tokens out
            ids = torch.tensor([[*lalm.prompt("").before, *prompt]], device=device_of(lalm))
            memory = lalm.align(lalm.encode_audio(samples)).to(lalm.language_model.dtype)[None]
            out = GenerationMixin.generate(model, encoder_outputs=(memory,), decoder_input_ids=ids)
        else:
            inputs, _ = official_inputs(lalm, [samples], [Branch(0, tuple(prompt), ())])
            ids = inputs["input_ids"]
            with aligner_of_any_width(lalm):
                out = model.generate(**inputs)
    finally:
        model.generation_config = theirs
    return [int(token) for token in out[0, ids.shape[1] :]]


@contextmanager
def aligner_of_any_width(lalm: Lalm) -> Iterator[None]:
    """Within it the official class takes an aligner that training keeps in float32 among bfloat16 weights."""
    outside = lalm.language_model.get_input_embeddings().weight.dtype

    def widen(layer: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0].to(layer.weight.dtype), *given[1:])

    def narrow(_: Any, __: Any, made: Tensor) -> Tensor:
        return made.to(outside)

    # Of its layers, not of the whole: a family may put the aligner together from parts of its tower.
    layers = [layer for layer in lalm.aligner.modules() if isinstance(getattr(layer, "weight", None), Tensor)]
    hooks = [layer.register_forward_pre_hook(widen) for layer in layers]
    hooks += [layer.register_forward_hook(narrow) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
