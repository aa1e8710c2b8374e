"""Made-up traces with transcripts, of several speakers.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

import numpy as np

from speechbrain_ee.exits import ExitRecord, Trace, TraceHeader, UtteranceRecord

WORDS = (
    "river stone garden winter letter morning travel silver answer window "
    "before under little around market forest candle bridge summer mother"
).split()
SPEAKERS = 12


def spoken(
    utterances: int = 60,
    seed: int = 0,
    layers: Sequence[int] = (2, 4, 6),
    name: str = "dev",
) -> Trace:
    """A trace whose exits misspell words, the earlier the more.

    Some utterances are hard at every exit, some at the first ones only.
    Entropy tells much of that, ``max_prob`` nothing.
    """
    rng = np.random.default_rng(seed)
    records = []
    for n in range(utterances):
        ref = list(rng.choice(WORDS, rng.integers(5, 10)))
        hard, lasting = rng.uniform(0.1, 0.9), rng.random()
        exits = []
        for place, layer in enumerate(layers):
            chance = hard * lasting**place
            wrong = rng.random(len(ref)) < chance
            hyp = [
                w[:2] + "q" + w[3:] if bad else w for w, bad in zip(ref, wrong)
            ]
            evidence = {
                "entropy": float(chance * rng.uniform(0.8, 1.2)),
                "max_prob": float(rng.random()),
            }
            exits.append(
                ExitRecord(layer, " ".join(hyp), None, evidence, 1000 * layer)
            )
        records.append(
            UtteranceRecord(
                f"{n % SPEAKERS}-1-{n:04d}",
                name,
                " ".join(ref),
                tuple(exits),
                float(rng.uniform(2, 9)),
                str(n % SPEAKERS),
            )
        )
    header = TraceHeader("spoken", "greedy", tuple(layers))
    return Trace(header, tuple(records), f"{name}.jsonl")


def texts(lines: int = 100, seed: int = 100) -> list[str]:
    """Training transcripts of the same words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 7)) for _ in range(lines)]
