"""The registry of exit criteria: what a criterion is, and how to find one.

Import the look-ups from :mod:`speechbrain_ee.exits.criteria`, which fills the
registry; this module alone knows no criterion.

Axes: B utterances.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

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
    >>> from speechbrain_ee.exits.criteria import criterion_names
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
    >>> from speechbrain_ee.exits.criteria import get_criterion
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
    >>> import torch
    >>> from speechbrain_ee.exits.criteria import measure_all
    >>> output = SimpleNamespace(
    ...     log_probs_BTV=torch.tensor([[[0.5, 0.5], [0.0, 1.0]]]).log(),
    ...     lengths_B=torch.tensor([2]),
    ...     blank_index=0,
    ... )
    >>> round(measure_all(output)["max_prob"].item(), 3)
    0.75
    """
    return {name: c.measure(output) for name, c in _REGISTRY.items()}
