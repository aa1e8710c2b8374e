"""SpeechBrain with the contribution merged in: it trains, its tests pass.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.recipes.conftest import SHRINK, SPLITS, write_split
from tests.recipes.test_debug_runs import lay_out_samples
from upstream.assemble import Assembled
from upstream.layout import (
    INTEGRATION,
    LOBES,
    RECIPE,
    TABLE,
    TEST_FOLDERS,
    TESTS,
)

Run = Callable[..., subprocess.CompletedProcess[str]]
LOBES_PATH, INTEGRATION_PATH = (
    name.replace(".", "/") for name in (LOBES, INTEGRATION)
)
# Rows that can be run without a pre-trained model.
FROM_SCRATCH = ("digits", "conformer_ctc", "conformer_aed")


def lines(done: subprocess.CompletedProcess[str]) -> str:
    """The end of what a run said."""
    return done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="session")
def samples(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """SpeechBrain's tests/samples, as far as the rows name them."""
    split = tmp_path_factory.mktemp("corpus") / "train"
    write_split(split, 100, SPLITS["train"])
    lay_out_samples(checkout, split)


def run_row(system: str, checkout: Path, run: Run, output: Path) -> None:
    """What SpeechBrain's recipe tests do with a row, and its checks."""
    with (checkout / TABLE).open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, skipinitialspace=True)
        (row,) = (
            row for row in rows if Path(row["Hparam_file"]).stem == system
        )
    flags = row["test_debug_flags"].split()
    given = {flag.partition("=")[0] for flag in flags}
    small = [flag for flag in SHRINK if flag.partition("=")[0] not in given]
    if system.endswith("_aed"):
        small += ["--num_decoder_layers=1", "--search={beam_size: 2}"]
    done = run(
        row["Script_file"],
        row["Hparam_file"],
        *flags,
        f"--output_folder={output}",
        *small,
        path=checkout / RECIPE,
    )
    assert done.returncode == 0, lines(done)
    checks = row["test_debug_checks"]
    for name in re.search(r"file_exists=\[(.*?)\]", checks)[1].split(","):
        assert (output / name).exists(), name
    log = (output / "train_log.txt").read_text(encoding="utf-8")
    assert len(log.splitlines()) == 2
    check = re.search(r"performance_check=\[(.*?)\]", checks)[1].split(",")
    line = next(line for line in log.splitlines() if check[3].strip() in line)
    loss = float(re.search(rf"{check[1].strip()}: ([\d.e+-]+)", line)[1])
    assert loss <= float(check[2].strip().removeprefix("<="))


def test_the_recipe_runs_there(
    checkout: Path, samples: None, run_there: Run, tmp_path: Path
) -> None:
    """The flags of a row, from the root, as SpeechBrain runs them."""
    run_row("digits", checkout, run_there, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("system", FROM_SCRATCH)
def test_systems_run_there(
    system: str, checkout: Path, samples: None, run_there: Run, tmp_path: Path
) -> None:
    """The same for the systems of the papers."""
    run_row(system, checkout, run_there, tmp_path / "out")


def test_doctests_and_tests_of_some_modules(run_there: Run) -> None:
    """With SpeechBrain's doctest options, in its import mode."""
    done = run_there(
        "-m",
        "pytest",
        "-q",
        "--doctest-modules",
        "-p",
        "no:cacheprovider",
        f"{LOBES_PATH}/heads.py",
        f"{LOBES_PATH}/errors.py",
        f"{INTEGRATION_PATH}/exits/policy.py",
        f"{INTEGRATION_PATH}/exits/criteria/frames.py",
        f"{TESTS}/exits/test_policy.py",
        f"{TESTS}/models/test_state.py",
    )
    assert done.returncode == 0, lines(done)
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20


@pytest.mark.slow
def test_every_doctest(run_there: Run) -> None:
    """All of the lobes and of the integration."""
    done = run_there(
        *("-m", "pytest", "-q", "--doctest-modules", "-p", "no:cacheprovider"),
        LOBES_PATH,
        INTEGRATION_PATH,
    )
    assert done.returncode == 0, lines(done)


@pytest.mark.slow
@pytest.mark.parametrize("folder", TEST_FOLDERS)
def test_every_moved_test(
    folder: str, assembled: Assembled, run_there: Run
) -> None:
    """Room by room; what is slow here is slow there."""
    done = run_there(
        *("-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"),
        f"{TESTS}/{folder}",
    )
    assert done.returncode == 0, lines(done)
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 0
