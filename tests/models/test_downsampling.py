"""Down-sampled waveforms: exact lengths, no effect of padding.

Protects: the content of what is kept against another resampler; lengths; an
utterance alone and in a batch; the learned filter's gradient, past frozen
convolutions too; the audio's precision under autocast; options refused.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.downsampling import (
    WaveformDownsampler,
    waveform_downsampler,
)
from tests.helpers import noise, padded, valid
from tests.models.ssl_models import HOP, close, ssl_model, write_ssl_model

METHODS = ("signal", "convolution", "pooling")
RATIOS = [(method, factor) for method in METHODS for factor in (2, 3)]


@pytest.fixture(scope="module", params=["base", "large"])
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    target = tmp_path_factory.mktemp(request.param)
    return write_ssl_model(target, style=request.param)


def alone(downsampler: WaveformDownsampler, wav: torch.Tensor) -> torch.Tensor:
    wavs, samples_B = downsampler(wav[None], torch.tensor([len(wav)]))
    assert wavs.shape == (1, int(samples_B))
    return wavs[0]


@pytest.mark.parametrize("method, factor", RATIOS)
@torch.no_grad()
def test_lengths(method: str, factor: int) -> None:
    """Every length, as number and as tensor; never less than one sample."""
    downsampler = WaveformDownsampler(method, factor)
    for samples in [*range(1, 60), *range(78, 100), 16000]:
        if method == "signal":
            expected = math.ceil(samples / factor)
        else:
            kernel = {"convolution": 81, "pooling": 21}[method]
            starts = range(0, max(samples - kernel, 0) + 1, factor)
            expected = len(starts)
        assert downsampler.samples(samples) == expected
        assert int(downsampler.samples(torch.tensor(samples))) == expected
        assert len(alone(downsampler, noise(samples))) == expected


@pytest.mark.parametrize("factor", [2, 3])
def test_signal_is_low_passed_and_decimated(factor: int) -> None:
    """As another resampler does it; above half the new rate nothing is left."""
    time = torch.arange(4000) / 16000
    low = torch.sin(2 * torch.pi * 300 * time)
    high = torch.sin(2 * torch.pi * 7300 * time)
    downsampler = WaveformDownsampler("signal", factor)
    expected = torch.from_numpy(resample_poly(low.double().numpy(), 1, factor))
    inner = slice(50, -50)
    got = alone(downsampler, low + high)
    assert close(got[inner], expected.float()[inner], 0.01)


@pytest.mark.parametrize("factor", [2, 3])
def test_pooling_is_a_mean(factor: int) -> None:
    """Of as many samples as the kernel has."""
    wav = noise(200)
    expected = [
        float(np.mean(wav[start : start + 5].numpy()))
        for start in range(0, 196, factor)
    ]
    downsampler = WaveformDownsampler("pooling", factor, kernel_size=5)
    assert close(alone(downsampler, wav), torch.tensor(expected), 1e-6)


@pytest.mark.parametrize("method, factor", RATIOS)
@torch.no_grad()
def test_an_utterance_alone_and_in_a_batch(
    folder: Path, method: str, factor: int
) -> None:
    """All exits of a whole model, and the frames that were announced."""
    options = {"method": method, "factor": factor}
    model = ssl_model(folder, downsampling=options)
    wavs = [noise(count, count) for count in (9001, 300, 16000)]
    together = model(*padded(wavs, extra=99, fill=0.7))
    for row, wav in enumerate(wavs):
        single = model(*padded([wav]))
        frames = model.encoder.frames(len(wav))
        assert len(valid(single[0])) == frames
        for one, other in zip(single, together):
            assert close(valid(one), valid(other, row))
    # A frame lasts longer by the factor.
    hop = HOP * factor
    more = model.encoder.frames(16000 + 10 * hop)
    assert more == model.encoder.frames(16000) + 10


@pytest.mark.parametrize("frozen", [True, False])
def test_convolution_learns_below_the_convolutions(
    folder: Path, frozen: bool
) -> None:
    """Its gradient passes what is frozen; these get none."""
    options = {"method": "convolution", "factor": 2}
    model = ssl_model(folder, downsampling=options)
    model.encoder.convolutions.requires_grad_(not frozen)
    outputs = model.train()(*padded([noise(9000)]))
    outputs[-1].log_probs_BTV.square().sum().backward()
    for weight in model.encoder.downsampler.parameters():
        assert weight.grad is not None
    for weight in model.encoder.convolutions.parameters():
        assert (weight.grad is None) == frozen


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_audio_stays_in_fp32(method: str) -> None:
    """Half precision has fewer bits than the audio."""
    downsampler = WaveformDownsampler(method, 2)
    wav = noise(500)
    expected = alone(downsampler, wav)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(alone(downsampler, wav), expected)


@pytest.mark.parametrize(
    "options, words",
    [
        ("signal", "'signal' does not fit"),
        ({"method": "signal"}, "key factor: missing"),
        ({"method": "signal", "factor": 2, "rate": 1}, "key rate: not known"),
        ({"method": "drop", "factor": 2}, "valid: signal, convolution, pooli"),
        ({"method": "signal", "factor": 1}, "key factor: 1 does not fit"),
        ({"method": "signal", "factor": 2.0}, "key factor: 2.0 does not fit"),
        ({"method": "signal", "factor": 2, "kernel_size": 9}, "leave it out"),
        ({"method": "pooling", "factor": 3, "kernel_size": 2}, "for 21"),
    ],
)
def test_wrong_options(options: Any, words: str) -> None:
    """Each is named, with the way out."""
    with pytest.raises(InputError, match="^downsampling, ") as caught:
        waveform_downsampler(options)
    assert words in str(caught.value)
