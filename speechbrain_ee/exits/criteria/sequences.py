"""Measures over hypotheses and over successive exits.

How probable the greedy hypothesis is, and how far an exit is from earlier
ones: in its hidden states and in its output distributions.

Axes: B utterances, T frames, V vocabulary entries, D model width.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from speechbrain_ee.exits.criteria.patience import LAGS
from speechbrain_ee.exits.criteria.registry import measure
from speechbrain_ee.exits.criteria.view import ExitView

# What an exit with no hypothesis gets: below 50 s of 20 ms frames that are
# uniform over 32 characters (-50 * 50 * ln 32 = -8,664).
LEAST_LOG_PROB = -1e4
# Logarithm of the smallest normal fp32 number: keeps a cross-entropy finite
# where an exit rules out what an earlier one believed.
LEAST_LOG = math.log(torch.finfo(torch.float32).tiny)
_WIDTH = 768  # of hidden states where it is not known, as in old traces

FORWARD = "Graves et al. 2006, CTC forward variables, of the greedy hypothesis"


def _forward_cost(frames: Any, vocab: int) -> Any:
    """Greedy path, and 3 products at 2 U + 1 states a frame, U = T / 3.

    15 characters a second at 50 frames a second are about U = T / 3.
    """
    return frames * vocab + 2 * frames * frames + 3 * frames


@measure(
    "ctc_forward",
    higher_is_ready=True,
    source=FORWARD,
    formula="ln P_CTC(greedy hypothesis), summed over its alignments",
    cost=_forward_cost,
)
def ctc_forward(view: ExitView) -> Tensor:
    """Log posterior of the greedy hypothesis: exact, and without a beam.

    Arguments
    ---------
    view : ExitView
        A batch at an exit.

    Returns
    -------
    tensor of shape (B,)
        In nats; ``LEAST_LOG_PROB`` where nothing is emitted.

    Example
    -------
    >>> from speechbrain_ee.models.heads import ExitOutput
    >>> probs_BTV = torch.tensor([[[0.4, 0.6], [0.9, 0.1]]])
    >>> output = ExitOutput(probs_BTV.log(), torch.tensor([2]), layer=2)
    >>> round(ctc_forward(ExitView(output)).exp().item(), 2)
    0.64
    """
    log_prob_B = view.hypothesis_log_prob_B
    spoken_B = view.spoken_BT.any(1)
    floor_B = log_prob_B.clamp(min=LEAST_LOG_PROB)
    return torch.where(spoken_B, floor_B, LEAST_LOG_PROB)


@measure(
    "ctc_forward_per_frame",
    higher_is_ready=True,
    source=FORWARD,
    formula="1/T ln P_CTC(greedy hypothesis)",
    cost=_forward_cost,
)
def ctc_forward_per_frame(view: ExitView) -> Tensor:
    """Log posterior of the greedy hypothesis, by frames.

    Arguments
    ---------
    view : ExitView
        A batch at an exit.

    Returns
    -------
    tensor of shape (B,)
        In nats per frame; ``-ln V``, which uniform frames would have along
        one path, where nothing is emitted.
    """
    least = -math.log(view.vocab)
    frames_B = view.frames_BT.sum(1)
    rate_B = view.hypothesis_log_prob_B / frames_B.clamp(min=1)
    return torch.where(view.spoken_BT.any(1), rate_B.clamp(min=least), least)


@measure(
    "hidden_cosine",
    higher_is_ready=True,
    source="Zaiem et al. 2023, arXiv 2303.06740, layer similarity",
    formula="1/T sum_t cos(h_t, h_t of the previous exit)",
    cost=lambda frames, vocab, width=_WIDTH: 3 * frames * width,
    earlier=1,
    hidden=True,
)
def hidden_cosine(view: ExitView) -> Tensor:
    """Mean over frames of the cosine of successive exits' hidden states.

    Arguments
    ---------
    view : ExitView
        A batch at an exit, hidden states kept at this and the previous one.

    Returns
    -------
    tensor of shape (B,)
    """
    now_BTD = view.output.hidden_BTD.float()
    # fewer utterances may have made the batch shorter since
    before_BTD = view.earlier[-1].output.hidden_BTD[:, : now_BTD.shape[1]]
    cosine_BT = functional.cosine_similarity(
        now_BTD, before_BTD.float(), dim=-1
    )
    return view.mean(cosine_BT, view.spoken_BT, -1.0)


def cross_entropy(view: ExitView, lag: int) -> Tensor:
    """Cross-entropy between the output distributions of two exits.

    Arguments
    ---------
    view : ExitView
        A batch at an exit.
    lag : int
        How many exits earlier the other one is.

    Returns
    -------
    tensor of shape (B,)
        In nats per frame, the earlier exit's probabilities as the weights.
    """
    now_BTV = view.log_probs_BTV.clamp(min=LEAST_LOG)
    before_BTV = view.earlier[-lag].probs_BTV[:, : now_BTV.shape[1]]
    value_BT = -(before_BTV * now_BTV).sum(-1)
    return view.mean(value_BT, view.spoken_BT, -LEAST_LOG)


for _lag in LAGS:
    measure(
        f"cross_entropy_{_lag}",
        source="after Berrebbi et al. 2023, arXiv 2211.08989, patience",
        formula=f"-1/T sum_t sum_v p_(k-{_lag}) ln p_k",
        earlier=_lag,
    )(lambda view, lag=_lag: cross_entropy(view, lag))
