"""What an exit costs: multiply-accumulates and parameters in closed form.

A weight of a linear or convolutional layer is used once per frame, so a
layer's cost per frame is the size of its weights; attention adds a term that
grows with the square of the frames. Element-wise work (norms, activations,
softmax) is not counted, as is usual.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from speechbrain.nnet.attention import (
    MultiheadAttention,
    RelPosMHAXL,
    RoPEMHA,
)
from speechbrain.nnet.CNN import Conv2d
from torch import nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.model import EarlyExitModel

# Frame counts whose cost is remembered.
_REMEMBERED = 4096


class CostModel:
    """Multiply-accumulates (MACs) of a model by exit.

    Arguments
    ---------
    model : EarlyExitModel
        The model; its attention must be ``regularMHA``, ``RelPosMHAXL`` or
        ``RoPEMHA``.
    exits : sequence of int, optional
        The exits in use, counted from 1; by default all. Heads of others are
        not run.
    """

    def __init__(
        self, model: EarlyExitModel, exits: Sequence[int] | None = None
    ):
        self.model = model
        self.encoder = model.encoder
        every = range(1, len(model.exit_layers) + 1)
        self.exits = tuple(every if exits is None else exits)
        self._by_frames = lru_cache(_REMEMBERED)(self._exits)

    def macs(self, samples: int) -> tuple[int, ...]:
        """MACs of one utterance up to and including every exit.

        Arguments
        ---------
        samples : int
            Length of its audio in samples.

        Returns
        -------
        tuple of int
            Features, front-end, layers, and the CTC heads of the exits passed
            on the way: what a live early exit pays, its criterion and an
            attention decoder aside.
        """
        return self._by_frames(self.encoder.features.frames(samples))

    def parameters(self) -> tuple[int, ...]:
        """Parameters of the model truncated at every exit.

        Returns
        -------
        tuple of int
            A truncated model has one head of each kind, those of its exit.
        """
        return tuple(self._parameters(exit) for exit in self.exits)

    def frames(self, samples: int) -> int:
        """Encoder frames of an utterance of so many samples."""
        return self.front_end(self.encoder.features.frames(samples))[1]

    def features(self, frames: int) -> int:
        """MACs of the log-mel features.

        Arguments
        ---------
        frames : int
            Feature frames, one per hop.

        Returns
        -------
        int
            ``2 n log2 n`` per Fourier transform of ``n`` samples (a complex
            multiplication in every butterfly), and the filterbank.
        """
        compute = self.encoder.features.compute_features
        n_fft = compute.compute_STFT.n_fft
        transform = round(2 * n_fft * math.log2(n_fft))
        bins = n_fft // 2 + 1
        return frames * (transform + bins * compute.compute_fbanks.n_mels)

    def front_end(self, frames: int) -> tuple[int, int]:
        """MACs of the convolutions and of the input projection.

        Arguments
        ---------
        frames : int
            Feature frames.

        Returns
        -------
        macs : int
            Their MACs.
        frames : int
            Encoder frames after subsampling.
        """
        macs = 0
        mels = self.encoder.features.compute_features.compute_fbanks.n_mels
        for block in self.encoder.front_end.blocks.children():
            for layer in block.convs.children():
                if isinstance(layer, Conv2d):
                    frames = -(-frames // layer.stride[0])
                    mels = -(-mels // layer.stride[1])
                    macs += frames * mels * layer.conv.weight.numel()
        macs += frames * _weights(self.encoder.input_projection)
        return macs, frames

    def layer(self, index: int, frames: int) -> int:
        """MACs of one encoder layer.

        Arguments
        ---------
        index : int
            The layer, from 0.
        frames : int
            Encoder frames.

        Returns
        -------
        int
            Weights times frames, and the products of attention.
        """
        layer = self.encoder.layers[index]
        macs = frames * _weights(layer)
        for module in layer.modules():
            macs += _attention(module, frames)
        return macs

    def head(self, exit: int, frames: int) -> int:
        """MACs of an exit's head; exits count from 1."""
        return frames * self.model.heads.projection(exit).weight.numel()

    def _exits(self, feature_frames: int) -> tuple[int, ...]:
        macs, frames = self.front_end(feature_frames)
        macs += self.features(feature_frames)
        depth, exits = 0, []
        for exit in self.exits:
            layer = self.model.exit_layers[exit - 1]
            macs += sum(self.layer(i, frames) for i in range(depth, layer))
            macs += self.head(exit, frames)
            exits.append(macs)
            depth = layer
        return tuple(exits)

    def _parameters(self, exit: int) -> int:
        heads, attention = self.model.heads, self.model.attention
        parts = [
            self.encoder.input_projection,
            self.encoder.front_end,
            self.encoder.layers[: self.model.exit_layers[exit - 1]],
            heads.norms[exit - 1],
            heads.projection(exit),
        ]
        if attention is not None:
            parts += [attention.norms[exit - 1], attention.decoder(exit)]
            parts += [attention.places[exit - 1 : exit]]
        return sum(_count(part) for part in parts)


def _attention(module: nn.Module, frames: int) -> int:
    """The part of attention that is not weights times frames."""
    if isinstance(module, RelPosMHAXL):
        # Scores, values, and the scores of 2 T - 1 relative positions, which
        # are projected once; `_weights` has counted that for T of them.
        positions = 2 * frames - 1
        scores = (2 * frames + positions) * frames * module.embed_dim
        return scores + (positions - frames) * module.linear_pos.weight.numel()
    if isinstance(module, RoPEMHA):
        return 2 * frames**2 * module.embed_dim
    if isinstance(module, MultiheadAttention):
        return 2 * frames**2 * module.att.embed_dim
    if type(module).__name__ == "HyperMixing":
        raise InputError(
            "attention_type: the cost of hypermixing is not known; use "
            "regularMHA, RelPosMHAXL or RoPEMHA."
        )
    return 0


def _weights(module: nn.Module) -> int:
    """Weights that are multiplied once per frame."""
    total = 0
    for child in module.modules():
        if isinstance(child, nn.Linear | nn.Conv1d):
            total += child.weight.numel()
        in_projection = getattr(child, "in_proj_weight", None)
        if in_projection is not None:
            total += in_projection.numel()
    return total


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
