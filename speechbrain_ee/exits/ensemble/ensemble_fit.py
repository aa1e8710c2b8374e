"""Learning the weights with which exits are combined.

Every row of weights is found by itself: a few numbers, from development data
on which the exits' outputs are kept. The CTC loss gives the direction; how
far to go in it is decided by the loss or by the errors of greedy decoding,
since a lower loss may only mean that an overconfident exit was calmed down.

Axes: B utterances, S target tokens, T frames, V vocabulary entries, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import pstdev

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.exits.ensemble.ensemble import ExitCombination, pool
from speechbrain_ee.exits.ensemble.ensemble_file import check_pooling
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.padding import padding_mask

# outputs of all exits, target tokens of shape (B, S), their counts (B,)
Batch = tuple[Sequence[ExitOutput], Tensor, Tensor]
GOALS = ("errors", "loss")
SHARES = (1.0, 0.75, 0.5, 0.25, 0.1)
START_SHARE = 0.5
LEAST_WEIGHT = 0.002
STEPS = 40
# one-sided 5 % of the normal distribution
CLEARLY = 1.645


@dataclass(frozen=True)
class CombinationFit:
    """Learned weights, and what they do on the data that they come from.

    Arguments
    ---------
    combination : ExitCombination
        The weights.
    loss_E : tuple of float
        CTC loss per token of every exit, combined.
    loss_alone_E : tuple of float
        The same of every exit alone.
    errors_E : tuple of int
        Token errors of greedy decoding, combined.
    errors_alone_E : tuple of int
        The same of every exit alone.
    """

    combination: ExitCombination
    loss_E: tuple[float, ...]
    loss_alone_E: tuple[float, ...]
    errors_E: tuple[int, ...]
    errors_alone_E: tuple[int, ...]


@dataclass(frozen=True)
class _Candidate:
    """A row of weights, measured."""

    row: tuple[float, ...]
    loss: float
    errors_N: tuple[int, ...]

    @property
    def errors(self) -> int:
        return sum(self.errors_N)

    def clearly_fewer(self, other: "_Candidate", margin: float) -> bool:
        """Whether it saves errors by so many standard errors."""
        saved_N = [b - a for a, b in zip(self.errors_N, other.errors_N)]
        noise = pstdev(saved_N) * math.sqrt(len(saved_N))
        return sum(saved_N) > 0 and sum(saved_N) >= margin * noise


def fit_combination(
    batches: Sequence[Batch],
    pooling: str = "log_linear",
    goal: str = "errors",
    margin: float = CLEARLY,
) -> CombinationFit:
    """Learn how to combine exits.

    Row k is sought by L-BFGS on the logits of its weights, from two starts
    (half of the weight on exit k; the row before with half of it on exit k).
    The row found, rows between it and exit k alone, and exit k alone are
    then compared. A row whose loss is above that of exit k alone is out.

    Arguments
    ---------
    batches : sequence of (outputs, tokens_BS, token_counts_B)
        Development data: all exits of every batch, target tokens, and how
        many there are of each utterance. Gone through many times.
    pooling : str
        ``log_linear`` or ``linear``.
    goal : str
        ``errors``: of the rows with clearly fewer token errors in greedy
        decoding than exit k alone (paired by utterance, one-sided at 5 %),
        the one with the fewest; exit k alone if there is none. ``loss``:
        the row with the least CTC loss.

    Returns
    -------
    CombinationFit

    Raises
    ------
    InputError
        If an option is unknown or there is no data.

    Example
    -------
    >>> frames = torch.tensor([[[0.6, 0.4], [0.1, 0.9]]])
    >>> outputs = [
    ...     ExitOutput(p.log(), torch.tensor([2]), layer)
    ...     for p, layer in ((frames, 2), (frames.flip(1), 4))
    ... ]
    >>> data = [(outputs, torch.tensor([[1]]), torch.tensor([1]))]
    >>> fit = fit_combination(data, goal="loss")
    >>> fit.loss_E[1] <= fit.loss_alone_E[1]
    True
    """
    check_pooling(pooling)
    if goal not in GOALS:
        raise InputError(
            f"goal: {goal!r} is unknown; use one of {', '.join(GOALS)}."
        )
    if not sum(len(counts_B) for _, _, counts_B in batches):
        raise InputError(
            "batches: no utterance to learn weights from; give development "
            "data."
        )
    batches = [_without_padding(batch) for batch in batches]
    found: list[_Candidate] = []
    alone: list[_Candidate] = []
    learned: tuple[float, ...] = ()
    for exit in range(1, len(batches[0][0]) + 1):
        identity = (0.0,) * (exit - 1) + (1.0,)
        alone.append(_measure(batches, identity, pooling))
        learned = _learn(batches, exit, learned, pooling)
        rows = [_between(learned, identity, share) for share in SHARES]
        tried = [_measure(batches, row, pooling) for row in dict.fromkeys(rows)]
        found.append(_best(alone[-1], tried, goal, margin))
    layers = [output.layer for output in batches[0][0]]
    rows = [candidate.row for candidate in found]
    return CombinationFit(
        ExitCombination(rows, pooling, layers),
        loss_E=tuple(each.loss for each in found),
        loss_alone_E=tuple(each.loss for each in alone),
        errors_E=tuple(each.errors for each in found),
        errors_alone_E=tuple(each.errors for each in alone),
    )


def ctc_loss(output: ExitOutput, tokens_BS: Tensor, counts_B: Tensor) -> Tensor:
    """CTC loss per token of every utterance.

    Arguments
    ---------
    output : ExitOutput
        An exit.
    tokens_BS : tensor of shape (B, S)
        Target tokens, padded.
    counts_B : tensor of shape (B,)
        Tokens per utterance.

    Returns
    -------
    tensor of shape (B,)
        Negative log-likelihood by the number of tokens; 0 for an utterance
        with too few frames for its tokens.
    """
    losses_B = F.ctc_loss(
        output.log_probs_BTV.float().transpose(0, 1),
        tokens_BS,
        output.lengths_B,
        counts_B,
        blank=output.blank_index,
        reduction="none",
        zero_infinity=True,
    )
    return losses_B / counts_B.clamp(min=1)


def _without_padding(batch: Batch) -> Batch:
    """Padded frames as zeros: garbage there would spoil the gradient."""
    outputs, tokens_BS, counts_B = batch
    frames = outputs[0].log_probs_BTV.shape[1]
    padded_BT1 = padding_mask(outputs[0].lengths_B, frames).unsqueeze(-1)
    clean = [
        replace(
            each, log_probs_BTV=each.log_probs_BTV.masked_fill(padded_BT1, 0)
        )
        for each in outputs
    ]
    return clean, tokens_BS, counts_B


def _learn(
    batches: Sequence[Batch],
    exit: int,
    before: tuple[float, ...],
    pooling: str,
) -> tuple[float, ...]:
    """The row of least loss that L-BFGS finds."""
    if exit == 1:
        return (1.0,)
    share = (1 - START_SHARE) / (exit - 1)
    halved = tuple(weight * (1 - START_SHARE) for weight in before)
    starts = ((share,) * (exit - 1), halved)
    ends = [
        _descend(batches, (*start, START_SHARE), pooling) for start in starts
    ]
    return min(ends, key=lambda end: end[1])[0]


def _descend(
    batches: Sequence[Batch], start: tuple[float, ...], pooling: str
) -> tuple[tuple[float, ...], float]:
    """Where L-BFGS ends from a start, and its loss."""
    weights = torch.tensor(start, dtype=torch.float64).clamp(min=1e-4)
    logits = weights.log().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=STEPS,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = _loss(batches, logits.softmax(0).float(), pooling)
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(closure)
    with torch.no_grad():
        found = logits.softmax(0)
        loss = float(_loss(batches, found.float(), pooling))
    # a minimum that is no number must lose against every other
    if not math.isfinite(loss):
        return start, math.inf
    return _tidied(found.tolist()), loss


def _loss(batches: Sequence[Batch], weights_E: Tensor, pooling: str) -> Tensor:
    """Mean loss over the utterances; differentiable in the weights."""
    total = torch.zeros(())
    for outputs, tokens_BS, counts_B in batches:
        logs = [o.log_probs_BTV for o in outputs[: len(weights_E)]]
        output = ExitOutput(
            pool(logs, weights_E, pooling),
            outputs[0].lengths_B,
            outputs[0].layer,
            outputs[0].blank_index,
        )
        total = total + ctc_loss(output, tokens_BS, counts_B).sum()
    return total / sum(len(counts_B) for _, _, counts_B in batches)


@torch.no_grad()
def _measure(
    batches: Sequence[Batch], row: tuple[float, ...], pooling: str
) -> _Candidate:
    """What a row does, by the same way that it will be used."""
    exit = len(row)
    rows = [[0.0] * k + [1.0] for k in range(exit - 1)]
    combination = ExitCombination([*rows, row], pooling)
    loss, errors = 0.0, []
    for outputs, tokens_BS, counts_B in batches:
        output = combination.combine_at(outputs[:exit])
        loss += float(ctc_loss(output, tokens_BS, counts_B).double().sum())
        targets = zip(tokens_BS.tolist(), counts_B.tolist())
        for heard, (tokens, count) in zip(greedy_tokens(output), targets):
            errors.append(Levenshtein.distance(heard, tokens[:count]))
    return _Candidate(row, loss / len(errors), tuple(errors))


def _best(
    alone: _Candidate, tried: Sequence[_Candidate], goal: str, margin: float
) -> _Candidate:
    allowed = [each for each in tried if each.loss <= alone.loss]
    if goal == "loss":
        return min([alone, *allowed], key=lambda each: each.loss)
    better = [each for each in allowed if each.clearly_fewer(alone, margin)]
    return min(better, key=lambda each: (each.errors, each.loss), default=alone)


def _between(
    row: tuple[float, ...], identity: tuple[float, ...], share: float
) -> tuple[float, ...]:
    mixed = [share * a + (1 - share) * b for a, b in zip(row, identity)]
    return _tidied(mixed)


def _tidied(row: Sequence[float]) -> tuple[float, ...]:
    """Without weights that do nothing but cost."""
    kept = [weight if weight >= LEAST_WEIGHT else 0.0 for weight in row]
    return tuple(weight / math.fsum(kept) for weight in kept)
