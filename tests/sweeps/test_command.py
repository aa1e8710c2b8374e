"""A search from its file to its table.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from speechbrain_ee.__main__ import main
from speechbrain_ee.errors import InputError
from speechbrain_ee.sweeps import study as studies
from speechbrain_ee.sweeps.command import pairs
from speechbrain_ee.sweeps.study import StudyFolder
from tests.sweeps.conftest import SEARCH
from tests.sweeps.trainer import WORDS, errors_of


@pytest.fixture(autouse=True)
def importable(monkeypatch, repository):
    """For trainings, which are processes of their own."""
    monkeypatch.setenv("PYTHONPATH", str(repository))


def read_table(study: Path) -> list[dict[str, str]]:
    """The table as written."""
    with open(study / "results.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def run(file: Path, study: Path, *options: str) -> list[dict[str, str]]:
    """Search with one worker in this process."""
    main(["sweep", str(file), "--study-folder", str(study), *options])
    return read_table(study)


def test_search_gives_table_figure_and_a_yaml_that_runs_again(
    search, tmp_path, capsys
):
    study = tmp_path / "study"
    table = run(search(), study, "--fail=no")
    assert [row["state"] for row in table] == ["complete"] * 8
    for row in table:
        layers = yaml.safe_load(row["exit_layers"])
        alpha = float(row["distillation.alpha"])
        errors = errors_of(float(row["lr"]), layers, alpha, -1)
        assert float(row["wer dev last"]) == 100 * errors / WORDS
        macs = 1000 * layers[-1] + 10 * len(layers)
        assert float(row["macs dev last"]) == macs
    points = {
        row["point"]: (float(row["wer dev last"]), float(row["macs dev last"]))
        for row in table
    }
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
    shown = capsys.readouterr().out
    command = shown.splitlines()[-1].split()
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


def test_more_points_go_on_and_another_search_is_refused(
    search, tmp_path, capsys
):
    study = tmp_path / "study"
    few = run(search(), study, "--trials", "2")
    more = run(search(), study, "--trials", "3")
    facts = ["lr", "exit_layers", "wer dev last", "seconds"]
    assert [[row[key] for key in facts] for row in few] == [
        [row[key] for key in facts] for row in more[:2]
    ]
    assert len(more) == 3
    with pytest.raises(SystemExit):
        run(search(seed=4), study)
    assert "another seed" in capsys.readouterr().err


def test_results_alone_start_nothing(search, tmp_path, capsys):
    study = tmp_path / "study"
    with pytest.raises(SystemExit):
        run(search(), study, "--workers", "0")
    assert "holds no study" in capsys.readouterr().err
    assert not study.exists()


@pytest.mark.parametrize(
    "options, named",
    [
        (["--lrr=1"], "Did you mean lr?"),
        (["--distillation.beta=1"], "no key distillation.beta"),
        (["--launcher", "magic"], "local, submitit"),
        (["--workers", "-1"], "--workers"),
        (["--output_folder=x"], "output_folder is set by the search"),
        (["0.1"], "'0.1' is no option"),
        (["--lr=["], "no plain YAML"),
        (["--lr=1", "--lr=2"], "more than once"),
    ],
)
def test_wrong_options_are_told_before_anything_runs(
    options, named, search, tmp_path, capsys
):
    with pytest.raises(SystemExit) as left:
        run(search(), tmp_path / "study", *options)
    assert left.value.code == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_keys_and_options_of_speechbrain_are_told_apart(search, tmp_path):
    pytest.importorskip("speechbrain")
    study = tmp_path / "study"
    options = ["--trials=1", "--device=cpu", "--distillation.kind=self"]
    run(search(), study, *options, "--data_folder", "/a b")
    made = yaml.safe_load((study / "trials/0000/trial.yaml").read_text("utf-8"))
    assert made["distillation"]["kind"] == "self"
    assert made["data_folder"] == "/a b" and "device" not in made


def test_pairs_need_a_name():
    with pytest.raises(InputError, match="no option"):
        pairs(["lr=1"])


def test_workers_of_one_machine_take_devices_in_turn(search, tmp_path):
    file = search(trials=3, sampler="random", overrides={"epoch_s": 0.05})
    options = ["--workers", "2", "--devices", "7,8"]
    table = run(file, tmp_path / "study", *options)
    assert [row["state"] for row in table] == ["complete"] * 3
    notes = [path.read_text("utf-8") for path in tmp_path.rglob("notes")]
    assert {note.split()[1] for note in notes} <= {"7", "8"}


def test_single_points_need_no_database_and_are_those_of_a_study(
    search, tmp_path, capsys
):
    file, study = search(trials=3), tmp_path / "single"
    options = ["sweep", str(file), "--study-folder", str(study)]
    for point in (2, 0, 2):  # the last one is done already
        main([*options, "--point", str(point)])
        assert f"Point done: {study}/trials/000{point}" in (
            capsys.readouterr().out
        )
    assert (study / "trials/0002/notes").read_text().count("start") == 1
    table = run(file, study, "--workers", "0")
    assert [row["state"] for row in table] == [
        "complete",
        "waiting",
        "complete",
    ]
    assert not (study / "study.db").exists()
    whole = run(file, tmp_path / "whole")
    facts = [key for key in table[0] if key not in ("folder", "seconds")]
    facts.remove("front")  # the second point may beat the others
    for one, other in zip(table[::2], whole[::2], strict=True):
        assert [one[key] for key in facts] == [other[key] for key in facts]
    # workers that join later train what is left
    run(file, study)
    assert len(list(study.rglob("notes"))) == 3
    assert (study / "trials/0000/notes").read_text().count("start") == 1


def test_single_point_resumes_where_it_was_stopped(search, start, tmp_path):
    study = tmp_path / "study"
    file = search(overrides={"epoch_s": 0.5})
    worker = start(file, study, "--point=3")
    while not (study / "trials/0003/train_log.txt").is_file():
        time.sleep(0.02)
    worker.terminate()
    output, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0 and "Point stopped" in output
    run(file, study, "--workers", "0")
    main(["sweep", str(file), "--study-folder", str(study), "--point=3"])
    log = (study / "trials/0003/train_log.txt").read_text("utf-8")
    assert [line[:8] for line in log.splitlines()] == ["epoch: 1", "epoch: 2"]
    assert read_table(study)[3]["state"] == "waiting"
    assert run(file, study, "--workers", "0")[3]["state"] == "complete"


@pytest.mark.parametrize(
    "changes, point, named",
    [
        ({"overrides": {"fail": "crash"}}, 0, "out of memory"),
        ({}, 99, "none of the points 0 to 7"),
        ({"sampler": "tpe"}, 0, "tpe looks at other trials"),
        (
            {
                "objectives": SEARCH["objectives"][:1],
                "prune": {"kind": "median"},
            },
            0,
            "prune looks at other trials",
        ),
    ],
)
def test_single_point_that_cannot_be_trained_says_so(
    changes, point, named, search, tmp_path, capsys
):
    line = ["--study-folder", str(tmp_path / "study"), f"--point={point}"]
    with pytest.raises(SystemExit) as left:
        main(["sweep", str(search(**changes)), *line])
    assert left.value.code == 2
    assert named in capsys.readouterr().err


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
            seen.calls = [
                (function, arguments)
                for arguments in zip(*columns, strict=True)
            ]
            return [SimpleNamespace(job_id=f"1_{n}") for n in range(2)]

    module = ModuleType("submitit")
    module.AutoExecutor = AutoExecutor
    monkeypatch.setitem(sys.modules, "submitit", module)
    return seen


def test_submitit_gets_points_or_workers_and_its_parameters(
    search, tmp_path, monkeypatch, capsys, cluster
):
    def submit(file: Path, study: str, *more: str) -> str:
        main(
            ["sweep", str(file), "--launcher", "submitit", "--workers", "2"]
            + ["--study-folder", str(tmp_path / study), *more]
        )
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
    storage = f"sqlite:///{tmp_path}/x.db"
    submit(file, "b", "--storage", storage)
    study = str(tmp_path / "b")
    assert cluster.parameters == {"timeout_min": 5}
    assert cluster.calls == [(studies.join, (study, [], False))] * 2

    for changes, named in (
        ({"launcher": {"colour": 1}}, "submitit refuses it: colour"),
        ({"sampler": "tpe"}, "give --storage, a database"),
    ):
        with pytest.raises(SystemExit):
            submit(search(**changes), "c" + next(iter(changes)))
        assert named in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SystemExit):
        submit(search(trials=3), "a")
    assert "submitit is not installed" in capsys.readouterr().err


def test_database_that_cannot_be_opened_is_told(search, tmp_path, capsys):
    for url, named in (
        ("nothing://x", "storage: "),
        (f"sqlite:///{tmp_path}/no/x.db", "unable to open"),
    ):
        with pytest.raises(SystemExit) as left:
            run(search(storage=url), tmp_path / named[:3])
        assert left.value.code == 2
        assert named in capsys.readouterr().err


def test_study_of_an_earlier_version_is_told(search, tmp_path, capsys):
    study = tmp_path / "study"
    study.mkdir()
    (study / "journal.log").write_text("{}\n", "utf-8")
    (study / "sweep.json").write_text('{"definition": {}}', "utf-8")
    for workers in ("0", "1"):
        with pytest.raises(SystemExit):
            run(search(), study, "--workers", workers)
        assert "of an earlier version" in capsys.readouterr().err


def test_study_is_a_plain_database_of_optuna(search, tmp_path):
    """So that its dashboard opens it."""
    import optuna

    run(search(trials=2, sampler="random"), tmp_path / "a b%20?{x}#")
    folder = StudyFolder(tmp_path / "a b%20?{x}#")
    moved = (folder.path / "study.db").rename(tmp_path / "moved.db")
    (name,) = optuna.get_all_study_names(f"sqlite:///{moved}")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{moved}")
    assert study.metric_names == ["wer dev last", "macs dev last"]
    assert [t.user_attrs["point"] for t in study.trials] == [0, 1]
