"""What it was worth: costs, curves and reports.

================  =======================================================
module            what it holds
================  =======================================================
``recorder``      outputs of a model on a test set into a trace's records
``cost``          multiply-accumulates of exits, decoding and criteria
``curves``        operating points, sweeps, oracle, bootstrap intervals
``analysis``      a test set as numbers: criteria, policies, transfer
``overthinking``  where an earlier exit is better than the last
``theme``         which criteria are shown, with names and colours
``tables``        tables for console, page and CSV files
``figures``       curves, decodings and overthinking as figures
``report``        the folder of a report; texts are in ``templates/``
``calibrate``     the commands ``calibrate`` and ``learn``
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
