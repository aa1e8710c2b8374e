"""Shift: silence on data of the same kind, a warning on others.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.policy_file import (
    CalibrationSummary,
    ExitPolicy,
    ScoreDistribution,
)
from speechbrain_ee.exits.calibration.shift import (
    distributions,
    score_warnings,
    shift_warnings,
)
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.trace_file import read_trace

LAYERS = (2, 4, 6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_distance_is_the_kolmogorov_smirnov_statistic(seed, with_ties):
    """Exactly, if there are no more scores than are stored."""
    rng = np.random.default_rng(seed)
    one_N, other_N = rng.normal(size=33), rng.normal(0.3, 1, 50)
    if with_ties:
        one_N, other_N = one_N.round(), other_N.round()
    change, score = ScoreDistribution.of(one_N).distance(other_N)
    one_at = (one_N <= score + 1e-5).mean()
    assert change == pytest.approx((other_N <= score).mean() - one_at, abs=0.04)
    exact = stats.ks_2samp(one_N, other_N).statistic
    # between two stored scores the new ones may differ a little more
    assert exact - 0.05 <= abs(change) <= exact + 0.05 or not with_ties


def test_first_exit_without_any_score_says_nothing():
    scores_N = np.full(50, -np.inf)
    stored = ScoreDistribution.of(scores_N)
    assert stored == ScoreDistribution((-np.inf,), (1.0,))
    assert stored.distance(scores_N)[0] == 0


def test_warning_names_the_exit_and_the_direction():
    rng = np.random.default_rng(0)
    scores_NE = rng.normal(size=(500, 3))
    moved_NE = scores_NE.copy()
    moved_NE[:, 1] -= 1.0
    stored = distributions(scores_NE)
    assert score_warnings(stored, 500, scores_NE, LAYERS) == []
    (text,) = score_warnings(stored, 500, moved_NE, LAYERS)
    assert "layer 4" in text
    assert "1 of 2 exits" in text
    assert "less ready" in text
    moved_NE[:, 1] += 2.0
    (text,) = score_warnings(stored, 500, moved_NE, LAYERS)
    assert "more ready" in text
    assert score_warnings((), 0, moved_NE, LAYERS) == []


def test_last_exit_is_not_compared():
    rng = np.random.default_rng(0)
    scores_NE = rng.normal(size=(500, 3))
    stored = distributions(scores_NE)
    scores_NE[:, -1] += 5
    assert score_warnings(stored, 500, scores_NE, LAYERS) == []


def evidence_of(entropy_NE, layers=LAYERS):
    ids = [f"u{n}" for n in range(len(entropy_NE))]
    return Evidence(np.array(layers), ids, {"entropy": entropy_NE})


def test_policy_warns_by_its_own_criterion():
    rng = np.random.default_rng(0)
    entropy_NE = rng.random((400, 3))
    evidence = evidence_of(entropy_NE)
    policy = ExitPolicy(
        "entropy",
        LAYERS,
        -0.1,
        "wer=+5%",
        "ltt",
        calibration=CalibrationSummary("m", "greedy", ("s",), 400, 9, 1, 1, 3),
        distributions=distributions(get_criterion("entropy").scores(evidence)),
    )
    assert shift_warnings(policy, evidence) == []
    (text,) = shift_warnings(policy, evidence_of(entropy_NE + 0.3))
    assert "less ready" in text
    bare = ExitPolicy("entropy", LAYERS, -0.1, "wer=+5%", "ltt")
    assert shift_warnings(bare, evidence_of(entropy_NE + 0.3)) == []
    with pytest.raises(InputError, match=r"\[2, 4, 8\].*\[2, 4, 6\]"):
        shift_warnings(policy, evidence_of(entropy_NE, (2, 4, 8)))
    with pytest.raises(InputError, match="no evidence 'entropy'"):
        shift_warnings(policy, Evidence(np.array(LAYERS), ["u"], {}))


@pytest.mark.parametrize("criterion", ["entropy", "agreement"])
def test_real_sets_differ_and_their_halves_do_not(shared_folder, criterion):
    path = shared_folder / "traces" / "wav2vec2-ee.greedy.jsonl.gz"
    trace = read_trace(path)
    scores_NE = get_criterion(criterion).scores(trace.evidence)
    of_set = np.array([record.set for record in trace.records])
    clean_NE, other_NE = (
        scores_NE[of_set == name] for name in ("test-clean", "test-other")
    )
    layers = trace.header.exit_layers
    for one_NE, new_NE in ((clean_NE, other_NE), (other_NE, clean_NE)):
        stored = distributions(one_NE)
        assert score_warnings(stored, len(one_NE), new_NE, layers)
        alarms = 0
        for seed in range(200):
            mixed = np.random.default_rng(seed).permutation(len(one_NE))
            seen, unseen = np.array_split(mixed, 2)
            alarms += bool(
                score_warnings(
                    distributions(one_NE[seen]),
                    len(seen),
                    one_NE[unseen],
                    layers,
                )
            )
        assert alarms <= 10
