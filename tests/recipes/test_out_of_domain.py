"""A finished run is evaluated on another corpus, with the study of that.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.recipes.conftest import write_split

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("somewhere") / "other"
    write_split(root / "test-clean", 900, 5)
    return root


def test_a_finished_run_on_another_corpus(
    corpus: Path,
    other: Path,
    shrink: tuple[str, ...],
    run_python: Run,
    tmp_path: Path,
) -> None:
    """The second run trains nothing, and its report has the study."""
    folder = tmp_path / "run"
    train = [
        "hparams/demo.yaml",
        f"--data_folder={corpus}",
        f"--output_folder={folder}",
        "--number_of_epochs=1",
        "--exit_layers=[1,2]",
        "--num_encoder_layers=2",
        *shrink,
    ]
    evaluate = [
        *train,
        f"--test_splits=[test-clean, {other / 'test-clean'}]",
        "--overthinking=True",
        "--in_domain=other-test-clean",
    ]
    done = run_python("train.py", *train)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Overthinking; in domain" not in done.stdout
    assert not (folder / "report" / "overthinking.csv").exists()
    checkpoints = sorted((folder / "save").glob("CKPT*"))
    clean = (folder / "wer_test-clean.txt").read_text("utf-8")

    done = run_python("train.py", *evaluate)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted((folder / "save").glob("CKPT*")) == checkpoints
    log = (folder / "train_log.txt").read_text("utf-8")
    assert len(log.splitlines()) == 1
    assert (folder / "wer_test-clean.txt").read_text("utf-8") == clean
    report = json.loads((folder / "report/report.json").read_text("utf-8"))
    counts = {key: one["utterances"] for key, one in report["sets"].items()}
    assert counts == {"test-clean": 4, "other-test-clean": 5}
    assert report["overthinking"]["in_domain"] == "other-test-clean"
    assert (folder / "report" / "overthinking.csv").is_file()
    assert "Overthinking; in domain: other-test-clean" in done.stdout
