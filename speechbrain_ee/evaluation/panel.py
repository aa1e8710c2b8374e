"""One panel of the figure: a test set, error rate against one cost.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.curves import Curve
from speechbrain_ee.evaluation.operating_point import OperatingPoint
from speechbrain_ee.evaluation.tables import label
from speechbrain_ee.evaluation.theme import (
    GRID,
    INK,
    ORACLE,
    PALE,
    SOFT,
    look,
)


def fill_panel(panel: Axes, analysis: SetAnalysis, axis: str) -> None:
    """Draw one test set.

    Arguments
    ---------
    panel : Axes
        Where to draw.
    analysis : SetAnalysis
        The test set.
    axis : str
        The cost, ``avg_layer`` or ``avg_macs``.
    """
    by_layer = axis == "avg_layer"
    scale = 1.0 if by_layer else 1e-9
    _set_axes(panel, analysis, axis, scale)
    _yardstick(panel, analysis)
    mixed = analysis.mixture.curve
    oracle = analysis.oracle.curve
    if not by_layer:
        mixed = analysis.mixture_by_macs or mixed
        oracle = analysis.oracle_by_macs or oracle
    _mixture(panel, mixed, axis, scale)
    best = analysis.best_criterion()
    for result in analysis.criteria.values():
        colour, style = look(result.name)
        _line(panel, result.curve, axis, scale, colour, style)
        point = result.equal_wer
        _kept(panel, point, axis, scale, colour, result is best)
    _line(panel, oracle, axis, scale, ORACLE, ())
    point = oracle.cheapest(analysis.wer[-1], axis)
    _kept(panel, point, axis, scale, ORACLE, True)
    _fixed(panel, analysis, axis, scale)


def _yardstick(panel: Axes, analysis: SetAnalysis) -> None:
    """The word error rate of the last exit, said in words."""
    wer = analysis.wer[-1]
    panel.axhline(wer, color=PALE, lw=0.9, ls=(0, (1, 2)), zorder=1)
    panel.annotate(
        f"last exit {wer:.2f} %",
        (0, wer),
        xycoords=("axes fraction", "data"),
        xytext=(5, 3),
        textcoords="offset points",
        fontsize=8,
        color=SOFT,
    )


def _mixture(panel: Axes, curve: Curve, axis: str, scale: float) -> None:
    # dense, because a straight line bends on a logarithmic axis
    x, y = curve.axis(axis) * scale, curve.axis("wer")
    dense = np.unique(np.concatenate([np.linspace(x[0], x[-1], 200), x]))
    panel.plot(
        dense,
        np.interp(dense, x, y),
        color=PALE,
        lw=1.4,
        label=label("mixture"),
        zorder=2,
    )


def _line(
    panel: Axes,
    curve: Curve,
    axis: str,
    scale: float,
    colour: str,
    dashes: tuple[float, ...],
) -> None:
    panel.plot(
        curve.axis(axis) * scale,
        curve.axis("wer"),
        color=colour,
        ls=(0, dashes) if dashes else "-",
        lw=1.9,
        label=label(curve.name),
        zorder=3,
    )


def _kept(
    panel: Axes,
    point: OperatingPoint | None,
    axis: str,
    scale: float,
    colour: str,
    with_number: bool,
) -> None:
    """Mark the cheapest point that is no worse than the last exit."""
    if point is None:
        return
    place = (getattr(point, axis) * scale, point.wer)
    panel.plot(*place, "D", color="white", mec=colour, mew=1.6, ms=6, zorder=7)
    if with_number:
        decimals = 2 if panel.get_xlim()[1] > 1 else 3  # as the tables do
        panel.annotate(
            f"{place[0]:.{decimals}f}",
            place,
            (0, -8),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8.5,
            fontweight="bold",
            color=INK,
            zorder=8,
        )


def _fixed(panel: Axes, analysis: SetAnalysis, axis: str, scale: float) -> None:
    x = analysis.fixed.curve.axis(axis) * scale
    panel.plot(
        x,
        analysis.wer,
        "o",
        color=INK,
        ms=4.5,
        zorder=6,
        label="fixed exit after layer L",
    )
    for place, layer in enumerate(analysis.trace.header.exit_layers):
        panel.annotate(
            f"L{layer}",
            (x[place], analysis.wer[place]),
            (2, 6),
            textcoords="offset points",
            fontsize=8.5,
            color=INK,
            zorder=6,
        )


def _set_axes(
    panel: Axes, analysis: SetAnalysis, axis: str, scale: float
) -> None:
    cost = analysis.fixed.curve.axis(axis) * scale
    panel.set_xlim(0, cost[-1] * 1.08)
    panel.set_xlabel(
        "encoder layers per utterance (average)"
        if axis == "avg_layer"
        else "GMAC per utterance (average)"
    )
    if axis == "avg_layer":
        panel.set_xticks([0, *analysis.trace.header.exit_layers])
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
        panel.yaxis.set_major_locator(MaxNLocator(6))
        panel.margins(y=0.15)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    panel.grid(axis="y", color=GRID, lw=0.5, alpha=0.7)
    panel.set_axisbelow(True)
