"""The figures of these pages, from a finished run of the demo.

    make demo
    python docs/figures.py results/demo

``walk.png`` runs the model; ``stop.png`` and ``budget.png`` read traces alone.

Axes: N utterances, B utterances of a batch, E exits, L layers.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import csv
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from speechbrain_ee.data.audio import AudioReader
from speechbrain_ee.evaluation.calibrate import calibrate_trace
from speechbrain_ee.evaluation.curves import measure, sweep
from speechbrain_ee.evaluation.figures import SETTINGS, new_figure
from speechbrain_ee.evaluation.theme import GRID, INK, ORACLE, PALE, look
from speechbrain_ee.exits import Trace, read_trace
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.policy import ThresholdPolicy
from speechbrain_ee.inference.asr import EarlyExitASR

FOLDER = Path(__file__).resolve().parent
BATCH = 12
POLICY = "learned:layers=3"
CRITERION = "learned"
BUDGETS = ("wer=+25%", "wer=+100%")
LEAST = -0.8  # lower scores are drawn here
WRONG = "#d55e00"
DPI = 110
LAYOUT = {"layout": "constrained"}


def computed_shapes(
    asr: EarlyExitASR, files: list[str]
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """What every layer is run on for a batch.

    Arguments
    ---------
    asr : EarlyExitASR
        A recogniser with its policy.
    files : list of B str
        Recordings.

    Returns
    -------
    shapes : list of L pairs of int
        Rows and frames of the hidden states that each layer was given.
    layers : list of B int
        Layer at which each utterance left.
    frames : list of B int
        Frames of each utterance.
    """
    shapes, layers = [], asr.folder.model.encoder.layers
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, inputs: shapes.append(tuple(inputs[0].shape[:2]))
        )
        for layer in layers
    ]
    heard = asr.transcribe(files, batch_s=1e6)
    for hook in hooks:
        hook.remove()
    start = []
    for file in files:
        state = asr.folder.model.start(*_alone(asr, file))
        start.append(int(state.lengths_B[0]))
    return shapes, [one.layer for one in heard], start


def draw_walk(run: Path) -> Figure:
    """A batch on its way up: rows that leave, frames that are trimmed."""
    asr = EarlyExitASR.from_hparams(run / "model", policy=POLICY)
    with (run / "test-clean.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["ID"])
    step = len(rows) // BATCH
    files = [row["wav"] for row in rows[::step][:BATCH]]
    shapes, left_B, frames_B = computed_shapes(asr, files)
    order = sorted(range(len(files)), key=lambda b: (-left_B[b], -frames_B[b]))
    depth = len(asr.folder.model.encoder.layers)
    figure, (panels,) = new_figure((8.6, 2.7), 1, depth, **LAYOUT)
    # nobody is in the layers that were not run
    shapes += [(0, 0)] * (depth - len(shapes))
    for layer, (panel, shape) in enumerate(zip(panels, shapes), start=1):
        still_in = [b for b in order if left_B[b] >= layer]
        # the drawing shows what ran, not what should have
        longest = max((frames_B[b] for b in still_in), default=0)
        assert shape == (len(still_in), longest)
        panel.barh([0.5 * shape[0]], [shape[1]], shape[0], color=GRID)
        for place, b in enumerate(still_in):
            colour = ORACLE if left_B[b] == layer else INK
            panel.barh(place + 0.5, frames_B[b], 0.7, color=colour)
        panel.set(xlim=(0, max(frames_B)), ylim=(BATCH, 0), yticks=[])
        panel.set_xticks([0, max(frames_B)])
        panel.set_title(f"layer {layer}", loc="left", fontsize=10)
        panel.spines["left"].set_visible(False)
    panels[0].set_ylabel("utterances of the batch")
    panels[0].set_xlabel("frames")
    full = depth * len(files) * max(frames_B)
    share = sum(rows * frames for rows, frames in shapes) / full
    figure.suptitle(
        f"What the layers are run on: {share:.0%} of the whole batch in all "
        f"layers (policy {POLICY})",
        fontsize=11,
        fontweight="bold",
    )
    handles = [
        Line2D([], [], color=colour, linewidth=5, label=text)
        for colour, text in (
            (INK, "goes on"),
            (ORACLE, "leaves at this exit"),
            (GRID, "padding"),
        )
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=3)
    return figure


def draw_stop(trace: Trace, threshold: float, count: int = 14) -> Figure:
    """Scores of some utterances from exit to exit, and where they stop."""
    scores_NE = get_criterion(CRITERION).scores(trace.evidence)
    stop_N = ThresholdPolicy(CRITERION, threshold).choose(scores_NE)
    # as many of every depth as there are, spread over it
    order = np.argsort(stop_N, kind="stable")
    some = order[np.linspace(0, len(order) - 1, count).astype(int)]
    figure, ((panel,),) = new_figure((6.2, 3.4), **LAYOUT)
    exits_E = np.arange(1, scores_NE.shape[1] + 1)
    for n in some:
        stop = stop_N[n]
        shown = np.clip(scores_NE[n], LEAST, None)
        panel.plot(exits_E[: stop + 1], shown[: stop + 1], color=PALE, lw=1)
        errors = trace.errors_NE[n, stop]
        panel.plot(
            exits_E[stop],
            shown[stop],
            "o" if not errors else "X",
            color=ORACLE if not errors else WRONG,
            ms=7,
            zorder=3,
        )
    panel.axhline(threshold, color=INK, lw=1, ls=(0, (4, 3)))
    panel.text(exits_E[-1], threshold - 0.02, "threshold", va="top", ha="right")
    panel.set(xlabel="exit", ylabel=f"score ({CRITERION})", xticks=exits_E)
    panel.set_yticks([LEAST, -0.6, -0.4, -0.2, 0.0])
    panel.set_yticklabels([f"{LEAST} or less", "-0.6", "-0.4", "-0.2", "0"])
    handles = [
        Line2D([], [], ls="", marker="o", color=ORACLE, label="no word error"),
        Line2D([], [], ls="", marker="X", color=WRONG, label="word errors"),
    ]
    panel.legend(handles=handles, loc="lower right", title="text taken")
    return figure


def draw_budget(dev: Trace, test: Trace) -> Figure:
    """What a budget asks for, and what two ways of calibrating choose."""
    inches, columns = (8.6, 3.4), len(BUDGETS)
    figure, (panels,) = new_figure(inches, 1, columns, **LAYOUT)
    for panel in panels[1:]:
        panel.sharey(panels[0])
        panel.tick_params(labelleft=False)
    criterion = get_criterion(CRITERION)
    for panel, budget in zip(panels, BUDGETS):
        for trace, colour, name in ((dev, PALE, "dev"), (test, INK, "test")):
            curve = sweep(trace, CRITERION, criterion.scores(trace.evidence))
            points = sorted((p.avg_layer, p.wer) for p in curve.points)
            panel.plot(*zip(*points), color=colour, lw=1.4, label=name)
        last = measure(test, np.full(len(test), len(test.layers_E) - 1)).wer
        most = last * (1 + float(budget[5:-1]) / 100)
        panel.axhline(most, color=WRONG, lw=1, ls=(0, (4, 3)))
        panel.text(1.1, most, "budget on test", va="bottom", color=WRONG)
        for method, marker in (("naive", "v"), ("ltt", "s")):
            policy = calibrate_trace(dev, CRITERION, budget, method)
            rule = ThresholdPolicy(CRITERION, policy.threshold)
            scores_NE = criterion.scores(test.evidence)
            point = measure(test, rule.choose(scores_NE))
            panel.plot(
                point.avg_layer,
                point.wer,
                marker,
                ms=9,
                ls="",
                color=look(CRITERION)[0],
                label=f"{method}, on test",
            )
        panel.set_title(budget, loc="left", fontsize=10)
        panel.set(xlabel="average layers", xlim=(1, 6), ylim=(0, 12))
    panels[0].set_ylabel("word error rate (%)")
    panels[-1].legend()
    return figure


def _alone(asr: EarlyExitASR, file: str) -> tuple[Tensor, Tensor]:
    wave = AudioReader(asr.sample_rate)(file)
    return wave.unsqueeze(0), torch.ones(1)


def main() -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="output folder of the demo")
    parser.add_argument("--out", type=Path, default=FOLDER)
    given = parser.parse_args()
    traces = given.run / "traces"
    dev = read_trace(traces / "dev-clean.jsonl.gz")
    test = read_trace(traces / "test-clean.jsonl.gz")
    threshold = calibrate_trace(dev, CRITERION, "layers=3", "naive").threshold
    with mpl.rc_context(SETTINGS):
        for name, figure in (
            ("walk", draw_walk(given.run)),
            ("stop", draw_stop(test, threshold)),
            ("budget", draw_budget(dev, test)),
        ):
            figure.savefig(given.out / f"{name}.png", dpi=DPI)


if __name__ == "__main__":
    main()
