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
from typing import Any

import torch
from speechbrain.lobes.downsampling import (
    Conv1DDownsampler,
    PoolingDownsampler,
    SignalDownsampler,
)
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.padding import padding_mask

# Kernels in samples, by method: of `convolution` that of SpeechBrain's recipe;
# of `signal` it follows from the factor.
KERNEL_SIZES = {"signal": None, "convolution": 81, "pooling": 21}
_ADVICE = "for example {method: signal, factor: 2}; method null: all samples"


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

    Raises
    ------
    InputError
        If an option cannot be used.

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
        _check(method, factor, kernel_size)
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
        """What becomes of so many samples.

        Arguments
        ---------
        samples : int or torch.Tensor
            Length of the audio.

        Returns
        -------
        int or torch.Tensor
            At least 1: audio shorter than the kernel is padded.
        """
        if self.method == "signal":
            samples = -(-samples // self.factor)
        else:
            samples = (samples - self.kernel_size) // self.factor + 1
        if isinstance(samples, Tensor):
            return samples.clamp(min=1)
        return max(samples, 1)

    def forward(self, wavs: Tensor, samples_B: Tensor) -> tuple[Tensor, Tensor]:
        """Down-sample a batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, shape (B, samples); padding may hold anything.
        samples_B : torch.Tensor
            Their true lengths, shape (B,).

        Returns
        -------
        wavs : torch.Tensor
            Shorter ones, in fp32; padding holds anything.
        samples_B : torch.Tensor
            Their true lengths.
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


def waveform_downsampler(
    options: Mapping[str, Any] | None,
) -> WaveformDownsampler | None:
    """The down-sampler that a YAML asks for.

    Arguments
    ---------
    options : mapping, optional
        ``method``, ``factor`` and, if wanted, ``kernel_size``; without
        options, or with the method null, all samples are kept.

    Returns
    -------
    WaveformDownsampler, optional

    Raises
    ------
    InputError
        If an option is unknown, missing, or cannot be used.

    Example
    -------
    >>> waveform_downsampler({"method": "pooling", "factor": 3}).kernel_size
    21
    >>> waveform_downsampler({"method": None, "factor": 3})
    """
    if options is None:
        return None
    if not isinstance(options, Mapping):
        raise InputError(
            f"downsampling: {options!r} are no options; write {_ADVICE}."
        )
    unknown = sorted(set(options) - {"method", "factor", "kernel_size"})
    missing = [key for key in ("method", "factor") if key not in options]
    if unknown or missing:
        wrong = "is unknown" if unknown else "is missing"
        raise InputError(
            f"downsampling: {(unknown or missing)[0]} {wrong}; the options "
            f"are method, factor and kernel_size, {_ADVICE}."
        )
    if options["method"] is None:
        return None
    return WaveformDownsampler(**options)


def _check(method: str, factor: int, kernel_size: int | None) -> None:
    if method not in KERNEL_SIZES:
        raise InputError(
            f"downsampling: method {method!r} is unknown; use one of "
            f"{', '.join(KERNEL_SIZES)}, {_ADVICE}."
        )
    if type(factor) is not int or factor < 2:
        raise InputError(
            f"downsampling: factor {factor!r} must be a whole number from 2 "
            "(3 and above cost accuracy); without down-sampling the method "
            "is null."
        )
    if kernel_size is None:
        return
    if method == "signal":
        raise InputError(
            "downsampling: kernel_size is of convolution and pooling; the "
            "filter of signal follows from the factor, so leave it out."
        )
    if type(kernel_size) is not int or kernel_size < factor:
        raise InputError(
            f"downsampling: kernel_size {kernel_size!r} must be a whole "
            f"number of samples from the factor, {factor}, so that every "
            f"sample is heard; leave it out for {KERNEL_SIZES[method]}."
        )
