"""Listening again: once a response has cited a span, the span's frames enter the context and the response goes on.

They are those that the clip's prefix holds, at the next positions, and no tokens of the policy: nothing is drawn or
learned in their place, and what follows is conditioned on them, in sampling and in training alike. In a row of ids
frame f of the branch's clip is -1 - f (`SharedPrefix.embed`). Appendix D asks for such tools as future work; where the
frames enter, and how many, is ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tgsr.errors import OptionError
from tgsr.grounding import find_regions, valid_spans
from tgsr.models.lalm import Lalm
from tgsr.timeline import Span

_AFTER_DIGITS = re.compile(r"[^0-9]*\Z")  # what follows a text's last number, which may still grow
_ENDS_A_NUMBER = re.compile(r"[^\s.,:]|\n")
_MAY_BE_A_UNIT = re.compile(r"[ \t]?[^\W\d_]*")  # "sec" of " seconds"
_HALF_A_CHARACTER = "\ufffd"  # what a decoder writes for bytes that are not a character yet


@dataclass(frozen=True, slots=True)
class Again:
    """Frames [first, stop) of a clip, heard again after the first `n_tokens` tokens of a response about it."""

    n_tokens: int
    first: int
    stop: int

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(-1 - frame for frame in range(self.first, self.stop))


def row_of(ids: Sequence[int], again: Sequence[Again]) -> tuple[int, ...]:
    """A response's tokens with the frames where they were heard again."""
    row: list[int] = []
    done = 0
    for one in again:
        row += [*ids[done : one.n_tokens], *one.ids]
        done = one.n_tokens
    return (*row, *ids[done:])


def closed_spans(text: str) -> list[Span]:
    """The valid spans that the reasoning of an unfinished response cites, and has gone on from.

    One at the text's end may still grow ("to 1.9" of "to 1.95 s"): it counts from the bracket, the line or the second
    word on that follows it, and from a point that follows its unit. [] without any.
    """
    tail = _AFTER_DIGITS.search(text)
    if tail is None or not _ENDS_A_NUMBER.search(tail[0]) or text.endswith(_HALF_A_CHARACTER):
        return []
    mentions = [one for one in find_regions(text) if not _MAY_BE_A_UNIT.fullmatch(text, one.text_end)]
    return valid_spans(mentions)


def frames_in(lalm: Lalm, span: Span, n_frames: int) -> tuple[int, int]:
    """The frames [first, stop) of a clip that the span touches; none (first >= stop) where it begins past the end."""
    edges = lalm.frame_edges(n_frames)
    first = int(np.searchsorted(edges, span.start, "right")) - 1
    return first, min(int(np.searchsorted(edges, span.end, "left")), n_frames)


def next_again(
    lalm: Lalm, ids: Sequence[int], before: Sequence[Again], n_frames: int, most: int
) -> Again | None:
    """What is heard again after these tokens of a response about a clip of n_frames; None for nothing.

    It is the first cited span that has not been heard again yet; a span is so once. At most `most` frames are, in all
    of a response: the last one is cut to what is left of them.
    """
    room = most - sum(one.stop - one.first for one in before)
    if room <= 0:
        return None
    heard = {(one.first, one.stop) for one in before}
    for span in closed_spans(lalm.text(list(ids))):
        first, stop = frames_in(lalm, span, n_frames)
        if first < stop and (first, stop) not in heard:
            return Again(len(ids), first, min(stop, first + room))
    return None


def most_frames(lalm: Lalm, seconds: float) -> int:
    """How many frames last so long; 0 for 0. OptionError for a model whose frames are not in the decoder's sequence."""
    if seconds and lalm.cross_attends:
        raise OptionError(
            f"--relisten: {lalm.name} hears by cross-attention, its frames are in no sequence that they could enter "
            "again; leave it out, or take a model whose audio stands before the question"
        )
    return round(seconds / lalm.seconds_per_frame)
