"""When to stop: traces, criteria, policies and the oracle.

=============  ==========================================================
module         what it holds
=============  ==========================================================
``trace``      the table of a test set: utterance x exit, and its columns
``trace_io``   ``read_trace``, ``write_trace``: that table as a file
``scoring``    word and character errors
``criteria``   the registry of criteria: evidence of readiness per exit
``policy``     criterion + threshold: where an utterance stops
``oracle``     where it should have stopped
=============  ==========================================================

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
