"""The machine that a measurement was made on, and what it was given.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import platform
import resource
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_MIB = 2**20
_PACKAGES = ("torch", "speechbrain", "numpy", "onnxruntime")
_RESET_PEAK = "5"  # see proc(5), /proc/[pid]/clear_refs
_SLACK_MIB = 8  # the kernel counts a process's pages in lots


def machine() -> dict[str, Any]:
    """Hardware and versions.

    Returns
    -------
    dict
        Plain values. Cores are those that this process may use.
    """
    versions = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": _cores(),
        "ram_gib": _ram_gib(),
        "gpu": gpu,
        "system": platform.system(),
        "python": platform.python_version(),
        **versions,
    }


def load_1min() -> float | None:
    """Processes that ran or waited over the last minute, if it is known."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def start_peak_memory() -> bool:
    """Begin to watch the memory of this process anew.

    Returns
    -------
    bool
        Whether the system can; else :func:`peak_memory_mib` tells the peak
        since the process began.
    """
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    resident = _field("/proc/self/status", "VmRSS")
    if resident is None:
        return False
    return peak_memory_mib() <= int(resident.split()[0]) / 1024 + _SLACK_MIB


def peak_memory_mib() -> float:
    """Largest resident memory of this process since the watch began."""
    text = _field("/proc/self/status", "VmHWM")
    if text is not None:
        return round(int(text.split()[0]) / 1024, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # kilobytes, but bytes on macOS
    return round(peak / (_MIB if sys.platform == "darwin" else 1024), 1)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ram_gib() -> float | None:
    text = _field("/proc/meminfo", "MemTotal")
    return None if text is None else round(int(text.split()[0]) / _MIB, 1)


def _field(path: str, name: str) -> str | None:
    """Value of the first line ``name: value`` of a file of the kernel."""
    with suppress(OSError):
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            key, colon, value = line.partition(":")
            if colon and key.strip() == name:
                return value.strip()
    return None
