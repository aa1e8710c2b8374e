"""Audio without transcripts, in batches without padding.

Axes: B utterances, S samples.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from speechbrain_ee.data.audio import AudioReader
from speechbrain_ee.data.layout import AUDIO_SUFFIXES
from speechbrain_ee.errors import InputError

logger = logging.getLogger(__name__)


def list_audio(
    data_folder: str | os.PathLike[str], splits: Sequence[str]
) -> list[tuple[str, float]]:
    """Every audio file below some folders, with its length.

    Arguments
    ---------
    data_folder : path
        Where the splits are.
    splits : sequence of str
        Folders in it, of any depth; no transcripts are needed.

    Returns
    -------
    list of tuple
        Path and duration in seconds, sorted by path.

    Raises
    ------
    InputError
        If a folder is missing or holds no audio, or a file cannot be read.
    """
    files = []
    for split in splits:
        folder = Path(data_folder).expanduser() / split
        if not folder.is_dir():
            raise InputError(
                f"--data_folder: {folder} is no folder; give the folder that "
                "holds the splits, and the splits' names with --splits."
            )
        paths = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()
        )
        if not paths:
            raise InputError(
                f"--splits: {folder} holds no audio; its files must end in "
                f"{', '.join(AUDIO_SUFFIXES)}."
            )
        files += [(str(path), _duration_s(path)) for path in paths]
    return files


def _duration_s(path: Path) -> float:
    try:
        return soundfile.info(str(path)).duration
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as audio ({error}); repair or remove it."
        ) from error


class CroppedBatches:
    """Batches of utterances of similar length, cut to the shortest.

    Nothing is padded, so no norm sees padding.

    Arguments
    ---------
    files : sequence of tuple
        Path and duration in seconds of every utterance.
    batch_s : float
        Audio of a batch, in seconds.
    crop_s : float
        The most of one utterance, in seconds.
    shortest_s : float
        Shorter utterances are left out.
    seed : int
        Of the order and the cuts.
    sample_rate : int
        Samples per second.

    Raises
    ------
    InputError
        If no utterance is long enough to be masked.
    """

    def __init__(
        self,
        files: Sequence[tuple[str, float]],
        batch_s: float,
        crop_s: float,
        shortest_s: float,
        seed: int,
        sample_rate: int = 16000,
    ):
        self.batch_s, self.crop_s, self.seed = batch_s, crop_s, seed
        self.sample_rate = sample_rate
        self.reader = AudioReader(sample_rate, cache=True)
        long_enough = [file for file in files if file[1] >= shortest_s]
        if not long_enough:
            raise InputError(
                f"--data_folder: none of {len(files)} audio files lasts "
                f"{shortest_s:g} s, which masking takes; give longer "
                "ones, or a smaller --mask_s."
            )
        if len(long_enough) < len(files):
            logger.warning(
                "%d of %d audio files are shorter than %g s and left out",
                len(files) - len(long_enough),
                len(files),
                shortest_s,
            )
        self.paths = [path for path, _ in long_enough]
        self.durations_s = np.array([s for _, s in long_enough])
        self.per_epoch = len(self._plan(1))
        self._planned: tuple[int, list[np.ndarray]] = (0, [])

    @property
    def hours(self) -> float:
        """Length of all utterances together."""
        return float(self.durations_s.sum()) / 3600

    def place(self, step: int) -> tuple[int, int]:
        """Epoch and batch of a step, all counted from 1."""
        epoch, batch = divmod(step - 1, self.per_epoch)
        return epoch + 1, batch + 1

    def batch(self, step: int) -> Tensor:
        """The waveforms of a step.

        Arguments
        ---------
        step : int
            Counted from 1.

        Returns
        -------
        torch.Tensor
            Shape (B, S).
        """
        epoch, number = self.place(step)
        if self._planned[0] != epoch:
            self._planned = (epoch, self._plan(epoch))
        rows = self._planned[1][number - 1]
        rng = np.random.default_rng([self.seed, epoch, number])
        wavs = [self.reader(self.paths[row]) for row in rows]
        samples = min(
            int(self.crop_s * self.sample_rate), *(len(w) for w in wavs)
        )
        starts = [rng.integers(len(wav) - samples + 1) for wav in wavs]
        cut = [w[at : at + samples] for w, at in zip(wavs, starts)]
        return torch.stack(cut)

    def all(self) -> Iterator[Tensor]:
        """The batches of the first epoch, for measuring."""
        return (self.batch(step) for step in range(1, self.per_epoch + 1))

    def _plan(self, epoch: int) -> list[np.ndarray]:
        """Which utterances make which batch."""
        rng = np.random.default_rng([self.seed, epoch])
        cropped_s = np.minimum(self.durations_s, self.crop_s)
        # Other neighbours in every epoch, though of similar length.
        noise = rng.uniform(0.95, 1.05, len(cropped_s))
        plan, batch, longest_s = [], [], 0.0
        for row in np.argsort(cropped_s * noise, kind="stable"):
            longest_s = max(longest_s, cropped_s[row])
            if batch and longest_s * (len(batch) + 1) > self.batch_s:
                plan.append(np.array(batch))
                batch, longest_s = [], cropped_s[row]
            batch.append(row)
        plan.append(np.array(batch))
        return [plan[index] for index in rng.permutation(len(plan))]
