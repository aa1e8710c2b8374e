"""Made-up traces and analyses that the tests of this room share.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from speechbrain_ee.evaluation.analysis import (
    PolicyResult,
    SetAnalysis,
    analyse_all,
)
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


def counts_alone() -> Trace:
    """The small trace without hypotheses, evidence and costs."""
    trace = small_trace(evidence=False, macs=False)
    records = tuple(
        replace(
            row,
            exits=tuple(
                ExitRecord(exit_.layer, None, errors)
                for exit_, errors in zip(row.exits, errors_E)
            ),
        )
        for row, errors_E in zip(trace.records, trace.errors_NE.tolist())
    )
    return Trace(trace.header, records)


LAYERS = (2, 4, 6, 8)
# Chance of a wrong word by exit, on easy and on hard utterances.
WRONG = {"clean": (0.6, 0.3, 0.1, 0.06), "other": (0.8, 0.5, 0.2, 0.12)}


def drawn_sets(with_policies: bool = True) -> dict[str, SetAnalysis]:
    """The analyses; entropy and margin see errors, the others hardly."""
    generator = np.random.default_rng(0)
    records = []
    for name, chances in WRONG.items():
        for i in range(150):
            ref = [f"w{j}" for j in range(int(generator.integers(8, 20)))]
            hard = generator.uniform(0.3, 1.7)
            exits = []
            for layer, chance in zip(LAYERS, chances, strict=True):
                wrong = generator.random(len(ref)) < chance * hard
                rate = wrong.mean() + 1e-3
                hyp = [w + "x" * int(bad) for w, bad in zip(ref, wrong)]
                noise = generator.normal(size=4)
                evidence = {
                    "entropy": rate * np.exp(0.2 * noise[0]),
                    "entropy_nonblank": rate * np.exp(3 * noise[1]),
                    "max_prob": np.exp(-3 * rate + noise[2]),
                    "margin": np.exp(-3 * rate + 0.1 * noise[3]),
                }
                exits.append(ExitRecord(layer, " ".join(hyp), None, evidence))
            records.append(
                UtteranceRecord(
                    f"{name}-{i}", name, " ".join(ref), tuple(exits), 5.0
                )
            )
    header = TraceHeader(
        "drawn",
        "greedy",
        LAYERS,
        tuple(10**9 * layer for layer in LAYERS),
        vocab_size=1000,
        frames_per_s=25.0,
    )
    analyses = analyse_all([Trace(header, tuple(records))])
    if not with_policies:
        return analyses
    return {key: _with_policy(found) for key, found in analyses.items()}


def _with_policy(analysis: SetAnalysis) -> SetAnalysis:
    result = analysis.criteria["entropy"]
    point = result.plus_5
    assert point is not None
    policy = PolicyResult(
        "my <policy>",
        "entropy",
        point,
        analysis.excess(point.wer),
        (0.1, 0.2, 0.3, 0.4),
        "wer=+5%",
        True,
        ("scores of exit 2 are <lower>",),
    )
    return replace(analysis, policies=(policy,))
