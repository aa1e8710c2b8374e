"""Searches over trainings by the recipe itself, on a few tones for words.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.recipes.conftest import SHRINK, write_split
from tests.sweeps.conftest import ended
from tests.sweeps.test_killed_workers import found, kill_some

SPLITS = {"train-clean": 12, "dev-clean": 6, "test-clean": 2, "test-other": 2}
SPACE = {
    "shape": {
        "kind": "together",
        "choices": [
            {"num_encoder_layers": 2, "exit_layers": [1, 2]},
            {"num_encoder_layers": 3, "exit_layers": [1, 3]},
        ],
    },
    "lr": {"choices": [0.001, 0.01]},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus in LibriSpeech layout, tones for words; only to be read."""
    root = tmp_path_factory.mktemp("corpus")
    for speaker, (split, number) in enumerate(SPLITS.items(), start=100):
        write_split(root / split, speaker, number)
    return root


@pytest.fixture
def options(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What makes the demo's YAML a matter of seconds."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    small = [option for option in SHRINK if "num_encoder" not in option]
    return [*small, "--number_of_epochs=2", f"--data_folder={corpus}"]


@pytest.fixture
def file(repository: Path, tmp_path: Path) -> Path:
    """A grid of four points over the demo's YAML."""
    recipe = repository / "recipes/LibriSpeech/EarlyExit"
    content = {
        "base": str(repository / "hparams/demo.yaml"),
        "script": str(recipe / "train.py"),
        "sampler": "grid",
        "stale_s": 10,
        "objectives": [
            {"metric": "wer", "set": "dev-clean", "at": "last"},
            {"metric": "macs", "set": "dev-clean", "at": "last"},
        ],
        "space": SPACE,
    }
    path = tmp_path / "hpopt.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


@pytest.mark.slow
def test_killed_workers_find_what_one_alone_finds(
    file, options, start, tmp_path
):
    study = tmp_path / "parallel"
    workers = [start(file, study, *options) for _ in range(4)]
    kill_some(workers, study, 2, seed=2, log="train.out", within_s=20)
    ended(workers, 900)
    serial = tmp_path / "serial"
    assert ended([start(file, serial, *options)], 900) == [0]
    assert found(study) == found(serial)
    for point in range(4):  # to the last loss
        logs = [
            tmp_path / name / f"trials/{point:04d}/train_log.txt"
            for name in ("serial", "parallel")
        ]
        assert logs[0].read_text("utf-8") == logs[1].read_text("utf-8")


@pytest.mark.slow
def test_speechbrain_hpopt_reports_the_validation_wer(
    options, repository, tmp_path
):
    recipe = repository / "recipes/LibriSpeech/EarlyExit"
    done = subprocess.run(
        [
            sys.executable,
            "train.py",
            "hparams/demo.yaml",
            *options[:-2],
            options[-1],
            f"--hpopt={repository / 'hparams/sweeps/orion/hpopt.yaml'}",
            "--hpopt_mode=orion",
            "--number_of_epochs=1",
            f"--output_folder={tmp_path}/run",
        ],
        cwd=recipe,
        env=dict(os.environ, PYTHONPATH=str(repository)),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = [
        text for text in done.stdout.splitlines() if text.startswith('{"WER"')
    ]
    log = (tmp_path / "run/train_log.txt").read_text("utf-8")
    logged = float(log.splitlines()[0].rpartition(" ")[2])
    told = json.loads(line)
    assert told["objective"] == told["WER"] == pytest.approx(logged, rel=0.01)
