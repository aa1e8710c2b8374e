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
FEW = settings(max_examples=40, deadline=None)


@FEW
@given(st.integers(0, 10_000))
def test_distance_is_the_kolmogorov_smirnov_statistic(seed):
    rng = np.random.default_rng(seed)
    one_N = rng.normal(size=33).round()  # as many as are stored
    other_N = rng.normal(0.3, 1, 50).round()
    change, score = ScoreDistribution.of(one_N).distance(other_N)
    one_at, other_at = (one_N <= score).mean(), (other_N <= score).mean()
    assert change == pytest.approx(other_at - one_at, abs=1e-6)
    exact = stats.ks_2samp(one_N, other_N).statistic
    # between two stored scores the new ones may differ a little more
    assert exact - 0.05 <= abs(change) <= exact + 1e-6


@FEW
@given(st.lists(st.integers(-99, 99), min_size=1, max_size=30))
def test_scores_are_no_distance_from_themselves(scores):
    scores_N = np.array([-np.inf, *scores])
    stored = ScoreDistribution.of(scores_N)
    for same_N in (scores_N, np.tile(scores_N, 3)):
        assert stored.distance(same_N)[0] == pytest.approx(0, abs=1e-6)
    assert list(stored.scores) == sorted(set(stored.scores))
    for score, share in zip(stored.scores, stored.shares):
        assert share == pytest.approx(np.mean(scores_N <= score), abs=1e-6)
    assert stored.shares[-1] == 1


def test_warning_names_the_exit_and_the_direction():
    scores_NE = np.random.default_rng(0).normal(size=(500, 3))
    stored = distributions(scores_NE)
    moved_NE = scores_NE + [0.0, -1.0, 5.0]  # the last is not compared
    assert score_warnings(stored, 500, scores_NE, LAYERS) == []
    for by, direction in ((0.0, "less"), (2.0, "more")):
        moved_NE[:, 1] += by
        (text,) = score_warnings(stored, 500, moved_NE, LAYERS)
        assert "layer 4" in text and "1 of 2 exits" in text
        assert f"{direction} ready" in text
    assert score_warnings((), 0, moved_NE, LAYERS) == []


def test_policy_warns_by_its_own_criterion():
    entropy_NE = np.random.default_rng(0).random((400, 3))
    ids = [f"u{n}" for n in range(400)]

    def shifted(by, layers=LAYERS):
        return Evidence(np.array(layers), ids, {"entropy": entropy_NE + by})

    bare = ExitPolicy("entropy", LAYERS, -0.1, "wer=+5%", "ltt")
    scores_NE = get_criterion("entropy").scores(shifted(0))
    policy = ExitPolicy(
        *("entropy", LAYERS, -0.1, "wer=+5%", "ltt"),
        calibration=CalibrationSummary("m", "greedy", ("s",), 400, 9, 1, 1, 3),
        distributions=distributions(scores_NE),
    )
    assert shift_warnings(policy, shifted(0)) == []
    (text,) = shift_warnings(policy, shifted(0.3))
    assert "less ready" in text
    assert shift_warnings(bare, shifted(0.3)) == []
    with pytest.raises(InputError, match=r"\[2, 4, 8\].*\[2, 4, 6\]"):
        shift_warnings(policy, shifted(0, (2, 4, 8)))
    with pytest.raises(InputError, match="no evidence 'entropy'"):
        shift_warnings(policy, Evidence(np.array(LAYERS), ["u"], {}))


@pytest.mark.parametrize("criterion", ["entropy", "agreement"])
def test_real_sets_differ_and_their_halves_do_not(shared_folder, criterion):
    path = shared_folder / "traces" / "wav2vec2-ee.greedy.jsonl.gz"
    trace = read_trace(path)
    layers = trace.header.exit_layers
    clean_NE, other_NE = (
        get_criterion(criterion).scores(trace.subset(name).evidence)
        for name in ("test-clean", "test-other")
    )
    for one_NE, new_NE in ((clean_NE, other_NE), (other_NE, clean_NE)):
        stored = distributions(one_NE)
        assert score_warnings(stored, len(one_NE), new_NE, layers)
        alarms = 0
        for seed in range(200):
            mixed = np.random.default_rng(seed).permutation(len(one_NE))
            seen, unseen = np.array_split(mixed, 2)
            stored = distributions(one_NE[seen])
            alarms += len(
                score_warnings(stored, len(seen), one_NE[unseen], layers)
            )
        assert alarms <= 10
