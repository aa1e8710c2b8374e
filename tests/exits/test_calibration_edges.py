"""Calibration where a promise is not possible, or hangs by a thread.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.budget import Budget, Outcomes
from speechbrain_ee.exits.calibration.calibrate import calibrate


def test_one_utterance_may_be_the_target():
    """A promise on a single utterance is a wide one, but it can be asked."""
    rng = np.random.default_rng(0)
    outcomes = Outcomes(
        rng.integers(0, 3, (50, 2)), np.full(50, 9), np.array([2, 4])
    )
    scores_NE = rng.random((50, 2))
    budget = Budget.parse("layers=4")
    assert calibrate("c", scores_NE, outcomes, budget, target=1).target == 1


def test_operations_that_cannot_be_promised():
    """On average the first exit just holds it, with certainty it does not."""
    macs_NE = np.tile([[1.0, 5.0], [3.0, 9.0]], (25, 1))
    outcomes = Outcomes(
        np.zeros((50, 2), dtype=int), np.full(50, 9), np.array([2, 4]), macs_NE
    )
    scores_NE = np.random.default_rng(0).random((50, 2))
    for method, satisfied in (("naive", True), ("crc", False), ("ltt", False)):
        budget = Budget("macs", 2.0)
        found = calibrate("c", scores_NE, outcomes, budget, method)
        assert (found.avg_layer, found.satisfied) == (2, satisfied)


def test_no_word_no_rate():
    outcomes = Outcomes(
        np.zeros((9, 2), dtype=int), np.zeros(9, dtype=int), np.array([2, 4])
    )
    with pytest.raises(InputError, match="references are empty"):
        calibrate("c", np.ones((9, 2)), outcomes, Budget("layers", 4))


@pytest.mark.parametrize("per_exit", [False, True])
def test_no_threshold_is_minus_zero(per_exit):
    outcomes = Outcomes(np.array([[1, 1, 1]] * 9), np.ones(9), np.arange(3) + 1)
    scores_NE = np.full((9, 3), -0.0)
    budget = Budget.parse("wer=+0")
    found = calibrate("c", scores_NE, outcomes, budget, "naive", 0.1, per_exit)
    limits = np.ravel(found.policy.threshold)
    assert not np.signbit(limits[limits == 0]).any()
    assert found.avg_layer == 1


def test_controlled_risk_goes_as_far_as_it_may():
    """``crc`` takes the last of the candidates that pass, not the cheapest."""
    rng = np.random.default_rng(0)
    errors_NE = rng.integers(0, 2, (400, 1)) + np.array([[1, 0]])
    errors_NE[:, 0] -= rng.random(400) < 0.9
    outcomes = Outcomes(errors_NE, np.full(400, 10), np.array([2, 4]))
    scores_NE = np.round(rng.random((400, 2)), 1)
    found = calibrate("c", scores_NE, outcomes, Budget.parse("wer=+9"), "crc")
    assert found.policy.threshold == -np.inf
    assert found.avg_layer == 2
