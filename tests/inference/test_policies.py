"""What a user may say about when to stop.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import re

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import calibrate_trace
from speechbrain_ee.exits.calibration.budget import Budget, Outcomes
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import write_policy
from speechbrain_ee.exits.policy import FixedExit, ThresholdPolicy
from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.inference.live import LivePolicy
from speechbrain_ee.inference.policies import Policies
from tests.spoken import spoken

LAYERS = (2, 4, 6)
ENTROPY = ExitPolicy("entropy", LAYERS, -0.3, "wer=+5%", "naive")


def dev_trace(utterances: int = 400) -> Trace:
    """Hard utterances need more layers, and entropy tells."""
    records = []
    for number, hard in enumerate(np.random.default_rng(0).random(utterances)):
        exits = []
        for place, layer in enumerate(LAYERS):
            doubt = max(0.0, float(hard) - 0.3 * place)
            evidence = {"entropy": doubt, "max_prob": 1 - doubt / 2}
            exits.append(
                ExitRecord(
                    layer,
                    errors=int(5 * doubt),
                    evidence=evidence,
                    macs=1000 * layer,
                )
            )
        records.append(
            UtteranceRecord(
                f"u{number}", "dev", "a b c d e f", tuple(exits), 1.0
            )
        )
    return Trace(TraceHeader("tiny", "greedy", LAYERS), tuple(records))


@pytest.fixture
def policies():
    shipped = {"entropy.naive": ENTROPY}
    return Policies(LAYERS, shipped, "entropy.naive", dev_trace())


@pytest.mark.parametrize("given", [2, "2", " 2 ", FixedExit(2)])
def test_an_exit(policies, given):
    live = policies.resolve(given)
    assert (live.exits, live.layers, live.scorer) == ((2,), (4,), None)


def test_the_last_exit_and_the_default(policies):
    assert policies.resolve("last").layers == (6,)
    assert policies.resolve().rule.threshold == -0.3
    assert Policies(LAYERS).resolve().layers == (6,)


def test_objects(policies):
    rule = ThresholdPolicy("max_prob", 0.9)
    assert policies.resolve(rule).scorer.criterion.name == "max_prob"
    assert policies.resolve(ENTROPY).layers == LAYERS
    live = LivePolicy.fixed(1, LAYERS)
    assert policies.resolve(live) is live


def test_a_file(policies, tmp_path):
    path = tmp_path / "mine.yaml"
    write_policy(path, ENTROPY)
    for given in (path, str(path)):
        live = policies.resolve(given)
        assert live.rule.threshold == -0.3
        assert live.name == "mine.yaml"


def test_a_budget_is_calibrated_on_the_models_own_data(policies):
    live = policies.resolve("layers=3.5")
    expected = calibrate_trace(dev_trace(), "entropy", "layers=3.5", "naive")
    assert live.rule.threshold == expected.threshold
    assert expected.calibration.avg_layer <= 3.5


def test_shares_of_what_the_last_exit_takes(policies):
    by_macs = policies.resolve("macs=60%")
    assert (
        by_macs.rule.threshold
        == policies.resolve("macs=3600").rule.threshold
        == policies.resolve("layers=3.6").rule.threshold
        == policies.resolve("layers=60%").rule.threshold
    )
    with pytest.raises(InputError, match="even the first exit"):
        policies.resolve("macs=20%")


def test_larger_budgets_stop_later(policies):
    limits = [
        policies.resolve(f"macs={share}%").rule.threshold
        for share in (40, 60, 80, 100)
    ]
    assert limits == sorted(limits)
    assert limits[0] < limits[-1]


def test_word_errors_are_kept_with_high_probability(policies):
    live = policies.resolve("wer=+2%")
    expected = calibrate_trace(dev_trace(), "entropy", "wer=+2%", "ltt")
    assert live.rule.threshold == expected.threshold


def test_another_criterion(policies):
    live = policies.resolve("max_prob:layers=3.5")
    assert live.scorer.criterion.name == "max_prob"
    entropy = policies.resolve("layers=3.5").rule.threshold
    # max_prob is 1 - entropy / 2 here: the same utterances stop.
    assert live.rule.threshold == pytest.approx(1 + entropy / 2, abs=1e-6)


def test_a_budget_that_cannot_be_promised_is_said(caplog):
    policies = Policies(LAYERS, calibration=dev_trace(8))
    with caplog.at_level(logging.WARNING):
        live = policies.resolve("wer=+0.1%")
    assert "no threshold holds it" in caplog.text
    assert live.rule.threshold == np.inf


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("fast", r"entropy\.naive.*exit \(1 to 3, or last\)"),
        ("0", "exits 1 to 3"),
        (4, "exits 1 to 3"),
        ("layers=abc", "valid forms"),
        ("entropie:layers=3", "valid criteria"),
        ("missing.yaml", "no file"),
    ],
)
def test_what_is_not_understood(policies, given, message):
    with pytest.raises(InputError, match=message):
        policies.resolve(given)


def test_a_budget_without_calibration_data():
    with pytest.raises(InputError, match=r"calibration\.jsonl\.gz"):
        Policies(LAYERS).resolve("macs=50%")


@pytest.mark.parametrize(
    ("text", "criterion", "threshold"),
    [
        ("entropy:0.9", "entropy", -0.9),
        ("max_prob:0.9", "max_prob", 0.9),
        (" entropy : 0 ", "entropy", 0.0),
        ("tsallis_min:alpha=0.5:2e-1", "tsallis_min:alpha=0.5", -0.2),
        ("agreement:-0.5", "agreement", -0.5),
    ],
)
def test_a_criterion_with_a_threshold(text, criterion, threshold) -> None:
    live = Policies(LAYERS).resolve(text)
    assert live.rule.criterion == criterion
    assert live.rule.threshold == threshold
    assert (live.layers, live.name) == (LAYERS, text.strip())


def test_the_direction_is_right():
    rule = Policies(LAYERS).resolve("entropy:0.9").rule
    scores_B = -np.array([0.8, 0.9, 1.0])
    assert rule.stop(1, scores_B).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entropie:0.9", "valid criteria"),
        ("entropy:-0.9", "entropy:0.9 stops where it is at most 0.9"),
        ("entropy:nan", "none of this model's policies"),
        ("entropy:", "threshold such as entropy:0.9"),
    ],
)
def test_what_no_threshold_is(text, message) -> None:
    with pytest.raises(InputError, match=message):
        Policies(LAYERS).resolve(text)


def test_a_threshold_beside_all_values_is_said(caplog) -> None:
    policies = Policies(LAYERS, calibration=spoken(layers=LAYERS))
    policies.resolve("entropy:0.3")
    assert not caplog.records
    policies.resolve("entropy:9")
    assert "entropy:9: all" in caplog.text and "the first exit" in caplog.text
    policies.resolve("entropy:0")
    assert "the last exit" in caplog.text and "between" in caplog.text


def test_a_device_takes_the_same() -> None:
    found = Policies(LAYERS, measures=("entropy",)).resolve("entropy:0.9")
    assert found.rule.threshold == -0.9 and found.layers == LAYERS
    with pytest.raises(InputError, match="max_prob, which is not known here"):
        Policies(LAYERS, measures=("entropy",)).resolve("max_prob:0.9")


def test_numbers_are_short_and_can_be_used() -> None:
    outcomes = Outcomes(
        np.zeros((1, 2), int),
        np.array([9]),
        np.array([4, 8]),
        np.array([[7278331.0, 9e6]]),
    )
    with pytest.raises(InputError) as told:
        Budget("macs", 5339322.909).check(outcomes, "dev")
    said, least = re.findall(r"macs=\S+?[kMGT]", str(told.value))
    assert (said, least) == ("macs=5.34M", "macs=7.28M")
    Budget.parse(least).check(outcomes, "dev")
    assert "26.8M multiply" in Budget("macs", 26839322.9).words
    exact = Budget("macs", 5339322.909)
    assert Budget.parse(str(exact)) == exact
