"""Fine-tuning regimes: which parts of a pre-trained model learn, and when.

A regime speaks of depths: 0 is what lies below the first layer, ``k`` is layer
``k``. What is frozen has no gradient and stays in evaluation mode: no dropout,
no augmentation of features, no moving statistics. PyTorch then records nothing
of a frozen lower part, so that it costs the memory and time of a forward pass.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.layerwise import LayerwiseEncoder
from speechbrain_ee.models.model import EarlyExitModel

# Modules of an encoder that make frames of audio or of features.
CONVOLUTIONS = ("convolutions", "front_end", "input_projection")
# Modules that are never run, or belong to the whole encoder, or are new.
EXEMPT = ("final_norm", "feature_augment", "downsampler")


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
        """Refuse a model that the regime does not fit.

        Arguments
        ---------
        model : EarlyExitModel
            The model, not wrapped by DDP.

        Raises
        ------
        InputError
            If it has fewer exits than are to be trained, or no convolutions;
            or if layers of a frozen backbone are to be dropped.
        """
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
        """The lowest depth that learns in an epoch.

        Arguments
        ---------
        epoch : int
            Number of the epoch, from 1.
        top : int
            The last layer that learns.

        Returns
        -------
        int
            0 for everything, ``top + 1`` for nothing of the encoder.
        """
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

        Arguments
        ---------
        model : EarlyExitModel
            The model, not wrapped by DDP.
        epoch : int
            Number of the epoch, from 1.
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

        Arguments
        ---------
        model : EarlyExitModel
            The model, not wrapped by DDP.
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
    """An encoder's modules and their depths.

    Arguments
    ---------
    encoder : LayerwiseEncoder
        Pre-trained or SpeechBrain's.

    Yields
    ------
    depth : int
        Number of a layer; 0 for what lies below the first one.
    name : str
        The module's name in the encoder, ``layers`` for a layer.
    module : torch.nn.Module
        The module; neither the norm above the last layer, which is not run,
        nor the augmentation, nor a down-sampler, which is not pre-trained.
    """
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


_EXITS = "null (all) or a number of exits, from 1 to those of the model"


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
