"""Run a command that dies with the process that asked for it.

> python leash.py PID COMMAND ...

A worker that is killed cannot end its training any more: the kernel does.
Where there is no such kernel, the command runs all the same.

Authors
 * The speechbrain-ee contributors 2026
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become the command, which ends when the parent does.

    Arguments
    ---------
    parent : int
        Process that must be there.
    command : list of str
        Program and arguments.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel was told
            sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
