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
    draw = np.random.default_rng(seed)
    layers = tuple(range(2, 2 * exits + 1, 2))
    records = []
    for i in range(rows):
        ref, found = "w " * int(draw.integers(5, 15)), []
        for layer in layers:
            errors = int(draw.integers(0, 10 - layer))
            evidence = {"entropy": round(float(draw.random()), 2)}
            found.append(ExitRecord(layer, None, errors, evidence))
        spoken = tuple(found), float(draw.uniform(1, 20))
        records.append(UtteranceRecord(f"u{i}", "test", ref, *spoken))
    macs = tuple(100 * layer + 50 for layer in layers)
    return Trace(TraceHeader("m", "d", layers, macs), tuple(records))


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


def small_trace() -> Trace:
    """Two test sets with the same three utterances: easy, hard, over."""
    records = []
    for part in ("clean", "other"):
        for name, hyps in HYPS.items():
            known = [{"entropy": e, "homemade": 1.0} for e in EVIDENCE[name]]
            none = (None,) * 3
            exits = tuple(map(ExitRecord, (2, 4, 6), hyps, none, known))
            name = f"{name}-{part}"
            records.append(UtteranceRecord(name, part, REF, exits, 4.0))
    macs = (10**9, 2 * 10**9, 3 * 10**9)
    header = ("small <model>", "greedy", (2, 4, 6), macs, (10, 20, 30))
    return Trace(TraceHeader(*header), tuple(records))


def counts_alone() -> Trace:
    """The small trace without hypotheses, evidence and costs."""
    trace = small_trace()
    records = tuple(
        replace(
            row, exits=tuple(map(ExitRecord, (2, 4, 6), (None,) * 3, errors_E))
        )
        for row, errors_E in zip(trace.records, trace.errors_NE.tolist())
    )
    return Trace(replace(trace.header, macs=None), records)


LAYERS = (2, 4, 6, 8)
# Chance of a wrong word by exit, on easy and on hard utterances.
WRONG = {"clean": (0.6, 0.3, 0.1, 0.06), "other": (0.8, 0.5, 0.2, 0.12)}


def drawn_sets() -> dict[str, SetAnalysis]:
    """The analyses, with a policy each; entropy and margin see errors."""
    draw = np.random.default_rng(0)
    records = []
    for name, chances in WRONG.items():
        for i in range(150):
            ref = [f"w{j}" for j in range(int(draw.integers(8, 20)))]
            hard = draw.uniform(0.3, 1.7)
            exits = []
            for layer, chance in zip(LAYERS, chances, strict=True):
                wrong = draw.random(len(ref)) < chance * hard
                rate = wrong.mean() + 1e-3
                hyp = [w + "x" * int(bad) for w, bad in zip(ref, wrong)]
                noise = draw.normal(size=4)
                evidence = {
                    "entropy": rate * np.exp(0.2 * noise[0]),
                    "entropy_nonblank": rate * np.exp(3 * noise[1]),
                    "max_prob": np.exp(-3 * rate + noise[2]),
                    "margin": np.exp(-3 * rate + 0.1 * noise[3]),
                }
                exits.append(ExitRecord(layer, " ".join(hyp), None, evidence))
            spoken = " ".join(ref), tuple(exits), 5.0
            records.append(UtteranceRecord(f"{name}-{i}", name, *spoken))
    header = TraceHeader(
        "drawn",
        "greedy",
        LAYERS,
        tuple(10**9 * layer for layer in LAYERS),
        vocab_size=1000,
        frames_per_s=25.0,
    )
    analyses = analyse_all([Trace(header, tuple(records))])
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
