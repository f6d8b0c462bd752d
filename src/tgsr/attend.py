"""`tgsr attend`: where a model looks while it writes its responses, by block of its input and by layer.

Source: sections 5.1, 5.2, table 4, figures 3 to 5 and 7. For each question the model answers (or is given what it
has answered before), and one more forward sums its attention over the blocks (attention.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

from tgsr import audio
from tgsr.attention import BLOCKS, block_attention
from tgsr.engine.features import FeatureCache, hear
from tgsr.engine.shared_prefix import Branch, listen
from tgsr.evaluation.intervals import Mean, bootstrap_mean
from tgsr.grounding import find_mentions
from tgsr.models.lalm import Lalm, ModelError
from tgsr.predict import GREEDY, Decoding, Unheard, prompt_text, respond
from tgsr.records import Question, Row, write_jsonl
from tgsr.report.figures import MODEL_COLOURS

PHASES = ("all", "reasoning", "answer", "times")
"""all tokens; those before the response's last line, and those of it; those that write a cited interval."""


@dataclass(frozen=True, slots=True)
class Looked:
    """One response's attention.

    share[phase][layer] are the shares of BLOCKS, means over the phase's tokens and over heads, which sum to 1; None
    where the response has no token of that phase. n_tokens[phase] counts them; n_of_block counts each block's
    positions, so that a share can be compared token by token (figure 3).
    """

    question: Question
    model: str
    response: str
    n_tokens: dict[str, int]
    n_of_block: dict[str, int]
    share: dict[str, list[list[float]] | None]


def phases_of(lalm: Lalm, ids: Sequence[int]) -> dict[str, list[bool]]:
    """For each of PHASES, which of the response's tokens belong to it.

    A token belongs to the last line, or to a cited interval, where any of its characters do. The token that ends
    the response, which has no characters, belongs to "all" only.
    """
    texts = [lalm.text(list(ids[: n + 1])) for n in range(len(ids))]
    whole = texts[-1] if texts else ""
    ends = [min(len(text), len(whole)) for text in texts]
    starts = [0, *ends[:-1]]
    last_line = len(whole.rstrip()) - len(whole.rstrip().rsplit("\n", 1)[-1])
    cited = [(mention.text_start, mention.text_end) for mention in find_mentions(whole)]
    written = [end > start for start, end in zip(starts, ends, strict=True)]
    return {
        "all": [True] * len(ids),
        "reasoning": [is_text and end <= last_line for is_text, end in zip(written, ends, strict=True)],
        "answer": [is_text and end > last_line for is_text, end in zip(written, ends, strict=True)],
        "times": [
            is_text and any(start < stop and end > first for first, stop in cited)
            for is_text, start, end in zip(written, starts, ends, strict=True)
        ],
    }


def look(
    lalm: Lalm,
    questions: Sequence[Question],
    path: Path,
    cache: FeatureCache,
    *,
    responses: Mapping[str, str] | None = None,
    decoding: Decoding = GREEDY,
) -> Iterator[Looked | Unheard]:
    """Each question's attention, one at a time; what cannot be heard or has no response comes with its reason.

    `responses` gives texts by question id, which are looked at instead of new ones.
    """
    for question in tqdm(questions, desc=f"attend {lalm.name}", unit="question"):
        try:
            features = hear(lalm, question, path, cache).read()
            prompt = lalm.prompt(prompt_text(lalm, question)).after
            if responses is None:
                text = respond(lalm, [features], [(0, prompt)], decoding)[0]
            else:
                text = responses.get(question.id, "")
            ids = (*lalm.tokens(text), lalm.eos_id)
            if not text.strip():
                yield Unheard(question, "no response, or an empty one: nothing was written to be looked at")
                continue
            with torch.no_grad():
                seen = block_attention(listen(lalm, [features]), [Branch(0, prompt, ids)])
        except (audio.AudioError, ModelError, FileNotFoundError) as error:
            yield Unheard(question, str(error))
            continue
        phases = phases_of(lalm, ids)
        yield Looked(
            question,
            lalm.name,
            text,
            {phase: sum(chosen) for phase, chosen in phases.items()},
            dict(zip(BLOCKS, seen.n_of_block_BK[0].tolist(), strict=True)),
            {
                phase: seen.share_LMK[:, torch.tensor(chosen)].mean(1).tolist() if any(chosen) else None
                for phase, chosen in phases.items()
            },
        )


# --- summary -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attention:
    """A model's attention over all responses: means with intervals over clips.

    by_phase[phase][block]: over layers (table 4 is block "audio"). by_layer[phase][block][layer]: means alone, for
    the curves of figures 4 and 5. audio_per_token: the audio block's share for each of its positions against the
    system block's, over layers (figure 3); None where a prompt has no system text.
    """

    n: int
    n_without: int
    by_phase: dict[str, dict[str, Mean]]
    by_layer: dict[str, dict[str, list[float]]]
    audio_per_token: Mean


def summarise(looked: Sequence[Looked], n_without: int, seed: int = 0) -> Attention:
    """The means of one model's responses; a phase that no response has is left out of by_layer."""
    clips = [item.question.clip_id for item in looked]
    by_phase: dict[str, dict[str, Mean]] = {}
    by_layer: dict[str, dict[str, list[float]]] = {}
    for phase in PHASES:
        share_LK = [None if (s := item.share[phase]) is None else torch.tensor(s) for item in looked]
        by_phase[phase] = {
            block: bootstrap_mean(
                [None if s is None else float(s[:, k].mean()) for s in share_LK], clips, seed
            )
            for k, block in enumerate(BLOCKS)
        }
        scored = [s for s in share_LK if s is not None]
        if scored:
            mean_LK = torch.stack(scored).mean(0)
            by_layer[phase] = {block: mean_LK[:, k].tolist() for k, block in enumerate(BLOCKS)}
    ratios = [_per_token(item) for item in looked]
    return Attention(len(looked), n_without, by_phase, by_layer, bootstrap_mean(ratios, clips, seed))


def _per_token(item: Looked) -> float | None:
    shares = torch.tensor(item.share["all"]).mean(0)
    each = {
        block: float(share) / max(1, item.n_of_block[block])
        for block, share in zip(BLOCKS, shares, strict=True)
    }
    return each["audio"] / each["system"] if each["system"] > 0 else None


def write_looked(path: Path, looked: Sequence[Looked]) -> None:
    """One JSON line a response: its question's id, what it says, and the shares, to five decimals."""
    rows: list[Row] = [
        {
            "id": item.question.id,
            "clip_id": item.question.clip_id,
            "model": item.model,
            "response": item.response,
            "n_tokens": item.n_tokens,
            "n_of_block": item.n_of_block,
            "blocks": list(BLOCKS),
            "share": {
                phase: None if of is None else [[round(value, 5) for value in layer] for layer in of]
                for phase, of in item.share.items()
            },
        }
        for item in looked
    ]
    write_jsonl(path, rows)


def write_summary(path: Path, models: Mapping[str, Attention]) -> None:
    path.write_text(json.dumps({name: asdict(of) for name, of in models.items()}, indent=1) + "\n")


def table(models: Mapping[str, Attention]) -> str:
    """Table 4: the audio's share of attention, means over layers, with 95 % intervals; of two models, the change."""
    lines = []
    for phase in PHASES:
        for name, of in models.items():
            mean = of.by_phase[phase]["audio"]
            if mean.value is None:
                lines.append(f"{phase:10} {name}: no response has tokens of it")
                continue
            interval = "" if mean.low is None else f" [{mean.low:.4f}, {mean.high:.4f}]"
            lines.append(f"{phase:10} {name}: {mean.value:.4f}{interval}, {mean.n} responses")
        values = [of.by_phase[phase]["audio"].value for of in models.values()]
        if len(values) == 2 and values[0] and values[1] is not None:
            lines.append(f"{phase:10} change: {values[1] / values[0] - 1:+.1%}")
    return "\n".join(lines)


def draw(path: Path, models: Mapping[str, Attention]) -> None:
    """Two rows of panels by layer: the audio's share in each phase, one line a model; all four blocks of each model."""
    figure, panels = plt.subplots(
        2, max(len(PHASES), len(models)), figsize=(14, 6.4), squeeze=False, layout="constrained", sharey="row"
    )
    for panel, phase in zip(panels[0], PHASES, strict=False):
        for (name, of), colour in zip(models.items(), MODEL_COLOURS, strict=False):
            if phase in of.by_layer:
                panel.plot(of.by_layer[phase]["audio"], color=colour, label=name, marker=".")
        panel.set_title(f"attention to audio: {phase}", fontsize=10)
        panel.set_ylim(bottom=0)
    panels[0][0].legend(fontsize=8, frameon=False)
    panels[0][0].set_ylabel("share of attention")
    for panel, (name, of) in zip(panels[1], models.items(), strict=False):
        panel.stackplot(
            range(len(of.by_layer["all"]["audio"])),
            [of.by_layer["all"][block] for block in BLOCKS],
            labels=BLOCKS,
            colors=("#c9c3b5", "#bb5566", "#6d93b8", "#e2c66d"),
        )
        panel.set_title(f"{name}: all tokens, by block", fontsize=10)
        panel.set_ylim(0, 1)
        panel.set_xlabel("layer")
    # Read from the top, as the blocks lie.
    handles, labels = panels[1][0].get_legend_handles_labels()
    last = panels[1][len(models) - 1]
    last.legend(
        handles[::-1], labels[::-1], fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    for panel in panels.flat:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_visible(bool(panel.has_data()))
    figure.savefig(path, dpi=120)
    plt.close(figure)
