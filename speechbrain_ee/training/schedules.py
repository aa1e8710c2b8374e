"""Learning rates for runs whose length is known in epochs, not in steps.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain.nnet.schedulers import WarmCoolDecayLRSchedule
from speechbrain.utils import checkpoints
from torch.optim import Optimizer


@checkpoints.register_checkpoint_hooks
class WarmupCooldown:
    """Linear warm-up, constant plateau, linear cool-down to zero.

    The shares refer to the whole run, whose number of steps the Brain sets
    from the data: a dynamic batch sampler knows it, a YAML does not. The
    curve itself is SpeechBrain's
    :class:`~speechbrain.nnet.schedulers.WarmCoolDecayLRSchedule`.

    Arguments
    ---------
    lr : float
        Plateau.
    warmup_share : float
        Share of the run that warms up, 0 to 1.
    cooldown_share : float
        Share of the run that cools down, 0 to 1.

    Example
    -------
    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.0)
    >>> schedule = WarmupCooldown(1.0, warmup_share=0.5, cooldown_share=0.5)
    >>> schedule.set_total_steps(4)
    >>> [schedule(optimizer)[1] for _ in range(5)]
    [0.5, 1.0, 0.5, 0.0, 0.0]
    """

    def __init__(self, lr: float, warmup_share: float, cooldown_share: float):
        self.lr = lr
        self.warmup_share = warmup_share
        self.cooldown_share = cooldown_share
        self.n_steps = 0
        self.set_total_steps(1)

    def set_total_steps(self, total_steps: int) -> None:
        """Say how many optimiser steps the whole run has."""
        self.total_steps = total_steps
        self.curve = WarmCoolDecayLRSchedule(
            self.lr,
            warmup=max(1, round(self.warmup_share * total_steps)),
            cooldown=max(1, round(self.cooldown_share * total_steps)),
            total_steps=total_steps,
            decay_factor=1.0,
        )

    def __call__(self, optimizer: Optimizer) -> tuple[float, float]:
        """Set the learning rate of the next step."""
        before = optimizer.param_groups[0]["lr"]
        self.n_steps += 1
        self.curve(optimizer, min(self.n_steps, self.total_steps))
        return before, optimizer.param_groups[0]["lr"]

    @checkpoints.mark_as_saver
    def save(self, path: str) -> None:
        """Write the number of steps."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(str(self.n_steps))

    @checkpoints.mark_as_loader
    def load(self, path: str, end_of_epoch: bool = False) -> None:
        """Read the number of steps."""
        del end_of_epoch
        with open(path, encoding="utf-8") as file:
            self.n_steps = int(file.read())
