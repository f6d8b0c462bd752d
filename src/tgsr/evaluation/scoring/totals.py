"""Scored items to metrics, in memory that does not grow with their number.

Items are held until there are too many of them; from then on they wait on disk, in parts by a hash of their clip, so
that whatever belongs together (a clip's items, repeated answers, two models' answers to a question) is in one part, and
the parts are taken one after another.
"""

from __future__ import annotations

import heapq
import marshal
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from tgsr.evaluation.benchmarks import EMOTIONS, Benchmark
from tgsr.evaluation.scoring.event_f1 import pooled_f1
from tgsr.evaluation.scoring.items import Answer, Choice, Item, Phrase
from tgsr.evaluation.scoring.metrics import (
    BenchmarkScores,
    ChoiceScores,
    Difference,
    GroupScores,
    ModelScores,
    PhraseScores,
)
from tgsr.evaluation.scoring.pools import Columns, PartsPool, Pool, WholePool, clip_sums
from tgsr.overlap import high_overlap, item_f1
from tgsr.statistics.intervals import LEVELS, Floats, Mean, SwapTest, mcnemar_exact

MOST_IN_MEMORY = 50_000
MOST_LISTED = 1000
MOST_VALUES = 30  # of a label, to be a breakdown
N_SWAPS, N_SWAPS_IN_PARTS = 10_000, 2_000

T = TypeVar("T", Phrase, Choice, Answer)
Own = TypeVar("Own", Phrase, Choice)
Scope = tuple[str, str | None]
"""A model, and one of its splits or None for all of them."""


@dataclass(slots=True)
class Batch:
    """Items by kind, each kind in the file's order."""

    phrases: list[Phrase]
    choices: list[Choice]
    answers: list[Answer]

    @property
    def clips(self) -> Iterator[str]:
        items: Iterable[Item] = chain(self.phrases, self.choices, self.answers)
        return (item.clip for item in items)


class Listed:
    """The first ids of a list that may be long, in the file's order, and how many there are."""

    def __init__(self) -> None:
        self.n = 0
        self._latest_first: list[tuple[int, str]] = []

    def add(self, at: int, id_: str) -> None:
        self.n += 1
        if len(self._latest_first) < MOST_LISTED:
            heapq.heappush(self._latest_first, (-at, id_))
        elif -at > self._latest_first[0][0]:
            heapq.heapreplace(self._latest_first, (-at, id_))

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(id_ for _, id_ in sorted(self._latest_first, key=lambda pair: -pair[0]))


class Totals:
    """Takes items, and then says what metrics.json says of them. Use it in a `with`: it may have files.

    `most_in_memory` items are held; beyond them `n_parts` files wait in a temporary folder.
    """

    def __init__(
        self,
        seed: int = 0,
        n_resamples: int = 1000,
        most_in_memory: int = MOST_IN_MEMORY,
        n_parts: int = 64,
    ) -> None:
        self._seed, self._n_resamples = seed, n_resamples
        self._most_in_memory, self._n_parts = most_in_memory, n_parts
        self._batch = Batch([], [], [])
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._models: dict[str, None] = {}  # in order of appearance
        self._pool: Pool = WholePool(seed, n_resamples)
        self._counts: Counter[tuple[Hashable, str]] = Counter()
        self._sums: Counter[tuple[Hashable, str]] = Counter()
        self._listed: dict[tuple[Hashable, str], Listed] = {}
        self._reasons: dict[tuple[Hashable, str], Counter[str]] = {}
        self._splits: dict[str, set[str]] = {}
        self._tasks: dict[Scope, set[str]] = {}
        self._labels: dict[Hashable, dict[str, set[str]]] = {}
        self._benchmarks: dict[str, dict[Benchmark, None]] = {}
        self._swaps: dict[tuple[str, str, str], SwapTest] = {}

    def __enter__(self) -> Totals:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def is_whole(self) -> bool:
        return self._folder is None

    def add(self, items: Iterable[Item]) -> None:
        batch = self._batch
        for item in items:
            if isinstance(item, Choice):
                batch.choices.append(item)
            elif isinstance(item, Answer):
                batch.answers.append(item)
            else:
                batch.phrases.append(item)
            if item.model not in self._models:
                self._models[item.model] = None
        if len(batch.phrases) + len(batch.choices) + len(batch.answers) > self._most_in_memory:
            self._spill()

    def add_foreign(self, at: int, id_: str, model: str) -> None:
        """An answer to something that was not asked: listed, and in no score."""
        self._models.setdefault(model)
        self._list(model, "foreign", at, id_)

    def finish(self) -> None:
        """No more items come: everything is counted now."""
        if self._folder is None:
            self._take(self._batch)
            return
        self._spill()
        folder = Path(self._folder.name)
        self._pool = PartsPool(self._seed, self._n_resamples, folder)
        for number in range(self._n_parts):
            if (path := _part(folder, number)).exists():
                batch = _read_part(path)
                path.unlink()
                self._pool.begin(number, list(batch.clips))
                self._take(batch)

    # --- parts on disk -----------------------------------------------------------------------------------

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="tgsr-score-")
        folder, n_parts = Path(self._folder.name), self._n_parts
        batch, self._batch = self._batch, Batch([], [], [])
        number_of: dict[str, int] = {}
        parts: dict[int, tuple[list[Any], list[Any], list[Any]]] = {}
        kinds: tuple[Sequence[Item], ...] = (batch.phrases, batch.choices, batch.answers)
        for kind, items in enumerate(kinds):
            for item in items:
                clip = item.clip
                number = number_of.get(clip)
                if number is None:  # not hash(), which differs from one process to the next
                    number = number_of[clip] = zlib.crc32(clip.encode("utf-8", "surrogatepass")) % n_parts
                parts.setdefault(number, ([], [], []))[kind].append(tuple(item))
        for number, lists in parts.items():
            written = marshal.dumps(lists)
            with _part(folder, number).open("ab") as file:
                file.write(len(written).to_bytes(8, "little") + written)

    # --- counting ----------------------------------------------------------------------------------------

    def _take(self, batch: Batch) -> None:
        phrases, choices = _by(batch.phrases, _model), _by(batch.choices, _model)
        for model, of_model in phrases.items():
            for keys, group in self._scopes(model, "phrase", of_model):
                self._take_phrases(keys, group)
        for model, of_choices in choices.items():
            for keys, chosen in self._scopes(model, "choice", of_choices):
                self._take_choices(keys, chosen)
        for (model, benchmark), answers in _by(batch.answers, lambda a: (a.model, a.benchmark)).items():
            self._benchmarks.setdefault(model, {})[benchmark] = None
            self._take_answers(model, benchmark, answers)
        n_answers = {
            model: Counter([i.id for i in phrases.get(model, ())] + [i.id for i in choices.get(model, ())])
            for model in dict.fromkeys([*phrases, *choices])
        }
        for model in n_answers:
            own: list[Phrase | Choice] = [*phrases.get(model, ()), *choices.get(model, ())]
            self._take_lists(model, own, n_answers[model])
        if len(self._models) > 1:
            once = {
                model: (
                    {i.id: i for i in phrases.get(model, ()) if counts[i.id] == 1 and not i.is_missing},
                    {i.id: i for i in choices.get(model, ()) if counts[i.id] == 1 and not i.is_missing},
                )
                for model, counts in n_answers.items()
            }
            for pair in combinations(self._models, 2):
                if all(model in once for model in pair):
                    self._take_pair(*pair, once[pair[0]], once[pair[1]])

    def _scopes(self, model: str, kind: str, items: list[Own]) -> Iterator[tuple[list[Hashable], list[Own]]]:
        """Groups of items with the keys that they count under: all of the model's, and each split's."""
        by_split = _by(items, lambda item: item.split)
        self._splits.setdefault(model, set()).update(by_split)
        whole: Scope = (model, None)
        if not self._pool.is_whole or len(by_split) == 1:
            for split, of_split in by_split.items():
                yield [(kind, whole), (kind, (model, split))], of_split
            return
        yield [(kind, whole)], items
        for split, of_split in by_split.items():
            yield [(kind, (model, split))], of_split

    def _count(self, keys: Sequence[Hashable], **counts: int) -> None:
        for key in keys:
            for name, n in counts.items():
                self._counts[key, name] += n

    def _reason(self, keys: Sequence[Hashable], name: str, reasons: Iterable[str | None]) -> None:
        found = Counter(reason for reason in reasons if reason is not None)
        for key in keys:
            self._reasons.setdefault((key, name), Counter()).update(found)

    def _list(self, key: Hashable, name: str, at: int, id_: str) -> None:
        self._listed.setdefault((key, name), Listed()).add(at, id_)

    def _take_phrases(self, keys: list[Hashable], items: list[Phrase]) -> None:
        ious = [item.iou for item in items]
        columns: Columns = {
            "iou": ious,
            "f1": [None if iou is None else item_f1(iou) for iou in ious],
            "high_overlap": [None if iou is None else float(high_overlap(iou)) for iou in ious],
            "iou_of_all": [0.0 if item.is_missing else item.iou for item in items],
        }
        self._pool.add(keys, columns, [item.clip for item in items])
        errors = [item.errors for item in items if item.errors is not None]
        self._pool.add_errors([(key, "start") for key in keys], [start for start, _ in errors])
        self._pool.add_errors([(key, "end") for key in keys], [end for _, end in errors])
        segments = [item.segment for item in items if item.segment is not None]
        events = [item.event for item in items if item.event is not None]
        for at, side in enumerate(("hits", "predicted", "reference")):
            for name, counts in (("segment", segments), ("event", events)):
                self._count(keys, **{f"{name}_{side}": sum(count[at] for count in counts)})
        self._count(
            keys,
            n=len(items),
            missing=sum(item.is_missing for item in items),
            without_span=sum(item.is_without_span for item in items),
            invalid=sum(item.is_invalid for item in items),
            past_end=sum(item.is_past_end for item in items),
        )

    def _take_choices(self, keys: list[Hashable], items: list[Choice]) -> None:
        clips = [item.clip for item in items]
        official, strict = [_number(i.official) for i in items], [_number(i.strict) for i in items]
        mentions, regions = [item.n_mentions for item in items], [item.n_regions for item in items]
        columns: Columns = {
            "official": official,
            "strict": strict,
            "mentions": mentions,
            "regions": regions,
            "k1_official": [None if k is None else float(k == 1) for k in mentions],
            "k1_strict": [None if k is None else float(k == 1) for k in regions],
            "trace_iou": [item.trace_iou for item in items],
            "official_of_all": [value or 0.0 for value in official],
            "strict_of_all": [value or 0.0 for value in strict],
        }
        self._pool.add(keys, columns, clips)
        self._count(
            keys,
            n=len(items),
            missing=sum(item.is_missing for item in items),
            without_letter=sum(item.letter is None and not item.is_missing for item in items),
            without_choice=sum(item.said is None and not item.is_missing for item in items),
            without_span=sum(item.is_without_span for item in items),
            invalid=sum(item.is_invalid for item in items),
            past_end=sum(item.is_past_end for item in items),
        )
        chances = sum(item.chance for item in items)
        for key in keys:
            self._sums[key, "chance"] += chances  # type: ignore[assignment]
        self._reason(keys, "why", (item.why for item in items))
        with_task = (("task", item.task) if item.task else None for item in items)
        self._break_down(
            keys, ([pair] if pair else [] for pair in with_task), "task", official, strict, clips
        )
        self._break_down(keys, (item.labels for item in items), "label", official, None, clips)

    def _break_down(
        self,
        keys: Sequence[Hashable],
        labels: Iterable[Sequence[tuple[str, str]]],
        kind: str,
        official: Sequence[float | None],
        strict: Sequence[float | None] | None,
        clips: Sequence[str],
    ) -> None:
        """Means of the items that bear each (name, value); a name of too many values is dropped, but for tasks."""
        bearers: dict[tuple[str, str], list[int]] = {}
        for at, pairs in enumerate(labels):
            for pair in dict.fromkeys(pairs):
                bearers.setdefault(pair, []).append(at)
        for (name, value), items in bearers.items():
            for key in keys:
                self._labels.setdefault((key, kind), {}).setdefault(name, set()).add(value)
            wanted = [
                key for key in keys if kind != "label" or len(self._labels[key, kind][name]) <= MOST_VALUES
            ]
            columns = {"official": [official[at] for at in items]}
            if strict is not None:
                columns["strict"] = [strict[at] for at in items]
            if wanted:
                at_keys = [(key, kind, name, value) for key in wanted]
                self._pool.add(at_keys, columns, [clips[at] for at in items])

    def _take_answers(self, model: str, benchmark: Benchmark, items: list[Answer]) -> None:
        key = ("benchmark", model, benchmark)
        clips = [item.clip for item in items]
        official, strict = [_number(i.official) for i in items], [_number(i.strict) for i in items]
        is_known = [item.truth is not None and not _has_no_verdict(item) for item in items]
        columns: Columns = {
            "official": official,
            "strict": strict,
            "as_is": [_number(item.as_is) for item in items],
            "official_of_all": [
                (value or 0.0) if known else None for value, known in zip(official, is_known, strict=True)
            ],
            "strict_of_all": [
                (value or 0.0) if known else None for value, known in zip(strict, is_known, strict=True)
            ],
        }
        self._pool.add([key], columns, clips)
        answered = [item for item in items if not item.is_missing]
        self._count(
            [key],
            n=len(items),
            unscored=sum(item.official is None for item in items),
            without_choice=sum(item.said is None for item in answered),
            neutral=sum(item.truth == "neutral" for item in items if item.official is not None),
            scored=sum(item.official is not None for item in items),
            with_chance=sum(item.chance is not None for item in answered),
        )
        self._sums[key, "chance"] += sum(item.chance for item in answered if item.chance is not None)  # type: ignore[assignment]
        self._reason([key], "why", (item.why for item in items))
        self._reason([key], "why_as_is", (item.why_as_is for item in items))
        self._break_down([key], (item.labels for item in items), "answer", official, strict, clips)
        if benchmark == "meld":
            self._take_emotions(key, [item for item in items if item.official is not None])
        n_answers = Counter(item.id for item in items)
        for item in items:
            for name, is_listed in (
                ("missing", item.is_missing),
                ("empty", item.is_empty),
                ("several", item.names_several),
                ("unreadable", item.is_unreadable),
                ("without_answer", _has_no_verdict(item)),
                ("duplicates", n_answers[item.id] > 1),
            ):
                if is_listed:
                    self._list(key, name, item.at, item.id)
            if n_answers[item.id] > 1:
                n_answers[item.id] = 0  # listed once

    def _take_emotions(self, key: Hashable, items: list[Answer]) -> None:
        columns: dict[str, list[float | None]] = {}
        for emotion in EMOTIONS:
            columns[f"{emotion} hits"] = [float(i.said == emotion and i.truth == emotion) for i in items]
            columns[f"{emotion} said"] = [float(i.said == emotion) for i in items]
            columns[f"{emotion} true"] = [float(i.truth == emotion) for i in items]
        if items:
            self._pool.add([(key, "emotions")], columns, [item.clip for item in items])

    def _take_lists(self, model: str, items: list[Phrase | Choice], n_answers: Counter[str]) -> None:
        items.sort(key=lambda item: item.at)
        seen: set[str] = set()
        for item in items:
            if item.is_missing:
                self._list(model, "missing", item.at, item.id)
            if item.is_empty:
                self._list(model, "empty", item.at, item.id)
            if n_answers[item.id] > 1 and item.id not in seen:
                seen.add(item.id)
                self._list(model, "several", item.at, item.id)

    def _take_pair(
        self,
        model: str,
        other: str,
        of_model: tuple[dict[str, Phrase], dict[str, Choice]],
        of_other: tuple[dict[str, Phrase], dict[str, Choice]],
    ) -> None:
        key = (model, other)
        phrases = [(a, of_other[0][id_]) for id_, a in of_model[0].items() if id_ in of_other[0]]
        choices = [(a, of_other[1][id_]) for id_, a in of_model[1].items() if id_ in of_other[1]]
        if phrases:
            ious = [None if a.iou is None or b.iou is None else b.iou - a.iou for a, b in phrases]
            clips = [a.clip for a, _ in phrases]
            self._pool.add([(key, "phrases")], {"iou": ious}, clips)
            self._count([key], phrases=len(phrases))
            known = [at for at, iou in enumerate(ious) if iou is not None]
            self._swap(model, other, "iou", [ious[at] or 0.0 for at in known], [clips[at] for at in known])
        if choices:
            official = [float(bool(b.official)) - float(bool(a.official)) for a, b in choices]
            strict = [float(bool(b.strict)) - float(bool(a.strict)) for a, b in choices]
            clips = [a.clip for a, _ in choices]
            self._pool.add([(key, "choices")], {"official": official, "strict": strict}, clips)
            self._count(
                [key], choices=len(choices), only_model=official.count(-1.0), only_other=official.count(1.0)
            )
            self._swap(model, other, "official", official, clips)
            self._swap(model, other, "strict", strict, clips)

    def _swap(self, model: str, other: str, what: str, values: Sequence[float], clips: Sequence[str]) -> None:
        n_swaps = N_SWAPS if self._pool.is_whole else N_SWAPS_IN_PARTS
        test = self._swaps.setdefault((model, other, what), SwapTest(self._seed, n_swaps))
        if values:
            test.add(clip_sums(values, clips))

    # --- metrics -----------------------------------------------------------------------------------------

    def models(self) -> dict[str, ModelScores]:
        """After `finish`: each model of a file of ours, in order of appearance."""
        return {model: self._model_scores(model) for model in self._models}

    def differences(self) -> tuple[Difference, ...]:
        """After `finish`: of each two models."""
        return tuple(self._difference(*pair) for pair in combinations(self._models, 2))

    def _model_scores(self, model: str) -> ModelScores:
        names = ("several", "empty", "missing", "foreign")
        lists = {name: self._listed.get((model, name), Listed()) for name in names}
        return ModelScores(
            all=self._group_scores((model, None)),
            by_split={
                split: self._group_scores((model, split)) for split in sorted(self._splits.get(model, ()))
            },
            several=lists["several"].ids,
            empty=lists["empty"].ids,
            benchmarks={
                benchmark: self.benchmark_scores(model, benchmark)
                for benchmark in self._benchmarks.get(model, ())
            },
            missing=lists["missing"].ids,
            foreign=lists["foreign"].ids,
            n_listed={name: listed.n for name, listed in lists.items() if listed.n},
        )

    def _group_scores(self, scope: Scope) -> GroupScores:
        phrase, choice = ("phrase", scope), ("choice", scope)
        return GroupScores(
            phrase=self._phrase_scores(phrase) if self._counts[phrase, "n"] else None,
            choice=self._choice_scores(choice) if self._counts[choice, "n"] else None,
        )

    def _phrase_scores(self, key: Hashable) -> PhraseScores:
        means, counts = self._pool.means(key), self._counts

        def pooled(name: str) -> float | None:
            hits, predicted, reference = (
                counts[key, f"{name}_{side}"] for side in ("hits", "predicted", "reference")
            )
            return pooled_f1([(hits, predicted, reference)])

        return PhraseScores(
            n=counts[key, "n"],
            iou=means["iou"],
            f1=means["f1"],
            high_overlap=means["high_overlap"],
            segment_f1=pooled("segment"),
            event_f1=pooled("event"),
            n_without_span=counts[key, "without_span"],
            n_invalid=counts[key, "invalid"],
            n_past_end=counts[key, "past_end"],
            start_error=self._pool.quantiles((key, "start")),
            end_error=self._pool.quantiles((key, "end")),
            iou_of_all=means["iou_of_all"] if counts[key, "missing"] else None,
        )

    def _choice_scores(self, key: Hashable) -> ChoiceScores:
        means, counts = self._pool.means(key), self._counts
        official, strict = self._by_value(key, "task")
        by_label, _ = self._by_name(key, "label")
        has_missing = bool(counts[key, "missing"])
        return ChoiceScores(
            n=counts[key, "n"],
            accuracy_official=means["official"],
            accuracy_strict=means["strict"],
            chance=self._sums[key, "chance"] / counts[key, "n"],
            accuracy_official_by_task=official,
            accuracy_strict_by_task=strict,
            mentions_official=means["mentions"],
            regions_strict=means["regions"],
            share_k1_official=means["k1_official"],
            share_k1_strict=means["k1_strict"],
            trace_iou=means["trace_iou"],
            n_without_letter=counts[key, "without_letter"],
            n_without_choice=counts[key, "without_choice"],
            n_without_span=counts[key, "without_span"],
            n_invalid=counts[key, "invalid"],
            n_past_end=counts[key, "past_end"],
            accuracy_by_label=by_label,
            why=self._why(key, "why"),
            accuracy_official_of_all=means["official_of_all"] if has_missing else None,
            accuracy_strict_of_all=means["strict_of_all"] if has_missing else None,
        )

    def _why(self, key: Hashable, name: str) -> dict[str, int]:
        """Reasons and how often, the most frequent first."""
        found = self._reasons.get((key, name), Counter())
        return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))

    def _by_name(
        self, key: Hashable, kind: str
    ) -> tuple[dict[str, dict[str, Mean]], dict[str, dict[str, Mean]]]:
        """Official and strict means by name and value, of names that have not too many values."""
        official: dict[str, dict[str, Mean]] = {}
        strict: dict[str, dict[str, Mean]] = {}
        for name, values in sorted(self._labels.get((key, kind), {}).items()):
            if kind == "label" and len(values) > MOST_VALUES:
                continue
            for value in sorted(values):
                means = self._pool.means((key, kind, name, value))
                official.setdefault(name, {})[value] = means["official"]
                if "strict" in means:
                    strict.setdefault(name, {})[value] = means["strict"]
        return official, strict

    def _by_value(self, key: Hashable, kind: str) -> tuple[dict[str, Mean], dict[str, Mean]]:
        official, strict = self._by_name(key, kind)
        return official.get(kind, {}), strict.get(kind, {})

    def benchmark_scores(self, model: str, benchmark: Benchmark) -> BenchmarkScores:
        """After `finish`: one model's answers to a benchmark; of an owner's file, the model is ""."""
        key = ("benchmark", model, benchmark)
        counts = self._counts
        if not counts[key, "n"]:
            nothing = Mean(None, None, None, 0, 0)
            means = dict.fromkeys(
                ("official", "strict", "as_is", "official_of_all", "strict_of_all"), nothing
            )
        else:
            means = self._pool.means(key)
        official, strict = self._by_name(key, "answer")
        names = (
            *("missing", "duplicates", "empty", "several"),
            *("unreadable", "without_answer", "foreign"),
        )
        lists = {
            name: self._listed.get((key if name != "foreign" else model, name), Listed()) for name in names
        }
        n_chance = counts[key, "with_chance"]
        weighted, macro = self._f1(key) if benchmark == "meld" else (None, None)
        return BenchmarkScores(
            n=counts[key, "n"],
            n_unscored=counts[key, "unscored"],
            accuracy_official=means["official"],
            accuracy_strict=means["strict"],
            chance=self._sums[key, "chance"] / n_chance if n_chance else None,
            accuracy_official_by_domain=official.get("domain", {}),
            accuracy_official_by_category=official.get("category", {}),
            accuracy_strict_by_domain=strict.get("domain", {}),
            accuracy_strict_by_category=strict.get("category", {}),
            n_without_choice=counts[key, "without_choice"],
            **{name: listed.ids for name, listed in lists.items() if name != "foreign" or not model},
            n_listed={name: listed.n for name, listed in lists.items() if listed.n},
            accuracy_as_is=means["as_is"] if model else None,
            accuracy_official_of_all=means["official_of_all"],
            accuracy_strict_of_all=means["strict_of_all"],
            accuracy_official_by_sub_category=official.get("sub-category", {}),
            accuracy_strict_by_sub_category=strict.get("sub-category", {}),
            accuracy_official_by_task_dataset=official.get("task_dataset", {}),
            accuracy_strict_by_task_dataset=strict.get("task_dataset", {}),
            speech=official.get("domain", {}).get("speech"),
            why=self._why(key, "why"),
            why_as_is=self._why(key, "why_as_is"),
            weighted_f1=weighted,
            macro_f1=macro,
            always_neutral=counts[key, "neutral"] / counts[key, "scored"]
            if benchmark == "meld" and counts[key, "scored"]
            else None,
        )

    def _f1(self, key: Hashable) -> tuple[Mean, Mean]:
        """MELD's weighted and macro F1 over the seven emotions; an emotion that is neither said nor true has F1 0."""
        n, n_unscored = self._counts[key, "scored"], self._counts[key, "unscored"]
        if not n:
            nothing = Mean(None, None, None, 0, n_unscored)
            return nothing, nothing
        totals, draws = self._pool.sums((key, "emotions"))
        found = []
        for f1 in (_weighted_f1, _macro_f1):
            value = float(f1({name: np.array([total]) for name, total in totals.items()})[0])
            low = high = None
            if draws is not None:
                low, high = map(float, np.percentile(f1(draws), LEVELS))
            found.append(Mean(value, low, high, n, n_unscored))
        return found[0], found[1]

    def _difference(self, model: str, other: str) -> Difference:
        key, counts = (model, other), self._counts
        n_choices, n_phrases = counts[key, "choices"], counts[key, "phrases"]
        choices = self._pool.means((key, "choices")) if n_choices else {}
        phrases = self._pool.means((key, "phrases")) if n_phrases else {}

        def p(what: str) -> float | None:
            test = self._swaps.get((model, other, what))
            return None if test is None else test.p

        return Difference(
            model,
            other,
            n_choices=n_choices,
            accuracy_official=choices.get("official"),
            n_phrases=n_phrases,
            iou=phrases.get("iou"),
            accuracy_strict=choices.get("strict"),
            n_only_model=counts[key, "only_model"],
            n_only_other=counts[key, "only_other"],
            p_mcnemar=mcnemar_exact(counts[key, "only_model"], counts[key, "only_other"]),
            p_accuracy_official=p("official"),
            p_accuracy_strict=p("strict"),
            p_iou=p("iou"),
        )


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number}"


def _read_part(path: Path) -> Batch:
    """What `_spill` wrote: lists after lists, each behind its length, since marshal is slow on open files."""
    batch = Batch([], [], [])
    content = memoryview(path.read_bytes())
    at = 0
    while at < len(content):
        start = at + 8
        at = start + int.from_bytes(content[at:start], "little")
        phrases, choices, answers = marshal.loads(content[start:at])
        batch.phrases += map(Phrase._make, phrases)
        batch.choices += map(Choice._make, choices)
        batch.answers += map(Answer._make, answers)
    return batch


def _by(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _model(item: Item) -> str:
    return item.model


def _number(value: bool | None) -> float | None:
    return None if value is None else float(value)


def _has_no_verdict(item: Answer) -> bool:
    """Whether nobody can say if it is right: no answer is known, or none that is a choice."""
    return item.truth is None or (item.official is None and not item.is_missing and not item.is_unreadable)


def _class_f1(sums: dict[str, Floats], emotion: str) -> Floats:
    either = sums[f"{emotion} said"] + sums[f"{emotion} true"]
    return np.asarray(2 * sums[f"{emotion} hits"] / np.where(either > 0, either, 1))


def _weighted_f1(sums: dict[str, Floats]) -> Floats:
    n = sum(sums[f"{emotion} true"] for emotion in EMOTIONS)
    weighted = sum(sums[f"{emotion} true"] * _class_f1(sums, emotion) for emotion in EMOTIONS)
    return np.asarray(weighted / np.where(n > 0, n, 1))


def _macro_f1(sums: dict[str, Floats]) -> Floats:
    return np.asarray(sum(_class_f1(sums, emotion) for emotion in EMOTIONS) / len(EMOTIONS))
