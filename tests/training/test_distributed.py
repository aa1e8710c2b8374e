"""Two processes train and test as one would.

Protects: every utterance once an epoch over all processes, as many batches
for each in training, and in every step those that one process would see;
gradients, logs, validation and traces equal to those of one process; a
process that fails stops the other.

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
from hypothesis import given
from hypothesis import strategies as st
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import (
    DynamicBatchSampler,
    ReproducibleRandomSampler,
)
from torch.utils.data import BatchSampler

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.distributed import (
    BatchShare,
    add_over_processes,
    all_or_none,
    evenly_split,
    gather,
    in_order,
)
from speechbrain_ee.training.monitor import ExitErrorRates
from tests.models.ssl_models import write_ssl_model
from tests.training.two_processes import (
    BEAM,
    CASES,
    EVALUATED,
    evaluated,
    trained,
)

UTTERANCES = 37
ROWS = {f"u{n}": {"duration": 1 + n % 9} for n in range(UTTERANCES)}


def dynamic() -> DynamicBatchSampler:
    data = DynamicItemDataset(ROWS, output_keys=["id"])
    return DynamicBatchSampler(data, max_batch_length=20, num_buckets=3, seed=1)


def fixed(size: int) -> BatchSampler:
    sampler = ReproducibleRandomSampler(range(UTTERANCES), seed=1)
    return BatchSampler(sampler, size, drop_last=False)


def steps(make: object, processes: int, epoch: int) -> list[list[list[int]]]:
    shares = []
    for rank in range(processes):
        share = BatchShare(make(), rank, processes, even=True)
        share.set_epoch(epoch)
        batches = list(share)
        assert len(batches) == len(share)
        shares.append(batches)
    return [list(each) for each in zip(*shares, strict=True)]


@pytest.mark.parametrize("processes", (2, 3, 4))
def test_every_utterance_once(processes: int) -> None:
    """In every epoch, and each epoch differs."""
    seen = []
    for epoch in (1, 2):
        shared = steps(dynamic, processes, epoch)
        flat = [n for step in shared for batch in step for n in batch]
        assert sorted(flat) == list(range(UTTERANCES))
        seen.append(flat)
    assert seen[0] != seen[1]


@pytest.mark.parametrize("processes", (2, 3))
def test_a_step_is_that_of_one_process(processes: int) -> None:
    """With batches as many times as large, the last one included."""
    alone = fixed(5 * processes)
    alone.sampler.set_epoch(3)
    shared = steps(lambda: fixed(5), processes, epoch=3)
    together = [[n for batch in step for n in batch] for step in shared]
    assert together == list(alone)


@given(
    st.lists(st.lists(st.integers(), min_size=1, max_size=5), max_size=9),
    st.integers(1, 5),
)
def test_split_evenly(batches: list[list[int]], processes: int) -> None:
    """Nothing is lost, repeated or moved."""
    flat = [n for batch in batches for n in batch]
    if 0 < len(flat) < processes:
        with pytest.raises(InputError, match="--nproc_per_node"):
            evenly_split(batches, processes)
        return
    split = evenly_split(batches, processes)
    assert [n for batch in split for n in batch] == flat
    assert len(split) % processes == 0 and all(split)
    whole = len(batches) // processes * processes
    if sum(map(len, batches[whole:])) >= processes or whole == len(batches):
        assert split[:whole] == batches[:whole]


def test_batches_of_one_are_shared():
    """As with batch_size 1 and an odd number of utterances."""
    split = evenly_split([[n] for n in range(7)], processes=3)
    assert split == [[0], [1], [2], [3], [4], [5, 6]]


@given(st.integers(0, 20), st.integers(1, 4))
def test_back_in_order(number: int, processes: int) -> None:
    """Shares of a test set, not made even."""
    batches = [[n] for n in range(number)]
    shares = [BatchShare(batches, r, processes) for r in range(processes)]
    assert [len(list(share)) for share in shares] == [len(s) for s in shares]
    assert in_order([list(share) for share in shares]) == batches


def test_a_process_alone() -> None:
    """It has what it has, and raises what it raises."""
    assert gather([0.1, None]) == [[0.1, None]]
    rates = ExitErrorRates([2])
    rates.append(["a b"], [["a"]])
    add_over_processes(rates)
    assert rates.wer == (50.0,)
    with pytest.raises(KeyError), all_or_none("reading"):
        raise KeyError


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
    return torch.load(folder / f"{name}.{rank}.pt", weights_only=True)


def distance(
    one: torch.Tensor, other: torch.Tensor, least: float = 1e-12
) -> float:
    if not one.is_floating_point():
        return 0.0 if torch.equal(one, other) else float("inf")
    return float((one - other).norm() / other.norm().clamp(min=least))


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
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
