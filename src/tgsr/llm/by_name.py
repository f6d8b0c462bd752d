"""A text model by its name: behind a chat endpoint, or of transformers on this machine, which only then is loaded."""

from __future__ import annotations

import functools
from pathlib import Path

from tgsr.errors import ModelError
from tgsr.llm.chat import chat_endpoint
from tgsr.llm.served import Llm, ServedLlm


@functools.cache
def llm_of(name: str, cache: Path) -> Llm:
    """The LLM called `name`, loaded once a process; `cache` keeps a server's replies. ModelError for none."""
    if name.startswith(("http://", "https://")):
        return ServedLlm(*chat_endpoint(name, cache=cache))
    from tgsr.llm.text_models import LocalLlm

    return LocalLlm.load(name)


def require_llm(name: str, cache: Path) -> None:
    """ModelError where `llm_of` could not have that LLM, as far as its name and configuration tell."""
    if name.startswith(("http://", "https://")):
        chat_endpoint(name, cache=cache)
        return
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: cannot be loaded as a text model: {error}") from error
