"""Several processes train and test as one would.

Started by ``torchrun``, every process holds the model. Every process knows the
batches that one process alone would make, and takes its share of them: the
first process the first, the second the next, and so on. So N processes with
batches of B utterances see, step by step, what one process sees with batches
of N times B. PyTorch's DDP averages their gradients. Here is the rest of it:
what the processes tell each other, the weight of a process that has fewer
utterances, what is logged, and validation.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.dataio.sampler import ReproducibleRandomSampler
from speechbrain.utils.distributed import is_distributed_initialized
from torch import Tensor, distributed
from torch.utils.data import BatchSampler, Dataset, Sampler, SequentialSampler

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.evaluation.recorder import TraceRecorder

SEED = 563375142  # SpeechBrain's, where none is set


def gather(value: Any) -> list[Any]:
    """What every process has, in every process."""
    if not is_distributed_initialized():
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


@contextmanager
def all_or_none(doing: str) -> Iterator[None]:
    """Do something in every process, or stop all of them.

    Without that, the others wait for one that has failed.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    problems = gather(None if failure is None else one_line(failure))
    if failure is not None:
        raise failure
    for rank, problem in enumerate(problems):
        if problem is not None:
            raise InputError(
                f"{doing}: process {rank} has failed ({problem}), so that "
                "this one stops, too."
            )


def add_over_processes(counter: Any) -> None:
    """Add up what the processes have counted."""
    counts = {
        name: value
        for name, value in vars(counter).items()
        if isinstance(value, int | np.ndarray)
    }
    everybody = gather(counts)
    for name in counts:
        setattr(counter, name, sum(each[name] for each in everybody))


def share_gradients(
    parameters: Iterable[torch.nn.Parameter], scale: float
) -> None:
    """Average gradients over the processes, where DDP has not done it yet."""
    learning = [each for each in parameters if each.requires_grad]
    if is_distributed_initialized() and learning:
        here = [each.grad is not None for each in learning]
        somewhere = torch.tensor(here, device=learning[0].device).int()
        distributed.all_reduce(somewhere)
        learning = [p for p, n in zip(learning, somewhere.tolist()) if n]
        scale /= distributed.get_world_size()
    for each in learning:
        if is_distributed_initialized():
            if each.grad is None:
                each.grad = torch.zeros_like(each)
            distributed.all_reduce(each.grad)
        if each.grad is not None:
            each.grad *= scale


class BatchShare(Sampler[list[int]]):
    """One process's share of the batches of a sampler.

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
        """Tell the epoch to what shuffles."""
        for each in (self.batches, getattr(self.batches, "sampler", None)):
            if hasattr(each, "set_epoch"):
                each.set_epoch(epoch)


def evenly_split(
    batches: Sequence[Sequence[int]], processes: int
) -> list[list[int]]:
    """The same utterances in a number of batches that all can share.

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


def in_order(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """What the processes made of their shares, as one would have made it.

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


class Sharder:
    """The share of the data that this process looks at, and what it tells the
    others of it.
    """

    def __init__(self, processes: int):
        self.processes = processes
        self.shares: dict[sb.Stage, BatchShare] = {}
        self.step_loss: Tensor | None = None
        # Of every batch of the validation, its loss and those of exits.
        self.valid_rows: list[list[float]] = []

    def share(
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
        share = BatchShare(
            batches, distributed.get_rank(), self.processes, even
        )
        self.shares[stage] = share
        return {**options, "batch_sampler": share}

    def train_options(
        self, dataset: Dataset, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Those of a training loader. SpeechBrain's own shares repeat
        utterances to come out even, in another order than a single process.
        """
        sampler = options.get("sampler")
        if sampler is None and options.get("shuffle"):
            seed = os.environ.get("SB_GLOBAL_SEED", SEED)
            sampler = ReproducibleRandomSampler(dataset, seed=seed)
        elif sampler is None:
            sampler = SequentialSampler(dataset)
        return self.share(sampler, sb.Stage.TRAIN, options)

    def over_processes(
        self, loss: Tensor, losses: Mapping[str, Tensor], rows: int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Losses of a training step, all processes together.

        DDP averages the gradients of ``N`` processes. The loss of process
        ``r`` is a mean over its ``n_r`` utterances, so that it is given the
        weight ``N n_r / sum_r n_r``: the gradient is then that of the mean
        over all utterances, however they are spread.
        """
        if self.processes == 1:
            return loss, losses
        parts = [loss.reshape(1), *losses.values()]
        summed = torch.cat([part.detach().double() * rows for part in parts])
        summed = torch.cat([summed, summed.new_tensor([rows])])
        distributed.all_reduce(summed)
        utterances = summed[-1]
        means = (summed[:-1] / utterances).split([len(p) for p in parts])
        self.step_loss = means[0][0]
        weight = (self.processes * rows / utterances).to(loss.dtype)
        return loss * weight, dict(zip(losses, means[1:], strict=True))

    def note_validation(
        self, loss: Tensor, losses: Mapping[str, Tensor]
    ) -> None:
        """Keep a batch's losses for :meth:`validated_rows`."""
        if sb.Stage.VALID in self.shares:
            row = torch.cat([loss.reshape(1), *losses.values()])
            self.valid_rows.append(row.double().tolist())

    def validated_rows(self) -> list[list[float]]:
        """The losses of all processes' batches, in the order of one process."""
        rows = in_order(gather(self.valid_rows))
        self.valid_rows.clear()
        return rows

    def joined_records(self, recorder: TraceRecorder) -> None:
        """Have the records of all processes in the order of one process."""
        if sb.Stage.TEST not in self.shares:
            return
        recorder.replace(in_order(gather(recorder.plain_batches())))
        for broken in gather(recorder.broken):
            recorder.broken |= broken
        cuts = gather(recorder.cut)
        for decoding in recorder.cut:
            recorder.cut[decoding] = sum(cut[decoding] for cut in cuts)
