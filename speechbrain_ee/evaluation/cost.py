"""What exits, decoding and criteria cost: parameters and multiply-accumulates.

Multiply-accumulates (MACs) are counted in closed form. A weight of a linear or
convolutional layer is used once per frame, so its cost per frame is the size of
its weights; attention adds a term that grows with the square of the frames.
Element-wise work (norms, activations, softmax) is not counted, as is usual.

The attention decoder reads a token at a time, keeps what it has read, and
projects the encoder's frames once: with T frames, K hypotheses and S steps a
layer of width D costs

    2 T D^2 + K S (6 D^2 + 2 D F + 2 T D) + K S (S + 1) D,

F the width of its feed-forward layers, and the output layer K S D V. Of CTC's
prefix scores, sums of exponentials over all frames, four operations per frame,
hypothesis and candidate are counted, of CTC's own beam search one addition per
frame and extension. Language models are not counted.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from speechbrain.nnet.attention import (
    MultiheadAttention,
    RelPosMHAXL,
    RoPEMHA,
)
from speechbrain.nnet.CNN import Conv2d
from torch import nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.registry import Criterion
from speechbrain_ee.exits.decoding import NBest, SearchOptions
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.models.encoder import MultiExitEncoder
from speechbrain_ee.models.layerwise import LayerwiseEncoder
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.pretrained import PretrainedEncoder


class CostModel:
    """Multiply-accumulates (MACs) of a model by exit.

    Arguments
    ---------
    model : EarlyExitModel
        The model; its attention must be ``regularMHA``, ``RelPosMHAXL`` or
        ``RoPEMHA``, or that of a pre-trained encoder.
    exits : sequence of int, optional
        The exits in use, counted from 1; by default all. Heads of others are
        not run.
    """

    def __init__(
        self, model: EarlyExitModel, exits: Sequence[int] | None = None
    ):
        self.model = model
        self.encoder = model.encoder
        self.start = start_cost(model.encoder)
        every = range(1, len(model.exit_layers) + 1)
        self.exits = tuple(every if exits is None else exits)
        # by frames; not lru_cache, as what holds one cannot be pickled
        self._remembered: dict[int, tuple[int, ...]] = {}

    def macs(self, samples: int) -> tuple[int, ...]:
        """MACs of one utterance up to and including every exit.

        Arguments
        ---------
        samples : int
            Length of its audio in samples.

        Returns
        -------
        tuple of int
            What lies below the layers, the layers, and the CTC heads of the
            exits passed on the way: what a live early exit pays, its
            criterion and an attention decoder aside.
        """
        below, frames = self.start.macs(samples), self.frames(samples)
        if frames not in self._remembered:
            self._remembered[frames] = self._exits(frames)
        return tuple(below + macs for macs in self._remembered[frames])

    def parameters(self) -> tuple[int, ...]:
        """Parameters of the model truncated at every exit.

        Returns
        -------
        tuple of int
            A truncated model has one head of each kind, those of its exit,
            and nothing that it does not run.
        """
        return tuple(self._parameters(exit) for exit in self.exits)

    def frames(self, samples: int) -> int:
        """Encoder frames of an utterance of so many samples."""
        return self.start.frames(samples)

    def layer(self, index: int, frames: int) -> int:
        """MACs of one encoder layer."""
        return module_macs(self.encoder.layers[index], frames)

    def head(self, exit: int, frames: int) -> int:
        """MACs of an exit's head; exits count from 1."""
        parts = self.model.heads.parts(exit)
        return sum(module_macs(part, frames) for part in parts)

    def _exits(self, frames: int) -> tuple[int, ...]:
        macs, depth, exits = 0, 0, []
        for exit in self.model.reads(self.exits):
            layer = self.model.exit_layers[exit - 1]
            macs += sum(self.layer(i, frames) for i in range(depth, layer))
            macs += self.head(exit, frames)
            if exit in self.exits:
                exits.append(macs)
            depth = layer
        return tuple(exits)

    def _parameters(self, exit: int) -> int:
        layer = self.model.exit_layers[exit - 1]
        parts = [*self.start.parts, self.encoder.layers[:layer]]
        parts += self.model.heads.parts(exit)
        attention = self.model.attention
        if attention is not None:
            parts += [attention.norms[exit - 1], attention.decoder(exit)]
            parts += [attention.places[exit - 1 : exit]]
        return sum(parameter_count(part) for part in parts)


class DecodingCost:
    """Multiply-accumulates (MACs) of decoding by exit."""

    def __init__(
        self, model: EarlyExitModel, options: SearchOptions | None = None
    ):
        self.attention = model.attention
        self.vocab = model.heads.vocab_size
        self.options = options or SearchOptions()

    def macs(self, decoding: str, exit: int, frames: int, nbest: NBest) -> int:
        """MACs of what was done for one utterance at one exit."""
        beam = self.options.beam_size
        if decoding == "ctc_greedy":
            return 0
        if decoding == "ctc_beam":
            return self._ctc_beam(frames)
        if decoding == "rescoring":
            hypotheses = len(nbest.hypotheses)
            read = self.decoder(exit, frames, nbest.steps, hypotheses, True)
            return self._ctc_beam(frames) + read
        read = self.decoder(exit, frames, nbest.steps, beam)
        if decoding == "joint":
            candidates = int(beam * self.options.scorer_beam_scale)
            candidates = min(max(candidates, 1), self.vocab)
            read += 4 * frames * beam * candidates * nbest.steps
        return read

    def decoder(
        self,
        exit: int,
        frames: int,
        steps: int,
        hypotheses: int,
        at_once: bool = False,
    ) -> int:
        """MACs of an exit's decoder."""
        decoder = self.attention.decoder(exit)
        width = decoder.output.in_features
        tokens = hypotheses * steps
        macs = tokens * decoder.output.weight.numel()
        for layer in decoder.layers:
            # queries, keys, values and output of self-attention; queries and
            # output of cross-attention
            weights = 6 * width**2
            weights += sum(
                part.weight.numel()
                for part in layer.pos_ffn.ffn
                if hasattr(part, "weight")
            )
            past = steps**2 if at_once else steps * (steps + 1) // 2
            macs += 2 * frames * width**2
            macs += tokens * (weights + 2 * frames * width)
            macs += hypotheses * 2 * past * width
        return macs

    def _ctc_beam(self, frames: int) -> int:
        beam = self.options.beam_size
        return frames * (self.vocab + beam * min(self.vocab, beam))


def criterion_macs(
    trace: Trace, criterion: Criterion
) -> NDArray[np.float64] | float:
    """What a live policy pays for its criterion.

    It is evaluated at every exit that an utterance comes to, except the last,
    where there is nothing left to decide. One that looks at what a beam
    search found pays for a search at all these exits.
    """
    searches_NE = 0.0
    if criterion.decodes and trace.decoding_macs_NE is not None:
        # at the exit taken, it is part of what that exit costs
        total_NE = trace.decoding_macs_NE.cumsum(axis=1)
        searches_NE = total_NE - trace.decoding_macs_NE
    header = trace.header
    known = header.vocab_size, header.frames_per_s
    if None in known or trace.durations_N is None:
        return searches_NE
    frames_N = np.ceil(trace.durations_N * header.frames_per_s)
    once_N = criterion.macs(
        frames_N,
        header.vocab_size,
        width=header.width,
        frames_per_s=header.frames_per_s,
    )
    exits = len(header.exit_layers)
    times_E = np.minimum(np.arange(1, exits + 1), exits - 1)
    return searches_NE + once_N[:, None] * times_E


def start_cost(encoder: LayerwiseEncoder) -> "LogMelStart | PretrainedStart":
    """The cost of an encoder's ``start``, by the encoder's kind."""
    if isinstance(encoder, PretrainedEncoder):
        return PretrainedStart(encoder)
    if isinstance(encoder, MultiExitEncoder):
        return LogMelStart(encoder)
    raise TypeError(f"the cost of a {type(encoder).__name__} is not known")


class LogMelStart:
    """Log-mel features, strided convolutions and input projection."""

    def __init__(self, encoder: MultiExitEncoder):
        self.encoder = encoder
        self.parts = [encoder.input_projection, encoder.front_end]
        self._projection = weights(encoder.input_projection)
        # of each convolution, its stride over time and the MACs of a frame
        self._convolutions: list[tuple[int, int]] = []
        mels = encoder.features.compute_features.compute_fbanks.n_mels
        for block in encoder.front_end.blocks.children():
            for layer in block.convs.children():
                if isinstance(layer, Conv2d):
                    mels = -(-mels // layer.stride[1])
                    macs = mels * layer.conv.weight.numel()
                    self._convolutions.append((layer.stride[0], macs))

    def macs(self, samples: int) -> int:
        """MACs for an utterance of so many samples."""
        frames = self.encoder.features.frames(samples)
        total = self.features(frames)
        for stride, per_frame in self._convolutions:
            frames = -(-frames // stride)
            total += frames * per_frame
        return total + frames * self._projection

    def frames(self, samples: int) -> int:
        """Encoder frames that come of it."""
        frames = self.encoder.features.frames(samples)
        for stride, _ in self._convolutions:
            frames = -(-frames // stride)
        return frames

    def features(self, frames: int) -> int:
        """MACs of the log-mel features."""
        compute = self.encoder.features.compute_features
        return mel_macs(
            frames, compute.compute_STFT.n_fft, compute.compute_fbanks.n_mels
        )


def mel_macs(frames: int, n_fft: int, bands: int) -> int:
    """MACs of log-mel features, Fourier transform and filters."""
    transform = round(2 * n_fft * math.log2(n_fft))
    return frames * (transform + (n_fft // 2 + 1) * bands)


class PretrainedStart:
    """What lies below the layers of a pre-trained encoder: mel bands or
    convolutions over the samples, projection, positions.
    """

    def __init__(self, encoder: PretrainedEncoder):
        self.encoder = encoder
        groups = encoder.parameter_groups()
        self.parts = [module for depth, _, module in groups if depth == 0]
        if encoder.downsampler is not None:
            self.parts.append(encoder.downsampler)

    def macs(self, samples: int) -> int:
        """MACs for an utterance of so many samples."""
        total, samples = self.downsampling(samples)
        parts = dict(self.encoder.named_children())
        features, bands = parts.get("features"), 1
        if features is None:
            frames = max(samples, self.encoder.shortest)
        else:
            bands = features.filters_FM.shape[1]
            total += self.features(features.bands(samples))
            frames = features.frames(samples)
        below = parts.get("convolutions", nn.Identity())
        for layer in below.modules():
            if isinstance(layer, nn.Conv2d):  # over time and bands
                frames, bands = (
                    (size + 2 * pad - kernel) // stride + 1
                    for size, pad, kernel, stride in zip(
                        (frames, bands),
                        layer.padding,
                        layer.kernel_size,
                        layer.stride,
                    )
                )
                total += frames * bands * layer.weight.numel()
            elif isinstance(layer, nn.Conv1d):
                macs, frames = convolution_macs(layer, frames)
                total += macs
            elif isinstance(layer, nn.Linear):
                total += frames * layer.weight.numel()
        if "projection" in parts:
            total += frames * weights(parts["projection"])
        for layer in parts.get("positions", nn.Identity()).modules():
            if isinstance(layer, nn.Conv1d):
                total += convolution_macs(layer, frames)[0]
        return total

    def features(self, frames: int) -> int:
        """MACs of mel bands, if the model hears them."""
        part = self.encoder.features
        return mel_macs(frames, part.n_fft, part.filters_FM.shape[1])

    def frames(self, samples: int) -> int:
        """Encoder frames that come of it."""
        return self.encoder.frames(samples)

    def downsampling(self, samples: int) -> tuple[int, int]:
        """MACs of the down-sampling, if there is one, and samples after it."""
        part = self.encoder.downsampler
        left = samples if part is None else part.samples(samples)
        if part is None or part.method == "pooling":
            return 0, left
        computed = left
        if part.method == "signal":
            # Resampling pads by more than it needs, and cuts its output.
            computed = samples // part.factor + 1
        return computed * part.kernel_size, left


def module_macs(module: nn.Module, frames: int) -> int:
    """MACs of a layer, a head or a part of them."""
    macs = frames * weights(module)
    return macs + sum(_attention(part, frames) for part in module.modules())


def weights(module: nn.Module) -> int:
    """Weights that are multiplied once per frame, biases left out."""
    total = 0
    for child in module.modules():
        if isinstance(child, nn.Linear | nn.Conv1d):
            total += child.weight.numel()
        elif getattr(child, "in_proj_weight", None) is not None:
            total += child.in_proj_weight.numel()
    return total


def convolution_macs(layer: nn.Conv1d, frames: int) -> tuple[int, int]:
    """MACs of a convolution over time."""
    kernel, padding = layer.kernel_size[0], layer.padding[0]
    frames = (frames + 2 * padding - kernel) // layer.stride[0] + 1
    # Not `weight.numel()`: where a weight is a norm times a direction, as in
    # pre-trained encoders, reading it computes it.
    pairs = layer.out_channels * layer.in_channels // layer.groups
    return frames * kernel * pairs, frames


def parameter_count(module: nn.Module) -> int:
    """Parameters of a module, weights and biases, trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())


def _attention(module: nn.Module, frames: int) -> int:
    """The part of attention that is not weights times frames."""
    if isinstance(module, RelPosMHAXL):
        # Scores, values, and the scores of 2 T - 1 relative positions, which
        # are projected once; `weights` has counted that for T of them.
        positions = 2 * frames - 1
        scores = (2 * frames + positions) * frames * module.embed_dim
        return scores + (positions - frames) * module.linear_pos.weight.numel()
    if isinstance(module, MultiheadAttention):
        module = module.att
    elif type(module).__name__ == "HyperMixing":
        raise InputError(
            "attention_type: the cost of hypermixing is not known; use "
            "regularMHA, RelPosMHAXL or RoPEMHA."
        )
    elif not isinstance(module, RoPEMHA):
        return _pretrained_attention(module, frames)
    return 2 * frames**2 * module.embed_dim


def _pretrained_attention(module: nn.Module, frames: int) -> int:
    """The same of attention in transformers, whatever its positions are."""
    if hasattr(module, "to_kv"):  # in blocks, the last one filled up
        size = module.context_size
        padded = -(-frames // size) * size
        project = module.to_q.weight.numel() + module.to_kv.weight.numel()
        scores = 3 * padded * size * module.to_q.out_features
        return scores + (padded - frames) * project
    query = getattr(module, "q_proj", getattr(module, "linear_q", None))
    if query is None:
        return 0
    width = query.out_features
    if padding := getattr(module, "head_dim_padding", 0):
        width += width // module.head_dim * padding
    macs = 2 * frames**2 * width
    if hasattr(module, "distance_embedding"):
        macs += frames**2 * width
    for name in ("linear_pos", "relative_k_proj"):
        if hasattr(module, name):
            # of 2 T - 1 relative positions; `weights` has counted T
            positions = 2 * frames - 1
            projected = getattr(module, name).weight.numel()
            macs += frames * positions * width
            macs += (positions - frames) * projected
    gate = getattr(module, "gru_rel_pos_linear", None)
    if gate is not None:
        # WavLM gates its position biases by every head: `weights` has counted
        # one of them.
        macs += frames * (module.num_heads - 1) * gate.weight.numel()
    return macs
