"""What is watched while training is counted right and said aloud.

Protects: the validation error rate of every exit, the rule that chooses the
best checkpoint, and the warning about exits that emit nothing.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging

import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.monitor import (
    CHECKPOINT_RULES,
    ExitErrorRates,
    selection_wer,
    warn_of_blank_collapse,
)


def rates_of(*nonempty: bool) -> ExitErrorRates:
    rates = ExitErrorRates([2 * k + 2 for k in range(len(nonempty))])
    rates.append(["a b"], [["a" if some else ""] for some in nonempty])
    return rates


def test_rates_by_hand() -> None:
    """Substitution, deletion and insertion, pooled over two batches."""
    rates = ExitErrorRates([2, 4])
    rates.append(["a b c", "d"], [["a x", "d"], ["a b c", "d e f"]])
    rates.append(["g h"], [[""], ["h"]])
    # Exit 1: one substitution + one deletion, none, two deletions of 6 words.
    # Exit 2: none, two insertions, one deletion.
    assert rates.wer == pytest.approx((400 / 6, 300 / 6))
    assert str(rates) == "L2 66.67  L4 50.00"
    assert rates.nonempty_E.tolist() == [2, 3]
    assert all(type(wer) is float for wer in rates.wer)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("last_exit", 12.0), ("mean_of_exits", 17.0), ("best_exit", 9.0)],
)
def test_selection_rules(rule: str, expected: float) -> None:
    """Each rule, on exits of which the second is the best."""
    value = selection_wer((30.0, 9.0, 12.0), rule)
    assert value == expected and type(value) is float


def test_unknown_rule() -> None:
    """The error names the key and lists the rules."""
    with pytest.raises(InputError, match="checkpoint_rule: 'lats'") as error:
        selection_wer([1.0], "lats")
    assert all(rule in str(error.value) for rule in CHECKPOINT_RULES)


def test_blank_collapse_warns(caplog: pytest.LogCaptureFixture) -> None:
    """From the given epoch on, with the exits that are silent."""
    silent = rates_of(True, False, False)
    with caplog.at_level(logging.WARNING):
        assert warn_of_blank_collapse(2, silent, 3) == []
        # wrong words are no collapse
        assert warn_of_blank_collapse(9, rates_of(True, True), 1) == []
        assert not caplog.records
        assert warn_of_blank_collapse(3, silent, 3) == [4, 6]
    assert "BLANK COLLAPSE" in caplog.text
    assert "after 3 epochs" in caplog.text and "[4, 6]" in caplog.text
