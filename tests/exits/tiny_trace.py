"""A trace of two utterances that has every kind of field.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.exits import ExitRecord, TraceHeader, UtteranceRecord

HEADER = TraceHeader(
    "tiny", "greedy", (2, 4), (100, 300), (10, 20), 5.0, 29, 25.0
)
RECORDS = (
    UtteranceRecord(
        "u1",
        "clean",
        "the cat sat",
        (
            ExitRecord(2, "the cats", 2, {"entropy": 0.5, "max_prob": 0.25}),
            ExitRecord(4, "the cat sat", None, {"entropy": 0.1}),
        ),
        2.5,
    ),
    UtteranceRecord(
        "u1",
        "other",
        "naïve “words”",
        (
            ExitRecord(2, None, 3, {"entropy": 1 / 3, "max_prob": 1.0}),
            ExitRecord(4, "", None, {"entropy": 1e-9}),
        ),
        10.0,
    ),
)
