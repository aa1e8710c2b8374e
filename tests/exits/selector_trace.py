"""A synthetic trace in which the value of going on is known.

Every utterance has some hard words. An exit writes a hard word as a
misspelling until the layer that resolves it; some are never resolved. The
entropy is noise around the number of wrong words per word, so that it also
counts those that no exit will put right.

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

LAYERS = (2, 4, 6, 8)
LEXICON = ("cat", "hat", "sat", "mat", "rat", "bat", "tree", "house", "river")
NEVER = "zebra"  # always heard as "zeb", and that looks well spelt


def synthetic_trace(count=240, seed=0, transcripts=True, evidence=True):
    """As the module says."""
    rng = np.random.default_rng(seed)
    records = []
    for row in range(count):
        size = rng.integers(6, 12)
        words = [LEXICON[n] for n in rng.integers(0, len(LEXICON), size)]
        resolved = rng.choice([0, 0, 0, 0, 1, 2, 3, 9], size)
        words = [NEVER if r == 9 else w for w, r in zip(words, resolved)]
        exits = []
        for place, layer in enumerate(LAYERS):
            heard = [_heard(w, r, place) for w, r in zip(words, resolved)]
            wrong = sum(h != w for h, w in zip(heard, words))
            values = {"entropy": wrong / size + 0.02 * rng.random()}
            exits.append(
                ExitRecord(
                    layer,
                    " ".join(heard) if transcripts else None,
                    wrong,
                    values if evidence else {},
                )
            )
        speaker = f"s{row % 24}"
        records.append(
            UtteranceRecord(
                f"{speaker}-{row}",
                "dev",
                " ".join(words),
                tuple(exits),
                speaker=speaker,
            )
        )
    header = TraceHeader("synthetic", "greedy", LAYERS)
    return Trace(header, tuple(records))


def true_scores(trace):
    """What the best selector would say, from the errors themselves."""
    errors_NE = trace.errors_NE
    scores_NE = np.zeros(errors_NE.shape)
    for place in range(len(LAYERS) - 1):
        steps = trace.layers_E[place + 1 :] - trace.layers_E[place]
        gains = (errors_NE[:, [place]] - errors_NE[:, place + 1 :]) / steps
        scores_NE[:, place] = -gains.max(axis=1)
    return scores_NE


def _heard(word, resolved, place):
    if resolved == 9:
        return "zeb"
    return word[:1] + "xq" + word[2:] if place < resolved else word
