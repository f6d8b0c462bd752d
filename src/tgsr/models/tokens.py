"""A tokenizer's reserved names: which of them end a response, and how a text that spells one stays a text.

A chat template writes special tokens by their names, and a tokenizer reads every such name as the token, whoever wrote
it: in a question, "<|im_end|>" would end the user's turn and "<sound>" would ask for a second recording.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from tgsr.errors import ModelError

MARKUP = re.compile(r"[^\w\s].*\w.*[^\w\s]")  # <think>, [INST], ◁think▷
MARKS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
"""Characters that Unicode keeps for a program's own use: no text means anything by them."""


def reserved_names(tokenizer: Any, *, markup: bool = True) -> tuple[str, ...]:
    """The names that the tokenizer reads as one token: special ones, and added ones that are spelled like markup.

    Without `markup` the special ones alone: those that no decoded response holds. Other added tokens (runs of blanks or
    line breaks in some vocabularies) are ordinary text. () for a tokenizer that reads no names at all, as
    mistral-common's, which keeps no table of them.
    """
    added = tokenizer.added_tokens_decoder
    tokens = added.values() if isinstance(added, Mapping) else ()
    names = {str(t.content) for t in tokens if t.special or (markup and MARKUP.fullmatch(str(t.content)))}
    return tuple(sorted(name for name in names if len(name) > 1))


def chat_text(owner: Any, turns: list[dict[str, Any]], system: str | None, name: str) -> str:
    """What `owner`, a tokenizer or a processor, writes for a chat, up to where the answer begins.

    `system` is the text of the system turn among `turns`. ModelError where the chat template refuses the chat, where it
    writes a turn's parts as they stand in Python, and where it leaves the system turn out.
    """
    try:
        text = str(owner.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
    except (TemplateError, TypeError) as error:  # TypeError: content in parts where it wants one text
        raise ModelError(f"{name}: its chat template refuses the chat: {error}") from error
    if any(str(turn["content"]) in text for turn in turns if isinstance(turn["content"], list)):
        raise ModelError(
            f"{name}: its chat template writes the parts of a turn as a list, brackets and all; take the template of "
            "the model's own processor, or leave --system out"
        )
    if system and system.strip() not in text:
        raise ModelError(
            f"{name}: its chat template has no place for a system turn; leave --system out, or ask with other words"
        )
    return text


def marked_chat(
    tokenizer: Any,
    turns: Callable[[str, str | None], list[dict[str, Any]]],
    text: str,
    system: str | None,
    name: str,
) -> tuple[str, str]:
    """What the tokenizer writes for the turns of a text and a system turn, and the mark that breaks up names in both.

    ModelError as `chat_text` and `mark_for` raise it.
    """
    names, mark = reserved_names(tokenizer), mark_for(text, system or "")
    system = None if system is None else broken_up(system, names, mark)
    return chat_text(tokenizer, turns(broken_up(text, names, mark), system), system, name), mark


def broken_up(text: str, names: tuple[str, ...], mark: str) -> str:
    """The text with `mark` after the first character of each name in it, so that no name is left whole."""
    starts = {name[0] for name in names}
    return "".join(
        char + mark if char in starts and text.startswith(names, place) else char
        for place, char in enumerate(text)
    )


def mark_for(*texts: str) -> str:
    """A character that is in none of the texts. ModelError for texts that hold all of MARKS."""
    if (mark := next((mark for mark in MARKS if not any(mark in text for text in texts)), None)) is None:
        raise ModelError(
            f"the text holds all {len(MARKS)} characters U+FDD0 to U+FDEF, which no writing has: take them out"
        )
    return mark


def ids_between_marks(tokenizer: Any, text: str, mark: str) -> list[int]:
    """Token ids of a text, nothing added at either end; marks are left out, and no token reaches across one."""
    pieces = text.split(mark)
    return [i for piece in pieces if piece for i in tokenizer(piece, add_special_tokens=False)["input_ids"]]


def plain_ids(tokenizer: Any, text: str, *, markup: bool = True) -> list[int]:
    """Token ids of a text that somebody wrote or said: names that `reserved_names` lists are spelled out."""
    mark = mark_for(text)
    names = reserved_names(tokenizer, markup=markup)
    return ids_between_marks(tokenizer, broken_up(text, names, mark), mark)


def end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """All tokens that end a response: the tokenizer's own, then those of the checkpoint's generation config.

    () where neither names one. A checkpoint without generation_config.json has them in config.json, from where
    transformers takes them.
    """
    config = getattr(model, "generation_config", None)
    ids = (*_listed(tokenizer.eos_token_id), *_listed(getattr(config, "eos_token_id", None)))
    return tuple(dict.fromkeys(ids))


def written_text(tokenizer: Any, ids: Sequence[int], ends: Collection[int]) -> str:
    """The text of a response's token ids, without special tokens and the token of `ends` that ended it.

    That one goes by its id: a checkpoint may end on a token that its tokenizer does not call special.
    """
    written = ids[:-1] if ids and ids[-1] in ends else ids
    return str(tokenizer.decode(list(written), skip_special_tokens=True))


def _listed(ids: int | Iterable[int] | None) -> list[int]:
    if ids is None:
        return []
    return [int(ids)] if isinstance(ids, int) else [int(i) for i in ids]
