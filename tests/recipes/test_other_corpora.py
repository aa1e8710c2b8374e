"""The recipe on another corpus, with its training set in shards.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_ee.data.corpora import prepare_tedlium3
from speechbrain_ee.data.shards import write_shards
from speechbrain_ee.exits import read_trace
from tests.recipes.conftest import RATE, WORDS, say

SEGMENTS = {"train": 16, "dev": 4, "test": 4}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    root = tmp_path / "TEDLIUM_release-3"
    for seed, (split, number) in enumerate(SEGMENTS.items()):
        rng = np.random.default_rng(seed)
        lines, parts, at_s = [], [], 0.0
        for _ in range(number):
            words = list(rng.choice(WORDS, rng.integers(2, 6)))
            parts.append(say(words, rng))
            until_s = at_s + len(parts[-1]) / RATE
            place = f"talk{seed} 1 talk{seed} {at_s:.2f} {until_s:.2f}"
            lines.append(f"{place} <o,f0,male> {' '.join(words)}\n")
            at_s = until_s
        for name in ("sph", "stm"):
            (root / "legacy" / split / name).mkdir(parents=True)
        talk = root / "legacy" / split / f"sph/talk{seed}.sph"
        wave = np.concatenate(parts)
        soundfile.write(talk, wave, RATE, "PCM_16", format="NIST")
        stm = root / "legacy" / split / f"stm/talk{seed}.stm"
        stm.write_text("".join(lines), "utf-8")
    return root


def test_a_run_on_shards_of_tedlium(
    release: Path,
    shrunk: Callable[[str], tuple[str, ...]],
    run_python: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """The training talks are gone when it starts."""
    prepare_tedlium3(release, tmp_path / "prepared", ["train"])
    write_shards(tmp_path / "prepared/train.csv", tmp_path / "shards", 0.1)
    assert len(list(tmp_path.glob("shards/*.tar"))) > 2
    (release / "legacy/train/sph/talk0.sph").unlink()
    folder = tmp_path / "out"
    done = run_python(
        "train.py",
        "hparams/demo.yaml",
        "--corpus=tedlium3",
        f"--data_folder={release}",
        f"--train_shards={{source: {tmp_path / 'shards'}, buffer: 2}}",
        f"--output_folder={folder}",
        "--number_of_epochs=2",
        *shrunk("demo"),
        "--train_dataloader_opts={num_workers: 2}",
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    log = (folder / "train_log.txt").read_text(encoding="utf-8")
    assert sum(line.startswith("epoch") for line in log.splitlines()) == 2
    with (folder / "train.csv").open(newline="", encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == SEGMENTS["train"]
    assert len(read_trace(folder / "traces/dev.jsonl.gz")) == SEGMENTS["dev"]
    assert len(read_trace(folder / "traces/test.jsonl.gz")) == SEGMENTS["test"]
    assert list((folder / "model/policies").iterdir()), "dev was not found"
    report = (folder / "report/report.html").read_text(encoding="utf-8")
    assert "Conformer-CTC, 6 exits (TED-LIUM 3)" in report
