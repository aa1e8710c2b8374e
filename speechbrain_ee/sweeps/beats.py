"""Signs of life of workers, in a shared folder.

On its own machine a worker is known to be dead at once, by its process. On
another one it is taken for dead when its file has not been touched for a
while; ages are differences of times that one file server gave, so that
nodes whose clocks differ agree.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import os
import socket
import threading
import uuid
from contextlib import suppress
from pathlib import Path

from speechbrain_ee.files import whole_file

_BEATS = 6  # signs of life in the time after which one is taken for dead


class Heartbeat:
    """A worker's own sign of life, and its view of the others'.

    Arguments
    ---------
    folder : Path
        Where all workers of a study leave theirs.
    stale_s : float
        Seconds without a sign after which a worker of another machine is
        taken for dead.
    """

    def __init__(self, folder: Path, stale_s: float) -> None:
        self.folder = folder
        self.stale_s = stale_s
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.worker = name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._touch()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        with suppress(OSError):
            self._file(self.worker).unlink()

    def lives(self, worker: str) -> bool:
        """Whether a worker is taken to be at work.

        Arguments
        ---------
        worker : str
            Name.

        Returns
        -------
        bool
        """
        path = self._file(worker)
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            last = path.stat().st_mtime
        except (OSError, ValueError):
            return False  # it went, or never was
        if facts["machine"] == _machine():
            return _started(facts["pid"]) == facts["started"]
        self._touch()
        return self._file(self.worker).stat().st_mtime - last < self.stale_s

    def _beat(self) -> None:
        while not self._over.wait(self.stale_s / _BEATS):
            with suppress(OSError, ValueError):
                self._touch()

    def _touch(self) -> None:
        path = self._file(self.worker)
        try:
            os.utime(path)
        except FileNotFoundError:
            pid = os.getpid()
            facts = {
                "machine": _machine(),
                "pid": pid,
                "started": _started(pid),
            }
            with whole_file(path) as stream:
                stream.write(json.dumps(facts).encode())

    def _file(self, worker: str) -> Path:
        return self.folder / f"{worker}.json"


def _machine() -> list[str]:
    """Tells machines, their boots and containers' process tables apart."""
    facts = [socket.gethostname()]
    with suppress(OSError):
        path = Path("/proc/sys/kernel/random/boot_id")
        facts.append(path.read_text(encoding="ascii").strip())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return facts


def _started(pid: int) -> str | None:
    """When a process started; None if it is gone, or only its shell is."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return _there(pid)
    # the name in parentheses may hold anything
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]


def _there(pid: int) -> str | None:
    """Where there is no /proc."""
    if os.path.isdir("/proc/self"):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "there"
