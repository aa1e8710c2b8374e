"""Warm-up, plateau, cool-down: the learning rate of every step of a run.

Protects: the curve's corners and a resumed run's place on it.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest
import torch

from speechbrain_ee.training.schedules import WarmupCooldown


def optimizer_of(lr: float = 0.0) -> torch.optim.Optimizer:
    """An optimiser with one parameter."""
    return torch.optim.SGD([torch.zeros(1)], lr=lr)


def make_schedule(steps: int, warmup: float, cooldown: float) -> WarmupCooldown:
    """A schedule with a plateau of 2."""
    schedule = WarmupCooldown(2.0, warmup, cooldown)
    schedule.set_total_steps(steps)
    return schedule


def test_corners() -> None:
    """10 steps up, 50 flat, 40 down to zero, then zero."""
    schedule, optimizer = make_schedule(100, 0.1, 0.4), optimizer_of()
    rates = [schedule(optimizer)[1] for _ in range(105)]
    for step in range(1, 101):
        expected = 2.0 * min(1.0, step / 10, (100 - step) / 40)
        assert rates[step - 1] == pytest.approx(expected), step
    assert rates[100:] == [0.0] * 5
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_returns_the_rate_before_and_after() -> None:
    """What a log needs."""
    schedule, optimizer = make_schedule(4, 0.5, 0.5), optimizer_of(7.0)
    assert schedule(optimizer) == (7.0, 1.0)
    assert schedule(optimizer) == (1.0, 2.0)


@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)])
def test_any_shares_and_any_length(
    steps: int, shares: tuple[float, float]
) -> None:
    """Rates stay between zero and the plateau; the last step cools to 0."""
    schedule, optimizer = make_schedule(steps, *shares), optimizer_of()
    rates = [schedule(optimizer)[1] for _ in range(steps)]
    assert all(0.0 <= rate <= 2.0 for rate in rates)
    if steps > 1:
        assert rates[-1] == pytest.approx(0.0)


def test_saved_and_loaded(tmp_path: Path) -> None:
    """A resumed run goes on where it was."""
    first, optimizer = make_schedule(10, 0.3, 0.5), optimizer_of()
    rates = [first(optimizer)[1] for _ in range(10)]
    half = make_schedule(10, 0.3, 0.5)
    for _ in range(6):
        half(optimizer)
    half.save(tmp_path / "schedule")
    # As when resuming: loaded before the Brain has set the length.
    resumed = WarmupCooldown(2.0, 0.3, 0.5)
    resumed.load(tmp_path / "schedule")
    resumed.set_total_steps(10)
    assert [resumed(optimizer)[1] for _ in range(4)] == rates[6:]
