"""The score of an exit does not depend on later exits, whatever they show.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.exits.criteria import (
    criterion_names,
    get_criterion,
    get_measure,
    measure_names,
)
from speechbrain_ee.exits.evidence import Evidence

VARIANTS = (
    *criterion_names(),
    "patience_transcript:patience=1",
    "patience_transcript:patience=3",
    "patience_distribution:patience=4",
)
TEXTS = st.text("abc ", max_size=6)


def missing(name):
    """Exits without a value."""
    if name.partition(":")[0] not in measure_names():
        return 0
    return get_measure(name).earlier


@st.composite
def evidence_for(draw, needs):
    """Random evidence of six exits, transcripts included."""
    rows = draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    values = {}
    for name in needs:
        if name != "transcripts":
            values[name] = random.choice(
                [0.0, 0.1, 0.5, 0.9, 3.0, -2.0], (rows, 6)
            )
            values[name][:, : missing(name)] = np.nan
    texts = draw(
        st.lists(
            st.lists(TEXTS, min_size=6, max_size=6),
            min_size=rows,
            max_size=rows,
        )
    )
    ids = [f"u{n}" for n in range(rows)]
    return Evidence(np.arange(2, 14, 2), ids, values, texts)


@pytest.mark.parametrize("name", VARIANTS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_later_exits_change_nothing(name, data):
    chosen = get_criterion(name)
    evidence = data.draw(evidence_for(chosen.needs))
    whole_NE = chosen.scores(evidence)
    assert whole_NE.shape == evidence.shape
    assert not np.isnan(whole_NE).any()
    for exits in range(1, 7):
        # a table that never had the later exits: no cache can help
        alone = Evidence(
            evidence.layers_E[:exits],
            evidence.ids,
            {n: v[:, :exits].copy() for n, v in evidence.values.items()},
            [list(texts[:exits]) for texts in evidence.hyps],
        )
        for part in (alone, evidence.upto(exits)):
            scores_NE = chosen.scores(part)
            assert np.array_equal(scores_NE, whole_NE[:, :exits])


@pytest.mark.parametrize("name", VARIANTS)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_other_utterances_change_nothing(name, data):
    chosen = get_criterion(name)
    evidence = data.draw(evidence_for(chosen.needs))
    rows = data.draw(st.permutations(range(len(evidence))))[:2]
    whole_NE = chosen.scores(evidence)
    assert np.array_equal(chosen.scores(evidence.select(rows)), whole_NE[rows])
