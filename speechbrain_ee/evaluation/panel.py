"""One panel of the figure: a test set, error rate against one cost.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.aspect import Aspect, set_axes
from speechbrain_ee.evaluation.curve import Curve
from speechbrain_ee.evaluation.labels import label, policy_letter
from speechbrain_ee.evaluation.operating_point import OperatingPoint
from speechbrain_ee.evaluation.theme import INK, ORACLE, PALE, SOFT, look

FIXED_LABEL = "fixed exit after layer L"
# Text over lines stays readable.
_BACKED = {"fc": "#ffffff", "ec": "none", "alpha": 0.65, "pad": 0.4}


def fill_panel(panel: Axes, analysis: SetAnalysis, aspect: Aspect) -> None:
    """Draw one test set.

    Arguments
    ---------
    panel : Axes
        Where to draw.
    analysis : SetAnalysis
        The test set.
    aspect : Aspect
        What to show of it.
    """
    mixed = analysis.mixture.curve
    oracle = analysis.oracle.curve
    if not aspect.by_layer:
        mixed = analysis.mixture_by_macs or mixed
        oracle = analysis.oracle_by_macs or oracle
    set_axes(panel, analysis, oracle, aspect)
    _yardsticks(panel, analysis, oracle, aspect)
    _mixture(panel, mixed, aspect)
    _others(panel, analysis, aspect)
    best = analysis.best_criterion()
    for name in aspect.leading:
        result = analysis.criteria[name]
        _line(panel, result.curve, aspect, *look(name))
        _band(panel, result.curve, aspect)
        if result is not best:
            _kept(panel, result.equal_wer, aspect, look(name)[0])
    _line(panel, oracle, aspect, ORACLE, ())
    point = oracle.cheapest(analysis.wer[-1], aspect.axis)
    _kept(panel, point, aspect, ORACLE, with_number=True)
    if best is not None:
        colour, _ = look(best.name)
        _kept(panel, best.equal_wer, aspect, colour, with_number=True)
    _fixed(panel, analysis, aspect)
    _policies(panel, analysis, aspect)


def _yardsticks(
    panel: Axes, analysis: SetAnalysis, oracle: Curve, aspect: Aspect
) -> None:
    """The word error rate of the last exit, and the levels above it."""
    last = analysis.wer[-1]
    left, right = panel.get_xlim()
    place, text = left, f"last exit {last:.2f} %"
    point = oracle.cheapest(last, aspect.axis)
    if aspect.close and point is not None:
        # in a close-up the oracle crosses the line on the far left
        place = aspect.place(point)[0]
    _level(panel, last, text, place, "left")
    if aspect.close:
        _level(panel, 1.05 * last, "+5 %", right, "right")
        _level(panel, 1.1 * last, "+10 %", right, "right")


def _level(
    panel: Axes, wer: float, text: str, place: float, align: str
) -> None:
    panel.axhline(wer, color=PALE, lw=0.8, ls=(0, (1, 2)), zorder=1)
    panel.annotate(
        text,
        (place, wer),
        xytext=(5 if align == "left" else -3, 3),
        textcoords="offset points",
        ha=align,
        fontsize=8,
        color=SOFT,
    )


def _mixture(panel: Axes, curve: Curve, aspect: Aspect) -> None:
    # dense, because a straight line bends on a logarithmic axis
    x, y = aspect.cost(curve), curve.axis("wer")
    dense = np.unique(np.concatenate([np.linspace(x[0], x[-1], 200), x]))
    panel.plot(
        dense,
        np.interp(dense, x, y),
        color=PALE,
        lw=1.6,
        label=label("mixture"),
        zorder=2,
    )


def _others(panel: Axes, analysis: SetAnalysis, aspect: Aspect) -> None:
    """All criteria that are not in front, as thin pale lines."""
    names = [n for n in analysis.criteria if n not in aspect.leading]
    if not names:
        return
    curves = [analysis.criteria[name].curve for name in names]
    panel.add_collection(
        LineCollection(
            [np.column_stack([aspect.cost(c), c.axis("wer")]) for c in curves],
            colors=[look(name)[0] for name in names],
            linewidths=0.8,
            alpha=0.4,
            zorder=2,
        ),
        autolim=False,
    )


def _line(
    panel: Axes,
    curve: Curve,
    aspect: Aspect,
    colour: str,
    dashes: tuple[float, ...],
) -> None:
    panel.plot(
        aspect.cost(curve),
        curve.axis("wer"),
        color=colour,
        ls=(0, dashes) if dashes else "-",
        lw=1.9,
        label=label(curve.name),
        zorder=4,
    )


def _band(panel: Axes, curve: Curve, aspect: Aspect) -> None:
    """What 95 % of the bootstrap replicates of the test set give."""
    if curve.wer_low is None or curve.wer_high is None:
        return
    panel.fill_between(
        aspect.cost(curve),
        curve.wer_low,
        curve.wer_high,
        color=look(curve.name)[0],
        # near the last exit all bands lie on each other
        alpha=min(0.13, 0.4 / len(aspect.leading)),
        lw=0,
        zorder=1.5,
    )


def _kept(
    panel: Axes,
    point: OperatingPoint | None,
    aspect: Aspect,
    colour: str,
    with_number: bool = False,
) -> None:
    """Mark the cheapest point that is no worse than the last exit."""
    if point is None:
        return
    place = aspect.place(point)
    panel.plot(*place, "D", color="white", mec=colour, mew=1.6, ms=6, zorder=7)
    if with_number:
        decimals = 2 if panel.get_xlim()[1] > 1 else 3  # as the tables do
        panel.annotate(
            f"{place[0]:.{decimals}f}",
            place,
            (-6, -3) if colour == ORACLE else (0, -8),
            textcoords="offset points",
            # the oracle's curve leaves on the right below its mark
            ha="right" if colour == ORACLE else "center",
            va="top",
            fontsize=8.5,
            fontweight="bold",
            color=INK,
            zorder=8,
            bbox=_BACKED,
        )


def _fixed(panel: Axes, analysis: SetAnalysis, aspect: Aspect) -> None:
    x = aspect.cost(analysis.fixed.curve)
    panel.plot(
        x,
        analysis.wer,
        "o",
        color=INK,
        ms=4.5,
        zorder=6,
        label=FIXED_LABEL,
    )
    for place, layer in enumerate(analysis.trace.header.exit_layers):
        panel.annotate(
            f"L{layer}",
            (x[place], analysis.wer[place]),
            (3, 6),
            textcoords="offset points",
            fontsize=8.5,
            color=INK,
            zorder=6,
            annotation_clip=True,
            bbox=_BACKED,
        )


def _policies(panel: Axes, analysis: SetAnalysis, aspect: Aspect) -> None:
    for number, policy in enumerate(analysis.policies):
        place = aspect.place(policy.point)
        colour, _ = look(policy.criterion)
        panel.plot(
            *place,
            "*",
            color=colour,
            mec=INK,
            mew=0.8,
            ms=12,
            zorder=9,
        )
        panel.annotate(
            policy_letter(number),
            place,
            (0, 7),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8.5,
            fontweight="bold",
            color=INK,
            zorder=9,
            annotation_clip=True,
            bbox=_BACKED,
        )
