"""Means of very many groups of items: exactly as one would draw them, or part by part where memory ends.

A pool takes columns of values of the items of a group, with the clip of each item, and gives each column's mean with
its interval. Both pools have the same methods.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tgsr.statistics.intervals import (
    LEVELS,
    Floats,
    Mean,
    Quantiles,
    bootstrap_means,
    bootstrap_sums,
    codes_of,
    poisson_weights,
    quantiles,
)

Columns = Mapping[str, Sequence[float | None]]
Sums = tuple[dict[str, float], dict[str, Floats] | None]
MOST_WAITING = 8192  # errors, before they are written to disk


class WholePool:
    """All items at once: the bootstrap draws clips with replacement, each mean as if it were alone."""

    is_whole = True

    def __init__(self, seed: int, n_resamples: int) -> None:
        self._how = (seed, n_resamples)
        self._groups: dict[Hashable, tuple[Columns, Sequence[str]]] = {}
        self._means: dict[int, dict[str, Mean]] = {}  # by the identity of columns that two groups share
        self._errors: dict[Hashable, array[float]] = {}

    def add(self, keys: Sequence[Hashable], columns: Columns, clips: Sequence[str]) -> None:
        """A whole group under each of its keys: once a key."""
        for key in keys:
            self._groups[key] = (columns, clips)

    def means(self, key: Hashable) -> dict[str, Mean]:
        columns, clips = self._groups[key]
        if id(columns) not in self._means:
            self._means[id(columns)] = bootstrap_means(columns, clips, *self._how)
        return self._means[id(columns)]

    def sums(self, key: Hashable) -> Sums:
        columns, clips = self._groups[key]
        scored = {name: [value or 0.0 for value in column] for name, column in columns.items()}
        sums, draws = bootstrap_sums(scored, clips, *self._how)
        totals = dict(zip(columns, map(float, sums), strict=True))
        return totals, None if draws is None else dict(zip(columns, draws.T, strict=True))

    def add_errors(self, keys: Sequence[Hashable], errors: Sequence[float]) -> None:
        for key in keys:
            self._errors.setdefault(key, array("d")).extend(errors)

    def quantiles(self, key: Hashable) -> Quantiles:
        return quantiles(np.array(self._errors.get(key, ())))


class PartsPool:
    """Items part by part, all of a clip in one part: each resample draws each clip Poisson(1) times.

    Of a group only sums are kept. Errors, whose quantiles need them all, wait in files of `folder`.
    """

    is_whole = False

    def __init__(self, seed: int, n_resamples: int, folder: Path) -> None:
        self._seed, self._n_resamples, self._folder = seed, n_resamples, folder
        self._groups: dict[Hashable, _Sums] = {}
        self._errors: dict[Hashable, array[float]] = {}
        self._files: dict[Hashable, Path] = {}
        self._codes: dict[str, int] = {}
        self._weights_CR: NDArray[np.float32] = np.empty((0, n_resamples), np.float32)

    def begin(self, number: int, clips: Sequence[str]) -> None:
        """The part of that number, with the clips of all its items. Equal parts get equal draws."""
        self._codes = {}
        for clip in clips:
            self._codes.setdefault(clip, len(self._codes))
        rng = np.random.default_rng((self._seed, number))
        self._weights_CR = poisson_weights(rng, len(self._codes), self._n_resamples)

    def add(self, keys: Sequence[Hashable], columns: Columns, clips: Sequence[str]) -> None:
        """This part's items of a group, or of several groups that all of them belong to."""
        codes = np.array([self._codes[clip] for clip in clips])
        used, codes = np.unique(codes, return_inverse=True)
        stacked_CM, n_scored = _stacked(columns, codes.reshape(-1), len(used))
        weights_CR = self._weights_CR if len(used) == len(self._codes) else self._weights_CR[used]
        draws_MR = stacked_CM.T.astype(np.float32) @ weights_CR
        for key in keys:
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Sums(list(columns), self._n_resamples)
            group.add(stacked_CM, draws_MR, n_scored, len(clips))

    def means(self, key: Hashable) -> dict[str, Mean]:
        return self._groups[key].means()

    def sums(self, key: Hashable) -> Sums:
        group = self._groups[key]
        totals = dict(zip(group.names, map(float, group.totals[len(group.names) :]), strict=True))
        draws = dict(zip(group.names, group.draws_MR[len(group.names) :], strict=True))
        return totals, draws if max(group.n_clips) > 1 else None

    def add_errors(self, keys: Sequence[Hashable], errors: Sequence[float]) -> None:
        for key in keys:
            waiting = self._errors.setdefault(key, array("d"))
            waiting.extend(errors)
            if len(waiting) > MOST_WAITING:
                self._write(key)

    def quantiles(self, key: Hashable) -> Quantiles:
        if not self._errors.get(key) and key not in self._files:
            return quantiles(())
        self._write(key)
        # in place, on disk: memory is needed for the pages under work only
        return quantiles(np.memmap(self._files[key], dtype=np.float64, mode="r+"))

    def _write(self, key: Hashable) -> None:
        path = self._files.setdefault(key, self._folder / f"errors-{len(self._files)}")
        with path.open("ab") as file:
            self._errors.pop(key, array("d")).tofile(file)


def _stacked(columns: Columns, codes: NDArray[np.int64], n_clips: int) -> tuple[Floats, list[int]]:
    """Each clip's counts of scored items, a column each, then its sums: (n_clips, 2 M); and how many are scored."""
    counts, sums, n_scored = [], [], []
    whole = np.bincount(codes, minlength=n_clips).astype(float)
    for column in columns.values():
        values = np.array([np.nan if value is None else value for value in column], dtype=float)
        is_scored = ~np.isnan(values)
        n = int(is_scored.sum())
        n_scored.append(n)
        if n == len(values):
            counts.append(whole)
            sums.append(np.bincount(codes, weights=values, minlength=n_clips))
        else:
            scored = codes[is_scored]
            counts.append(np.bincount(scored, minlength=n_clips).astype(float))
            sums.append(np.bincount(scored, weights=values[is_scored], minlength=n_clips))
    return np.stack(counts + sums, axis=1), n_scored


class _Sums:
    """One group: totals over all clips and in each resample; counts first, then sums."""

    def __init__(self, names: list[str], n_resamples: int) -> None:
        self.names = names
        self.n_items = 0
        self.n_scored = [0] * len(names)
        self.n_clips = [0] * len(names)
        self.totals = np.zeros(2 * len(names))
        self.draws_MR = np.zeros((2 * len(names), n_resamples))

    def add(
        self, stacked_CM: Floats, draws_MR: NDArray[np.float32], n_scored: Sequence[int], n_items: int
    ) -> None:
        self.n_items += n_items
        self.totals += stacked_CM.sum(axis=0)
        self.draws_MR += draws_MR
        for at, n in enumerate(n_scored):
            self.n_scored[at] += n
            self.n_clips[at] += int((stacked_CM[:, at] > 0).sum())

    def means(self) -> dict[str, Mean]:
        found = {}
        for at, name in enumerate(self.names):
            n = self.n_scored[at]
            value = float(self.totals[len(self.names) + at] / n) if n else None
            low = high = None
            if self.n_clips[at] > 1:
                counts, sums = self.draws_MR[at], self.draws_MR[len(self.names) + at]
                low, high = map(float, np.percentile(sums[counts > 0] / counts[counts > 0], LEVELS))
            found[name] = Mean(value, low, high, n, self.n_items - n)
        return found


Pool = WholePool | PartsPool


def clip_sums(values: Sequence[float], clips: Sequence[str]) -> Floats:
    """The sum of the values of each clip."""
    return np.bincount(codes_of(clips), weights=np.array(values, dtype=float)).astype(float)
