"""When to stop: traces, criteria, policies and the oracle.

===============  ========================================================
module           what it holds
===============  ========================================================
``trace``        the table of a test set: utterance x exit, its columns
``records``      the records that it is made of
``trace_io``     ``read_trace``, ``write_trace``: that table as a file
``evidence``     what a score may be computed from
``scoring``      word and character errors
``oracle``       where an utterance should have stopped
``policy``       criterion + thresholds: where it stops
``decoding/``    hypotheses, by CTC and by attention
``criteria/``    the registry of criteria, and what they measure
``calibration/`` thresholds that keep a budget; policy files
``selector/``    the learned selector
``ensemble/``    averages of the exits passed
===============  ========================================================

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_io import read_trace, write_trace

__all__ = [
    "ExitRecord",
    "Trace",
    "TraceHeader",
    "UtteranceRecord",
    "read_trace",
    "write_trace",
]
