"""Losses over exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.heads import ExitOutput


def ctc_exit_losses(
    outputs: Sequence[ExitOutput], tokens_BS: Tensor, token_counts_B: Tensor
) -> Tensor:
    """CTC loss of every exit.

    All exits go through one call, stacked along the batch. On a CPU that
    takes as long as a call per exit.

    Arguments
    ---------
    outputs : sequence of ExitOutput
        The exits of one batch.
    tokens_BS : torch.Tensor
        Target tokens, padded, shape (B, S).
    token_counts_B : torch.Tensor
        Tokens per utterance, shape (B,).

    Returns
    -------
    torch.Tensor
        Losses of shape (E,): every utterance's negative log-likelihood over
        its number of tokens, averaged over the batch. An utterance with too
        few frames for its tokens counts as zero.
    """
    exits = len(outputs)
    log_probs = torch.cat([output.log_probs_BTV for output in outputs])
    losses = F.ctc_loss(
        log_probs.transpose(0, 1),
        tokens_BS.repeat(exits, 1),
        outputs[0].lengths_B.repeat(exits),
        token_counts_B.repeat(exits),
        blank=outputs[0].blank_index,
        reduction="none",
        zero_infinity=True,
    )
    per_token = losses / token_counts_B.repeat(exits).clamp(min=1)
    return per_token.view(exits, -1).mean(dim=1)


def exit_weights(
    weights: Sequence[float] | None, num_exits: int
) -> tuple[float, ...]:
    """The weight of every exit in the joint loss.

    Arguments
    ---------
    weights : sequence of float, optional
        One non-negative weight per exit; None for uniform weights of 1, as
        in Wright et al. (2309.09546), ``L = sum_m L(y^m, y)``.
    num_exits : int
        Number of exits.

    Returns
    -------
    tuple of float
        One weight per exit.

    Raises
    ------
    InputError
        If their number does not fit, one is negative, or all are zero.

    Example
    -------
    >>> exit_weights(None, 3)
    (1.0, 1.0, 1.0)
    """
    if weights is None:
        return (1.0,) * num_exits
    weights = tuple(float(weight) for weight in weights)
    if len(weights) != num_exits or min(weights) < 0 or not any(weights):
        raise InputError(
            f"exit_weights: {list(weights)} must hold {num_exits} "
            "non-negative numbers, one per entry of exit_layers and not all "
            "zero; null means 1 for every exit."
        )
    return weights


def joint_loss(losses_E: Tensor, weights: Sequence[float]) -> Tensor:
    """Weighted sum of the exits' losses, ``sum_m w_m L_m``.

    Arguments
    ---------
    losses_E : torch.Tensor
        One loss per exit, shape (E,).
    weights : sequence of float
        One weight per exit.

    Returns
    -------
    torch.Tensor
        A scalar.

    Example
    -------
    >>> joint_loss(torch.tensor([1.0, 2.0]), (1.0, 0.5))
    tensor(2.)
    """
    return (losses_E * losses_E.new_tensor(weights)).sum()
