"""Who has which point, whoever dies, sleeps, or writes half a line.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from optuna.trial import TrialState

from speechbrain_ee.sweeps import beats, ledger
from speechbrain_ee.sweeps.beats import Heartbeat
from speechbrain_ee.sweeps.definition import Definition
from speechbrain_ee.sweeps.journal import WholeLines
from speechbrain_ee.sweeps.ledger import CRASHED, REFUSED, Ledger
from speechbrain_ee.sweeps.results import rows_of
from speechbrain_ee.sweeps.study import StudyFolder

STALE_S = 60.0


class Site:
    """A study and workers that do only what they are told."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path, self.stack = path, stack

    def worker(self) -> Ledger:
        """One more worker, as on a node of its own: nothing is shared."""
        folder = StudyFolder(self.path)
        beat = Heartbeat(self.path / "workers", STALE_S)
        return Ledger(folder, self.stack.enter_context(beat))

    def states(self) -> list[str]:
        """Of all points."""
        return [row.state for row in rows_of(StudyFolder(self.path))]


@pytest.fixture
def site(search, tmp_path):
    """A study of three points."""
    definition = Definition.read(search(trials=3, sampler="random"))
    StudyFolder.make(tmp_path / "study", definition)
    with ExitStack() as stack:
        yield Site(tmp_path / "study", stack)


def edit(worker: Ledger, **facts) -> Path:
    """Change what a worker's sign of life says."""
    path = worker.beat.folder / f"{worker.beat.worker}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
    return path


def test_points_are_handed_out_once_and_in_order(site):
    one, two = site.worker(), site.worker()
    claims = [one.claim(), two.claim(), one.claim()]
    assert [claim.point for claim in claims] == [0, 1, 2]
    assert one.claim() is two.claim() is None
    assert not two.finished()
    for claim in claims:
        assert one.succeed(claim, [1.0, 2.0], 0.1)
    assert two.finished() and site.states() == ["complete"] * 3


def test_point_of_a_silent_worker_elsewhere_comes_back_with_its_values(site):
    asleep, other = site.worker(), site.worker()
    claim = asleep.claim()
    path = edit(asleep, machine=["elsewhere"])
    now = path.stat().st_mtime
    os.utime(path, (now, now - STALE_S + 5))
    assert other.claim().point == 1  # it may still be at work
    os.utime(path, (now, now - STALE_S - 5))
    again = other.claim()
    assert (again.point, again.values) == (0, claim.values)
    # awake, it finds that its trial is another one's, and changes nothing
    assert not asleep.mine(claim)
    assert not asleep.succeed(claim, [0.0, 0.0], 1.0)
    asleep.fail(claim, REFUSED, "too late")
    assert other.succeed(again, [3.0, 4.0], 1.0)
    row = rows_of(StudyFolder(site.path))[0]
    assert row.values == (3.0, 4.0) and row.attempts == 2


def test_worker_whose_process_is_gone_is_dead_at_once(site):
    gone, other = site.worker(), site.worker()
    gone.claim()
    process = subprocess.Popen([sys.executable, "-c", ""])
    try:
        # a number that is used again is another process
        edit(gone, pid=os.getpid(), started="1")
        assert not other.beat.lives(gone.beat.worker)
        while beats._started(process.pid) is not None:
            pass  # it ended, but its parent has not looked: a zombie
        edit(gone, pid=process.pid, started="1")
        assert other.claim().point == 0
    finally:
        process.wait()


def test_of_two_that_took_one_point_the_first_one_has_it(site, monkeypatch):
    """A holder of the lock who slept through the grace period."""
    slow, fast = site.worker(), site.worker()
    seen = slow._attempts()
    first = fast.claim()
    monkeypatch.setattr(slow, "_attempts", lambda: seen)
    late = slow._take(0, [])
    monkeypatch.undo()
    assert first.point == late.point == 0
    assert fast._mine(first) and not slow._mine(late)
    assert slow.claim().point == 1
    fast.succeed(first, [1.0, 1.0], 0.0)
    assert site.states() == ["complete", "running", "waiting"]


def test_failures_are_tried_again_as_often_as_allowed(site):
    worker = site.worker()
    for _ in range(worker.definition.crashes):
        claim = worker.claim()
        assert claim.point == 0
        worker.fail(claim, CRASHED, "line one\nout of memory")
    refused = worker.claim()
    worker.fail(refused, REFUSED, "no such thing")
    assert [refused.point, worker.claim().point] == [1, 2]
    rows = rows_of(StudyFolder(site.path))
    assert [row.state for row in rows] == ["failed", "failed", "running"]
    assert [row.attempts for row in rows] == [2, 1, 1]
    assert "out of memory" in rows[0].error


def test_point_that_kills_its_workers_is_given_up(site, monkeypatch):
    monkeypatch.setattr(ledger, "_MAX_LOST", 2)
    for _ in range(2):
        doomed = site.worker()
        assert doomed.claim().point == 0
        edit(doomed, started="1")
    assert site.worker().claim().point == 1


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_line_that_was_cut_is_as_if_never_written(site, cut):
    worker = site.worker()
    worker.claim()
    journal = site.path / "journal.log"
    whole = journal.read_bytes()
    worker.claim()
    journal.write_bytes(journal.read_bytes()[: len(whole) + cut])
    for _ in range(2):
        other = site.worker()
        trials = other.storage.get_all_trials(other.study_id)
        assert [trial.user_attrs["point"] for trial in trials] == [0]
    # the next entry takes its place, and all can be read
    assert other.claim().point == 1
    assert journal.read_bytes().startswith(whole)
    assert site.states() == ["running", "running", "waiting"]


def test_journal_of_one_cut_line_is_empty(tmp_path):
    path = tmp_path / "journal.log"
    path.write_bytes(b"x" * 200_000)
    backend = WholeLines(path)
    backend.append_logs([{"a": 1}, {"b": 2}])
    assert path.read_bytes() == b'{"a":1}\n{"b":2}\n'
    assert list(backend.read_logs(0)) == [{"a": 1}, {"b": 2}]


def test_sign_of_life_goes_with_the_worker(tmp_path):
    other = Heartbeat(tmp_path, STALE_S)
    with Heartbeat(tmp_path, 0.3) as mine, other:
        assert other.lives(mine.worker)
        path = tmp_path / f"{mine.worker}.json"
        os.utime(path, (0, 0))
        for _ in range(200):  # it is renewed, also when somebody removed it
            if path.exists() and path.stat().st_mtime > 1:
                break
            mine._over.wait(0.05)
        else:
            pytest.fail("no beat")
    assert not list(tmp_path.iterdir())
    assert not other.lives(mine.worker)


def test_running_points_of_a_study_that_is_only_looked_at(site):
    worker = site.worker()
    claim = worker.claim()
    trial = worker.storage.get_trial(claim.trial_id)
    assert trial.state == TrialState.RUNNING
    assert site.states() == ["running", "waiting", "waiting"]
