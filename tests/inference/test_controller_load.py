"""The latency controller on a simulated machine under load.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from speechbrain_ee.inference.controller import LatencyController
from speechbrain_ee.inference.policies import Rung, threshold_ladder
from tests.inference.controller_data import trace_of
from tests.test_benchmarks import load


@pytest.fixture(scope="module")
def ladder() -> tuple[Rung, ...]:
    """Thresholds on entropy."""
    return threshold_ladder(trace_of(), "entropy")


@pytest.fixture(scope="module")
def simulation(repository: Path) -> ModuleType:
    """The module benchmarks/controller_simulation.py."""
    return load(repository, "controller_simulation")


class TestSimulatedLoad:
    """The deadline on a noisy machine; see benchmarks/controller.py."""

    DEADLINE = 0.03

    def run(self, simulation, ladder, name, machine=None):
        controller = LatencyController(self.DEADLINE, ladder)
        machine = machine or simulation.IDLE
        return controller, simulation.simulate(
            controller,
            simulation.SCENARIOS[name],
            trace_of(300, seed=1),
            ladder[-1],
            machine,
        )

    def test_deterministic(self, simulation, ladder) -> None:
        _, one = self.run(simulation, ladder, "steps")
        _, two = self.run(simulation, ladder, "steps")
        for name, values in vars(one).items():
            assert np.array_equal(values, vars(two)[name]), name

    @pytest.mark.parametrize("name", ["steps", "ramp", "constant"])
    def test_holds_the_deadline(self, simulation, ladder, name) -> None:
        """In 95 % of the windows that begin after the settling time."""
        controller, run = self.run(simulation, ladder, name)
        late_B = run.rtf_B() > self.DEADLINE
        start_B = run.time_B + run.audio_B - simulation.WINDOW_S
        calm_B = start_B >= 0
        batch_s = run.audio_B.max()
        for second, factor in simulation.JUMPS[name]:
            if factor > 1:
                end = second + controller.settling_s(factor) + 2 * batch_s
                inside_B = run.time_B + run.audio_B > second
                calm_B &= ~(inside_B & (start_B < end))
        assert calm_B.mean() > 0.5
        assert late_B[calm_B].mean() <= 0.05
        free = simulation.simulate(
            None,
            simulation.SCENARIOS[name],
            trace_of(300, seed=1),
            ladder[-1],
        )
        assert (free.rtf_B() > self.DEADLINE).mean() > 0.25

    def test_returns_to_full_quality(self, simulation, ladder) -> None:
        controller, run = self.run(simulation, ladder, "steps")
        top = len(ladder) - 1
        for fall in (800, 1400):
            back_B = (run.time_B >= fall) & (run.rung_B == top)
            within_s = run.time_B[back_B][0] - fall
            assert within_s <= 6 * controller.time_constant_s
        calm_B = (run.time_B > 900) & (run.time_B < 1090)
        assert (run.rung_B[calm_B] == top).all()
        assert (run.rung_B[(run.time_B > 500) & (run.time_B < 790)] < top).all()

    def test_no_oscillation_without_noise(self, simulation, ladder) -> None:
        quiet = simulation.Machine(noise=0.0, fixed_share=0.0)
        _, run = self.run(simulation, ladder, "constant", quiet)
        settled = run.rung_B[run.time_B > 300]
        # utterances differ, so that a change is not always wrong
        assert (np.diff(settled) != 0).mean() <= 0.1
        assert np.ptp(settled) <= 3
