"""Criteria: the registry, frame measures by hand, rules that all follow.

Axes: B utterances, T frames, V vocabulary entries, D model width.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import (
    criterion,
    criterion_names,
    get_criterion,
    get_measure,
    measure,
    measure_all,
    measure_names,
)
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.models.heads import ExitOutput


def test_every_criterion_is_registered_in_its_place():
    names = criterion_names()
    assert names[:7] == (
        *("beam_score", "beam_posterior", "token_confidence"),
        *("token_confidence_min", "fixed", "random", "entropy"),
    )
    assert names[27] == "combination" and "learned" in names
    only = set(measure_names()) - set(names)
    assert only >= {f"cross_entropy_{lag}" for lag in (1, 2, 3, 4)}


@pytest.mark.parametrize("name", criterion_names())
def test_every_criterion_declares_itself(name):
    chosen = get_criterion(name)
    assert chosen.name == name
    assert chosen.formula and chosen.source
    assert chosen.baseline == (name in ("fixed", "random"))
    cost = chosen.macs(250, 32)
    assert cost == int(cost) >= 0
    # of arrays, element by element; and longer is never cheaper
    costs_N = chosen.macs(np.array([0, 250, 500]), 32)
    assert costs_N.tolist() == [0, cost, chosen.macs(500, 32)]
    assert 2 * cost <= chosen.macs(500, 32)
    if chosen.same_as:
        assert get_criterion(chosen.same_as).same_as is None


@pytest.mark.parametrize("look_up", [get_criterion, get_measure])
@pytest.mark.parametrize(
    "name, message",
    [
        ("entropi", "'entropi' is not known; valid .*entropy, entropy_nats"),
        ("", "'' is not known"),
        ("entropy:alpha=1", "no parameter 'alpha'.*entropy: none"),
        ("tsallis_min:alfa=1", "no parameter 'alfa'.*tsallis_min: alpha"),
        ("tsallis_min:", "no parameter ''"),
        ("tsallis_min:alpha=one", "alpha='one' must be a number from 0.01"),
        ("tsallis_min:alpha=nan", "alpha='nan' must be"),
        ("tsallis_min:alpha=0", "from 0.01 to 10 .default 0.333"),
        ("tsallis_min:alpha", "alpha='' must be"),
        ("tsallis_min:alpha=1,alpha=2", "alpha is given twice"),
        ("token_quantile:q=1.5", "from 0 to 1"),
    ],
)
def test_unknown_names_and_parameters(look_up, name, message):
    with pytest.raises(InputError, match=message):
        look_up(name)


def test_parameters_become_part_of_the_name():
    name = "tsallis_min:alpha=0.5"
    assert get_criterion(name).needs == (name,)
    probs_BTV = torch.tensor([[[0.1, 0.9], [0.4, 0.6]]])
    view = ExitView(ExitOutput(probs_BTV.log(), torch.tensor([2]), 2))
    values = measure_all(view, [name, "tsallis_min"])
    assert list(values) == [name, "tsallis_min"]
    assert values[name] != values["tsallis_min"]


def test_nothing_is_registered_twice():
    text = {"formula": "", "source": ""}
    with pytest.raises(ValueError, match="twice"):
        measure("entropy", **text)(lambda view: view)
    with pytest.raises(ValueError, match="twice"):
        criterion("fixed", **text)(lambda evidence: evidence)
    with pytest.raises(ValueError, match="alpha"):
        measure("own", **text, ranges={"alpha": (0, 1)})(lambda view: view)


def test_measures_wait_for_what_they_compare_with():
    probs_BTV = torch.tensor([[[0.1, 0.9], [0.4, 0.6]]])
    plain = ExitOutput(probs_BTV.log(), torch.tensor([2]), 2)
    hidden = ExitOutput(
        probs_BTV.log(), torch.tensor([2]), 2, hidden_BTD=torch.ones(1, 2, 3)
    )
    first = measure_all(ExitView(plain))
    assert "entropy" in first and "cross_entropy_1" not in first
    third = measure_all(ExitView(plain, [ExitView(plain)] * 2))
    assert "cross_entropy_2" in third and "cross_entropy_3" not in third
    assert "hidden_cosine" not in third
    assert "hidden_cosine" in measure_all(ExitView(hidden, [ExitView(hidden)]))


def operations(name, frames, vocab):
    """Multiply-accumulates that the formula of a measure needs."""
    entries = frames * vocab
    if name.startswith("tsallis"):
        return 2 * entries  # power and sum
    if name.startswith("ctc_forward"):
        # greedy path, then 3 products at 2 U + 1 states, U tokens: T / 3
        return entries + sum(3 * (2 * frames / 3 + 1) for _ in range(frames))
    if name == "hidden_cosine":
        return 3 * frames * 768  # product and two norms
    if name == "nbest_posterior":
        return entries + frames * 10 * min(vocab, 10)
    return (
        0 if get_measure(name).decodes else entries
    )  # else it costs what its search does


@pytest.mark.parametrize("name", measure_names())
@pytest.mark.parametrize("vocab", [5, 32])
def test_declared_cost(name, vocab):
    chosen = get_measure(name)
    expected = operations(name, 60, vocab)
    assert chosen.cost(60, vocab) == pytest.approx(expected)
    frames_N = np.array([60, 0, 60])
    assert np.broadcast_to(chosen.cost(frames_N, vocab), 3).tolist() == (
        pytest.approx([expected, 0, expected])
    )


def test_declared_cost_of_a_combination():
    """That of the entropy in it; what was read from text is free."""
    assert get_criterion("combination").macs(60, 32) == 60 * 32
    # the measures that a criterion reads are charged
    waiting = get_criterion("patience_distribution:patience=3")
    assert waiting.macs(250, 32) == 3 * 8000


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
def test_later_exits_and_other_utterances_change_nothing(name, data):
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
    rows = data.draw(st.permutations(range(len(evidence))))[:2]
    assert np.array_equal(chosen.scores(evidence.select(rows)), whole_NE[rows])
