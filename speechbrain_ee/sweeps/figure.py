"""The figure of a search: all points, and the front or the best so far.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter

from speechbrain_ee.evaluation.theme import COLOURS, GRID, INK, PALE
from speechbrain_ee.files import whole_file

if TYPE_CHECKING:
    from speechbrain_ee.sweeps.results import Row

_NAMES = {
    "wer": "WER (%)",
    "macs": "MACs per utterance",
    "layers": "layers per utterance",
}


def draw_results(
    path: Path,
    rows: Sequence["Row"],
    front: Sequence["Row"],
    labels: Sequence[str],
) -> None:
    """Draw the complete points.

    Arguments
    ---------
    path : Path
        PNG to write.
    rows : sequence of Row
        All points.
    front : sequence of Row
        Those that no other one beats.
    labels : sequence of str
        Names of the objectives, one or two.
    """
    complete = [row for row in rows if row.state == "complete"]
    figure, axes = plt.subplots(figsize=(6.4, 4.2), dpi=150)
    try:
        if len(labels) == 1:
            _history(axes, complete)
        else:
            _front(axes, complete, front)
        for axis, label in zip((axes.yaxis, axes.xaxis), labels, strict=False):
            if label.startswith("macs"):
                axis.set_major_formatter(EngFormatter(sep=" "))
        axes.set_xlabel(_name(labels[1]) if len(labels) > 1 else "point")
        axes.set_ylabel(_name(labels[0]))
        axes.grid(color=GRID, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        axes.margins(0.08)
        figure.tight_layout()
        with whole_file(path) as stream:
            figure.savefig(stream, format="png")
    finally:
        plt.close(figure)


def _front(
    axes: Any, complete: Sequence["Row"], front: Sequence["Row"]
) -> None:
    _dots(axes, [(row.values[1], row.values[0]) for row in complete])
    best = sorted((row.values[1], row.values[0]) for row in front)
    across, up = zip(*best, strict=True)
    # what is bought with a little more: nothing, until the next point
    axes.step(across, up, where="post", color=COLOURS[0], linewidth=1.2)
    axes.plot(across, up, "o", color=COLOURS[0], label="Pareto front")
    for row in front:
        axes.annotate(
            str(row.point),
            (row.values[1], row.values[0]),
            xytext=(5, 5),
            textcoords="offset points",
            color=INK,
            fontsize=8,
        )


def _history(axes: Any, complete: Sequence["Row"]) -> None:
    values = [row.values[0] for row in complete]
    points = [row.point for row in complete]
    _dots(axes, list(zip(points, values, strict=True)))
    axes.step(
        points,
        np.minimum.accumulate(values),
        where="post",
        color=COLOURS[0],
        label="best so far",
    )


def _dots(axes: Any, places: Sequence[tuple[float, float]]) -> None:
    across, up = zip(*places, strict=True)
    axes.plot(across, up, "o", color=PALE, markersize=4, label="points")


def _name(label: str) -> str:
    metric, name, *at = label.split(" ")
    return f"{_NAMES[metric]}, {name} at {' '.join(at)}"
