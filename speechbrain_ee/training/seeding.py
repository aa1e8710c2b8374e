"""Random numbers of a training step, drawn from its place in the run.

Authors
 * The speechbrain-ee contributors 2026
"""

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Seed Python, numpy and torch for one step of this process.

    A run that is killed and resumed draws the same dropout and the same
    augmentation as one that is not, without random states to save.
    """
    place = (seed, epoch, step, int(os.environ.get("RANK", 0)))
    digest = hashlib.sha256(repr(place).encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "big"))
    random.seed(digest)
    np.random.seed(int.from_bytes(digest[:4], "big"))


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Draw random numbers on the CPU as if nobody had drawn any.

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> with kept_random_state():
    ...     drawn = torch.rand(1)
    >>> bool(torch.rand(1) == drawn)
    True
    """
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
