"""Log-mel features are normalised over the frames of the utterance alone.

Protects: exact frame counts, and statistics that hold not one padded frame
(SpeechBrain's normalisation gets relative lengths and rounds them back up).

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import InputNormalization

from speechbrain_ee.models.features import LogMel
from tests.helpers import N_MELS, noise, padded

HOP = 160


def make_features(norm_type: str = "sentence") -> LogMel:
    """Sixteen mels."""
    return LogMel(
        Fbank(n_mels=N_MELS, n_fft=400),
        InputNormalization(norm_type=norm_type, epsilon=0.001),
    )


@pytest.mark.parametrize("frames", [64, 75, 119, 125])
def test_statistics_hold_no_padded_frame(frames: int) -> None:
    """Every length from 1 to T in one batch: mean 0 and variance 1 each."""
    wavs = [noise(HOP * t, seed=t) for t in range(10, frames)]
    features, lengths = make_features()(*padded(wavs))
    assert features.shape[1] == frames
    assert lengths.tolist() == list(range(11, frames + 1))
    for row, length in zip(features, lengths):
        part = row[:length]
        assert part.mean(dim=0).abs().max() < 1e-4
        assert (part.var(dim=0, correction=0) - 1).abs().max() < 1e-3


def test_global_statistics_hold_no_padded_frame() -> None:
    """The running statistics of a padded batch are those of its frames."""
    wavs = [noise(HOP * t, seed=t) for t in (62, 118)]
    features = make_features("global").train()
    features(*padded(wavs))
    raw = torch.cat([features.compute_features(wav[None])[0] for wav in wavs])
    mean = features.normalize.glob_mean.flatten()
    torch.testing.assert_close(mean, raw.mean(dim=0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples", [1, 159, 160, 161, 400, 8000])
def test_one_frame_per_hop(samples: int) -> None:
    """The count is what the filterbank gives for the utterance alone."""
    features, lengths = make_features()(*padded([noise(samples)]))
    assert lengths.tolist() == [features.shape[1]] == [samples // HOP + 1]
    assert torch.isfinite(features).all()
