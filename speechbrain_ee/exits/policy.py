"""Policies: where an utterance stops, given its scores.

One rule for ties everywhere: stop when ``score >= threshold``. The last
exit always stops. Exits are counted from 1, columns of arrays from 0.

Axes: B utterances of a batch, N utterances of a trace, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError


def first_exit(
    scores_NE: NDArray[np.floating], thresholds: float | Sequence[float]
) -> NDArray[np.int64]:
    """First exit whose score reaches its threshold."""
    limits = np.asarray(thresholds, dtype=np.float64)[None]
    if limits.ndim > 1:
        limits = limits[:, : scores_NE.shape[1] - 1]
    return choices_NT(scores_NE, limits)[:, 0]


def choices_NT(
    scores_NE: NDArray[np.floating],
    limits: Sequence[float] | NDArray[np.floating],
) -> NDArray[np.int64]:
    """As :func:`first_exit`, for T thresholds: each for all exits (T,), or
    one per exit but the last (T, E - 1).
    """
    early_NE = np.asarray(scores_NE[:, :-1], dtype=np.float64)
    limits = np.asarray(limits, dtype=np.float64)
    limits = limits[:, None] if limits.ndim == 1 else limits
    limits_TK = np.broadcast_to(limits, (len(limits), early_NE.shape[1]))
    going_NT = np.ones((len(early_NE), len(limits)), dtype=bool)
    choice_NT = np.zeros(going_NT.shape, dtype=np.int64)
    for score_N, limit_T in zip(early_NE.T, limits_TK.T):
        going_NT &= ~reaches(score_N[:, None], limit_T)
        choice_NT += going_NT
    return choice_NT


def at_choice(
    values_NE: NDArray[np.number], choice: NDArray[np.integer]
) -> NDArray[np.number]:
    """What every utterance gets at the exits of one choice (N,) or T (N, T)."""
    places = choice.reshape(len(choice), -1)
    return np.take_along_axis(values_NE, places, axis=1).reshape(choice.shape)


def error_rate(
    errors_NE: NDArray[np.number],
    words_N: NDArray[np.integer],
    choice: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Errors in 100 words of one choice of exits (N,), or of T (N, T)."""
    words = max(1, int(words_N.sum()))
    return 100 * at_choice(errors_NE, choice).sum(axis=0) / words


def reaches(scores: Any, limits: Any) -> Any:
    """Whether scores reach thresholds; infinite thresholds mean what they say.

    Minus infinity always stops, even where there is no score (NaN); plus
    infinity never stops, however large the score.
    """
    return ((scores >= limits) | (limits == -np.inf)) & (limits != np.inf)


@dataclass(frozen=True)
class ThresholdPolicy:
    """Stop at the first exit whose score reaches a threshold.

    Arguments
    ---------
    criterion : str
        Name of the criterion that gives the scores.
    threshold : float or tuple of float
        One for all exits, or one per exit; an entry for the last exit has
        no effect. A score is higher when an exit is more ready, so that a
        bound of 0.1 on entropy is a threshold of -0.1.
    exits : int, optional
        Number of exits; by default the number of thresholds, if there is
        more than one. Without it the caller must stop at its last exit.

    Example
    -------
    >>> policy = ThresholdPolicy("max_prob", 0.9, exits=3)
    >>> policy.stop(1, np.array([0.95, 0.5])).tolist()
    [True, False]
    >>> policy.choose(np.array([[0.95, 0.1, 0.1], [0.5, 0.4, 0.3]])).tolist()
    [0, 2]
    """

    criterion: str
    threshold: float | tuple[float, ...]
    exits: int | None = None

    def __post_init__(self) -> None:
        check_thresholds(self.threshold)

    def at(self, exit: int) -> float:
        """Threshold of an exit, from 1; the last one always stops (-inf)."""
        if exit == self._last():
            return -np.inf
        if isinstance(self.threshold, tuple):
            return self.threshold[exit - 1]
        return self.threshold

    def decides(self, exit: int) -> bool:
        """Whether some score can stop an utterance at this exit."""
        return bool(reaches(np.inf, self.at(exit)))

    def stop(self, exit: int, score_B: Any) -> Any:
        """Which of B utterances stop at this exit, counted from 1."""
        # torch would round the threshold to the precision of the scores,
        # numpy would not: both decide in double precision instead.
        exact_B = (
            score_B.double()
            if hasattr(score_B, "double")
            else np.asarray(score_B, dtype=np.float64)
        )
        return reaches(exact_B, self.at(exit))

    def choose(self, scores_NE: NDArray[np.floating]) -> NDArray[np.int64]:
        """Column of every utterance's exit, from scores (N, E)."""
        return first_exit(scores_NE, self.threshold)

    def _last(self) -> int | None:
        if self.exits is None and isinstance(self.threshold, tuple):
            return len(self.threshold)
        return self.exits


@dataclass(frozen=True)
class FixedExit:
    """Stop at the same exit whatever the utterance.

    Arguments
    ---------
    exit : int
        Counted from 1.

    Example
    -------
    >>> FixedExit(2).choose(np.zeros((3, 6))).tolist()
    [1, 1, 1]
    """

    exit: int

    def stop(self, exit: int, score_B: Any) -> Any:
        """All utterances stop from the fixed exit on."""
        return (score_B == score_B) & False | (exit >= self.exit)

    def choose(self, scores_NE: NDArray[np.floating]) -> NDArray[np.int64]:
        """The same column for N utterances; only the shape (N, E) matters."""
        rows, exits = scores_NE.shape
        return np.full(rows, min(self.exit, exits) - 1, dtype=np.int64)


def check_thresholds(threshold: float | Sequence[float]) -> None:
    """Refuse NaN, which no score reaches and no score misses."""
    if np.isnan(np.asarray(threshold, dtype=np.float64)).any():
        raise InputError(
            f"policy: the threshold {threshold!r} is not a number; give "
            "numbers, inf (never stop) or -inf (always stop)."
        )


def check_exit(exit: int, exit_layers: Sequence[int], holder: str) -> None:
    """Refuse an exit that ``holder`` (``this model has``) does not have."""
    if not 1 <= exit <= len(exit_layers):
        raise InputError(
            f"policy: exit {exit} does not exist; {holder} the exits 1 to "
            f"{len(exit_layers)}."
        )


def rule_for(
    policy: Any,
    exit_layers: Sequence[int],
    holder: str,
    layers: Sequence[int] | None = None,
) -> tuple[tuple[int, ...], tuple[int, ...], ThresholdPolicy]:
    """The exits (from 1) that a policy chooses from, their layers, its rule.

    ``layers`` are those that the policy is for: by default what it says
    itself, else all of ``exit_layers``.
    """
    known = tuple(exit_layers)
    layers = tuple(layers or getattr(policy, "exit_layers", known))
    if not set(layers) <= set(known):
        raise InputError(
            f"policy: it was calibrated for exits after the layers "
            f"{list(layers)}, and {holder} exits after {list(known)}; "
            f"calibrate it on a trace of this model."
        )
    limits = policy.threshold
    made_for = getattr(policy, "exits", None)
    if made_for not in (None, len(layers)):
        raise InputError(
            f"policy: its thresholds are for {made_for} exits, and {holder} "
            f"{len(layers)}; say which exits it is for, as a policy file does."
        )
    counted = len(limits) if isinstance(limits, tuple) else None
    if counted not in (None, len(layers) - 1, len(layers)):
        raise InputError(
            f"policy: {counted} thresholds for {len(layers)} exits; give "
            "one for all, or one for each exit but the last."
        )
    exits = tuple(known.index(layer) + 1 for layer in layers)
    return exits, layers, ThresholdPolicy(policy.criterion, limits, len(layers))
