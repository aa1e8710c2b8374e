"""What lies below the first encoder layer costs, by kind of encoder.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from functools import cached_property
from typing import Protocol

from speechbrain.nnet.CNN import Conv2d
from torch import nn

from speechbrain_ee.evaluation.module_cost import (
    convolution_macs,
    weights,
)
from speechbrain_ee.models.encoder import MultiExitEncoder
from speechbrain_ee.models.layerwise import LayerwiseEncoder
from speechbrain_ee.models.ssl import SSLEncoder


class StartCost(Protocol):
    """What an encoder's ``start`` costs."""

    def macs(self, samples: int) -> int:
        """MACs for an utterance of so many samples."""

    def frames(self, samples: int) -> int:
        """Encoder frames that come of it."""

    def parts(self) -> list[nn.Module]:
        """The modules with parameters that are run."""


def start_cost(encoder: LayerwiseEncoder) -> StartCost:
    """The cost of an encoder's ``start``, by the encoder's kind.

    Arguments
    ---------
    encoder : LayerwiseEncoder
        An encoder trained from scratch, or a pre-trained one.

    Returns
    -------
    StartCost

    Raises
    ------
    TypeError
        If the kind is not known.
    """
    if isinstance(encoder, SSLEncoder):
        return SSLStart(encoder)
    if isinstance(encoder, MultiExitEncoder):
        return LogMelStart(encoder)
    raise TypeError(f"the cost of a {type(encoder).__name__} is not known")


class LogMelStart:
    """Log-mel features, strided convolutions and input projection.

    Arguments
    ---------
    encoder : MultiExitEncoder
        An encoder trained from scratch.
    """

    def __init__(self, encoder: MultiExitEncoder):
        self.encoder = encoder

    def macs(self, samples: int) -> int:
        """MACs for an utterance of so many samples."""
        frames = self.encoder.features.frames(samples)
        return self.features(frames) + self.front_end(frames)[0]

    def frames(self, samples: int) -> int:
        """Encoder frames that come of it."""
        return self.front_end(self.encoder.features.frames(samples))[1]

    def parts(self) -> list[nn.Module]:
        """The modules with parameters that are run."""
        return [self.encoder.input_projection, self.encoder.front_end]

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
        for stride, per_frame in self._convolutions:
            frames = -(-frames // stride)
            macs += frames * per_frame
        return macs + frames * self._projection, frames

    @cached_property
    def _convolutions(self) -> list[tuple[int, int]]:
        """Of each, its stride over time and the MACs of a frame it gives."""
        found = []
        mels = self.encoder.features.compute_features.compute_fbanks.n_mels
        for block in self.encoder.front_end.blocks.children():
            for layer in block.convs.children():
                if isinstance(layer, Conv2d):
                    mels = -(-mels // layer.stride[1])
                    macs = mels * layer.conv.weight.numel()
                    found.append((layer.stride[0], macs))
        return found

    @cached_property
    def _projection(self) -> int:
        return weights(self.encoder.input_projection)


class SSLStart:
    """Convolutions over the samples, projection, positional convolution.

    Arguments
    ---------
    encoder : SSLEncoder
        A pre-trained encoder.
    """

    def __init__(self, encoder: SSLEncoder):
        self.encoder = encoder

    def macs(self, samples: int) -> int:
        """MACs for an utterance of so many samples."""
        total, samples = self.downsampling(samples)
        frames = max(samples, self.encoder.shortest)
        for layer in _convolutions(self.encoder.convolutions):
            macs, frames = convolution_macs(layer, frames)
            total += macs
        total += frames * weights(self.encoder.projection)
        for layer in _convolutions(self.encoder.positions):
            total += convolution_macs(layer, frames)[0]
        return total

    def frames(self, samples: int) -> int:
        """Encoder frames that come of it."""
        return self.encoder.frames(samples)

    def downsampling(self, samples: int) -> tuple[int, int]:
        """MACs of the down-sampling, if there is one.

        Arguments
        ---------
        samples : int
            Samples of the audio.

        Returns
        -------
        macs : int
            Kernel times output samples; a mean multiplies nothing.
        samples : int
            Samples that are left.
        """
        part = self.encoder.downsampler
        if part is None:
            return 0, samples
        left = part.samples(samples)
        if part.method == "pooling":
            return 0, left
        computed = left
        if part.method == "signal":
            # Resampling pads by more than it needs, and cuts its output.
            computed = samples // part.factor + 1
        return computed * part.kernel_size, left

    def parts(self) -> list[nn.Module]:
        """The modules with parameters that are run."""
        downsampler = self.encoder.downsampler
        return [
            *([] if downsampler is None else [downsampler]),
            self.encoder.convolutions,
            self.encoder.projection,
            self.encoder.positions,
            self.encoder.input_norm,
        ]


def _convolutions(module: nn.Module) -> list[nn.Conv1d]:
    return [part for part in module.modules() if isinstance(part, nn.Conv1d)]
