"""Corpora as their publishers ship them: a reader each, and `which`, which knows what a folder needs."""

from typing import Literal, get_args

Corpus = Literal[
    "clips", "folder", "librispeech", "covost", "meld", "multispeaker", "lhotse", "huggingface", "webdataset",
    "strong-labels", "kaldi", "amazon-queen",
]  # fmt: skip
CORPORA: tuple[str, ...] = get_args(Corpus)
