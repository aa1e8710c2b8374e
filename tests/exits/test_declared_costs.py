"""What a measure is said to cost and to look at, from its formula.

Axes: N utterances.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest

from speechbrain_ee.exits.criteria import (
    get_criterion,
    get_measure,
    measure_names,
)


def operations(name, frames, vocab):
    """Multiply-accumulates that the formula of a measure needs."""
    entries = frames * vocab
    if name.startswith("tsallis"):
        return 2 * entries  # power and sum
    if name.startswith("ctc_forward"):
        # greedy path, then 3 products at 2 U + 1 states, U tokens: T / 3
        return entries + sum(3 * (2 * frames / 3 + 1) for _ in range(frames))
    if name == "hidden_cosine":
        return 3 * frames * 768  # product and two norms
    if name == "nbest_posterior":
        return entries + frames * 10 * min(vocab, 10)
    return (
        0 if get_measure(name).decodes else entries
    )  # else it costs what its search does


@pytest.mark.parametrize("name", measure_names())
@pytest.mark.parametrize("vocab", [5, 32])
def test_declared_cost(name, vocab):
    chosen = get_measure(name)
    expected = operations(name, 60, vocab)
    assert chosen.cost(60, vocab) == pytest.approx(expected)
    frames_N = np.array([60, 0, 60])
    assert np.broadcast_to(chosen.cost(frames_N, vocab), 3).tolist() == (
        pytest.approx([expected, 0, expected])
    )


def test_declared_cost_of_a_combination():
    """That of the entropy in it; what was read from text is free."""
    assert get_criterion("combination").macs(60, 32) == 60 * 32


@pytest.mark.parametrize("name", measure_names())
def test_exits_that_come_before(name):
    """Successive exits by their lag; everything else looks at one."""
    number = name.rpartition("_")[2]
    lag = int(number) if name.startswith("cross_entropy") else 0
    assert get_measure(name).earlier == lag + (name == "hidden_cosine")
