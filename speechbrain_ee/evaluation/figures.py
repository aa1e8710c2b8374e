"""The figure of a report: word error rate against compute.

One row per test set and cost: encoder layers, and multiply-accumulates where
the trace knows them. On the left the whole range, on the right what is close
to the last exit's word error rate, where criteria differ.

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
from speechbrain_ee.evaluation.aspect import Aspect, has_close_up
from speechbrain_ee.evaluation.families import leaders
from speechbrain_ee.evaluation.labels import label, policy_letter
from speechbrain_ee.evaluation.panel import FIXED_LABEL, fill_panel
from speechbrain_ee.evaluation.theme import INK, PALE, family

# A PDF embeds its fonts; how is of no interest beside a report.
logging.getLogger("fontTools").setLevel(logging.WARNING)

PANEL_INCHES = (4.7, 3.4)

SETTINGS = {
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
        A row of panels for each cost of each.

    Returns
    -------
    Figure
    """
    leading = leaders(analyses)
    grid = [row for a in analyses for row in _rows(a, leading[a.key])]
    columns = max(map(len, grid))
    width, height = PANEL_INCHES
    with mpl.rc_context(SETTINGS):
        figure = Figure(
            (width * columns, height * len(grid) + 0.9), layout="constrained"
        )
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(grid), columns, squeeze=False)
        for panel in panels.flat:
            panel.set_axis_off()
        for row, drawn in enumerate(grid):
            for panel, (analysis, aspect) in zip(panels[row], drawn):
                panel.set_axis_on()
                fill_panel(panel, analysis, aspect)
                panel.set_title(_title(analysis, aspect), loc="left")
            panels[row, 0].set_ylabel("word error rate (%)")
        figure.get_layout_engine().set(h_pad=0.09, w_pad=0.07)
        _legend(figure, panels, analyses)
    return figure


def aspects(
    analysis: SetAnalysis, leading: tuple[str, ...]
) -> list[list[Aspect]]:
    """What there is to draw of a test set.

    Arguments
    ---------
    analysis : SetAnalysis
        The test set.
    leading : tuple of str
        Criteria to put in front.

    Returns
    -------
    list of list of Aspect
        One list per cost: the whole and, where it tells more, a close-up.
    """
    axes = ["avg_layer"]
    if analysis.trace.macs_NE is not None:
        axes.append("avg_macs")
    sizes = (False, True) if has_close_up(analysis) else (False,)
    return [[Aspect(axis, leading, close) for close in sizes] for axis in axes]


def draw_panel(analysis: SetAnalysis, aspect: Aspect) -> Figure:
    """Draw one panel alone, without legend and title.

    Arguments
    ---------
    analysis : SetAnalysis
        The test set.
    aspect : Aspect
        What to show of it.

    Returns
    -------
    Figure
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(PANEL_INCHES, layout="constrained")
        FigureCanvasAgg(figure)
        panel = figure.subplots()
        fill_panel(panel, analysis, aspect)
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
    with mpl.rc_context(SETTINGS):
        figure.savefig(
            stream,
            format=kind,
            dpi=160,
            metadata=metadata,
            transparent=kind == "svg",
        )
    return stream.getvalue()


def _rows(
    analysis: SetAnalysis, leading: tuple[str, ...]
) -> list[list[tuple[SetAnalysis, Aspect]]]:
    rows = [
        [(analysis, aspect) for aspect in row]
        for row in aspects(analysis, leading)
    ]
    # without close-ups the costs stand side by side
    return rows if len(rows[0]) > 1 else [sum(rows, [])]


def _title(analysis: SetAnalysis, aspect: Aspect) -> str:
    return "close to the last exit" if aspect.close else analysis.key


def _legend(
    figure: Figure, panels: np.ndarray, analyses: Sequence[SetAnalysis]
) -> None:
    entries: dict[str, Artist] = {}
    for panel in panels.flat:
        for handle, text in zip(
            *panel.get_legend_handles_labels(), strict=True
        ):
            entries.setdefault(text, handle)
    # criteria that only a later panel has stand beside the others
    for text in (label("oracle"), FIXED_LABEL):
        entries[text] = entries.pop(text)
    if any(
        len(a.criteria) > len(set(map(family, a.criteria))) for a in analyses
    ):
        entries["other criteria, colour by family"] = Line2D(
            [], [], color=PALE, lw=0.8
        )
    entries["WER of the last exit kept"] = Line2D(
        [], [], ls="", marker="D", color="white", mec=INK, mew=1.6, ms=6
    )
    # the same policies on every set that has any
    policies = max((a.policies for a in analyses), key=len)
    for number, policy in enumerate(policies):
        entries[f"policy {policy_letter(number)}: {policy.name}"] = Line2D(
            [], [], ls="", marker="*", color="white", mec=INK, mew=0.8, ms=12
        )
    rows = math.ceil(len(entries) / (2 * panels.shape[1]))
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside upper left",
        ncols=_columns(
            list(entries),
            figure.get_figwidth(),
            math.ceil(len(entries) / rows),
        ),
        fontsize=9,
        handlelength=2.6,
        columnspacing=1.4,
    )


def _columns(texts: Sequence[str], width_in: float, most: int) -> int:
    """As many columns of a legend as the figure is wide enough for."""
    for columns in range(most, 1, -1):
        longest = [
            max(map(len, column))
            for column in np.array_split(np.array(texts, object), columns)
        ]
        # Characters of 9 pt; a handle and the space beside it.
        if sum(0.071 * count + 0.65 for count in longest) <= width_in:
            return columns
    return 1
