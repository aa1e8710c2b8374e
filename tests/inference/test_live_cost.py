"""Live costs are those of the cost model, for every length.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest

from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.inference.runner import LiveCost
from tests.helpers import STACKS, tiny_model
from tests.inference.live_runs import EXITS, live_model


@pytest.mark.parametrize(("module", "attention"), STACKS)
def test_equal_to_the_cost_model(module, attention):
    model = tiny_model(encoder_module=module, attention_type=attention)
    live, whole = LiveCost(model), CostModel(model)
    for samples in (400, 6001, 16000, 77777, 480000):
        frames = whole.frames(samples)
        expected = whole.macs(samples)
        for exit in (1, 2):
            passed = range(1, exit + 1)
            assert live.macs(samples, frames, passed) == expected[exit - 1]
    assert live._polynomial((1, 2)) is not None


def test_heads_that_were_not_read_are_not_counted():
    model = live_model()
    live, whole = LiveCost(model), CostModel(model)
    frames = whole.frames(20000)
    skipped = sum(whole.head(exit, frames) for exit in (1, 2, 3))
    full = whole.macs(20000)[-1]
    assert live.macs(20000, frames, [len(EXITS)]) == full - skipped


def test_what_is_no_polynomial_is_counted():
    model = live_model()
    live = LiveCost(model)
    live.below.layer = lambda index, frames: frames**3
    assert live._polynomial((4,)) is None
    head = live.below.head(4, 7)
    start = live.below.start.macs(3000)
    assert live.macs(3000, 7, [4]) == start + 4 * 7**3 + head
