"""Optimisers of a Brain: one, or one for the backbone and one for the rest.

As in SpeechBrain's wav2vec2 recipes, a pre-trained backbone may have an
optimiser with a learning rate and a warm-up of its own. Where SpeechBrain
clips the first group of parameters of an optimiser, all groups are clipped
here, by their common norm.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.exchange import share_gradients
from speechbrain_ee.training.parameter_groups import (
    backbone_groups,
    without_vector_decay,
)
from speechbrain_ee.training.regimes import Regime, encoder_parts

MAIN = "opt_class"  # SpeechBrain's name for a single optimiser
BACKBONE = "backbone_opt_class"
# What training without `regime` does: everything learns.
EVERYTHING = Regime(freeze_convolutions=False)


class FineTuning:
    """What a Brain needs for regimes and for two optimisers.

    A mixin in front of :class:`speechbrain.core.Brain`. It reads the
    hyper-parameters ``regime`` (a :class:`~.regimes.Regime`, or null),
    ``backbone_opt_class`` (a constructor as ``opt_class``, or null: one
    optimiser for everything), ``lr_annealing`` and, beside a
    ``backbone_opt_class``, ``lr_annealing_backbone``. The schedule of the
    backbone stands still while the backbone does, and its run is shorter by
    that: it warms up when the backbone joins in.
    """

    def check_optimisers(self) -> None:
        """Read the hyper-parameters, and open what is going to be trained.

        Call it from ``__init__``: before DDP wraps the model.

        Raises
        ------
        InputError
            If the regime does not fit the model, or a key lacks another.
        """
        self.regime = getattr(self.hparams, "regime", None)
        self.backbone_opt_class = getattr(self.hparams, BACKBONE, None)
        self.schedules = {MAIN: self.hparams.lr_annealing}
        schedule = getattr(self.hparams, "lr_annealing_backbone", None)
        if (schedule is None) != (self.backbone_opt_class is None):
            raise InputError(
                "backbone_opt_class, lr_annealing_backbone: the optimiser of "
                "the backbone and its learning rate go together; give both, "
                "or leave out both (one optimiser for all)."
            )
        if schedule is self.hparams.lr_annealing:
            raise InputError(
                "lr_annealing_backbone: it is the object `lr_annealing`, "
                "which would count every step twice; build a second one."
            )
        if schedule is not None:
            self.schedules[BACKBONE] = schedule
            self._keep("lr_annealing_backbone", schedule)
        if self.regime is None:
            return
        if not isinstance(self.regime, Regime):
            raise InputError(
                f"regime: {self.regime!r} must be built in the YAML, with "
                "!new:speechbrain_ee.training.regimes.Regime, or null."
            )
        self.regime.check(self._unwrapped_model())
        self.regime.prepare(self._unwrapped_model())
        if self.regime.changes:
            self.find_unused_parameters = True

    @property
    def active_exits(self) -> int:
        """How many exits are trained, from the first."""
        exits = len(self.exit_layers)
        return exits if self.regime is None else self.regime.exits(exits)

    @property
    def active_layers(self) -> list[int]:
        """Layers of the exits that are trained."""
        return list(self.exit_layers[: self.active_exits])

    def of_active_exits(
        self, weights: Mapping[str, Sequence[float]]
    ) -> dict[str, list[float]]:
        """Weights of the losses of the exits that are trained.

        Arguments
        ---------
        weights : mapping of str to sequence of float
            One weight per exit of the model, for each kind of head.

        Returns
        -------
        dict of str to list of float
            One weight per active exit; without losses that have none.

        Raises
        ------
        InputError
            If nothing is left to be learned.
        """
        active = self.active_exits
        kept = {head: list(each)[:active] for head, each in weights.items()}
        kept = {head: each for head, each in kept.items() if any(each)}
        if not kept:
            raise InputError(
                "exit_weights: nothing among the losses has a weight at an "
                f"exit that is trained (active_exits: {active}); give one of "
                "them a weight, or train more exits."
            )
        return kept

    def set_total_steps(self, steps: int, epochs: int) -> None:
        """Tell the schedules how long they run.

        Arguments
        ---------
        steps : int
            Optimiser steps of an epoch.
        epochs : int
            Epochs of the run.
        """
        regime = self.regime or EVERYTHING
        waits = {BACKBONE: regime.heads_first_epochs}
        for name, schedule in self.schedules.items():
            if hasattr(schedule, "set_total_steps"):
                left = epochs - waits.get(name, 0)
                schedule.set_total_steps(max(1, steps * left))

    def init_optimizers(self) -> None:
        """Make the optimisers, and have them in the checkpoints.

        Without ``regime`` and ``backbone_opt_class`` it is SpeechBrain's one
        optimiser. Otherwise what never learns is in none of them, and a
        backbone that never learns has none.
        """
        split = self.backbone_opt_class is not None
        if self.opt_class is None or (self.regime is None and not split):
            super().init_optimizers()
            return
        regime = EVERYTHING if self.regime is None else self.regime
        model = self._unwrapped_model()
        backbone = backbone_groups(model, regime)
        # What is new in an encoder, a down-sampler, learns with the heads.
        taken = {
            id(parameter)
            for _, _, module in encoder_parts(model.encoder)
            for parameter in module.parameters()
        }
        rest = {
            "params": [
                p
                for p in self.modules.parameters()
                if p.requires_grad and id(p) not in taken
            ],
            "lr_scale": 1.0,
        }
        groups = {MAIN: [rest] if split else [rest, *backbone]}
        if split and backbone:
            groups[BACKBONE] = backbone
        makers = {MAIN: self.opt_class, BACKBONE: self.backbone_opt_class}
        self.optimizers_dict = {}
        for name, each in groups.items():
            if self.remove_vector_weight_decay:
                each = without_vector_decay(each)
            self.optimizers_dict[name] = makers[name](each)
        self.optimizer = self.optimizers_dict[MAIN]
        for name, optimizer in self.optimizers_dict.items():
            self._keep(_RECOVERABLES[name], optimizer)

    def start_step(self, should_step: bool) -> None:
        """Freeze what is frozen in this epoch, and set learning rates.

        Call it from ``on_fit_batch_start``: SpeechBrain puts the whole model
        into training mode behind ``on_stage_start``.

        Arguments
        ---------
        should_step : bool
            Whether the optimisers step behind this batch.
        """
        if self.regime is not None:
            epoch = self.hparams.epoch_counter.current
            self.regime.apply(self._unwrapped_model(), epoch)
        if should_step:
            active = self.freeze_optimizers(self.optimizers_dict)
            for name, optimizer in active.items():
                self.schedules[name](optimizer)
                scale_learning_rates(optimizer)

    def learning_rates(self) -> dict[str, float]:
        """Rates of the last step, for the log; the backbone's at its top."""
        names = {MAIN: "lr", BACKBONE: "lr_backbone"}
        return {
            names[name]: optimizer.param_groups[0]["lr"]
            for name, optimizer in self.optimizers_dict.items()
        }

    def freeze_optimizers(
        self, optimizers: Mapping[str, Optimizer]
    ) -> dict[str, Optimizer]:
        """Optimisers that have anything to train now.

        A gradient scaler refuses to step one without any gradient.

        Arguments
        ---------
        optimizers : dict of str to torch.optim.Optimizer
            All of them.

        Returns
        -------
        dict of str to torch.optim.Optimizer
            Some of them.
        """
        return {
            name: optimizer
            for name, optimizer in optimizers.items()
            if any(p.requires_grad for p in _parameters(optimizer))
        }

    def optimizers_step(self) -> None:
        """SpeechBrain's step, with all groups of an optimiser clipped.

        Each optimiser's gradients are clipped to ``max_grad_norm`` by
        themselves, so that those of new heads do not hold a backbone back.
        """
        if self.optimizers_dict is None:
            return
        active = self.freeze_optimizers(self.optimizers_dict).values()
        for optimizer in active:
            self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(
                _parameters(optimizer), self.max_grad_norm
            )
        # In fp16 the scaler leaves out steps that are not finite.
        if not self.scaler.is_enabled() and self.skip_nonfinite_grads:
            self.check_gradients()
        for optimizer in active:
            self.scaler.step(optimizer)
        self.scaler.update()
        for optimizer in active:
            optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Forget gradients; behind an epoch's last batch, step with them.

        SpeechBrain calls it at both ends of an epoch, and would leave out
        the batches behind the last whole ``grad_accumulation_factor``: all of
        them where an epoch has fewer.

        Arguments
        ---------
        set_to_none : bool
            As SpeechBrain's.
        """
        factor = self.grad_accumulation_factor
        left = self.step % factor
        if left and any(p.grad is not None for p in self.modules.parameters()):
            self.start_step(True)
            share_gradients(self.modules.parameters(), factor / left)
            self.optimizers_step()
        super().zero_grad(set_to_none)

    def _keep(self, name: str, thing: Any) -> None:
        """Have something in the checkpoints, unless the YAML has it there."""
        if self.checkpointer is None:
            return
        kept = self.checkpointer.recoverables.values()
        if not any(each is thing for each in kept):
            self.checkpointer.add_recoverable(name, thing)


def scale_learning_rates(optimizer: Optimizer) -> None:
    """Spread the rate of the first group by every group's ``lr_scale``.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        Its first group has the scale 1; groups without one are left alone.

    Example
    -------
    >>> groups = [{"params": [torch.zeros(1)], "lr_scale": s} for s in (1, 0.5)]
    >>> optimizer = torch.optim.SGD(groups, lr=0.1)
    >>> scale_learning_rates(optimizer)
    >>> [group["lr"] for group in optimizer.param_groups]
    [0.1, 0.05]
    """
    lr = optimizer.param_groups[0]["lr"]
    for group in optimizer.param_groups:
        if "lr_scale" in group:
            group["lr"] = lr * group["lr_scale"]


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


# SpeechBrain's name for a single optimiser, so that its runs can go on.
_RECOVERABLES = {MAIN: "optimizer", BACKBONE: "optimizer_backbone"}
