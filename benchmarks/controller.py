#!/usr/bin/env python3
"""Does the latency controller hold its deadline on a machine under load?

Utterances of a test set run on a simulated machine, one batch after the
other, under the controller and without it (:mod:`controller_simulation`).
The load changes by steps, a ramp and bursts. The deadline counts as held
where the last seconds of audio took at most what it allows. Without a
development trace every other utterance of the test set is taken for one.

> python benchmarks/controller.py --test test.jsonl.gz

Axes: B batches, N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from controller_simulation import (
    JUMPS,
    SCENARIOS,
    SECONDS,
    WINDOW_S,
    Machine,
    Run,
    simulate,
)
from environment import store
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from speechbrain_ee.evaluation.figures import SETTINGS
from speechbrain_ee.evaluation.theme import INK, ORACLE, PALE
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.inference.controller import (
    LatencyController,
    threshold_ladder,
)

RESULTS = Path(__file__).resolve().parent / "results"
DEADLINE_RTF = 0.03


def settled_B(
    run: Run, jumps: Sequence[tuple[float, float]], settle: Callable
) -> NDArray[np.bool_]:
    """Batches whose window lies outside the time to settle after a jump."""
    start_B = run.time_B + run.audio_B - WINDOW_S
    calm_B = start_B >= 0
    for second, factor in jumps:
        # a batch that was under way at the jump ends before anyone knows
        end = second + settle(factor) + 2 * float(run.audio_B.max())
        touched_B = (run.time_B + run.audio_B > second) & (start_B < end)
        if factor > 1:
            calm_B &= ~touched_B
    return calm_B


def summary(run: Run, calm_B: NDArray[np.bool_], top: int) -> dict[str, float]:
    """What a reader wants to know of a run."""
    late_B = run.rtf_B() > DEADLINE_RTF
    return {
        "held_share_settled": 1 - float(late_B[calm_B].mean()),
        "held_share_all": 1 - float(late_B.mean()),
        "rtf_mean": float(run.wall_B.sum() / run.audio_B.sum()),
        "rtf_worst_window": float(run.rtf_B().max()),
        "average_layer": float(run.layer_B.mean()),
        "wer": 100 * run.errors / run.words,
        "share_of_policies_changed": float((np.diff(run.rung_B) != 0).mean()),
        "share_at_full_quality": float((run.rung_B == top).mean()),
    }


def means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over the seeds, and the worst seed's share."""
    found = {
        name: round(float(np.mean([row[name] for row in rows])), 5)
        for name in rows[0]
    }
    worst = min(row["held_share_settled"] for row in rows)
    return {**found, "held_share_settled_worst_seed": round(worst, 5)}


def recovery_s(run: Run, jumps: Sequence[tuple[float, float]], top: int) -> Any:
    """Seconds of audio from a fall of the load to full quality; the longest.

    None where the load never falls at once, or rises again before.
    """
    found = []
    for second, factor in jumps:
        back = (run.time_B >= second) & (run.rung_B == top)
        if factor < 1 and back.any():
            found.append(float(run.time_B[back.argmax()] - second))
    return round(max(found), 1) if found else None


def draw(runs: dict[str, tuple[Run, Run]], full_layer: float) -> Figure:
    """Load, real-time factor and layer over time, with and without."""
    names = [name for name in runs if name != "constant"]
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(11, 6.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(
            3, len(names), sharex=True, sharey="row", squeeze=False
        )
        for column, name in zip(axes.T, names):
            _column(column, name, *runs[name])
            column[2].axhline(full_layer, color=PALE, ls=":", lw=1)
        for row, title in zip(
            axes[:, 0],
            ("load", f"real-time factor, {WINDOW_S:.0f} s", "average layer"),
        ):
            row.set_ylabel(title)
            row.set_ylim(bottom=0)
        handles, labels = axes[1, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _column(column: Any, name: str, controlled: Run, free: Run) -> None:
    load_ax, rtf_ax, layer_ax = column
    load_ax.set_title(name.capitalize())
    grid = np.arange(0.0, SECONDS)
    load_ax.plot(grid, [SCENARIOS[name](t) for t in grid], color=INK)
    load_ax.set_ylim(0, 4.4)
    looks = ((free, "without control", "#e69f00"), (controlled, "", "#0072b2"))
    for run, label, colour in looks:
        end_B = run.time_B + run.audio_B
        label = label or "with control"
        rtf_ax.plot(end_B, run.rtf_B(), color=colour, label=label, lw=1.3)
        # batches differ: the average of the last four, about a window
        past_B = np.pad(run.layer_B, (3, 0), "edge")
        layer_B = np.convolve(past_B, np.ones(4) / 4, "valid")
        layer_ax.plot(end_B, layer_B, color=colour, lw=1.3)
    rtf_ax.axhline(DEADLINE_RTF, color=ORACLE, ls="--", label="deadline")
    layer_ax.set_xlabel("seconds of audio")


def main() -> None:
    """Simulate, store, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dev", type=Path, help="trace")
    parser.add_argument("--test", type=Path, required=True, help="trace")
    parser.add_argument("--criterion", default="entropy")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    test = read_trace(arguments.test)
    if arguments.dev is None:
        dev = test.select(range(0, len(test), 2))
        test = test.select(range(1, len(test), 2))
    else:
        dev = read_trace(arguments.dev)
    ladder = threshold_ladder(dev, arguments.criterion)
    runs, rows = {}, {}
    for name, load in SCENARIOS.items():
        settle = LatencyController(DEADLINE_RTF, ladder).settling_s
        pairs, back_s = [], []
        for seed in range(arguments.seeds):
            machine = Machine(seed=seed)
            controller = LatencyController(DEADLINE_RTF, ladder)
            held = simulate(controller, load, test, ladder[-1], machine)
            free = simulate(None, load, test, ladder[-1], machine)
            calm_B = settled_B(held, JUMPS[name], settle)
            back_s.append(recovery_s(held, JUMPS[name], len(ladder) - 1))
            pairs.append(
                (
                    summary(held, calm_B, len(ladder) - 1),
                    summary(free, calm_B, -1),
                )
            )
            runs.setdefault(name, (held, free))
        rows[name] = {
            "settling_s_after_the_largest_jump": round(
                max([settle(f) for _, f in JUMPS[name]] or [0]), 2
            ),
            "seconds_to_full_quality_after_the_load_fell": back_s,
            "controlled": means([pair[0] for pair in pairs]),
            "without_control": means([pair[1] for pair in pairs]),
        }
        print(name, rows[name], sep="\n")
    result = {
        "model": test.header.name,
        "criterion": arguments.criterion,
        "deadline_rtf": DEADLINE_RTF,
        "window_s": WINDOW_S,
        "machine": {**vars(Machine()), "seed": f"0 to {arguments.seeds - 1}"},
        "controller": {
            name: getattr(controller, name)
            for name in ("margin", "time_constant_s", "hysteresis")
        },
        "ladder": [
            {
                "threshold": rung.policy.threshold,
                "relative_macs": round(
                    rung.macs_per_s / ladder[-1].macs_per_s, 4
                ),
                "dev_wer": round(rung.wer, 3),
            }
            for rung in ladder
        ],
        "loads": rows,
        "over_time": {name: series(*pair) for name, pair in runs.items()},
    }
    store(arguments.results / "controller.json", result)
    figure = draw(runs, float(test.layers_E[-1]))
    figure.savefig(arguments.results / "controller.png", dpi=130)


def series(controlled: Run, free: Run) -> dict[str, list[float]]:
    """Every batch of a run, for other figures."""
    return {
        "second": (controlled.time_B + controlled.audio_B).round(1).tolist(),
        "rtf": controlled.rtf_B().round(4).tolist(),
        "average_layer": controlled.layer_B.round(2).tolist(),
        "rtf_without_control": free.rtf_B().round(4).tolist(),
        "average_layer_without_control": free.layer_B.round(2).tolist(),
    }


if __name__ == "__main__":
    main()
