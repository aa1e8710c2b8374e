"""Hypotheses with scores: score per token and posterior.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from speechbrain_ee.exits.decoding.beam_search import NBest, Scored


def test_score_per_token() -> None:
    """The end counts as a token where it was said."""
    assert Scored((5, 6), -6.0).score_per_token == -2.0
    assert Scored((5, 6), -6.0, complete=False).score_per_token == -3.0
    assert Scored((), -6.0).score_per_token == -6.0
    assert math.isnan(Scored((), math.nan, (), False).score_per_token)


@given(st.lists(st.floats(-5000, 0), min_size=1, max_size=12))
def test_posterior(scores: list[float]) -> None:
    """A softmax over the scores; also where the chosen one's is not best."""
    nbest = NBest(tuple(Scored((n,), s) for n, s in enumerate(scores)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        posterior = nbest.posterior
    assert posterior == pytest.approx(float(softmax(scores)[0]), abs=1e-12)
    shifted = NBest(tuple(Scored((), s - 100.0) for s in scores))
    assert posterior == pytest.approx(shifted.posterior, rel=1e-6, abs=1e-12)


def test_chosen_one_is_the_first() -> None:
    """Whatever the scores of the others are."""
    nbest = NBest((Scored((3,), -2.0), Scored((4, 4), -1.0)), steps=3)
    assert nbest.best is nbest.hypotheses[0]
    assert nbest.tokens == (3,)
    assert NBest(nbest.hypotheses[:1]).posterior == 1.0


def test_unknown_score() -> None:
    """No posterior without scores, so that no threshold is passed."""
    assert math.isnan(NBest((Scored((3,)),)).posterior)
