"""What workers do with trainings that fail, are hopeless, or run elsewhere.

Authors
 * The speechbrain-ee contributors 2026
"""

import threading
import time
from pathlib import Path

import optuna
import pytest
from msgspec.structs import replace
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from sqlalchemy import event

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import calibrate_trace
from speechbrain_ee.exits.calibration.policy_file import write_policy
from speechbrain_ee.exits.trace import (
    ExitRecord,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_file import (
    read_trace,
    write_trace,
)
from speechbrain_ee.sweeps import study as studies
from speechbrain_ee.sweeps.definition import Definition, Objective
from speechbrain_ee.sweeps.results import rows_of
from speechbrain_ee.sweeps.study import StudyFolder, join
from speechbrain_ee.sweeps.trial import Ended, outcome

pytestmark = pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning",
    "ignore:Heartbeat of storage is supposed",
)
WER = [{"metric": "wer", "set": "dev", "at": "last"}]


@pytest.fixture
def folder(search, tmp_path, monkeypatch):
    """A study of two points, where workers are soon taken for dead."""
    monkeypatch.setattr(studies, "_SETTLED_S", 0.0)
    monkeypatch.setattr(studies, "_WAIT_S", 0.1)
    definition = Definition.read(search(sampler="random", trials=2, stale_s=1))
    return StudyFolder.make(tmp_path / "study", definition)


def starts(folder: StudyFolder, point: int) -> int:
    """How many trainings of a point began."""
    return (folder.trial(point) / "notes").read_text("utf-8").count("start")


def test_failures_of_trainings_are_told_and_do_not_stop_the_search(
    search, run, capsys
):
    space = {"fail": {"choices": ["refuse", "crash", "once", "no"]}}
    file = search(space=space, sampler="grid")
    table = run(file)
    assert [row["state"] for row in table] == ["failed"] * 2 + ["complete"] * 2
    assert [row["attempts"] for row in table] == ["1", "2", "2", "1"]
    assert "out of memory" in table[1]["error"]
    assert table[2]["error"] == ""
    assert "Point 0 failed: exit status 2" in capsys.readouterr().out
    # whoever allows more crashes tries what crashed once more
    table = run(search(space=space, sampler="grid", crashes=3))
    assert [row["attempts"] for row in table] == ["1", "3", "2", "1"]


def test_exit_that_a_model_lacks_is_told(search, run):
    objectives = [{"metric": "wer", "set": "dev", "at": 3}]
    space = {"exit_layers": {"choices": [[2, 4, 6], [1, 12]]}}
    table = run(search(objectives=objectives, space=space, sampler="grid"))
    assert [row["state"] for row in table] == ["complete", "failed"]
    assert "at exit 3" in table[1]["error"]


def test_set_without_trace_is_told(search, refused):
    file = search(objectives=[{**WER[0], "set": "devv"}], trials=1)
    assert "sets with a trace: dev" in refused(file)


def test_hopeless_trials_are_given_up_early(search, run, tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "_LOOK_S", 0.05)
    file = search(
        objectives=WER,
        sampler="grid",
        space={"lr": {"choices": [0.01, 0.1]}},
        overrides={"number_of_epochs": 100, "epoch_s": 0.01},
        prune={"kind": "threshold", "after_epochs": 3, "upper": 30.0},
    )
    table = run(file)
    assert [row["state"] for row in table] == ["complete", "pruned"]
    assert [row["front"] for row in table] == ["yes", "no"]
    folder = StudyFolder(tmp_path / "study")
    log = (folder.trial(1) / "train_log.txt").read_text("utf-8")
    assert 3 <= len(log.splitlines()) < 100
    assert not (folder.trial(1) / "traces").exists()
    _, pruned = folder.trials()
    assert pruned.state == TrialState.PRUNED
    # given up at the first epoch that is looked at
    assert max(pruned.intermediate_values) == 3
    assert (folder.path / "pareto.png").is_file()


def test_worker_that_died_before_its_first_heartbeat_is_replaced(folder):
    folder.open().ask()  # and nothing more
    join(folder.path)
    rows = rows_of(folder)
    assert [row.state for row in rows] == ["complete"] * 2
    assert [row.attempts for row in rows] == [2, 1]
    assert [row.parameters for row in rows] == folder.points
    lost, _, again = folder.trials()
    assert lost.state == TrialState.FAIL and not lost.params
    history = RetryHeartbeatStaleTrialCallback.retry_history(again)
    assert history == [lost.number]


def test_point_that_kills_its_workers_is_given_up(folder, monkeypatch):
    monkeypatch.setattr(studies, "_MAX_LOST", 2)
    study = folder.open()
    for _ in range(2):
        study.tell(study.ask(), state=TrialState.FAIL)
        RetryHeartbeatStaleTrialCallback()(study, study.trials[-1])
    study.tell(study.ask(), state=TrialState.FAIL)
    join(folder.path)
    rows = rows_of(folder)
    assert [row.state for row in rows] == ["failed", "complete"]
    assert rows[0].error == "its worker died"


def test_point_that_two_workers_queued_is_trained_once(folder):
    study = folder.open()
    study.tell(study.ask(), state=TrialState.FAIL)
    for _ in range(2):
        RetryHeartbeatStaleTrialCallback()(study, study.trials[0])
    join(folder.path)
    rows = rows_of(folder)
    assert [row.state for row in rows] == ["complete"] * 2
    assert [row.attempts for row in rows] == [2, 1]
    assert [starts(folder, point) for point in range(2)] == [1, 1]


def test_two_workers_that_ask_for_the_last_point_make_no_other(folder):
    study = folder.open()
    for _ in range(3):
        study.enqueue_trial({})
    join(folder.path)
    assert [row.attempts for row in rows_of(folder)] == [1, 1]
    surplus = folder.trials()[2]
    assert surplus.state == TrialState.FAIL
    # once the search has a third point, that is the trial that is repeated
    more = replace(folder.definition, trials=3)
    folder = StudyFolder.make(folder.path, more)
    join(folder.path)
    assert [row.attempts for row in rows_of(folder)] == [1, 1, 2]
    assert rows_of(folder)[2].parameters == folder.points[2]


def test_worker_that_slept_finds_its_trial_taken(folder, monkeypatch):
    as_ever = StudyFolder.train

    def asleep(self, point, values, run_options, stop, watch) -> Ended:
        """Meanwhile another worker takes this one for dead.

        Nobody looks while it trains: it is over before.
        """
        monkeypatch.setattr(StudyFolder, "train", as_ever)
        other = self.open()
        other.tell(other.trials[-1].number, state=TrialState.FAIL)
        return as_ever(self, point, values, run_options, stop)

    monkeypatch.setattr(StudyFolder, "train", asleep)
    join(folder.path)
    rows = rows_of(folder)
    assert [(row.state, row.attempts) for row in rows] == [
        ("complete", 2),
        ("complete", 1),
    ]
    # what it had computed is there, and was not computed again
    assert [starts(folder, point) for point in range(2)] == [1, 1]
    states = [trial.state for trial in folder.trials()]
    assert states.count(TrialState.COMPLETE) == 2


def test_no_two_workers_take_the_same_trial(folder):
    """SQLite locks no rows, so Optuna alone would let two have one."""
    folder.open().enqueue_trial({})
    storage = folder._storage()
    slow = optuna.load_study(study_name="sweep", storage=storage)
    has_read = threading.Event()

    @event.listens_for(storage.engine, "before_cursor_execute")
    def nap(_, __, statement: str, *___: object) -> None:
        if statement.startswith("UPDATE trials"):
            has_read.set()
            time.sleep(0.5)

    taken = []
    thread = threading.Thread(target=lambda: taken.append(slow.ask().number))
    thread.start()
    assert has_read.wait(10)
    taken.append(folder.open().ask().number)
    thread.join()
    assert sorted(taken) == [0, 1]


# ---- What a training is worth, against sums by hand ------------------------

# Entropy at the first exit, errors at both, of references of ten words.
FIRST_STAYS = [(0.1, 1, 0), (0.9, 6, 2), (0.2, 0, 1), (0.8, 5, 1)]
MACS = (100, 300)


def write(path: Path, macs: tuple[int | None, ...]) -> None:
    """A trace of four utterances."""
    exits = [
        (
            ExitRecord(2, errors=a, macs=macs[0], evidence={"entropy": e}),
            ExitRecord(4, errors=b, macs=macs[1], evidence={"entropy": 0.0}),
        )
        for e, a, b in FIRST_STAYS
    ]
    records = [
        UtteranceRecord(f"u{number}", "dev", "w " * 9 + "w", each)
        for number, each in enumerate(exits)
    ]
    write_trace(path, TraceHeader("m", "greedy", (2, 4)), records)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The output folder of a training."""
    path = tmp_path / "traces/dev.jsonl.gz"
    write(path, MACS)
    policy = calibrate_trace(read_trace(path), "entropy", "layers=3", "naive")
    assert policy.satisfied
    write_policy(tmp_path / "save/policies/learned.naive.yaml", policy)
    return tmp_path


@pytest.mark.parametrize(
    "at, errors, layers, macs",
    [
        ("last", 0 + 2 + 1 + 1, 4, 300),
        (1, 1 + 6 + 0 + 5, 2, 100),
        # the two with little entropy leave early
        ("naive", 1 + 2 + 0 + 1, 3, 200),
    ],
)
def test_operating_points_are_sums_by_hand(trained, at, errors, layers, macs):
    wanted = [Objective(name, "dev", at) for name in ("wer", "layers", "macs")]
    assert outcome(trained, wanted) == [100 * errors / 40, layers, macs]


def test_what_a_training_did_not_leave_is_told(trained):
    with pytest.raises(InputError, match="learned.ltt.yaml"):
        outcome(trained, [Objective("wer", "dev", "ltt")])
    write(trained / "traces/dev.jsonl.gz", (None, None))
    with pytest.raises(InputError, match="objective macs dev last"):
        outcome(trained, [Objective("macs", "dev")])
