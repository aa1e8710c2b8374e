"""Losses over exits, and the terms of which a joint loss is made.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.padding import padding_mask

LEAST_CONFIDENCE = 0.1  # keeps a loss divided by a confidence bounded


def ctc_utterance_losses(
    outputs: Sequence[ExitOutput], tokens_BS: Tensor, token_counts_B: Tensor
) -> Tensor:
    """CTC loss of every exit for every utterance.

    All exits go through one call, stacked along the batch. On a CPU that
    takes as long as a call per exit.
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
    return per_token.view(exits, -1)


def with_too_few_frames(
    lengths_B: Tensor, tokens_BS: Tensor, token_counts_B: Tensor
) -> Tensor:
    """Which utterances CTC cannot align, so that their loss counts as zero."""
    place_S = torch.arange(tokens_BS.shape[1], device=tokens_BS.device)[1:]
    repeated_BS = tokens_BS[:, 1:] == tokens_BS[:, :-1]
    repeated_BS = repeated_BS & (place_S < token_counts_B.unsqueeze(1))
    return lengths_B < token_counts_B + repeated_BS.sum(1)


def ctc_exit_losses(
    outputs: Sequence[ExitOutput], tokens_BS: Tensor, token_counts_B: Tensor
) -> Tensor:
    """CTC loss of every exit."""
    return ctc_utterance_losses(outputs, tokens_BS, token_counts_B).mean(dim=1)


@torch.no_grad()
def utterance_confidences(outputs: Sequence[ExitOutput]) -> Tensor:
    """How sure every exit is of every utterance.

    ``max(0.1, exp(1/T sum_t ln max_v p))``, after the public code of Wright
    et al. (arXiv 2309.09546), which takes one mean over the whole batch and
    its padding.
    """
    frames_B = outputs[0].lengths_B
    best_EBT = torch.stack(
        [output.log_probs_BTV.amax(-1) for output in outputs]
    )
    padded_BT = padding_mask(frames_B, best_EBT.shape[-1])
    summed_EB = best_EBT.masked_fill(padded_BT, 0.0).sum(-1)
    mean_EB = summed_EB / frames_B.clamp(min=1)
    return mean_EB.exp().clamp(min=LEAST_CONFIDENCE)


def attention_exit_losses(
    outputs: Sequence[ExitOutput],
    tokens_BS: Tensor,
    token_counts_B: Tensor,
    eos_index: int,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of every exit's attention head."""
    targets_BS, said_BS = _with_end(tokens_BS, token_counts_B, eos_index)
    losses = []
    for output in outputs:
        log_probs_BSV = output.attention_BSV
        target = log_probs_BSV.gather(-1, targets_BS.unsqueeze(-1)).squeeze(-1)
        spread = log_probs_BSV.mean(-1)
        gain_BS = (1 - label_smoothing) * target + label_smoothing * spread
        summed_B = gain_BS.masked_fill(~said_BS, 0.0).sum(1)
        losses.append(-(summed_B / (token_counts_B + 1)).mean())
    return torch.stack(losses)


def attention_hits(
    outputs: Sequence[ExitOutput],
    tokens_BS: Tensor,
    token_counts_B: Tensor,
    eos_index: int,
) -> tuple[Tensor, int]:
    """Tokens that the attention heads predict, given those before."""
    targets_BS, said_BS = _with_end(tokens_BS, token_counts_B, eos_index)
    hits = [
        ((output.attention_BSV.argmax(-1) == targets_BS) & said_BS).sum()
        for output in outputs
    ]
    return torch.stack(hits), int(said_BS.sum())


def after_start(tokens_BS: Tensor, bos_index: int) -> Tensor:
    """What an attention decoder reads in training."""
    return F.pad(tokens_BS, (1, 0), value=bos_index)


def _with_end(
    tokens_BS: Tensor, token_counts_B: Tensor, eos_index: int
) -> tuple[Tensor, Tensor]:
    """Targets with the end behind them, and where there are any."""
    targets_BS = F.pad(tokens_BS, (0, 1), value=eos_index)
    place_S = torch.arange(targets_BS.shape[1], device=tokens_BS.device)
    ends_B1 = token_counts_B.unsqueeze(1)
    targets_BS = targets_BS.masked_fill(place_S >= ends_B1, eos_index)
    return targets_BS, place_S <= ends_B1


def exit_weights(
    weights: Sequence[float] | None, num_exits: int, key: str = "exit_weights"
) -> tuple[float, ...]:
    """The weight of every exit in the joint loss."""
    if weights is None:
        return (1.0,) * num_exits
    weights = tuple(float(weight) for weight in weights)
    if len(weights) != num_exits or min(weights) < 0 or not any(weights):
        raise InputError(
            f"{key}: {list(weights)} must hold {num_exits} "
            "non-negative numbers, one per entry of exit_layers and not all "
            "zero; null means 1 for every exit."
        )
    return weights


def joint_loss(losses_E: Tensor, weights: Sequence[float]) -> Tensor:
    """Weighted sum of the exits' losses, ``sum_m w_m L_m``."""
    weights_E = losses_E.new_tensor(weights)
    # 0 x NaN is NaN: what has no weight counts for nothing, whatever it is.
    return (losses_E * weights_E).masked_fill(weights_E == 0, 0.0).sum()


class LossTerm:
    """A term of the joint loss: one loss per exit, with its weight.

    Derive from it, give it a ``name`` and :meth:`losses`, and list an object
    in the YAML: ``losses: [ctc, !new:my_losses.MyTerm {weight: 0.1}]``. A
    term without weight is not computed.

    Arguments
    ---------
    weight : float
        Of the term, from 0.
    exit_weights : sequence of float, optional
        One per exit, from 0; None for 1 each.

    Example
    -------
    >>> LossTerm(0.5, exit_weights=[1, 2]).weights(2)
    [0.5, 1.0]
    """

    name = ""  # in the log and in checkpoints, one word
    key = "exit_weights"  # of the YAML, for messages

    def __init__(
        self, weight: float = 1.0, exit_weights: Sequence[float] | None = None
    ):
        self.weight, self.exit_weights = weight, exit_weights

    def weights(self, num_exits: int) -> list[float]:
        """The weight of every exit's loss."""
        each = exit_weights(self.exit_weights, num_exits, self.key)
        if not isinstance(self.weight, int | float) or not self.weight >= 0:
            raise InputError(
                f"losses: the weight of {self.name}, {self.weight!r}, must be "
                "a number from 0."
            )
        return [self.weight * weight for weight in each]

    def losses(
        self, outputs: Sequence[ExitOutput], batch: Any, brain: Any
    ) -> Tensor | None:
        """What the exits of a batch lose.

        Arguments
        ---------
        outputs : list of ExitOutput
            The exits that are trained, with gradients in training.
        batch : PaddedBatch
            As the data set gives it.
        brain : EarlyExitBrain
            Holds ``hparams`` and ``modules``; its ``targets(batch, rows)``
            are the tokens of a batch, augmented copies included.

        Returns
        -------
        torch.Tensor or None
            One loss per exit, averaged over the batch, shape (E,); None in
            a test where the outputs do not have what it takes.
        """
        raise NotImplementedError


class CTCTerm(LossTerm):
    """CTC, in training together with the Brain's distillation."""

    name = "CTC"

    def losses(
        self, outputs: Sequence[ExitOutput], batch: Any, brain: Any
    ) -> Tensor:
        """As :meth:`~.distillation.Distillation.losses`, shape (E,)."""
        targets = brain.targets(batch, len(outputs[0].lengths_B))
        return brain.learns_by.losses(outputs, *targets, brain.taught)


class AttentionTerm(LossTerm):
    """:func:`attention_exit_losses`; none in a test."""

    name = "attention"
    key = "attention_exit_weights"

    def losses(
        self, outputs: Sequence[ExitOutput], batch: Any, brain: Any
    ) -> Tensor | None:
        """Cross-entropies of the decoders, shape (E,)."""
        if outputs[0].attention_BSV is None:
            return None
        return attention_exit_losses(
            outputs,
            *brain.targets(batch, len(outputs[0].lengths_B)),
            brain.eos_index,
            brain.hparams.label_smoothing,
        )


def no_loss(module: nn.Module) -> Tensor | float:
    """Zero, with a gradient of zero for a head that has run in vain.

    DDP waits for the gradients of all that has run.
    """
    learning = [p for p in module.parameters() if p.requires_grad]
    return 0.0 * sum(parameter.flatten()[0] for parameter in learning)
