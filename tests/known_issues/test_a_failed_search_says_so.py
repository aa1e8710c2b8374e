"""A search that trained nothing does not end with status 0.

Trap avoided: a script goes on with the results of a search of which every
training failed or every worker died.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("optuna")

from speechbrain_ee.__main__ import main
from speechbrain_ee.sweeps import trial
from tests.sweeps.conftest import BASE, SEARCH


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    """For trainings, which are processes of their own."""
    monkeypatch.setenv("PYTHONPATH", str(repository))


def search(folder: Path, fail: str, **changes: Any) -> list[str]:
    """A command line; the trainings fail as told."""
    text = BASE.replace("fail: no", f"fail: {fail}")
    (folder / "base.yaml").write_text(text, "utf-8")
    content = {**SEARCH, "trials": 2, **changes}
    (folder / "hpopt.yaml").write_text(yaml.safe_dump(content), "utf-8")
    study = str(folder / "study")
    return ["sweep", str(folder / "hpopt.yaml"), "--study-folder", study]


@pytest.mark.parametrize("fail, workers", [("refuse", 1), ("crash", 2)])
def test_every_training_failed(
    fail: str, workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is shown all the same."""
    with pytest.raises(SystemExit) as end:
        main([*search(tmp_path, fail), "--workers", str(workers)])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert "0 of 2 points complete" in said.out
    assert "Point 1 failed: " in said.out
    assert "error: sweep: none of 2 points was completed; 2 failed" in said.err
    main([*search(tmp_path, fail), "--workers", "0"])  # only shows it


def test_every_worker_died(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Here before they take a point."""
    line = search(tmp_path, "no")
    monkeypatch.setattr(trial, "leashed", lambda command: ["false"])
    with pytest.raises(SystemExit) as end:
        main([*line, "--workers", "2"])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert "error: sweep: all 2 workers died (exit status 1, 1)" in said.err
    assert "0 of 2 points complete" in said.out


def test_one_that_worked_is_enough(tmp_path: Path) -> None:
    """The others' failures stand in the table."""
    main([*search(tmp_path, "no"), "--workers", "1"])


def test_ctrl_c_gives_the_point_back_and_is_status_130(
    tmp_path: Path, repository: Path
) -> None:
    """With the results so far and one line."""
    line = search(tmp_path, "no", overrides={"epoch_s": 60})
    process = subprocess.Popen(
        [sys.executable, "-m", "speechbrain_ee", *line, "--workers", "2"],
        cwd=repository,
        env=dict(os.environ, PYTHONPATH=str(repository), MPLBACKEND="agg"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    trials = tmp_path / "study/trials"
    while len(list(trials.glob("*/notes"))) < 2 and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "0 of 2 points complete" in out
    assert err.count("interrupted.") == 1 and "Traceback" not in err
