"""The figure of decodings: what every way makes of every exit, and its price.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from speechbrain_ee.evaluation.decodings import (
    DecodingComparison,
    DecodingResult,
)
from speechbrain_ee.evaluation.figures import PANEL_INCHES, SETTINGS
from speechbrain_ee.evaluation.labels import decoding_label
from speechbrain_ee.evaluation.theme import GRID, INK, SOFT

# Colour and marker; of CTC's two ways and attention's three the same family.
_LOOKS = {
    "greedy": ("#0072b2", "o"),
    "ctc_beam": ("#56b4e9", "s"),
    "attention": ("#e69f00", "^"),
    "joint": ("#d55e00", "D"),
    "rescoring": ("#cc79a7", "v"),
}


def draw_decodings(comparisons: Sequence[DecodingComparison]) -> Figure:
    """Draw all test sets that were decoded in several ways.

    Arguments
    ---------
    comparisons : sequence of DecodingComparison
        One panel each.

    Returns
    -------
    Figure
        Word error rate, logarithmic, against multiply-accumulates; where
        these are not known, against layers.
    """
    width, height = PANEL_INCHES
    with mpl.rc_context(SETTINGS):
        figure = Figure(
            (width * len(comparisons) + 1.4, height + 0.5),
            layout="constrained",
        )
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(comparisons), squeeze=False)[0]
        for panel, comparison in zip(panels, comparisons):
            _fill(panel, comparison)
        panels[0].set_ylabel("word error rate (%)")
        handles, texts = panels[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside right center")
    return figure


def _fill(panel: Axes, comparison: DecodingComparison) -> None:
    known = all(one.avg_macs_E is not None for one in comparison.results)
    for result in comparison.results:
        costs = _costs(comparison, result, known)
        colour, marker = _LOOKS[result.name]
        panel.plot(
            costs,
            result.wer_E,
            color=colour,
            marker=marker,
            ms=5,
            lw=1.8,
            label=decoding_label(result.name),
        )
        if result.name == "ctc_beam":
            continue  # too close to the greedy path for labels of its own
        ends = ((0, (-6, 0), "right"), (-1, (6, 0), "left"))
        for place, shift, side in ends:
            panel.annotate(
                str(comparison.exit_layers[place]),
                (costs[place], result.wer_E[place]),
                xytext=shift,
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize=8,
                color=SOFT,
            )
    _scale(panel, [wer for one in comparison.results for wer in one.wer_E])
    panel.grid(axis="y", color=GRID, lw=0.5)
    panel.set_title(comparison.key, loc="left", color=INK, fontsize=9.5)
    panel.margins(x=0.12)
    panel.set_xlabel(
        "GMAC per utterance, decoding included"
        if known
        else "encoder layers, decoding aside"
    )


def _costs(
    comparison: DecodingComparison, result: DecodingResult, known: bool
) -> list[float]:
    if not known:
        return [float(layer) for layer in comparison.exit_layers]
    return [macs / 1e9 for macs in result.avg_macs_E]


def _scale(panel: Axes, wers: Sequence[float]) -> None:
    """Ratios of error rates count, unless one has no logarithm."""
    if min(wers) <= 0:
        panel.set_ylim(bottom=0)
        return
    panel.set_yscale("log")
    wide = max(wers) > 5 * min(wers)
    panel.yaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6)
    )
    panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    panel.yaxis.minorticks_off()
