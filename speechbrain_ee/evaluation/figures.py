"""The figure of a report: word error rate against compute.

One column per test set; the upper row against the average number of layers,
the lower one against multiply-accumulates where the trace knows them.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
import logging
import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.panel import fill_panel
from speechbrain_ee.evaluation.theme import INK, PALE

# A PDF embeds its fonts; how is of no interest beside a report.
logging.getLogger("fontTools").setLevel(logging.WARNING)

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
    # text stays text: it can be searched, and takes the font of the page
    "svg.fonttype": "none",
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
                fill_panel(panel, analysis, axis)
                if not column:
                    panel.set_ylabel("word error rate (%)")
                if not lower:
                    panel.set_title(analysis.key, loc="left")
        figure.get_layout_engine().set(h_pad=0.09, w_pad=0.07)
        _legend(figure, panels)
    return figure


def draw_panel(analysis: SetAnalysis, axis: str) -> Figure:
    """Draw one panel alone, without legend and title.

    Arguments
    ---------
    analysis : SetAnalysis
        The test set.
    axis : str
        The cost, ``avg_layer`` or ``avg_macs``.

    Returns
    -------
    Figure
    """
    with mpl.rc_context(_SETTINGS):
        figure = Figure(PANEL_INCHES, layout="constrained")
        FigureCanvasAgg(figure)
        panel = figure.subplots()
        fill_panel(panel, analysis, axis)
        panel.set_ylabel("word error rate (%)")
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
