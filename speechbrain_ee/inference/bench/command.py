"""The command ``bench``: what policies take on this machine.

Every policy is measured with every batch size, number of threads and
backend, all in turn in one process (:mod:`~speechbrain_ee.inference.bench.measure`).

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import json
import logging
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speechbrain_ee.errors import InputError
from speechbrain_ee.files import whole_file
from speechbrain_ee.inference.bench.backends import BACKENDS, Recognisers
from speechbrain_ee.inference.bench.data import (
    Spoken,
    batches_of,
    read_spoken,
)
from speechbrain_ee.inference.bench.machine import load_1min, machine
from speechbrain_ee.inference.bench.measure import (
    Configuration,
    Measured,
    measure_in_turn,
    transcribed,
)

logger = logging.getLogger(__name__)

SCHEMA = "bench/1"
LAST = "last"

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bench``.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Of the command.
    """
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
    """What ``python -m speechbrain_ee bench`` does.

    Arguments
    ---------
    arguments : argparse.Namespace
        What :func:`add_arguments` declares.

    Returns
    -------
    str
        The table to show.

    Raises
    ------
    InputError
        If an option is out of range, a policy or backend cannot be used, or
        the data cannot be read.
    """
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
    """Write a result as JSON, whole or not at all.

    Arguments
    ---------
    path : str or Path
        The file; its folder is made if missing.
    result : dict
        Plain values.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    with whole_file(Path(path)) as stream:
        stream.write((json.dumps(result, indent=1) + "\n").encode())
    logger.info("Results written to %s", path)


def with_ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with time and compute against the last exit, settings equal.

    Arguments
    ---------
    rows : sequence of dict
        Of :meth:`Measured.row
        <speechbrain_ee.inference.bench.measure.Measured.row>`.

    Returns
    -------
    list of dict
        The ratio of times is the median over the repeats, each policy's
        time against that of the last exit in the same repeat.
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
        ratios = sorted(one / other for one, other in pairs)
        middle = ratios[(len(ratios) - 1) // 2] + ratios[len(ratios) // 2]
        relative = row["macs_per_audio_s"] / last["macs_per_audio_s"]
        found.append(
            {
                **row,
                "relative_time": round(middle / 2, 5),
                "relative_macs": round(relative, 5),
            }
        )
    return found


def table(result: dict[str, Any]) -> str:
    """A result for people.

    Arguments
    ---------
    result : dict
        As it is written.

    Returns
    -------
    str
        A line on the machine, a table, and what its columns are.
    """
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
    widths = [max(map(len, column)) for column in zip(*lines)]
    on = result["machine"]
    head = (
        f"{result['model']}, {result['decoding']}; {result['data']['name']}: "
        f"{result['data']['utterances']} utterances, "
        f"{result['data']['audio_s']:.0f} s\n"
        f"{on['cpu']}, {on['cores']} cores, load "
        f"{on['load_1min_before']} before and {on['load_1min_after']} after"
    )
    body = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths))
        for line in lines
    ]
    legend = _LEGEND.format(repeats=result["repeats"])
    return "\n".join([head, "", *body, "", legend])


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
