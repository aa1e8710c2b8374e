"""Optuna's journal on a shared folder, for writers that may be killed.

Optuna's lock for files works where ``fcntl`` locks do not (NFS version 3 and
newer), and is taken over from a holder that died. What remains is a line that
a full disk or a kill cut short: the next writer removes it, because a line
that never ended was never read by anyone.

Authors
 * The speechbrain-ee contributors 2026
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

_TAIL = 1 << 16  # bytes looked through at once for the end of a line


class WholeLines(JournalFileBackend):
    """A journal whose last line is whole before another one follows.

    Arguments
    ---------
    path : Path
        The journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = JournalFileOpenLock(str(path))
        super().__init__(str(path), self._writing)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write entries behind the last whole line.

        Arguments
        ---------
        logs : list of dict
            Entries.
        """
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        content = "".join(f"{line}\n" for line in lines).encode()
        with _held(self._writing), open(self._path, "a+b", 0) as file:
            size = os.fstat(file.fileno()).st_size
            end = whole_length(file)
            if end < size == os.fstat(file.fileno()).st_size:
                file.truncate(end)
            # Appended, whatever others wrote meanwhile: a writer that was
            # stopped for longer than its lock lasts overwrites nothing.
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, "no room", str(self._path))
            os.fsync(file.fileno())


def whole_length(file: Any) -> int:
    """Bytes up to the end of the last whole line.

    Arguments
    ---------
    file : binary stream
        That can be sought in.

    Returns
    -------
    int

    Example
    -------
    >>> import io
    >>> whole_length(io.BytesIO(b"whole\\ncu"))
    6
    """
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _TAIL)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0


def open_journal(path: Path) -> JournalStorage:
    """The storage of a study.

    Arguments
    ---------
    path : Path
        The journal; made if missing.

    Returns
    -------
    optuna.storages.JournalStorage
    """
    return JournalStorage(WholeLines(path.resolve()))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock that all nodes of a shared folder respect.

    Arguments
    ---------
    path : Path
        The lock; ``.lock`` is put behind it. A holder that died loses it
        after half a minute.

    Yields
    ------
    None
    """
    with _held(JournalFileOpenLock(str(path.resolve()))):
        yield


@contextmanager
def _held(lock: JournalFileOpenLock) -> Iterator[None]:
    lock.acquire()
    try:
        yield
    finally:
        try:
            lock.release()
        except RuntimeError:
            # taken over: this process was stopped for longer than the grace
            # period; the holder's order of entries decides what counts
            pass
