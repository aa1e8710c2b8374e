"""The command ``bench``: speed, memory and errors of policies on this machine.

Every policy is measured with every batch size, number of threads and backend,
all in one process. A configuration runs over all data once per repeat, and
all take turns, the order reversed with every repeat: what changes on the
machine meanwhile meets all of them alike.

==============  =========================================================
backend         what runs the model
==============  =========================================================
``torch``       PyTorch as it is
``compiled``    PyTorch, every segment compiled
``onnx``        onnxruntime, fp32
``onnx-int8``   onnxruntime, weights quantised to 8 bits
==============  =========================================================

Axes: R repeats, N utterances.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import json
import logging
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.tables import aligned
from speechbrain_ee.exits.decoding import GREEDY
from speechbrain_ee.exits.scoring import edit_counts, unit_counts
from speechbrain_ee.files import whole_file
from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.hypothesis import Hypothesis
from speechbrain_ee.inference.onnx.host import OnnxRecogniser
from speechbrain_ee.inference.onnx.manifest import load
from speechbrain_ee.inference.runner import LiveRunner, compile_segments
from speechbrain_ee.inference.spoken import (
    Batch,
    Spoken,
    batches_of,
    read_spoken,
)

logger = logging.getLogger(__name__)

SCHEMA = "bench/1"
LAST = "last"
BACKENDS = ("torch", "compiled", "onnx", "onnx-int8")
_MIB = 2**20
_PACKAGES = ("torch", "speechbrain", "numpy", "onnxruntime")
_RESET_PEAK = "5"  # see proc(5), /proc/[pid]/clear_refs
_SLACK_MIB = 8  # the kernel counts a process's pages in lots
# Heading, key and format of the columns of the table.
_COLUMNS = (
    ("backend", "backend", "{}"),
    ("threads", "threads", "{}"),
    ("batch", "batch_size", "{}"),
    ("policy", "policy", "{}"),
    ("WER %", "wer", "{:.2f}"),
    ("layer", "average_layer", "{:.2f}"),
    ("GMAC/s", "gmacs_per_audio_s", "{:.3f}"),
    ("RTF", "rtf", "{:.4f}"),
    ("spread", "spread", "{:.0f} %"),
    ("CPU s", "cpu_s", "{:.2f}"),
    ("time", "relative_time", "{:.3f}"),
    ("MACs", "relative_macs", "{:.3f}"),
    ("MiB", "peak_rss_mib", "{:.0f}"),
)
_LEGEND = (
    "GMAC/s: billions of multiply-accumulates per second of audio. RTF: "
    "seconds of the clock per second of audio, median of {repeats} repeats; "
    "spread: between its quartiles. CPU s: of all threads. time, MACs: "
    "against the last exit with the same settings."
)


Recogniser = LiveRunner | OnnxRecogniser


class Recognisers:
    """Recognisers of the model of a folder, each made when it is used."""

    def __init__(
        self,
        source: str | Path,
        backends: Sequence[str],
        onnx: str | Path | None = None,
        decoding: str | None = None,
    ):
        unknown = [name for name in backends if name not in BACKENDS]
        if unknown:
            raise InputError(
                f"--backend {unknown[0]}: unknown; "
                f"valid: {', '.join(BACKENDS)}."
            )
        self.source = Path(source)
        self.onnx = self.source / "onnx" if onnx is None else Path(onnx)
        self.decoding = decoding
        self.asr = EarlyExitASR.from_hparams(source, decoding=decoding)
        decoded = self.asr.runner.decoding.name
        for name in backends:
            if not name.startswith("onnx"):
                continue
            if decoded != GREEDY:
                raise InputError(
                    f"--backend {name}: graphs are decoded by {GREEDY}, and "
                    f"this would be measured against {decoded}; give "
                    f"--decoding {GREEDY}."
                )
            load("onnxruntime", f"--backend {name}")
        self._made: dict[tuple[str, int], Recogniser] = {}

    def get(self, backend: str, threads: int) -> Recogniser:
        """A recogniser. PyTorch's threads are set for the whole process
        by whoever measures; onnxruntime's belong to the recogniser.
        """
        key = (backend, threads if backend.startswith("onnx") else 0)
        if key not in self._made:
            self._made[key] = self._make(*key)
        return self._made[key]

    def _make(self, backend: str, threads: int) -> Recogniser:
        if backend == "torch":
            return self.asr.runner
        if backend == "compiled":
            # A model of its own: the other backends keep theirs as it is.
            asr = EarlyExitASR.from_hparams(self.source, decoding=self.decoding)
            compile_segments(asr.model)
            return asr.runner
        precision = "int8" if backend == "onnx-int8" else "fp32"
        return OnnxRecogniser(self.onnx, precision, threads)


@dataclass(frozen=True)
class Configuration:
    """One way of transcribing the data."""

    policy: str  # as it was asked for
    batch_size: int  # utterances at a time
    threads: int
    backend: str


@dataclass(frozen=True)
class Measured:
    """What a configuration took, and what it gave."""

    configuration: Configuration
    wall_s_R: tuple[float, ...]  # of every repeat over all data
    cpu_s_R: tuple[float, ...]  # of all threads together
    audio_s: float
    # Largest resident memory of the process while it ran, the models of
    # other backends included.
    peak_rss_mib: float
    # Whether that peak began with the configuration; else with the process.
    peak_is_own: bool
    hypotheses: tuple[Hypothesis, ...]  # those of the last repeat

    @property
    def wall_s(self) -> float:
        """Median over the repeats."""
        return median(self.wall_s_R)

    def row(
        self, spoken: Sequence[Spoken], error_unit: str = "word"
    ) -> dict[str, Any]:
        """Plain values, for a table or a file."""
        exits = [one.exit for one in self.hypotheses]
        macs = sum(one.macs for one in self.hypotheses)
        quartiles_s = np.quantile(self.wall_s_R, [0.25, 0.75]).tolist()
        return {
            **asdict(self.configuration),
            "wall_s": round(self.wall_s, 6),
            "wall_quartiles_s": [round(one, 6) for one in quartiles_s],
            "wall_s_by_repeat": [round(one, 6) for one in self.wall_s_R],
            "cpu_s": round(median(self.cpu_s_R), 6),
            "rtf": round(self.wall_s / self.audio_s, 6),
            "audio_s": round(self.audio_s, 3),
            "macs_per_utterance": round(macs / len(exits)),
            "macs_per_audio_s": round(macs / self.audio_s),
            "average_layer": round(
                float(np.mean([one.layer for one in self.hypotheses])), 4
            ),
            "utterances_by_exit": {
                str(exit): exits.count(exit) for exit in sorted({*exits})
            },
            "wer": word_error_rate(self.hypotheses, spoken, error_unit),
            "peak_rss_mib": self.peak_rss_mib,
            "peak_rss_since": "configuration" if self.peak_is_own else "start",
        }


def word_error_rate(
    hypotheses: Sequence[Hypothesis],
    spoken: Sequence[Spoken],
    error_unit: str = "word",
) -> float | None:
    """Word error rate in percent over the utterances with a reference; None
    without a word to compare with.
    """
    pairs = [
        (one.ref, found.text)
        for one, found in zip(spoken, hypotheses, strict=True)
        if one.ref is not None
    ]
    refs, hyps = [ref for ref, _ in pairs], [hyp for _, hyp in pairs]
    words = int(unit_counts(refs, error_unit).sum()) if refs else 0
    if not words:
        return None
    errors = edit_counts(refs, hyps, error_unit).sum()
    return round(100 * float(errors) / words, 4)


def transcribed(
    recogniser: Recogniser, batches: Sequence[Batch], policy: Any
) -> tuple[Hypothesis, ...]:
    """All data by one policy, in the order of the data, not of the batches."""
    found: dict[int, Hypothesis] = {}
    for batch in batches:
        heard = recogniser.run(batch.wavs_BS, batch.wav_lens_B, policy)
        found.update(zip(batch.rows, heard, strict=True))
    return tuple(found[row] for row in range(len(found)))


def measure_in_turn(
    tasks: dict[Configuration, Callable[[], tuple[Hypothesis, ...]]],
    warmup: int,
    repeats: int,
    audio_s: float,
    on_pass: Callable[[], Any] = lambda: None,
) -> tuple[Measured, ...]:
    """Measure what transcribes all data once, by configuration, in turn.

    ``warmup`` passes come before the first that counts; ``on_pass`` is called
    after every pass.
    """
    before = torch.get_num_threads()
    times: dict[Configuration, list[tuple[float, float]]] = {
        one: [] for one in tasks
    }
    peaks: dict[Configuration, tuple[float, bool]] = {}
    found: dict[Configuration, tuple[Hypothesis, ...]] = {}
    try:
        for turn in range(-warmup, repeats):
            order = list(tasks.items())
            for one, task in reversed(order) if turn % 2 else order:
                torch.set_num_threads(one.threads)
                own = start_peak_memory()
                cpu, wall = time.process_time(), time.perf_counter()
                found[one] = task()
                wall = time.perf_counter() - wall
                cpu = time.process_time() - cpu
                if turn >= 0:
                    times[one].append((wall, cpu))
                    most = max(peak_memory_mib(), peaks.get(one, (0, own))[0])
                    peaks[one] = (most, own)
                on_pass()
    finally:
        torch.set_num_threads(before)
    return tuple(
        Measured(one, *zip(*times[one]), audio_s, *peaks[one], found[one])
        for one in tasks
    )


def machine() -> dict[str, Any]:
    """Hardware and versions; cores are those that this process may use."""
    versions = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    ram = _field("/proc/meminfo", "MemTotal")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": cores,
        "ram_gib": ram and round(int(ram.split()[0]) / _MIB, 1),
        "gpu": gpu,
        "system": platform.system(),
        "python": platform.python_version(),
        **versions,
    }


def load_1min() -> float | None:
    """Processes that ran or waited over the last minute, if it is known."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def start_peak_memory() -> bool:
    """Reset the peak of this process's memory. Where the system cannot
    (False), :func:`peak_memory_mib` is since the process began.
    """
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    resident = _field("/proc/self/status", "VmRSS")
    if resident is None:
        return False
    return peak_memory_mib() <= int(resident.split()[0]) / 1024 + _SLACK_MIB


def peak_memory_mib() -> float:
    """Largest resident memory of this process since it was reset."""
    text = _field("/proc/self/status", "VmHWM")
    if text is not None:
        return round(int(text.split()[0]) / 1024, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # kilobytes, but bytes on macOS
    return round(peak / (_MIB if sys.platform == "darwin" else 1024), 1)


def _field(path: str, name: str) -> str | None:
    """Value of the first line ``name: value`` of a file of the kernel."""
    with suppress(OSError):
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            key, colon, value = line.partition(":")
            if colon and key.strip() == name:
                return value.strip()
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bench``."""
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="inference folder")
    add(
        "--data",
        required=True,
        metavar="PATH",
        help="manifest (.csv) or folder of audio files",
    )
    add(
        "--policy",
        nargs="+",
        action="extend",
        metavar="POLICY",
        help="names, files, budgets or exits (default: that of the model); "
        "the last exit is always measured, too",
    )
    add(
        "--batch-size",
        nargs="+",
        type=int,
        default=[1, 16],
        metavar="N",
        help="utterances at a time; several are measured (default 1 16)",
    )
    add(
        "--threads",
        nargs="+",
        type=int,
        default=[1],
        metavar="N",
        help="CPU threads; several are measured (default 1)",
    )
    add(
        "--backend",
        nargs="+",
        default=["torch"],
        metavar="NAME",
        help=f"of {', '.join(BACKENDS)} (default torch)",
    )
    add("--decoding", help="how exits are decoded (default: the model's way)")
    add("--onnx", metavar="DIR", help="ONNX export (default: DIR/onnx)")
    add(
        "--warmup",
        type=int,
        default=2,
        help="passes before the first (default 2)",
    )
    add("--repeats", type=int, default=5, help="passes that count (default 5)")
    add(
        "--limit",
        type=int,
        metavar="N",
        help="measure on N utterances, spread over the data",
    )
    add("--out", metavar="FILE.json", help="where the results are written")


def run(arguments: argparse.Namespace) -> str:
    """Measure, write the results, and give the table to show."""
    _check(arguments)
    load_before = load_1min()
    recognisers = Recognisers(
        arguments.model,
        arguments.backend,
        arguments.onnx,
        arguments.decoding,
    )
    spoken = read_spoken(
        arguments.data,
        recognisers.asr.sample_rate,
        arguments.limit,
        recognisers.asr.folder.tokenizer,
    )
    measured = _measured(arguments, recognisers, spoken)
    known = recognisers.asr.folder.calibration
    unit = "word" if known is None else known.header.error_unit
    rows = [one.row(spoken, unit) for one in measured]
    result = {
        "schema": SCHEMA,
        "model": recognisers.asr.folder.name,
        "decoding": recognisers.asr.runner.decoding.name,
        "data": {
            "name": Path(arguments.data).name,
            "utterances": len(spoken),
            "audio_s": rows[0]["audio_s"],
        },
        "warmup": arguments.warmup,
        "repeats": arguments.repeats,
        "machine": {
            **machine(),
            "load_1min_before": load_before,
            "load_1min_after": load_1min(),
        },
        "results": with_ratios(rows),
    }
    if arguments.out is not None:
        write_result(arguments.out, result)
    return table(result)


def write_result(path: str | Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, whole or not at all."""
    with whole_file(path, text=True) as stream:
        stream.write(json.dumps(result, indent=1) + "\n")
    logger.info("Results written to %s", path)


def with_ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with time and compute against the last exit, settings equal.

    The ratio of times is the median over the repeats, each policy's time
    against that of the last exit in the same repeat.
    """
    settings = ("backend", "threads", "batch_size")
    full = {
        tuple(row[name] for name in settings): row
        for row in rows
        if row["policy"] == LAST
    }
    found = []
    for row in rows:
        last = full[tuple(row[name] for name in settings)]
        pairs = zip(row["wall_s_by_repeat"], last["wall_s_by_repeat"])
        time_ratio = median(one / other for one, other in pairs)
        relative = row["macs_per_audio_s"] / last["macs_per_audio_s"]
        found.append(
            {
                **row,
                "relative_time": round(time_ratio, 5),
                "relative_macs": round(relative, 5),
            }
        )
    return found


def table(result: dict[str, Any]) -> str:
    """A result for people: the machine, a table, and what its columns are."""
    lines = [[heading for heading, _, _ in _COLUMNS]]
    for row in result["results"]:
        low, high = row["wall_quartiles_s"]
        shown = {
            **row,
            "gmacs_per_audio_s": row["macs_per_audio_s"] / 1e9,
            "spread": 100 * (high - low) / row["wall_s"],
        }
        lines.append(
            [
                "-" if shown[key] is None else form.format(shown[key])
                for _, key, form in _COLUMNS
            ]
        )
    on = result["machine"]
    head = (
        f"{result['model']}, {result['decoding']}; {result['data']['name']}: "
        f"{result['data']['utterances']} utterances, "
        f"{result['data']['audio_s']:.0f} s\n"
        f"{on['cpu']}, {on['cores']} cores, load "
        f"{on['load_1min_before']} before and {on['load_1min_after']} after"
    )
    legend = _LEGEND.format(repeats=result["repeats"])
    return "\n".join([head, "", aligned(lines), "", legend])


def _measured(
    arguments: argparse.Namespace,
    recognisers: Recognisers,
    spoken: Sequence[Spoken],
) -> tuple[Measured, ...]:
    resolve = recognisers.asr.policies.resolve
    default = recognisers.asr.policies.default or LAST
    asked = [*(arguments.policy or [default]), LAST]
    policies = {name: resolve(name) for name in asked}
    batches = {size: batches_of(spoken, size) for size in arguments.batch_size}
    tasks = {}
    for backend, threads, size, name in product(
        arguments.backend, arguments.threads, arguments.batch_size, policies
    ):
        recogniser = recognisers.get(backend, threads)
        tasks[Configuration(name, size, threads, backend)] = partial(
            transcribed, recogniser, batches[size], policies[name]
        )
    samples = sum(len(one.wav_S) for one in spoken)
    passes = len(tasks) * (arguments.warmup + arguments.repeats)
    with tqdm(total=passes, desc="bench", unit="pass", disable=None) as bar:
        return measure_in_turn(
            tasks,
            arguments.warmup,
            arguments.repeats,
            samples / recognisers.asr.sample_rate,
            bar.update,
        )


def _check(arguments: argparse.Namespace) -> None:
    lists = ("batch_size", "threads")
    least = {"warmup": 0, "repeats": 1, "limit": 1}
    given = [(n, v, 1) for n in lists for v in getattr(arguments, n)]
    given += [(n, getattr(arguments, n), low) for n, low in least.items()]
    for name, value, low in given:
        if value is not None and value < low:
            option = name.replace("_", "-")
            raise InputError(f"--{option} {value}: give at least {low}.")
