"""Measures of hypotheses: CTC's N best and what an attention decoder found.

Measures of the attention head look at what was found at the exit by its beam
search, alone or with CTC, or by CTC's N best rescored. They cost a search at
every exit that an utterance passes, which a trace charges to criteria that
read them (``decoding_macs``). An empty hypothesis is no evidence of readiness.

Axes: B utterances, T frames.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.beam import NBest, beam_search
from speechbrain_ee.exits.criteria.registry import free, measure
from speechbrain_ee.exits.criteria.view import ExitView

SIZE = 10
BEAM = 10
# For an utterance without a hypothesis: less ready than any search finds.
_LEAST_SCORE = -100.0


def _candidates(frames: Any, vocab: int) -> Any:
    """Cost with the usual beam: find its best tokens, extend by each."""
    return frames * (vocab + BEAM * min(vocab, BEAM))


@measure(
    "nbest_posterior",
    higher_is_ready=True,
    cost=_candidates,
    formula="exp(s_1) / sum_(j<=N) exp(s_j), s: scores of a beam's N best",
    source="Wright et al. 2024, arXiv 2309.09546, N-best posterior",
    ranges={"size": (2, math.inf)},  # among one it is always 1
)
def nbest_posterior(
    view: ExitView, *, size: int = SIZE, beam: int = BEAM
) -> Tensor:
    """Posterior of the best hypothesis among the ``size`` best of a search.

    From 0 to 1; 0 where the best hypothesis is empty or there is no frame, NaN
    where the model's output is NaN.
    """
    if beam < size:
        raise InputError(
            f"nbest_posterior: beam={beam} cannot hold size={size} "
            f"hypotheses; choose a beam of at least {size}."
        )
    log_probs_BTV, lengths_B = view.log_probs_BTV, view.output.lengths_B
    found = beam_search(log_probs_BTV, lengths_B, view.blank, beam)
    nbest = [NBest(tuple(each[:size])) for each in found]
    values = [
        # An exit that emits only blanks has not learnt anything yet.
        one.posterior if one.hypotheses and one.tokens else 0.0
        for one in nbest
    ]
    values_B = torch.tensor(values, device=log_probs_BTV.device)
    broken_BT = log_probs_BTV.detach().isnan().any(-1) & view.frames_BT
    return values_B.masked_fill(broken_BT.any(1), torch.nan)


def _score(one: NBest) -> float:
    """Log-probability per token of the chosen hypothesis, in nats."""
    return max(one.best.score_per_token, _LEAST_SCORE)


def _confidence(one: NBest) -> float:
    """Mean probability that the attention head gives the tokens."""
    log_probs = one.best.log_probs
    return math.exp(sum(log_probs) / len(log_probs))


def _least_confidence(one: NBest) -> float:
    """Smallest probability that the attention head gives a token."""
    return math.exp(min(one.best.log_probs))


# Measure: of a hypothesis, without one, formula, source.
_BY_ATTENTION: dict[str, tuple[Callable[[NBest], float], float, str, str]] = {
    "beam_score": (
        _score,
        _LEAST_SCORE,
        "log p(y) / (|y| + 1), y: best of the attention head's beam",
        "the length-normalised score that beam searches rank by",
    ),
    "beam_posterior": (
        lambda one: one.posterior,
        0.0,
        "exp(s_1) / sum_(j<=K) exp(s_j), s: scores of the attention beam",
        "Wright et al. 2024, arXiv 2309.09546, N-best posterior",
    ),
    "token_confidence": (
        _confidence,
        0.0,
        "exp(1/S sum_s ln p(y_s | y_<s)), p: attention head",
        "geometric mean of the decoder's probabilities of its tokens",
    ),
    "token_confidence_min": (
        _least_confidence,
        0.0,
        "min_s p(y_s | y_<s), p: attention head",
        "the minimum over tokens of Laptev and Ginsburg, arXiv 2212.08703",
    ),
}


def _each(
    view: ExitView, value: Callable[[NBest], float], without: float
) -> Tensor:
    values = [value(one) if one.tokens else without for one in view.nbest]
    # NaN, from weights that overflow, is no readiness.
    values = [each if math.isfinite(each) else without for each in values]
    return torch.tensor(values, device=view.output.log_probs_BTV.device)


for _name, (_value, _without, _formula, _source) in _BY_ATTENTION.items():
    measure(
        _name,
        higher_is_ready=True,
        decodes=True,
        cost=free,
        formula=_formula,
        source=_source,
    )(lambda view, value=_value, none=_without: _each(view, value, none))
