"""Fine-tuning: which parts of a model learn, when, and by which optimiser.

A regime speaks of depths: 0 is what lies below the first layer, ``k`` is layer
``k``. What is frozen has no gradient and stays in evaluation mode: no dropout,
no augmentation of features, no moving statistics. PyTorch then records nothing
of a frozen lower part, so that it costs the memory and time of a forward pass.

As in SpeechBrain's wav2vec2 recipes, a pre-trained backbone may have an
optimiser with a learning rate and a warm-up of its own. Where SpeechBrain
clips the first group of parameters of an optimiser, all groups are clipped
here, by their common norm.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.layerwise import LayerwiseEncoder
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.distributed import share_gradients

# Modules of an encoder that make frames of audio or of features.
CONVOLUTIONS = ("convolutions", "front_end", "input_projection")
# Modules that are never run, or belong to the whole encoder, or are new.
EXEMPT = ("final_norm", "feature_augment", "downsampler")
_EXITS = "null (all) or a number of exits, from 1 to those of the model"


@dataclass(frozen=True)
class Regime:
    """What of a model learns in an epoch, and how fast by depth.

    Arguments
    ---------
    freeze_convolutions : bool
        Never train what makes the frames: the convolutions of a pre-trained
        model, or front-end and input projection of a SpeechBrain encoder
        (Wright et al., arXiv 2309.09546, fine-tune wav2vec2 like this).
    freeze_backbone : bool
        Train the heads alone, all epochs long (after Berrebbi et al., arXiv
        2211.08989). ``feature_augment`` is off then. A learned down-sampler
        in front of a pre-trained model is as new as the heads, and learns
        whenever they do.
    heads_first_epochs : int
        Epochs that train the heads alone before the encoder joins in.
    unfreeze_per_epoch : int
        Layers, from the top down, that join in each of the epochs behind
        ``heads_first_epochs``; what lies below the first layer counts as one
        more. 0: all at once. Gradual unfreezing is Howard and Ruder's (arXiv
        1801.06146), who add one per epoch.
    layer_decay : float
        Discriminative learning rates: layer ``k`` learns at ``lr *
        layer_decay ** (top - k)``, where ``top`` is the last trained layer
        and what lies below the first layer has ``k = 0``. 1.0: all at ``lr``.
    active_exits : int, optional
        Train the first exits alone: their heads, and the layers below them.
        What lies above is not run in training and validation, and not tested
        unless ``decoded_exits`` asks for it. None: all exits.

    Raises
    ------
    InputError
        If a value is out of range, or two contradict each other.

    Example
    -------
    >>> regime = Regime(heads_first_epochs=1, unfreeze_per_epoch=2)
    >>> [regime.lowest(epoch, top=4) for epoch in (1, 2, 3, 4, 5)]
    [5, 3, 1, 0, 0]
    """

    freeze_convolutions: bool = True
    freeze_backbone: bool = False
    heads_first_epochs: int = 0
    unfreeze_per_epoch: int = 0
    layer_decay: float = 1.0
    active_exits: int | None = None

    def __post_init__(self) -> None:
        for key in ("freeze_convolutions", "freeze_backbone"):
            _check(key, getattr(self, key), bool, "True or False")
        for key in ("heads_first_epochs", "unfreeze_per_epoch"):
            _check(key, getattr(self, key), int, "0 or a positive integer")
        if self.active_exits is not None:
            _check("active_exits", self.active_exits, int, _EXITS, low=1)
        share = "above 0 and at most 1, for example 0.9"
        _check("layer_decay", self.layer_decay, (int, float), share, high=1)
        if self.layer_decay == 0:
            raise InputError(f"regime: layer_decay: 0 must be {share}.")
        gradual = self.heads_first_epochs or self.unfreeze_per_epoch
        if self.freeze_backbone and (gradual or self.layer_decay != 1):
            raise InputError(
                "regime: freeze_backbone: True never trains the encoder, so "
                "heads_first_epochs and unfreeze_per_epoch must be 0 and "
                "layer_decay 1.0; or set freeze_backbone: False."
            )

    @property
    def changes(self) -> bool:
        """Whether parts join in while training runs.

        DDP then needs ``find_unused_parameters``.
        """
        return self.heads_first_epochs > 0 or self.unfreeze_per_epoch > 0

    def check(self, model: EarlyExitModel) -> None:
        """Refuse a model that the regime does not fit."""
        exits = len(model.exit_layers)
        if self.exits(exits) > exits:
            raise InputError(
                f"regime: active_exits: {self.active_exits} must be {_EXITS}; "
                f"this model has {exits}."
            )
        dropped = model.encoder.layerdrop_prob
        if self.freeze_backbone and dropped > 0:
            raise InputError(
                f"layerdrop_prob: {dropped} of a frozen backbone, which "
                "cannot learn to do without a layer; set it to 0, or "
                "freeze_backbone to False."
            )
        names = {name for name, _ in model.encoder.named_children()}
        if self.freeze_convolutions and names.isdisjoint(CONVOLUTIONS):
            raise InputError(
                "regime: freeze_convolutions: this encoder has none of the "
                f"modules {', '.join(CONVOLUTIONS)}; set it to False."
            )

    def exits(self, exits: int) -> int:
        """How many exits learn, of a model with so many."""
        return exits if self.active_exits is None else self.active_exits

    def top(self, model: EarlyExitModel) -> int:
        """The last layer that learns: the one below the last active exit."""
        return model.exit_layers[self.exits(len(model.exit_layers)) - 1]

    def lowest(self, epoch: int, top: int) -> int:
        """The lowest depth that learns in an epoch."""
        behind = epoch - self.heads_first_epochs
        if self.freeze_backbone or behind <= 0:
            return top + 1
        if self.unfreeze_per_epoch == 0:
            return 0
        return max(0, top + 1 - behind * self.unfreeze_per_epoch)

    def apply(self, model: EarlyExitModel, epoch: int) -> None:
        """Make a model ready to train in an epoch.

        Sets the mode and ``requires_grad`` of every part, whatever they were,
        and drops gradients of what is frozen. ``encoder.final_norm`` is never
        trained, ``encoder.downsampler`` always. Call it whenever ``train()``
        has been called.
        """
        frozen = list(self._frozen(model, epoch))
        held = {p for module in frozen for p in module.parameters()}
        held.update(_child(model.encoder, "final_norm").parameters())
        new = _child(model.encoder, "downsampler")
        held.difference_update(new.parameters())
        for parameter in model.parameters():
            parameter.requires_grad_(parameter not in held)
        for parameter in held:
            # An optimiser moves whatever has a gradient, zero or not.
            parameter.grad = None
        model.train()
        for module in frozen:
            module.eval()
        new.train()

    def prepare(self, model: EarlyExitModel) -> None:
        """Let everything learn that will learn in some epoch.

        Optimisers and DDP are made for the parameters that need gradients
        when training starts; DDP would leave out, without a word, those that
        join in later.
        """
        depths = self.top(model) + 1
        self.apply(model, self.heads_first_epochs + depths)

    def _frozen(self, model: EarlyExitModel, epoch: int) -> Iterator[nn.Module]:
        """Modules that do not learn in an epoch."""
        top = self.top(model)
        lowest = self.lowest(epoch, top)
        if lowest > top:
            # As a whole: its own mode turns layer-drop and augmentation off.
            yield model.encoder
        for depth, name, module in encoder_parts(model.encoder):
            convolution = self.freeze_convolutions and name in CONVOLUTIONS
            if convolution or not lowest <= depth <= top:
                yield module
        yield from _inactive_heads(model, self.exits(len(model.exit_layers)))


def encoder_parts(
    encoder: LayerwiseEncoder,
) -> Iterator[tuple[int, str, nn.Module]]:
    """An encoder's modules and their depths."""
    for name, module in encoder.named_children():
        if name == "layers":
            for depth, layer in enumerate(module, start=1):
                yield depth, name, layer
        elif name not in EXEMPT:
            yield 0, name, module


def _inactive_heads(model: EarlyExitModel, active: int) -> Iterator[nn.Module]:
    """What the exits above the active ones do not share with these."""
    heads, decoders = model.heads, model.attention
    numbers = range(1, heads.num_exits + 1)
    parts = [heads.parts(exit) for exit in numbers]
    shared = {id(module) for part in parts[:active] for module in part}
    for part in parts[active:]:
        yield from (module for module in part if id(module) not in shared)
    if decoders is not None:
        yield from decoders.norms[active:]
        if decoders.shared:
            yield decoders.places[active:]
        else:
            yield from decoders.decoders[active:]


def _child(encoder: nn.Module, name: str) -> nn.Module:
    """A module that only some encoders have, or one without parameters."""
    return getattr(encoder, name, None) or nn.Identity()


def _check(
    key: str,
    value: object,
    kind: type | tuple[type, ...],
    allowed: str,
    low: float = 0,
    high: float = float("inf"),
) -> None:
    # For Python, True is a number.
    right = isinstance(value, kind) and isinstance(value, bool) == (
        kind is bool
    )
    if not right or not low <= value <= high:
        raise InputError(f"regime: {key}: {value!r} must be {allowed}.")


def backbone_groups(
    model: EarlyExitModel, regime: Regime
) -> list[dict[str, Any]]:
    """The encoder's trainable parameters, grouped by learning rate."""
    top = regime.top(model)
    by_scale: dict[float, list[nn.Parameter]] = {}
    for depth, _, module in encoder_parts(model.encoder):
        scale = float(regime.layer_decay) ** (top - depth)
        trained = [p for p in module.parameters() if p.requires_grad]
        if trained:
            by_scale.setdefault(scale, []).extend(trained)
    # The same decay for every depth makes one group, in the modules' order.
    return [
        {"params": by_scale[scale], "lr_scale": scale}
        for scale in sorted(by_scale, reverse=True)
    ]


def without_vector_decay(
    groups: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Groups of parameters, with biases and norms apart and undecayed."""
    apart = []
    for group in groups:
        matrices = [p for p in group["params"] if p.dim() != 1]
        vectors = [p for p in group["params"] if p.dim() == 1]
        if matrices:
            apart.append({**group, "params": matrices})
        if vectors:
            apart.append({**group, "params": vectors, "weight_decay": 0.0})
    return apart


MAIN = "opt_class"  # SpeechBrain's name for a single optimiser
BACKBONE = "backbone_opt_class"
# By optimiser, its name in checkpoints (SpeechBrain's for a single one, so
# that its runs can go on) and that of its rate in the log.
RECOVERABLES = {MAIN: "optimizer", BACKBONE: "optimizer_backbone"}
RATES = {MAIN: "lr", BACKBONE: "lr_backbone"}
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
        """
        self.regime = regime = getattr(self.hparams, "regime", None)
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
        if regime is None:
            return
        if not isinstance(regime, Regime):
            raise InputError(
                f"regime: {regime!r} must be built in the YAML, with "
                "!new:speechbrain_ee.training.regimes.Regime, or null."
            )
        regime.check(self._unwrapped_model())
        regime.prepare(self._unwrapped_model())
        if regime.changes:
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
        """Weights of the losses of the exits that are trained."""
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
        """Tell the schedules how long they run."""
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
        learning = [p for p in self.modules.parameters() if p.requires_grad]
        new = [p for p in learning if id(p) not in taken]
        rest = {"params": new, "lr_scale": 1.0}
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
            self._keep(RECOVERABLES[name], optimizer)

    def start_step(self, should_step: bool) -> None:
        """Freeze what is frozen in this epoch, and set learning rates.

        Call it from ``on_fit_batch_start``: SpeechBrain puts the whole model
        into training mode behind ``on_stage_start``.
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
        return {
            RATES[name]: optimizer.param_groups[0]["lr"]
            for name, optimizer in self.optimizers_dict.items()
        }

    def freeze_optimizers(
        self, optimizers: Mapping[str, Optimizer]
    ) -> dict[str, Optimizer]:
        """Optimisers that have anything to train now.

        A gradient scaler refuses to step one without any gradient.
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
    """Spread the rate of the first group by every group's ``lr_scale``."""
    lr = optimizer.param_groups[0]["lr"]
    for group in optimizer.param_groups:
        if "lr_scale" in group:
            group["lr"] = lr * group["lr_scale"]


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
