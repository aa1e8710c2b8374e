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

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta
from torch import nn
from torch.optim import Optimizer

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.schema import Count, Positive
from speechbrain_ee.training.options import must_be

_Decay = Annotated[float, Meta(gt=0, le=1)]
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
        for kind, allowed, keys in (
            (bool, "True or False", ("freeze_convolutions", "freeze_backbone")),
            (
                Count,
                "0 or a positive integer",
                ("heads_first_epochs", "unfreeze_per_epoch"),
            ),
            (
                _Decay,
                "above 0 and at most 1, for example 0.9",
                ("layer_decay",),
            ),
            (Positive | None, _EXITS, ("active_exits",)),
        ):
            for key in keys:
                must_be(f"regime: {key}", getattr(self, key), kind, allowed)
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
        makers = model.encoder.frame_makers
        if self.freeze_convolutions and names.isdisjoint(makers):
            raise InputError(
                "regime: freeze_convolutions: this encoder has no module that "
                "makes frames, as its `frame_makers` say; set it to False."
            )

    def exits(self, exits: int) -> int:
        """How many exits learn, of a model with so many."""
        return exits if self.active_exits is None else self.active_exits

    def top(self, model: EarlyExitModel) -> int:
        """The last layer that learns: the one below the last active exit."""
        return model.exit_layers[self.exits(len(model.exit_layers)) - 1]

    def lowest(self, epoch: int, top: int) -> int:
        """The lowest depth that learns in an epoch."""
        joined = epoch - self.heads_first_epochs
        if self.freeze_backbone or joined <= 0:
            return top + 1
        if self.unfreeze_per_epoch == 0:
            return 0
        return max(0, top + 1 - joined * self.unfreeze_per_epoch)

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
        for depth, name, module in model.encoder.parameter_groups():
            makes_frames = name in model.encoder.frame_makers
            convolution = self.freeze_convolutions and makes_frames
            if convolution or not lowest <= depth <= top:
                yield module
        active = self.exits(len(model.exit_layers))
        for head in model.every_head.values():
            # What an active exit shares with others learns.
            parts = [head.parts(k + 1) for k in range(head.num_exits)]
            shared = {id(part) for each in parts[:active] for part in each}
            for each in parts[active:]:
                yield from (part for part in each if id(part) not in shared)


def _child(encoder: nn.Module, name: str) -> nn.Module:
    """A module that only some encoders have, or one without parameters."""
    return getattr(encoder, name, None) or nn.Identity()


def backbone_groups(
    model: EarlyExitModel, regime: Regime
) -> list[dict[str, Any]]:
    """The encoder's trainable parameters, grouped by learning rate."""
    top = regime.top(model)
    by_scale: dict[float, list[nn.Parameter]] = {}
    for depth, _, module in model.encoder.parameter_groups():
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


class FineTuner:
    """What of a Brain's model learns, by which optimiser and at which rate.

    It reads the hyper-parameters ``regime`` (a :class:`Regime`, or null),
    ``backbone_opt_class`` (a constructor as ``opt_class``, or null: one
    optimiser for everything), ``lr_annealing`` and, beside a
    ``backbone_opt_class``, ``lr_annealing_backbone``. The schedule of the
    backbone stands still while the backbone does, and its run is shorter by
    that: it warms up when the backbone joins in.
    """

    def __init__(self, hparams: Any, model: EarlyExitModel, checkpointer: Any):
        self.hparams, self.model = hparams, model
        self.checkpointer = checkpointer
        self.regime = regime = getattr(hparams, "regime", None)
        self.backbone_opt_class = getattr(hparams, BACKBONE, None)
        self.schedules = {MAIN: hparams.lr_annealing}
        schedule = getattr(hparams, "lr_annealing_backbone", None)
        if (schedule is None) != (self.backbone_opt_class is None):
            raise InputError(
                "backbone_opt_class, lr_annealing_backbone: the optimiser of "
                "the backbone and its learning rate go together; give both, "
                "or leave out both (one optimiser for all)."
            )
        if schedule is hparams.lr_annealing:
            raise InputError(
                "lr_annealing_backbone: it is the object `lr_annealing`, "
                "which would count every step twice; build a second one."
            )
        if schedule is not None:
            self.schedules[BACKBONE] = schedule
            self._keep("lr_annealing_backbone", schedule)
        if not isinstance(regime, Regime | None):
            raise InputError(
                f"regime: {regime!r} must be built in the YAML, with "
                "!new:speechbrain_ee.training.regimes.Regime, or null."
            )
        if regime is not None:
            regime.check(model)
            # Before DDP wraps the model.
            regime.prepare(model)

    @property
    def joins_later(self) -> bool:
        """Whether parts join in while training runs."""
        return self.regime is not None and self.regime.changes

    @property
    def active_exits(self) -> int:
        """How many exits are trained, from the first."""
        exits = len(self.model.exit_layers)
        return exits if self.regime is None else self.regime.exits(exits)

    def set_total_steps(self, steps: int, epochs: int) -> None:
        """Tell the schedules how long they run."""
        regime = self.regime or EVERYTHING
        waits = {BACKBONE: regime.heads_first_epochs}
        for name, schedule in self.schedules.items():
            if hasattr(schedule, "set_total_steps"):
                left = epochs - waits.get(name, 0)
                schedule.set_total_steps(max(1, steps * left))

    def optimizers(
        self, opt_class: Any, modules: nn.Module, without_decay: bool
    ) -> dict[str, Optimizer] | None:
        """The optimisers, which checkpoints then have; None for SpeechBrain's
        single one.

        What never learns is in none of them, and a backbone that never learns
        has none.
        """
        split = self.backbone_opt_class is not None
        if opt_class is None or (self.regime is None and not split):
            return None
        backbone = backbone_groups(self.model, self.regime or EVERYTHING)
        # What is new in an encoder, a down-sampler, learns with the heads.
        taken = {
            id(parameter)
            for _, _, module in self.model.encoder.parameter_groups()
            for parameter in module.parameters()
        }
        learning = [p for p in modules.parameters() if p.requires_grad]
        new = [p for p in learning if id(p) not in taken]
        rest = {"params": new, "lr_scale": 1.0}
        groups = {MAIN: [rest] if split else [rest, *backbone]}
        if split and backbone:
            groups[BACKBONE] = backbone
        makers = {MAIN: opt_class, BACKBONE: self.backbone_opt_class}
        made = {}
        for name, each in groups.items():
            if without_decay:
                each = without_vector_decay(each)
            made[name] = makers[name](each)
            self._keep(RECOVERABLES[name], made[name])
        return made

    def start_step(
        self, optimizers: Mapping[str, Optimizer], should_step: bool
    ) -> None:
        """Freeze what is frozen in this epoch, and set learning rates; before
        every batch, as SpeechBrain sets the mode of the whole model.
        """
        if self.regime is not None:
            self.regime.apply(self.model, self.hparams.epoch_counter.current)
        if not should_step:
            return
        for name, optimizer in that_learn(optimizers).items():
            self.schedules[name](optimizer)
            lr = optimizer.param_groups[0]["lr"]
            for group in optimizer.param_groups:
                if "lr_scale" in group:
                    group["lr"] = lr * group["lr_scale"]

    def _keep(self, name: str, thing: Any) -> None:
        """Have something in the checkpoints, unless the YAML has it there."""
        if self.checkpointer is None:
            return
        kept = self.checkpointer.recoverables.values()
        if not any(each is thing for each in kept):
            self.checkpointer.add_recoverable(name, thing)


def that_learn(optimizers: Mapping[str, Optimizer]) -> dict[str, Optimizer]:
    """Optimisers that have anything to train now; a gradient scaler refuses
    to step one without any gradient.
    """
    return {
        name: optimizer
        for name, optimizer in optimizers.items()
        if any(p.requires_grad for p in parameters_of(optimizer))
    }


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """Those of all its groups."""
    return [p for group in optimizer.param_groups for p in group["params"]]
