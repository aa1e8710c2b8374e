"""Children that are killed: at random times, or at a given file operation.

A child is forked from a process that has imported everything, so that a
start takes a fraction of a second. The parent must not have trained anything
itself: PyTorch cannot train on both sides of a fork where there is a GPU.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import random
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# Audit events of Python that change the file system.
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
KILLED = -signal.SIGKILL  # what status_of says of a killed child
CRASHED = 70  # exit status of a child that ended in an exception
POLL_S = 0.01


def die() -> None:
    """End this process as a lost node would: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Change:
    """A change of a folder, by what Python tells of it.

    Arguments
    ---------
    pattern : str
        Regular expression for the event and the path, ``os.rename .*csv``.
    number : int
        Which one, from 1.
    later : int
        Or the change so many after it.
    """

    pattern: str
    number: int = 1
    later: int = 0


def note_changes(
    folder: Path, kill: Change | None = None, then: Callable = die
) -> list[str]:
    """Note what changes below a folder, and die right before a change.

    For children only: hooks of the interpreter cannot be removed. What C++
    code writes (weights by ``torch.save``) is not seen.

    Arguments
    ---------
    folder : Path
        Where changes count.
    kill : Change, optional
        Which one is not survived.
    then : callable
        What happens instead of it.

    Returns
    -------
    list of str
        Grows by every change.
    """
    below = f"{folder}{os.sep}"
    seen: list[str] = []
    due: list[int] = []

    def audit(event: str, arguments: tuple) -> None:
        if not _is_change(event, arguments, below):
            return
        seen.append(f"{event} {os.fsdecode(arguments[0])}")
        if kill is not None and not due:
            found = sum(bool(re.search(kill.pattern, each)) for each in seen)
            if found == kill.number:
                due.append(len(seen) + kill.later)
        if due and len(seen) == due[0]:
            then()

    sys.addaudithook(audit)
    return seen


def _is_change(event: str, arguments: tuple, below: str) -> bool:
    if event == "open":
        _, mode, flags = arguments
        reads = mode is not None and set(mode) <= set("rbt")
        if reads or not flags & (os.O_WRONLY | os.O_RDWR):
            return False
    elif event not in CHANGES:
        return False
    if not isinstance(arguments[0], str | bytes):
        return False
    # The deletion of a folder names the files by themselves.
    within = event == "os.remove" and arguments[1] != -1
    return within or os.fsdecode(arguments[0]).startswith(below)


def die_in_half_a_file(number: int) -> None:
    """Have the n-th file of ``torch.save`` cut, and this process killed."""
    as_ever, calls = torch.save, []

    def half(content: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        as_ever(content, path, *args, **kwargs)
        calls.append(path)
        if len(calls) == number:
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    torch.save = half


def forked(function: Callable[[], None], log: Path | None = None) -> int:
    """Start a function in a child.

    Arguments
    ---------
    function : callable
        What the child does.
    log : Path, optional
        Where its output goes.

    Returns
    -------
    int
        The child's process id.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = CRASHED
    try:
        # Threads do not survive a fork.
        torch.set_num_threads(1)
        if log is not None:
            out = open(log, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
            sys.stdout = sys.stderr = out
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        function()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def status_of(child: int) -> int:
    """Wait for a child; its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at_random(
    function: Callable[[], None],
    longest_s: float,
    rng: random.Random,
    log: Path | None = None,
) -> int:
    """Run a function in a child and kill it at a random time.

    Arguments
    ---------
    function : callable
        What the child does.
    longest_s : float
        It is killed after 0 to so many seconds.
    rng : random.Random
        Draws the time.
    log : Path, optional
        Where its output goes.

    Returns
    -------
    int
        -9 if it was killed; otherwise it has ended before that, with this
        exit status.
    """
    child = forked(function, log)
    end = time.monotonic() + rng.uniform(0.0, longest_s)
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL_S)
    os.kill(child, signal.SIGKILL)
    return status_of(child)
