"""Two processes train, validate and test as one does.

Protects: gradients, weights and logged losses of two processes are those of
one with the same utterances a step, for every kind of system and with uneven
batches; validation and traces are equal bit for bit; a process that fails
takes the other with it, with a message.

The processes are started once, for all tests of this file.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.ssl_models import write_ssl_model
from tests.training.two_processes import (
    BEAM,
    CASES,
    EVALUATED,
    evaluated,
    trained,
)

RANKS = (0, 1)
# Nothing that is drawn, which differs between processes.
CALM = {
    f"{part}_dropout": 0.0
    for part in ("hidden", "attention", "activation", "feat_proj")
}
WAIT_S = 1800  # only against hanging: the machine may be busy
# Distances relative to a step's gradient: fp32, at most 2e-7 was measured.
TOLERANCE = 1e-6
# The same where less than the model learns, or features are normalised by
# sums of many frames; 2e-6 was measured.
ROUNDED = {"frozen": 5e-6, "stages": 5e-6, "statistics": 5e-6}


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """One thread, as the processes have; no seed of other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SB_GLOBAL_SEED", raising=False)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def together(
    tmp_path_factory: pytest.TempPathFactory, repository: Path
) -> Path:
    """The folder in which two processes leave what they have found."""
    folder = tmp_path_factory.mktemp("together")
    write_ssl_model(folder.parent / "ssl", **CALM)
    started = []
    for rank in RANKS:
        environment = dict(
            os.environ,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            OMP_NUM_THREADS="1",
            CUDA_VISIBLE_DEVICES="",
            PYTHONPATH=str(repository),
        )
        environment.pop("SB_GLOBAL_SEED", None)
        with open(folder / f"{rank}.log", "w", encoding="utf-8") as log:
            started.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "tests.training.two_processes",
                        str(folder),
                    ],
                    cwd=repository,
                    env=environment,
                    stdout=log,
                    stderr=log,
                )
            )
    try:
        codes = [process.wait(WAIT_S) for process in started]
    finally:
        for process in started:
            process.kill()
    logs = [(folder / f"{rank}.log").read_text("utf-8") for rank in RANKS]
    assert codes == [0, 0], "\n".join(log[-3000:] for log in logs)
    return folder


def found(folder: Path, name: str, rank: int) -> dict[str, Any]:
    """What a process has trained."""
    return torch.load(folder / f"{name}.{rank}.pt", weights_only=True)


def distance(
    one: torch.Tensor, other: torch.Tensor, least: float = 1e-12
) -> float:
    """Of two tensors, relative to the norm of the second, or to the least."""
    if not one.is_floating_point():
        return 0.0 if torch.equal(one, other) else float("inf")
    return float((one - other).norm() / other.norm().clamp(min=least))


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    """All gradients of a step, one behind the other."""
    return torch.cat([gradients[key].flatten() for key in sorted(gradients)])


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", sorted(CASES.keys() - {"skipping"}))
def test_as_one_process(name: str, together: Path, tmp_path: Path) -> None:
    """Gradients of every step, weights, statistics, what was logged."""
    if name == "pretrained":
        write_ssl_model(tmp_path / "ssl", **CALM)
    reference = trained(name, tmp_path / "one", processes=1)
    for rank in RANKS:
        result = found(together, name, rank)
        steps = zip(result["gradients"], reference["gradients"], strict=True)
        for n, (got, expected) in enumerate(steps):
            assert got.keys() == expected.keys()
            # Behind the first step the weights differ a little, too.
            slack = 1 if n == 0 else 100
            allowed = slack * ROUNDED.get(name, TOLERANCE)
            away = distance(flat(got), flat(expected))
            assert away < allowed, (n, away)
            # Some parts' gradients are nothing but rounding.
            least = 1e-3 * float(flat(expected).norm())
            for key in got:
                away = distance(got[key], expected[key], least)
                assert away < 10 * allowed, (n, key, away)
        assert result["logged"] == pytest.approx(reference["logged"], rel=1e-5)
        for key, weight in reference["weights"].items():
            assert distance(result["weights"][key], weight) < 1e-4, key
        heard = zip(result["heard"], reference["heard"], strict=True)
        assert all(distance(*pair) < 1e-5 for pair in heard)


def test_every_process_ends_with_the_same_weights(together: Path) -> None:
    """Bit for bit, also where each drops layers of its own."""
    for name in CASES:
        first, second = (found(together, name, rank) for rank in RANKS)
        for key, weight in first["weights"].items():
            assert torch.equal(weight, second["weights"][key]), (name, key)
        assert first["logged"] == second["logged"]


def test_where_parts_are_left_unused(together: Path) -> None:
    """DDP looks for them there, and only there: it takes time."""
    unused = {n for n in CASES if found(together, n, 0)["unused"]}
    assert unused == {"stages", "pretrained", "skipping"}


@pytest.mark.usefixtures("alone")
def test_validation_and_traces(together: Path, tmp_path: Path) -> None:
    """Equal bit for bit, in every process; the main one has the files."""
    reference = json.loads(json.dumps(evaluated(tmp_path, processes=1)))
    assert len(reference["ids"]) == 22
    assert "learned" in reference["evidence"]
    for rank in RANKS:
        text = (together / f"evaluated.{rank}.json").read_text("utf-8")
        assert json.loads(text) == reference
    one, two = tmp_path / "evaluated1", together / "evaluated2"
    saved = [f"save/{path.name}" for path in one.glob("save/exit_*")]
    assert len(saved) == 1
    for name in (*EVALUATED, BEAM, *saved):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_a_process_that_fails(together: Path) -> None:
    """The other one stops, too, and says why."""
    texts = [
        json.loads((together / f"failed.{rank}.json").read_text("utf-8"))
        for rank in RANKS
    ]
    assert texts[0]["test"].startswith("InputError: decoding test: process 1")
    assert "sig" in texts[0]["test"]
    assert not texts[1]["test"].startswith("InputError")
    for text in texts:
        assert "--find_unused_parameters" in text["idle"]
