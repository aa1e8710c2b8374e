"""Fewer samples in front of a pre-trained encoder.

Its convolutions are a third of the multiplications and half of the CPU time,
which every exit pays. Half the samples make half the frames: convolutions,
layers and heads cost half as much, attention scores a quarter. The methods are
those that Zaiem et al. (arXiv 2303.06740) compare, by SpeechBrain's own
modules; lengths are exact here, and padding has no effect.

Axes: B utterances.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from speechbrain.lobes.downsampling import (
    Conv1DDownsampler,
    PoolingDownsampler,
    SignalDownsampler,
)
from torch import Tensor, nn

from speechbrain_ee.models.padding import padding_mask
from speechbrain_ee.schema import Positive, Record, convert

# Kernels in samples, by method: of `convolution` that of SpeechBrain's recipe;
# of `signal` it follows from the factor.
KERNEL_SIZES = {"signal": None, "convolution": 81, "pooling": 21}
_ADVICE = (
    "for example {method: signal, factor: 2}; factors from 3 cost accuracy; "
    "with the method null no sample is left out"
)


class Downsampling(Record):
    """The options of a YAML."""

    method: Literal["signal", "convolution", "pooling"] | None
    factor: Annotated[int, Meta(ge=2)]
    kernel_size: Positive | None = None

    def __post_init__(self) -> None:
        if self.kernel_size is None or self.method is None:
            return
        if self.method == "signal":
            raise ValueError(
                "kernel_size is of convolution and pooling; the filter of "
                "signal follows from the factor, so leave it out"
            )
        if self.kernel_size < self.factor:
            raise ValueError(
                f"kernel_size {self.kernel_size} must be at least the factor, "
                f"{self.factor}, so that every sample is heard; leave it out "
                f"for {KERNEL_SIZES[self.method]}"
            )


class WaveformDownsampler(nn.Module):
    """Every waveform at a fraction of its samples.

    A pre-trained encoder then hears audio that is faster and higher by the
    factor, and learns to in fine-tuning. Frames last longer by the factor,
    too: 40 ms at factor 2. CTC needs a frame for every token (and one between
    equal ones), so that characters may not fit any more at factor 3.

    Arguments
    ---------
    method : str
        ``signal`` (low-pass filter and decimation), ``convolution`` (learned,
        one channel) or ``pooling`` (mean).
    factor : int
        Samples that become one, at least 2.
    kernel_size : int, optional
        Samples that ``convolution`` (81) and ``pooling`` (21) look at.

    Example
    -------
    >>> downsampler = WaveformDownsampler("signal", factor=2)
    >>> wavs, samples_B = downsampler(
    ...     torch.rand(2, 101), torch.tensor([101, 50])
    ... )
    >>> wavs.shape, samples_B.tolist()
    (torch.Size([2, 51]), [51, 25])
    """

    def __init__(
        self, method: str, factor: int, kernel_size: int | None = None
    ):
        super().__init__()
        self.method = method
        self.factor = factor
        size = kernel_size or KERNEL_SIZES[method]
        if method == "signal":
            # The filter depends on the ratio of the rates alone, and is
            # enormous for 16000 Hz to the whole number below a third of it.
            self.downsampler = SignalDownsampler(factor, factor)
            size = self.downsampler.downsampler.kernel.shape[-1]
        elif method == "convolution":
            self.downsampler = Conv1DDownsampler(factor, size)
        else:
            self.downsampler = PoolingDownsampler(factor, size)
        self.kernel_size = size

    def samples(self, samples: int | Tensor) -> int | Tensor:
        """What becomes of so many samples; at least 1, as audio shorter than
        the kernel is padded.
        """
        if self.method == "signal":
            samples = -(-samples // self.factor)
        else:
            samples = (samples - self.kernel_size) // self.factor + 1
        return at_least_one(samples)

    def forward(self, wavs: Tensor, samples_B: Tensor) -> tuple[Tensor, Tensor]:
        """Shorter waveforms, in fp32, and their true lengths; padding may
        hold anything, before and after.
        """
        short = self.kernel_size - wavs.shape[1]
        if short > 0 and self.method != "signal":
            wavs = nn.functional.pad(wavs, (0, short))
        # The filter of `signal` reaches beyond the end.
        mask_BS = padding_mask(samples_B, wavs.shape[1])
        # Half precision would be coarser than 16-bit audio.
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = self.downsampler(wavs.float().masked_fill(mask_BS, 0.0))
        samples_B = self.samples(samples_B)
        return wavs[:, : int(samples_B.max())], samples_B


def at_least_one(number: int | Tensor) -> int | Tensor:
    """A number, or numbers, none below 1."""
    if isinstance(number, Tensor):
        return number.clamp(min=1)
    return max(number, 1)


def waveform_downsampler(
    options: Mapping[str, Any] | None,
) -> WaveformDownsampler | None:
    """The down-sampler that a YAML asks for; None where all samples are kept.

    Example
    -------
    >>> waveform_downsampler({"method": "pooling", "factor": 3}).kernel_size
    21
    >>> waveform_downsampler({"method": None, "factor": 3})
    """
    if options is None:
        return None
    given = convert(options, Downsampling, "downsampling", _ADVICE)
    if given.method is None:
        return None
    return WaveformDownsampler(given.method, given.factor, given.kernel_size)
