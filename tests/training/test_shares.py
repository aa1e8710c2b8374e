"""Batches shared by processes.

Protects: every utterance once an epoch over all processes, as many batches
for each in training, and in every step those that one process would see;
results put back into the order of the batches.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
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

UTTERANCES = 37
ROWS = {f"u{n}": {"duration": 1 + n % 9} for n in range(UTTERANCES)}


def dynamic() -> DynamicBatchSampler:
    """As in a recipe: batches of many sizes, in random order."""
    data = DynamicItemDataset(ROWS, output_keys=["id"])
    return DynamicBatchSampler(data, max_batch_length=20, num_buckets=3, seed=1)


def fixed(size: int) -> BatchSampler:
    """Batches of a size, in random order."""
    sampler = ReproducibleRandomSampler(range(UTTERANCES), seed=1)
    return BatchSampler(sampler, size, drop_last=False)


def steps(make: object, processes: int, epoch: int) -> list[list[list[int]]]:
    """By step, the batches of all processes; as many from each."""
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


def test_a_lost_batch_is_found() -> None:
    with pytest.raises(RuntimeError, match="process 0 brings 1 of 3"):
        in_order([["a"], ["b", "d"]])


def test_a_process_alone() -> None:
    """It has what it has, and raises what it raises."""
    assert gather([0.1, None]) == [[0.1, None]]
    rates = ExitErrorRates([2])
    rates.append(["a b"], [["a"]])
    add_over_processes(rates)
    assert rates.wer == (50.0,)
    with pytest.raises(KeyError), all_or_none("reading"):
        raise KeyError
