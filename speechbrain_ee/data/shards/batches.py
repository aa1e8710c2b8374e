"""Batches that touch a few shards at a time.

Axes: N utterances.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from speechbrain.dataio.sampler import DynamicBatchSampler
from torch.utils.data import Sampler


class ShardBatchSampler(Sampler[list[int]]):
    """Shuffle shards, then utterances and batches among a few of them.

    The batches of an epoch depend on seed and epoch alone, and every
    utterance is in exactly one: any number of processes can share them, and a
    resumed epoch goes on where it was.
    """

    def __init__(
        self,
        shards_N: Sequence[Any],
        lengths_N: Sequence[float],
        buffer: int,
        seed: int,
        batching: Mapping[str, Any] | None = None,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
    ):
        rows: dict[Any, list[int]] = {}
        for row, shard in enumerate(shards_N):
            rows.setdefault(shard, []).append(row)
        self.rows_by_shard = list(rows.values())
        self.lengths_N = list(lengths_N)
        self.buffer, self.seed, self.batching = buffer, seed, batching
        self.batch_size, self.drop_last = batch_size, drop_last
        self.shuffle = shuffle
        if batching is not None:
            self.shuffle = batching.get("shuffle", True)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Make the batches of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        self.batches: list[list[int]] = []
        if self.batching is None:
            self._fill(rng)
        else:
            for rows in self._groups(rng):
                self._fill_by_length(rows, int(rng.integers(2**31)))

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the epoch."""
        return iter(self.batches)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.batches)

    def _groups(self, rng: np.random.Generator) -> Iterator[list[int]]:
        """The utterances of some shards, then those of others."""
        order = np.arange(len(self.rows_by_shard))
        if self.shuffle:
            rng.shuffle(order)
        for first in range(0, len(order), self.buffer):
            group = order[first : first + self.buffer]
            yield [row for shard in group for row in self.rows_by_shard[shard]]

    def _fill(self, rng: np.random.Generator) -> None:
        order: list[int] = []
        for rows in self._groups(rng):
            if self.shuffle:
                rng.shuffle(rows)
            order += rows
        size = self.batch_size
        stop = len(order) - len(order) % size if self.drop_last else len(order)
        self.batches = [order[at : at + size] for at in range(0, stop, size)]

    def _fill_by_length(self, rows: list[int], seed: int) -> None:
        lengths = [self.lengths_N[row] for row in rows]
        # An epoch other than 0, which would be logged at length.
        sampler = DynamicBatchSampler(
            rows, lengths_list=lengths, seed=seed, epoch=1, **self.batching
        )
        # Read to its end it would make the batches of another epoch.
        for batch in islice(sampler, len(sampler)):
            self.batches.append([rows[place] for place in batch])
