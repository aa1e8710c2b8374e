"""Exit criteria: what says that an exit is good enough.

A criterion is one decorated function that measures raw evidence, one number
per utterance, from what an exit put out. The decorator adds which way the
evidence points, where the formula comes from and what it costs. To add a
criterion, write its function here: the evaluation then records it in every
trace, and every report shows it.

Rules that all follow: padding frames do not count; a batch changes nothing;
without a single frame to look at there is no evidence of readiness, and the
least ready value is returned (so an exit that emits only blanks, as early
exits do before they have learnt anything, never looks confident).

Axes: B utterances, T frames, V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speechbrain_ee.exits.registry import (
    Criterion,
    criterion,
    criterion_names,
    get_criterion,
    measure_all,
)

if TYPE_CHECKING:
    from speechbrain_ee.models.heads import ExitOutput

__all__ = [
    "Criterion",
    "criterion",
    "criterion_names",
    "entropy",
    "entropy_nonblank",
    "get_criterion",
    "max_prob",
    "max_prob_nonblank",
    "measure_all",
]


@criterion(
    "entropy",
    higher_is_ready=False,
    source="Wright et al. 2024, arXiv 2309.09546, frame entropy",
    formula="-1/(T V) sum_t sum_v p ln p",
)
def entropy(output: "ExitOutput") -> Tensor:
    """Frame entropy, normalised by frames and vocabulary.

    Arguments
    ---------
    output : ExitOutput
        What an exit put out.

    Returns
    -------
    tensor of shape (B,)
    """
    vocab = output.log_probs_BTV.shape[-1]
    return _mean(_entropy_BT(output) / vocab, _frames_BT(output), _worst(vocab))


@criterion(
    "entropy_nonblank",
    higher_is_ready=False,
    source="after Laptev and Ginsburg 2022, arXiv 2212.08703",
    formula="-1/(|S| V) sum_(t in S) sum_v p ln p, S: argmax not blank",
)
def entropy_nonblank(output: "ExitOutput") -> Tensor:
    """Frame entropy over the frames that emit something.

    The blank stays in the distribution of those frames: whether a frame is
    a token or nothing is a decision that can be wrong, too (a deletion).

    Arguments
    ---------
    output : ExitOutput
        What an exit put out.

    Returns
    -------
    tensor of shape (B,)
    """
    vocab = output.log_probs_BTV.shape[-1]
    return _mean(
        _entropy_BT(output) / vocab, _emitting_BT(output), _worst(vocab)
    )


@criterion(
    "max_prob",
    higher_is_ready=True,
    source="Berrebbi et al. 2023, arXiv 2211.08989, maximum probability",
    formula="1/T sum_t max_v p",
)
def max_prob(output: "ExitOutput") -> Tensor:
    """Mean over frames of the largest probability.

    Arguments
    ---------
    output : ExitOutput
        What an exit put out.

    Returns
    -------
    tensor of shape (B,)
    """
    best_BT = output.log_probs_BTV.float().amax(-1).exp()
    return _mean(best_BT, _frames_BT(output), 0.0)


@criterion(
    "max_prob_nonblank",
    higher_is_ready=True,
    source="after Laptev and Ginsburg 2022, arXiv 2212.08703",
    formula="1/|S| sum_(t in S) max_v p, S: argmax not blank",
)
def max_prob_nonblank(output: "ExitOutput") -> Tensor:
    """Mean largest probability over the frames that emit something.

    Arguments
    ---------
    output : ExitOutput
        What an exit put out.

    Returns
    -------
    tensor of shape (B,)
    """
    best_BT = output.log_probs_BTV.float().amax(-1).exp()
    return _mean(best_BT, _emitting_BT(output), 0.0)


def _frames_BT(output: "ExitOutput") -> Tensor:
    """True where a frame is speech, False where it is padding."""
    frames = output.log_probs_BTV.shape[1]
    steps_T = torch.arange(frames, device=output.log_probs_BTV.device)
    return steps_T < output.lengths_B.to(steps_T.device).unsqueeze(1)


def _emitting_BT(output: "ExitOutput") -> Tensor:
    """True where the greedy path emits something other than blank."""
    blank = getattr(output, "blank_index", 0)
    return _frames_BT(output) & (output.log_probs_BTV.argmax(-1) != blank)


def _entropy_BT(output: "ExitOutput") -> Tensor:
    """Entropy of each frame in nats; probability 0 contributes 0."""
    # half precision would round small probabilities away
    return torch.special.entr(output.log_probs_BTV.float().exp()).sum(-1)


def _worst(vocab: int) -> float:
    """The largest possible normalised entropy."""
    return math.log(vocab) / vocab


def _mean(value_BT: Tensor, count_BT: Tensor, without: float) -> Tensor:
    """Mean over the counted frames; ``without`` where there are none."""
    # where, not a product: padding may hold NaN or infinities
    total_B = torch.where(count_BT, value_BT, 0.0).sum(1)
    frames_B = count_BT.sum(1)
    mean_B = total_B / frames_B.clamp(min=1)
    return torch.where(frames_B > 0, mean_B, without)
