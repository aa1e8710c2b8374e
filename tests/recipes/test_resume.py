"""A run that was killed and started again is the run that was not.

Bit by bit, on one CPU thread, with speed perturbation, SpecAugment, dropout
and gradient accumulation on. It is killed while it prepares data, learns the
tokenizer, trains, logs, saves and deletes checkpoints, evaluates and exports;
``tests/soak`` does the killing, and more of it at random times.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from speechbrain_ee.errors import INTERRUPTED
from tests.soak.killing import KILLED
from tests.soak.planned import KILLS
from tests.soak.runs import (
    EPOCHS,
    differences,
    facts,
    stage,
    write_corpus,
)


@pytest.fixture(scope="module")
def folder(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    root = tmp_path_factory.mktemp("resume")
    corpus = write_corpus(root / "corpus")
    done = run_python("-m", "tests.soak.planned", corpus, root, cwd=repository)
    assert done.returncode == 0, done.stderr[-2000:]
    return root


def notes(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def test_every_start_ended_as_planned(folder: Path) -> None:
    """Killed twelve times, once by Ctrl-C; then to the end."""
    ends = json.loads((folder / "ends.json").read_text("utf-8"))
    planned = [INTERRUPTED if kill.interrupt else KILLED for kill in KILLS]
    assert ends == [0, *planned, 0, 0]
    number = planned.index(INTERRUPTED) + 1
    log = (folder / f"log{number:02d}.txt").read_text("utf-8")
    assert log.endswith("\ninterrupted.\n")


def test_everything_is_the_same_bit_by_bit(folder: Path) -> None:
    """Losses, learning rates and batches of every step; weights, moments."""
    whole, parts = facts(folder / "whole"), facts(folder / "parts")
    assert differences(whole, parts) == []
    names = " ".join(whole)
    for name in (
        *(f"epoch {epoch}, step 3" for epoch in range(1, EPOCHS + 1)),
        "checkpoint/model.ckpt",
        "checkpoint/optimizer.ckpt",
        "train.csv",
        "traces/test-clean.jsonl.gz",
        "report/report.json",
        "model/model.safetensors",
        "wer_test-clean.txt",
    ):
        assert name in names
    # The kills were felt: steps had to be done again.
    again = notes(folder / "parts.notes")
    assert len(again) > len(notes(folder / "whole.notes"))
    assert set(again) == set(notes(folder / "whole.notes"))


def test_a_finished_run_is_only_evaluated_again(folder: Path) -> None:
    """Nothing is trained or saved, and all files are the same."""
    whole, first = folder / "whole", folder / "first"
    steps = notes(folder / "whole.notes")
    assert len(steps) == len(set(steps))
    shutil.copy(folder / "whole.notes", folder / "first.notes")
    assert differences(facts(whole), facts(first, was=whole)) == []
    times = [
        {
            path.relative_to(output): path.stat().st_mtime_ns
            for path in output.glob("save/CKPT*/*")
        }
        for output in (first, whole)
    ]
    assert times[0] == times[1] and len(times[0]) > 8
    assert stage(whole) == "export"
