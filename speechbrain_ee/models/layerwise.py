"""What every encoder that can be left early shares: the walk up its layers.

``start`` makes the state below the first layer, a segment runs the layers up
to the next exit, ``EncoderState.select`` lets utterances leave in between.
``forward`` is the loop over all exits, and nothing else in the project runs an
encoder layer.

Authors
 * The speechbrain-ee contributors 2026
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.state import EncoderState

ModuleT = TypeVar("ModuleT", bound=nn.Module)
# From the state at one exit to that at the next: any frame rate and width.
Segment = Callable[[EncoderState], EncoderState]


def check_exit_layers(
    exit_layers: Sequence[int], num_layers: int
) -> tuple[int, ...]:
    """The positions of the exits; refuses any but increasing layers."""
    layers = tuple(exit_layers) if isinstance(exit_layers, Sequence) else ()
    valid = all(isinstance(layer, int) for layer in layers) and (
        list(layers) == sorted({*layers} & {*range(1, num_layers + 1)})
    )
    if not layers or not valid:
        raise InputError(
            f"exit_layers: {exit_layers!r} must be strictly increasing layer "
            f"numbers between 1 and {num_layers} of this encoder, for "
            "example [2, 4, 6]; a single-exit model is [12]."
        )
    return layers


def shared_copy(module: ModuleT, **kept: int) -> ModuleT:
    """A copy of the same class that shares its parts and parameters.

    Of the lists of parts named in ``kept``, so many of the first ones stay.
    """
    copied = copy.copy(module)
    # A copied module shares its table of children: give it its own.
    copied._modules = dict(module._modules)
    for name, count in kept.items():
        every = getattr(module, name)
        setattr(copied, name, every[:count])
        getattr(copied, name).training = every.training
    return copied


class LayerwiseEncoder(nn.Module):
    """An encoder with exits; subclasses say how it starts and what a layer is.

    A subclass defines :meth:`start`, :meth:`frames` and :meth:`layer_runner`;
    one whose segments are more than a stack of layers defines
    :attr:`segments` instead of the last.

    Arguments
    ---------
    layers : sequence of torch.nn.Module
        All its layers; those above the last exit are dropped.
    exit_layers : list of int
        Layers that an exit follows, counted from 1.
    layerdrop_prob : float
        Probability to skip a layer that is in training mode; a frozen one is
        not. A skipped layer keeps its place, so that exit k always reads the
        same depth.
    """

    # Modules that make frames of the audio, which `freeze_convolutions` means.
    frame_makers: tuple[str, ...] = ()
    # Modules that are not run, or that are new beside pre-trained ones.
    without_depth: tuple[str, ...] = ("feature_augment",)

    def __init__(
        self,
        layers: Sequence[nn.Module],
        exit_layers: Sequence[int],
        layerdrop_prob: float = 0.0,
    ):
        super().__init__()
        self.exit_layers = check_exit_layers(exit_layers, len(layers))
        self.layers = nn.ModuleList(layers[: self.exit_layers[-1]])
        self.layerdrop_prob = layerdrop_prob

    @property
    def num_exits(self) -> int:
        """Number of exits."""
        return len(self.exit_layers)

    def start(self, wavs: Tensor, wav_lens: Tensor) -> EncoderState:
        """The state below the first layer, of waveforms (B, samples) and
        their lengths relative to the longest; what subclasses define.
        """
        raise NotImplementedError

    def frames(self, samples: int) -> int:
        """Frames of an utterance of so many samples; what subclasses define."""
        raise NotImplementedError

    def layer_runner(
        self, state: EncoderState
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """How a layer is run on hidden states; what subclasses define."""
        raise NotImplementedError

    @property
    def segments(self) -> list[Segment]:
        """What runs up to each exit from the exit before it."""
        return [partial(self._run_layers, last) for last in self.exit_layers]

    def parameter_groups(self) -> Iterator[tuple[int, str, nn.Module]]:
        """Depth, name and module of what learns at that depth: 0 is all below
        the first layer.
        """
        for name, module in self.named_children():
            if name == "layers":
                for depth, layer in enumerate(module, start=1):
                    yield depth, name, layer
            elif name not in self.without_depth:
                yield 0, name, module

    def advance(self, state: EncoderState) -> EncoderState:
        """Run one segment: from a state to that at the next exit."""
        passed = sum(layer <= state.depth for layer in self.exit_layers)
        return self.segments[passed](state)

    def forward(
        self, wavs: Tensor, wav_lens: Tensor, exits: int | None = None
    ) -> list[EncoderState]:
        """The states at all exits, or at the first ones; no layer above them
        is run.
        """
        states = [self.start(wavs, wav_lens)]
        for _ in self.exit_layers[:exits]:
            states.append(self.advance(states[-1]))
        return states[1:]

    def truncated(self, exits: int) -> "LayerwiseEncoder":
        """The encoder that ends at an exit, sharing its parameters."""
        encoder = shared_copy(self, layers=self.exit_layers[exits - 1])
        encoder.exit_layers = self.exit_layers[:exits]
        return encoder

    def _run_layers(self, last: int, state: EncoderState) -> EncoderState:
        run = self.layer_runner(state)
        hidden_BTD = state.hidden_BTD
        for layer in self.layers[state.depth : last]:
            if not self._skips(layer):
                hidden_BTD = run(layer, hidden_BTD)
        return replace(state, hidden_BTD=hidden_BTD, depth=last)

    def _skips(self, layer: nn.Module) -> bool:
        # The layer's own mode: what is frozen stays in evaluation.
        if not layer.training or self.layerdrop_prob == 0.0:
            return False
        return bool(torch.rand(()) < self.layerdrop_prob)
