"""Which process gets which batches.

Every process knows the batches that one process alone would make, and takes
its share of them: the first process the first, the second the next, and so
on. So N processes with batches of B utterances see, step by step, what one
process sees with batches of N times B.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import speechbrain as sb
from speechbrain.dataio.sampler import ReproducibleRandomSampler
from speechbrain.utils.distributed import is_distributed_initialized
from torch import distributed
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    SequentialSampler,
)

from speechbrain_ee.data.batches import utterance_batch
from speechbrain_ee.errors import InputError

Item = TypeVar("Item")
SEED = 563375142  # SpeechBrain's, where none is set


class BatchShare(Sampler[list[int]]):
    """One process's share of the batches of a sampler.

    Arguments
    ---------
    batches : iterable of list of int
        The batches of all processes, the same in each of them; for example a
        ``BatchSampler`` or a ``DynamicBatchSampler``.
    rank : int
        This process, from 0.
    processes : int
        How many there are.
    even : bool
        Every process gets as many batches as the others, as training needs
        it: large batches are split where some are missing. No utterance is
        left out or repeated.

    Example
    -------
    >>> batches = [[0, 1], [2, 3], [4, 5]]
    >>> [list(BatchShare(batches, rank, 2)) for rank in (0, 1)]
    [[[0, 1], [4, 5]], [[2, 3]]]
    >>> [list(BatchShare(batches, rank, 2, even=True)) for rank in (0, 1)]
    [[[0, 1], [4]], [[2, 3], [5]]]
    """

    def __init__(
        self, batches: Any, rank: int, processes: int, even: bool = False
    ):
        self.batches = batches
        self.rank = rank
        self.processes = processes
        self.even = even

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of this process."""
        batches = list(self.batches)
        if self.even:
            batches = evenly_split(batches, self.processes)
        return iter(batches[self.rank :: self.processes])

    def __len__(self) -> int:
        """How many they are.

        Never by making them: a dynamic sampler moves on when it is read.
        """
        number = len(self.batches)
        if self.even:
            return -(-number // self.processes)
        return len(range(self.rank, number, self.processes))

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch to what shuffles.

        Arguments
        ---------
        epoch : int
            Epoch, from 1.
        """
        for each in (self.batches, getattr(self.batches, "sampler", None)):
            if hasattr(each, "set_epoch"):
                each.set_epoch(epoch)


class SharedData:
    """The part of a Brain that shares data with other processes.

    A mixin in front of :class:`speechbrain.core.Brain`; alone, a process
    does as that class does.
    """

    @property
    def processes(self) -> int:
        """How many processes train together."""
        if self.distributed_launch and is_distributed_initialized():
            return distributed.get_world_size()
        return 1

    @cached_property
    def shares(self) -> dict[sb.Stage, BatchShare]:
        """By stage, the share of the data that this process looks at."""
        return {}

    def fit(
        self, epoch_counter: Any, train_set: Any, *args: Any, **kwargs: Any
    ) -> None:
        """As SpeechBrain's, with a batch sampler that is told the epoch.

        Without that, dynamic batches are the same in every epoch of a
        single-process run, and differ after a resume.
        """
        options = kwargs.get("train_loader_kwargs", {})
        if not isinstance(train_set, DataLoader):
            train_set = self.make_dataloader(
                train_set, stage=sb.Stage.TRAIN, **options
            )
        if self.train_sampler is None:
            self.train_sampler = train_set.batch_sampler
        # the last step of an epoch may be one of fewer batches
        steps = -(-len(train_set) // self.grad_accumulation_factor)
        self.set_total_steps(steps, epoch_counter.limit)
        super().fit(epoch_counter, train_set, *args, **kwargs)

    def make_dataloader(
        self, dataset: Dataset, stage: sb.Stage, **options: Any
    ) -> DataLoader:
        """As SpeechBrain's; a share where the data set can be shared.

        Not shared is what has an order of its own (``sampler``,
        ``batch_sampler``, ``shuffle``) or no order at all, and what ``debug``
        cuts: there every process looks at everything.

        Arguments
        ---------
        dataset : Dataset
            Utterances.
        stage : sb.Stage
            What they are for.
        **options : dict
            Arguments of the loader, and ``ckpt_prefix``.

        Returns
        -------
        DataLoader
            The loader.
        """
        self.shares.pop(stage, None)
        ordered = ("sampler", "batch_sampler", "shuffle")
        if (
            stage != sb.Stage.TRAIN
            and self.processes > 1
            and not self.debug
            and not isinstance(dataset, IterableDataset)
            and not any(options.get(key) for key in ordered)
        ):
            options = self._share(SequentialSampler(dataset), stage, options)
        options.setdefault("collate_fn", utterance_batch)
        return super().make_dataloader(dataset, stage, **options)

    def _share(
        self, sampler: Any, stage: sb.Stage, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Loader options with a share of the batches that they describe."""
        options = dict(options)
        batches = options.pop("batch_sampler", None)
        for key in ("sampler", "shuffle"):
            options.pop(key, None)
        size = options.pop("batch_size", 1)
        drop_last = options.pop("drop_last", False)
        if batches is None:
            batches = BatchSampler(sampler, size, drop_last)
        even = stage == sb.Stage.TRAIN
        share = BatchShare(batches, self.rank, self.processes, even)
        self.shares[stage] = share
        return {**options, "batch_sampler": share}

    def _train_loader_specifics(
        self, dataset: Dataset, loader_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        # SpeechBrain's own shares repeat utterances to come out even, in
        # another order than that of a single process.
        if self.processes == 1 or isinstance(dataset, IterableDataset):
            return super()._train_loader_specifics(dataset, loader_kwargs)
        sampler = loader_kwargs.get("sampler")
        if sampler is None and loader_kwargs.get("shuffle"):
            seed = os.environ.get("SB_GLOBAL_SEED", SEED)
            sampler = ReproducibleRandomSampler(dataset, seed=seed)
        elif sampler is None:
            sampler = SequentialSampler(dataset)
        options = self._share(sampler, sb.Stage.TRAIN, loader_kwargs)
        self.train_sampler = options["batch_sampler"]
        return options


def evenly_split(
    batches: Sequence[Sequence[int]], processes: int
) -> list[list[int]]:
    """The same utterances in a number of batches that all can share.

    Arguments
    ---------
    batches : sequence of sequence of int
        Utterances by batch.
    processes : int
        What the number of batches becomes a multiple of.

    Returns
    -------
    list of list of int
        The largest batches of the last round are halved until all processes
        have one; where it holds too few utterances, later batches first, and
        where all batches hold one, some of the last hold another.

    Raises
    ------
    InputError
        If there are fewer utterances than processes.

    Example
    -------
    >>> evenly_split([[5], [3, 1, 4], [2]], processes=2)
    [[5], [3, 1], [4], [2]]
    """
    batches = [list(batch) for batch in batches]
    whole = len(batches) // processes * processes
    while len(batches) % processes:
        last = range(whole, len(batches))
        place = max(last, key=lambda n: len(batches[n]), default=0)
        if len(batches[place]) < 2:
            large = (n for n, batch in enumerate(batches) if len(batch) > 1)
            place = max(large, default=None)
        if place is None and whole:
            return _fuller(batches, whole - processes, processes)
        if place is None:
            raise InputError(
                f"training: {len(batches)} utterances cannot be shared by "
                f"{processes} processes; start fewer (--nproc_per_node), or "
                "give more data."
            )
        batch = batches[place]
        half = (len(batch) + 1) // 2
        batches[place : place + 1] = [batch[:half], batch[half:]]
    return batches


def _fuller(
    batches: list[list[int]], start: int, processes: int
) -> list[list[int]]:
    """One batch for each process of what follows, in order."""
    rest = [one for batch in batches[start:] for one in batch]
    ends = [len(rest) * n // processes for n in range(processes + 1)]
    shares = [rest[a:b] for a, b in zip(ends, ends[1:])]
    return batches[:start] + shares


def in_order(parts: Sequence[Sequence[Item]]) -> list[Item]:
    """What the processes made of their shares, as one would have made it.

    Arguments
    ---------
    parts : sequence of sequence
        By process, then one thing per batch of its share.

    Returns
    -------
    list
        One thing per batch, in the order of the batches.

    Example
    -------
    >>> in_order([["a", "c", "e"], ["b", "d"]])
    ['a', 'b', 'c', 'd', 'e']
    """
    total = sum(len(part) for part in parts)
    for rank, part in enumerate(parts):
        if len(part) != len(range(rank, total, len(parts))):
            raise RuntimeError(
                f"process {rank} brings {len(part)} of {total} batches, "
                "which is not its share"
            )
    return [parts[n % len(parts)][n // len(parts)] for n in range(total)]
