"""What a panel shows of a test set: which cost, how much, on which axes.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)
from numpy.typing import NDArray

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.curve import Curve
from speechbrain_ee.evaluation.operating_point import OperatingPoint
from speechbrain_ee.evaluation.theme import GRID

MIN_ERRORS = 100  # a step of one error is at most 1 %


@dataclass(frozen=True)
class Aspect:
    """What a panel shows of a test set.

    Arguments
    ---------
    axis : str
        The cost, ``avg_layer`` or ``avg_macs``.
    leading : tuple of str
        Criteria drawn in front, with their bands; see
        :func:`~speechbrain_ee.evaluation.families.leaders`.
    close : bool
        Only what is close to the last exit's word error rate.
    """

    axis: str
    leading: tuple[str, ...] = ()
    close: bool = False

    @property
    def by_layer(self) -> bool:
        """Whether the cost is layers."""
        return self.axis == "avg_layer"

    def cost(self, curve: Curve) -> NDArray[np.float64]:
        """The cost of a curve's points, in layers or GMAC."""
        return curve.axis(self.axis) * (1.0 if self.by_layer else 1e-9)

    def place(self, point: OperatingPoint) -> tuple[float, float]:
        """Where an operating point is drawn."""
        cost = getattr(point, self.axis)
        return cost * (1.0 if self.by_layer else 1e-9), point.wer


def has_close_up(analysis: SetAnalysis) -> bool:
    """Whether a close look shows more than the whole.

    Arguments
    ---------
    analysis : SetAnalysis
        A test set.

    Returns
    -------
    bool
        False if all exits are about as good, or if the last makes so few
        errors that a close look shows single ones.
    """
    errors = int(analysis.trace.errors_NE[:, -1].sum())
    wide = _close_range(analysis)[1] * 1.3 < max(analysis.wer)
    return wide and errors >= MIN_ERRORS


def set_axes(
    panel: Axes, analysis: SetAnalysis, oracle: Curve, aspect: Aspect
) -> None:
    """Limits, ticks and names of a panel's axes.

    Arguments
    ---------
    panel : Axes
        Where to draw.
    analysis : SetAnalysis
        The test set.
    oracle : Curve
        The oracle that is drawn; a close-up begins where it comes in.
    aspect : Aspect
        What to show.
    """
    if aspect.close:
        _set_close_limits(panel, analysis, oracle, aspect)
    else:
        _set_limits(panel, analysis, aspect)
    panel.set_xlabel(
        "encoder layers per utterance (average)"
        if aspect.by_layer
        else "GMAC per utterance (average), criterion included"
    )
    if aspect.by_layer and not aspect.close:
        panel.set_xticks([0, *analysis.trace.header.exit_layers])
    panel.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    panel.grid(axis="y", color=GRID, lw=0.5, alpha=0.7)
    panel.set_axisbelow(True)


def _close_range(analysis: SetAnalysis) -> tuple[float, float]:
    """Word error rates of a close-up, in percent."""
    last, best = analysis.wer[-1], analysis.oracle_best.wer
    return best - 0.04 * last, 1.15 * last


def _set_close_limits(
    panel: Axes, analysis: SetAnalysis, oracle: Curve, aspect: Aspect
) -> None:
    low, high = _close_range(analysis)
    panel.set_ylim(low, high)
    panel.yaxis.set_major_locator(MaxNLocator(6))
    full = aspect.cost(analysis.fixed.curve)[-1]
    first = oracle.cheapest(high, aspect.axis)
    start = full if first is None else aspect.place(first)[0]
    span = max(full - start, 0.05 * full)
    panel.set_xlim(start - 0.11 * span, full + 0.07 * span)


def _set_limits(panel: Axes, analysis: SetAnalysis, aspect: Aspect) -> None:
    panel.set_xlim(0, aspect.cost(analysis.fixed.curve)[-1] * 1.08)
    drawn = [*analysis.wer, analysis.oracle_best.wer]
    floor = min([wer for wer in drawn if wer > 0], default=1.0)
    if max(drawn) / floor > 3:
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(
            LogLocator(subs=(1, 2, 3, 5), numticks=20)
        )
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_ylim(floor / 1.45, max(drawn) * 1.35)
    else:
        margin = 0.15 * (max(drawn) - min(drawn)) or 1.0
        panel.yaxis.set_major_locator(MaxNLocator(6))
        panel.set_ylim(min(drawn) - margin, max(drawn) + margin)
