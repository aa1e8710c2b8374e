"""Tiny runs of self-supervised pre-training on generated audio.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ee.data.cropped import CroppedBatches, list_audio
from speechbrain_ee.models.ssl_loading import load_backbone
from speechbrain_ee.training.pretrainer import Pretrainer
from speechbrain_ee.training.pretraining_options import PretrainingOptions

pytest.importorskip("transformers")

RATE = 16000
TINY = PretrainingOptions(
    layers=2,
    width=32,
    heads=2,
    d_ffn=64,
    conv_dim=(8, 8, 8, 8, 8, 8, 16),
    codebooks=2,
    codes=16,
    code_dim=8,
    batch_s=8.0,
    crop_s=2.0,
    steps=4,
    lr=0.003,
)


def melody(seed: int, seconds: float) -> np.ndarray:
    """A scale of five tones over and over, so that gaps can be guessed."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * RATE)) / RATE
    tones = 300 * 1.5 ** ((times / 0.16 + rng.integers(5)).astype(int) % 5)
    wave = np.sin(2 * np.pi * np.cumsum(tones) / RATE)
    return 0.3 * wave + 0.01 * rng.standard_normal(len(times))


def write_corpus(root: Path) -> Path:
    """Twelve utterances of 1.2 to 2.3 s to learn, four to measure on."""
    for split, number in (("train", 12), ("dev", 4)):
        folder = root / split / "1" / "2"
        folder.mkdir(parents=True)
        for index in range(number):
            wave = melody(100 * number + index, 1.2 + 0.1 * index)
            soundfile.write(folder / f"1-2-{index:04d}.flac", wave, RATE)
    return root


def batches(
    corpus: Path, split: str, options: PretrainingOptions = TINY
) -> CroppedBatches:
    """The audio of a split."""
    sizes = (options.batch_s, options.crop_s, options.shortest_s)
    return CroppedBatches(list_audio(corpus, [split]), *sizes, options.seed)


def pretrainer(
    corpus: Path, out: Path, options: PretrainingOptions = TINY
) -> Pretrainer:
    """A run that saves at its end."""
    train, valid = (batches(corpus, split) for split in ("train", "dev"))
    return Pretrainer(out, options, train, valid, progress=False)


def weights(out: Path) -> dict[str, torch.Tensor]:
    """The parameters of a folder's model."""
    return load_backbone(str(out)).model.state_dict()
