"""The figures of a report.

``draw_curves`` has a row of panels per test set: on the left the whole range,
on the right what is close to the last exit's word error rate. A second row
against multiply-accumulates follows only where these say something else than
layers do, as for criteria that take a search at every exit. ``draw_decodings``
compares ways of decoding, ``draw_overthinking`` every exit of every set with
the last.

Axes: B bootstrap replicates, E exits, P places on a line, C candidates for the
place of a label, K boxes that are taken.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)
from numpy.typing import NDArray
from scipy.interpolate import interp1d

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.curves import Curve, OperatingPoint
from speechbrain_ee.evaluation.overthinking import (
    OverthinkingStudy,
    SetOverthinking,
)
from speechbrain_ee.evaluation.tables import DecodingComparison
from speechbrain_ee.evaluation.theme import (
    COLOURS,
    DASHES,
    GRID,
    INK,
    ORACLE,
    PALE,
    SOFT,
    Aspect,
    aspects,
    decoding_label,
    label,
    leaders,
    look,
    policy_letter,
    policy_marker,
)

# A PDF embeds its fonts; how is of no interest beside a report.
logging.getLogger("fontTools").setLevel(logging.WARNING)

PANEL_INCHES = (4.9, 3.5)
FIXED_LABEL = "fixed exit after layer L"
SETTINGS = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.axisbelow": True,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
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
RATE = "word error rate (%)"

_BAND = {"alpha": 0.13, "lw": 0}
_DIAMOND = {"ls": "", "marker": "D", "color": "white", "mew": 1.6, "ms": 6}
# Text over lines stays readable.
_BACKED = {"fc": "#ffffff", "ec": "none", "alpha": 0.65, "pad": 0.4}
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")

# A close-up shows at least so many word errors above the last exit.
_FEWEST_ERRORS = 5

# Where a label may stand, seen from its point, the best place first.
_SIDES = np.array(
    [(0, 1), (1, 1), (-1, 1), (1, 0), (-1, 0), (0, -1), (1, -1), (-1, -1)]
)
_GAPS_PT = np.array([5, 11, 18, 27])

# Colour and marker; of CTC's two ways and attention's three the same family.
_DECODING_LOOKS = {
    "greedy": ("#0072b2", "o"),
    "ctc_beam": ("#56b4e9", "s"),
    "attention": ("#e69f00", "^"),
    "joint": ("#d55e00", "D"),
    "rescoring": ("#cc79a7", "v"),
}

# Exits further above the last one are left to the first panel of a study,
_CLOSE = 1.15  # times the last exit's word error rate

# and so are the ends of longer intervals, in percent.
_FURTHEST = 50.0
_BARS = 0.8  # of the room between two exits


@mpl.rc_context(SETTINGS)
def draw_curves(analyses: Sequence[SetAnalysis]) -> Figure:
    """Draw all test sets: a row of panels for each cost of each."""
    leading = leaders(analyses)
    grid = [(a, row) for a in analyses for row in aspects(a, leading)]
    width, height = PANEL_INCHES
    inches = width * 2, height * len(grid) + 0.9
    figure, panels = new_figure(inches, len(grid), 2)
    entries: dict[str, Artist] = {}
    for (analysis, row), drawn in zip(grid, panels, strict=True):
        for panel, aspect in zip(drawn, row, strict=True):
            fill_panel(panel, analysis, aspect)
            title = "close to the last exit" if aspect.close else None
            panel.set_title(title or analysis.key)
            handles, texts = panel.get_legend_handles_labels()
            entries = dict(zip(texts, handles)) | entries
        drawn[0].set_ylabel(RATE)
    # criteria that only a later panel has stand beside the others
    for text in (label("oracle"), FIXED_LABEL):
        entries[text] = entries.pop(text)
    diamond = Line2D([], [], mec=INK, **_DIAMOND)
    entries[kept_label(analyses)] = diamond
    # the same policies on every set that has any
    policies = max((a.policies for a in analyses), key=len)
    for place, policy in enumerate(policies):
        shape = {"marker": policy_marker(place), "mew": 0.8, "ms": 9}
        entries[f"policy {policy_letter(place)}: {policy.name}"] = Line2D(
            [], [], ls="", color="white", mec=INK, **shape
        )
    rows = math.ceil(len(entries) / 4)
    _legend(figure, entries, math.ceil(len(entries) / rows))
    lay_out(figure)
    return figure


@mpl.rc_context(SETTINGS)
def draw_panel(analysis: SetAnalysis, aspect: Aspect) -> Figure:
    """Draw one panel alone, without legend and title.

    All criteria are in it, those that do not lead out of sight: in a page
    they can be switched on.
    """
    figure, ((panel,),) = new_figure(PANEL_INCHES)
    fill_panel(panel, analysis, aspect, every=True)
    panel.set_ylabel(RATE)
    lay_out(figure)
    return figure


def new_figure(
    inches: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, NDArray[np.object_]]:
    """A figure that needs no window, and its panels (rows, columns)."""
    figure = Figure(inches, **options)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


@mpl.rc_context(SETTINGS)
def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Render a figure as ``png``, ``pdf`` or ``svg``.

    Equal figures give equal bytes.
    """
    # no dates, so that a report of the same trace is the same file
    metadata = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        "svg": {"Date": None, "Creator": None},
    }[kind]
    stream, clear = io.BytesIO(), kind == "svg"
    figure.savefig(
        stream, format=kind, dpi=160, metadata=metadata, transparent=clear
    )
    return stream.getvalue()


def fill_panel(
    panel: Axes, analysis: SetAnalysis, aspect: Aspect, every: bool = False
) -> None:
    """Draw one test set; with `every`, criteria that do not lead as well.

    Artists of a criterion carry its name as their group, after ``series.``
    or, out of sight, ``hidden.``.
    """
    mixed, oracle = analysis.bounds[aspect.axis]
    _set_axes(panel, analysis, oracle, aspect)
    _yardsticks(panel, analysis.wer[-1], aspect)
    _mixture(panel, analysis, mixed, aspect)
    for name in analysis.criteria:
        if every or name in aspect.leading:
            _criterion(panel, analysis, name, aspect)
    if best := analysis.choice():
        _number(panel, best.point, aspect, f"series.{best.result.name}")
    _line(panel, oracle, aspect, (ORACLE, ()))
    if point := oracle.cheapest(analysis.wer[-1], aspect.axis):
        panel.plot(*aspect.place(point), mec=ORACLE, zorder=7, **_DIAMOND)
        _number(panel, point, aspect)
    _policies(panel, analysis, aspect)
    costs = aspect.cost(analysis.fixed.curve)
    panel.plot(
        costs, analysis.wer, "o", color=INK, ms=4.5, zorder=6, label=FIXED_LABEL
    )
    layers = analysis.trace.header.exit_layers
    for layer, *place in zip(layers, costs, analysis.wer):
        _annotate(panel, f"L{layer}", tuple(place))


def lay_out(figure: Figure) -> None:
    """Place panels, then labels off each other, off marks and off lines."""
    # once, not at every drawing: labels go by where the panels are
    ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.07).execute(figure)
    for panel in figure.axes:
        taken, lines_P2 = _drawn(panel)
        for text in panel.texts:
            if isinstance(text, Annotation):
                boxes_K4 = np.array(taken).reshape(-1, 4)
                taken.append(_place(text, boxes_K4, lines_P2))


def _place(
    text: Annotation,
    taken_K4: NDArray[np.float64],
    lines_P2: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Put a label where it hides least; returns its box in pixels."""
    panel, dot = text.axes, text.figure.dpi / 72  # pixels of a point
    box = text.get_window_extent(text.figure.canvas.get_renderer())
    half = np.array([box.width, box.height]) / 2
    point = panel.transData.transform(text.xy)
    rank_C = np.repeat(np.arange(len(_SIDES)), len(_GAPS_PT))
    gap_C = np.tile(_GAPS_PT, len(_SIDES))
    middle_C2 = point + _SIDES[rank_C] * (half + gap_C[:, None] * dot)
    low_C12, high_C12 = (middle_C2 + half * side for side in (-1, 1))
    low_C12, high_C12 = low_C12[:, None], high_C12[:, None]
    shared_CK2 = np.minimum(high_C12, taken_K4[:, 2:])
    shared_CK2 -= np.maximum(low_C12, taken_K4[:, :2])
    hidden_C = shared_CK2.clip(min=0).prod(axis=2).sum(axis=1)
    within_CP2 = (lines_P2 > low_C12) & (lines_P2 < high_C12)
    start, end = panel.bbox.extents[:2], panel.bbox.extents[2:]
    beyond_C12 = (start - low_C12).clip(min=0) + (high_C12 - end).clip(min=0)
    badness_C = (
        40 * hidden_C / (4 * half.prod())
        + 0.04 * within_CP2.all(axis=2).sum(axis=1)
        + beyond_C12.sum(axis=(1, 2))
        + 0.12 * gap_C
        + 0.04 * rank_C
    )
    best = badness_C.argmin()
    text.xyann = tuple((middle_C2[best] - point) / dot)
    return np.concatenate([low_C12[best, 0], high_C12[best, 0]])


def _drawn(
    panel: Axes,
) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    """Boxes of the marks, and points along the lines, in pixels."""
    boxes, lines = [], [np.empty((0, 2))]
    for line in panel.lines:
        if str(line.get_gid() or "").startswith("hidden."):
            continue
        xy_P2 = line.get_transform().transform(line.get_xydata())
        if line.get_marker() not in ("None", None):
            half = (line.get_markersize() / 2 + 1) * panel.figure.dpi / 72
            boxes += list(np.hstack([xy_P2 - half, xy_P2 + half]))
        elif len(xy_P2) > 1:
            # every few pixels, however far apart the points are
            steps = np.hypot(*np.diff(xy_P2, axis=0).T).cumsum()
            ways = np.concatenate([[0], steps])
            places = np.arange(0, ways[-1], 3.0)
            along = [np.interp(places, ways, axis) for axis in xy_P2.T]
            lines.append(np.column_stack(along))
    return boxes, np.concatenate(lines)


def _set_axes(
    panel: Axes, analysis: SetAnalysis, oracle: Curve, aspect: Aspect
) -> None:
    """Limits, ticks and names of a panel's axes."""
    costs, best = aspect.cost(analysis.fixed.curve), analysis.oracle_best.wer
    panel.yaxis.set_major_locator(MaxNLocator(6))
    if aspect.close:
        last, full = analysis.wer[-1], costs[-1]
        few = 100 * _FEWEST_ERRORS / analysis.words
        high = last + max(0.15 * last, few)
        panel.set_ylim(best - 0.06 * (high - best), high)
        first = oracle.cheapest(high, aspect.axis)
        start = full if first is None else aspect.place(first)[0]
        span = max(full - start, 0.05 * full)
        panel.set_xlim(start - 0.11 * span, full + 0.07 * span)
    else:
        panel.set_xlim(0, costs[-1] * 1.08)
        drawn = [*analysis.wer, best]
        floor = min([wer for wer in drawn if wer > 0], default=1.0)
        if max(drawn) / floor > 3:
            panel.set_yscale("log")
            ticks = LogLocator(subs=(1, 2, 3, 5), numticks=20)
            panel.yaxis.set_major_locator(ticks)
            panel.yaxis.set_minor_locator(NullLocator())
            panel.set_ylim(floor / 1.45, max(drawn) * 1.35)
        else:
            margin = 0.15 * (max(drawn) - min(drawn)) or 1.0
            panel.set_ylim(min(drawn) - margin, max(drawn) + margin)
        if aspect.by_layer:
            panel.set_xticks([0, *analysis.trace.header.exit_layers])
    panel.yaxis.set_major_formatter(_PLAIN)
    panel.grid(axis="y", alpha=0.7)
    panel.set_xlabel("GMAC per utterance (average), criterion included")
    if aspect.by_layer:
        panel.set_xlabel("encoder layers per utterance (average)")
        _scale_of_macs(panel, analysis.fixed.curve)


def _scale_of_macs(panel: Axes, fixed: Curve) -> None:
    """A second scale: what the encoder computes up to these layers."""
    layers, macs = fixed.axis("avg_layer"), fixed.axis("avg_macs") * 1e-9
    if len(layers) < 2 or not (np.diff(macs) > 0).all():
        return
    # straight on beyond the first and the last exit
    there = interp1d(layers, macs, fill_value="extrapolate")
    back = interp1d(macs, layers, fill_value="extrapolate")
    above = panel.secondary_xaxis("top", functions=(there, back))
    above.xaxis.set_major_locator(MaxNLocator(6))
    above.tick_params(labelsize=8, labelcolor=SOFT, length=2)
    above.set_xlabel("GMAC without the criterion", fontsize=8, color=SOFT)


def _yardsticks(panel: Axes, last: float, aspect: Aspect) -> None:
    """The last exit's word error rate, and levels above it, at the margin."""
    levels = {f"last exit\n{last:.2f} %": last}
    if aspect.close and last:
        levels |= {"+5 %": 1.05 * last, "+10 %": 1.1 * last}
    low, high = panel.get_ylim()
    style = {"fontsize": 8, "linespacing": 1.1, "color": SOFT}
    style |= {"va": "center", "transform": panel.get_yaxis_transform()}
    for text, wer in levels.items():
        panel.axhline(wer, color=PALE, lw=0.8, ls=(0, (1, 2)), zorder=1)
        # lines of a close-up may be nearer to each other than their names
        if wer == last or (wer - last) / (high - low) > 0.075:
            panel.text(1.015, wer, text, **style)


def _mixture(
    panel: Axes, analysis: SetAnalysis, curve: Curve, aspect: Aspect
) -> None:
    """The line of two fixed exits, with its band."""
    fixed = analysis.fixed.curve
    exits = [fixed.points.index(point) for point in curve.points]
    # dense, because a straight line bends on a logarithmic axis
    places = np.arange(len(exits))
    dense_P = np.linspace(0, places[-1], 40 * len(exits))
    mix_PE = np.column_stack(
        [np.interp(dense_P, places, one) for one in np.eye(len(exits))]
    )
    x_P, last = mix_PE @ aspect.cost(curve), analysis.wer[-1]
    named = {"label": label("mixture"), "zorder": 2.5}
    panel.plot(x_P, mix_PE @ curve.axis("wer"), color=PALE, lw=1.6, **named)
    wer_BE = analysis.bootstrap.fixed.wer_BT
    above_BP = (wer_BE[:, exits] - wer_BE[:, -1:]) @ mix_PE.T
    ends_2P = last + np.array(analysis.bootstrap.band(above_BP))
    panel.fill_between(x_P, *ends_2P, color=PALE, zorder=1, **_BAND)


def _criterion(
    panel: Axes, analysis: SetAnalysis, name: str, aspect: Aspect
) -> None:
    """The line of a criterion; of the two best also band and mark."""
    curve, last = analysis.criteria[name].curve, analysis.wer[-1]
    gid = f"{'series' if name in aspect.leading else 'hidden'}.{name}"
    banded, colour = name in aspect.banded, look(name)[0]
    _line(panel, curve, aspect, look(name), gid, banded)
    if banded and curve.above_low is not None:
        # what 95 % of the replicates give, measured from the last exit's rate
        ends_2T = last + np.array([curve.above_low, curve.above_high])
        style = {"color": colour, "zorder": 1.5, "gid": gid} | _BAND
        panel.fill_between(aspect.cost(curve), *ends_2T, **style)
    point = analysis.kept(name)
    if banded and point is not None:
        style = {"mec": colour, "zorder": 7, "gid": gid} | _DIAMOND
        panel.plot(*aspect.place(point), **style)


def _line(
    panel: Axes,
    curve: Curve,
    aspect: Aspect,
    shape: tuple[str, tuple[float, ...]],
    gid: str | None = None,
    strong: bool = True,
) -> None:
    colour, dashes = shape
    panel.plot(
        aspect.cost(curve),
        curve.axis("wer"),
        color=colour,
        ls=(0, dashes) if dashes else "-",
        lw=2.1 if strong else 1.1,
        alpha=1.0 if strong else 0.7,
        label=label(curve.name),
        zorder=4.5 if strong else 4,
        gid=gid,
    )


def _number(
    panel: Axes, point: OperatingPoint, aspect: Aspect, gid: str | None = None
) -> None:
    """What a marked point costs."""
    place = aspect.place(point)
    decimals = 2 if panel.get_xlim()[1] > 1 else 3  # as the tables do
    _annotate(panel, f"{place[0]:.{decimals}f}", place, True, gid)


def _policies(panel: Axes, analysis: SetAnalysis, aspect: Aspect) -> None:
    """Every policy by a shape of its own; one letter list per place."""
    letters: dict[tuple[float, float], list[str]] = {}
    for number, policy in enumerate(analysis.policies):
        place = aspect.place(policy.point)
        letters.setdefault(place, []).append(policy_letter(number))
        # the first is seen where two lie on each other
        size = {"ms": max(11 - number, 7), "zorder": 9 + 0.01 * number}
        colours = {"color": look(policy.criterion)[0], "mec": INK, "mew": 0.8}
        panel.plot(*place, policy_marker(number), **colours, **size)
    for place, found in letters.items():
        _annotate(panel, ", ".join(found), place, True)


def _annotate(
    panel: Axes,
    text: str,
    place: tuple[float, float],
    bold: bool = False,
    gid: str | None = None,
) -> None:
    """A label for :func:`lay_out`, if its point is in the panel."""
    (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()
    if not (left <= place[0] <= right and low <= place[1] <= high):
        return
    style = {"fontsize": 8.5, "color": INK, "bbox": _BACKED, "gid": gid}
    style |= {"textcoords": "offset points", "ha": "center", "va": "center"}
    weight = {"fontweight": "bold", "zorder": 8} if bold else {"zorder": 6}
    text = panel.annotate(text, place, (0, 0), **style, **weight)
    text.set_in_layout(False)


def kept_label(analyses: Sequence[SetAnalysis]) -> str:
    """What a diamond stands for."""
    dev = {a.dev.key for a in analyses if a.dev is not None}
    if dev:
        return f"criterion and threshold chosen on {', '.join(sorted(dev))}"
    return "last exit's WER kept, chosen on the set itself"


def _legend(figure: Figure, entries: Mapping[str, Artist], most: int) -> None:
    """A legend above, with as many columns as the figure is wide enough for."""

    def fits(columns: int) -> bool:
        parts = np.array_split(np.array([*entries], object), columns)
        longest = [max(map(len, part)) for part in parts]
        # Characters of 9 pt; a handle and the space beside it.
        inches = sum(0.071 * count + 0.65 for count in longest)
        return inches <= figure.get_figwidth()

    figure.legend(
        [*entries.values()],
        [*entries],
        loc="outside upper left",
        ncols=next((n for n in range(most, 1, -1) if fits(n)), 1),
        fontsize=9,
        handlelength=2.6,
        columnspacing=1.4,
    )


@mpl.rc_context(SETTINGS)
def draw_decodings(comparisons: Sequence[DecodingComparison]) -> Figure:
    """Draw all test sets that were decoded in several ways."""
    width, height = PANEL_INCHES
    inches = width * len(comparisons) + 1.4, height + 0.5
    columns = len(comparisons)
    figure, (panels,) = new_figure(inches, 1, columns, layout="constrained")
    for panel, comparison in zip(panels, comparisons):
        _decodings(panel, comparison)
    panels[0].set_ylabel(RATE)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside right center"
    )
    return figure


def _decodings(panel: Axes, comparison: DecodingComparison) -> None:
    results, layers = comparison.results, comparison.exit_layers
    known = all(each.avg_macs is not None for each in results.values())
    style = {"textcoords": "offset points", "va": "center", "fontsize": 8}
    for name, each in results.items():
        costs = [macs / 1e9 for macs in each.avg_macs] if known else layers
        colour, marker = _DECODING_LOOKS[name]
        text = decoding_label(name)
        shape = {"color": colour, "marker": marker, "ms": 5, "lw": 1.8}
        panel.plot(costs, each.wer, label=text, **shape)
        if name == "ctc_beam":
            continue  # too close to the greedy path for labels of its own
        for end, shift, side in ((0, -6, "right"), (-1, 6, "left")):
            panel.annotate(
                str(layers[end]),
                (costs[end], each.wer[end]),
                xytext=(shift, 0),
                ha=side,
                color=SOFT,
                **style,
            )
    _scale(panel, [wer for each in results.values() for wer in each.wer])
    panel.grid(axis="y")
    panel.set_title(comparison.key, fontsize=9.5)
    panel.margins(x=0.12)
    panel.set_xlabel(
        "GMAC per utterance, decoding included"
        if known
        else "encoder layers, decoding aside"
    )


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
    panel.yaxis.set_major_formatter(_PLAIN)
    panel.yaxis.minorticks_off()


@mpl.rc_context(SETTINGS)
def draw_overthinking(study: OverthinkingStudy) -> Figure:
    """Draw a study: error rates, these relative to the last, best exits."""
    width, height = PANEL_INCHES
    inches = 3 * width - 2.1, height + 0.5
    figure, (panels,) = new_figure(inches, 1, 3, layout="constrained")
    rates, close, shares = panels
    rates.set_title(RATE)
    close.set_title("above the last exit (% of its rate)")
    close.axhline(0, color=PALE, lw=0.8)
    shares.set_title("utterances by earliest best exit (%)")
    ends = [-2.0, 5.0]
    for place, each in enumerate(study.sets.values()):
        domain = " (in domain)" if each.key == study.in_domain else ""
        wers = [one.wer for one in each.exits]
        _exits_line(rates, each, place, wers, f"{each.key}{domain}")
        aside = place - (len(study.sets) - 1) / 2  # so that none hides another
        if wers[-1]:
            above = [100 * (wer / wers[-1] - 1) for wer in wers]
            _exits_line(close, each, place, above)
            ends += _intervals(close, each, place, 0.05 * aside)
        layers = np.array([one.layer for one in each.exits])
        bar = _BARS * min(np.diff(layers), default=1) / len(study.sets)
        best = [100 * one.best_share for one in each.exits]
        shares.bar(layers + bar * aside, best, bar, color=_look(place)[0])
    _scale(rates, [one.wer for e in study.sets.values() for one in e.exits])
    low, high = max(min(ends), -_FURTHEST), min(max(ends), _FURTHEST)
    room = 0.06 * (high - low)
    close.set_ylim(low - room, high + room)
    depths = {one.layer for e in study.sets.values() for one in e.exits}
    for panel in panels:
        panel.set_xlabel("exit after encoder layer")
        panel.grid(axis="y")
        if len(depths) <= 12:
            panel.set_xticks(sorted(depths))
    handles, texts = rates.get_legend_handles_labels()
    _legend(figure, dict(zip(texts, handles)), len(texts))
    return figure


def _look(place: int) -> tuple[str, tuple[float, ...]]:
    """Colour and dashes of a set; the domain is drawn in ink."""
    if place == 0:
        return INK, ()
    turn, colour = divmod(place - 1, len(COLOURS))
    return COLOURS[colour], DASHES[turn % len(DASHES)]


def _exits_line(
    panel: Axes,
    each: SetOverthinking,
    place: int,
    values: list[float],
    label: str | None = None,
) -> None:
    """One set; its best exit is marked."""
    (colour, dashes), best = _look(place), each.best_exit - 1
    layers = [one.layer for one in each.exits]
    style = {"color": colour, "lw": 1.8, "marker": "o", "ms": 3.5}
    (line,) = panel.plot(layers, values, label=label, **style)
    line.set_dashes(dashes or (1, 0))
    mark = {"marker": "D", "ms": 8, "mfc": "none", "mec": colour, "mew": 1.6}
    panel.plot(layers[best], values[best], ls="", **mark)


def _intervals(
    panel: Axes, each: SetOverthinking, place: int, shift: float
) -> list[float]:
    """Intervals relative to the last exit; returns the ends of close ones."""
    last, shown = each.exits[-1].wer, []
    for one in each.exits[:-1]:
        ends = [100 * one.above_last.low, 100 * one.above_last.high]
        ends = [end / last for end in ends]
        panel.plot([one.layer + shift] * 2, ends, color=_look(place)[0], lw=1.4)
        if one.wer <= _CLOSE * last:
            shown += ends
    return shown
