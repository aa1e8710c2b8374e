"""Reading audio: whole files, parts of recordings, members of shards.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor

from speechbrain_ee.data.manifests import SAMPLES, Clip, file_of
from speechbrain_ee.errors import InputError

logger = logging.getLogger(__name__)

ADVICE = "repair or remove it and run the data preparation again."
# Channels cancel where their average keeps less than this share of the power
# that the average of independent channels has: a correlation below -0.75.
CANCELLED_SHARE = 0.25
AUDIBLE_POWER = 1e-7  # -70 dB; of less there is nothing to lose


def mixed_down(
    samples_SC: NDArray[np.float32],
) -> tuple[NDArray[np.float32], int | None]:
    """The average of the channels, or the loudest where they cancel.

    Two channels in antiphase (a line with crossed wires, some microphones)
    leave nothing but noise when they are averaged.
    """
    mean_S = samples_SC.mean(axis=1, dtype=np.float32)
    channels = samples_SC.shape[1]
    if channels == 1 or not len(mean_S):
        return mean_S, None
    power_C = samples_SC.var(axis=0, dtype=np.float64)
    if power_C.max() < AUDIBLE_POWER:
        return mean_S, None
    independent = power_C.sum() / channels**2
    if mean_S.var(dtype=np.float64) >= CANCELLED_SHARE * independent:
        return mean_S, None
    loudest = int(power_C.argmax())
    return np.ascontiguousarray(samples_SC[:, loudest]), loudest + 1


class AudioReader:
    """Read utterances as mono at one sample rate, optionally kept in memory.

    Arguments
    ---------
    sample_rate : int
        Sample rate that the model expects, in Hz.
    cache : bool
        Keep every decoded utterance (as 16-bit integers: 115 MB per hour at
        16 kHz). Decoding is a good part of a step of a small model.
    shards : callable, optional
        Returns the bytes of a :class:`Clip` of a shard; needed only where
        manifests name some.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        cache: bool = False,
        shards: Callable[[Clip], bytes] | None = None,
    ):
        self.sample_rate = sample_rate
        self.cache: dict[str, Tensor] | None = {} if cache else None
        self.shards = shards
        self._warned = False

    def __call__(self, path: str) -> Tensor:
        """Read an utterance.

        Arguments
        ---------
        path : str
            Any format that soundfile reads, or a part of such a file in the
            notation of :mod:`speechbrain_ee.data.manifests`.

        Returns
        -------
        torch.Tensor
            Samples between -1 and 1, shape (samples,).

        Raises
        ------
        InputError
            If the file cannot be read, is empty, ends too early, or holds
            samples that are not finite.
        """
        if self.cache is None:
            return self._read(path)
        if path not in self.cache:
            samples = self._read(path).clamp(-1, 32767 / 32768)
            self.cache[path] = (samples * 32768).round().to(torch.int16)
        return self.cache[path].float() / 32768

    def _read(self, path: str) -> Tensor:
        clip = Clip.parse(path)
        source: Any = os.fsencode(file_of(path))
        start, length = 0, -1
        if clip is not None and clip.unit == SAMPLES:
            start, length = clip.start, clip.length
        elif clip is not None:
            if self.shards is None:
                raise InputError(
                    f"{clip}: is a part of a shard, which only training reads "
                    "(train_shards); give a manifest of whole files."
                )
            source = io.BytesIO(self.shards(clip))
        try:
            with soundfile.SoundFile(source) as audio:
                # soundfile raises for what is after the end
                audio.seek(min(start, audio.frames))
                samples = audio.read(length, dtype="float32", always_2d=True)
                rate = audio.samplerate
        except (soundfile.LibsndfileError, OSError) as error:
            raise InputError(
                f"{path}: cannot be read as audio ({error}); {ADVICE}"
            ) from error
        mono, taken = mixed_down(samples)
        if taken is not None and not self._warned:
            self._warned = True  # a corpus may be full of them
            logger.warning(
                "%s: its channels cancel each other, so channel %d is taken "
                "alone; other such recordings are not named.",
                path,
                taken,
            )
        wav = torch.from_numpy(mono)
        if not len(wav):
            raise InputError(f"{path}: holds no audio; {ADVICE}")
        if length not in (-1, len(wav)):
            raise InputError(
                f"{path}: the recording ends {length - len(wav)} samples too "
                f"early; {ADVICE}"
            )
        if not torch.isfinite(wav).all():
            raise InputError(
                f"{path}: holds samples that are not finite; {ADVICE}"
            )
        if rate != self.sample_rate:
            wav = torchaudio.functional.resample(wav, rate, self.sample_rate)
        return wav
