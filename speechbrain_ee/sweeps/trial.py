"""One training: run as a process of its own, watched, and measured.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.curves import (
    OperatingPoint,
    measure,
)
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.sweeps.definition import LAST, POLICIES, Objective

OUTPUT = "train.out"  # what the training printed, of all attempts
_POLL_S = 0.2
_GRACE_S = 20.0  # to write what must be written after a polite request
_TAIL = 4000  # characters of the output that a message is taken from
_FIELDS = {"wer": "wer", "macs": "avg_macs", "layers": "avg_layer"}
_EPOCH = re.compile(r"^epoch: (\d+)\b")
_WER = re.compile(r"\bvalid [WC]ER L(\d+): ([\d.eE+-]+)")
# A worker that is killed cannot end its training any more: the kernel does,
# where it is Linux. Not as preexec_fn, which may hang a process with threads.
_LEASH = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # it died before the kernel was told
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Ended:
    """How a training ended: ``status`` is negative if a signal killed it.

    ``by_us`` says that the watcher asked for it; ``message`` is the last that
    it printed.
    """

    status: int
    by_us: bool
    message: str
    seconds: float


def leashed(command: Sequence[str]) -> list[str]:
    """A command that dies with this process."""
    return [sys.executable, "-I", "-c", _LEASH, str(os.getpid()), *command]


def run_training(
    command: Sequence[str],
    folder: Path,
    start: Path,
    stop: threading.Event,
    watch: Callable[[], bool],
) -> Ended:
    """Run a training in ``start`` to its end, or as long as it is wanted.

    It is ended when ``stop`` is set, or when ``watch``, which is asked again
    and again, says False. What it prints is added to a file in ``folder``.
    """
    log, begin = folder / OUTPUT, time.monotonic()
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
        _end_group(process)
    tail = log.read_bytes()[-_TAIL:].decode("utf-8", "replace")
    seconds = time.monotonic() - begin
    return Ended(process.returncode, by_us, tail.strip(), seconds)


def _end_group(process: subprocess.Popen) -> None:
    """End a process and those that it started, politely at first."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    # loaders and helpers that outlived it, too
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


@contextmanager
def told_to_stop(
    then: Callable[[], None] = lambda: None,
) -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set: there is time to tidy up.

    ``then`` is called at once; KeyboardInterrupt is raised after the block if
    it was SIGINT.
    """
    stop = threading.Event()
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)
        stop.set()
        then()

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGINT in asked:
        raise KeyboardInterrupt


def valid_wers(log: str) -> dict[int, float]:
    """Validation WER of the last exit in percent, by epoch.

    ``log`` is the content of a ``train_log.txt``; a last line without end is
    not read yet.

    Example
    -------
    >>> valid_wers("epoch: 2, lr: 0.1 - valid WER L1: 9.5, valid WER L2: 7\\n")
    {2: 7.0}
    """
    found = {}
    for line in log.rpartition("\n")[0].splitlines():
        epoch = _EPOCH.match(line)
        rates = [(int(layer), float(wer)) for layer, wer in _WER.findall(line)]
        if epoch and rates:
            found[int(epoch[1])] = max(rates)[1]
    return found


def outcome(folder: Path, objectives: Sequence[Objective]) -> list[float]:
    """The values of a finished training, from the traces that it left."""
    values = []
    for objective in objectives:
        trace = _trace(folder, objective.set)
        point = _operating_point(folder, trace, objective.at)
        value = getattr(point, _FIELDS[objective.metric])
        if value is None or not math.isfinite(value):
            raise InputError(
                f"objective {objective.label}: {trace.source} does not tell it."
            )
        values.append(float(value))
    return values


def _trace(folder: Path, name: str) -> Trace:
    path = folder / "traces" / f"{name}.jsonl.gz"
    if not path.is_file():
        there = sorted(
            each.name.removesuffix(".jsonl.gz")
            for each in path.parent.glob("*.jsonl.gz")
        )
        raise InputError(
            f"objective: {path} is not there; sets with a trace: "
            f"{', '.join(there) or 'none'}. A model with one exit leaves "
            "traces of test sets only."
        )
    return read_trace(path)


def _operating_point(
    folder: Path, trace: Trace, at: str | int
) -> OperatingPoint:
    if at not in POLICIES:
        exits = len(trace.header.exit_layers)
        exit_ = exits if at == LAST else at
        if exit_ > exits:
            raise InputError(
                f"objective: at exit {exit_}, but {trace.source} has {exits}."
            )
        return measure(trace, np.full(len(trace.records), exit_ - 1))
    # These load torch, which takes longer than all the rest of a worker.
    from speechbrain_ee.evaluation.analysis import choice_of, scored_for
    from speechbrain_ee.exits.calibration.policy_file import read_policy

    path = folder / "save/policies" / f"learned.{at}.yaml"
    policy = read_policy(path)
    (trace,) = scored_for([trace], path, policy)
    choice_N, cost_NE = choice_of(trace, policy)
    return measure(trace, choice_N, None, cost_NE)
