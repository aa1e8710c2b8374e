"""Combining exits: an exit's output averaged with those of earlier exits.

When an utterance stands at exit k, the log-probabilities of exits 1 to k have
been computed. A weighted average of them, taken before decoding, costs next
to nothing. The weights are learned on development data, see
:mod:`~speechbrain_ee.exits.ensemble.ensemble_fit`.

Axes: B utterances, T frames, V vocabulary entries, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.ensemble.ensemble_file import (
    check_layers,
    check_pooling,
    check_rows,
    read_fields,
    write_fields,
)
from speechbrain_ee.models.heads import ExitOutput

# A probability that rounded to zero must not veto what the others say.
LEAST_LOG_PROB = -1e4


def pool(
    log_probs: Sequence[Tensor], weights: Sequence[Any], pooling: str
) -> Tensor:
    """Weighted average of distributions.

    ``log_linear``: the normalised product of powers, ``log p = log_softmax(
    sum_j w_j log p_j)`` (a logarithmic opinion pool); ``linear``: the
    mixture, ``log p = log sum_j w_j p_j`` (a linear opinion pool). Genest
    and Zidek, "Combining probability distributions", Statistical Science,
    1986.

    Arguments
    ---------
    log_probs : sequence of tensor of shape (B, T, V)
        Log-probabilities, one per distribution.
    weights : sequence of float or scalar tensor
        Positive, their sum is 1.
    pooling : str
        ``log_linear`` or ``linear``.

    Returns
    -------
    tensor of shape (B, T, V)
        Log-probabilities in fp32.

    Example
    -------
    >>> sure, unsure = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
    >>> logs = [sure.log(), unsure.log()]
    >>> pool(logs, [0.5, 0.5], "linear").exp()
    tensor([0.7000, 0.3000])
    >>> pool(logs, [0.5, 0.5], "log_linear").exp()
    tensor([0.7500, 0.2500])
    """
    finite = [each.float().clamp(min=LEAST_LOG_PROB) for each in log_probs]
    if pooling == "linear":
        logs = [torch.as_tensor(weight).log() for weight in weights]
        terms = [each + log for each, log in zip(finite, logs)]
        return torch.stack(terms).logsumexp(dim=0)
    total = sum(weight * each for weight, each in zip(weights, finite))
    return total.log_softmax(dim=-1)


@dataclass(frozen=True)
class ExitCombination:
    """Weights with which each exit is averaged with the exits before it.

    In a YAML::

        combination: !new:speechbrain_ee.exits.ensemble.ensemble.ExitCombination
          weights: [[1], [0.2, 0.8], [0, 0.3, 0.7]]

    Arguments
    ---------
    weights : sequence of E sequences
        Row k holds the weights of exits 1 to k (further entries must be 0):
        not negative, with sum 1.
    pooling : str
        ``log_linear`` or ``linear``, see :func:`pool`.
    exit_layers : sequence of int, optional
        Layers of the exits that the weights belong to; outputs of others
        are then refused.

    Raises
    ------
    InputError
        If the weights are no such rows.

    Example
    -------
    >>> halves = ExitCombination([[1], [0.5, 0.5]])
    >>> outputs = [
    ...     ExitOutput(torch.tensor([[p]]).log(), torch.tensor([1]), layer)
    ...     for p, layer in (([0.9, 0.1], 2), ([0.5, 0.5], 4))
    ... ]
    >>> halves.combine_at(outputs).log_probs_BTV.exp()
    tensor([[[0.7500, 0.2500]]])
    """

    weights: Sequence[Sequence[float]]
    pooling: str = "log_linear"
    exit_layers: Sequence[int] | None = None

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        rows = check_rows(self.weights)
        object.__setattr__(self, "weights", rows)
        if self.exit_layers is not None:
            layers = check_layers(self.exit_layers, len(rows))
            object.__setattr__(self, "exit_layers", layers)

    @classmethod
    def identity(cls, exits: int, **options: Any) -> "ExitCombination":
        """Weights that leave every exit as it is.

        Arguments
        ---------
        exits : int
            Number of exits.
        **options
            ``pooling`` and ``exit_layers``.

        Returns
        -------
        ExitCombination
        """
        rows = [[0.0] * k + [1.0] for k in range(exits)]
        return cls(rows, **options)

    @classmethod
    def uniform(cls, exits: int, **options: Any) -> "ExitCombination":
        """Equal weights for all exits up to each one.

        Arguments
        ---------
        exits : int
            Number of exits.
        **options
            ``pooling`` and ``exit_layers``.

        Returns
        -------
        ExitCombination
        """
        return cls([[1.0 / k] * k for k in range(1, exits + 1)], **options)

    @classmethod
    def load(cls, path: str | Path) -> "ExitCombination":
        """Read weights that :meth:`save` wrote.

        Arguments
        ---------
        path : str or Path
            The file.

        Returns
        -------
        ExitCombination

        Raises
        ------
        InputError
            With file and field, if it cannot be read or is malformed.
        """
        fields = read_fields(path)
        try:
            return cls(**fields)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the weights as readable JSON, whole or not at all.

        Arguments
        ---------
        path : str or Path
            The file.
        """
        write_fields(path, self.weights, self.pooling, self.exit_layers)

    def used(self, exit: int) -> tuple[int, ...]:
        """The exits that make up the output of one exit.

        Arguments
        ---------
        exit : int
            Counted from 1.

        Returns
        -------
        tuple of int
            Those with a positive weight, counted from 1.
        """
        row = self.weights[exit - 1]
        return tuple(k for k, weight in enumerate(row, 1) if weight > 0)

    def macs(self, exit: int, frames: Any, vocab: int) -> Any:
        """Cost of combining at an exit.

        Arguments
        ---------
        exit : int
            Counted from 1.
        frames : int or array
            Encoder frames T.
        vocab : int
            Vocabulary entries V.

        Returns
        -------
        int or array
            Multiply-accumulates: T V for each exit that is averaged, none
            for a single one.
        """
        count = len(self.used(exit))
        return (count if count > 1 else 0) * frames * vocab

    def combine(self, outputs: Sequence[ExitOutput]) -> list[ExitOutput]:
        """All exits of a batch, each with those before it.

        Arguments
        ---------
        outputs : sequence of ExitOutput
            Exits 1, 2, ... as the model gives them.

        Returns
        -------
        list of ExitOutput
            New outputs; lengths, layer and hidden states as they were.
        """
        counts = range(1, len(outputs) + 1)
        return [self.combine_at(outputs[:count]) for count in counts]

    def combine_at(self, outputs_so_far: Sequence[ExitOutput]) -> ExitOutput:
        """The exit where a batch stands, with those that it has passed.

        Arguments
        ---------
        outputs_so_far : sequence of ExitOutput
            Exits 1 to k of the same utterances and frames: where utterances
            have left the batch, they must have left earlier outputs, too.

        Returns
        -------
        ExitOutput
            Exit k. With weight 1 on itself it is the output given, bit for
            bit.

        Raises
        ------
        InputError
            If the outputs do not fit the weights or each other.
        """
        self._check(outputs_so_far)
        here = outputs_so_far[-1]
        row = self.weights[len(outputs_so_far) - 1]
        used = [k - 1 for k in self.used(len(outputs_so_far))]
        if used == [len(outputs_so_far) - 1]:
            return here
        logs = [outputs_so_far[k].log_probs_BTV for k in used]
        if len(used) > 1:
            logs = [pool(logs, [row[k] for k in used], self.pooling)]
        return replace(here, log_probs_BTV=logs[0])

    def _check(self, outputs: Sequence[ExitOutput]) -> None:
        if not 1 <= len(outputs) <= len(self.weights):
            raise InputError(
                f"combination: {len(outputs)} exits do not fit weights for "
                f"{len(self.weights)}; learn the weights for this model."
            )
        layers = tuple(output.layer for output in outputs)
        expected = self.exit_layers and self.exit_layers[: len(layers)]
        if expected and layers != expected:
            raise InputError(
                f"combination: weights for exits after layers "
                f"{list(expected)} do not fit exits after {list(layers)}; "
                f"learn the weights for this model."
            )
        shapes = {tuple(o.log_probs_BTV.shape) for o in outputs}
        if len(shapes) > 1:
            raise InputError(
                f"combination: outputs of different shapes {sorted(shapes)}; "
                f"keep the same utterances and frames of every exit."
            )
