"""What a measure and a criterion are.

A *measure* turns what an exit put out into one number per utterance: raw
evidence, recorded in a trace under the measure's name. A *criterion* turns
evidence into scores, higher = more ready to stop.

Axes: B utterances of a batch, N of a table, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from __future__ import annotations  # a device without torch reads criteria

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.evidence import Evidence

if TYPE_CHECKING:
    from torch import Tensor

    from speechbrain_ee.exits.criteria.view import ExitView

Cost = Callable[..., Any]  # of frames and vocabulary, see `priced`


def per_entry(operations: int) -> Cost:
    """Cost of so many operations per frame and vocabulary entry."""
    return lambda frames, vocab: operations * frames * vocab


def free(frames: Any, vocab: int) -> Any:
    """Cost of table look-ups, not worth counting."""
    return 0 * frames


def priced(
    cost: Cost,
    frames: Any,
    vocab: int,
    width: int | None,
    frames_per_s: float | None,
) -> Any:
    """What a cost comes to; it may also take ``width`` and ``frames_per_s``.

    Where they are not known, its own defaults hold.
    """
    known = {"width": width, "frames_per_s": frames_per_s}
    takes = inspect.signature(cost).parameters
    given = {n: v for n, v in known.items() if v is not None and n in takes}
    return cost(frames, vocab, **given)


@dataclass(frozen=True)
class Measure:
    """A registered measure.

    Arguments
    ---------
    name : str
        Key of its values in a trace, parameters included.
    function : callable
        From an :class:`~speechbrain_ee.exits.criteria.view.ExitView` to raw evidence
        of shape (B,).
    formula : str
        The definition in one line.
    source : str
        Publication it comes from.
    cost : callable
        Frames and vocabulary entries to multiply-accumulates.
    earlier : int
        How many earlier exits it looks at: it has no value at the first
        ``earlier`` exits.
    hidden : bool
        Whether it needs the hidden states.
    always : bool
        Whether it is cheap enough to be taken in every evaluation.
    decodes : bool
        Whether it needs what an attention decoder found.
    """

    name: str
    function: Callable[[ExitView], Tensor]
    formula: str
    source: str
    cost: Cost
    earlier: int = 0
    hidden: bool = False
    always: bool = True
    decodes: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name: what is registered are functions in functions."""
        from speechbrain_ee.exits.criteria.registry import get_measure

        return get_measure, (self.name,)


@dataclass(frozen=True)
class Criterion:
    """A registered criterion.

    Arguments
    ---------
    name : str
        Its name, parameters included.
    function : callable
        From :class:`~speechbrain_ee.exits.evidence.Evidence` to scores of
        shape (N, E).
    needs : tuple of str
        Evidence it reads: measures, or ``transcripts``.
    formula : str
        The definition of what is thresholded, in one line.
    source : str
        Publication it comes from.
    cost : callable
        Frames and vocabulary entries to multiply-accumulates, those of the
        measures it reads included.
    baseline : bool
        Whether it ignores the utterance (a fixed or a random exit).
    same_as : str, optional
        Criterion that orders utterances and exits the same way, so that one
        threshold on either gives the same decisions.
    decodes : bool
        Whether it needs what an attention decoder found, at every exit that
        it is evaluated at.
    sign : float, optional
        1 or -1 where a score is the one piece of evidence that it needs,
        times this, whichever exit it is taken at. None for every other rule:
        its scores may depend on the exit and on those before, so that all of
        these have to be read.
    """

    name: str
    function: Callable[[Evidence], NDArray[np.floating]] = field(repr=False)
    needs: tuple[str, ...]
    formula: str
    source: str
    cost: Cost = field(repr=False)
    baseline: bool = False
    same_as: str | None = None
    decodes: bool = False
    sign: float | None = None

    def scores(self, evidence: Evidence) -> NDArray[np.float64]:
        """Scores at every exit, higher = more ready to stop.

        Arguments
        ---------
        evidence : Evidence
            With everything in ``needs``.

        Returns
        -------
        array of shape (N, E)
            Minus infinity where the criterion has nothing to go by yet.

        Raises
        ------
        InputError
            If evidence is missing.
        """
        scores_NE = np.asarray(self.function(evidence), dtype=np.float64)
        return np.where(np.isnan(scores_NE), -np.inf, scores_NE)

    def available(self, names: Iterable[str]) -> bool:
        """Whether evidence of these names is enough for it."""
        return set(self.needs) <= set(names)

    def macs(
        self,
        frames: Any,
        vocab: int,
        width: int | None = None,
        frames_per_s: float | None = None,
    ) -> Any:
        """Declared cost at one exit for one utterance.

        Arguments
        ---------
        frames : int or array
            Encoder frames T.
        vocab : int
            Vocabulary entries V.
        width : int, optional
            Width of the hidden states.
        frames_per_s : float, optional
            Encoder frames per second of audio.

        Returns
        -------
        int or array
            Multiply-accumulates.
        """
        return priced(self.cost, frames, vocab, width, frames_per_s)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name: what is registered are functions in functions."""
        from speechbrain_ee.exits.criteria.registry import get_criterion

        return get_criterion, (self.name,)
