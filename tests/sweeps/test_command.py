"""A search from its file to its table.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from speechbrain_ee.__main__ import main
from speechbrain_ee.errors import InputError
from speechbrain_ee.sweeps.command import pairs
from tests.sweeps.trainer import WORDS, errors_of


def read_table(study: Path) -> list[dict[str, str]]:
    """The table as written."""
    with open(study / "results.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def run(file: Path, study: Path, *options: str) -> list[dict[str, str]]:
    """Search with one worker in this process."""
    main(["sweep", str(file), "--study-folder", str(study), *options])
    return read_table(study)


def test_search_gives_table_figure_and_a_yaml_that_runs_again(
    search, tmp_path, capsys, monkeypatch, repository
):
    monkeypatch.setenv("PYTHONPATH", str(repository))
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
    search, tmp_path, capsys, monkeypatch, repository
):
    monkeypatch.setenv("PYTHONPATH", str(repository))
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


def test_keys_and_options_of_speechbrain_are_told_apart(
    search, tmp_path, monkeypatch, repository
):
    pytest.importorskip("speechbrain")
    monkeypatch.setenv("PYTHONPATH", str(repository))
    study = tmp_path / "study"
    options = ["--trials=1", "--device=cpu", "--distillation.kind=self"]
    run(search(), study, *options, "--data_folder", "/a b")
    made = yaml.safe_load((study / "trials/0000/trial.yaml").read_text("utf-8"))
    assert made["distillation"]["kind"] == "self"
    assert made["data_folder"] == "/a b" and "device" not in made


def test_pairs_need_a_name():
    with pytest.raises(InputError, match="no option"):
        pairs(["lr=1"])
