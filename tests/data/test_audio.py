"""Audio is read as mono at the model's rate, or the file is named.

Protects: NaN samples, empty and unreadable files, stereo, other sample rates,
and a cache that gives the same samples as the file.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from speechbrain_ee.data.audio import AudioReader
from speechbrain_ee.errors import InputError
from tests.helpers import noise


def write(
    path: Path, samples: np.ndarray, rate: int = 16000, subtype: str = "PCM_16"
) -> str:
    """A WAV file."""
    soundfile.write(path, samples, rate, subtype=subtype, format="WAV")
    return str(path)


def test_sixteen_bit_is_exact(tmp_path):
    """Integers over 32768, extremes included."""
    samples = np.array([0, 1, -1, 12345, 32767, -32768], dtype=np.int16)
    wav = AudioReader()(write(tmp_path / "a.wav", samples))
    assert wav.dtype == torch.float32
    assert (wav * 32768).tolist() == samples.tolist()


def test_cache_equals_the_file(tmp_path):
    """Cached twice or read anew: the same samples, and no second reading."""
    path = write(tmp_path / "a.wav", noise(4000).numpy())
    cached = AudioReader(cache=True)
    first = cached(path)
    assert torch.equal(first, AudioReader()(path))
    first.zero_()
    Path(path).unlink()
    again = cached(path)
    assert again.abs().max() > 0 and again.dtype == torch.float32


def test_cache_does_not_wrap_around(tmp_path):
    """A resampled or floating-point peak beyond 1 stays a peak."""
    samples = np.array([1.0, 1.5, -1.0, -1.5, 0.25], dtype=np.float32)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    wav = AudioReader(cache=True)(path)
    expected = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.25])
    torch.testing.assert_close(wav, expected, atol=2 / 32768, rtol=0)


def test_stereo_is_averaged(tmp_path):
    """Two channels become their mean."""
    left, right = noise(800, 1), noise(800, 2)
    path = write(
        tmp_path / "a.wav",
        torch.stack([left, right], 1).numpy(),
        16000,
        "FLOAT",
    )
    torch.testing.assert_close(AudioReader()(path), (left + right) / 2)


def test_other_sample_rate_is_resampled(tmp_path):
    """8 kHz comes back at 16 kHz: twice the samples, the same tone."""
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(4000) / 8000) / 2
    path = write(tmp_path / "a.wav", tone.numpy(), 8000, "FLOAT")
    wav = AudioReader(16000)(path)
    assert len(wav) == 8000
    torch.testing.assert_close(
        wav, torchaudio.functional.resample(tone, 8000, 16000)
    )
    assert wav.abs().numpy()[1000:7000].max() == pytest.approx(0.5, abs=0.01)
    peak = torch.fft.rfft(wav).abs().argmax() * 16000 / 8000
    assert float(peak) == 440.0


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite(tmp_path, value, cache):
    """One bad sample would poison the whole run."""
    samples = noise(800).numpy()
    samples[300] = value
    path = write(tmp_path / "bad.wav", samples, subtype="FLOAT")
    with pytest.raises(InputError, match="bad.wav: .*not finite"):
        AudioReader(cache=cache)(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "cannot be read"),
        (b"no audio at all", "cannot be read"),
        (np.zeros(0, dtype=np.float32), "holds no audio"),
    ],
)
def test_what_is_no_audio_is_named(tmp_path, content, message):
    path = tmp_path / "bad.flac"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write(path, content)
    with pytest.raises(InputError, match=f"bad.flac: {message}"):
        AudioReader()(str(path))
