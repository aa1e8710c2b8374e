"""Made-up traces that the tests of this room share.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
from hypothesis import strategies as st

from speechbrain_ee.exits import ExitRecord, Trace, TraceHeader, UtteranceRecord


def made_up(rows: int, seed: int, exits: int = 4) -> Trace:
    """A trace of errors that mostly fall with depth."""
    generator = np.random.default_rng(seed)
    layers = tuple(range(2, 2 * exits + 1, 2))
    records = tuple(
        UtteranceRecord(
            f"u{i}",
            "test",
            "w " * int(generator.integers(5, 15)),
            tuple(
                ExitRecord(
                    layer,
                    None,
                    int(generator.integers(0, 10 - layer)),
                    {"entropy": round(float(generator.random()), 2)},
                )
                for layer in layers
            ),
            float(generator.uniform(1, 20)),
        )
        for i in range(rows)
    )
    macs = tuple(100 * layer + 50 for layer in layers)
    return Trace(TraceHeader("m", "d", layers, macs), records)


TRACES = st.builds(made_up, st.integers(1, 30), st.integers(0, 10_000))

REF = "one two three four five six"
HYPS = {
    "easy": (REF, REF, REF),
    "hard": ("one too free", "one two free four five", REF),
    "over": ("one six", REF, "one two <three> & five six"),
}
EVIDENCE = {
    "easy": (0.1, 0.05, 0.01),
    "hard": (0.9, 0.6, 0.2),
    "over": (0.8, 0.1, 0.05),
}


def small_trace(evidence: bool = True, macs: bool = True) -> Trace:
    """Two test sets with the same three utterances: easy, hard, over."""
    records = tuple(
        UtteranceRecord(
            f"{name}-{part}",
            part,
            REF,
            tuple(
                ExitRecord(
                    layer,
                    HYPS[name][k],
                    None,
                    {"entropy": EVIDENCE[name][k], "homemade": 1.0}
                    if evidence
                    else {},
                )
                for k, layer in enumerate((2, 4, 6))
            ),
            4.0,
        )
        for part in ("clean", "other")
        for name in HYPS
    )
    header = TraceHeader(
        "small <model>",
        "greedy",
        (2, 4, 6),
        (10**9, 2 * 10**9, 3 * 10**9) if macs else None,
        (10, 20, 30),
    )
    return Trace(header, records)
