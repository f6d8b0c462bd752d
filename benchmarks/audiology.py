"""Which similarity tells a true cited span from a wrong one? ROC curves on real speech.

    python benchmarks/audiology.py --manifest speech/manifest.jsonl

Phrases of 3 to 8 words are drawn from clips with word times. Each is cut out at its true span and at spans that are 1,
2 and 5 s later or earlier and elsewhere in the clip; Whisper base writes the crops down, each by itself as `tgsr
behaviour` does, and each similarity compares that with what a response would say is heard there:

- quote: the words as the transcript has them. "human" clips have a person's transcript, digits are exact; the words of
  the "pseudo" clips are Whisper tiny.en's, with its own errors.
- errors: a fifth of the quote's words replaced by other words of the same clip.
- told: no quote, made by rule: function words left out, "the speaker talks about" before it. A person's or a large
  model's paraphrase would be harder.

AUC: the probability that a true span scores higher than a wrong one (ties count half). `ahead` is the chosen
similarity's lead over another one with the interval of that difference: the same phrases are drawn for both.

"windows" has what becomes of the same crops where they share Whisper's windows: how many read the same, and the AUC.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from tgsr import audio
from tgsr.cli import script
from tgsr.data.transcribe.whisper import FasterWhisper
from tgsr.evaluation.behaviour.audiology_verify import SIMILARITIES, similarity, spoken
from tgsr.records import Clip, read_clips, resolve_audio
from tgsr.timeline import Span

KINDS = ("quote", "errors", "told")
WRONG = ("1 s off", "2 s off", "5 s off", "elsewhere")
SMALL = frozenset(
    (
        "a",
        "an",
        "the",
        "of",
        "to",
        "in",
        "on",
        "at",
        "by",
        "for",
        "with",
        "and",
        "or",
        "but",
        "as",
        "is",
        "was",
        "were",
        "be",
        "been",
        "are",
        "it",
        "its",
        "he",
        "she",
        "they",
        "i",
        "you",
        "we",
        "his",
        "her",
        "their",
        "that",
        "this",
        "which",
        "who",
        "had",
        "has",
        "have",
        "not",
        "no",
        "so",
        "from",
        "him",
        "them",
        "my",
        "our",
        "your",
        "me",
        "us",
        "do",
        "did",
    )
)


def phrases(clips: Sequence[Clip], rng: np.random.Generator) -> list[tuple[Clip, Span, tuple[str, ...]]]:
    """One phrase a clip that is long enough to have another place."""
    found = []
    for clip in clips:
        n = int(rng.integers(3, 9))
        if len(clip.words) < 2 * n:
            continue
        first = int(rng.integers(len(clip.words) - n + 1))
        words = clip.words[first : first + n]
        span = Span(words[0].start, min(words[-1].end, clip.duration))
        if 3 * span.duration < clip.duration:
            found.append((clip, span, tuple(word.text for word in words)))
    return found


def wrong_spans(span: Span, duration: float, rng: np.random.Generator) -> dict[str, Span]:
    made = {}
    for name, by in (("1 s off", 1.0), ("2 s off", 2.0), ("5 s off", 5.0)):
        starts = [s for s in (span.start + by, span.start - by) if s >= 0 and s + span.duration <= duration]
        if starts:
            start = float(rng.choice(starts))
            made[name] = Span(start, start + span.duration)
    starts = [s for s in np.arange(0, duration - span.duration, 0.1) if abs(s - span.start) >= span.duration]
    start = float(rng.choice(starts))
    made["elsewhere"] = Span(start, start + span.duration)
    return made


def told(words: Sequence[str], kind: str, clip: Clip, rng: np.random.Generator) -> str:
    if kind == "quote":
        return " ".join(words)
    if kind == "errors":
        others = [word.text for word in clip.words]
        return " ".join(str(rng.choice(others)) if rng.random() < 0.2 else word for word in words)
    kept = [word for word in words if word.lower().strip(".,!?;:'\"") not in SMALL]
    return f"the speaker talks about {' '.join(kept or words)}"


def auc(true: Sequence[float], wrong: Sequence[float]) -> float:
    a, b = np.array(true)[:, None], np.array(wrong)[None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def resampled(true: Sequence[float], wrong: Sequence[tuple[int, float]], seed: int) -> np.ndarray:
    """The AUC in 300 bootstraps over phrases: a phrase's true and wrong spans are drawn together."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(300):
        chosen = rng.integers(len(true), size=len(true))
        times = np.bincount(chosen, minlength=len(true))
        of_wrong = [value for phrase, value in wrong for _ in range(times[phrase])]
        drawn.append(auc([true[phrase] for phrase in chosen], of_wrong) if of_wrong else np.nan)
    return np.array(drawn)


def interval(drawn: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in np.nanpercentile(drawn, [2.5, 97.5])]


def scores(
    measure: Callable[[str, str], float], said: Sequence[str], text: dict[tuple[int, str], str], name: str
) -> tuple[list[float], list[tuple[int, float]]]:
    """A similarity's values at the true spans, and at the wrong ones by that name with their phrase's number."""
    true = [measure(of, text[n, "true"]) for n, of in enumerate(said)]
    return true, [(n, measure(of, text[n, name])) for n, of in enumerate(said) if (n, name) in text]


def windows(
    drawn: Sequence[tuple[Clip, Span, tuple[str, ...]]],
    alone: dict[tuple[int, str], str],
    together: dict[tuple[int, str], str],
) -> dict[str, object]:
    """Crops heard each by itself against the same ones in windows that they share; explanations are quotes."""
    said = [" ".join(words) for _, _, words in drawn]
    found: dict[str, object] = {
        "n_crops": len(alone),
        "identical": round(float(np.mean([spoken(alone[at]) == spoken(together[at]) for at in alone])), 3),
    }
    for way, text in (("alone", alone), ("together", together)):
        true, wrong = scores(similarity, said, text, "2 s off")
        found[way] = {
            "true_mean": round(float(np.mean(true)), 3),
            "2 s off": round(auc(true, [value for _, value in wrong]), 3),
        }
    return found


def roc(true: Sequence[float], wrong: Sequence[float]) -> tuple[list[float], list[float]]:
    steps = sorted({*true, *wrong, 1.1}, reverse=True)
    hits = [float(np.mean([value >= step for value in true])) for step in steps]
    false = [float(np.mean([value >= step for value in wrong])) for step in steps]
    return [0.0, *false], [0.0, *hits]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, required=True, help="clips with words and times")
    parser.add_argument("--n", type=int, default=90, help="phrases, one a clip; corpora take turns")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/audiology.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/audiology.png"))
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as aside:  # rows that cannot be used are left out
        clips = read_clips(args.manifest, on_error=Path(aside) / "errors.jsonl")
    by_source: dict[str, list[Clip]] = {}
    for at in rng.permutation(len(clips)):
        by_source.setdefault(clips[at].audio.split("/")[0], []).append(clips[at])
    usable = {source: phrases(of, rng) for source, of in by_source.items()}
    drawn = [one for n in range(args.n) for of in usable.values() for one in of[n : n + 1]][: args.n]
    counts = Counter(clip.audio.split("/")[0] for clip, _, _ in drawn)
    print(f"{len(drawn)} phrases ({', '.join(f'{source} {n}' for source, n in counts.items())})")

    crops, places = [], []
    for n, (clip, span, _) in enumerate(drawn):
        samples = audio.load(resolve_audio(clip, args.manifest))
        for name, where in {"true": span, **wrong_spans(span, clip.duration, rng)}.items():
            crops.append(audio.crop(samples, [where]))
            places.append((n, name))
    hears = FasterWhisper(language="en")
    text = {
        place: hears(crop).text
        for place, crop in zip(places, tqdm(crops, desc="hearing", unit="crop"), strict=True)
    }
    together = {place: of.text for place, of in zip(places, hears.many(crops), strict=True)}
    n_empty = sum(not text[n, "true"] for n in range(len(drawn)))

    found: dict[str, dict[str, dict[str, object]]] = {}
    curves: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for kind in KINDS:
        said = [told(words, kind, clip, rng) for clip, _, words in drawn]
        lead = {name: resampled(*scores(similarity, said, text, name), args.seed) for name in WRONG}
        for measure in SIMILARITIES:
            of_measure: dict[str, object] = {}
            for name in WRONG:
                true, wrong = scores(measure, said, text, name)
                values = [value for _, value in wrong]
                drawn_auc = resampled(true, wrong, args.seed)
                of_measure["true_median"] = round(float(np.median(true)), 3)
                of_measure[name] = {
                    "auc": round(auc(true, values), 3),
                    "interval": interval(drawn_auc),
                    "ahead": interval(lead[name] - drawn_auc),
                    "median": round(float(np.median(values)), 3),
                    "n": len(values),
                }
                if name == "2 s off":
                    curves[kind, measure.__name__] = roc(true, values)
            found.setdefault(kind, {})[measure.__name__] = of_measure
    args.json.write_text(
        json.dumps(
            {
                "command": shlex.join(["python", *sys.argv]),
                "n_phrases": dict(counts),
                "n_true_spans_without_a_word": n_empty,
                "chosen": similarity.__name__,
                "windows": windows(drawn, text, together),
                "auc": found,
            },
            indent=1,
        )
        + "\n"
    )
    draw(args.figure, curves, found)
    for kind in KINDS:
        for measure in SIMILARITIES:
            row = found[kind][measure.__name__]
            print(kind, measure.__name__, *(f"{name} {row[name]['auc']:.3f}" for name in WRONG))  # type: ignore[index]


def draw(
    path: Path,
    curves: dict[tuple[str, str], tuple[list[float], list[float]]],
    found: dict[str, dict[str, dict[str, object]]],
) -> None:
    figure, panels = plt.subplots(1, len(KINDS), figsize=(11, 3.9), sharey=True)
    colours: Callable[[int], object] = plt.get_cmap("Greys")
    for panel, kind in zip(panels, KINDS, strict=True):
        for n, measure in enumerate(SIMILARITIES):
            chosen = measure is similarity
            false, hits = curves[kind, measure.__name__]
            area = found[kind][measure.__name__]["2 s off"]["auc"]  # type: ignore[index]
            panel.plot(
                false,
                hits,
                label=f"{measure.__name__.replace('_', ' ')} {area:.2f}",
                color="#bb5566" if chosen else colours(90 + 45 * n),
                linewidth=2.2 if chosen else 1.1,
                zorder=3 if chosen else 2,
            )
        panel.plot([0, 1], [0, 1], color="#8b949e", linestyle="--", linewidth=0.8)
        panel.set_title(
            {"quote": "quotes", "errors": "quotes with errors", "told": "told by rule"}[kind], fontsize=10
        )
        panel.set_xlabel("wrong spans (2 s off) that pass")
        panel.legend(fontsize=8, frameon=False, loc="lower right", title="area", title_fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("true spans that pass")
    figure.tight_layout()
    figure.savefig(path, dpi=140, facecolor="white")


if __name__ == "__main__":
    raise SystemExit(script(main))
