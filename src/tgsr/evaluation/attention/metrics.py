"""What attention.json holds: a model's attention over many responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tgsr.statistics.intervals import Mean


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of the attention to audio, what falls inside a span: means over responses, with intervals over clips.

    inside and outside sum to 1. covered: the span's share of the frames, which `inside` would be by chance; ratio: the
    mean of inside over covered, 1 where there is no preference; ratio_by_layer: of all responses' attention together.
    """

    inside: Mean
    outside: Mean
    covered: Mean
    ratio: Mean
    ratio_by_layer: list[float]


@dataclass(frozen=True, slots=True)
class Attention:
    """A model's attention over all responses: means with intervals over clips.

    n_without: questions that have no response to look at; n_cut: responses that the limit of new tokens ended, whose
    last line counts as the answer.
    by_phase[phase][block]: over layers (table 4 is block "audio"). by_layer[phase][block][layer]: means alone, for
    the curves of figures 4, 5 and 7; by_layer_per_token: the same for each of a block's positions (figure 3).
    audio_per_token: the audio block's share for each of its positions against the system block's, over layers and
    all tokens; None where a prompt has no system text. evidence[phase] compares the frames of cited intervals,
    reference[phase] those of the questions' evidence, and ends["start"], ends["end"] those within NEAR of the time that
    is being written; a phase without any is left out. change[phase]: the audio's
    share relative to the first model's, of the questions that both have in that phase; None for the first model.

    A decoder that hears by cross-attention `cross_attends`: the audio has no share of its self-attention, so that block
    "audio" is without a value, or left out; evidence, reference and ends are of its cross-attention.
    """

    n: int
    n_without: int = 0
    n_cut: int = 0
    by_phase: dict[str, dict[str, Mean]] = field(default_factory=dict)
    by_layer: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    by_layer_per_token: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    audio_per_token: Mean | None = None
    evidence: dict[str, Evidence] = field(default_factory=dict)
    reference: dict[str, Evidence] = field(default_factory=dict)
    ends: dict[str, Evidence] = field(default_factory=dict)
    change: dict[str, Mean] | None = None

    @property
    def cross_attends(self) -> bool:
        return any("audio" not in blocks for blocks in self.by_layer.values())


CROSS_ATTENDS = (
    "hears by cross-attention, all of which falls on the audio: table 4's share of it is not defined. The other blocks "
    "are those of self-attention; what falls inside an interval is a share of cross-attention."
)


def cross_attention_note(models: Mapping[str, Attention]) -> str:
    """Which of the models have no share of audio, and why; "" for none."""
    names = [name for name, attention in models.items() if attention.cross_attends]
    return f"{', '.join(names)}: {CROSS_ATTENDS}" if names else ""


def left_out(models: Mapping[str, Attention]) -> list[str]:
    """What the numbers are not over, and where they mean less than they say; [] for nothing."""
    said = []
    for name, attention in models.items():
        if attention.n_without:
            said.append(f"{name}: {attention.n_without} questions have no response to look at (errors.jsonl)")
        if attention.n_cut:
            said.append(
                f"{name}: {attention.n_cut} of {attention.n} responses were cut off at the limit of new tokens: their "
                "last line counts as the answer, though it may be none"
            )
    return said
