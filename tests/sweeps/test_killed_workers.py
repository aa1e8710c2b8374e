"""Workers that are killed lose no trial and count none twice.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from speechbrain_ee.sweeps.results import pareto_front, rows_of
from speechbrain_ee.sweeps.study import StudyFolder, by_point
from tests.sweeps.conftest import ended

pytestmark = pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning"
)
POSTGRES = ("initdb", "postgres")
FACTS = ("point", "state", "values", "parameters")


def found(study: Path) -> list[list[tuple[str, ...]]]:
    """Rows and front of a finished study: what a serial search gives, too."""
    rows = rows_of(StudyFolder(study))
    assert all(row.state == "complete" for row in rows)
    return [
        [
            tuple(json.dumps(getattr(row, name)) for name in FACTS)
            for row in each
        ]
        for each in (rows, pareto_front(rows))
    ]


def kill_some(
    workers: list,
    study: Path,
    number: int,
    seed: int,
    log: str = "notes",
    within_s: float = 0.6,
) -> None:
    """SIGKILL workers at random times while points are left."""
    chance = random.Random(seed)
    while not list((study / "trials").glob(f"*/{log}")):
        time.sleep(0.02)  # until the first one is at work
    for worker in chance.sample(workers, number):
        time.sleep(chance.uniform(0.05, within_s))
        worker.send_signal(signal.SIGKILL)


def check_book(folder: StudyFolder, points: int) -> None:
    """Every point has one trial that counts, and a training that ended."""
    trials = folder.trials()
    assert not [t for t in trials if not t.state.is_finished()]
    attempts = by_point(trials)
    assert all(point in attempts for point in range(points))
    for point in range(points):
        tried = attempts[point]
        states = Counter(trial.state for trial in tried)
        assert states[TrialState.COMPLETE] == 1
        assert {*states} <= {TrialState.COMPLETE, TrialState.FAIL}
        # whoever took over had the values of the one that died
        wanted = folder.points[point]
        for trial in tried:
            for key, each in folder.definition.space.items():
                if key in trial.params:
                    assert each.meant(trial.params[key]) == wanted[key]
            if trial.state == TrialState.FAIL:
                assert not {"crashed", "refused"} & trial.user_attrs.keys()
        notes = (folder.trial(point) / "notes").read_text("utf-8")
        assert notes.count("end") >= 1
        log = (folder.trial(point) / "train_log.txt").read_text("utf-8")
        assert [line.split(",")[0] for line in log.splitlines()] == [
            f"epoch: {epoch}" for epoch in (1, 2)
        ]


def test_two_of_four_workers_killed(search, start, tmp_path):
    file = search(overrides={"epoch_s": 0.2}, sampler="random", stale_s=3)
    study = tmp_path / "parallel"
    workers = [start(file, study) for _ in range(4)]
    kill_some(workers, study, 2, seed=1)
    assert ended(workers).count(-signal.SIGKILL) == 2
    folder = StudyFolder(study)
    check_book(folder, 8)

    file, serial = search(sampler="random", stale_s=3), tmp_path / "serial"
    assert ended([start(file, serial, "--epoch_s=0.0")]) == [0]
    assert found(study) == found(serial)


def test_training_dies_with_its_worker(search, start, tmp_path):
    study = tmp_path / "study"
    worker = start(search(overrides={"epoch_s": 60}), study)
    notes = study / "trials/0000/notes"
    while not (notes.is_file() and notes.read_text("utf-8").endswith("\n")):
        time.sleep(0.02)
    training = int(notes.read_text("utf-8").split()[2])
    worker.kill()
    worker.communicate()
    for _ in range(200):
        if not Path(f"/proc/{training}").exists():
            return
        stat = Path(f"/proc/{training}/stat").read_text("utf-8")
        if stat.rpartition(")")[2].split()[0] in "ZX":
            return
        time.sleep(0.05)
    pytest.fail("the training outlived its worker")


def test_worker_told_to_stop_gives_its_point_back(search, start, tmp_path):
    study = tmp_path / "study"
    file = search(trials=1, overrides={"epoch_s": 0.5})
    worker = start(file, study)
    while not (study / "trials/0000/train_log.txt").is_file():
        time.sleep(0.02)
    worker.terminate()
    output, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0, output
    assert "0 of 1 points complete" in output
    assert ended([start(file, study)]) == [0]
    first, second = StudyFolder(study).trials()
    assert first.user_attrs["stopped"] == 1
    retried = RetryHeartbeatStaleTrialCallback.retried_trial_number(second)
    assert retried == first.number
    assert second.state == TrialState.COMPLETE
    # the second training went on from the first one's epoch
    log = (study / "trials/0000/train_log.txt").read_text("utf-8")
    assert [line[:8] for line in log.splitlines()] == ["epoch: 1", "epoch: 2"]


@pytest.fixture
def postgres():
    """The URL of a server that this test starts, on a socket of its own."""
    pytest.importorskip("psycopg")
    folders = map(str, Path("/usr/lib/postgresql").glob("*/bin"))
    path = os.pathsep.join([os.environ["PATH"], *folders])
    programs = [shutil.which(name, path=path) for name in POSTGRES]
    if None in programs:
        pytest.skip("no PostgreSQL server is installed")
    # The server refuses to be root; sockets have short names.
    user = "nobody" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        if user is not None:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        subprocess.run(
            [programs[0], "-D", data, "-U", "tester", "-A", "trust"],
            check=True,
            user=user,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            timeout=120,
        )
        server = subprocess.Popen(
            [programs[1], "-D", data, "-k", folder, "-c", "listen_addresses="],
            user=user,
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            for line in server.stderr:
                if "ready to accept connections" in line:
                    break
            threading.Thread(target=server.stderr.read, daemon=True).start()
            yield f"postgresql+psycopg://tester@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # without waiting for clients
            server.wait(60)


def test_killed_worker_of_a_postgresql_server(
    search, start, tmp_path, postgres
):
    file = search(
        overrides={"epoch_s": 0.2}, sampler="random", trials=6, stale_s=3
    )
    study = tmp_path / "study"
    workers = [start(file, study, "--storage", postgres) for _ in range(3)]
    kill_some(workers, study, 1, seed=1)
    ended(workers)
    folder = StudyFolder(study)
    check_book(folder, 6)
    assert not (study / "study.db").exists()
    assert [row.parameters for row in rows_of(folder)] == folder.points
