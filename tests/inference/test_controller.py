"""The latency controller: its equations, its limits, its ladder, and how it does
on a simulated machine under load.

Axes: N utterances, E exits, B batches.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy
from speechbrain_ee.exits.policy import FixedExit
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.inference.controller import (
    LatencyController,
    Rung,
    ladder_below,
    threshold_ladder,
)
from speechbrain_ee.inference.live import LivePolicy
from tests.inference.controller_data import LAYERS, trace_of
from tests.test_benchmarks import load

# so fine that its steps do not matter
FINE = [Rung(FixedExit(k), 1.01**k) for k in range(1, 301)]


@pytest.fixture(scope="module")
def trace() -> Trace:
    return trace_of()


@pytest.fixture(scope="module")
def ladder(trace: Trace) -> tuple[Rung, ...]:
    return threshold_ladder(trace, "entropy")


def share(controller: LatencyController) -> float:
    """What the controller computes now, of full quality."""
    return controller.rung.macs_per_s / controller.ladder[-1].macs_per_s


def test_error_decays_by_the_gain() -> None:
    for exponent in (0.5, 1.0, 1.4):
        controller = LatencyController(
            0.1, FINE, margin=0.0, time_constant_s=5.0, hysteresis=0.0
        )
        gain = 1 - math.exp(-2.0 / 5.0)
        errors = []
        for step in range(12):
            load_rtf = 0.12 if step < 2 else 0.4
            rtf = load_rtf * share(controller) ** exponent
            controller.observe(2.0, 2.0 * rtf)
            errors.append(math.log(rtf / 0.1))
        expected = errors[2] * (1 - gain * exponent) ** np.arange(10)
        assert errors[2:] == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("factor", [1.5, 3.0, 10.0])
def test_settles_in_the_stated_time(factor: float) -> None:
    controller = LatencyController(0.1, FINE, hysteresis=0.0)
    controller.observe(1.0, 0.08)
    second, late = 0.0, []
    for _ in range(200):
        rtf = 0.08 * factor * share(controller)
        late.append((second, rtf > 0.1))
        controller.observe(1.0, rtf)
        second += 1.0
    last_late = max([s for s, is_late in late if is_late], default=0.0)
    # the load rose by less than the factor against what the deadline bears
    assert last_late <= controller.settling_s(factor) + 1.0
    assert not late[-1][1]


def test_nothing_winds_up(ladder) -> None:
    back = []
    for batches in (20, 2000):
        controller = LatencyController(0.1, ladder)
        for _ in range(batches):
            controller.observe(5.0, 5.0 * 30 * share(controller))
        assert not controller.feasible
        assert controller.rung == ladder[0]
        steps = 0
        while controller.rung != ladder[-1]:
            controller.observe(5.0, 5.0 * 0.05 * share(controller))
            steps += 1
            assert steps < 50
        back.append(steps)
        assert controller.feasible
    assert back[0] == back[1]


def test_constant_load_is_left_alone(ladder) -> None:
    for load_rtf in np.geomspace(0.02, 2.0, 60):
        controller = LatencyController(0.1, ladder)
        seen = []
        for _ in range(60):
            rtf = load_rtf * (0.1 + 0.9 * share(controller))
            controller.observe(5.0, 5.0 * rtf)
            seen.append(ladder.index(controller.rung))
        assert len({*seen[30:]}) == 1, load_rtf
        # and what is left is on the safe side, where there is a safe side
        if load_rtf * (0.1 + 0.9 * share(controller)) > 0.1:
            assert seen[-1] == 0


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("harder, load_rtf", [(2.0, 0.08), (1.4, 0.15)])
def test_hard_utterances_are_no_slow_machine(ladder, told, harder, load_rtf):
    """All policies compute more than on calibration data: with MACs the load
    is known, and the deadline holds anyway.
    """
    controller = LatencyController(0.1, ladder)
    for _ in range(120):
        spent = harder * controller.rung.macs_per_s
        rtf = load_rtf * spent / ladder[-1].macs_per_s
        controller.observe(5.0, 5.0 * rtf, 5.0 * spent if told else None)
    known = load_rtf if told else harder * load_rtf
    assert controller.load_rtf == pytest.approx(known)
    assert 0.07 <= rtf <= 0.1 and controller.feasible


@pytest.mark.parametrize("audio_s, wall_s", [(0, 1), (1, 0), (0, 0)])
def test_empty_batches_say_nothing(ladder, audio_s, wall_s) -> None:
    controller = LatencyController(0.1, ladder)
    controller.observe(audio_s, wall_s)
    assert controller.load_rtf is None
    assert controller.feasible
    assert controller.rung == ladder[-1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"deadline_rtf": math.nan},
        {"margin": 1.0},
        {"time_constant_s": 0.0},
        {"hysteresis": -0.1},
        {"ladder": []},
        {"ladder": FINE[::-1]},
        {"ladder": [FINE[0], FINE[0]]},
    ],
)
def test_wrong_settings_are_refused(wrong) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        LatencyController(**{"deadline_rtf": 0.1, "ladder": FINE, **wrong})


@pytest.mark.parametrize("given", [(-1, 1), (1, math.nan), (1, 1, -5.0)])
def test_wrong_observations_are_refused(given) -> None:
    with pytest.raises(InputError):
        LatencyController(0.1, FINE).observe(*given)


def test_ladder_is_efficient_and_as_measured(trace, ladder) -> None:
    rates = [rung.macs_per_s for rung in ladder]
    wers = [rung.wer for rung in ladder]
    assert rates == sorted({*rates})
    assert wers == sorted({*wers}, reverse=True)
    for rung in ladder[:: len(ladder) // 3]:
        macs = errors = seconds = 0.0
        for record in trace.records:
            for exit_ in record.exits:
                if -exit_.evidence["entropy"] >= rung.policy.threshold:
                    break
            macs += exit_.macs
            errors += exit_.errors
            seconds += record.duration_s
        assert rung.macs_per_s == pytest.approx(macs / seconds)
        assert rung.wer == pytest.approx(100 * errors / (3 * len(trace)))


def test_ladder_below_a_policy(trace) -> None:
    """Policies of the model, the one asked for last."""
    policy = ExitPolicy("entropy", LAYERS, (-0.3, -0.2), "wer=+5%", "naive")
    top = LivePolicy.of(policy, LAYERS)
    rungs = ladder_below(top, trace, LAYERS)
    assert rungs[-1].policy == top
    assert max(rung.macs_per_s for rung in rungs[:-1]) < rungs[-1].macs_per_s
    known = threshold_ladder(trace, "entropy", top.rule)
    assert [rung.policy.rule for rung in rungs] == [r.policy for r in known]
    assert {rung.policy.layers for rung in rungs} == {LAYERS}
    fixed = ladder_below(LivePolicy.fixed(3, LAYERS), trace, LAYERS)
    assert [r.policy.exits for r in fixed] == [(1,), (2,), (3,)]
    seconds = sum(record.duration_s for record in trace.records)
    assert [r.macs_per_s for r in fixed] == pytest.approx(
        trace.macs_NE.sum(axis=0) / seconds
    )


def test_ladder_of_greedy_decoding_pays_no_search(trace) -> None:
    searched = trace_of(search_macs=7000)
    last = LivePolicy.fixed(3, LAYERS)
    wanted = ladder_below(last, trace, LAYERS)
    assert ladder_below(last, searched, LAYERS, "ctc_greedy") == wanted
    assert ladder_below(last, searched, LAYERS) != wanted


@pytest.fixture(scope="module")
def simulation(repository: Path) -> ModuleType:
    return load(repository, "controller")


DEADLINE = 0.03


def simulated(simulation, ladder, name, **machine):
    """A noisy machine under load; see benchmarks/controller.py."""
    controller = LatencyController(DEADLINE, ladder)
    return controller, simulation.simulate(
        controller,
        simulation.SCENARIOS[name],
        trace_of(300, seed=1),
        ladder[-1],
        simulation.Machine(**machine) if machine else simulation.IDLE,
    )


@pytest.mark.parametrize("name", ["steps", "ramp", "constant"])
def test_holds_the_deadline(simulation, ladder, name) -> None:
    """In 95 % of the windows that begin after the settling time."""
    controller, run = simulated(simulation, ladder, name)
    late_B = run.rtf_B() > DEADLINE
    start_B = run.time_B + run.audio_B - simulation.WINDOW_S
    calm_B = start_B >= 0
    for second, factor in simulation.JUMPS[name]:
        if factor > 1:
            end = second + controller.settling_s(factor)
            end += 2 * run.audio_B.max()
            inside_B = run.time_B + run.audio_B > second
            calm_B &= ~(inside_B & (start_B < end))
    assert calm_B.mean() > 0.5
    assert late_B[calm_B].mean() <= 0.05
    free = simulation.simulate(
        None, simulation.SCENARIOS[name], trace_of(300, seed=1), ladder[-1]
    )
    assert (free.rtf_B() > DEADLINE).mean() > 0.25


def test_returns_to_full_quality(simulation, ladder) -> None:
    controller, run = simulated(simulation, ladder, "steps")
    top = len(ladder) - 1
    for fall in (800, 1400):
        back_B = (run.time_B >= fall) & (run.rung_B == top)
        within_s = run.time_B[back_B][0] - fall
        assert within_s <= 6 * controller.time_constant_s
    calm_B = (run.time_B > 900) & (run.time_B < 1090)
    assert (run.rung_B[calm_B] == top).all()
    assert (run.rung_B[(run.time_B > 500) & (run.time_B < 790)] < top).all()


def test_no_oscillation_without_noise(simulation, ladder) -> None:
    quiet = {"noise": 0.0, "fixed_share": 0.0}
    _, run = simulated(simulation, ladder, "constant", **quiet)
    settled = run.rung_B[run.time_B > 300]
    # utterances differ, so that a change is not always wrong
    assert (np.diff(settled) != 0).mean() <= 0.1
    assert np.ptp(settled) <= 3
