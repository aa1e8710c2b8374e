"""A loss term of one's own, and a Brain with a key of its own.

Axes: B utterances, T frames, V tokens, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.padding import padding_mask
from speechbrain_ee.training.losses import LossTerm
from speechbrain_ee.training.systems import CTCEarlyExitBrain


class ConfidencePenalty(LossTerm):
    """Minus the mean entropy of an exit's frames, in nats per frame.

    After Pereyra et al. 2017 (arXiv 1701.06548): an exit that is too sure
    of itself stops too soon.
    """

    name = "penalty"

    def losses(
        self, outputs: Sequence[ExitOutput], batch: Any, brain: Any
    ) -> Tensor:
        """One loss per exit, shape (E,)."""
        losses = []
        for output in outputs:
            log_probs_BTV, frames_B = output.log_probs_BTV, output.lengths_B
            sure_BT = (log_probs_BTV.exp() * log_probs_BTV).sum(-1)
            padded_BT = padding_mask(frames_B, sure_BT.shape[1])
            sure_B = sure_BT.masked_fill(padded_BT, 0.0).sum(1) / frames_B
            losses.append(sure_B.mean())
        return torch.stack(losses)


class RampedBrain(CTCEarlyExitBrain):
    """The penalty comes in over the first ``penalty_epochs`` epochs."""

    def exit_losses(
        self, outputs: Sequence[ExitOutput], batch: Any
    ) -> Mapping[str, Tensor]:
        """As those of the list, the penalty weighed by the epoch."""
        losses = dict(super().exit_losses(outputs, batch))
        epoch = self.hparams.epoch_counter.current
        ramp = min(1.0, epoch / self.hparams.penalty_epochs)
        if "penalty" in losses:  # not where its weight is 0
            losses["penalty"] = ramp * losses["penalty"]
        return losses
