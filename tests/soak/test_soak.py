"""Fifty kills at random times, and nothing is lost.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import os
import random
import subprocess
import sys
import time

import pytest

from tests.soak.killing import (
    CRASHED,
    KILLED,
    forked,
    killed_at_random,
    status_of,
)

KILLS = 50


def test_a_child_ends_as_it_says(tmp_path):
    """By a status, an error, or a kill before its time."""
    log = tmp_path / "log.txt"

    def wrong() -> None:
        raise RuntimeError("a bug")

    rng = random.Random(0)
    assert status_of(forked(lambda: None)) == 0
    assert status_of(forked(lambda: sys.exit(3))) == 3
    assert status_of(forked(wrong, log)) == CRASHED
    assert "a bug" in log.read_text("utf-8")
    assert killed_at_random(lambda: time.sleep(60), 0.2, rng) == KILLED
    assert killed_at_random(lambda: None, 600.0, rng) == 0


@pytest.mark.slow
@pytest.mark.parametrize("system", ["demo", "demo_aed"])
def test_random_kills(system, repository, tmp_path):
    """Every file of every run is the same as undisturbed."""
    out = tmp_path / "soak.json"
    subprocess.run(
        [sys.executable, "-m", "tests.soak.training", f"--system={system}"]
        + [f"--kills={KILLS}", f"--out={out}"],
        cwd=repository,
        env=dict(os.environ, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES=""),
        check=True,
    )
    result = json.loads(out.read_text("utf-8"))
    assert result["kills"] >= KILLS and result["differences"] == []
    assert len(result["killed_in"]) >= 3
