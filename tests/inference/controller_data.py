"""Calibration data of a latency controller.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np

from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)

LAYERS = (2, 4, 6)
MACS_PER_S = (20, 60, 100)


def trace_of(rows: int = 400, seed: int = 0, search_macs: int = 0) -> Trace:
    """Utterances whose entropy tells whether an exit is right."""
    rng = np.random.default_rng(seed)
    records = []
    for row in range(rows):
        hard, seconds = rng.random(), 2 + 6 * rng.random()
        exits = []
        for layer, macs, power in zip(LAYERS, MACS_PER_S, (1, 2, 4)):
            entropy = hard**power
            exits.append(
                ExitRecord(
                    layer,
                    errors=int(rng.random() < entropy),
                    evidence={"entropy": entropy + 0.05 * rng.random()},
                    macs=int(macs * seconds * 1e6) + search_macs,
                    decoding_macs=search_macs or None,
                )
            )
        records.append(
            UtteranceRecord(f"u{row}", "dev", "a b c", tuple(exits), seconds)
        )
    return Trace(TraceHeader("tiny", "greedy", LAYERS), tuple(records))
