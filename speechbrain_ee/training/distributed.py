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

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.dataio.sampler import ReproducibleRandomSampler
from speechbrain.utils.distributed import is_distributed_initialized
from torch import Tensor, distributed
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    SequentialSampler,
)

from speechbrain_ee.data.batches import utterance_batch
from speechbrain_ee.errors import InputError, one_line

logger = logging.getLogger(__name__)

SEED = 563375142  # SpeechBrain's, where none is set
# What a Brain counts while it validates, in whole numbers.
COUNTERS = ("error_rates", "token_accuracy")


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


class SharedWork:
    """The part of a Brain that works together with other processes.

    A mixin in front of :class:`speechbrain.core.Brain`; alone, a process
    does as that class does. ``find_unused_parameters`` is set where parts of
    the model may be without gradient in some step: layers that are dropped,
    layers that join in later, decoders that are not trained.
    """

    step_loss: Tensor | None = None

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

    @cached_property
    def valid_rows(self) -> list[list[float]]:
        """Of every batch of the validation, its loss and those of exits."""
        return []

    def _wrap_distributed(self) -> None:
        if self.processes > 1 and self._may_leave_unused():
            self.find_unused_parameters = True
        super()._wrap_distributed()

    def _may_leave_unused(self) -> bool:
        """Whether a step may leave parts of the model without gradient.

        Not those that a regime freezes for good: DDP does not wait for them.
        """
        model = self._unwrapped_model()
        undecoded = (
            model.attention is not None and "attention" not in self.loss_terms
        )
        dropped = getattr(model.encoder, "layerdrop_prob", 0.0) > 0
        joining = self.regime is not None and self.regime.changes
        return undecoded or dropped or joining

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

    def fit_batch(self, batch: Any) -> Tensor:
        """As SpeechBrain's; the loss is the mean over all processes."""
        self.step_loss = None
        try:
            loss = super().fit_batch(batch)
        except RuntimeError as error:
            if "find_unused_parameters" not in str(error):
                raise
            raise InputError(
                "find_unused_parameters: a part of the model took no part in "
                "the loss of the last step, and the processes wait for its "
                "gradient; pass --find_unused_parameters, or freeze that part."
            ) from error
        return loss if self.step_loss is None else self.step_loss.cpu()

    def check_loss_isfinite(self, loss: Tensor) -> None:
        """As SpeechBrain's; it names the place, and all give up together."""
        if not torch.isfinite(loss):
            logger.warning(
                "NON-FINITE LOSS at epoch %d, batch %d. Lower `lr` or "
                "`max_grad_norm`, or look for broken audio.",
                self.hparams.epoch_counter.current,
                self.step,
            )
        shared = self.step_loss
        super().check_loss_isfinite(loss if shared is None else shared)

    def note_losses(
        self, loss: Tensor, losses: Mapping[str, Tensor], stage: sb.Stage
    ) -> None:
        """Count a batch's losses for the log."""
        for head, losses_E in losses.items():
            self.exit_loss_means[head].append(losses_E)
        if stage == sb.Stage.VALID and stage in self.shares:
            row = torch.cat([loss.reshape(1), *losses.values()])
            self.valid_rows.append(row.double().tolist())

    def joined_validation(self, stage_loss: float) -> float:
        """Make of all processes' validations that of one process.

        What was counted is added up, and what is averaged is averaged again
        in the order of the batches: the result is equal bit for bit.
        """
        if sb.Stage.VALID not in self.shares:
            return stage_loss
        for name in COUNTERS:
            if hasattr(self, name):
                add_over_processes(getattr(self, name))
        rows = in_order(gather(self.valid_rows))
        self.valid_rows.clear()
        for means in self.exit_loss_means.values():
            means.reset()
        stage_loss = 0.0
        exits = len(self.active_layers)
        for step, row in enumerate(rows, start=1):
            self.step = step  # what SpeechBrain's average divides by
            stage_loss = self.update_average(torch.tensor(row[0]), stage_loss)
            for place, means in enumerate(self.exit_loss_means.values()):
                losses = row[1 + place * exits :][:exits]
                means.append(torch.tensor(losses, dtype=torch.double))
        self.step = 0
        return stage_loss

    def evaluate_together(
        self, name: str, test_set: Any, loader_options: Mapping[str, Any]
    ) -> None:
        """Record a test set; every process then has the records of all.

        The processes share the batches that one alone would make, so that
        the records are equal to its own, bit for bit and in its order.
        """
        self.shares.pop(sb.Stage.TEST, None)
        with all_or_none(f"decoding {name}"):
            options = dict(loader_options)
            self.evaluate(test_set, min_key="WER", test_loader_kwargs=options)
        if sb.Stage.TEST not in self.shares:
            return
        self.recorder.replace(in_order(gather(self.recorder.plain_batches())))
        for broken in gather(self.recorder.broken):
            self.recorder.broken |= broken
        cuts = gather(self.recorder.cut)
        for decoding in self.recorder.cut:
            self.recorder.cut[decoding] = sum(cut[decoding] for cut in cuts)
