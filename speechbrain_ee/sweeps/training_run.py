"""One training as a process of its own, watched while it runs.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from speechbrain_ee.sweeps import leash

OUTPUT = "train.out"  # what the training printed, of all attempts
_POLL_S = 0.2
_GRACE_S = 20.0  # to write what must be written after a polite request
_TAIL = 4000  # characters of the output that a message is taken from


@dataclass(frozen=True)
class Ended:
    """How a training ended.

    Arguments
    ---------
    status : int
        Exit status; negative: killed by that signal.
    by_us : bool
        Whether it was ended because the watcher asked for it.
    message : str
        The last that it said.
    """

    status: int
    by_us: bool
    message: str


def leashed(command: Sequence[str]) -> list[str]:
    """A command that dies with this process.

    Arguments
    ---------
    command : sequence of str
        Program and arguments.

    Returns
    -------
    list of str
    """
    wrapper = [sys.executable, "-I", leash.__file__, str(os.getpid())]
    return [*wrapper, *command]


def run_training(
    command: Sequence[str],
    folder: Path,
    start: Path,
    stop: threading.Event,
    watch: Callable[[], bool],
) -> Ended:
    """Run a training to its end, or as long as it is wanted.

    Arguments
    ---------
    command : sequence of str
        Program and arguments.
    folder : Path
        Where its output is kept.
    start : Path
        Its working directory.
    stop : threading.Event
        Set: end it.
    watch : callable
        Asked again and again; False: end it.

    Returns
    -------
    Ended
    """
    log = folder / OUTPUT
    with open(log, "ab") as stream:
        process = subprocess.Popen(
            leashed(command),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=start,
            start_new_session=True,
        )
    by_us = False
    try:
        while process.poll() is None and not by_us:
            by_us = stop.wait(_POLL_S) or not watch()
    finally:
        end_group(process)
    tail = log.read_bytes()[-_TAIL:].decode("utf-8", "replace")
    return Ended(process.returncode, by_us, tail.strip())


def end_group(process: subprocess.Popen) -> None:
    """End a process and those that it started, politely at first.

    Arguments
    ---------
    process : subprocess.Popen
        Leader of its own session.
    """
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            pass
    # loaders and helpers that outlived it, too
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
