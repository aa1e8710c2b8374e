"""Waveforms to normalised log-mel features with exact lengths.

Authors
 * The speechbrain-ee contributors 2026
"""

from torch import Tensor, nn

from speechbrain_ee.models.masking import padding_mask


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

    def frames(self, samples: int | Tensor) -> int | Tensor:
        """Frames of so many samples: one per hop, and one at the start."""
        return samples // self.hop_samples + 1

    def forward(self, wavs: Tensor, wav_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, shape (B, samples).
        wav_lens : torch.Tensor
            Lengths relative to the longest, shape (B,).

        Returns
        -------
        features_BTF : torch.Tensor
            Features, shape (B, T, F); padded frames are unspecified.
        lengths_B : torch.Tensor
            Valid frames, shape (B,): one per hop, and one for the centred
            window at the start.
        """
        samples = wavs.shape[1]
        samples_B = (wav_lens * samples).round().long()
        wavs = wavs.masked_fill(padding_mask(samples_B, samples), 0.0)
        features_BTF = self.compute_features(wavs)
        lengths_B = self.frames(samples_B)
        if self.normalize is not None:
            # Half a frame less: SpeechBrain rounds up after multiplying with
            # T again, and would count a padded frame in 4 % of the cases.
            relative_B = (lengths_B - 0.5) / features_BTF.shape[1]
            features_BTF = self.normalize(features_BTF, relative_B)
        return features_BTF, lengths_B
