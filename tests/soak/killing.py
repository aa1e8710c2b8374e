"""Children that are killed: at random times, or at a given file operation.

A child is forked from a process that has imported everything, so that a
start takes a fraction of a second. The parent must not have trained anything
itself: PyTorch cannot train on both sides of a fork where there is a GPU.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from speechbrain_ee.files import whole_file

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
    """A change of a folder, by what Python tells of it."""

    pattern: str
    number: int = 1
    later: int = 0


def note_changes(
    folder: Path, kill: Change | None = None, then: Callable = die
) -> list[str]:
    """Note what changes below a folder, and die right before a change.

    For children only: hooks of the interpreter cannot be removed. What C++
    code writes (weights by ``torch.save``) is not seen.
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
    """Start a function in a child."""
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
    """Run a function in a child and kill it at a random time."""
    child = forked(function, log)
    end = time.monotonic() + rng.uniform(0.0, longest_s)
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL_S)
    os.kill(child, signal.SIGKILL)
    return status_of(child)


def expect(status: int, log: Path) -> None:
    """Raise if a child did not end well."""
    if status != 0:
        tail = log.read_text("utf-8", errors="replace")[-3000:]
        raise RuntimeError(f"A run ended with status {status}:\n{tail}")


def soak_command(soak: Callable[..., dict[str, Any]], **options: str) -> int:
    """The command line of a soak; 1 if it has found differences.

    ``soak`` is given kills, seed, an empty folder, and further options.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    for name, default in options.items():
        parser.add_argument(f"--{name}", default=default)
    chosen = vars(parser.parse_args())
    out = chosen.pop("out")
    with tempfile.TemporaryDirectory() as folder:
        result = soak(root=Path(folder), **chosen)
    text = json.dumps(result, indent=1)
    sys.stdout.write(f"{text}\n")
    if out is not None:
        with whole_file(out, text=True) as stream:
            stream.write(f"{text}\n")
    return int(bool(result["differences"]))
