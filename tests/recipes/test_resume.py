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
import torch

from speechbrain_ee.errors import INTERRUPTED
from tests.soak.killing import KILLED
from tests.soak.planned import KILLS
from tests.soak.runs import (
    EPOCHS,
    differences,
    facts,
    newest_checkpoint,
    stage,
    write_corpus,
)


@pytest.fixture(scope="module")
def folder(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Holds the output folders ``whole`` and ``parts``."""
    root = tmp_path_factory.mktemp("resume")
    corpus = write_corpus(root / "corpus")
    done = run_python("-m", "tests.soak.planned", corpus, root, cwd=repository)
    assert done.returncode == 0, done.stderr[-2000:]
    return root


def notes(path: Path) -> list[str]:
    """The steps in the order in which they were done."""
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
    """Losses, learning rates and batches of every step; weights, moments.

    And all the files that training, evaluation and export write.
    """
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


def test_the_comparison_sees_a_difference(folder: Path, tmp_path: Path) -> None:
    """A bit of the weights, a word of the log, a file, a step."""
    copy = tmp_path / "copy"
    shutil.copytree(folder / "whole", copy)
    shutil.copy(folder / "whole.notes", tmp_path / "copy.notes")
    whole = facts(folder / "whole")
    assert differences(whole, facts(copy, was=folder / "whole")) == []
    newest = newest_checkpoint(copy / "save")
    weights = torch.load(newest / "model.ckpt", weights_only=True)
    last = next(reversed(weights.values())).view(torch.uint8).flatten()
    last[0] ^= 1
    torch.save(weights, newest / "model.ckpt")
    (copy / "report/report.json").unlink()
    log = (copy / "train_log.txt").read_text("utf-8")
    (copy / "train_log.txt").write_text(log.replace("1", "2"), "utf-8")
    steps = (tmp_path / "copy.notes").read_text("utf-8")
    (tmp_path / "copy.notes").write_text(steps.replace("0x", "-0x", 1), "utf-8")
    assert differences(whole, facts(copy, was=folder / "whole")) == [
        "checkpoint/model.ckpt",
        "epoch 1, step 1",
        "report/report.json",
        "train_log.txt",
    ]


def test_the_train_log_has_a_line_per_epoch(folder: Path) -> None:
    """Also of the epochs that were killed around their line."""
    log = (folder / "parts/train_log.txt").read_text("utf-8")
    begin = [line.split(",")[0] for line in log.splitlines()]
    assert begin == [f"epoch: {epoch}" for epoch in range(1, EPOCHS + 1)]


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
