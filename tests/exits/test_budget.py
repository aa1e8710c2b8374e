"""Budgets: what is understood, and what the losses mean.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.budget import Budget, Outcomes

OUTCOMES = Outcomes(
    errors_NE=np.array([[4, 2, 1], [3, 0, 1]]),
    words_N=np.array([10, 20]),
    layers_E=np.array([2, 6, 12]),
    macs_NE=np.array([[1e9, 2e9, 4e9], [3e9, 4e9, 8e9]]),
)


@pytest.mark.parametrize(
    ("text", "kind", "value", "shown"),
    [
        ("layers=8.5", "layers", 8.5, "layers=8.5"),
        ("macs=4.2e9", "macs", 4.2e9, "macs=4.2G"),
        ("macs=4.2G", "macs", 4.2e9, "macs=4.2G"),
        ("macs=300M", "macs", 3e8, "macs=300M"),
        ("wer=+.5", "wer_points", 0.5, "wer=+0.5"),
        ("wer=+5%", "wer_percent", 5.0, "wer=+5%"),
        (" wer=+0 ", "wer_points", 0.0, "wer=+0"),
    ],
)
def test_parse(text, kind, value, shown):
    budget = Budget.parse(text)
    assert (budget.kind, budget.value) == (kind, pytest.approx(value))
    assert str(budget) == shown
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "text",
    "8.5|layer=8.5|layers=-1|layers=0|layers=nan|layers=1e999|layers=8,5|"
    "macs=4.2X|wer=0.5|wer=-0.5|wer=5%|wer=+5%%|wer=+inf|".split("|"),
)
def test_anything_else_lists_the_valid_forms(text):
    with pytest.raises(InputError) as caught:
        Budget.parse(text)
    for form in (repr(text), "layers=8.5", "macs=4.2G", "wer=+0.5", "wer=+5%"):
        assert form in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["wer=+5", "wer=+10", "wer=+100%", "wer=+50%", "layers=7", "macs=4G"],
)
def test_budget_holds_exactly_if_the_mean_loss_is_at_most_zero(text):
    budget, rows = Budget.parse(text), np.arange(2)
    for choice in map(list, itertools.product(range(3), repeat=2)):
        loss = budget.losses_NE(OUTCOMES)[rows, choice].mean()
        wer = 100 * OUTCOMES.errors_NE[rows, choice].sum() / 30
        wer_last = 100 * 2 / 30
        holds = {
            "wer_points": wer - wer_last <= budget.value,
            "wer_percent": wer <= wer_last * (1 + budget.value / 100) + 1e-9,
            "layers": OUTCOMES.layers_E[choice].mean() <= budget.value,
            "macs": OUTCOMES.macs_NE[rows, choice].mean() <= budget.value,
        }[budget.kind]
        assert (loss <= 1e-9) == holds


def test_compute_budget_that_cannot_be_held_or_measured():
    for text, least in (("layers=1.9", "layers=2"), ("macs=1.9G", "macs=2G")):
        with pytest.raises(InputError, match=least):
            Budget.parse(text).check(OUTCOMES)
    for text in ("layers=2", "macs=2G", "wer=+0"):
        Budget.parse(text).check(OUTCOMES)
    bare = Outcomes(OUTCOMES.errors_NE, OUTCOMES.words_N, OUTCOMES.layers_E)
    with pytest.raises(InputError, match="layers="):
        Budget.parse("macs=4G").losses_NE(bare)
