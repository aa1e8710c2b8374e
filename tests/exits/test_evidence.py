"""Evidence: changes between transcripts, and parts that keep them.

Authors
 * The speechbrain-ee contributors 2026
"""

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits import evidence as module
from speechbrain_ee.exits.evidence import Evidence

TEXTS = st.lists(st.sampled_from(["a", "bc", "caa"]), max_size=4).map(" ".join)
TABLES = st.tuples(st.integers(1, 6), st.integers(1, 5)).flatmap(
    lambda shape: st.lists(
        st.lists(TEXTS, min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    )
)


def evidence_of(hyps, **values):
    shape = len(hyps), len(hyps[0])
    return Evidence(
        np.arange(2, 2 * shape[1] + 1, 2),
        [f"u{i}" for i in range(shape[0])],
        {name: np.broadcast_to(v, shape) for name, v in values.items()},
        hyps,
    )


@given(TABLES, st.integers(1, 5))
def test_change_is_jiwers_character_error_rate(hyps, lag):
    change_NE = evidence_of(hyps).change_NE(lag)
    for row, texts in enumerate(hyps):
        assert np.isnan(change_NE[row, :lag]).all()
        for place in range(lag, len(texts)):
            before, after = texts[place - lag], texts[place]
            # an empty transcript agrees with nothing
            expected = jiwer.cer(before, after) if before and after else 1.0
            assert change_NE[row, place] == pytest.approx(expected)


def assert_same(one, two):
    assert one.shape == two.shape and one.names == two.names
    assert list(one.ids) == list(two.ids)
    assert one.layers_E.tolist() == two.layers_E.tolist()
    for name in one.values:
        np.testing.assert_array_equal(one.column(name), two.column(name))
    if one.hyps is not None:
        assert [list(t) for t in one.hyps] == [list(t) for t in two.hyps]
        for lag in range(1, 5):
            np.testing.assert_array_equal(
                one.change_NE(lag), two.change_NE(lag)
            )


@given(TABLES, st.data())
def test_parts_are_the_evidence_of_the_parts(hyps, data):
    count, exits = len(hyps), len(hyps[0])
    upto = data.draw(st.integers(1, exits))
    rows = data.draw(st.lists(st.integers(0, count - 1), min_size=1))
    warm = evidence_of(hyps, e=np.arange(exits) / 8)
    for lag in range(1, 5):
        warm.change_NE(lag)
    cold = evidence_of([hyps[i][:upto] for i in rows], e=np.arange(upto) / 8)
    cold = Evidence(
        cold.layers_E, [f"u{i}" for i in rows], cold.values, cold.hyps
    )
    assert_same(warm.select(rows).upto(upto), cold)
    assert_same(warm.upto(upto).select(np.array(rows)), cold)


def test_parts_do_not_compare_again(monkeypatch):
    calls = []
    change = module.text_change
    monkeypatch.setattr(
        module,
        "text_change",
        lambda *texts: (calls.append(1), change(*texts))[1],
    )
    evidence = evidence_of([["a", "b", "c"]] * 4)
    whole_NE = evidence.change_NE(1)
    assert len(calls) == 8
    parts = (
        evidence.upto(2),
        evidence.select([1]),
        evidence.with_columns({"x": np.zeros((4, 3))}),
    )
    for part in parts:
        rows, exits = part.shape
        assert part.change_NE(1).shape == (rows, exits)
        assert part.upto(1).select([0]).change_NE(1).shape == (1, 1)
    assert evidence.change_NE(1) is whole_NE and len(calls) == 8


def test_further_columns():
    evidence = evidence_of([["a", "b"]], old=[1.0, 2.0], same=[0.0, 0.0])
    more = evidence.with_columns({"new": np.ones((1, 2)), "old": np.eye(2)[:1]})
    assert list(more.values) == ["new", "old", "same"]
    assert more.column("old").tolist() == [[1.0, 0.0]]
    assert evidence.column("old").tolist() == [[1.0, 2.0]]
    assert more.names == {"new", "old", "same", "transcripts"}


def test_what_is_missing_is_named():
    evidence = Evidence(np.array([2]), ["u"], {"e": np.ones((1, 1))}, None, "T")
    assert evidence.names == {"e"}
    with pytest.raises(InputError, match="T: no evidence 'x'.*present: e"):
        evidence.column("x")
    with pytest.raises(InputError, match="T: no transcripts"):
        evidence.change_NE(1)
    with pytest.raises(ValueError, match="lag"):
        evidence_of([["a", "b"]]).change_NE(0)
    with pytest.raises(ValueError, match="read-only"):
        evidence_of([["a", "b"]]).change_NE(1)[0, 1] = 0.0
