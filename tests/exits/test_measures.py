"""Measures: by hand, in any batch, and what holds whatever an exit puts out.

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
from speechbrain_ee.exits.criteria.successive import LEAST_LOG, LEAST_LOG_PROB
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.models.heads import ExitOutput

EXITS, V, D = 5, 5, 6
LENGTHS = [7, 0, 4, 1]
OWN = tuple(
    name
    for name in measure_names()
    if get_measure(name).function.__module__.rpartition(".")[2]
    in ("frames", "successive")
)
# of frames alone: neither hidden states, earlier exits nor alignments
FRAMES = tuple(
    name
    for name in OWN
    if not get_measure(name).earlier and not name.startswith("ctc_forward")
)
WITH_CRITERION = tuple(n for n in OWN if not n.startswith("cross_entropy"))
RANGES = {
    "entropy": (0, math.log(V) / V),
    "entropy_nats": (0, math.log(V)),
    "entropy_nonblank": (0, math.log(V) / V),
    "tsallis_mean": (0, 1),
    "tsallis_min": (0, 1),
    "max_prob": (1 / V, 1),
    "max_prob_nonblank": (1 / V, 1),
    "margin": (0, 1),
    "margin_nonblank": (0, 1),
    "token_quantile": (1 / V, 1),
    "token_quantile_nonblank": (1 / V, 1),
    "ctc_forward": (LEAST_LOG_PROB, 0),
    "ctc_forward_per_frame": (-math.log(V), 0),
    "hidden_cosine": (-1, 1),
    **{f"cross_entropy_{lag}": (0, -LEAST_LOG) for lag in range(1, EXITS)},
}
# three frames of three entries; the middle one is a blank (index 0)
PROBS_TV = torch.tensor([[0.2, 0.7, 0.1], [0.9, 0.05, 0.05], [0.1, 0.3, 0.6]])


def random_exits(lengths, seed=0, sharpness=2.0):
    """Log-probabilities and hidden states of every utterance by exit."""
    random = torch.Generator().manual_seed(seed)
    return [
        [
            (
                (sharpness * torch.randn(n, V, generator=random)).log_softmax(
                    -1
                ),
                torch.randn(n, D, generator=random),
            )
            for n in lengths
        ]
        for _ in range(EXITS)
    ]


def views(exits, frames=None, filler=0.0, dtype=torch.float32, blank=0):
    """Successive exits, padded with something that must not matter."""
    found = []
    for rows in exits:
        lengths_B = torch.tensor([len(log_probs) for log_probs, _ in rows])
        longest = frames or int(lengths_B.max())
        log_probs_BTV = torch.full((len(rows), longest, V), filler, dtype=dtype)
        hidden_BTD = torch.full((len(rows), longest, D), filler, dtype=dtype)
        for place, (log_probs_TV, hidden_TD) in enumerate(rows):
            log_probs_BTV[place, : len(log_probs_TV)] = log_probs_TV
            hidden_BTD[place, : len(hidden_TD)] = hidden_TD
        output = ExitOutput(log_probs_BTV, lengths_B, 2, blank, hidden_BTD)
        found.append(ExitView(output, found))
    return found


def measured(name, exits, **options):
    """A measure at the last of the exits."""
    return get_measure(name).function(views(exits, **options)[-1])


def score(name, value_B):
    """What the criterion of a measure makes of its value at one exit."""

    class Column:
        def column(self, _):
            return np.asarray(value_B, dtype=float).reshape(-1, 1)

    return get_criterion(name).scores(Column())[:, 0]


def utterances():
    """Single ones, from nearly uniform to nearly certain."""
    for seed in range(12):
        sharpness = (0.3, 1.0, 3.0, 12.0)[seed % 4]
        yield random_exits([1 + seed % 9], seed, sharpness)


def entropies(rows):
    return [-sum(p * math.log(p) for p in row if p > 0) for row in rows]


def tsallis(row, alpha):
    uniform = [1 / len(row)] * len(row)
    value, worst = (
        (1 - sum(p**alpha for p in each)) / (alpha - 1)
        for each in (row, uniform)
    )
    return value / worst


def by_hand(rows):
    """Every frame measure from lists of numbers; blank is 0."""
    said = [row for row in rows if row.index(max(row)) != 0]
    tops, said_tops = [max(r) for r in rows], [max(r) for r in said]
    leads, said_leads = (
        [sorted(row)[-1] - sorted(row)[-2] for row in each]
        for each in (rows, said)
    )
    width = len(rows[0])
    return {
        "entropy": np.mean(entropies(rows)) / width,
        "entropy_nats": np.mean(entropies(rows)),
        "entropy_nonblank": np.mean(entropies(said)) / width,
        "tsallis_mean": np.mean([tsallis(r, 1 / 3) for r in said]),
        "tsallis_mean:alpha=0.5": np.mean([tsallis(r, 0.5) for r in said]),
        "tsallis_min": max(tsallis(r, 1 / 3) for r in said),
        "tsallis_min:alpha=2": max(tsallis(r, 2) for r in said),
        "tsallis_min:alpha=1": max(entropies(said)) / math.log(width),
        "max_prob": np.mean(tops),
        "max_prob_nonblank": np.mean(said_tops),
        "margin": np.mean(leads),
        "margin_nonblank": np.mean(said_leads),
        "token_quantile": np.quantile(tops, 0.1),
        "token_quantile:q=0.3": np.quantile(tops, 0.3),
        "token_quantile_nonblank": np.quantile(said_tops, 0.1),
        "token_quantile_nonblank:q=0": min(said_tops),
    }


@pytest.mark.parametrize("name", by_hand(PROBS_TV.tolist()))
def test_frame_measures_by_hand(name):
    assert set(FRAMES) <= set(by_hand(PROBS_TV.tolist()))
    torch.manual_seed(0)
    for probs_TV in (PROBS_TV, (2 * torch.randn(23, 7)).softmax(-1)):
        expected = by_hand(probs_TV.tolist())[name]
        lengths_B = torch.tensor([len(probs_TV)])
        view = ExitView(ExitOutput(probs_TV.log()[None], lengths_B, 2))
        value = measure_all(view, [name])[name].item()
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", OWN)
def test_padding_and_batching_change_nothing(name):
    exits = random_exits(LENGTHS)
    alone = torch.cat(
        [
            measured(name, [[rows[i]] for rows in exits], frames=n)
            for i, n in enumerate(LENGTHS)
        ]
    )
    assert torch.isfinite(alone).all()
    for filler in (0.0, math.nan, -math.inf, math.inf, 50.0):
        together = measured(name, exits, frames=9, filler=filler)
        assert together.dtype == torch.float32
        assert torch.allclose(alone, together, rtol=1e-5, atol=1e-6), filler


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_in_single(name, dtype):
    """The same as of the rounded inputs in fp32."""
    exits = random_exits([7, 4])
    rounded = [
        [[part.to(dtype).float() for part in r] for r in e] for e in exits
    ]
    value = measured(name, exits, dtype=dtype)
    assert value.dtype == torch.float32
    assert torch.allclose(value, measured(name, rounded), rtol=1e-6)


@pytest.mark.parametrize("name", OWN)
def test_impossible_tokens_stay_finite(name):
    """Probabilities of exactly 0, as half precision rounds them to."""
    certain, hidden = torch.eye(V).log(), torch.zeros(V, D)
    exits = [[(certain.roll(k, 0), hidden)] for k in range(EXITS)]
    assert torch.isfinite(measured(name, exits)).all()


@pytest.mark.parametrize("name", WITH_CRITERION)
def test_without_frames_nothing_is_less_ready(name):
    """Neither random exits, uniform frames nor blanks alone score lower."""
    uniform = torch.full((4, V), 1 / V).log(), torch.randn(4, D)
    blanks = torch.full((4, V), 1e-4)
    blanks[:, 0] = 1 - 4e-4
    exits = [
        [*rows, uniform, (blanks.log(), torch.ones(4, D))]
        for rows in random_exits(LENGTHS)
    ]
    scores = score(name, measured(name, exits))
    assert np.isfinite(scores).all()
    empty, silent = scores[LENGTHS.index(0)], scores[-1]
    assert silent == empty == scores.min()
    assert empty < scores[LENGTHS.index(7)]


@pytest.mark.parametrize("name", OWN)
def test_range(name):
    assert set(RANGES) == set(OWN)
    low, high = RANGES[name]
    for exits in utterances():
        if exits[-1][0][0].argmax(-1).any():  # it says something
            assert low - 1e-5 <= measured(name, exits).item() <= high + 1e-5


def renamed(part):
    """Tokens other than the blank have other names."""
    return part[:, [0, 3, 1, 4, 2]] if part.shape[1] == V else part


def with_the_blank_last(part):
    return part.roll(-1, -1) if part.shape[1] == V else part


def reordered(part):
    return part.flip(0)


def repeated(part):
    """Every frame several times: the same mean, the same extreme."""
    return part.repeat_interleave(3, 0)


SAME = [
    *((name, renamed) for name in OWN),
    *((name, with_the_blank_last) for name in OWN),
    *((name, reordered) for name in FRAMES),
    *((n, repeated) for n in OWN if "quantile" not in n and "ctc" not in n),
]


@pytest.mark.parametrize(("name", "change"), SAME)
def test_what_means_nothing_changes_nothing(name, change):
    blank = V - 1 if change is with_the_blank_last else 0
    for exits in utterances():
        other = [[tuple(map(change, row)) for row in rows] for rows in exits]
        value, same = measured(name, exits), measured(name, other, blank=blank)
        assert torch.allclose(value, same, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FRAMES)
def test_closer_to_uniform_is_never_more_ready(name):
    """Mixed with a uniform distribution, which leaves the best token."""
    for exits in utterances():
        scores = []
        for share in (0.0, 0.3, 0.8):
            mixed = [
                [
                    (((1 - share) * p.exp() + share / V).log(), h)
                    for p, h in rows
                ]
                for rows in exits
            ]
            scores.append(score(name, measured(name, mixed))[0])
        assert (np.diff(scores) <= 1e-5).all()


def test_measures_that_bound_each_other():
    for exits in utterances():
        value = {name: measured(name, exits).item() for name in OWN}
        assert value["entropy_nats"] == pytest.approx(V * value["entropy"])
        assert value["tsallis_mean"] <= value["tsallis_min"] + 1e-6
        for kind in ("", "_nonblank"):
            assert value[f"margin{kind}"] <= value[f"max_prob{kind}"] + 1e-6
        last_TV, before_TV = exits[-1][0][0], exits[-2][0][0]
        if not last_TV.argmax(-1).any():
            continue
        # the greedy path is one of the alignments of its hypothesis
        path = last_TV.amax(-1).sum().item()
        assert value["ctc_forward"] >= path - 1e-3
        assert value["ctc_forward_per_frame"] >= path / len(last_TV) - 1e-4
        # Gibbs: an exit is best described by itself
        entropy = -(before_TV.exp() * before_TV).sum(-1).mean().item()
        assert value["cross_entropy_1"] >= entropy - 1e-4


def test_same_as_orders_the_same_way():
    values = {}
    for view in views(random_exits([5, 9, 13, 2, 8], seed=3)):
        for name in FRAMES:
            found = score(name, get_measure(name).function(view))
            values.setdefault(name, []).extend(found)
    twins = [n for n in values if get_criterion(n).same_as]
    assert "entropy_nats" in twins
    for name in twins:
        other = np.array(values[get_criterion(name).same_as])
        assert (np.diff(other[np.argsort(values[name])]) >= 0).all()
