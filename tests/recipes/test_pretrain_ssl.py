"""The script that pre-trains a backbone, from its command line.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from speechbrain_ee.training.pretrainer import SUMMARY
from tests.training.pretraining_runs import (
    TINY,
    pretrainer,
    weights,
    write_corpus,
)

Run = Callable[..., None]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated audio, only to be read."""
    return write_corpus(tmp_path_factory.mktemp("audio"))


@pytest.fixture
def run(corpus: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call the script with tiny sizes and some flags more."""
    script = repository / "recipes/LibriSpeech/EarlyExit/pretrain_ssl.py"
    main = runpy.run_path(str(script))["main"]

    def call(*flags: object) -> None:
        sizes = [f"--data_folder={corpus}"]
        for name, value in vars(TINY).items():
            if name != "steps":
                several = value if isinstance(value, tuple) else (value,)
                sizes += [f"--{name}", *map(str, several)]
        monkeypatch.setattr(sys, "argv", ["x", *sizes, *map(str, flags)])
        main()

    return call


SPLITS = ("--splits", "train", "--valid_splits", "dev")


def test_script_does_what_the_library_does(
    run: Run, corpus: Path, tmp_path: Path
) -> None:
    """Same weights."""
    pretrainer(corpus, tmp_path / "library").run()
    run(f"--out={tmp_path / 'script'}", *SPLITS, f"--steps={TINY.steps}")
    one, other = weights(tmp_path / "library"), weights(tmp_path / "script")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_minutes_become_steps(run: Run, tmp_path: Path) -> None:
    """A trial says how many; a second call goes on with the same number."""
    flags = (f"--out={tmp_path}", "--splits", "train", "dev", "--minutes=0.01")
    run(*flags)
    summary = json.loads((tmp_path / SUMMARY).read_text("utf-8"))
    assert summary["step"] == summary["options"]["steps"] >= 1
    # Of 16 utterances every fiftieth is held out: the first, 1.2 s.
    assert summary["valid_hours"] == pytest.approx(1.2 / 3600, abs=6e-4)
    run(*flags)
    again = json.loads((tmp_path / SUMMARY).read_text("utf-8"))
    assert again == summary


@pytest.mark.parametrize(
    "wrong",
    ["--lr=-1.0", "--device=abacus", "--minutes=0", "--steps=0"],
)
def test_wrong_option_ends_with_status_2(
    wrong: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a paragraph that names it; nothing is written."""
    name, _, value = wrong.partition("=")
    length = () if name in ("--steps", "--minutes") else ("--steps=1",)
    with pytest.raises(SystemExit) as left:
        run(f"--out={tmp_path / 'new'}", *SPLITS, *length, wrong)
    assert left.value.code == 2
    assert f"error: {name}: {value}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_folder_that_cannot_be_written_is_named(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here a file is in its place."""
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as left:
        run(f"--out={tmp_path / 'file' / 'model'}", *SPLITS, "--steps=1")
    assert left.value.code == 2
    assert f"error: --out: {tmp_path}" in capsys.readouterr().err
