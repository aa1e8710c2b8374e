"""Weighted z-scores against their formula; the baselines.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import (
    get_criterion,
)
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.policy import first_exit
from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)

NAMES = ("entropy", "max_prob")


@pytest.fixture
def trace():
    rng = np.random.default_rng(0)
    values = rng.random((30, 2, 2))
    records = tuple(
        UtteranceRecord(
            f"u{row}",
            "dev",
            "a b",
            tuple(
                ExitRecord(layer, "a b", None, dict(zip(NAMES, cell.tolist())))
                for layer, cell in zip((2, 4), values[row])
            ),
        )
        for row in range(30)
    )
    return Trace(TraceHeader("tiny", "greedy", (2, 4)), records)


def test_formula(trace):
    combined = ZScores.fit(trace, {"entropy": 2.0, "max_prob": 0.5})
    entropy = trace.evidence_NE("entropy")
    max_prob = trace.evidence_NE("max_prob")
    expected = 2 * (entropy.mean() - entropy) / entropy.std()
    expected += 0.5 * (max_prob - max_prob.mean()) / max_prob.std()
    scores_NE = combined.scores(trace.evidence)
    assert scores_NE == pytest.approx(expected)
    held = trace.with_evidence("combination", scores_NE)
    found = get_criterion("combination").scores(held.evidence)
    assert found.tolist() == scores_NE.tolist()
    flat = trace.with_evidence("max_prob", np.full((30, 2), 0.5))
    both = ZScores.fit(flat, NAMES).scores(flat.evidence)
    alone = ZScores.fit(flat, ["entropy"]).scores(flat.evidence)
    assert both == pytest.approx(alone)  # a constant adds nothing
    late = ZScores.fit(trace, ["agreement", "entropy"])
    assert np.isfinite(late.scores(trace.evidence)).all()


def test_rises_with_every_criterion_and_is_cut(trace):
    combined = ZScores.fit(trace, NAMES)
    steps = np.linspace(0, 1, 20)[:, None]
    ids = [f"u{n}" for n in range(20)]
    for name, values in (("entropy", 1 - steps), ("max_prob", steps)):
        columns = {n: np.full((20, 1), 0.5) for n in NAMES} | {name: values}
        scores = combined.scores(Evidence(np.array([2]), ids, columns))[:, 0]
        assert (np.diff(scores) > 0).all()
    wild = {"entropy": np.array([[1e9]]), "max_prob": np.array([[-1e9]])}
    lowest = combined.scores(Evidence(np.array([2]), ["u"], wild))
    assert lowest.tolist() == [[-12.0]]


@pytest.mark.parametrize(
    "weights, message",
    [
        ({}, "at least one criterion"),
        ([], "at least one criterion"),
        ({"entropy": 0.0}, "entropy has 0.0"),
        ({"entropy": -1.0}, "entropy has -1.0"),
        ({"entropy": float("nan")}, "entropy has nan"),
        (["entropi"], "entropi"),
        (["nbest_posterior"], "nbest_posterior"),
    ],
)
def test_weights_that_are_not_possible(trace, weights, message):
    with pytest.raises(InputError, match=message):
        ZScores.fit(trace, weights)


def table(rows, layers):
    return Evidence(np.array(layers), [f"utterance-{n}" for n in range(rows)])


def test_random_is_uniform_and_independent():
    scores_NE = get_criterion("random").scores(table(4000, range(6)))
    assert 0 <= scores_NE.min() and scores_NE.max() < 1
    fixed_NE = get_criterion("fixed").scores(table(4, [2, 4, 6]))
    assert first_exit(fixed_NE, 2).tolist() == [1] * 4
    for column in scores_NE.T:
        # 5 standard deviations of the mean and of a tenth's share
        assert abs(column.mean() - 0.5) < 5 / np.sqrt(12 * 4000)
        shares = np.histogram(column, 10, (0, 1))[0] / 4000
        assert abs(shares - 0.1).max() < 5 * np.sqrt(0.09 / 4000)
    # a hash: the same in every process
    assert scores_NE[:2, 0].tolist() == [0.4347554789096474, 0.8954134108410501]
    close = np.corrcoef(scores_NE.T) - np.eye(6)
    assert abs(close).max() < 5 / np.sqrt(4000)
