"""Traces in memory: columns, parts, and further evidence.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits import ExitRecord, Trace, TraceHeader, UtteranceRecord
from speechbrain_ee.exits.trace import evidence_columns, first_gap
from tests.exits.tiny_trace import HEADER, RECORDS

NAN = np.nan


def test_columns(caplog):
    trace = Trace(HEADER, RECORDS)
    assert trace.words_N.tolist() == [3, 2]
    assert trace.errors_NE.tolist() == [[2, 0], [3, 2]]
    assert trace.edits_NE3 is None
    assert trace.evidence_names == ("entropy",)
    assert "'max_prob' is left out: utterance 'u1'" in caplog.text
    assert trace.evidence_NE("entropy").shape == (2, 2)
    # 300 for 5 s, so half of it for 2.5 s and twice for 10 s
    assert trace.macs_NE.tolist() == [[50.0, 150.0], [200.0, 600.0]]
    with pytest.raises(InputError, match="'max_prob'.*present: entropy"):
        trace.evidence_NE("max_prob")


def test_subset_slices_what_is_known():
    trace = Trace(HEADER, RECORDS)
    fresh = trace.subset("other").errors_NE.tolist()
    trace.score()
    sliced = trace.subset("other")
    assert "errors_NE" in sliced.__dict__
    assert sliced.errors_NE.tolist() == fresh == [[3, 2]]
    assert trace.sets == ("clean", "other")
    with pytest.raises(InputError, match="'dev'.*clean, other"):
        trace.subset("dev")


def test_macs_of_the_utterance_come_first():
    exits = (ExitRecord(2, "a", macs=7), ExitRecord(4, "a", macs=9))
    trace = Trace(HEADER, (UtteranceRecord("u", "s", "a", exits, 5.0),))
    assert trace.macs_NE.tolist() == [[7.0, 9.0]]
    bare = Trace(TraceHeader("m", "d", (2, 4)), RECORDS)
    assert bare.macs_NE is None


def test_errors_come_from_hypotheses_where_there_are_any():
    mixed = Trace(HEADER, RECORDS).errors_NE.tolist()
    alone = [Trace(HEADER, (r,)).errors_NE.tolist()[0] for r in RECORDS]
    told = (ExitRecord(2, None, 7), ExitRecord(4, None, 1))
    row = UtteranceRecord("u", "s", "a b c", told)
    assert mixed == alone == [[2, 0], [3, 2]]
    assert Trace(HEADER, (row,)).errors_NE.tolist() == [[7, 1]]


@pytest.mark.parametrize(
    ("values_NE", "gap"),
    [
        ([[1, 2, 3], [4, 5, 6]], None),
        ([[NAN, 2, 3], [NAN, 5, 6]], None),
        ([[NAN, NAN, 3], [NAN, NAN, 6]], None),
        ([[NAN, 2, 3], [4, 5, 6]], (0, 0)),
        ([[NAN, 2, 3], [NAN, NAN, 6]], (1, 1)),
        ([[1, NAN, 3], [4, 5, 6]], (0, 1)),
        ([[1, 2, NAN], [4, 5, NAN]], (0, 2)),
        ([[NAN, NAN], [NAN, NAN]], (0, 0)),
    ],
)
def test_gaps(values_NE, gap):
    values_NE = np.array(values_NE, dtype=float)
    assert first_gap(values_NE) == gap
    records = tuple(
        UtteranceRecord(
            f"u{i}",
            "s",
            "a",
            tuple(
                ExitRecord(k, "a", None, {} if np.isnan(v) else {"e": v})
                for k, v in enumerate(row, 1)
            ),
        )
        for i, row in enumerate(values_NE.tolist())
    )
    columns = evidence_columns(records)
    assert set(columns) == ({"e"} if gap is None else set())
    if gap is None:
        np.testing.assert_array_equal(columns["e"], values_NE)


@pytest.mark.parametrize("warm", [False, True])
def test_with_columns(warm):
    trace = Trace(HEADER, RECORDS)
    if warm:
        trace.score()
        assert trace.evidence.names
    new = {
        "late": np.array([[NAN, 1.0], [NAN, 2.0]]),
        "entropy": np.array([[3, 4], [5, 6]]),
    }
    more = trace.with_columns(new)
    assert more.evidence_names == ("entropy", "late")
    for name, values_NE in new.items():
        np.testing.assert_array_equal(more.evidence_NE(name), values_NE)
    assert more.errors_NE.tolist() == trace.errors_NE.tolist()
    assert ("errors_NE" in more.__dict__) or not warm
    first = more.records[0].exits
    assert dict(first[0].evidence) == {"entropy": 3.0, "max_prob": 0.25}
    assert dict(first[1].evidence) == {"entropy": 4.0, "late": 1.0}
    assert type(first[1].evidence["entropy"]) is float
    # the original is as it was
    assert trace.evidence_NE("entropy")[0].tolist() == [0.5, 0.1]
    one = trace.with_evidence("late", new["late"])
    assert one.with_evidence("entropy", new["entropy"]).records == more.records


@pytest.mark.parametrize(
    ("values_NE", "problem"),
    [
        ([[1.0, NAN], [1.0, NAN]], "'u1' is nan at exit 2"),
        ([[NAN, 1.0], [1.0, 1.0]], "'u1' is nan at exit 1"),
        ([[1.0, 1.0], [-np.inf, 1.0]], "'u2' is -inf at exit 1"),
        ([[NAN, NAN], [NAN, NAN]], "'u1' is nan at exit 1"),
        ([[1.0, 1.0]], "shape"),
        ([1.0, 1.0], "shape"),
    ],
)
def test_columns_that_no_trace_could_hold(values_NE, problem):
    records = (RECORDS[0], replace(RECORDS[1], id="u2"))
    with pytest.raises(InputError, match=f"'new'.*{problem}"):
        Trace(HEADER, records).with_evidence("new", np.array(values_NE))


def decoded(name: str, spent: tuple[int, int]) -> UtteranceRecord:
    """An utterance that a search transcribed, and CTC's greedy path."""
    exits = (
        ExitRecord(2, "a cat", 1, {}, 50, "a hat", spent[0]),
        ExitRecord(4, "the cat", 0, {}, 90, "a cat", spent[1]),
    )
    return UtteranceRecord(name, f"set {name}", "the cat", exits)


def test_policies_see_the_greedy_transcripts():
    """And are judged by what the search found."""
    trace = Trace(HEADER, (decoded("u1", (7, 9)),))
    assert trace.errors_NE.tolist() == [[1, 0]]
    assert trace.edits_NE3.sum(axis=2).tolist() == [[1, 0]]
    assert trace.evidence.transcripts() == [["a hat", "a cat"]]
    # one of the five letters of the earlier one was another
    assert trace.evidence.change_NE(1)[0, 1] == pytest.approx(0.2)
    # without any, what was recognised is what is seen
    plain = replace(
        trace.records[0],
        exits=tuple(
            replace(exit_, greedy=None) for exit_ in trace.records[0].exits
        ),
    )
    plain = Trace(HEADER, (plain,))
    assert plain.evidence.transcripts() == [["a cat", "the cat"]]
    first, last = trace.records[0].exits
    silent = replace(trace.records[0], exits=(replace(first, greedy=""), last))
    seen = Trace(HEADER, (silent,)).evidence.transcripts()
    assert seen == [["", "a cat"]]
    assert "transcripts" not in Trace(HEADER, RECORDS).evidence.names


@pytest.mark.parametrize("warm", [False, True])
def test_cost_of_decoding(warm):
    records = (decoded("u1", (7, 9)), decoded("u2", (0, 3)))
    trace = Trace(HEADER, records)
    if warm:
        assert trace.decoding_macs_NE.tolist() == [[7.0, 9.0], [0.0, 3.0]]
        trace.score()
        assert trace.evidence.hyps
        assert trace.evidence.change_NE(1).shape == (2, 2)
    new_NE = np.array([[0.5, 0.25], [1.0, 2.0]])
    for same in (trace, trace.with_evidence("e", new_NE)):
        for part in (same.select([1]), same.subset("set u2")):
            assert part.decoding_macs_NE.tolist() == [[0.0, 3.0]]
            assert part.evidence.transcripts() == [["a hat", "a cat"]]
            assert part.errors_NE.tolist() == [[1, 0]]
            assert part.records[0].exits[1].decoding_macs == 3
        # part of the cost of an exit, not on top of it; all or nothing
        assert Trace(HEADER, RECORDS).decoding_macs_NE is None
        assert same.macs_NE.tolist() == [[50.0, 90.0]] * 2
        assert same.decoding_macs_NE.tolist() == [[7.0, 9.0], [0.0, 3.0]]
