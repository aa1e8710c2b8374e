"""A search over a training of a fraction of a second.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("optuna")

from speechbrain_ee.__main__ import main

BASE = """# a comment that stays
lr: 0.1  # peak
exit_layers: [2, 4]
number_of_epochs: 2
epoch_s: 0.0
fail: no
distillation:
    kind: none
    alpha: 0.0
output_folder: results
data_folder: null
"""
SEARCH = {
    "base": "base.yaml",
    "script": str(Path(__file__).with_name("trainer.py")),
    "sampler": "qmc",
    "seed": 3,
    "trials": 8,
    "objectives": [
        {"metric": "wer", "set": "dev", "at": "last"},
        {"metric": "macs", "set": "dev", "at": "last"},
    ],
    "space": {
        "lr": {"low": 0.001, "high": 0.1, "log": True},
        "exit_layers": {"choices": [[2, 4, 6], [1, 12], [3, 8]]},
        "distillation.alpha": {"low": 0.0, "high": 1.0, "step": 0.25},
    },
}


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., Path]:
    """Write a base YAML and a search; changes of the latter as arguments."""

    def write(**changes: Any) -> Path:
        (tmp_path / "base.yaml").write_text(BASE, "utf-8")
        path = tmp_path / "hpopt.yaml"
        content = {**SEARCH, **changes}
        path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
        return path

    return write


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    """For trainings, which are processes of their own."""
    monkeypatch.setenv("PYTHONPATH", str(repository))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., list[dict[str, str]]]:
    """Search with one worker in this process; rows of the table."""

    def search(file: Path, *options: str, study: str = "study"):
        folder = tmp_path / study
        main(["sweep", str(file), "--study-folder", str(folder), *options])
        with open(folder / "results.csv", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    return search


@pytest.fixture
def refused(
    run: Callable, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What a search that is refused prints."""

    def search(file: Path, *options: str, study: str = "study") -> str:
        with pytest.raises(SystemExit) as left:
            run(file, *options, study=study)
        assert left.value.code == 2
        return "".join(capsys.readouterr())

    return search


@pytest.fixture
def start() -> Callable[..., subprocess.Popen]:
    """Start a worker as a user does."""

    def worker(file: Path, study: Path, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "speechbrain_ee", "sweep", str(file)]
        return subprocess.Popen(
            [*command, "--study-folder", str(study), *options],
            env=dict(os.environ, MPLBACKEND="agg"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return worker


def ended(workers: list[subprocess.Popen], timeout: float = 120) -> list[int]:
    """The exit statuses of workers, of which some may have been killed."""
    for worker in workers:
        output, _ = worker.communicate(timeout=timeout)
        assert worker.returncode in (0, -signal.SIGKILL), output
    return [worker.returncode for worker in workers]
