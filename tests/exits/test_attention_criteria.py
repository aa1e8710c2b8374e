"""What an attention decoder's hypotheses say: by hand, and where it is asked.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from speechbrain_ee.exits.criteria import (
    criterion_names,
    get_criterion,
    get_measure,
    measure_all,
    measure_names,
)
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding.beam_search import NBest, Scored
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.models.heads import ExitOutput
from tests.exits.test_causality import VARIANTS

NAMES = (
    "beam_score",
    "beam_posterior",
    "token_confidence",
    "token_confidence_min",
)
SURE = NBest(
    (
        Scored((4, 5), -0.6, (-0.1, -0.3, -0.2)),
        Scored((4,), -3.0, (-0.1, -2.9)),
        Scored((5, 5, 3), -2.0, (-1.0, -0.5, -0.25, -0.25)),
    ),
    steps=4,
)
# cut at the greatest length: the end was never said
CUT = NBest((Scored((3, 3), -5.0, (-2.0, -3.0), complete=False),), steps=2)
# the second is the more probable one, but not per token
LONG = NBest(
    (
        Scored((6, 6, 6), -2.0, (-0.5, -0.5, -0.5, -0.5)),
        Scored((), -1.0, (-1.0,)),
    ),
    steps=4,
)
EMPTY = NBest((Scored((), -0.01, (-0.01,)), Scored((3,), -9.0, (-4.0, -5.0))))
UNKNOWN = NBest((Scored((), math.nan, (), complete=False),), steps=1)


def view_of(found: Sequence[NBest] | None, frames: int = 3) -> ExitView:
    """A batch of so many utterances, and what was found for each."""
    count = 2 if found is None else len(found)
    output = ExitOutput(
        torch.randn(count, frames, 7).log_softmax(-1),
        torch.full((count,), frames),
        layer=2,
    )
    return ExitView(output, nbest=found)


def by_name(found: Sequence[NBest]) -> dict[str, list[float]]:
    """All measures of a batch, as lists."""
    measured = measure_all(view_of(found), decoded=True)
    return {name: values_B.tolist() for name, values_B in measured.items()}


def by_hand(nbest: NBest) -> dict[str, float]:
    """The definitions, from the first hypothesis that says something."""
    best = nbest.hypotheses[0]
    said = len(best.tokens) + (1 if best.complete else 0)
    shares = [math.exp(one.score) for one in nbest.hypotheses]
    return {
        "beam_score": best.score / said,
        "beam_posterior": shares[0] / sum(shares),
        "token_confidence": math.prod(map(math.exp, best.log_probs))
        ** (1 / len(best.log_probs)),
        "token_confidence_min": min(map(math.exp, best.log_probs)),
    }


def test_values_by_hand():
    found = by_name([SURE, CUT, LONG])
    assert tuple(found) == NAMES
    for row, nbest in enumerate((SURE, CUT, LONG)):
        for name, value in by_hand(nbest).items():
            assert found[name][row] == pytest.approx(value, rel=1e-6), name
    assert found["beam_score"] == pytest.approx([-0.2, -2.5, -0.5])
    assert found["beam_posterior"][1] == 1.0
    assert found["token_confidence_min"][0] == pytest.approx(math.exp(-0.3))


@pytest.mark.parametrize("nothing", [EMPTY, UNKNOWN])
@pytest.mark.parametrize("name", NAMES)
def test_who_says_nothing_is_least_ready(name, nothing):
    """However sure the decoder is that nothing was said."""
    hopeless = NBest(
        (
            Scored((3,), -150.0, (-75.0, -75.0)),
            Scored((4,), 0.0, (0.0, 0.0)),
        )
    )
    values = by_name([nothing, SURE, CUT, LONG, hopeless])[name]
    scores_NE = get_criterion(name).scores(
        Evidence(
            np.array([2]),
            [f"u{row}" for row in range(5)],
            {name: np.array(values)[:, None]},
        )
    )
    assert np.isfinite(scores_NE).all()
    assert (scores_NE[0] < scores_NE[1:4]).all()
    assert scores_NE[0] <= scores_NE[4]


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_score_is_no_readiness(name):
    """A trace holds finite numbers only."""
    broken = NBest((Scored((3,), math.nan, (math.nan, math.nan)),))
    value, sure = by_name([broken, SURE])[name]
    assert math.isfinite(value) and value < sure


@pytest.mark.parametrize("name", NAMES)
def test_other_utterances_change_nothing(name):
    batch = [SURE, EMPTY, CUT, LONG, UNKNOWN]
    whole = by_name(batch)[name]
    assert by_name(batch[::-1])[name] == whole[::-1]
    assert [by_name([one])[name][0] for one in batch] == whole


def test_the_frames_change_nothing():
    """They are the CTC head's business."""
    views = [view_of([SURE, CUT], frames) for frames in (1, 9)]
    first, second = (measure_all(view, decoded=True) for view in views)
    for name in NAMES:
        assert torch.equal(first[name], second[name])


def test_they_are_taken_only_where_something_was_decoded():
    without, found = view_of(None), view_of([SURE, CUT])
    assert tuple(measure_all(found, decoded=True)) == NAMES
    assert measure_all(without, decoded=True) == {}
    for view in (without, found):
        cheap = measure_all(view)
        assert "entropy" in cheap and not {*cheap} & {*NAMES}
    # asked for by name
    asked = ("entropy", "beam_score")
    assert tuple(measure_all(found, asked)) == asked
    assert tuple(measure_all(without, asked)) == ("entropy",)


def test_all_that_decode_say_so():
    """What is charged for a search, in a criterion as in its measure."""
    assert NAMES == tuple(
        name for name in measure_names() if get_measure(name).decodes
    )
    assert NAMES == tuple(
        name for name in criterion_names() if get_criterion(name).decodes
    )
    assert {*NAMES} <= {*VARIANTS}
    for name in NAMES:
        chosen = get_criterion(name)
        assert chosen.needs == (name,)
        # the search is charged by the trace, looking at it is free
        assert chosen.macs(100, 30) == 0
        values_NE = np.array([[0.2], [0.7]])
        evidence = Evidence(np.array([2]), ["a", "b"], {name: values_NE})
        assert chosen.scores(evidence).tolist() == [[0.2], [0.7]]
