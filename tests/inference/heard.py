"""Recordings on disk, and a recogniser that says what it was given.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.hypothesis import Hypothesis, Word

RATE = 16000


def hypothesis(
    text: str,
    duration_s: float = 1.0,
    words: tuple[Word, ...] = (),
    **fields: Any,
) -> Hypothesis:
    """A hypothesis of which only some fields matter."""
    values = {
        "tokens": (),
        "exit": 2,
        "layer": 4,
        "score": -0.5,
        "confidence": 0.9,
        "nbest": (text,),
        "macs": 1000,
        **fields,
    }
    return Hypothesis(text=text, words=words, duration_s=duration_s, **values)


class Echo:
    """Says how many samples it heard; keeps what it was given."""

    sample_rate = RATE

    def __init__(self, refuses: int | None = None):
        self.refuses = refuses
        self.batches: list[list[int]] = []
        self.policies: list[Any] = []

    def recognise(
        self, waves: Sequence[Tensor], policy: Any = None
    ) -> list[Hypothesis]:
        """One word: the number of samples."""
        lengths = [len(wave) for wave in waves]
        if self.refuses in lengths:
            raise InputError("not this one.")
        self.batches.append(lengths)
        self.policies.append(policy)
        return [hypothesis(f"n{n}", n / RATE) for n in lengths]


def speech(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Bursts of noise of 1 to 4 s with pauses between, shape (samples,)."""
    generator = np.random.default_rng(seed)
    parts = [np.zeros(0)]
    count = 0
    total = round(seconds * rate)
    while count < total:
        loud = generator.uniform(-0.3, 0.3, int(generator.uniform(1, 4) * rate))
        quiet = generator.uniform(-1, 1, int(generator.uniform(0.2, 1) * rate))
        parts += [loud, 0.001 * quiet]
        count += len(loud) + len(quiet)
    return np.concatenate(parts)[:total].astype(np.float32)


def record(
    path: Path,
    samples: np.ndarray | int = 8000,
    rate: int = RATE,
    subtype: str | None = None,
) -> str:
    """A recording; of noise, if only its length is given."""
    if isinstance(samples, int):
        samples = speech(samples / rate, rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return str(path)
