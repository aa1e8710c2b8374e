"""A calibrated policy with all that is known about it.

Axes: B utterances of a batch, N of a trace, E exits, Q stored scores.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.calibration.shift import ScoreDistribution
from speechbrain_ee.exits.policy import ThresholdPolicy, check_thresholds


@dataclass(frozen=True)
class CalibrationSummary:
    """What a policy was calibrated on and what it reached there.

    Arguments
    ---------
    model : str
        Name of the model.
    decoding : str
        How hypotheses were made.
    sets : tuple of str
        Sets of the trace that were used.
    utterances : int
        Their number.
    words : int
        Words of their references.
    wer_last : float
        Word error rate of the last exit, percent.
    wer : float
        Word error rate of the policy.
    avg_layer : float
        Encoder layers per utterance.
    avg_macs : float, optional
        Multiply-accumulates per utterance.
    fingerprint : tuple of str
        By what its utterances are known again, see
        :func:`~speechbrain_ee.exits.calibration.shift.fingerprint`; empty if
        unknown.
    clustered_by : str, optional
        What the spread was taken over: ``speaker``, or ``utterance`` where
        no speakers were known; None in files that do not say.
    clusters : int, optional
        How many of them.
    """

    model: str
    decoding: str
    sets: tuple[str, ...]
    utterances: int
    words: int
    wer_last: float
    wer: float
    avg_layer: float
    avg_macs: float | None = None
    fingerprint: tuple[str, ...] = ()
    clustered_by: str | None = None
    clusters: int | None = None


@dataclass(frozen=True)
class ExitPolicy:
    """A policy with what is known about it; the content of a policy file.

    Arguments
    ---------
    criterion : str
        Name of the criterion, parameters included.
    exit_layers : tuple of E int
        Encoder layer of each exit.
    threshold : float or tuple of E - 1 float
        One score threshold, or one per exit but the last.
    budget : str
        For example ``wer=+5%``.
    method : str
        ``naive``, ``crc`` or ``ltt``.
    delta : float
        Accepted probability of breaking the budget.
    satisfied : bool
        Whether a threshold passed.
    guarantee : str
        What is promised, in words.
    target_utterances : int, optional
        Size of the target set that the promise is about; None: its
        expectation.
    calibration : CalibrationSummary, optional
        What it was calibrated on.
    distributions : tuple of E - 1 ScoreDistribution
        Of the scores there; empty if unknown.
    selector : str, optional
        File of a learned selector that gives the scores, relative to the
        policy file.

    Example
    -------
    >>> policy = ExitPolicy("entropy", (2, 4), -0.1, "wer=+5%", "naive")
    >>> policy.choose(np.array([[-0.05, -0.01], [-0.2, -0.01]])).tolist()
    [0, 1]
    """

    criterion: str
    exit_layers: tuple[int, ...]
    threshold: float | tuple[float, ...]
    budget: str
    method: str
    delta: float = 0.1
    satisfied: bool = True
    guarantee: str = ""
    target_utterances: int | None = None
    calibration: CalibrationSummary | None = None
    distributions: tuple[ScoreDistribution, ...] = ()
    selector: str | None = None

    def __post_init__(self) -> None:
        check_thresholds(self.threshold)

    @property
    def name(self) -> str:
        """For tables and figures."""
        kind = " per exit" if isinstance(self.threshold, tuple) else ""
        return f"{self.criterion}{kind}, {self.budget} ({self.method})"

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Threshold of every exit but the last."""
        if isinstance(self.threshold, tuple):
            return self.threshold
        return (self.threshold,) * (len(self.exit_layers) - 1)

    @property
    def policy(self) -> ThresholdPolicy:
        """The bare policy."""
        return ThresholdPolicy(
            self.criterion, self.threshold, len(self.exit_layers)
        )

    @property
    def calibration_utterances(self) -> int:
        """Utterances of the calibration set; 0 if unknown."""
        return self.calibration.utterances if self.calibration else 0

    def stop(self, exit: int, score_B: Any) -> Any:
        """See :meth:`ThresholdPolicy.stop`.

        Arguments
        ---------
        exit : int
            Counted from 1.
        score_B : tensor or array of shape (B,)
            Scores at this exit.

        Returns
        -------
        bool tensor or array of shape (B,)
        """
        return self.policy.stop(exit, score_B)

    def choose(self, scores_NE: NDArray[np.floating]) -> NDArray[np.int64]:
        """See :meth:`ThresholdPolicy.choose`.

        Arguments
        ---------
        scores_NE : array of shape (N, E)
            Scores at every exit.

        Returns
        -------
        array of shape (N,)
        """
        return self.policy.choose(scores_NE)
