"""Frame measures: plain-Python values, and rules that every measure follows.

Axes: B utterances, T frames, V vocabulary entries, D model width.

Authors
 * The speechbrain-ee contributors 2026
"""

import math

import numpy as np
import pytest
import torch

from speechbrain_ee.exits.criteria import (
    get_criterion,
    get_measure,
    measure_all,
    measure_names,
)
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.models.heads import ExitOutput

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
    in ("frames", "sequences")
)
WITH_CRITERION = tuple(
    name for name in OWN if not name.startswith("cross_entropy")
)
# uniform frames are their least ready value, sharper ones more ready
SHARPENED = tuple(n for n in WITH_CRITERION if n != "hidden_cosine")


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


# -- plain Python -----------------------------------------------------------


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


def test_uniform_frames_have_the_largest_tsallis_entropy():
    # a hair above uniform at the token, so that it is not the blank that wins
    probs_TV = torch.tensor([[0.2499, 0.2503, 0.2499, 0.2499]] * 3)
    for name in ("tsallis_mean", "tsallis_min"):
        value = get_measure(name).function(view_of(probs_TV)).item()
        assert value == pytest.approx(1.0, abs=1e-5)


# -- rules for every measure ------------------------------------------------


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
def test_order_in_the_batch_changes_nothing(name):
    rows = random_exits(LENGTHS)
    order = [2, 0, 3, 1]
    measure = get_measure(name).function
    there = measure(chain([batch(each, 7, 0.0) for each in rows])[-1])
    moved = [[each[i] for i in order] for each in rows]
    here = measure(chain([batch(each, 7, 0.0) for each in moved])[-1])
    assert torch.allclose(there[order], here, rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize("name", SHARPENED)
def test_sharper_is_more_ready(name):
    torch.manual_seed(1)
    logits_TV = torch.randn(6, 4)
    logits_TV[:, 0] -= 2
    measure = get_measure(name).function
    scores = [
        score(name, measure(view_of((s * logits_TV).softmax(-1))))[0]
        for s in (0.5, 1.0, 3.0)
    ]
    assert scores[0] < scores[1] < scores[2]


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
