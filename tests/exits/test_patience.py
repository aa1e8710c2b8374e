"""Patience against a simulation of its rule with a real window.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.criteria.successive import window_scores
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.policy import first_exit
from speechbrain_ee.exits.trace_file import read_trace

# few distinct values, so that ties with the threshold happen
DISTANCES = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0])
# words of one another's neighbourhood, and nothing at all
TEXTS = st.sampled_from(["", "a", "ab", "abc", "abx", "xbx", "abcabcabc"])


def simulate(distance, exits, patience, tau):
    """Column at which the rule stops, exit by exit; the last one if never.

    Arguments
    ---------
    distance : callable
        Columns of the earlier and of the new exit to their distance.
    exits : int
        How many there are.
    patience : int
        P.
    tau : float
        Largest distance at which exits agree.

    Returns
    -------
    int
    """
    window = [0]
    for new in range(1, exits):
        if max(distance(old, new) for old in window) <= tau:
            window.append(new)
        else:
            window = [*window[1:], new]
        if len(window) == patience + 1:
            return new
    return exits - 1


@st.composite
def distance_tables(draw):
    exits = draw(st.integers(1, 7))
    rows = draw(st.integers(1, 3))
    return np.array(
        [
            [[draw(DISTANCES) for _ in range(exits)] for _ in range(exits)]
            for _ in range(rows)
        ]
    )


@given(
    table_NEE=distance_tables(),
    patience=st.integers(1, 5),
    taus=st.lists(
        st.one_of(DISTANCES, st.floats(0, 1.2)), min_size=1, max_size=6
    ),
)
@settings(max_examples=200, deadline=None)
def test_scores_decide_as_the_rule_does(table_NEE, patience, taus):
    rows, exits, _ = table_NEE.shape

    def by_lag(lag):
        # first exits poisoned: nothing before may be read
        lag_NE = np.full((rows, exits), np.nan)
        for new in range(lag, exits):
            lag_NE[:, new] = table_NEE[:, new - lag, new]
        return lag_NE

    scores_NE = window_scores(by_lag, (rows, exits), patience)
    assert not np.isnan(scores_NE).any()
    for tau in taus:
        expected = [
            simulate(lambda a, b, row=table_EE: row[a, b], exits, patience, tau)
            for table_EE in table_NEE
        ]
        assert first_exit(scores_NE, -tau).tolist() == expected


@given(
    texts=st.lists(
        st.lists(TEXTS, min_size=6, max_size=6), min_size=1, max_size=4
    ),
    patience=st.integers(1, 3),
    tau=st.floats(0, 0.99),
)
@settings(max_examples=150, deadline=None)
def test_transcripts(texts, patience, tau):
    def cer(before, after):
        if not before or not after:
            return 1.0
        return min(Levenshtein.distance(before, after) / len(before), 1.0)

    ids = [f"u{n}" for n in range(len(texts))]
    evidence = Evidence(np.arange(2, 14, 2), ids, {}, texts)
    chosen = get_criterion(f"patience_transcript:patience={patience}")
    expected = [
        simulate(lambda a, b, row=row: cer(row[a], row[b]), 6, patience, tau)
        for row in texts
    ]
    scores_NE = chosen.scores(evidence)
    assert first_exit(scores_NE, -tau).tolist() == expected
    if patience == 1:
        agreed_NE = get_criterion("agreement").scores(evidence)
        assert first_exit(agreed_NE, -tau).tolist() == expected


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_distributions(patience):
    random = np.random.default_rng(0)
    exits, rows = 6, 50
    values = {}
    for lag in range(1, patience + 1):
        values[f"cross_entropy_{lag}"] = random.random((rows, exits))
        values[f"cross_entropy_{lag}"][:, :lag] = np.nan
    evidence = Evidence(np.arange(exits), [str(n) for n in range(rows)], values)
    chosen = get_criterion(f"patience_distribution:patience={patience}")
    assert chosen.needs == tuple(values)
    scores_NE = chosen.scores(evidence)
    for tau in (0.0, 0.3, 0.6, 0.9):
        expected = [
            simulate(
                lambda a, b, row=row: values[f"cross_entropy_{b - a}"][row, b],
                exits,
                patience,
                tau,
            )
            for row in range(rows)
        ]
        assert first_exit(scores_NE, -tau).tolist() == expected


def test_too_few_exits_never_stop_early():
    """Four exits have no lag of 4, and cannot gather five members."""
    evidence = Evidence(
        np.arange(4), ["u"], {}, [["same", "same", "same", "same"]]
    )
    scores_NE = get_criterion("patience_transcript:patience=4").scores(evidence)
    assert (scores_NE == -math.inf).all()
    three = get_criterion("patience_transcript:patience=3").scores(evidence)
    assert three.tolist() == [[-math.inf, -math.inf, -math.inf, 0.0]]


def test_nothing_recognised_is_not_settled():
    evidence = Evidence(np.arange(3), ["u"], {}, [["", "", ""]])
    for name in ("agreement", "patience_transcript"):
        assert get_criterion(name).scores(evidence).max() == -1.0
    changed = Evidence(np.arange(3), ["u"], {}, [["a", "xxxxxxxx", "a"]])
    assert get_criterion("agreement").scores(changed)[0, 1] == -1.0


@pytest.mark.parametrize(
    "name, message",
    [
        ("patience_transcript:patience=0", "from 1 to"),
        ("patience_transcript:patience=1.5", "whole number"),
        ("patience_distribution:patience=5", "from 1 to 4"),
        ("patience_transcript:tau=0.1", "parameters of .*: patience"),
    ],
)
def test_bad_parameters(name, message):
    with pytest.raises(InputError, match=message):
        get_criterion(name)


def test_evidence_that_is_missing_is_named():
    with pytest.raises(InputError, match="cross_entropy_1"):
        get_criterion("patience_distribution").scores(
            Evidence(np.arange(3), ["u"])
        )
    with pytest.raises(InputError, match="no transcripts"):
        get_criterion("agreement").scores(Evidence(np.arange(3), ["u"]))


@pytest.mark.parametrize(
    "set_name, wer, layers",
    [("test-clean", 4.576, 9.621), ("test-other", 12.382, 11.058)],
)
def test_identical_transcripts_on_real_traces(
    shared_folder, set_name, wer, layers
):
    """Stop where two successive transcripts are the same."""
    trace = read_trace(
        shared_folder / "traces" / "wav2vec2-ee.greedy.jsonl.gz"
    ).subset(set_name)
    for name in ("agreement", "patience_transcript:patience=1"):
        scores_NE = get_criterion(name).scores(trace.evidence)
        chosen_N = first_exit(scores_NE, 0.0)
        errors = trace.errors_NE[np.arange(len(trace)), chosen_N].sum()
        assert 100 * errors / trace.words_N.sum() == pytest.approx(
            wer, abs=5e-4
        )
        assert trace.layers_E[chosen_N].mean() == pytest.approx(
            layers, abs=5e-4
        )
