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
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from statistics import fmean, median
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
from speechbrain_ee.inference.onnx.host import OnnxRecogniser, load
from speechbrain_ee.inference.recordings import (
    Batch,
    Spoken,
    batches_of,
    read_spoken,
)
from speechbrain_ee.inference.runner import LiveRunner, compile_segments

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


@dataclass(frozen=True)
class Configuration:
    """One way of transcribing the data."""

    policy: str  # as it was asked for
    batch_size: int  # utterances at a time
    threads: int
    backend: str


@dataclass
class Measured:
    """What a configuration took, and what it gave."""

    configuration: Configuration
    audio_s: float
    wall_s_R: list[float] = field(default_factory=list)  # over all data
    cpu_s_R: list[float] = field(default_factory=list)  # of all threads
    # Largest resident memory of the process while it ran, the models of
    # other backends included.
    peak_rss_mib: float = 0.0
    # Whether that peak began with the configuration; else with the process.
    peak_is_own: bool = True
    hypotheses: tuple[Hypothesis, ...] = ()  # those of the last repeat

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
            "average_layer": round(fmean(h.layer for h in self.hypotheses), 4),
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
    pairs = zip(spoken, hypotheses, strict=True)
    known = [(one.ref, said.text) for one, said in pairs if one.ref is not None]
    refs, hyps = zip(*known) if known else ((), ())
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
    measured = tuple(Measured(one, audio_s) for one in tasks)
    try:
        for turn in range(-warmup, repeats):
            for one in reversed(measured) if turn % 2 else measured:
                torch.set_num_threads(one.configuration.threads)
                one.peak_is_own = start_peak_memory()
                cpu, wall = time.process_time(), time.perf_counter()
                one.hypotheses = tasks[one.configuration]()
                wall = time.perf_counter() - wall
                cpu = time.process_time() - cpu
                if turn >= 0:
                    one.wall_s_R.append(wall)
                    one.cpu_s_R.append(cpu)
                    one.peak_rss_mib = max(one.peak_rss_mib, peak_memory_mib())
                on_pass()
    finally:
        torch.set_num_threads(before)
    return measured


def machine() -> dict[str, Any]:
    """Hardware and versions; cores are those that this process may use."""
    versions = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    ram_kib = _number("/proc/meminfo", "MemTotal")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": cores,
        "ram_gib": ram_kib and round(ram_kib / _MIB, 1),
        "gpu": gpu,
        "system": platform.system(),
        "python": platform.python_version(),
        **versions,
    }


def load_1min() -> float | None:
    """Processes that ran or waited over the last minute, if it is known."""
    with suppress(OSError):
        return round(os.getloadavg()[0], 2)
    return None


def start_peak_memory() -> bool:
    """Reset the peak of this process's memory. Where the system cannot
    (False), :func:`peak_memory_mib` is since the process began.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        resident_kib = _number("/proc/self/status", "VmRSS")
        if resident_kib is not None:
            return peak_memory_mib() <= resident_kib / 1024 + _SLACK_MIB
    return False


def peak_memory_mib() -> float:
    """Largest resident memory of this process since it was reset."""
    peak_kib = _number("/proc/self/status", "VmHWM")
    if peak_kib is None:
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak_kib /= 1024 if sys.platform == "darwin" else 1
    return round(peak_kib / 1024, 1)


def _number(path: str, name: str) -> int | None:
    """As :func:`_field`, of a number with its unit."""
    text = _field(path, name)
    return None if text is None else int(text.split()[0])


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
    asr = EarlyExitASR.from_hparams(
        arguments.model, decoding=arguments.decoding
    )
    decoding = asr.runner.decoding.name
    recogniser = _recognisers(arguments, asr)
    spoken = read_spoken(
        arguments.data, asr.sample_rate, arguments.limit, asr.folder.tokenizer
    )
    asked = [*(arguments.policy or [asr.policies.default or LAST]), LAST]
    policies = {name: asr.policies.resolve(name) for name in asked}
    batches = {size: batches_of(spoken, size) for size in arguments.batch_size}
    tasks = {
        Configuration(name, size, threads, backend): partial(
            transcribed,
            recogniser(backend, threads),
            batches[size],
            policies[name],
        )
        for backend, threads, size, name in product(
            arguments.backend, arguments.threads, batches, policies
        )
    }
    audio_s = sum(len(one.wav_S) for one in spoken) / asr.sample_rate
    turns = arguments.warmup, arguments.repeats
    passes = len(tasks) * sum(turns)
    with tqdm(total=passes, desc="bench", unit="pass", disable=None) as bar:
        measured = measure_in_turn(tasks, *turns, audio_s, bar.update)
    known = asr.folder.calibration
    unit = "word" if known is None else known.header.error_unit
    rows = [one.row(spoken, unit) for one in measured]
    result = {
        "schema": SCHEMA,
        "model": asr.folder.name,
        "decoding": decoding,
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


def _recognisers(
    arguments: argparse.Namespace, asr: EarlyExitASR
) -> Callable[[str, int], Recogniser]:
    """What makes the recogniser of a backend, once: PyTorch's threads are
    those of the process, onnxruntime's belong to the recogniser.
    """
    for name in arguments.backend:
        if not name.startswith("onnx"):
            continue
        if asr.runner.decoding.name != GREEDY:
            raise InputError(
                f"--backend {name}: graphs are decoded by {GREEDY}, and this "
                f"would be measured against {asr.runner.decoding.name}; give "
                f"--decoding {GREEDY}."
            )
        load("onnxruntime", f"--backend {name}")

    @cache
    def make(backend: str, threads: int) -> Recogniser:
        if backend == "torch":
            return asr.runner
        if backend == "compiled":
            # A model of its own: the other backends keep theirs as it is.
            other = EarlyExitASR.from_hparams(
                arguments.model, decoding=arguments.decoding
            )
            compile_segments(other.model)
            return other.runner
        graphs = arguments.onnx or Path(arguments.model) / "onnx"
        precision = "int8" if backend == "onnx-int8" else "fp32"
        return OnnxRecogniser(graphs, precision, threads)

    return lambda backend, threads: make(
        backend, threads if backend.startswith("onnx") else 0
    )


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

    def settings(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["backend"], row["threads"], row["batch_size"]

    full = {settings(row): row for row in rows if row["policy"] == LAST}
    found = []
    for row in rows:
        last = full[settings(row)]
        pairs = zip(row["wall_s_by_repeat"], last["wall_s_by_repeat"])
        times = round(median(one / other for one, other in pairs), 5)
        macs = round(row["macs_per_audio_s"] / last["macs_per_audio_s"], 5)
        found.append({**row, "relative_time": times, "relative_macs": macs})
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
    on, data = result["machine"], result["data"]
    head = (
        f"{result['model']}, {result['decoding']}; {data['name']}: "
        f"{data['utterances']} utterances, {data['audio_s']:.0f} s\n"
        f"{on['cpu']}, {on['cores']} cores, load "
        f"{on['load_1min_before']} before and {on['load_1min_after']} after"
    )
    legend = _LEGEND.format(repeats=result["repeats"])
    return "\n".join([head, "", aligned(lines), "", legend])


def _check(arguments: argparse.Namespace) -> None:
    for name in arguments.backend:
        if name not in BACKENDS:
            raise InputError(
                f"--backend {name}: unknown; valid: {', '.join(BACKENDS)}."
            )
    given = [("batch-size", each, 1) for each in arguments.batch_size]
    given += [("threads", each, 1) for each in arguments.threads]
    given += [
        ("warmup", arguments.warmup, 0),
        ("repeats", arguments.repeats, 1),
        ("limit", arguments.limit, 1),
    ]
    for option, value, least in given:
        if value is not None and value < least:
            raise InputError(f"--{option} {value}: give at least {least}.")
