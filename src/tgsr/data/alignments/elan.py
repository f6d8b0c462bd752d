"""ELAN's annotations (.eaf): tiers of utterances or words, in milliseconds of time slots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from xml.etree.ElementTree import Element

from tgsr.data.alignments import tiers
from tgsr.data.alignments.subtitle_formats import parsed
from tgsr.data.alignments.timed import DECIMALS, Timed, number
from tgsr.errors import AlignmentError
from tgsr.timeline import Seconds

EAF = "eaf"


def eaf(text: str) -> Iterator[Timed]:
    """The tiers of words, one or one a speaker (`tiers` says which), in order of time.

    Where a slot has no time of its own, those between its neighbours share theirs. Annotations of annotations (a
    translation, a part of speech) have no time and are left out.
    """
    root = parsed(text)
    slots = _slots(root)
    found = []
    for tier in root.iter("TIER"):
        name, speaker = tier.get("TIER_ID", ""), tier.get("PARTICIPANT") or None
        rows = []
        for annotation in tier.iter("ALIGNABLE_ANNOTATION"):
            ends = [slots.get(annotation.get(f"TIME_SLOT_REF{n}", "")) for n in (1, 2)]
            said = annotation.findtext("ANNOTATION_VALUE") or ""
            rows.append((ends[0], ends[1], " ".join(said.split()), 0))
        if rows:
            found.append(tiers.Tier(name, speaker or tiers.speaker_of(name), rows))
    if not found:
        raise AlignmentError("has no tier with times", "export a tier whose annotations have times")
    speaking = [tier for tier in found if not tier.kinds & tiers.OTHERS]
    by_speaker = {tier.speaker for tier in speaking}
    if len(speaking) > 1 and None not in by_speaker and len(by_speaker) == len(speaking):
        # one tier a participant, whatever they are called
        named = [tier._replace(name=f"{tier.speaker} - utterances") for tier in speaking]
        words = [row for tier in named for row in tiers.timed(EAF, [tier])]
        return iter(sorted(words, key=lambda row: row.start or 0.0))
    return tiers.timed(EAF, found)


def _slots(root: Element) -> Mapping[str, Seconds | None]:
    """The time of each slot; runs without one are spread evenly between the times around them."""
    names = [slot.get("TIME_SLOT_ID", "") for slot in root.iter("TIME_SLOT")]
    times = [number(slot.get("TIME_VALUE", "")) for slot in root.iter("TIME_SLOT")]
    known = [n for n, time in enumerate(times) if time is not None]
    for before, after in pairwise(known):
        first, last = times[before], times[after]
        for n in range(before + 1, after):
            if first is not None and last is not None:
                times[n] = first + (last - first) * (n - before) / (after - before)
    return {
        name: None if time is None else round(time / 1000, DECIMALS)
        for name, time in zip(names, times, strict=True)
    }
