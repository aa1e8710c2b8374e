"""One stop rule, one set of policies: tables predict what inference does.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.ladder import Search
from speechbrain_ee.exits.policy import choices_NT, first_exit
from speechbrain_ee.inference.live.policy import LivePolicy
from speechbrain_ee.inference.onnx.policy import HostEvidence, HostPolicy

EDGES = st.sampled_from([-np.inf, np.inf, np.nan, -1.0, 0.0, 0.5])
LIMITS = st.sampled_from([-np.inf, np.inf, -1.0, 0.0, 0.25, 0.5])


def in_words(scores, limits):
    """Minus infinity always stops, plus infinity and NaN scores never."""
    for place, (score, limit) in enumerate(zip(scores, limits)):
        reached = not np.isnan(score) and score >= limit
        if limit == -np.inf or (reached and limit != np.inf):
            return place
    return len(scores) - 1


def alive(rule, scores):
    """Where utterances leave that are asked at one exit after the other."""
    rows, exits = scores.shape
    taken_N = np.full(rows, -1)
    for exit in range(1, exits + 1):
        stop_N = np.asarray(rule.stop(exit, scores[:, exit - 1]))
        taken_N[stop_N & (taken_N < 0)] = exit - 1
    return taken_N.tolist()


@given(
    hnp.arrays(
        float, st.tuples(st.integers(1, 6), st.integers(2, 4)), elements=EDGES
    ),
    st.lists(LIMITS, min_size=3, max_size=3),
    st.booleans(),
)
def test_all_users_of_the_stop_rule_agree(scores_NE, limits, per_exit):
    """Tables, sweeps, calibration, live inference, graphs on a device."""
    exits = scores_NE.shape[1]
    limits_K = np.array(limits if per_exit else limits[:1] * 3)[: exits - 1]
    threshold = tuple(limits_K.tolist()) if per_exit else limits[0]
    layers = tuple(range(1, exits + 1))
    wanted = [in_words(row, limits_K) for row in scores_NE]
    policy = ExitPolicy("entropy", layers, threshold, "wer=+5%", "naive")
    assert first_exit(scores_NE, threshold).tolist() == wanted
    assert policy.choose(scores_NE).tolist() == wanted
    asked = limits_K[None] if per_exit else limits[:1]
    assert choices_NT(scores_NE, asked)[:, 0].tolist() == wanted
    live = LivePolicy.of(policy, layers)
    host = HostPolicy.thresholds(policy, layers, ("entropy",))
    for rule in (policy, live.rule, host.rule):
        assert alive(rule, scores_NE) == wanted
        assert alive(rule, torch.from_numpy(scores_NE)) == wanted
    looks = HostEvidence(host, np.arange(len(scores_NE)))
    for place, limit in enumerate([*limits_K, -np.inf]):
        assert live.decides[place] == looks.looks(place) == (limit != np.inf)
    # the search of a calibration knows the sum of every threshold it tries
    places_NE = np.broadcast_to(np.arange(exits), scores_NE.shape)
    search = Search.on(scores_NE)
    for exit, grid in enumerate(search.grids):
        sums_G = search.totals(limits_K, exit, places_NE)
        for limit, total in zip(grid, sums_G, strict=True):
            tried_K = limits_K.copy()
            tried_K[exit] = limit
            choices = [in_words(row, tried_K) for row in scores_NE]
            assert total == sum(choices)
