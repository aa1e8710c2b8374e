"""What an attention decoder's hypotheses say about an exit.

These measures look at what was found at the exit by an attention head: its
beam search, alone or with CTC, or CTC's N best rescored. They cost a search at
every exit that an utterance passes, which a trace charges to criteria that
read them (``decoding_macs``); measures of the CTC head cost next to nothing.

An empty hypothesis is no evidence of readiness, as in all criteria here.

Axes: B utterances.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from speechbrain_ee.exits.criteria.criterion import free
from speechbrain_ee.exits.criteria.registry import measure
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding.nbest import NBest, Scored

# For an utterance without a hypothesis: less ready than any search finds.
_LEAST_SCORE = -100.0


@measure(
    "beam_score",
    higher_is_ready=True,
    decodes=True,
    cost=free,
    formula="log p(y) / (|y| + 1), y: best of the attention head's beam",
    source="the length-normalised score that beam searches rank by",
)
def beam_score(view: ExitView) -> Tensor:
    """Log-probability per token of the chosen hypothesis, in nats.

    Arguments
    ---------
    view : ExitView
        A batch at an exit, with what was found.

    Returns
    -------
    tensor of shape (B,)
    """
    return _each(
        view,
        lambda one: max(one.best.score_per_token, _LEAST_SCORE),
        _LEAST_SCORE,
    )


@measure(
    "beam_posterior",
    higher_is_ready=True,
    decodes=True,
    cost=free,
    formula="exp(s_1) / sum_(j<=K) exp(s_j), s: scores of the attention beam",
    source="Wright et al. 2024, arXiv 2309.09546, N-best posterior",
)
def beam_posterior(view: ExitView) -> Tensor:
    """Share of the chosen hypothesis in the probability of the beam.

    Arguments
    ---------
    view : ExitView
        A batch at an exit, with what was found.

    Returns
    -------
    tensor of shape (B,)
        From 0 to 1.
    """
    return _each(view, lambda one: one.posterior, 0.0)


@measure(
    "token_confidence",
    higher_is_ready=True,
    decodes=True,
    cost=free,
    formula="exp(1/S sum_s ln p(y_s | y_<s)), p: attention head",
    source="geometric mean of the decoder's probabilities of its tokens",
)
def token_confidence(view: ExitView) -> Tensor:
    """Mean probability that the attention head gives the tokens.

    Arguments
    ---------
    view : ExitView
        A batch at an exit, with what was found.

    Returns
    -------
    tensor of shape (B,)
        From 0 to 1.
    """
    return _each(view, lambda one: math.exp(_mean(one.best)), 0.0)


@measure(
    "token_confidence_min",
    higher_is_ready=True,
    decodes=True,
    cost=free,
    formula="min_s p(y_s | y_<s), p: attention head",
    source="the minimum over tokens of Laptev and Ginsburg, arXiv 2212.08703",
)
def token_confidence_min(view: ExitView) -> Tensor:
    """Smallest probability that the attention head gives a token.

    Arguments
    ---------
    view : ExitView
        A batch at an exit, with what was found.

    Returns
    -------
    tensor of shape (B,)
        From 0 to 1.
    """
    return _each(view, lambda one: math.exp(min(one.best.log_probs)), 0.0)


def _mean(hypothesis: Scored) -> float:
    return sum(hypothesis.log_probs) / len(hypothesis.log_probs)


def _each(
    view: ExitView, value: Callable[[NBest], float], without: float
) -> Tensor:
    values = [value(one) if one.tokens else without for one in view.nbest]
    # A score that is no number, from weights that overflow, is no readiness.
    values = [each if math.isfinite(each) else without for each in values]
    return torch.tensor(values, device=view.output.log_probs_BTV.device)
