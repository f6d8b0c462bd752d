"""A row of a check: what was measured, what it must reach, and what to do where it does not."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jinja2 import TemplateError

from tgsr.errors import TgsrError

PARTS = {
    1: "the sound enters",
    2: "the computation is the authors'",
    3: "the labels",
    4: "it learns",
    5: "going on",
    6: "cost",
}
DECIDING = range(1, 6)  # parts whose rows decide: what a run costs is no fault
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
FAULTS = (TgsrError, TemplateError, ValueError, RuntimeError, IndexError, AssertionError)
"""What a model that is put together wrongly raises: a row's answer, after which the other rows still run."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of a part of PARTS.

    `number` is what was measured, in words; `values` has it for programs. `passed` is None where the model is not asked
    this, for the reason that `number` gives. `remedy` says what to do where it is False.
    """

    part: int
    name: str
    number: str
    bar: str
    passed: bool | None
    remedy: str = ""
    values: Mapping[str, float | str | None] = field(default_factory=dict)

    @property
    def fails(self) -> bool:
        """Whether the whole check fails by it."""
        return self.passed is False and self.part in DECIDING


def not_asked(part: int, name: str, why: str) -> Row:
    """A row that means nothing for this model."""
    return Row(part, name, f"not asked: {why}", "", None)


def measured(part: int, name: str, measure: Callable[[], Row]) -> Row:
    """The row that `measure` makes; where it raises, a row that fails and says why, so that the next ones run."""
    try:
        return measure()
    except MemoryError as error:
        why = str(error) or "out of memory"
    except FAULTS as error:
        why = str(error)
        if not is_out_of_memory(error):
            why = why if isinstance(error, TgsrError) else f"{type(error).__name__}: {why}"
            remedy = "mend what the message says, then look at this row again: nothing was measured"
            return Row(part, name, why, "it can be computed", False, remedy)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    remedy = (
        "take --load-as bfloat16 or 4bit, --devices all, or a device with more memory; `tgsr plan` says how much "
        "training needs"
    )
    return Row(part, name, f"out of memory ({why.splitlines()[0]})", "it fits", False, remedy)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the host, had no memory left: torch has no error of its own for the latter."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in said for words in OUT_OF_MEMORY)
