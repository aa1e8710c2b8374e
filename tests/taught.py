"""Three utterances at a few exits, and slow references for what they teach.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ee.models.heads import ExitOutput

FRAMES = torch.tensor([9, 5, 7])
TOKENS = torch.tensor([[1, 2, 2], [3, 0, 0], [4, 1, 0]])
COUNTS = torch.tensor([3, 1, 2])


def exits(count: int = 3, seed: int = 0, sharpness: float = 2.0) -> list:
    """Random outputs of three utterances, with gradients."""
    generator = torch.Generator().manual_seed(seed)
    return [
        ExitOutput(
            (sharpness * torch.randn(3, 9, 6, generator=generator))
            .log_softmax(-1)
            .requires_grad_(),
            FRAMES,
            layer=2 * k + 2,
        )
        for k in range(count)
    ]


def row_of(output: ExitOutput, row: int) -> ExitOutput:
    """One utterance alone, without padding."""
    frames = output.lengths_B[row]
    return replace(
        output,
        log_probs_BTV=output.log_probs_BTV[row : row + 1, :frames],
        lengths_B=frames[None],
    )


def silent(output: ExitOutput, row: int) -> ExitOutput:
    """The same, with nothing but blanks in one utterance."""
    log_probs_BTV = output.log_probs_BTV.detach().clone()
    blank = torch.tensor([9.0, 0, 0, 0, 0, 0]).log_softmax(-1)
    log_probs_BTV[row] = blank
    return replace(output, log_probs_BTV=log_probs_BTV.requires_grad_())


def greedy(log_probs_TV: Tensor) -> list[int]:
    """Best tokens, repetitions merged, blanks removed: in plain Python."""
    best = [token for token, _ in itertools.groupby(log_probs_TV.argmax(-1))]
    return [int(token) for token in best if token != 0]


def ctc(log_probs_TV: Tensor, tokens: list[int]) -> float:
    """CTC loss of one utterance per token."""
    loss = F.ctc_loss(
        log_probs_TV[:, None],
        torch.tensor([tokens]),
        torch.tensor([len(log_probs_TV)]),
        torch.tensor([len(tokens)]),
        reduction="sum",
    )
    return loss.item() / len(tokens)


def divergence(p_TV: Tensor, q_TV: Tensor, temperature: float) -> float:
    """Mean KL(q || p) of the frames, by its definition, in probabilities."""
    total = 0.0
    for p_V, q_V in zip(p_TV.double().exp(), q_TV.double().exp()):
        p_V = p_V ** (1 / temperature) / (p_V ** (1 / temperature)).sum()
        q_V = q_V ** (1 / temperature) / (q_V ** (1 / temperature)).sum()
        total += float((q_V * (q_V / p_V).log()).sum())
    return temperature**2 * total / len(p_TV)


def confidence(log_probs_TV: Tensor) -> float:
    """Geometric mean of the frames' largest probabilities, at least 0.1."""
    largest = [
        float(frame.exp().max()) for frame in log_probs_TV.detach().double()
    ]
    return max(0.1, math.prod(largest) ** (1 / len(largest)))
