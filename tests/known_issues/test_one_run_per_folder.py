"""Two runs do not write into one output folder at the same time.

Trap avoided: they delete each other's checkpoints and mix their logs. The
lock is the kernel's: a killed run leaves none behind, nor do its workers.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.training import options
from speechbrain_ee.training.options import make_output_folder

pytest.importorskip("fcntl")


@pytest.fixture(autouse=True)
def own_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_CLAIMED", {})
    monkeypatch.setattr(options, "_PATIENCE_S", 0.2)


def in_child(work: Callable[[], None]) -> int:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(writing, b"done")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    assert os.read(reading, 4) == b"done"
    os.close(reading)
    return child


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("way", ["same", "link", "relative"])
def test_the_second_run_is_refused_while_the_first_is_at_work(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the folder is named; afterwards it may begin."""
    folder = tmp_path / "out"
    first = in_child(lambda: make_output_folder(str(folder)))
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    name = {"same": str(folder), "link": "link", "relative": "out/"}[way]
    try:
        with pytest.raises(InputError, match="output_folder: another run"):
            make_output_folder(name)
        make_output_folder(str(tmp_path / "other"))
    finally:
        kill(first)
    make_output_folder(name)
    make_output_folder(name)  # the same run may ask again


def test_workers_of_a_killed_run_do_not_hold_its_lock(tmp_path: Path) -> None:
    """A loader's process that lives on for some seconds."""
    reading, writing = os.pipe()

    def work() -> None:
        make_output_folder(str(tmp_path))
        if os.fork() == 0:
            os.write(writing, b"%8d" % os.getpid())
            signal.pause()

    kill(in_child(work))
    worker = int(os.read(reading, 8))
    try:
        os.kill(worker, 0)
        make_output_folder(str(tmp_path))
    finally:
        os.kill(worker, signal.SIGKILL)
