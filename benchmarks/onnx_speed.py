"""ONNX graphs against PyTorch: parity, decisions, word errors, speed.

    python benchmarks/onnx_speed.py results/digits/joint results/english5h/joint

One thread. Parity and decisions are those of the loop on onnxruntime against
the live runner on PyTorch, with the same policy, in batches of the test set.
``--time`` adds wall times at batch 1, the backends in turn, medians; nothing
else should be running then.

Axes: V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import csv
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import environment
import numpy as np
import onnxruntime
import soundfile
import torch
from tqdm import tqdm

from speechbrain_ee.exits.criteria import measure_all
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.policy import FixedExit, ThresholdPolicy
from speechbrain_ee.exits.scoring import edit_counts
from speechbrain_ee.inference.folder.training_run import run_folder
from speechbrain_ee.inference.onnx.export import export_onnx
from speechbrain_ee.inference.onnx.host import OnnxRecogniser
from speechbrain_ee.inference.policies import Policies
from speechbrain_ee.inference.runner import LiveRunner

logger = logging.getLogger(__name__)

BATCH = 8
LIKELY = np.log(1e-10)
SPEED_UP, POINTS, PARITY = 1.8, 0.3, 1e-4

Waves = list[np.ndarray]
Backend = Callable[[Waves, Any], list[Any]]


def measure(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All that is measured of one run."""
    folder = run_folder(run)
    waves, refs = test_set(run, options.utterances)
    runner = LiveRunner(
        folder.model,
        [folder.tokenizer.id_to_piece(i) for i in range(len(folder.tokenizer))],
        folder.tokenizer.decode_ids,
        folder.sample_rate,
    )
    policies = Policies(folder.exit_layers)
    with tempfile.TemporaryDirectory() as graphs:
        began = time.perf_counter()
        export_onnx(folder, graphs)
        export_s = time.perf_counter() - began
        backends: dict[str, Backend] = {
            "torch": lambda batch, policy: runner.run(
                *padded(batch), policies.resolve(policy)
            )
        }
        for precision in ("fp32", "int8"):
            host = OnnxRecogniser(graphs, precision)
            backends[f"onnx-{precision}"] = host.transcribe
        sizes = {
            precision: sum(
                path.stat().st_size
                for path in Path(graphs).glob("*.onnx")
                if path.name.startswith("start")
                or (".int8." in path.name) == (precision == "int8")
            )
            for precision in ("fp32", "int8")
        }
        result = {
            "export_s": round(export_s, 1),
            "bytes": sizes,
            "parity": parity(folder.model, Path(graphs), waves),
            "policies": compare(folder.model, backends, waves, refs),
        }
        if options.time:
            result["time"] = timed(
                folder.model, backends, waves, options.repeats
            )
            result["load_1min"] = environment.describe()["load_1min"]
    return result


def compare(
    model: Any, backends: dict[str, Backend], waves: Waves, refs: Sequence[str]
) -> dict[str, Any]:
    """Word errors, and decisions that differ from PyTorch's, by policy."""
    words = sum(len(ref.split()) for ref in refs)
    found: dict[str, Any] = {}
    for name, policy in rules(model, waves).items():
        heard = {
            backend: batches(run, waves, policy, f"{name}, {backend}")
            for backend, run in backends.items()
        }
        rows = {}
        for backend, hypotheses in heard.items():
            pairs = list(zip(hypotheses, heard["torch"]))
            errors = sum(
                int(edit_counts([ref], [one.text]).sum())
                for ref, one in zip(refs, hypotheses)
            )
            rows[backend] = {
                "wer": round(100 * errors / words, 3),
                "avg_layer": round(
                    sum(one.layer for one in hypotheses) / len(hypotheses), 3
                ),
                "other_exit": sum(a.exit != b.exit for a, b in pairs),
                "other_text": sum(a.text != b.text for a, b in pairs),
            }
        found[name] = {"utterances": len(refs), "backends": rows}
    return found


def rules(model: Any, waves: Waves) -> dict[str, Any]:
    """The last exit; and thresholds that about half of the exits pass."""
    wavs, lens = padded(waves[:: max(len(waves) // 32, 1)])
    with torch.inference_mode():
        outputs = model(wavs, lens)
    middle = ExitView(outputs[len(outputs) // 2 - 1])
    values = measure_all(middle, ["entropy", "max_prob"])
    last = len(model.exit_layers)

    def limit(scores: torch.Tensor) -> float:
        """Between two scores: on one, rounding would decide."""
        ordered = scores.double().sort().values
        place = len(ordered) // 2
        return float(ordered[place - 1 : place + 1].mean())

    return {
        "last": FixedExit(last),
        "entropy": ThresholdPolicy("entropy", limit(-values["entropy"]), last),
        "max_prob": ThresholdPolicy(
            "max_prob", limit(values["max_prob"]), last
        ),
        "patience": ThresholdPolicy("patience_transcript", 0.0, last),
    }


def parity(model: Any, graphs: Path, waves: Waves) -> dict[str, float]:
    """Largest differences of log-probabilities and of probabilities."""
    worst, alone, likely, certain = 0.0, 0.0, 0.0, 0.0
    host = OnnxRecogniser(graphs)
    for rows in ([0], [1, 2, 3], list(range(4, 12))):
        batch = [waves[row % len(waves)] for row in rows]
        wavs, lens = padded(batch)
        with torch.inference_mode():
            wanted = model(wavs, lens)
        got = all_exits(host, batch)
        for output, (log_probs, lengths) in zip(wanted, got):
            for row, frames in enumerate(lengths):
                one = output.log_probs_BTV[row, :frames].numpy()
                same = log_probs[row, :frames]
                worst = max(worst, np.abs(one - same).max())
                certain = max(certain, np.abs(np.exp(one) - np.exp(same)).max())
                some = one > LIKELY
                likely = max(likely, np.abs(one - same)[some].max())
        single = all_exits(host, batch[:1])
        for (together, lengths), (log_probs, _) in zip(got, single):
            gap = together[0, : lengths[0]] - log_probs[0, : lengths[0]]
            alone = max(alone, np.abs(gap).max())
    return {
        "log_probs": float(worst),
        "log_probs_above_1e-10": float(likely),
        "probs": float(certain),
        "log_probs_alone_to_batch": float(alone),
    }


def all_exits(host: OnnxRecogniser, batch: Waves) -> list[tuple[Any, Any]]:
    """Log-probabilities and frames of every exit."""
    longest = max(map(len, batch))
    wavs = np.stack([np.pad(w, (0, longest - len(w))) for w in batch])
    samples = np.array([len(wave) for wave in batch])
    hidden, lengths, *positions = host.start.run(
        None, {"wavs": wavs, "samples": samples}
    )
    found = []
    for segment in host.segments:
        inputs = {"hidden": hidden, "lengths": lengths}
        inputs |= dict(zip(["positions"], positions))
        hidden, log_probs, *_ = segment.run(None, inputs)
        found.append((log_probs, lengths))
    return found


def timed(
    model: Any, backends: dict[str, Backend], waves: Waves, repeats: int
) -> dict[str, Any]:
    """Seconds for some utterances one by one; the backends take turns."""
    some = waves[:: max(len(waves) // 40, 1)]
    seconds = sum(map(len, some)) / 16000
    found = {}
    for name, policy in list(rules(model, waves).items())[:2]:

        def clocked(run: Backend, policy: Any = policy) -> float:
            began = time.perf_counter()
            for wave in some:
                run([wave], policy)
            return time.perf_counter() - began

        tasks = {key: partial(clocked, run) for key, run in backends.items()}
        environment.in_turn(tasks, 1)  # warms up
        taken = environment.in_turn(tasks, repeats)
        medians = {key: statistics.median(row) for key, row in taken.items()}
        found[name] = {
            "audio_s": round(seconds, 1),
            "median_s": {k: round(v, 4) for k, v in medians.items()},
            "spread_s": {
                k: round(max(v) - min(v), 4) for k, v in taken.items()
            },
            "speed_up": {
                k: round(medians["torch"] / v, 3) for k, v in medians.items()
            },
        }
    return found


def batches(run: Backend, waves: Waves, policy: Any, title: str) -> list[Any]:
    """Hypotheses in the order of the set, batches of like length."""
    order = np.argsort([len(wave) for wave in waves], kind="stable")
    found: list[Any] = [None] * len(waves)
    for first in tqdm(range(0, len(order), BATCH), desc=title, leave=False):
        rows = order[first : first + BATCH]
        for row, one in zip(rows, run([waves[r] for r in rows], policy)):
            found[row] = one
    return found


def padded(waves: Waves) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch and its relative lengths."""
    longest = max(map(len, waves))
    rows = [np.pad(wave, (0, longest - len(wave))) for wave in waves]
    lengths = torch.tensor([len(wave) / longest for wave in waves])
    return torch.from_numpy(np.stack(rows)), lengths


def test_set(run: Path, limit: int | None) -> tuple[Waves, list[str]]:
    """Audio and transcripts of the run's test set, evenly thinned."""
    with open(run / "test.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if limit is not None:
        rows = rows[:: max(len(rows) // limit, 1)]
    waves = [soundfile.read(row["wav"], dtype="float32")[0] for row in rows]
    return waves, [row["wrd"] for row in rows]


def main() -> None:
    """Measure the runs given and store the result."""
    parser = environment.parser_of(__doc__)
    parser.add_argument("runs", nargs="+", help="output folders of training")
    parser.add_argument("--time", action="store_true", help="wall times, too")
    environment.add_numbers(parser, repeats=5)
    parser.add_argument("--utterances", type=int, help="of the test set")
    options = parser.parse_args()
    torch.set_num_threads(1)
    before = {}
    out = options.results / "onnx.json"
    if out.exists():
        before = json.loads(out.read_text(encoding="utf-8"))
    systems = dict(before.get("systems", {}))
    for run in map(Path, options.runs):
        name = run.parent.name
        measured = measure(run, options)
        # Times outlive a later run that takes none.
        systems[name] = {**systems.get(name, {}), **measured}
        environment.store(
            out,
            {
                "bars": {
                    "int8_speed_up": SPEED_UP,
                    "int8_wer_points": POINTS,
                    "fp32_parity": PARITY,
                },
                "machine": {
                    **environment.describe(),
                    "onnxruntime": onnxruntime.__version__,
                },
                "systems": systems,
            },
        )


if __name__ == "__main__":
    main()
