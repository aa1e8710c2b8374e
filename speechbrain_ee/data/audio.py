"""Reading audio files.

Authors
 * The speechbrain-ee contributors 2026
"""

import soundfile
import torch
import torchaudio
from torch import Tensor

from speechbrain_ee.errors import InputError


class AudioReader:
    """Read utterances as mono at one sample rate, optionally kept in memory.

    Arguments
    ---------
    sample_rate : int
        Sample rate that the model expects, in Hz.
    cache : bool
        Keep every decoded utterance (as 16-bit integers: 115 MB per hour at
        16 kHz). Decoding is a good part of a step of a small model.
    """

    def __init__(self, sample_rate: int = 16000, cache: bool = False):
        self.sample_rate = sample_rate
        self.cache: dict[str, Tensor] | None = {} if cache else None

    def __call__(self, path: str) -> Tensor:
        """Read a file.

        Arguments
        ---------
        path : str
            Any format that soundfile reads.

        Returns
        -------
        torch.Tensor
            Samples between -1 and 1, shape (samples,).

        Raises
        ------
        InputError
            If the file cannot be read, is empty, or holds samples that are
            not finite.
        """
        if self.cache is None:
            return self._read(path)
        if path not in self.cache:
            samples = self._read(path).clamp(-1, 32767 / 32768)
            self.cache[path] = (samples * 32768).round().to(torch.int16)
        return self.cache[path].float() / 32768

    def _read(self, path: str) -> Tensor:
        advice = "repair or remove it and run the data preparation again."
        try:
            samples, rate = soundfile.read(
                path, dtype="float32", always_2d=True
            )
        except (soundfile.LibsndfileError, OSError) as error:
            raise InputError(
                f"{path}: cannot be read as audio ({error}); {advice}"
            ) from error
        wav = torch.from_numpy(samples).mean(dim=1)
        if not len(wav):
            raise InputError(f"{path}: holds no audio; {advice}")
        if not torch.isfinite(wav).all():
            raise InputError(
                f"{path}: holds samples that are not finite; {advice}"
            )
        if rate != self.sample_rate:
            wav = torchaudio.functional.resample(wav, rate, self.sample_rate)
        return wav
