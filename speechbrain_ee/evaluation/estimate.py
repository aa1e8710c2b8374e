"""Estimates: a value of a test set and how far it may be off.

Axes: B bootstrap replicates.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.evaluation.bootstrap import Bootstrap

# The ends are estimates of 200 draws; sums in another order may differ.
_DECIMALS = 9


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % bootstrap interval.

    Arguments
    ---------
    value : float
        On the test set as it is.
    low : float
        Lower end.
    high : float
        Upper end.

    Example
    -------
    >>> found = Estimate(2.0, low=1.0, high=3.0)
    >>> found.positive, found.ends()
    (True, '+1.00 to +3.00')
    """

    value: float
    low: float
    high: float

    @property
    def positive(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0

    @property
    def negative(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.high < 0

    def ends(self, sign: str = "+") -> str:
        """The interval as text.

        Arguments
        ---------
        sign : str
            ``+`` to show it for positive values, empty for negative only.

        Returns
        -------
        str

        Example
        -------
        >>> Estimate(0.0, -0.1, 0.2).ends()
        '-0.10 to +0.20'
        """
        return " to ".join(signed(end, sign) for end in (self.low, self.high))

    @classmethod
    def of(
        cls, value: float, draws_B: NDArray[np.floating], *sets: Bootstrap
    ) -> "Estimate":
        """Percentiles of replicates.

        Arguments
        ---------
        value : float
            On the test set as it is.
        draws_B : array of shape (B,)
            On its replicates.
        *sets : Bootstrap
            Where they come from; of several the one with fewest clusters
            says how far out the percentiles are.

        Returns
        -------
        Estimate
        """
        ends = min(each.percentiles for each in sets)
        low, high = np.percentile(draws_B, ends).round(_DECIMALS)
        return cls(float(value), float(low), float(high))


def signed(value: float, sign: str = "+", decimals: int = 2) -> str:
    """A difference as text, without a negative zero.

    Arguments
    ---------
    value : float
        The difference.
    sign : str
        ``+`` to show it for positive values, empty for negative only.
    decimals : int
        How many.

    Returns
    -------
    str

    Example
    -------
    >>> signed(1.234), signed(-0.001), signed(0.5, "", 1)
    ('+1.23', '+0.00', '0.5')
    """
    return f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"
