"""What the benchmarks conclude from two traces.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)


@pytest.fixture(scope="module")
def benchmark(repository: Path) -> ModuleType:
    """The module benchmarks/joint_vs_single.py."""
    folder = repository / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        path = folder / "joint_vs_single.py"
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def trace_of(errors_N: np.ndarray, order: list[int]) -> Trace:
    """A single-exit trace of ten-word utterances, in a given order."""
    ref = " ".join("abcdefghij")
    records = [
        UtteranceRecord(
            f"utterance-{row}",
            "set",
            ref,
            (ExitRecord(4, errors=int(errors_N[row])),),
        )
        for row in order
    ]
    return Trace(TraceHeader("model", "greedy", (4,)), tuple(records))


def test_difference_pairs_utterances_by_id(benchmark):
    errors_N = np.arange(40) % 5
    joint = trace_of(errors_N, list(range(40)))
    single = trace_of(errors_N, list(reversed(range(40))))
    result = benchmark.difference(joint, 0, single)
    assert result["difference"] == 0.0
    assert result["interval_95"] == [0.0, 0.0]
    assert result["joint_beats_single"].startswith("undecided")


def test_difference_answers_yes_and_no(benchmark):
    rng = np.random.default_rng(0)
    fewer_N = rng.integers(0, 3, 300)
    more_N = fewer_N + rng.integers(0, 2, 300)
    order = list(range(300))
    yes = benchmark.difference(
        trace_of(fewer_N, order), 0, trace_of(more_N, order)
    )
    assert yes["joint_beats_single"] == "yes"
    assert yes["interval_95"][1] < 0
    expected = 100 * (fewer_N.sum() - more_N.sum()) / 3000
    assert yes["difference"] == pytest.approx(expected, abs=0.01)
    no = benchmark.difference(
        trace_of(more_N, order), 0, trace_of(fewer_N, order)
    )
    assert no["joint_beats_single"].startswith("no")


def test_interval_is_that_of_the_normal_approximation(benchmark):
    rng = np.random.default_rng(1)
    first_N, second_N = rng.integers(0, 6, (2, 2000))
    order = list(range(2000))
    result = benchmark.difference(
        trace_of(first_N, order), 0, trace_of(second_N, order)
    )
    deltas = 10.0 * (first_N - second_N)  # points per ten-word utterance
    half = 1.96 * deltas.std() / np.sqrt(2000)
    low, high = result["interval_95"]
    assert high - low == pytest.approx(2 * half, rel=0.05)
