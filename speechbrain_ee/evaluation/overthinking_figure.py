"""The figure of overthinking: every exit of every set against the last.

Authors
 * The speechbrain-ee contributors 2026
"""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from speechbrain_ee.evaluation.figures import PANEL_INCHES, SETTINGS
from speechbrain_ee.evaluation.overthinking import (
    OverthinkingStudy,
    SetOverthinking,
)
from speechbrain_ee.evaluation.theme import COLOURS, DASHES, GRID, INK, PALE

# Exits further above the last one are left to the first panel,
_CLOSE = 1.15  # times the last exit's word error rate
# and so are the ends of longer intervals, in percent.
_FURTHEST = 50.0
_BARS = 0.8  # of the room between two exits


def draw_overthinking(study: OverthinkingStudy) -> Figure:
    """Draw a study.

    Arguments
    ---------
    study : OverthinkingStudy
        The study.

    Returns
    -------
    Figure
        Word error rate by exit; the same close to the last exit, relative to
        it; and the share of utterances by their earliest best exit.
    """
    width, height = PANEL_INCHES
    with mpl.rc_context(SETTINGS):
        figure = Figure((3 * width - 2.1, height + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        rates, close, shares = figure.subplots(1, 3)
        _rates(rates, study)
        _close(close, study)
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


def _line(
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
    low = min(one.wer for e in study.sets.values() for one in e.exits)
    high = max(one.wer for e in study.sets.values() for one in e.exits)
    for place, each in enumerate(study.sets.values()):
        domain = " (in domain)" if each.key == study.in_domain else ""
        values = [one.wer for one in each.exits]
        _line(panel, each, place, values, f"{each.key}{domain}")
    if low <= 0:  # has no logarithm
        panel.set_ylim(bottom=0)
        return
    panel.set_yscale("log")
    wide = high > 5 * low
    panel.yaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6)
    )
    panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    panel.yaxis.minorticks_off()


def _close(panel: Axes, study: OverthinkingStudy) -> None:
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
        _line(panel, each, place, values)
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
