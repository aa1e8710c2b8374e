"""Learned weights of combined exits on data whose answer is known.

Axes: B utterances, S target tokens, T frames, V vocabulary entries, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.exits.ensemble.ensemble_fit import ctc_loss, fit_combination
from speechbrain_ee.models.heads import ExitOutput

LAYERS = (2, 4, 6)
POOLINGS = ("log_linear", "linear")


def outputs_of(seed: int, lengths: tuple[int, ...] = (5, 3), vocab: int = 4):
    """Three exits with random distributions."""
    torch.manual_seed(seed)
    shape = (len(lengths), max(lengths), vocab)
    return [
        ExitOutput(
            log_probs_BTV=torch.randn(shape).log_softmax(-1),
            lengths_B=torch.tensor(lengths),
            layer=layer,
            blank_index=1,
        )
        for layer in LAYERS
    ]


def targets_of(seed: int, counts: tuple[int, ...] = (2, 1), vocab: int = 4):
    """Random target tokens without the blank (index 1)."""
    torch.manual_seed(seed)
    tokens_BS = torch.randint(2, vocab, (len(counts), max(counts)))
    return tokens_BS, torch.tensor(counts)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(POOLINGS),
    st.sampled_from(["errors", "loss"]),
)
def test_never_worse_on_its_own_data(seed, pooling, goal):
    batches = [
        (outputs_of(seed), *targets_of(seed)),
        (outputs_of(seed + 1, (6,)), *targets_of(seed, (3,))),
    ]
    fit = fit_combination(batches, pooling, goal)
    assert fit.combination.exit_layers == LAYERS
    for loss, alone in zip(fit.loss_E, fit.loss_alone_E):
        assert loss <= alone
    if goal == "errors":
        for errors, alone in zip(fit.errors_E, fit.errors_alone_E):
            assert errors <= alone
    # the losses told are those that the combination gives
    losses = [
        ctc_loss(fit.combination.combine(outputs)[2], *targets)
        for outputs, *targets in batches
    ]
    assert fit.loss_E[2] == pytest.approx(torch.cat(losses).mean().item())


def expert(sure: list[int], truth: list[int], vocab: int = 4):
    """Distributions that know the truth in some frames and none in others."""
    probs_TV = torch.full((len(truth), vocab), 1 / vocab)
    for frame, token in enumerate(truth):
        if frame in sure:
            probs_TV[frame] = 0.02
            probs_TV[frame, token] = 1 - 0.02 * (vocab - 1)
        else:
            probs_TV[frame, (token + 1) % vocab] += 0.02
    return (probs_TV / probs_TV.sum(-1, keepdim=True)).log().unsqueeze(0)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("goal", ["errors", "loss"])
def test_two_half_experts_make_a_whole_one(pooling, goal):
    truth = [1, 0, 2, 0, 3, 0, 1, 0]
    halves = ([0, 1, 2, 3], [4, 5, 6, 7])
    outputs = [
        ExitOutput(expert(sure, truth), torch.tensor([8]), layer)
        for sure, layer in zip(halves, LAYERS)
    ]
    target = torch.tensor([[1, 2, 3, 1]])
    fit = fit_combination([(outputs, target, torch.tensor([4]))], pooling, goal)
    assert fit.errors_alone_E[1] > fit.errors_E[1] == 0
    assert fit.loss_E[1] < fit.loss_alone_E[1]
    heard = greedy_tokens(fit.combination.combine(outputs)[1])
    assert heard == target.tolist()


def test_fewer_errors_by_chance_are_not_enough():
    truth = [1, 0, 2, 0, 3, 0, 1, 0]
    target_BS, count_B = torch.tensor([[1, 2, 3, 1]]), torch.tensor([4])

    def batch(*sures):
        outputs = [
            ExitOutput(expert(sure, truth), torch.tensor([8]), layer)
            for sure, layer in zip(sures, LAYERS)
        ]
        return outputs, target_BS, count_B

    halves = batch([0, 1, 2, 3], [4, 5, 6, 7])
    same = batch(list(range(8)), list(range(8)))
    rarely, often = [halves, *[same] * 19], [halves] * 5 + [same] * 15
    cases = ((rarely, 1.645, False), (rarely, 0.0, True), (often, 1.645, True))
    for data, margin, taken in cases:
        fit = fit_combination(data, margin=margin)
        assert (fit.errors_E[1] < fit.errors_alone_E[1]) == taken
        assert (fit.combination.used(2) == (1, 2)) == taken


def test_exit_that_needs_no_help_is_left_alone():
    truth = [1, 0, 2, 0, 3, 0, 1, 0]
    outputs = [
        ExitOutput(expert(sure, truth), torch.tensor([8]), layer)
        for sure, layer in (([], 2), (list(range(8)), 4))
    ]
    data = [(outputs, torch.tensor([[1, 2, 3, 1]]), torch.tensor([4]))]
    for goal in ("errors", "loss"):
        fit = fit_combination(data, goal=goal)
        assert fit.combination.weights == ((1.0,), (0.0, 1.0))


def test_fit_looks_at_no_padding():
    outputs, targets = outputs_of(8), targets_of(8)
    clean = fit_combination([(outputs, *targets)], goal="loss")
    for output in outputs:
        output.log_probs_BTV[1, 3:] = math.nan
    assert fit_combination([(outputs, *targets)], goal="loss") == clean


def test_fit_refuses_what_it_cannot_use():
    data = [(outputs_of(9), *targets_of(9))]
    with pytest.raises(InputError, match="'wer'.*errors, loss"):
        fit_combination(data, goal="wer")
    with pytest.raises(InputError, match="'sum'.*log_linear"):
        fit_combination(data, pooling="sum")
    with pytest.raises(InputError, match="no utterance"):
        fit_combination([])
