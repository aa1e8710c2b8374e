"""Time configurations in turn, in one process.

A configuration runs over all data once per repeat, and all take turns, the
order reversed with every repeat: what changes on the machine meanwhile meets
all of them alike.

Axes: R repeats, N utterances.

Authors
 * The speechbrain-ee contributors 2026
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from speechbrain_ee.exits.scoring import edit_counts, unit_counts
from speechbrain_ee.inference.bench.backends import Recogniser
from speechbrain_ee.inference.bench.data import Batch, Spoken
from speechbrain_ee.inference.bench.machine import (
    peak_memory_mib,
    start_peak_memory,
)
from speechbrain_ee.inference.hypothesis import Hypothesis


@dataclass(frozen=True)
class Configuration:
    """One way of transcribing the data.

    Arguments
    ---------
    policy : str
        Name of the policy, as it was asked for.
    batch_size : int
        Utterances at a time.
    threads : int
        Of the computation.
    backend : str
        What runs it.
    """

    policy: str
    batch_size: int
    threads: int
    backend: str


@dataclass(frozen=True)
class Measured:
    """What a configuration took, and what it gave.

    Arguments
    ---------
    configuration : Configuration
        Which.
    wall_s_R, cpu_s_R : tuple of float
        Seconds of every repeat over all data, by the clock and of all
        threads together.
    audio_s : float
        Seconds of audio.
    peak_rss_mib : float
        Largest resident memory of the process while it ran, the models of
        other backends included.
    peak_is_own : bool
        Whether that peak began with the configuration; else with the
        process.
    hypotheses : tuple of N Hypothesis
        Those of the last repeat.
    """

    configuration: Configuration
    wall_s_R: tuple[float, ...]
    cpu_s_R: tuple[float, ...]
    audio_s: float
    peak_rss_mib: float
    peak_is_own: bool
    hypotheses: tuple[Hypothesis, ...]

    @property
    def wall_s(self) -> float:
        """Median over the repeats."""
        return float(np.median(self.wall_s_R))

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds per second of audio."""
        return self.wall_s / self.audio_s

    def row(
        self, spoken: Sequence[Spoken], error_unit: str = "word"
    ) -> dict[str, Any]:
        """Plain values, for a table or a file.

        Arguments
        ---------
        spoken : sequence of N Spoken
            What was transcribed.
        error_unit : str
            What errors are counted in: ``word`` or ``character``.

        Returns
        -------
        dict
            The word error rate over the utterances with a reference; None
            if none has one.
        """
        exits = [one.exit for one in self.hypotheses]
        macs = sum(one.macs for one in self.hypotheses)
        low, high = np.quantile(self.wall_s_R, [0.25, 0.75])
        return {
            **asdict(self.configuration),
            "wall_s": round(self.wall_s, 6),
            "wall_quartiles_s": [round(float(low), 6), round(float(high), 6)],
            "wall_s_by_repeat": [round(one, 6) for one in self.wall_s_R],
            "cpu_s": round(float(np.median(self.cpu_s_R)), 6),
            "rtf": round(self.rtf, 6),
            "audio_s": round(self.audio_s, 3),
            "macs_per_utterance": round(macs / len(exits)),
            "macs_per_audio_s": round(macs / self.audio_s),
            "average_layer": round(
                float(np.mean([one.layer for one in self.hypotheses])), 4
            ),
            "utterances_by_exit": {
                str(exit): exits.count(exit) for exit in sorted({*exits})
            },
            "wer": word_error_rate(self.hypotheses, spoken, error_unit),
            "peak_rss_mib": self.peak_rss_mib,
            "peak_rss_since": "configuration" if self.peak_is_own else "start",
        }


def word_error_rate(
    hypotheses: Sequence[Hypothesis],
    spoken: Sequence[Spoken],
    error_unit: str = "word",
) -> float | None:
    """Word error rate in percent over the utterances with a reference.

    Arguments
    ---------
    hypotheses : sequence of N Hypothesis
        What was recognised.
    spoken : sequence of N Spoken
        What was said.
    error_unit : str
        What errors are counted in: ``word`` or ``character``.

    Returns
    -------
    float or None
        None without a word to compare with.
    """
    pairs = [
        (one.ref, found.text)
        for one, found in zip(spoken, hypotheses, strict=True)
        if one.ref is not None
    ]
    refs, hyps = [ref for ref, _ in pairs], [hyp for _, hyp in pairs]
    words = int(unit_counts(refs, error_unit).sum()) if refs else 0
    if not words:
        return None
    errors = edit_counts(refs, hyps, error_unit).sum()
    return round(100 * float(errors) / words, 4)


def transcribed(
    recogniser: Recogniser, batches: Sequence[Batch], policy: Any
) -> tuple[Hypothesis, ...]:
    """All data by one policy.

    Arguments
    ---------
    recogniser : Recogniser
        What runs it.
    batches : sequence of Batch
        The data.
    policy : LivePolicy
        When to stop.

    Returns
    -------
    tuple of N Hypothesis
        In the order of the data, not of the batches.
    """
    found: dict[int, Hypothesis] = {}
    for batch in batches:
        heard = recogniser.run(batch.wavs_BS, batch.wav_lens_B, policy)
        found.update(zip(batch.rows, heard, strict=True))
    return tuple(found[row] for row in range(len(found)))


def measure_in_turn(
    tasks: dict[Configuration, Callable[[], tuple[Hypothesis, ...]]],
    warmup: int,
    repeats: int,
    audio_s: float,
    on_pass: Callable[[], Any] = lambda: None,
) -> tuple[Measured, ...]:
    """Measure configurations in turn.

    Arguments
    ---------
    tasks : mapping of Configuration to callable
        What transcribes all data once.
    warmup : int
        Passes before the first that counts.
    repeats : int
        Passes that count.
    audio_s : float
        Seconds of audio.
    on_pass : callable
        Called behind every pass, for a progress bar.

    Returns
    -------
    tuple of Measured
        In the order of the tasks.
    """
    before = torch.get_num_threads()
    times: dict[Configuration, list[tuple[float, float]]] = {
        one: [] for one in tasks
    }
    peaks: dict[Configuration, tuple[float, bool]] = {}
    found: dict[Configuration, tuple[Hypothesis, ...]] = {}
    try:
        for turn in range(-warmup, repeats):
            order = list(tasks.items())
            for one, task in reversed(order) if turn % 2 else order:
                torch.set_num_threads(one.threads)
                own = start_peak_memory()
                cpu, wall = time.process_time(), time.perf_counter()
                found[one] = task()
                wall = time.perf_counter() - wall
                cpu = time.process_time() - cpu
                if turn >= 0:
                    times[one].append((wall, cpu))
                    most = max(peak_memory_mib(), peaks.get(one, (0, own))[0])
                    peaks[one] = (most, own)
                on_pass()
    finally:
        torch.set_num_threads(before)
    return tuple(
        Measured(one, *zip(*times[one]), audio_s, *peaks[one], found[one])
        for one in tasks
    )
