"""Waveforms to normalised log-mel features with exact lengths.

Authors
 * The speechbrain-ee contributors 2026
"""

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.utils.autocast import fwd_default_precision
from torch import Tensor, nn

from speechbrain_ee.models.padding import padding_in, without_padding


class LogMel(nn.Module):
    """Log-mel filterbanks, normalised over the valid frames.

    Arguments
    ---------
    compute_features : speechbrain.lobes.features.Fbank
        The filterbank.
    normalize : speechbrain.processing.features.InputNormalization, optional
        Normalisation of mean and variance. ``norm_type: sentence`` needs no
        statistics of the corpus; ``global`` learns them in the first epochs.

    Example
    -------
    >>> import torch
    >>> from speechbrain.lobes.features import Fbank
    >>> features = LogMel(Fbank(n_mels=80, n_fft=400))
    >>> out, lengths = features(torch.rand(2, 16000), torch.tensor([1.0, 0.5]))
    >>> out.shape, lengths
    (torch.Size([2, 101, 80]), tensor([101,  51]))
    """

    def __init__(
        self, compute_features: nn.Module, normalize: nn.Module | None = None
    ):
        super().__init__()
        self.compute_features = compute_features
        self.normalize = normalize
        self.hop_samples = compute_features.compute_STFT.hop_length
        filters_FM = _filters(compute_features)
        self.register_buffer("filters_FM", filters_FM, persistent=False)

    def frames(self, samples: int | Tensor) -> int | Tensor:
        """Frames of so many samples: one per hop, and one at the start."""
        return samples // self.hop_samples + 1

    def forward(self, wavs: Tensor, wav_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, F) and valid frames; padded frames hold anything."""
        samples = wavs.shape[1]
        samples_B = (wav_lens * samples).round().long()
        wavs = without_padding(wavs, padding_in(samples_B, samples))
        features_BTF = self._log_mel(wavs)
        lengths_B = self.frames(samples_B)
        if self.normalize is not None:
            # Half a frame less: SpeechBrain rounds up after multiplying with
            # T again, and would count a padded frame in 4 % of the cases.
            relative_B = (lengths_B - 0.5) / features_BTF.shape[1]
            features_BTF = self.normalize(features_BTF, relative_B)
        return features_BTF, lengths_B

    @fwd_default_precision(cast_inputs=torch.float32)
    def _log_mel(self, wavs: Tensor) -> Tensor:
        """What ``compute_features`` gives, with filters made once."""
        compute = self.compute_features
        if self.filters_FM is None:
            return compute(wavs)
        real, imaginary = compute.compute_STFT(wavs).unbind(-1)
        power = real.square() + imaginary.square()
        return compute.compute_fbanks._amplitude_to_DB(power @ self.filters_FM)


def _filters(compute_features: nn.Module) -> Tensor | None:
    """The filters, shape (bins, F); None if they are not the same each time."""
    if not isinstance(compute_features, Fbank):
        return None
    fbanks = compute_features.compute_fbanks
    plain = not (compute_features.deltas or compute_features.context)
    if not (plain and fbanks.freeze and fbanks.param_rand_factor == 0):
        return None
    log_mel, fbanks.log_mel = fbanks.log_mel, False
    try:
        return fbanks(torch.eye(fbanks.n_stft).unsqueeze(0)).squeeze(0)
    finally:
        fbanks.log_mel = log_mel
