"""Clusters: who is on which side, how many they are, and what they add to.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.clusters import Clusters, speakers_from_ids
from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
    cross_fitted,
)

GROUPS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60)


def grouped(groups):
    """Clusters of speakers so named."""
    return Clusters.of(groups, [str(n) for n in range(len(groups))])


@given(groups=GROUPS, folds=st.integers(1, 6))
def test_groups_stay_together_in_balanced_folds(groups, folds):
    fold_N = grouped(groups).folds(folds)
    for group in set(groups):
        own = {fold for fold, g in zip(fold_N, groups) if g == group}
        assert len(own) == 1
    used = min(folds, len(set(groups)))
    sizes = np.bincount(fold_N, minlength=used)
    assert len(sizes) == used and (sizes > 0).all()
    largest = max(groups.count(group) for group in groups)
    assert sizes.max() - sizes.min() <= largest
    assert grouped(groups).folds(folds).tolist() == fold_N.tolist()


@given(groups=GROUPS, seed=st.integers(0, 99))
def test_sums_parts_and_splits_by_plain_loops(groups, seed):
    clusters = grouped(groups)
    assert clusters.names == tuple(sorted(set(groups)))
    values_N2 = np.random.default_rng(seed).random((len(groups), 2))
    expected = [
        sum(v for v, g in zip(values_N2, groups) if g == name)
        for name in clusters.names
    ]
    assert np.allclose(clusters.sums(values_N2), expected)
    first, second = clusters.split(0.5, seed)
    assert sorted([*first, *second]) == list(range(len(groups)))
    sides = [{groups[n] for n in rows} for rows in (first, second)]
    assert not sides[0] & sides[1]
    assert len(sides[0]) == round(0.5 * len(set(groups)))
    part = clusters.select(second)
    assert [part.names[label] for label in part.label_N] == [
        groups[n] for n in second
    ]


def test_what_is_said_of_them():
    for ids, why in (
        (["19-198-0001", "utt7"], "'utt7' has no hyphen"),
        (["rec-1", "rec-2"], "all begin with 'rec'"),
    ):
        with pytest.raises(InputError, match=f"here: .*{why}"):
            speakers_from_ids(ids, "here")
    assert grouped(["a"]).said == "1 speaker"
    assert grouped(["a", "b", "a"]).few
    even = grouped([f"s{n % 10}" for n in range(40)])
    assert (even.effective, even.few, even.caveat) == (10, False, "")
    # one who says nearly everything is nearly alone
    one = grouped(["s0"] * 300 + [f"s{n}" for n in range(20)])
    assert one.effective < 2 and one.few
    alone = grouped([None] * 5)
    assert alone.sums(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert alone.select(np.array([3, 1])).names == ("3", "1")
    assert (alone.count, alone.by, alone.few) == (5, "utterance", False)
    assert alone.caveat == "By utterance; no promise for new speakers."
    some = grouped(["a", None, "b", None])
    assert (some.count, some.unknown) == (3, 2)
    assert some.said == "2 speakers and 2 utterances of unknown ones"
    assert some.label_N[1] == some.label_N[3]


def trace_of(names):
    exits = (ExitRecord(2, "a"), ExitRecord(4, "a"))
    return Trace(
        TraceHeader("tiny", "greedy", (2, 4)),
        tuple(
            UtteranceRecord(
                name, "dev", "a", exits, speaker=name.partition("-")[0]
            )
            for name in names
        ),
    )


@given(groups=GROUPS.filter(lambda found: len(set(found)) > 1))
def test_no_model_has_seen_whom_it_scores(groups):
    names = [f"{group}-{n}" for n, group in enumerate(groups)]
    scored = []

    def fit(part):
        seen = {name.partition("-")[0] for name in part.ids}

        def scorer(evidence):
            own = {name.partition("-")[0] for name in evidence.ids}
            assert not own & seen
            assert len(part) + len(evidence) == len(names)
            scored.extend(evidence.ids)
            rows = [names.index(name) for name in evidence.ids]
            return np.stack([rows, rows], axis=1).astype(float)

        return scorer

    scores_NE = cross_fitted(trace_of(names), fit, 3)
    assert sorted(scored) == sorted(names)
    assert scores_NE[:, 0].tolist() == list(range(len(names)))
