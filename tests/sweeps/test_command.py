"""A search from its file to its table.

Authors
 * The speechbrain-ee contributors 2026
"""

import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import optuna
import pytest
import yaml

from speechbrain_ee.__main__ import main
from speechbrain_ee.sweeps import study as studies
from speechbrain_ee.sweeps.study import StudyFolder
from tests.sweeps.conftest import SEARCH
from tests.sweeps.trainer import WORDS, errors_of


def test_search_gives_table_figure_and_a_yaml_that_runs_again(
    search, run, tmp_path, capsys
):
    study = tmp_path / "study"
    table = run(search(), "--fail=no")
    assert [row["state"] for row in table] == ["complete"] * 8
    points = {}
    for row in table:
        layers = yaml.safe_load(row["exit_layers"])
        alpha = float(row["distillation.alpha"])
        errors = errors_of(float(row["lr"]), layers, alpha, -1)
        wer, macs = float(row["wer dev last"]), float(row["macs dev last"])
        assert wer == 100 * errors / WORDS
        assert macs == 1000 * layers[-1] + 10 * len(layers)
        points[row["point"]] = (wer, macs)
    front = {row["point"] for row in table if row["front"] == "yes"}
    for point, mine in points.items():
        beaten = any(
            all(a <= b for a, b in zip(its, mine, strict=True)) and its != mine
            for its in points.values()
        )
        assert not (beaten and point in front)
        assert beaten or point in front or mine in map(points.get, front)
    assert (study / "pareto.png").read_bytes()[:4] == b"\x89PNG"
    assert {path.stem for path in (study / "front").iterdir()} == {
        f"{int(point):04d}" for point in front
    }
    # the command that is printed gives what the table says
    command = capsys.readouterr().out.splitlines()[-1].split()
    best = Path(command[-1])
    assert command[0] == "python" and best == study / "best.yaml"
    text = best.read_text("utf-8")
    assert "# a comment that stays" in text and "# peak" in text
    output = Path(yaml.safe_load(text)["output_folder"])
    output.mkdir(parents=True)
    subprocess.run([sys.executable, *command[1:]], check=True, timeout=60)
    log = (output / "train_log.txt").read_text("utf-8").splitlines()[-1]
    least = min(wer for wer, _ in points.values())
    assert float(log.rpartition(" ")[2]) == pytest.approx(least, abs=0.005)


def test_more_points_go_on_and_another_search_is_refused(search, run, refused):
    few = run(search(), "--trials", "2")
    more = run(search(), "--trials", "3")
    facts = ["lr", "exit_layers", "wer dev last", "seconds"]
    assert [[row[key] for key in facts] for row in few] == [
        [row[key] for key in facts] for row in more[:2]
    ]
    assert len(more) == 3
    assert "another seed" in refused(search(seed=4))


@pytest.mark.parametrize(
    "options, named",
    [
        (["--workers", "0"], "holds no study"),
        (["--lrr=1"], "Did you mean lr?"),
        (["--distillation.beta=1"], "no key distillation.beta"),
        (["--launcher", "magic"], "invalid choice: 'magic'"),
        (["--workers", "-1"], "--workers"),
        (["--output_folder=x"], "output_folder is set by the search"),
        (["0.1"], "'0.1' is no option"),
        (["--lr=["], "not YAML"),
        (["--lr=1", "--lr=2"], "more than once"),
    ],
)
def test_wrong_options_are_told_before_anything_runs(
    options, named, search, refused, tmp_path
):
    assert named in refused(search(), *options)
    assert not (tmp_path / "study").exists()


def test_keys_and_options_of_speechbrain_are_told_apart(search, run, tmp_path):
    options = ["--trials=1", "--device=cpu", "--distillation.kind=self"]
    run(search(), *options, "--data_folder", "/a b")
    path = tmp_path / "study/trials/0000/trial.yaml"
    made = yaml.safe_load(path.read_text("utf-8"))
    assert made["distillation"]["kind"] == "self"
    assert made["data_folder"] == "/a b" and "device" not in made


def test_workers_of_one_machine_take_devices_in_turn(search, run, tmp_path):
    file = search(trials=3, sampler="random", overrides={"epoch_s": 0.05})
    table = run(file, "--workers", "2", "--devices", "7,8")
    assert [row["state"] for row in table] == ["complete"] * 3
    notes = [path.read_text("utf-8") for path in tmp_path.rglob("notes")]
    assert {note.split()[1] for note in notes} <= {"7", "8"}


def test_single_points_need_no_database_and_are_those_of_a_study(
    search, run, tmp_path, capsys
):
    file, study = search(trials=3), tmp_path / "study"
    options = ["sweep", str(file), "--study-folder", str(study)]
    for point in (2, 0, 2):  # the last one is done already
        main([*options, "--point", str(point)])
        said = capsys.readouterr().out
        assert f"Point done: {study}/trials/000{point}" in said
    assert (study / "trials/0002/notes").read_text().count("start") == 1
    table = run(file, "--workers", "0")
    states = [row["state"] for row in table]
    assert states == ["complete", "waiting", "complete"]
    assert not (study / "study.db").exists()
    whole = run(file, study="whole")
    # the second point may beat the others
    facts = table[0].keys() - {"folder", "seconds", "front"}
    for one, other in zip(table[::2], whole[::2], strict=True):
        assert [one[key] for key in facts] == [other[key] for key in facts]
    # workers that join later train what is left
    run(file)
    assert len(list(study.rglob("notes"))) == 3
    assert (study / "trials/0000/notes").read_text().count("start") == 1


def test_single_point_resumes_where_it_was_stopped(
    search, run, start, tmp_path
):
    study = tmp_path / "study"
    file = search(overrides={"epoch_s": 0.5})
    worker = start(file, study, "--point=3")
    while not (study / "trials/0003/train_log.txt").is_file():
        time.sleep(0.02)
    worker.terminate()
    output, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0 and "Point stopped" in output
    assert run(file, "--workers", "0")[3]["state"] == "waiting"
    main(["sweep", str(file), "--study-folder", str(study), "--point=3"])
    log = (study / "trials/0003/train_log.txt").read_text("utf-8")
    assert [line[:8] for line in log.splitlines()] == ["epoch: 1", "epoch: 2"]
    assert run(file, "--workers", "0")[3]["state"] == "complete"


@pytest.mark.parametrize(
    "changes, point, named",
    [
        ({"overrides": {"fail": "crash"}}, 0, "out of memory"),
        ({}, 99, "none of the points 0 to 7"),
        ({"sampler": "tpe"}, 0, "tpe looks at other trials"),
        (
            {"objectives": SEARCH["objectives"][:1], "prune": {}},
            0,
            "prune looks at other trials",
        ),
    ],
)
def test_single_point_that_cannot_be_trained_says_so(
    changes, point, named, search, refused
):
    assert named in refused(search(**changes), f"--point={point}")


@pytest.fixture
def cluster(monkeypatch):
    """What submitit is asked for."""
    seen = SimpleNamespace(parameters=None, calls=[])

    class AutoExecutor:
        def __init__(self, folder: str) -> None:
            seen.folder = folder

        def update_parameters(self, **parameters: object) -> None:
            if "colour" in parameters:
                raise NameError("colour")
            seen.parameters = parameters

        def map_array(self, function, *columns):
            calls = zip(*columns, strict=True)
            seen.calls = [(function, arguments) for arguments in calls]
            return [SimpleNamespace(job_id=f"1_{n}") for n in range(2)]

    module = ModuleType("submitit")
    module.AutoExecutor = AutoExecutor
    monkeypatch.setitem(sys.modules, "submitit", module)
    return seen


def test_submitit_gets_points_or_workers_and_its_parameters(
    search, refused, tmp_path, monkeypatch, capsys, cluster
):
    jobs = ["--launcher", "submitit", "--workers", "2"]

    def submit(file: Path, study: str, *more: str) -> str:
        folder = ["--study-folder", str(tmp_path / study)]
        main(["sweep", str(file), *jobs, *folder, *more])
        return capsys.readouterr().out

    study = str(tmp_path / "a")
    file = search(launcher={"timeout_min": 5}, trials=3)
    assert "Submitted: 1_0, 1_1" in submit(file, "a")
    limits = {"timeout_min": 5, "slurm_array_parallelism": 2}
    assert cluster.parameters == limits
    train = studies.train_point
    assert cluster.calls == [(train, (study, n, [])) for n in range(3)]
    main(["sweep", str(file), "--study-folder", study, "--point=1"])
    submit(file, "a")  # what is done is not done again
    assert [call[1][1] for call in cluster.calls] == [0, 2]
    submit(file, "b", "--storage", f"sqlite:///{tmp_path}/x.db")
    study = str(tmp_path / "b")
    assert cluster.parameters == {"timeout_min": 5}
    assert cluster.calls == [(studies.join, (study, [], False))] * 2

    for changes, named in (
        ({"launcher": {"colour": 1}}, "submitit refuses it: colour"),
        ({"sampler": "tpe"}, "give --storage, a database"),
    ):
        study = "c" + next(iter(changes))
        assert named in refused(search(**changes), *jobs, study=study)
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "submitit is not installed" in refused(search(), *jobs, study="d")


@pytest.mark.parametrize(
    "url, named",
    [
        ("nothing://x", "storage: "),
        ("sqlite:////no/such/folder/x.db", "unable to open"),
    ],
)
def test_database_that_cannot_be_opened_is_told(url, named, search, refused):
    assert named in refused(search(storage=url))


def test_study_of_an_earlier_version_is_told(search, refused, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    (study / "journal.log").write_text("{}\n", "utf-8")
    (study / "sweep.json").write_text('{"definition": {}}', "utf-8")
    for workers in ("0", "1"):
        said = refused(search(), "--workers", workers)
        assert "of an earlier version" in said


def test_study_is_a_plain_database_of_optuna(search, run, tmp_path):
    """So that its dashboard opens it."""
    run(search(trials=2, sampler="random"), study="a b%20?{x}#")
    folder = StudyFolder(tmp_path / "a b%20?{x}#")
    moved = (folder.path / "study.db").rename(tmp_path / "moved.db")
    (name,) = optuna.get_all_study_names(f"sqlite:///{moved}")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{moved}")
    assert study.metric_names == ["wer dev last", "macs dev last"]
    assert [t.user_attrs["point"] for t in study.trials] == [0, 1]
