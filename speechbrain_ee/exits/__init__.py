"""When to stop: traces, criteria, policies and the oracle.

===============  ========================================================
module           what it holds
===============  ========================================================
``trace``        the table of a test set: utterance x exit, its columns
``clusters``     speakers: which utterances are alike
``trace_file``   ``read_trace``, ``write_trace``: that table as a file
``evidence``     what a score may be computed from
``scoring``      word and character errors
``oracle``       where an utterance should have stopped
``policy``       criterion + thresholds: where it stops
``decoding``     hypotheses, by CTC and by attention
``beam``         hypotheses with scores; CTC's N best
``criteria/``    the registry of criteria, and what they measure
``calibration/`` thresholds that keep a budget; policy files
``selector/``    the learned selector
===============  ========================================================

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
from typing import Any

# By name, the module; imported when asked for, see PEP 562.
_HOMES = {
    "ExitRecord": "trace",
    "Trace": "trace",
    "TraceHeader": "trace",
    "UtteranceRecord": "trace",
    "read_trace": "trace_file",
    "write_trace": "trace_file",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, name)
