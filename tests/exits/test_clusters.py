"""Cross-fitting: who is on which side, and how many.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.clusters import (
    Clusters,
    cross_fitted,
    speakers_from_ids,
)
from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)

GROUPS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60)


@given(groups=GROUPS, folds=st.integers(1, 6))
def test_groups_stay_together_in_balanced_folds(groups, folds):
    fold_N = folds_by_group(groups, folds)
    for group in set(groups):
        own = {fold for fold, g in zip(fold_N, groups) if g == group}
        assert len(own) == 1
    used = min(folds, len(set(groups)))
    sizes = np.bincount(fold_N, minlength=used)
    assert len(sizes) == used and (sizes > 0).all()
    largest = max(groups.count(group) for group in groups)
    assert sizes.max() - sizes.min() <= largest
    assert folds_by_group(groups, folds).tolist() == fold_N.tolist()


def test_names_without_speakers_are_told_apart():
    assert speakers(["1-2-3", "1-5", "7"]) == ("1", "1", "7")
    assert speakers(["rec-1", "rec-2"]) == ("rec-1", "rec-2")
    assert speakers([]) == ()


def trace_of(names):
    exits = (ExitRecord(2, "a"), ExitRecord(4, "a"))
    return Trace(
        TraceHeader("tiny", "greedy", (2, 4)),
        tuple(UtteranceRecord(name, "dev", "a", exits) for name in names),
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
