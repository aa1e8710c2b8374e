#!/usr/bin/env python3
"""How long does a report take, and how much memory?

Synthesises exit traces of several sizes with the evidence of all criteria,
transcripts, durations and costs, and runs the report command on each in a
process of its own, on as many cores as asked for. Values are random, but
behave like those of a model: errors fall with depth, and evidence knows
something of the errors.

> python benchmarks/report_speed.py --utterances 5559 --cores 2

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT, add_numbers, describe, parser_of, store
from numpy.typing import NDArray

from speechbrain_ee.exits.criteria import (
    criterion_names,
    get_criterion,
    get_measure,
    measure_names,
)
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.trace import (
    ExitRecord,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_file import write_trace

LAYERS = (2, 4, 6, 8, 10, 12)
SETS = ("test-clean", "test-other")
# Error rate of words by exit, of an utterance of average difficulty.
WORD_ERRORS = np.array([0.45, 0.27, 0.16, 0.10, 0.08, 0.075])
HEADER = TraceHeader(
    "synthetic",
    "greedy",
    LAYERS,
    tuple(5 * 10**8 * layer for layer in LAYERS),
    tuple(26 * 10**5 * layer for layer in LAYERS),
    vocab_size=256,
    frames_per_s=25.0,
)


def evidence_kinds() -> dict[str, tuple[int, bool]]:
    """All evidence that criteria can use."""
    kinds = dict.fromkeys(
        need
        for name in criterion_names()
        for need in get_criterion(name).needs
        if need != "transcripts"
    )
    kinds |= dict.fromkeys(measure_names())
    known = set(measure_names())
    return {
        name: (get_measure(name).earlier if name in known else 0, _rises(name))
        for name in kinds
    }


def _rises(name: str) -> bool:
    if name not in criterion_names():
        return False
    values = {name: np.ones((1, len(LAYERS)))}
    evidence = Evidence(np.array(LAYERS), ["u"], values)
    return bool(get_criterion(name).scores(evidence)[0, -1] > 0)


def records(count: int, seed: int = 0) -> Iterator[UtteranceRecord]:
    """Synthetic utterances, half of them in each test set."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = [
        "".join(generator.choice(letters, length))
        for length in generator.integers(1, 10, 5000)
    ]
    kinds = evidence_kinds()
    for row in range(count):
        hard = generator.gamma(1.5, 1 / 1.5)
        rate_E = np.minimum(hard * WORD_ERRORS, 0.95)
        ref = [words[i] for i in generator.integers(0, 5000, 19)]
        hyps = transcripts(ref, rate_E, generator)
        exits = []
        for place, layer in enumerate(LAYERS):
            unsure = rate_E[place] + generator.normal(0, 0.05, len(kinds))
            values = {
                name: round(float(1 - value if rises else value), 6)
                for value, (name, (first, rises)) in zip(
                    unsure, kinds.items(), strict=True
                )
                if place >= first
            }
            exits.append(ExitRecord(layer, hyps[place], evidence=values))
        yield UtteranceRecord(
            f"{row % 40:02d}-{row:06d}",
            SETS[2 * row // count],
            " ".join(ref),
            tuple(exits),
            round(len(ref) / 2.7, 2),
        )


def transcripts(
    ref: list[str],
    rate_E: NDArray[np.float64],
    generator: np.random.Generator,
) -> list[str]:
    """A transcript per exit: words come right, few go wrong again."""
    luck = generator.random(len(ref))
    texts = []
    for rate in rate_E:
        slips = luck + generator.normal(0, 0.02, len(ref)) < rate
        said = [f"{w[:-1]}q" if slip else w for w, slip in zip(ref, slips)]
        texts.append(" ".join(said))
    return texts


def run(trace: Path, folder: Path, cores: int) -> dict[str, float]:
    """Seconds (wall clock, processor) and peak memory of one report."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    command = [sys.executable, "-m", "speechbrain_ee", "report"]
    command += ["--trace", str(trace), "--out", str(folder)]
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    _, status, usage = os.wait4(process.pid, 0)
    taken_s = time.perf_counter() - start
    if status:
        raise RuntimeError(process.stderr.read().decode())
    return {
        "report_s": round(taken_s, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_gb": round(usage.ru_maxrss / 1e6, 3),
    }


def measure(utterances: int, cores: int, repeats: int) -> dict[str, Any]:
    """Time reports of a quarter to twice as many utterances."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for factor in (0.25, 0.5, 1, 2):
            count = round(factor * utterances)
            trace = Path(name) / f"{count}.jsonl.gz"
            write_trace(trace, HEADER, records(count))
            turns = [
                run(trace, Path(name) / str(count), cores)
                for _ in range(repeats)
            ]
            least = {key: min(turn[key] for turn in turns) for key in turns[0]}
            rows.append({"utterances": count, **least})
    counts = np.array([row["utterances"] for row in rows], dtype=float)
    # processor time: other work on the machine does not bend the line
    times_s = np.array([row["cpu_s"] for row in rows])
    slope, start_s = np.polyfit(counts, times_s, 1)
    return {
        "exits": len(LAYERS),
        "evidence": len(evidence_kinds()),
        "criteria": len(criterion_names()),
        "cores_used": cores,
        "repeats": repeats,
        "rows": rows,
        "cpu_fit_start_s": round(float(start_s), 2),
        "cpu_fit_ms_per_utterance": round(1000 * float(slope), 3),
        "environment": describe(),
    }


def main() -> None:
    """Measure and store."""
    parser = parser_of(__doc__)
    add_numbers(parser, utterances=5559, cores=2, repeats=3)
    arguments = parser.parse_args()
    result = measure(arguments.utterances, arguments.cores, arguments.repeats)
    store(arguments.results / "report_speed.json", result)
    for row in result["rows"]:
        print(
            f"{row['utterances']} utterances: {row['report_s']} s, "
            f"{row['cpu_s']} s of processor time, {row['peak_gb']} GB"
        )


if __name__ == "__main__":
    main()
