"""Waveforms to normalised log-mel features with exact lengths.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.utils.autocast import fwd_default_precision
from torch import Tensor, nn
from torch.nn import functional as F

from speechbrain_ee.models.padding import (
    padding_in,
    padding_mask,
    without_padding,
)


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


class MelOptions(NamedTuple):
    """How a feature extractor of transformers makes log-mel frames."""

    floor: float  # energies are at least that
    log: Callable[[Tensor], Tensor] = torch.log
    normalise: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    guard: float = 0.0  # added to energies
    periodic: bool = False  # the window
    scale: float = 1.0  # of samples
    centred: bool = True  # frames around their samples, or from them on
    last: int = 0  # frames more than hops, where frames are centred
    reflected: tuple[bool, bool] = (False, False)  # not zeros, at both ends
    wave_emphasis: float = 0.0  # of the waveform
    frame_emphasis: float = 0.0  # of frames, after removing their mean
    stacked: int = 1  # frames that become one
    double: bool = False  # in double precision, until the end


def _below_peak(bands_BTF: Tensor, mask_BT: Tensor, _: Tensor) -> Tensor:
    """Eight decades below the loudest, as Whisper has it."""
    heard = bands_BTF.masked_fill(mask_BT.unsqueeze(-1), -torch.inf)
    return torch.maximum(bands_BTF, heard.amax((1, 2), True) - 8.0) / 4.0 + 1.0


def _standardised(
    bands_BTF: Tensor, mask_BT: Tensor, lengths_B: Tensor, kaldi: bool = False
) -> Tensor:
    """Zero mean and unit variance of every band."""
    frames_B11 = lengths_B[:, None, None]
    heard = without_padding(bands_BTF, mask_BT)
    centred = bands_BTF - heard.sum(1, True) / frames_B11
    squares = without_padding(centred, mask_BT).square().sum(1, True)
    variance = squares / (frames_B11 - 1).clamp(min=1)
    if kaldi:
        return centred / (variance + 1e-7).sqrt()
    return centred / (variance.sqrt() + 1e-5)


_OPTIONS = {
    "WhisperFeatureExtractor": MelOptions(
        1e-10,
        torch.log10,
        _below_peak,
        periodic=True,
        # Silence follows, as in the 30 seconds that Whisper is given.
        reflected=(True, False),
    ),
    "GraniteSpeechFeatureExtractor": MelOptions(
        1e-10,
        torch.log10,
        _below_peak,
        periodic=True,
        last=1,
        reflected=(True, True),
        stacked=2,
    ),
    "ParakeetFeatureExtractor": MelOptions(
        0.0, normalise=_standardised, guard=2**-24
    ),
    "LasrFeatureExtractor": MelOptions(1e-5, centred=False, double=True),
    "SeamlessM4TFeatureExtractor": MelOptions(
        1.192092955078125e-07,
        normalise=partial(_standardised, kaldi=True),
        scale=2.0**15,
        centred=False,
        frame_emphasis=0.97,
        stacked=2,
        # Logarithms of 16, standardised, would be rounded to 3e-6.
        double=True,
    ),
}


class ExtractorMel(nn.Module):
    """What a feature extractor of transformers makes of every utterance alone,
    by its own filters, for batches and on any device.

    Arguments
    ---------
    extractor : object
        A feature extractor of Whisper, Granite speech, Parakeet, LASR or
        SeamlessM4T (which Wav2Vec2-BERT has).
    shortest : int
        Frames that an utterance has at least; shorter ones end in silence.
    """

    def __init__(self, extractor: Any, shortest: int = 1):
        super().__init__()
        options = _OPTIONS[type(extractor).__name__]
        emphasis = getattr(extractor, "preemphasis", None) or 0.0
        self.options = options._replace(wave_emphasis=emphasis)
        self.shortest = max(shortest, options.stacked)
        given = getattr(extractor, "melspec_kwargs", None) or vars(extractor)
        self.hop_samples = given.get("hop_length", 160)
        self.n_fft = given.get("n_fft", 512)
        size = given.get("win_length")
        if size is None:
            size = 400 if "SeamlessM4T" in type(extractor).__name__ else None
        self.window_samples = size or self.n_fft
        filters = extractor.mel_filters
        if isinstance(filters, nn.Module):  # torchaudio's
            filters = filters.mel_scale.fb
        filters = torch.as_tensor(filters, dtype=torch.float32)
        if filters.shape[0] != self.n_fft // 2 + 1:
            filters = filters.T
        window = getattr(extractor, "window", None)
        if window is None:
            window = torch.hann_window(
                self.window_samples, periodic=options.periodic
            )
        window = torch.as_tensor(window, dtype=torch.float32)
        self.register_buffer("filters_FM", filters, persistent=False)
        self.register_buffer("window", window, persistent=False)

    def bands(self, samples: int | Tensor) -> int | Tensor:
        """Frames of so many samples, before stacking."""
        if self.options.centred:
            frames = samples // self.hop_samples + self.options.last
        else:
            frames = (samples - self.window_samples) // self.hop_samples + 1
        if isinstance(frames, Tensor):
            return frames.clamp(min=self.shortest)
        return max(frames, self.shortest)

    def frames(self, samples: int | Tensor) -> int | Tensor:
        """Frames of so many samples."""
        return self.bands(samples) // self.options.stacked

    @fwd_default_precision(cast_inputs=torch.float32)
    def forward(self, wavs: Tensor, samples_B: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, F) and valid frames; padded frames hold anything."""
        lengths_B = self.bands(samples_B)
        frames_BTN = self._framed(wavs, samples_B, int(lengths_B.max()))
        spectrum = torch.fft.rfft(frames_BTN * self.window, self.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()
        options = self.options
        energies_BTF = (power @ self.filters_FM.to(power)).clamp(
            min=options.floor
        )
        features_BTF = options.log(energies_BTF + options.guard)
        if options.normalise is not None:
            mask_BT = padding_mask(lengths_B, features_BTF.shape[1])
            features_BTF = options.normalise(features_BTF, mask_BT, lengths_B)
        stacked = options.stacked
        frames = features_BTF.shape[1] // stacked
        features_BTF = features_BTF[:, : frames * stacked].float()
        features_BTF = features_BTF.unflatten(1, (frames, stacked)).flatten(2)
        return features_BTF, lengths_B // stacked

    def _framed(self, wavs: Tensor, samples_B: Tensor, frames: int) -> Tensor:
        """Windows of samples, (B, T, samples of a window)."""
        options, size = self.options, self.window_samples
        if options.double:
            wavs = wavs.double()
        wavs = options.scale * wavs
        if options.wave_emphasis:
            before = F.pad(wavs[:, :-1], (1, 0))
            wavs = wavs - options.wave_emphasis * before
        first = -(size // 2) if options.centred else 0
        last = first + (frames - 1) * self.hop_samples + size
        place_1S = torch.arange(first, last, device=wavs.device).unsqueeze(0)
        count_B1 = samples_B.unsqueeze(1)
        if options.reflected[0]:
            place_1S = place_1S.abs()
        place_BS = place_1S.expand(len(wavs), -1)
        if options.reflected[1]:
            mirrored_BS = 2 * (count_B1 - 1) - place_BS
            place_BS = torch.where(place_BS < count_B1, place_BS, mirrored_BS)
        outside_BS = (place_BS < 0) | (place_BS >= count_B1)
        heard_BS = place_BS.clamp(0, wavs.shape[1] - 1)
        wavs = wavs.gather(1, heard_BS).masked_fill(outside_BS, 0.0)
        frames_BTN = wavs.unfold(1, size, self.hop_samples)
        if options.frame_emphasis:
            frames_BTN = frames_BTN - frames_BTN.mean(-1, keepdim=True)
            before = F.pad(frames_BTN[..., :-1], (1, 0), mode="replicate")
            frames_BTN = frames_BTN - options.frame_emphasis * before
        return frames_BTN
