"""A policy meets a model: which exits it chooses from, or why it cannot.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.criteria.successive import window_scores
from speechbrain_ee.exits.policy import ThresholdPolicy, check_exit, rule_for


def calibrated(layers, threshold=-0.1):
    return ExitPolicy("entropy", layers, threshold, "wer=+5%", "naive")


@pytest.mark.parametrize(
    ("layers", "exits"),
    [((2, 4, 6), (1, 2, 3)), ((4, 6), (2, 3)), ((2,), (1,)), ((6,), (3,))],
)
def test_exits_of_a_policy_are_counted_in_the_model(layers, exits):
    found, its_layers, rule = rule_for(calibrated(layers), (2, 4, 6), "it has")
    assert (found, its_layers) == (exits, layers)
    assert (rule.criterion, rule.threshold) == ("entropy", -0.1)
    assert rule.exits == len(layers)


def test_bare_thresholds_are_for_every_exit():
    bare = ThresholdPolicy("entropy", (-0.2, -0.1), exits=3)
    exits, layers, rule = rule_for(bare, (2, 4, 6), "it has")
    assert (exits, layers, rule) == ((1, 2, 3), (2, 4, 6), bare)


def test_other_layers_name_both():
    with pytest.raises(InputError, match=r"\[2, 5\], and it has .*\[2, 4\]"):
        rule_for(calibrated((2, 5)), (2, 4), "it has")


@pytest.mark.parametrize("count", [0, 1, 4])
def test_wrong_number_of_thresholds(count):
    threshold = (-0.1,) * count
    with pytest.raises(InputError, match=f"{count} thresholds for 3 exits"):
        rule_for(calibrated((2, 4, 6), threshold), (2, 4, 6), "it has")


@pytest.mark.parametrize("count", [2, 3])
def test_one_threshold_per_exit_with_or_without_the_last(count):
    policy = calibrated((2, 4, 6), tuple(-0.1 * n for n in range(count)))
    assert rule_for(policy, (2, 4, 6), "it has")[0] == (1, 2, 3)


@pytest.mark.parametrize("exits", [1, 2, 3, 6])
@pytest.mark.parametrize("patience", [1, 2, 4])
def test_patience_asks_for_no_lag_that_is_never_read(exits, patience):
    """A trace of three exits has no distance over three of them."""
    asked = []

    def distances(lag):
        asked.append(lag)
        return np.zeros((2, exits))

    window_scores(distances, (2, exits), patience)
    assert asked == list(range(1, min(patience, exits - 1) + 1))


@pytest.mark.parametrize("exit", [0, -1, 3])
def test_an_exit_that_there_is_not(exit):
    with pytest.raises(InputError, match=f"exit {exit} .* it has .* 1 to 2"):
        check_exit(exit, (2, 4), "it has")


def test_an_exit_that_there_is():
    for exit in (1, 2):
        check_exit(exit, (2, 4), "it has")
