"""Several processes train and test as one would.

Started by ``torchrun``, every process holds the model and gets a share of the
batches (see :mod:`speechbrain_ee.training.shares`). PyTorch's DDP averages
their gradients. Here are the rest of it: the weight of a process that has
fewer utterances, what is logged, and validation.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import speechbrain as sb
import torch
from torch import Tensor, distributed

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.exchange import (
    add_over_processes,
    all_or_none,
    gather,
)
from speechbrain_ee.training.shares import SharedData, in_order

logger = logging.getLogger(__name__)

# What a Brain counts while it validates, in whole numbers.
COUNTERS = ("error_rates", "token_accuracy")


class SharedWork(SharedData):
    """The part of a Brain that works together with other processes.

    A mixin in front of :class:`speechbrain.core.Brain`; alone, a process
    does as that class does. ``find_unused_parameters`` is set where parts of
    the model may be without gradient in some step: layers that are dropped,
    layers that join in later, decoders that are not trained.
    """

    step_loss: Tensor | None = None

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

        Arguments
        ---------
        loss : torch.Tensor
            This process's, a scalar.
        losses : dict of str to torch.Tensor
            Those of its exits, by kind of head.
        rows : int
            Its utterances, with their augmented copies.

        Returns
        -------
        loss : torch.Tensor
            What this process should minimise.
        losses : dict of str to torch.Tensor
            Means over the utterances of all processes, to be logged; the
            same in every process.
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
        """As SpeechBrain's; the loss is the mean over all processes.

        Arguments
        ---------
        batch : PaddedBatch
            The batch of this process.

        Returns
        -------
        torch.Tensor
            A scalar.

        Raises
        ------
        InputError
            If a part of the model has no gradient where all should have.
        """
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
        """Count a batch's losses for the log.

        Arguments
        ---------
        loss : torch.Tensor
            The joint loss, a scalar.
        losses : dict of str to torch.Tensor
            Those of the exits, by kind of head.
        stage : sb.Stage
            TRAIN or VALID.
        """
        for head, losses_E in losses.items():
            self.exit_loss_means[head].append(losses_E)
        if stage == sb.Stage.VALID and stage in self.shares:
            row = torch.cat([loss.reshape(1), *losses.values()])
            self.valid_rows.append(row.double().tolist())

    def joined_validation(self, stage_loss: float) -> float:
        """Make of all processes' validations that of one process.

        What was counted is added up, and what is averaged is averaged again
        in the order of the batches: the result is equal bit for bit.

        Arguments
        ---------
        stage_loss : float
            Mean over the batches of this process.

        Returns
        -------
        float
            Mean over all batches.
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

        Arguments
        ---------
        name : str
            Name of the test set.
        test_set : DynamicItemDataset
            The test set.
        loader_options : dict
            Arguments of its loader.

        Raises
        ------
        InputError
            If another process has failed.
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
