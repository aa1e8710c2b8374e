"""A machine under changing load, simulated, for the latency controller.

Exits and multiply-accumulates of every utterance come from its exit trace.
Of the time of a batch a part does not depend on what is computed, which a
controller that thinks in multiply-accumulates does not expect, and all of it
is noisy. Nothing depends on the clock.

Axes: B batches, N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.policy import FixedExit, at_choice
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.inference.controller import LatencyController
from speechbrain_ee.inference.policies import Rung

SECONDS = 1800
WINDOW_S = 60.0
IDLE_RTF = 0.02  # of full quality on the idle machine

Load = Callable[[float], float]


def steps(second: float) -> float:
    """Three times, then twice the work, each from one batch to the next."""
    return 3.0 if 400 <= second < 800 else 2.0 if 1100 <= second < 1400 else 1.0


def ramp(second: float) -> float:
    """Slowly to four times and slowly back."""
    return float(np.interp(second, [200, 800, 1000, 1600], [1, 4, 4, 1]))


def bursts(second: float) -> float:
    """Two and a half times the work for 120 seconds of every 450."""
    return 2.5 if 150 <= second % 450 < 270 else 1.0


def constant(second: float) -> float:
    """Twice the work all along."""
    return 2.0


SCENARIOS = {f.__name__: f for f in (steps, ramp, bursts, constant)}
# Seconds at which a load jumps, and by what factor.
JUMPS = {
    "steps": ((400, 3.0), (800, 1 / 3), (1100, 2.0), (1400, 0.5)),
    "ramp": (),
    "bursts": tuple(
        (start + 450 * n, factor)
        for n in range(SECONDS // 450)
        for start, factor in ((150, 2.5), (270, 0.4))
    ),
    "constant": ((0, 2.0),),
}


@dataclass(frozen=True)
class Machine:
    """A machine in the simulation."""

    rtf: float = IDLE_RTF
    fixed_share: float = 0.05
    noise: float = 0.05
    seed: int = 0
    batch: int = 4


IDLE = Machine()


@dataclass(frozen=True)
class Run:
    """What happened, batch by batch; times are of audio that came before."""

    time_B: NDArray[np.float64]
    audio_B: NDArray[np.float64]
    wall_B: NDArray[np.float64]
    layer_B: NDArray[np.float64]
    rung_B: NDArray[np.int64]
    errors: int
    words: int

    def rtf_B(self, window_s: float = WINDOW_S) -> NDArray[np.float64]:
        """Real-time factor of the last seconds of audio at every batch."""
        end_B = self.time_B + self.audio_B
        first_B = np.searchsorted(end_B, end_B - window_s, side="right")
        first_B = np.minimum(first_B, np.arange(len(end_B)))
        audio = np.concatenate([[0.0], self.audio_B.cumsum()])
        wall = np.concatenate([[0.0], self.wall_B.cumsum()])
        return (wall[1:] - wall[first_B]) / (audio[1:] - audio[first_B])


def simulate(
    controller: LatencyController | None,
    load: Load,
    trace: Trace,
    top: Rung,
    machine: Machine = IDLE,
    seconds: float = SECONDS,
) -> Run:
    """Run utterances of a trace in random order."""
    rng = np.random.default_rng(machine.seed)
    audio_N = np.array([record.duration_s for record in trace.records])
    macs_NE, errors_NE = trace.macs_NE, trace.errors_NE
    scores_NE = None
    if not isinstance(top.policy, FixedExit):
        scores_NE = get_criterion(top.policy.criterion).scores(trace.evidence)
    rows, time_s, errors, words = [], 0.0, 0, 0
    while time_s < seconds:
        chosen = rng.integers(0, len(trace), machine.batch)
        rung = top if controller is None else controller.rung
        scores = macs_NE if scores_NE is None else scores_NE
        exit_N = rung.policy.choose(scores[chosen])
        audio_s = float(audio_N[chosen].sum())
        macs = float(at_choice(macs_NE[chosen], exit_N).sum())
        share = macs / audio_s / top.macs_per_s
        fixed = machine.fixed_share
        wall_s = machine.rtf * load(time_s) * audio_s
        wall_s *= fixed + (1 - fixed) * share
        wall_s *= float(np.exp(machine.noise * rng.standard_normal()))
        layer = float(trace.layers_E[exit_N].mean())
        place = -1 if controller is None else controller.ladder.index(rung)
        rows.append((time_s, audio_s, wall_s, layer, place))
        errors += int(at_choice(errors_NE[chosen], exit_N).sum())
        words += int(trace.words_N[chosen].sum())
        time_s += audio_s
        if controller is not None:
            controller.observe(audio_s, wall_s, macs)
    *columns, places = zip(*rows)
    arrays = [np.array(column) for column in columns]
    return Run(*arrays, np.array(places), errors, words)
