"""The figure of a report: word error rate against compute.

One column per test set; the upper row against the average number of layers,
the lower one against multiply-accumulates where the trace knows them. Colours
are those of Okabe and Ito (2008), told apart by colour-blind readers too.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
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

INK = "#2b2f36"
PALE = "#8a919c"
SOFT = "#6b7280"
ORACLE = "#009e73"
COLOURS = ("#0072b2", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9")
STYLES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
PANEL_INCHES = (4.7, 3.4)

_SETTINGS = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.hashsalt": "speechbrain_ee",
    "pdf.fonttype": 42,
}


def draw_curves(analyses: Sequence[SetAnalysis]) -> Figure:
    """Draw all test sets.

    Arguments
    ---------
    analyses : sequence of SetAnalysis
        One panel (or two, one above the other) each.

    Returns
    -------
    Figure
    """
    axes = ["avg_layer"]
    if any(a.trace.macs_NE is not None for a in analyses):
        axes.append("avg_macs")
    columns = 2 if len(analyses) == 4 else min(len(analyses), 3)
    rows = len(axes) * math.ceil(len(analyses) / columns)
    width, height = PANEL_INCHES
    with mpl.rc_context(_SETTINGS):
        figure = Figure(
            (width * columns, height * rows + 0.7), layout="constrained"
        )
        FigureCanvasAgg(figure)
        panels = figure.subplots(rows, columns, squeeze=False)
        for panel in panels.flat:
            panel.set_axis_off()
        for place, analysis in enumerate(analyses):
            row, column = divmod(place, columns)
            for lower, axis in enumerate(axes):
                if axis == "avg_macs" and analysis.trace.macs_NE is None:
                    continue
                panel = panels[row * len(axes) + lower, column]
                panel.set_axis_on()
                _panel(panel, analysis, axis)
                if not column:
                    panel.set_ylabel("word error rate (%)")
                if not lower:
                    panel.set_title(analysis.key, loc="left")
        _legend(figure, panels)
    return figure


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Render a figure; equal figures give equal bytes.

    Arguments
    ---------
    figure : Figure
        What to render.
    kind : str
        ``png``, ``pdf`` or ``svg``.

    Returns
    -------
    bytes
    """
    # no dates, so that a report of the same trace is the same file
    metadata = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        "svg": {"Date": None, "Creator": None},
    }[kind]
    stream = io.BytesIO()
    with mpl.rc_context(_SETTINGS):
        figure.savefig(
            stream,
            format=kind,
            dpi=160,
            metadata=metadata,
            transparent=kind == "svg",
        )
    return stream.getvalue()


def _panel(panel: Axes, analysis: SetAnalysis, axis: str) -> None:
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
    results = list(analysis.criteria.values())
    for place, result in enumerate(results):
        colour = COLOURS[place % len(COLOURS)]
        style = STYLES[place % len(STYLES)]
        _line(panel, result.curve, axis, scale, colour, style)
        point = result.equal_wer
        _kept(panel, point, axis, scale, colour, result is best)
    _line(panel, oracle, axis, scale, ORACLE, "-")
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
    style: str | tuple,
) -> None:
    panel.plot(
        curve.axis(axis) * scale,
        curve.axis("wer"),
        color=colour,
        ls=style,
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
        panel.annotate(
            f"{place[0]:.2f}",
            place,
            (0, -8),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8.5,
            fontweight="bold",
            color=colour,
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
    panel.grid(axis="y", color="#c9ced6", lw=0.5, alpha=0.7)
    panel.set_axisbelow(True)


def _legend(figure: Figure, panels: np.ndarray) -> None:
    entries: dict[str, Artist] = {}
    for panel in panels.flat:
        for handle, text in zip(
            *panel.get_legend_handles_labels(), strict=True
        ):
            entries.setdefault(text, handle)
    entries["WER of the last exit kept"] = Line2D(
        [], [], ls="", marker="D", color="white", mec=INK, mew=1.6, ms=6
    )
    rows = math.ceil(len(entries) / (2 * panels.shape[1]))
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside upper left",
        ncols=math.ceil(len(entries) / rows),
        fontsize=9,
        handlelength=2.6,
        columnspacing=1.4,
    )
