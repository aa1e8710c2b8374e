"""Exit criteria: what says that an exit is good enough. THE registry.

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
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from speechbrain_ee.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from speechbrain_ee.models.heads import ExitOutput

Measure = Callable[["ExitOutput"], Tensor]
Scores = TypeVar("Scores", Tensor, "NDArray[np.float64]")


@dataclass(frozen=True)
class Criterion:
    """A registered criterion.

    Arguments
    ---------
    name : str
        Its name, and the key of its evidence in a trace.
    measure : callable
        From an exit's output to raw evidence of shape (B,).
    higher_is_ready : bool
        Whether a larger raw value speaks for stopping.
    formula : str
        The definition in one line.
    source : str
        Publication it comes from.
    operations_per_entry : int
        Declared cost: multiply-accumulates per frame and vocabulary entry.
    """

    name: str
    measure: Measure
    higher_is_ready: bool
    formula: str
    source: str
    operations_per_entry: int = 1

    @property
    def evidence(self) -> str:
        """Key of the raw value in a trace."""
        return self.name

    def score(self, raw: Scores) -> Scores:
        """Turn raw evidence into a score: higher means more ready to stop.

        Arguments
        ---------
        raw : tensor or array
            Raw evidence, any shape.

        Returns
        -------
        tensor or array
            Of the same shape.
        """
        return raw if self.higher_is_ready else -raw

    def macs(self, frames: int, vocab: int) -> int:
        """Declared cost at one exit for one utterance.

        Arguments
        ---------
        frames : int
            Encoder frames T.
        vocab : int
            Vocabulary entries V.

        Returns
        -------
        int
            Multiply-accumulates.
        """
        return self.operations_per_entry * frames * vocab


_REGISTRY: dict[str, Criterion] = {}


def criterion(
    name: str,
    *,
    higher_is_ready: bool,
    source: str,
    formula: str,
    operations_per_entry: int = 1,
) -> Callable[[Measure], Measure]:
    """Register the decorated function as a criterion.

    Arguments
    ---------
    name : str
        Name, also the key of the evidence in a trace.
    higher_is_ready : bool
        Whether a larger raw value speaks for stopping.
    source : str
        Publication.
    formula : str
        Definition in one line.
    operations_per_entry : int
        Multiply-accumulates per frame and vocabulary entry.

    Returns
    -------
    callable
        The decorator; it returns the function unchanged.
    """

    def register(measure: Measure) -> Measure:
        if name in _REGISTRY:
            raise ValueError(f"criterion {name!r} is registered twice")
        _REGISTRY[name] = Criterion(
            name,
            measure,
            higher_is_ready,
            formula,
            source,
            operations_per_entry,
        )
        return measure

    return register


def criterion_names() -> tuple[str, ...]:
    """Names of all criteria, in order of registration.

    Returns
    -------
    tuple of str

    Example
    -------
    >>> "entropy" in criterion_names()
    True
    """
    return tuple(_REGISTRY)


def get_criterion(name: str) -> Criterion:
    """Look a criterion up.

    Arguments
    ---------
    name : str
        Its name.

    Returns
    -------
    Criterion

    Raises
    ------
    InputError
        If there is none of that name.

    Example
    -------
    >>> get_criterion("max_prob").higher_is_ready
    True
    """
    if name not in _REGISTRY:
        raise InputError(
            f"criterion {name!r} is not known; "
            f"valid criteria: {', '.join(_REGISTRY)}."
        )
    return _REGISTRY[name]


def measure_all(output: "ExitOutput") -> dict[str, Tensor]:
    """Raw evidence of every criterion for one exit.

    Arguments
    ---------
    output : ExitOutput
        log_probs_BTV, lengths_B, layer, blank_index.

    Returns
    -------
    dict of str to tensor of shape (B,)

    Example
    -------
    >>> from types import SimpleNamespace
    >>> output = SimpleNamespace(
    ...     log_probs_BTV=torch.tensor([[[0.5, 0.5], [0.0, 1.0]]]).log(),
    ...     lengths_B=torch.tensor([2]),
    ...     blank_index=0,
    ... )
    >>> round(measure_all(output)["max_prob"].item(), 3)
    0.75
    """
    return {name: c.measure(output) for name, c in _REGISTRY.items()}


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
