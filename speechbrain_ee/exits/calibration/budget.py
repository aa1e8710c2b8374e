"""Budgets: what a calibrated policy must hold.

A budget turns a choice of exits into one *loss* per utterance, scaled so
that the budget holds exactly if the mean loss is at most 0. All methods of
:mod:`speechbrain_ee.exits.calibration.risk` work on such losses.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.clusters import Clusters

FORMS = (
    "layers=8.5 (encoder layers per utterance, on average), "
    "macs=4.2e9 or macs=4.2G (multiply-accumulates per utterance, on "
    "average), wer=+0.5 (word error rate at most 0.5 points above the last "
    "exit's), wer=+5% (at most 5 % above it, relative)"
)
_PREFIXES = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1.0}
_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)"
_PATTERNS = {
    "layers": rf"layers={_NUMBER}()",
    "macs": rf"macs={_NUMBER}([kMGT]?)",
    "wer_points": rf"wer=\+{_NUMBER}()",
    "wer_percent": rf"wer=\+{_NUMBER}()\s*%",
}


@dataclass(frozen=True)
class Outcomes:
    """What every exit does to every utterance of a calibration set."""

    errors_NE: NDArray[np.integer]  # of words
    words_N: NDArray[np.integer]  # of the references
    layers_E: NDArray[np.integer]
    # multiply-accumulates up to each exit, the criterion included; if known
    macs_NE: NDArray[np.floating] | None = None
    # None: every utterance stands by itself
    by_speaker: Clusters | None = None

    def __len__(self) -> int:
        return len(self.words_N)

    @property
    def clusters(self) -> Clusters:
        """Which utterances are alike."""
        return self.by_speaker or Clusters.single(len(self))

    @property
    def layers_NE(self) -> NDArray[np.float64]:
        """Layers up to each exit, for every utterance."""
        layers_E = self.layers_E.astype(np.float64)
        return np.broadcast_to(layers_E, self.errors_NE.shape)

    def select(self, rows: NDArray[np.integer]) -> "Outcomes":
        """Some of the utterances."""
        return Outcomes(
            self.errors_NE[rows],
            self.words_N[rows],
            self.layers_E,
            None if self.macs_NE is None else self.macs_NE[rows],
            self.by_speaker and self.by_speaker.select(rows),
        )


@dataclass(frozen=True)
class Budget:
    """An upper bound on compute or on the excess word error rate.

    Arguments
    ---------
    kind : str
        ``layers`` or ``macs`` (averages per utterance), ``wer_points``
        (absolute) or ``wer_percent`` (relative excess over the last exit).
    value : float
        The bound.

    Example
    -------
    >>> Budget.parse("wer=+5%")
    Budget(kind='wer_percent', value=5.0)
    >>> str(Budget.parse("macs=4.2G"))
    'macs=4.2G'
    """

    kind: str
    value: float

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read a budget as a user writes it.

        Arguments
        ---------
        text : str
            One of :data:`FORMS`.

        Returns
        -------
        Budget

        Raises
        ------
        InputError
            If it is none of them; lists them.
        """
        text = str(text)
        for kind, pattern in _PATTERNS.items():
            found = re.fullmatch(pattern, text.strip())
            value = float(found[1]) * _PREFIXES[found[2]] if found else -1
            if 0 < value < math.inf or (value == 0 and kind.startswith("wer")):
                return cls(kind, value)
        share = ""
        if re.fullmatch(r"(macs|layers)=.*%", text.strip()):
            share = (
                "a share of what the last exit takes needs a trace, to which "
                "`calibrate` and `transcribe --policy` apply it; "
            )
        raise InputError(
            f"budget {text!r} is not understood; {share}valid forms: {FORMS}."
        )

    def __str__(self) -> str:
        return self.said()

    def said(self, digits: int = 12) -> str:
        """As :meth:`parse` reads it, MACs with so many digits."""
        if self.kind == "macs":
            return f"macs={_scaled(self.value, digits)}"
        if self.kind == "layers":
            return f"layers={self.value:.12g}"
        percent = "%" if self.kind == "wer_percent" else ""
        return f"wer=+{self.value:.12g}{percent}"

    @property
    def on_compute(self) -> bool:
        """Whether it bounds compute; else it bounds errors."""
        return self.kind in ("layers", "macs")

    @property
    def words(self) -> str:
        """The budget as a clause."""
        number = f"{self.value:.6g}"
        return {
            "layers": f"at most {number} encoder layers per utterance",
            "macs": f"at most {_scaled(self.value)} multiply-accumulates per "
            f"utterance",
            "wer_points": f"a word error rate at most {number} points above "
            f"the last exit's",
            "wer_percent": f"a word error rate at most {number} % (relative) "
            f"above the last exit's",
        }[self.kind]

    def costs_NE(self, outcomes: Outcomes) -> NDArray[np.float64]:
        """The compute that counts: MACs for a MAC budget, else layers."""
        if self.kind != "macs":
            return outcomes.layers_NE
        if outcomes.macs_NE is None:
            raise InputError(
                f"budget {self.said(3)}: the trace does not tell multiply-"
                f"accumulates; give a budget in layers, for example "
                f"layers={outcomes.layers_E.mean():.1f}."
            )
        return outcomes.macs_NE

    def losses_NE(self, outcomes: Outcomes) -> NDArray[np.float64]:
        """Loss of every exit: the budget holds if its mean is at most 0.

        With e the word errors and w the words of an utterance, the loss at
        exit k is ``e_k - e_E - w points/100`` or ``e_k - (1 + percent/100)
        e_E`` for a word error budget, and ``cost_k - bound`` for a compute
        budget. Sums, not ratios, so that the corpus-level word error rate
        is what is bounded.

        Example
        -------
        >>> outcomes = Outcomes(
        ...     np.array([[3, 2]]), np.array([10]), np.array([4, 8])
        ... )
        >>> Budget("wer_points", 5).losses_NE(outcomes).tolist()
        [[0.5, -0.5]]
        >>> Budget("wer_percent", 25).losses_NE(outcomes).tolist()
        [[0.5, -0.5]]
        """
        if self.on_compute:
            return self.costs_NE(outcomes) - self.value
        errors_NE = outcomes.errors_NE.astype(np.float64)
        last_N1 = errors_NE[:, -1:]
        points = self.kind == "wer_points"
        allowed_N1 = outcomes.words_N[:, None] if points else last_N1
        return errors_NE - last_N1 - allowed_N1 * (self.value / 100)

    def check(self, outcomes: Outcomes) -> None:
        """Refuse a compute budget that no policy can hold on these data."""
        if not self.on_compute:
            return
        least = float(self.costs_NE(outcomes)[:, 0].mean())
        # the same sum in another order may differ in the last digits
        if self.value < least * (1 - 1e-12):
            # rounded up, so that the value that is shown can be used
            step = 10.0 ** (math.floor(math.log10(least)) - 2)
            shown = math.ceil(least / step * (1 - 1e-12)) * step
            raise InputError(
                f"budget {self.said(3)}: even the first exit takes "
                f"more on the calibration set; the smallest possible value is "
                f"{self.kind}={_scaled(shown)}."
            )


def _scaled(value: float, digits: int = 3) -> str:
    """A number as people write it: 5.34M."""
    prefix = next((p for p, size in _PREFIXES.items() if value >= size), "")
    return f"{value / _PREFIXES[prefix]:.{digits}g}{prefix}"
