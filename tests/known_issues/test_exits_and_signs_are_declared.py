"""Which exits a policy is for, and which way a criterion points, is declared.

Trap avoided: guessing them. Exits of a trace that has some of a model's exits
were taken for the model's first ones, so that a deadline measured at layers 1,
3 and 6 ran layers 1, 2 and 3; the sign of a criterion was read off three
numbers at one exit, so that one whose scores depend on the exit scored
otherwise live than on the trace.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy
from speechbrain_ee.exits.criteria import (
    criterion_names,
    get_criterion,
    registry,
)
from speechbrain_ee.exits.criteria.frames import max_prob
from speechbrain_ee.exits.criteria.registry import criterion, measure
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.policy import ThresholdPolicy
from speechbrain_ee.inference.live import LivePolicy, LiveScorer
from speechbrain_ee.inference.policies import Policies
from speechbrain_ee.inference.transcribe import make_controller
from tests.helpers import padded
from tests.inference import controller_data
from tests.inference.live_runs import (
    EXITS,
    live_model,
    runner_of,
    thresholds_between,
    trace_of,
    waves,
)

MODEL = (1, 2, 3, 4, 5, 6)  # the layers of its exits
MEASURED = controller_data.LAYERS  # 2, 4, 6: those of its calibration


def recogniser(policy: ExitPolicy | int | str) -> SimpleNamespace:
    """What a deadline asks of a recogniser that was calibrated in part."""
    policies = Policies(MODEL)
    return SimpleNamespace(
        folder=SimpleNamespace(calibration=controller_data.trace_of()),
        model=SimpleNamespace(exit_layers=MODEL),
        policy=policies.resolve(policy),
        policies=policies,
        runner=SimpleNamespace(decoding=SimpleNamespace(name="ctc_greedy")),
    )


@pytest.mark.parametrize(
    ("policy", "exits"),
    [
        ("last", [(2,), (4,), (6,)]),
        (4, [(2,), (4,)]),
        (5, [(2,), (4,)]),
        (ExitPolicy("entropy", MEASURED, -0.3, "layers=5", "naive"), None),
        (
            ExitPolicy("entropy", MEASURED, (-0.3, -0.2), "layers=5", "naive"),
            None,
        ),
    ],
    ids=["last", "exit 4", "exit 5", "threshold", "thresholds"],
)
def test_a_deadline_runs_the_exits_that_were_measured(policy, exits) -> None:
    asr = recogniser(policy)
    found = [rung.policy for rung in make_controller(asr, 0.1).ladder]
    # As the command hands them to the recogniser.
    live = [asr.policies.resolve(each) for each in found]
    if exits is not None:
        assert [each.exits for each in live] == exits
        return
    assert len(live) > 2 and live[-1] == asr.policy
    for each in live:
        assert (each.exits, each.layers) == ((2, 4, 6), MEASURED)
        assert each.decides[-1] and each.rule.exits == 3


def test_a_deadline_says_what_it_does_to_the_policy(caplog) -> None:
    """An exit that was asked for is not lowered without a word."""
    with caplog.at_level("INFO", logger="speechbrain_ee"):
        make_controller(recogniser(4), 0.1)
        make_controller(recogniser(2), 0.1)
    first, second = caplog.messages
    assert "exit 4" in first and "stop earlier" in first and "33 %" in first
    assert "nothing is cheaper than the policy exit 2" in second


def test_a_deadline_that_knows_no_costs_says_so() -> None:
    with pytest.raises(InputError, match=r"exit 1 costs.*exits 2, 4, 6"):
        make_controller(recogniser(1), 0.1)
    others = ExitPolicy("entropy", (2, 6), -0.3, "layers=5", "naive")
    with pytest.raises(InputError, match=r"\[2, 6\].*\[2, 4, 6\]"):
        make_controller(recogniser(others), 0.1)


@pytest.mark.parametrize("threshold", [-0.3, (-0.3, -0.2)])
def test_a_device_follows_the_exits_of_a_policy(threshold) -> None:
    policy = ExitPolicy("entropy", MEASURED, threshold, "layers=5", "naive")
    live = LivePolicy.of(policy, MODEL)
    found = Policies(MODEL, measures=("entropy",)).resolve(live)
    assert (found.exits, found.layers) == (live.exits, live.layers)
    assert found.rule == live.rule


@pytest.fixture
def by_exit() -> Iterator[str]:
    """A criterion whose scores depend on the exit."""
    name = "sure_by_exit"
    measure(name, formula="p", source="this test")(
        lambda view: max_prob(view)  # a function of its own
    )

    @criterion(name, needs=(name,), formula="k p_k", source="this test")
    def sure_by_exit(evidence: Evidence) -> np.ndarray:
        return evidence.column(name) * np.arange(1, evidence.shape[1] + 1)

    yield name
    registry._MEASURES.pop(name)
    registry._CRITERIA.pop(name)


def test_scores_that_depend_on_the_exit_are_the_traces(by_exit) -> None:
    """At one threshold, and where the first exits are passed by."""
    model, audio = live_model(), waves()
    trace = trace_of(model, audio)
    scores_NE = get_criterion(by_exit).scores(trace.evidence)
    assert LiveScorer(by_exit, EXITS).remembers
    between = thresholds_between(scores_NE)
    for limits in (*between, (np.inf, *between[1:3]), (np.inf, np.inf, 0.0)):
        rule = ThresholdPolicy(by_exit, limits)
        policy = LivePolicy.of(rule, EXITS)
        heard = runner_of(model).run(*padded(audio), policy)
        chosen = rule.choose(scores_NE)
        assert [one.exit - 1 for one in heard] == chosen.tolist()
        for one, column, scores in zip(heard, chosen, scores_NE):
            if column < len(EXITS) - 1:
                assert one.score == pytest.approx(scores[column], rel=1e-3)


def test_a_device_reads_every_exit_for_such_scores(by_exit) -> None:
    graphs = Policies(EXITS, measures=(by_exit, "max_prob"))
    for name, reads in ((by_exit, True), ("max_prob", False)):
        rule = ThresholdPolicy(name, (np.inf, 0.5, 0.5), len(EXITS))
        assert graphs.resolve(rule).reads[:2] == (reads, True)


def test_a_declared_sign_is_what_the_criterion_does() -> None:
    """Of every criterion that there is, at every exit."""
    values_NE = np.random.default_rng(0).normal(size=(4, 3))
    signed = []
    for found in map(get_criterion, criterion_names()):
        if found.sign is None:
            continue
        signed.append(found.name)
        (needed,) = found.needs
        evidence = Evidence(
            np.array([2, 4, 6]), list("abcd"), {needed: values_NE}
        )
        expected_NE = found.sign * values_NE
        assert np.array_equal(found.scores(evidence), expected_NE), found.name
    assert {"entropy", "max_prob", "plausibility", "unseen_words"} <= {*signed}
    assert not {"learned", "combination", "agreement", "fixed"} & {*signed}


def test_a_sign_is_for_one_piece_of_evidence() -> None:
    text = {"formula": "", "source": "", "higher_is_ready": True}
    with pytest.raises(ValueError, match="one piece of evidence"):
        criterion("of_two", needs=("a", "b"), **text)


@pytest.mark.parametrize("threshold", [np.nan, (-0.3, np.nan)])
def test_thresholds_are_numbers_for_the_exits_of_the_model(threshold) -> None:
    """No score reaches NaN, and three exits are not the first three of six."""
    with pytest.raises(InputError, match="3 exits, and this model has 6"):
        Policies(MODEL).resolve(ThresholdPolicy("entropy", -0.3, exits=3))
    with pytest.raises(InputError, match="nan.* is not a number"):
        ThresholdPolicy("entropy", threshold)
    with pytest.raises(InputError, match="nan.* is not a number"):
        ExitPolicy("entropy", (2, 4, 6), threshold, "layers=5", "naive")
