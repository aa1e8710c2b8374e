"""Sequence measures against brute force and plain loops.

Axes: B utterances, T frames, V vocabulary entries, D model width.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.exits.criteria.successive import (
    LAGS,
    LEAST_LOG,
    LEAST_LOG_PROB,
    cross_entropy,
    ctc_forward,
    ctc_forward_per_frame,
    hidden_cosine,
)
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.models.heads import ExitOutput


def log_probs(frames, vocab, seed, scale=1.0):
    random = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(frames, vocab, generator=random)).log_softmax(
        -1
    )


def collapse(path, blank=0):
    merged = [token for token, _ in itertools.groupby(path)]
    return tuple(token for token in merged if token != blank)


def posterior(log_probs_TV):
    """Of the greedy hypothesis: the sum over every path there is."""
    frames, vocab = log_probs_TV.shape
    rows = log_probs_TV.tolist()
    greedy = collapse([row.index(max(row)) for row in rows])
    total = 0.0
    for path in itertools.product(range(vocab), repeat=frames):
        if collapse(path) == greedy:
            total += math.exp(sum(rows[t][v] for t, v in enumerate(path)))
    return greedy, total


@given(
    frames=st.integers(1, 6),
    vocab=st.integers(2, 4),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None)
def test_ctc_forward_is_the_sum_over_all_paths(frames, vocab, seed):
    log_probs_TV = log_probs(frames, vocab, seed)
    view = ExitView(
        ExitOutput(log_probs_TV.unsqueeze(0), torch.tensor([frames]), 2)
    )
    greedy, total = posterior(log_probs_TV)
    assert greedy_tokens(view.output) == [list(greedy)]
    log_prob = view.hypothesis_log_prob_B.item()
    assert log_prob == pytest.approx(math.log(total), abs=1e-4)
    if not greedy:
        assert ctc_forward(view).item() == LEAST_LOG_PROB
        assert ctc_forward_per_frame(view).item() == pytest.approx(
            -math.log(vocab)
        )
        return
    assert ctc_forward(view).item() == pytest.approx(log_prob)
    assert ctc_forward_per_frame(view).item() == pytest.approx(
        log_prob / frames
    )


def test_a_batch_of_empty_hypotheses():
    blanks_TV = torch.tensor([[0.98, 0.01, 0.01]] * 3).log()
    output = ExitOutput(torch.stack([blanks_TV] * 2), torch.tensor([3, 0]), 2)
    view = ExitView(output)
    assert ctc_forward(view).tolist() == [LEAST_LOG_PROB] * 2
    assert view.hypothesis_log_prob_B[0].item() == pytest.approx(
        3 * math.log(0.98), rel=1e-4
    )


def test_nothing_is_below_the_floor():
    """A minute and a half of uniform frames, a token ahead by a hair."""
    log_probs_BTV = torch.full((1, 4500, 32), 1 / 32).log()
    log_probs_BTV[..., 1] += 1e-5
    view = ExitView(ExitOutput(log_probs_BTV, torch.tensor([4500]), 2))
    assert view.hypothesis_log_prob_B.item() < LEAST_LOG_PROB
    assert ctc_forward(view).item() == LEAST_LOG_PROB
    assert ctc_forward_per_frame(view).item() >= -math.log(32)


def test_forward_needs_no_gradient():
    logits = torch.randn(1, 5, 4, requires_grad=True)
    output = ExitOutput(logits.log_softmax(-1), torch.tensor([5]), 2)
    assert not ctc_forward(ExitView(output)).requires_grad


def views_of(per_exit, hidden=None):
    views = []
    for k, each in enumerate(per_exit):
        output = ExitOutput(
            each.unsqueeze(0),
            torch.tensor([len(each)]),
            k,
            hidden_BTD=None if hidden is None else hidden[k].unsqueeze(0),
        )
        views.append(ExitView(output, views))
    return views


@pytest.mark.parametrize("lag", LAGS)
def test_cross_entropy_by_hand(lag):
    exits = [log_probs(6, 4, seed, 2.0) for seed in range(5)]
    before, now = exits[4 - lag].tolist(), exits[4].tolist()
    expected = -sum(
        math.exp(p) * q
        for row, other in zip(before, now)
        for p, q in zip(row, other)
    )
    value = cross_entropy(views_of(exits)[4], lag).item()
    assert value == pytest.approx(expected / 6, rel=1e-5)


def test_cross_entropy_of_equal_exits_is_the_entropy():
    same = log_probs(6, 4, 0)
    view = views_of([same, same])[1]
    assert cross_entropy(view, 1).item() == pytest.approx(
        view.entropy_BT.mean().item(), rel=1e-5
    )


def test_nothing_is_further_than_an_exit_without_output():
    """An exit that rules out all it believed, blanks alone, no frames."""
    certain = torch.eye(4)[1:].log()
    blanks = torch.tensor([[0.97, 0.01, 0.01, 0.01]] * 3).log()
    for before, now in ((certain, certain.roll(1, 0)), (blanks, blanks)):
        value = cross_entropy(views_of([before, now])[1], 1)
        assert value.item() == pytest.approx(-LEAST_LOG)
    empty = cross_entropy(views_of([certain[:0], certain[:0]])[1], 1)
    assert empty.item() == pytest.approx(-LEAST_LOG)


def test_hidden_cosine_by_hand():
    exits = [log_probs(6, 4, seed) for seed in range(2)]
    random = torch.Generator().manual_seed(5)
    hidden = torch.randn(2, 6, 3, generator=random)
    expected = 0.0
    for a, b in zip(hidden[0].tolist(), hidden[1].tolist()):
        dot = sum(x * y for x, y in zip(a, b))
        expected += dot / (math.hypot(*a) * math.hypot(*b)) / 6
    value = hidden_cosine(views_of(exits, hidden)[1]).item()
    assert value == pytest.approx(expected, rel=1e-5)


def test_batch_trimmed_since_the_earlier_exit():
    """Live, the longest utterance may have left in between."""
    random = torch.Generator().manual_seed(6)
    hidden = torch.randn(2, 9, 3, generator=random)
    exits = [log_probs(9, 4, seed) for seed in range(2)]

    def last(frames_before):
        outputs = [
            ExitOutput(
                exits[k][:n].unsqueeze(0),
                torch.tensor([5]),
                k,
                hidden_BTD=hidden[k, :n].unsqueeze(0),
            )
            for k, n in enumerate((frames_before, 5))
        ]
        return ExitView(outputs[1], [ExitView(outputs[0])])

    for measure in (hidden_cosine, lambda view: cross_entropy(view, 1)):
        assert measure(last(9)).item() == pytest.approx(measure(last(5)).item())
