#!/usr/bin/env python3
"""Does the latency controller hold its deadline on a machine under load?

Utterances of a test set run on a simulated machine, one batch after the
other, under the controller and without it. The load changes by steps, a ramp
and bursts. Exits and multiply-accumulates of every utterance come from its
exit trace. Of the time of a batch a part does not depend on what is computed,
which a controller that thinks in multiply-accumulates does not expect, and all
of it is noisy. The deadline counts as held where the last seconds of audio
took at most what it allows. Without a
development trace every other utterance of the test set is taken for one.

> python benchmarks/controller.py --test test.jsonl.gz

Axes: B batches, N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from environment import parser_of, store
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from speechbrain_ee.evaluation.figures import SETTINGS
from speechbrain_ee.evaluation.theme import INK, ORACLE, PALE
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.policy import FixedExit, at_choice
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.inference.controller import (
    LatencyController,
    Rung,
    threshold_ladder,
)

SECONDS = 1800
WINDOW_S = 60.0
IDLE_RTF = 0.02  # of full quality on the idle machine
DEADLINE_RTF = 0.03

Load = Callable[[float], float]


def steps(second: float) -> float:
    """Three times, then twice the work, each from one batch to the next."""
    return 3.0 if 400 <= second < 800 else 2.0 if 1100 <= second < 1400 else 1.0


def ramp(second: float) -> float:
    """Slowly to four times and slowly back."""
    return float(np.interp(second, [200, 800, 1000, 1600], [1, 4, 4, 1]))


def bursts(second: float) -> float:
    """Two and a half times the work for 120 seconds of every 450."""
    return 2.5 if 150 <= second % 450 < 270 else 1.0


def constant(second: float) -> float:
    """Twice the work all along."""
    return 2.0


SCENARIOS = {f.__name__: f for f in (steps, ramp, bursts, constant)}
# Seconds at which a load jumps, and by what factor.
JUMPS = {
    "steps": ((400, 3.0), (800, 1 / 3), (1100, 2.0), (1400, 0.5)),
    "ramp": (),
    "bursts": tuple(
        (start + 450 * n, factor)
        for n in range(SECONDS // 450)
        for start, factor in ((150, 2.5), (270, 0.4))
    ),
    "constant": ((0, 2.0),),
}


@dataclass(frozen=True)
class Machine:
    """A machine in the simulation."""

    rtf: float = IDLE_RTF
    fixed_share: float = 0.05
    noise: float = 0.05
    seed: int = 0
    batch: int = 4


IDLE = Machine()


@dataclass(frozen=True)
class Run:
    """What happened, batch by batch; times are of audio that came before."""

    time_B: NDArray[np.float64]
    audio_B: NDArray[np.float64]
    wall_B: NDArray[np.float64]
    layer_B: NDArray[np.float64]
    rung_B: NDArray[np.int64]
    errors: int
    words: int

    def rtf_B(self, window_s: float = WINDOW_S) -> NDArray[np.float64]:
        """Real-time factor of the last seconds of audio at every batch."""
        end_B = self.time_B + self.audio_B
        first_B = np.searchsorted(end_B, end_B - window_s, side="right")
        first_B = np.minimum(first_B, np.arange(len(end_B)))
        audio = np.concatenate([[0.0], self.audio_B.cumsum()])
        wall = np.concatenate([[0.0], self.wall_B.cumsum()])
        return (wall[1:] - wall[first_B]) / (audio[1:] - audio[first_B])


def simulate(
    controller: LatencyController | None,
    load: Load,
    trace: Trace,
    top: Rung,
    machine: Machine = IDLE,
    seconds: float = SECONDS,
) -> Run:
    """Run utterances of a trace in random order."""
    rng = np.random.default_rng(machine.seed)
    audio_N = np.array([record.duration_s for record in trace.records])
    macs_NE, errors_NE = trace.macs_NE, trace.errors_NE
    scores_NE = None
    if not isinstance(top.policy, FixedExit):
        scores_NE = get_criterion(top.policy.criterion).scores(trace.evidence)
    rows, time_s, errors, words = [], 0.0, 0, 0
    while time_s < seconds:
        chosen = rng.integers(0, len(trace), machine.batch)
        rung = top if controller is None else controller.rung
        scores = macs_NE if scores_NE is None else scores_NE
        exit_N = rung.policy.choose(scores[chosen])
        audio_s = float(audio_N[chosen].sum())
        macs = float(at_choice(macs_NE[chosen], exit_N).sum())
        share = macs / audio_s / top.macs_per_s
        fixed = machine.fixed_share
        wall_s = machine.rtf * load(time_s) * audio_s
        wall_s *= fixed + (1 - fixed) * share
        wall_s *= float(np.exp(machine.noise * rng.standard_normal()))
        layer = float(trace.layers_E[exit_N].mean())
        place = -1 if controller is None else controller.ladder.index(rung)
        rows.append((time_s, audio_s, wall_s, layer, place))
        errors += int(at_choice(errors_NE[chosen], exit_N).sum())
        words += int(trace.words_N[chosen].sum())
        time_s += audio_s
        if controller is not None:
            controller.observe(audio_s, wall_s, macs)
    *columns, places = zip(*rows)
    arrays = [np.array(column) for column in columns]
    return Run(*arrays, np.array(places), errors, words)


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
    parser = parser_of(__doc__)
    parser.add_argument("--dev", type=Path, help="trace")
    parser.add_argument("--test", type=Path, required=True, help="trace")
    parser.add_argument("--criterion", default="entropy")
    parser.add_argument("--seeds", type=int, default=10)
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
