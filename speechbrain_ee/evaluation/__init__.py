"""What it was worth: costs, curves and reports.

================  =======================================================
module            what it holds
================  =======================================================
``recorder``      outputs of a model on a test set into a trace's records
``cost``          multiply-accumulates of exits, decoding and criteria
``curves``        operating points, sweeps, oracle, bootstrap intervals
``policies``      given policies, measured on a test set
``analysis``      all that is said of a test set, as numbers
``decodings``     ways of decoding the same exits, side by side
``overthinking``  where an earlier exit is better than the last
``theme``         which criteria are shown, with names and colours
``tables``        tables and sentences for console, page and CSV files
``figures``       curves, decodings and overthinking as figures
``page``          the HTML page, from ``templates/``
``report``        the folder of a report, and the command ``report``
``calibrate``     the command ``calibrate``; the policies of a model
``learn``         the command ``learn``
================  =======================================================

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
from typing import Any

# By name, the module; imported when asked for, see PEP 562.
_HOMES = {
    "CostModel": "cost",
    "DecodingCost": "cost",
    "SetAnalysis": "analysis",
    "TraceRecorder": "recorder",
    "analyse": "analysis",
    "analyse_all": "analysis",
    "calibrate_trace": "calibrate",
    "measure": "curves",
    "sweep": "curves",
    "write_report": "report",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, name)
