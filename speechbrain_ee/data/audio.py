"""Reading audio: whole files, parts of recordings, members of shards.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
from typing import Any, Protocol

import numpy as np
import soundfile
import torch
import torchaudio
from torch import Tensor

from speechbrain_ee.data.clips import SAMPLES, Clip
from speechbrain_ee.errors import InputError

ADVICE = "repair or remove it and run the data preparation again."


class ReadsBytes(Protocol):
    """What fetches the bytes of a clip out of a shard."""

    def __call__(self, clip: Clip) -> bytes:
        """The bytes, or an InputError that names the shard."""


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
        shards: ReadsBytes | None = None,
    ):
        self.sample_rate = sample_rate
        self.cache: dict[str, Tensor] | None = {} if cache else None
        self.shards = shards

    def __call__(self, path: str) -> Tensor:
        """Read an utterance.

        Arguments
        ---------
        path : str
            Any format that soundfile reads, or a part of such a file in the
            notation of :mod:`speechbrain_ee.data.clips`.

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
        source: Any = path
        if clip is not None:
            source = clip.path if clip.unit == SAMPLES else self._member(clip)
        try:
            samples, rate = _decode(source, clip)
        except (soundfile.LibsndfileError, OSError) as error:
            raise InputError(
                f"{path}: cannot be read as audio ({error}); {ADVICE}"
            ) from error
        wav = torch.from_numpy(samples).mean(dim=1)
        if not len(wav):
            raise InputError(f"{path}: holds no audio; {ADVICE}")
        if clip is not None and clip.unit == SAMPLES:
            if len(wav) != clip.length:
                raise InputError(
                    f"{path}: the recording ends {clip.length - len(wav)} "
                    f"samples too early; {ADVICE}"
                )
        if not torch.isfinite(wav).all():
            raise InputError(
                f"{path}: holds samples that are not finite; {ADVICE}"
            )
        if rate != self.sample_rate:
            wav = torchaudio.functional.resample(wav, rate, self.sample_rate)
        return wav

    def _member(self, clip: Clip) -> io.BytesIO:
        if self.shards is None:
            raise InputError(
                f"{clip}: is a part of a shard, which only training reads "
                "(train_shards); give a manifest of whole files."
            )
        return io.BytesIO(self.shards(clip))


def _decode(source: Any, clip: Clip | None) -> tuple[np.ndarray, int]:
    """Samples, shape (samples, channels), and their rate in Hz."""
    with soundfile.SoundFile(source) as audio:
        length = -1
        if clip is not None and clip.unit == SAMPLES:
            # soundfile raises for what is behind the end
            audio.seek(min(clip.start, audio.frames))
            length = clip.length
        samples = audio.read(length, dtype="float32", always_2d=True)
        return samples, audio.samplerate
