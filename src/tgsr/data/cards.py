"""A set of questions described for those who are to use it: sources, licences, counts, what was left out and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tgsr.choices import correct_letter
from tgsr.data.splits import Leak
from tgsr.disk.whole import whole, write_whole
from tgsr.records import Clip, Question

FEW = 12  # rows of a table


@dataclass
class Described:
    """Counts over a set, filled one question and one clip at a time; nothing grows with the set but the histograms."""

    tasks: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    speakers: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    n_choice: int = 0
    n_longest_right: float = 0.0
    hours: float = 0.0
    lengths: Counter[float] = field(default_factory=Counter)  # of evidence, to a quarter of a second
    places: Counter[float] = field(default_factory=Counter)  # of its middle in the clip, to a twentieth

    def ask(self, question: Question) -> None:
        self.tasks[question.task or question.kind] += 1
        self.splits[question.split] += 1
        for span in question.evidence:
            self.lengths[int(span.duration * 4) / 4] += 1
            self.places[min(int((span.start + span.end) / 2 / question.duration * 20), 19) / 20] += 1
        if question.kind == "choice":
            self.n_choice += 1
            self.letters[correct_letter(question)] += 1
            size = max(map(len, question.choices))
            longest = [choice for choice in question.choices if len(choice) == size]
            self.n_longest_right += (question.answer in longest) / len(longest)

    def hear(self, clip: Clip) -> None:
        self.sources[clip.source or "unknown"] += 1
        self.licences[clip.licence or "unknown"] += 1
        self.hours += clip.duration / 3600
        self.flags.update(clip.flags)
        voices = {clip.speaker, *(word.speaker for word in clip.words)} - {None}
        self.speakers.update(str(voice) for voice in voices)

    def leave_out(self, reason: str) -> None:
        self.reasons[reason] += 1


def card(described: Described, title: str, command: str, leaked: Iterable[Leak]) -> str:
    """The card of a set of questions, or of clips alone, as Markdown."""
    leaked = list(leaked)
    n = sum(described.tasks.values())
    about = f"{n:,} questions about " if n else ""
    heard = f"{sum(described.sources.values()):,} clips, {described.hours:.2f} hours"
    made = f"{about}{heard}, {len(described.speakers):,} speakers. Made by `{command}`."
    lines = [f"# {title}", "", made, ""]
    if n:
        lines += ["![lengths and places of the evidence, and how much each speaker says](statistics.png)", ""]
    named = [("split", described.splits), ("task", described.tasks), ("source", described.sources)]
    named += [("licence", described.licences), ("flag of a clip", described.flags)]
    for name, counts in (*named, ("left out because", described.reasons)):
        if counts:
            rows = counts.most_common(FEW)
            if more := len(counts) - len(rows):
                rows.append((f"and {more} more", sum(counts.values()) - sum(count for _, count in rows)))
            lines += [f"| {name} | n |", "|---|---|", *(f"| {key} | {count:,} |" for key, count in rows), ""]
    if n_choice := described.n_choice:
        shares = (f"{letter} {count / n_choice:.1%}" for letter, count in sorted(described.letters.items()))
        longest = f"It is the longest one in {described.n_longest_right / n_choice:.1%}"
        longest += " (ties counted in part)."
        lines += [f"The right choice is letter {', '.join(shares)}. {longest}", ""]
    if leaked:
        leak = f"first the {leaked[0].what} {leaked[0].name}, in both {' and '.join(leaked[0].splits)}."
        lines.append(f"**{len(leaked)} leaks between splits**, {leak}")
    else:
        lines.append("No speaker and no recording is in two splits, as far as speakers are known.")
    times = "Word times are those of the clips; how far off they may be: the package's docs/word-times.md."
    return "\n".join([*lines, "", times]) + "\n"


def plot(described: Described, path: Path) -> None:
    """statistics.png: lengths of evidence, its place in the clip, and clips a speaker."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 2.8), layout="constrained")
    panels = (
        (described.lengths, 0.22, "length of the evidence, s"),
        (described.places, 0.045, "its middle in the clip, from start to end"),
    )
    for axis, (counts, width, label) in zip(axes, panels, strict=False):
        keys = sorted(counts)
        axis.bar(keys, [counts[key] for key in keys], width, align="edge", color="#4c78a8")
        axis.set_xlabel(label)
    axes[1].set_xlim(0, 1)
    ranked = np.sort(np.array(list(described.speakers.values())))[::-1]
    axes[2].plot(np.arange(1, len(ranked) + 1), ranked, "o-", markersize=3, color="#4c78a8")
    axes[2].set_xlabel("speakers, the most frequent first")
    axes[2].set_ylabel("clips")
    if not len(ranked):
        axes[2].text(0.5, 0.5, "no speaker is known", ha="center", transform=axes[2].transAxes)
        axes[2].set(xticks=[], yticks=[])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(bottom=0)
    with whole(path) as half:
        figure.savefig(half, dpi=110)
    pyplot.close(figure)


def statistics(described: Described, path: Path) -> None:
    """The counts as JSON, for programs."""
    n_questions, n_clips = sum(described.tasks.values()), sum(described.sources.values())
    named: dict[str, Any] = {"questions": n_questions, "clips": n_clips}
    named |= {"hours": round(described.hours, 4), "speakers": len(described.speakers)}
    for name in ("splits", "tasks", "letters", "sources", "licences", "flags", "reasons"):
        named[name] = dict(getattr(described, name).most_common())
    write_whole(path, json.dumps(named, indent=1, ensure_ascii=False) + "\n")
