"""What the benchmark says of the machine's memory.

Authors
 * The speechbrain-ee contributors 2026
"""

import mmap

import numpy as np

from speechbrain_ee.inference import bench as bench_machine


def test_peak_memory_sees_what_was_given_back() -> None:
    own = bench_machine.start_peak_memory()
    before = bench_machine.peak_memory_mib()
    with mmap.mmap(-1, 64 * 2**20) as taken:
        # an array could be put where the process has held memory all along
        np.frombuffer(taken, dtype=np.uint8)[:: mmap.PAGESIZE] = 1
    after = bench_machine.peak_memory_mib()
    assert after >= before
    if own:
        assert after > before + 15
    if bench_machine.start_peak_memory():
        assert bench_machine.peak_memory_mib() < after - 15


def test_a_peak_that_stays_is_not_the_configurations(monkeypatch) -> None:
    """Some systems take the request and do nothing."""
    kept = {"VmHWM": "900000 kB", "VmRSS": "300000 kB"}
    monkeypatch.setattr(bench_machine, "_field", lambda _, name: kept[name])
    assert not bench_machine.start_peak_memory()
