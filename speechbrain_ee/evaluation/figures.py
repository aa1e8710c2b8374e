"""The figures of a report.

``draw_curves`` has a row of panels per test set: on the left the whole range,
on the right what is close to the last exit's word error rate. A second row
against multiply-accumulates follows only where these say something else than
layers do, as for criteria that take a search at every exit. ``draw_decodings``
compares ways of decoding, ``draw_overthinking`` every exit of every set with
the last.

Axes: B bootstrap replicates, E exits, P places on a line.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
import logging
import math
from collections.abc import Sequence
from itertools import product

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

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.curves import Curve, OperatingPoint
from speechbrain_ee.evaluation.decodings import DecodingComparison
from speechbrain_ee.evaluation.overthinking import (
    OverthinkingStudy,
    SetOverthinking,
)
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

# Text over lines stays readable.
_BACKED = {"fc": "#ffffff", "ec": "none", "alpha": 0.65, "pad": 0.4}

# A close-up shows at least so many word errors above the last exit.
_FEWEST_ERRORS = 5

# Where a label may stand, seen from its point, the best place first.
_SIDES = (
    *((0, 1), (1, 1), (-1, 1), (1, 0), (-1, 0)),
    *((0, -1), (1, -1), (-1, -1)),
)
_GAPS_PT = (5, 11, 18, 27)


def draw_curves(analyses: Sequence[SetAnalysis]) -> Figure:
    """Draw all test sets: a row of panels for each cost of each."""
    leading = leaders(analyses)
    grid = [
        (analysis, row)
        for analysis in analyses
        for row in aspects(analysis, leading)
    ]
    width, height = PANEL_INCHES
    with mpl.rc_context(SETTINGS):
        figure = Figure((width * 2, height * len(grid) + 0.9))
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(grid), 2, squeeze=False)
        for (analysis, row), drawn in zip(grid, panels, strict=True):
            for panel, aspect in zip(drawn, row, strict=True):
                fill_panel(panel, analysis, aspect)
                title = "close to the last exit" if aspect.close else None
                panel.set_title(title or analysis.key, loc="left")
            drawn[0].set_ylabel("word error rate (%)")
        _legend(figure, panels, analyses)
        lay_out(figure)
    return figure


def draw_panel(analysis: SetAnalysis, aspect: Aspect) -> Figure:
    """Draw one panel alone, without legend and title.

    All criteria are in it, those that do not lead out of sight: in a page
    they can be switched on.
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(PANEL_INCHES)
        FigureCanvasAgg(figure)
        panel = figure.subplots()
        fill_panel(panel, analysis, aspect, every=True)
        panel.set_ylabel("word error rate (%)")
        lay_out(figure)
    return figure


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


def fill_panel(
    panel: Axes, analysis: SetAnalysis, aspect: Aspect, every: bool = False
) -> None:
    """Draw one test set; with `every`, criteria that do not lead as well.

    Artists of a criterion carry its name as their group, after ``series.``
    or, out of sight, ``hidden.``.
    """
    mixed = analysis.mixture.curve
    oracle = analysis.oracle.curve
    if not aspect.by_layer:
        mixed = analysis.mixture_by_macs or mixed
        oracle = analysis.oracle_by_macs or oracle
    _set_axes(panel, analysis, oracle, aspect)
    _yardsticks(panel, analysis, aspect)
    _mixture(panel, analysis, mixed, aspect)
    names = [n for n in analysis.criteria if every or n in aspect.leading]
    best = analysis.choice()
    for name in names:
        _criterion(panel, analysis, name, aspect)
    if best is not None:
        _number(panel, best.point, aspect, f"series.{best.result.name}")
    _line(panel, oracle, aspect, ORACLE, ())
    point = oracle.cheapest(analysis.wer[-1], aspect.axis)
    if point is not None:
        _kept(panel, point, aspect, ORACLE)
        _number(panel, point, aspect, None)
    _policies(panel, analysis, aspect)
    _fixed(panel, analysis, aspect)


def lay_out(figure: Figure) -> None:
    """Place panels, then labels off each other, off marks and off lines."""
    # once, not at every drawing: labels go by where the panels are
    ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.07).execute(figure)
    renderer = figure.canvas.get_renderer()
    for panel in figure.axes:
        labels = [t for t in panel.texts if isinstance(t, Annotation)]
        taken, lines_P2 = _drawn(panel, figure.dpi)
        for text in labels:
            _place(text, panel, taken, lines_P2, renderer)


def _place(
    text: Annotation,
    panel: Axes,
    taken: list[NDArray[np.float64]],
    lines_P2: NDArray[np.float64],
    renderer: mpl.backends.backend_agg.RendererAgg,
) -> None:
    """Put a label where it hides least; `taken` boxes grow by its own."""
    box = text.get_window_extent(renderer)
    half = np.array([box.width, box.height]) / 2
    point = panel.transData.transform(text.xy)
    dot = panel.figure.dpi / 72  # pixels of a typographic point
    inside = np.array(panel.bbox.extents)
    best = None
    for (rank, side), gap in product(enumerate(_SIDES), _GAPS_PT):
        middle = point + np.array(side) * (half + gap * dot)
        corners = np.concatenate([middle - half, middle + half])
        hidden = 0.0
        for left, bottom, right, top in taken:
            wide = min(corners[2], right) - max(corners[0], left)
            high = min(corners[3], top) - max(corners[1], bottom)
            hidden += max(wide, 0.0) * max(high, 0.0)
        within = (lines_P2 > corners[:2]) & (lines_P2 < corners[2:])
        outside = np.maximum(inside[:2] - corners[:2], 0).sum()
        outside += np.maximum(corners[2:] - inside[2:], 0).sum()
        badness = (
            40 * hidden / (4 * half.prod())
            + 0.04 * within.all(axis=1).sum()
            + outside
            + 0.12 * gap
            + 0.04 * rank
        )
        if best is None or badness < best[0]:
            best = badness, middle, corners
    _, middle, corners = best
    text.set(ha="center", va="center")
    text.xyann = tuple((middle - point) / dot)
    taken.append(corners)


def _drawn(
    panel: Axes, dpi: float
) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    """Boxes of the marks, and points along the lines, in pixels."""
    boxes, lines = [], [np.empty((0, 2))]
    for line in panel.lines:
        if str(line.get_gid() or "").startswith("hidden."):
            continue
        xy_P2 = line.get_transform().transform(line.get_xydata())
        if line.get_marker() not in ("None", None):
            half = (line.get_markersize() / 2 + 1) * dpi / 72
            boxes += [np.concatenate([p - half, p + half]) for p in xy_P2]
        elif len(xy_P2) > 1:
            # every few pixels, however far apart the points are
            steps = np.hypot(*np.diff(xy_P2, axis=0).T).cumsum()
            ways = np.concatenate([[0], steps])
            places = np.arange(0, ways[-1], 3.0)
            lines.append(
                np.column_stack(
                    [np.interp(places, ways, axis) for axis in xy_P2.T]
                )
            )
    return boxes, np.concatenate(lines)


def _set_axes(
    panel: Axes, analysis: SetAnalysis, oracle: Curve, aspect: Aspect
) -> None:
    """Limits, ticks and names of a panel's axes."""
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
    if aspect.by_layer:
        _scale_of_macs(panel, analysis.fixed.curve)


def _scale_of_macs(panel: Axes, fixed: Curve) -> None:
    """A second scale: what the encoder computes up to these layers."""
    layers, macs = fixed.axis("avg_layer"), fixed.axis("avg_macs") * 1e-9
    if len(layers) < 2 or not (np.diff(macs) > 0).all():
        return
    slopes = np.diff(macs) / np.diff(layers)
    # straight on beyond the first and the last exit
    layers = np.array([layers[0] - 1e3, *layers, layers[-1] + 1e3])
    macs = np.array(
        [macs[0] - 1e3 * slopes[0], *macs, macs[-1] + 1e3 * slopes[-1]]
    )
    above = panel.secondary_xaxis(
        "top",
        functions=(
            lambda x: np.interp(x, layers, macs),
            lambda x: np.interp(x, macs, layers),
        ),
    )
    above.xaxis.set_major_locator(MaxNLocator(6))
    above.tick_params(labelsize=8, labelcolor=SOFT, length=2)
    above.set_xlabel("GMAC without the criterion", fontsize=8, color=SOFT)


def _set_close_limits(
    panel: Axes, analysis: SetAnalysis, oracle: Curve, aspect: Aspect
) -> None:
    last, best = analysis.wer[-1], analysis.oracle_best.wer
    high = last + max(0.15 * last, 100 * _FEWEST_ERRORS / analysis.words)
    panel.set_ylim(best - 0.06 * (high - best), high)
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


def _yardsticks(panel: Axes, analysis: SetAnalysis, aspect: Aspect) -> None:
    """The last exit's word error rate, and levels above it, at the margin."""
    last = analysis.wer[-1]
    levels = {f"last exit\n{last:.2f} %": last}
    if aspect.close and last:
        levels |= {"+5 %": 1.05 * last, "+10 %": 1.1 * last}
    low, high = panel.get_ylim()
    for text, wer in levels.items():
        panel.axhline(wer, color=PALE, lw=0.8, ls=(0, (1, 2)), zorder=1)
        # lines of a close-up may be nearer to each other than their names
        if wer == last or (wer - last) / (high - low) > 0.075:
            panel.text(
                1.015,
                wer,
                text,
                transform=panel.get_yaxis_transform(),
                va="center",
                fontsize=8,
                linespacing=1.1,
                color=SOFT,
            )


def _mixture(
    panel: Axes, analysis: SetAnalysis, curve: Curve, aspect: Aspect
) -> None:
    """The line of two fixed exits, with its band."""
    places = np.arange(len(curve.points))
    # dense, because a straight line bends on a logarithmic axis
    dense_P = np.linspace(0, places[-1], 40 * len(places))
    x_P = np.interp(dense_P, places, aspect.cost(curve))
    wer_P = np.interp(dense_P, places, curve.axis("wer"))
    panel.plot(
        x_P, wer_P, color=PALE, lw=1.6, label=label("mixture"), zorder=2.5
    )
    exits = [analysis.fixed.curve.points.index(p) for p in curve.points]
    fixed_BE = analysis.bootstrap.fixed.wer_BT
    above_BE = fixed_BE[:, exits] - fixed_BE[:, -1:]
    whole_P = np.minimum(dense_P.astype(int), max(len(places) - 2, 0))
    share_P = dense_P - whole_P
    next_P = np.minimum(whole_P + 1, places[-1])
    above_BP = above_BE[:, whole_P] * (1 - share_P)
    above_BP += above_BE[:, next_P] * share_P
    ends = analysis.bootstrap.percentiles
    low_P, high_P = np.percentile(above_BP, ends, axis=0)
    last = analysis.wer[-1]
    panel.fill_between(
        x_P, last + low_P, last + high_P, color=PALE, alpha=0.13, lw=0, zorder=1
    )


def _criterion(
    panel: Axes, analysis: SetAnalysis, name: str, aspect: Aspect
) -> None:
    """The line of a criterion; of the two best also band and mark."""
    result = analysis.criteria[name]
    gid = f"{'series' if name in aspect.leading else 'hidden'}.{name}"
    colour, dashes = look(name)
    banded = name in aspect.banded
    curve, last = result.curve, analysis.wer[-1]
    _line(panel, curve, aspect, colour, dashes, gid, banded)
    if banded and curve.above_low is not None:
        # what 95 % of the replicates give, measured from the last exit's rate
        panel.fill_between(
            aspect.cost(curve),
            last + np.array(curve.above_low),
            last + np.array(curve.above_high),
            color=colour,
            alpha=0.13,
            lw=0,
            zorder=1.5,
            gid=gid,
        )
    point = analysis.kept(name)
    if banded and point is not None:
        _kept(panel, point, aspect, colour, gid)


def _line(
    panel: Axes,
    curve: Curve,
    aspect: Aspect,
    colour: str,
    dashes: tuple[float, ...],
    gid: str | None = None,
    strong: bool = True,
) -> None:
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


def _kept(
    panel: Axes,
    point: OperatingPoint,
    aspect: Aspect,
    colour: str,
    gid: str | None = None,
) -> None:
    """Mark a point that is meant to be no worse than the last exit."""
    panel.plot(
        *aspect.place(point),
        "D",
        color="white",
        mec=colour,
        mew=1.6,
        ms=6,
        zorder=7,
        gid=gid,
    )


def _number(
    panel: Axes, point: OperatingPoint, aspect: Aspect, gid: str | None
) -> None:
    """What a marked point costs."""
    place = aspect.place(point)
    decimals = 2 if panel.get_xlim()[1] > 1 else 3  # as the tables do
    _annotate(panel, f"{place[0]:.{decimals}f}", place, True, gid)


def _fixed(panel: Axes, analysis: SetAnalysis, aspect: Aspect) -> None:
    x = aspect.cost(analysis.fixed.curve)
    panel.plot(
        x, analysis.wer, "o", color=INK, ms=4.5, zorder=6, label=FIXED_LABEL
    )
    for place, layer in enumerate(analysis.trace.header.exit_layers):
        _annotate(panel, f"L{layer}", (x[place], analysis.wer[place]))


def _policies(panel: Axes, analysis: SetAnalysis, aspect: Aspect) -> None:
    """Every policy by a shape of its own; one letter list per place."""
    letters: dict[tuple[float, float], list[str]] = {}
    for number, policy in enumerate(analysis.policies):
        place = aspect.place(policy.point)
        letters.setdefault(place, []).append(policy_letter(number))
        panel.plot(
            *place,
            policy_marker(number),
            color=look(policy.criterion)[0],
            mec=INK,
            mew=0.8,
            # the first is seen where two lie on each other
            ms=max(11 - number, 7),
            zorder=9 + 0.01 * number,
        )
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
    panel.annotate(
        text,
        place,
        (0, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=8.5,
        fontweight="bold" if bold else "normal",
        color=INK,
        zorder=8 if bold else 6,
        bbox=_BACKED,
        gid=gid,
    ).set_in_layout(False)


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
    entries[kept_label(analyses)] = Line2D(
        [], [], ls="", marker="D", color="white", mec=INK, mew=1.6, ms=6
    )
    # the same policies on every set that has any
    policies = max((a.policies for a in analyses), key=len)
    for number, policy in enumerate(policies):
        shape = {"marker": policy_marker(number), "mew": 0.8, "ms": 9}
        entries[f"policy {policy_letter(number)}: {policy.name}"] = Line2D(
            [], [], ls="", color="white", mec=INK, **shape
        )
    rows = math.ceil(len(entries) / (2 * panels.shape[1]))
    most = math.ceil(len(entries) / rows)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside upper left",
        ncols=_columns(list(entries), figure.get_figwidth(), most),
        fontsize=9,
        handlelength=2.6,
        columnspacing=1.4,
    )


def kept_label(analyses: Sequence[SetAnalysis]) -> str:
    """What a diamond stands for."""
    dev = {a.dev.key for a in analyses if a.dev is not None}
    if dev:
        return f"criterion and threshold chosen on {', '.join(sorted(dev))}"
    return "last exit's WER kept, chosen on the set itself"


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


# Colour and marker; of CTC's two ways and attention's three the same family.
_DECODING_LOOKS = {
    "greedy": ("#0072b2", "o"),
    "ctc_beam": ("#56b4e9", "s"),
    "attention": ("#e69f00", "^"),
    "joint": ("#d55e00", "D"),
    "rescoring": ("#cc79a7", "v"),
}


def draw_decodings(comparisons: Sequence[DecodingComparison]) -> Figure:
    """Draw all test sets that were decoded in several ways."""
    width, height = PANEL_INCHES
    with mpl.rc_context(SETTINGS):
        figure = Figure(
            (width * len(comparisons) + 1.4, height + 0.5),
            layout="constrained",
        )
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(comparisons), squeeze=False)[0]
        for panel, comparison in zip(panels, comparisons):
            _decodings(panel, comparison)
        panels[0].set_ylabel("word error rate (%)")
        handles, texts = panels[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside right center")
    return figure


def _decodings(panel: Axes, comparison: DecodingComparison) -> None:
    known = all(one.avg_macs_E is not None for one in comparison.results)
    for result in comparison.results:
        costs: Sequence[float] = comparison.exit_layers
        if known:
            costs = [macs / 1e9 for macs in result.avg_macs_E]
        colour, marker = _DECODING_LOOKS[result.name]
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


# Exits further above the last one are left to the first panel,
_CLOSE = 1.15  # times the last exit's word error rate

# and so are the ends of longer intervals, in percent.
_FURTHEST = 50.0
_BARS = 0.8  # of the room between two exits


def draw_overthinking(study: OverthinkingStudy) -> Figure:
    """Draw a study."""
    width, height = PANEL_INCHES
    with mpl.rc_context(SETTINGS):
        figure = Figure((3 * width - 2.1, height + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        rates, close, shares = figure.subplots(1, 3)
        _rates(rates, study)
        _close_rates(close, study)
        _shares(shares, study)
        layers = {one.layer for e in study.sets.values() for one in e.exits}
        for panel in (rates, close, shares):
            panel.set_xlabel("exit after encoder layer")
            panel.grid(axis="y", color=GRID, lw=0.5)
            panel.set_axisbelow(True)
            if len(layers) <= 12:
                panel.set_xticks(sorted(layers))
        handles, texts = rates.get_legend_handles_labels()
        figure.legend(
            handles,
            texts,
            loc="outside upper left",
            ncols=max(1, min(len(texts), 300 // (20 + max(map(len, texts))))),
        )
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
    colour, dashes = _look(place)
    layers = [one.layer for one in each.exits]
    line, *_ = panel.plot(
        layers, values, color=colour, lw=1.8, marker="o", ms=3.5, label=label
    )
    line.set_dashes(dashes or (1, 0))
    panel.plot(
        layers[each.best_exit - 1],
        values[each.best_exit - 1],
        ls="",
        marker="D",
        ms=8,
        mfc="none",
        mec=colour,
        mew=1.6,
    )


def _rates(panel: Axes, study: OverthinkingStudy) -> None:
    panel.set_title("word error rate (%)", loc="left")
    for place, each in enumerate(study.sets.values()):
        domain = " (in domain)" if each.key == study.in_domain else ""
        values = [one.wer for one in each.exits]
        _exits_line(panel, each, place, values, f"{each.key}{domain}")
    _scale(panel, [one.wer for e in study.sets.values() for one in e.exits])


def _close_rates(panel: Axes, study: OverthinkingStudy) -> None:
    """Relative to the last exit, whose rate is 0 here."""
    panel.set_title("above the last exit (% of its rate)", loc="left")
    panel.axhline(0, color=PALE, lw=0.8)
    highest, lowest = 0.0, 0.0
    count = len(study.sets)
    for place, each in enumerate(study.sets.values()):
        last = each.exits[-1].wer
        if not last:
            continue
        values = [100 * (one.wer / last - 1) for one in each.exits]
        _exits_line(panel, each, place, values)
        colour, _ = _look(place)
        # side by side, so that none hides another
        shift = 0.05 * (place - (count - 1) / 2)
        for one in each.exits[:-1]:
            ends = [100 * one.above_last.low, 100 * one.above_last.high]
            low, high = (end / last for end in ends)
            where = [one.layer + shift] * 2
            panel.plot(where, [low, high], color=colour, lw=1.4)
            if one.wer <= _CLOSE * last:
                highest, lowest = max(highest, high), min(lowest, low)
    lowest = max(min(lowest, -2.0), -_FURTHEST)
    highest = min(max(highest, 5.0), _FURTHEST)
    room = 0.06 * (highest - lowest)
    panel.set_ylim(lowest - room, highest + room)


def _shares(panel: Axes, study: OverthinkingStudy) -> None:
    panel.set_title("utterances by earliest best exit (%)", loc="left")
    count = len(study.sets)
    for place, each in enumerate(study.sets.values()):
        layers = [one.layer for one in each.exits]
        steps = [b - a for a, b in zip(layers, layers[1:])]
        width = _BARS * min(steps, default=1) / count
        shift = (place - (count - 1) / 2) * width
        colour, _ = _look(place)
        panel.bar(
            [layer + shift for layer in layers],
            [100 * one.best_share for one in each.exits],
            width,
            color=colour,
        )
