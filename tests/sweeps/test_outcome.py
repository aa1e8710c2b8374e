"""Numbers of a finished training, against sums by hand.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace
from pathlib import Path

import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import calibrate_trace
from speechbrain_ee.exits.calibration.policy_file import write_policy
from speechbrain_ee.exits.trace import (
    ExitRecord,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_file import read_trace, write_trace
from speechbrain_ee.sweeps.objective import Objective
from speechbrain_ee.sweeps.outcome import outcome

# Entropy at the first exit, errors at both, of references of ten words.
FIRST_STAYS = [(0.1, 1, 0), (0.9, 6, 2), (0.2, 0, 1), (0.8, 5, 1)]
MACS = (100, 300)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The output folder of a training."""
    records = [
        UtteranceRecord(
            f"u{number}",
            "dev",
            "w " * 9 + "w",
            (
                ExitRecord(
                    2, errors=first, macs=MACS[0], evidence={"entropy": entropy}
                ),
                ExitRecord(
                    4, errors=last, macs=MACS[1], evidence={"entropy": 0.0}
                ),
            ),
        )
        for number, (entropy, first, last) in enumerate(FIRST_STAYS)
    ]
    path = tmp_path / "traces/dev.jsonl.gz"
    write_trace(path, TraceHeader("m", "greedy", (2, 4)), records)
    policy = calibrate_trace(read_trace(path), "entropy", "layers=3", "naive")
    assert policy.satisfied
    write_policy(tmp_path / "save/policies/learned.naive.yaml", policy)
    return tmp_path


@pytest.mark.parametrize(
    "at, errors, layers, macs",
    [
        ("last", 0 + 2 + 1 + 1, 4, 300),
        (1, 1 + 6 + 0 + 5, 2, 100),
        # the two with little entropy leave early
        ("naive", 1 + 2 + 0 + 1, 3, 200),
    ],
)
def test_operating_points_are_sums_by_hand(run, at, errors, layers, macs):
    wanted = [Objective(name, "dev", at) for name in ("wer", "layers", "macs")]
    assert outcome(run, wanted) == [100 * errors / 40, layers, macs]


def test_what_a_training_did_not_leave_is_told(run):
    with pytest.raises(InputError, match="learned.ltt.yaml"):
        outcome(run, [Objective("wer", "dev", "ltt")])
    trace = read_trace(run / "traces/dev.jsonl.gz")
    records = [
        replace(
            record, exits=tuple(replace(e, macs=None) for e in record.exits)
        )
        for record in trace.records
    ]
    write_trace(run / "traces/dev.jsonl.gz", trace.header, records)
    with pytest.raises(InputError, match="objective macs dev last"):
        outcome(run, [Objective("macs", "dev")])
