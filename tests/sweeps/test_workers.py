"""What workers do with trainings that fail, are hopeless, or run elsewhere.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from optuna.trial import TrialState

from speechbrain_ee.__main__ import main
from speechbrain_ee.sweeps import worker
from speechbrain_ee.sweeps.study import StudyFolder

WER = [{"metric": "wer", "set": "dev", "at": "last"}]


@pytest.fixture
def run(monkeypatch, repository, tmp_path):
    """Search in this process; rows of the table."""
    monkeypatch.setenv("PYTHONPATH", str(repository))

    def search(file: Path, *options: str) -> list[dict[str, str]]:
        study = tmp_path / "study"
        main(["sweep", str(file), "--study-folder", str(study), *options])
        with open(study / "results.csv", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    return search


def test_failures_of_trainings_are_told_and_do_not_stop_the_search(
    search, run, capsys
):
    space = {"fail": {"choices": ["refuse", "crash", "once", "no"]}}
    table = run(search(space=space, sampler="grid", trials=None))
    assert [row["state"] for row in table] == ["failed"] * 2 + ["complete"] * 2
    assert [row["attempts"] for row in table] == ["1", "2", "2", "1"]
    assert "out of memory" in table[1]["error"]
    assert table[2]["error"] == ""
    assert "Point 0 failed: exit status 2" in capsys.readouterr().out


def test_exit_that_a_model_lacks_is_told(search, run):
    objectives = [{"metric": "wer", "set": "dev", "at": 3}]
    space = {"exit_layers": {"choices": [[2, 4, 6], [1, 12]]}}
    file = search(
        objectives=objectives, space=space, sampler="grid", trials=None
    )
    table = run(file)
    assert [row["state"] for row in table] == ["complete", "failed"]
    assert "at exit 3" in table[1]["error"]


def test_set_without_trace_is_told(search, run, capsys):
    file = search(objectives=[{**WER[0], "set": "devv"}], trials=1)
    with pytest.raises(SystemExit):  # no point is complete
        run(file)
    assert "sets with a trace: dev" in capsys.readouterr().out


def test_hopeless_trials_are_given_up_early(search, run, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_LOOK_S", 0.05)
    file = search(
        objectives=WER,
        sampler="grid",
        trials=None,
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
    _, study_id = folder.open()
    _, pruned = folder.storage.get_all_trials(study_id)
    assert pruned.state == TrialState.PRUNED
    # given up at the first epoch that is looked at
    assert max(pruned.intermediate_values) == 3
    assert (folder.path / "pareto.png").is_file()


def test_workers_of_one_machine_take_devices_in_turn(search, run, tmp_path):
    file = search(trials=3, sampler="random", overrides={"epoch_s": 0.05})
    table = run(file, "--workers", "2", "--devices", "7,8")
    assert [row["state"] for row in table] == ["complete"] * 3
    notes = [path.read_text("utf-8") for path in tmp_path.rglob("notes")]
    assert {note.split()[1] for note in notes} <= {"7", "8"}
    # nobody is left behind
    assert not list((tmp_path / "study/workers").iterdir())


def test_submitit_gets_workers_and_its_parameters(
    search, tmp_path, monkeypatch, capsys
):
    seen = SimpleNamespace(parameters=None, calls=[])

    class AutoExecutor:
        def __init__(self, folder: str) -> None:
            seen.folder = folder

        def update_parameters(self, **parameters: object) -> None:
            if "colour" in parameters:
                raise NameError("colour")
            seen.parameters = parameters

        def map_array(self, function, *columns):
            seen.calls = [
                (function, arguments)
                for arguments in zip(*columns, strict=True)
            ]
            return [SimpleNamespace(job_id=f"1_{n}") for n in range(2)]

    module = ModuleType("submitit")
    module.AutoExecutor = AutoExecutor
    monkeypatch.setitem(sys.modules, "submitit", module)
    study = tmp_path / "study"
    options = ["--study-folder", str(study), "--launcher", "submitit"]
    file = search(launcher={"timeout_min": 5})
    main(["sweep", str(file), "--workers", "2", *options])
    assert seen.parameters == {"timeout_min": 5}
    assert seen.calls == [(worker.join, (str(study), [], False))] * 2
    assert "Submitted: 1_0, 1_1" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["sweep", str(search(launcher={"colour": 1})), *options])
    assert "submitit refuses it: colour" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SystemExit):
        main(["sweep", str(file), *options])
    assert "submitit is not installed" in capsys.readouterr().err
