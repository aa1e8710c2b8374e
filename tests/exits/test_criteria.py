"""Criteria: the registry, frame measures by hand, rules that all follow.

Axes: B utterances, T frames, V vocabulary entries, D model width.

Authors
 * The speechbrain-ee contributors 2026
"""

import math

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

WANTED = """
    beam_score beam_posterior token_confidence token_confidence_min
    fixed random
    entropy entropy_nats entropy_nonblank max_prob max_prob_nonblank
    margin margin_nonblank token_quantile token_quantile_nonblank
    tsallis_mean tsallis_min
    learned nbest_posterior ctc_forward ctc_forward_per_frame hidden_cosine
    agreement patience_transcript patience_distribution
    plausibility unseen_words combination
""".split()


def test_every_criterion_is_registered_in_its_place():
    assert list(criterion_names())[: len(WANTED)] == WANTED
    only = set(measure_names()) - set(criterion_names())
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


@pytest.mark.parametrize("name", measure_names())
def test_exits_that_come_before(name):
    """Successive exits by their lag; everything else looks at one."""
    number = name.rpartition("_")[2]
    lag = int(number) if name.startswith("cross_entropy") else 0
    assert get_measure(name).earlier == lag + (name == "hidden_cosine")


# three frames of three entries; the middle one is a blank (index 0)
PROBS_TV = torch.tensor([[0.2, 0.7, 0.1], [0.9, 0.05, 0.05], [0.1, 0.3, 0.6]])


LENGTHS = [7, 0, 4, 1]


EXITS, V, D = 5, 5, 6


# every measure that needs nothing beyond the exits themselves
EARLIER = {name: get_measure(name).earlier for name in measure_names()}


OWN = tuple(
    name
    for name in measure_names()
    if get_measure(name).function.__module__.rpartition(".")[2]
    in ("frames", "successive")
)


WITH_CRITERION = tuple(
    name for name in OWN if not name.startswith("cross_entropy")
)


def view_of(probs_TV, frames=None, **options):
    lengths_B = torch.tensor([len(probs_TV) if frames is None else frames])
    return ExitView(
        ExitOutput(probs_TV.log().unsqueeze(0), lengths_B, 2, **options)
    )


def chain(exits):
    """Views of successive exits."""
    views = []
    for output in exits:
        views.append(ExitView(output, views))
    return views


def random_exits(lengths, seed=0, exits=EXITS):
    """Log-probabilities and hidden states of every utterance by exit."""
    random = torch.Generator().manual_seed(seed)
    return [
        [
            (
                (2 * torch.randn(n, V, generator=random)).log_softmax(-1),
                torch.randn(n, D, generator=random),
            )
            for n in lengths
        ]
        for _ in range(exits)
    ]


def batch(rows, frames, filler):
    """An output that pads the rows with something that must not matter."""
    lengths_B = torch.tensor([len(log_probs) for log_probs, _ in rows])
    log_probs_BTV = torch.full((len(rows), frames, V), filler)
    hidden_BTD = torch.full((len(rows), frames, D), filler)
    for place, (log_probs_TV, hidden_TD) in enumerate(rows):
        log_probs_BTV[place, : len(log_probs_TV)] = log_probs_TV
        hidden_BTD[place, : len(hidden_TD)] = hidden_TD
    return ExitOutput(log_probs_BTV, lengths_B, 2, hidden_BTD=hidden_BTD)


def score(name, value_B):
    """What the criterion of a measure makes of its value at one exit."""

    class Column:
        def column(self, _):
            return np.asarray(value_B, dtype=float).reshape(-1, 1)

    return get_criterion(name).scores(Column())[:, 0]


def entropies(rows):
    return [-sum(p * math.log(p) for p in row if p > 0) for row in rows]


def tsallis(row, alpha):
    uniform = [1 / len(row)] * len(row)
    value, worst = (
        (1 - sum(p**alpha for p in each)) / (alpha - 1)
        for each in (row, uniform)
    )
    return value / worst


def leads(rows):
    return [sorted(row)[-1] - sorted(row)[-2] for row in rows]


def mean(values):
    return sum(values) / len(values)


def by_hand(rows):
    """Every frame measure from lists of numbers; blank is 0."""
    said = [row for row in rows if row.index(max(row)) != 0]
    tops, said_tops = [max(r) for r in rows], [max(r) for r in said]
    width = len(rows[0])
    return {
        "entropy": mean(entropies(rows)) / width,
        "entropy_nats": mean(entropies(rows)),
        "entropy_nonblank": mean(entropies(said)) / width,
        "tsallis_mean": mean([tsallis(r, 1 / 3) for r in said]),
        "tsallis_mean:alpha=0.5": mean([tsallis(r, 0.5) for r in said]),
        "tsallis_min": max(tsallis(r, 1 / 3) for r in said),
        "tsallis_min:alpha=2": max(tsallis(r, 2) for r in said),
        "tsallis_min:alpha=1": max(entropies(said)) / math.log(width),
        "max_prob": mean(tops),
        "max_prob_nonblank": mean(said_tops),
        "margin": mean(leads(rows)),
        "margin_nonblank": mean(leads(said)),
        "token_quantile": np.quantile(tops, 0.1),
        "token_quantile:q=0.3": np.quantile(tops, 0.3),
        "token_quantile_nonblank": np.quantile(said_tops, 0.1),
        "token_quantile_nonblank:q=0": min(said_tops),
    }


@pytest.mark.parametrize("name", by_hand(PROBS_TV.tolist()))
def test_frame_measures_by_hand(name):
    torch.manual_seed(0)
    for probs_TV in (PROBS_TV, (2 * torch.randn(23, 7)).softmax(-1)):
        expected = by_hand(probs_TV.tolist())[name]
        value = get_measure(name).function(view_of(probs_TV)).item()
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_every_frame_measure_is_tested_by_hand():
    known = set(by_hand(PROBS_TV.tolist()))
    frames = {n for n in OWN if EARLIER[n] == 0 and "ctc" not in n}
    assert frames <= known


def test_shannon_is_the_limit_of_tsallis():
    view = view_of(PROBS_TV)
    for name in ("tsallis_mean", "tsallis_min"):
        limit = get_measure(f"{name}:alpha=1").function(view).item()
        for alpha in (0.99, 1.01):
            close = get_measure(f"{name}:alpha={alpha}").function(view).item()
            assert close == pytest.approx(limit, rel=0.01)


def test_certain_frames():
    values = measure_all(view_of(torch.eye(3)))
    for name in ("entropy", "entropy_nats", "entropy_nonblank"):
        assert values[name].item() == 0.0
    for name in ("tsallis_mean", "tsallis_min"):
        assert values[name].item() == 0.0
    for name in ("max_prob", "margin_nonblank", "token_quantile_nonblank"):
        assert values[name].item() == 1.0
    assert values["ctc_forward"].item() == 0.0


@pytest.mark.parametrize("name", OWN)
def test_padding_and_batching_change_nothing(name):
    rows = random_exits(LENGTHS)
    measure = get_measure(name)
    alone = torch.cat(
        [
            measure.function(
                chain([batch([each[i]], n, 0.0) for each in rows])[-1]
            )
            for i, n in enumerate(LENGTHS)
        ]
    )
    assert torch.isfinite(alone).all()
    for filler in (0.0, math.nan, -math.inf, math.inf, 50.0):
        views = chain([batch(each, 9, filler) for each in rows])
        together = measure.function(views[-1])
        assert together.dtype == torch.float32
        assert torch.allclose(alone, together, rtol=1e-5, atol=1e-6), filler


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_in_single(name, dtype):
    """The same as of the rounded inputs in fp32."""
    half, single = [], []
    for each in random_exits([7, 4]):
        whole = batch(each, 7, 0.0)
        low = whole.log_probs_BTV.to(dtype), whole.hidden_BTD.to(dtype)
        half.append(ExitOutput(low[0], whole.lengths_B, 2, 0, low[1]))
        single.append(
            ExitOutput(low[0].float(), whole.lengths_B, 2, 0, low[1].float())
        )
    measure = get_measure(name).function
    value, expected = measure(chain(half)[-1]), measure(chain(single)[-1])
    assert value.dtype == torch.float32
    assert torch.allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("name", OWN)
def test_impossible_tokens_stay_finite(name):
    """Probabilities of exactly 0, as half precision rounds them to."""
    certain = torch.eye(V).log()
    hidden = torch.zeros(V, D)
    rows = [[(certain.roll(k, 0), hidden)] for k in range(EXITS)]
    views = chain([batch(each, V, 0.0) for each in rows])
    assert torch.isfinite(get_measure(name).function(views[-1])).all()


@pytest.mark.parametrize("name", WITH_CRITERION)
def test_without_frames_nothing_is_less_ready(name):
    """Neither random exits, uniform frames nor blanks alone score lower."""
    uniform = torch.full((4, V), 1 / V).log(), torch.randn(4, D)
    blanks = torch.full((4, V), 1e-4)
    blanks[:, 0] = 1 - 4e-4
    rows = [
        [*each, uniform, (blanks.log(), torch.ones(4, D))]
        for each in random_exits(LENGTHS)
    ]
    views = chain([batch(each, 7, 0.0) for each in rows])
    scores = score(name, get_measure(name).function(views[-1]))
    assert np.isfinite(scores).all()
    empty, silent = scores[LENGTHS.index(0)], scores[-1]
    assert silent == empty == scores.min()
    assert empty < scores[LENGTHS.index(7)]


@pytest.mark.parametrize("name", OWN)
def test_other_blank_index(name):
    rows = random_exits([6])
    plain = [batch(each, 6, 0.0) for each in rows]
    moved = [
        ExitOutput(
            each.log_probs_BTV.roll(-1, -1),
            each.lengths_B,
            2,
            V - 1,
            each.hidden_BTD,
        )
        for each in plain
    ]
    measure = get_measure(name).function
    here, there = measure(chain(plain)[-1]), measure(chain(moved)[-1])
    assert torch.allclose(here, there, rtol=1e-5)


def test_same_as_orders_the_same_way():
    values = {}
    rows = random_exits([5, 9, 13, 2, 8], seed=3)
    for view in chain([batch(each, 13, 0.0) for each in rows]):
        for name in WITH_CRITERION:
            if EARLIER[name] == 0:
                values.setdefault(name, []).append(
                    score(name, get_measure(name).function(view))
                )
    twins = [n for n in values if get_criterion(n).same_as]
    assert "entropy_nats" in twins
    for name in twins:
        other = values[get_criterion(name).same_as]
        order = np.argsort(np.ravel(values[name]))
        assert (np.diff(np.ravel(other)[order]) >= 0).all()


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
