"""Batches from shards: all utterances, few shards, any place to go on.

Authors
 * The speechbrain-ee contributors 2026
"""

from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_ee.data.dataio import train_loader_options
from speechbrain_ee.data.shards.batches import ShardBatchSampler
from speechbrain_ee.errors import InputError
from speechbrain_ee.training.distributed import BatchShare

BATCHING = {
    "max_batch_length": 12.0,
    "num_buckets": 3,
    "shuffle": True,
    "batch_ordering": "random",
}


def corpus(rows: int, shards: int, seed: int) -> tuple[list[str], list[float]]:
    """In which shard utterances are, and their seconds."""
    rng = np.random.default_rng(seed)
    names = [f"s{number}" for number in rng.integers(shards, size=rows)]
    return names, rng.uniform(1, 6, rows).tolist()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 60),
    shards=st.integers(1, 12),
    buffer=st.integers(1, 14),
    epoch=st.integers(0, 10**6),
    by_length=st.booleans(),
    processes=st.integers(1, 3),
)
def test_every_utterance_once_an_epoch(
    rows: int,
    shards: int,
    buffer: int,
    epoch: int,
    by_length: bool,
    processes: int,
) -> None:
    """Over all processes; and no more shards at a time than allowed."""
    names, lengths = corpus(rows, shards, rows)
    sampler = ShardBatchSampler(
        names,
        lengths,
        buffer,
        seed=1,
        batching=BATCHING if by_length else None,
        batch_size=3,
        shuffle=True,
    )
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(chain(*batches)) == list(range(rows))
    if rows >= 3 * processes:
        parts = [
            list(BatchShare(sampler, rank, processes, even=True))
            for rank in range(processes)
        ]
        assert len({len(part) for part in parts}) == 1
        seen = sorted(row for part in parts for batch in part for row in batch)
        assert seen == list(range(rows))
    if by_length:
        for batch in batches:
            longest = max(lengths[row] for row in batch)
            assert len(batch) * longest <= BATCHING["max_batch_length"]

    # Shards come in groups: between the first and the last utterance of a
    # group there is none of another.
    order = [names[row] for row in chain(*batches)]
    seen_order = list(dict.fromkeys(order))
    groups = [
        set(seen_order[at : at + buffer])
        for at in range(0, len(seen_order), buffer)
    ]
    numbers = [next(n for n, g in enumerate(groups) if s in g) for s in order]
    assert numbers == sorted(numbers)


def batches_of(seed: int, epoch: int) -> list[list[int]]:
    """Those of one epoch, after another one was looked at."""
    sampler = ShardBatchSampler(*corpus(40, 6, 0), 2, seed, BATCHING)
    list(sampler)
    sampler.set_epoch(epoch)
    assert list(sampler) == list(sampler), "reading changes nothing"
    return list(sampler)


def test_seed_and_epoch_alone_decide() -> None:
    assert batches_of(1, 2) == batches_of(1, 2)
    assert batches_of(1, 2) != batches_of(1, 3)
    assert batches_of(1, 2) != batches_of(2, 2)


def test_without_shuffling_the_order_is_that_of_the_manifest() -> None:
    names = ["a", "b", "a", "b", "b"]
    plain = ShardBatchSampler(names, [1.0] * 5, 1, 0, batch_size=2)
    assert list(plain) == [[0, 2], [1, 3], [4]]
    fixed = {**BATCHING, "shuffle": False, "batch_ordering": "ascending"}
    sampler = ShardBatchSampler(names, [1.0] * 5, 1, 0, fixed)
    assert list(chain(*sampler)) == [0, 2, 1, 3, 4]
    cut = ShardBatchSampler(
        names, [1.0] * 5, 1, 0, batch_size=2, drop_last=True
    )
    assert list(cut) == [[0, 2], [1, 3]]


class Rows:
    """A data set whose items are their numbers."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> int:
        return row


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_where_it_was(
    workers: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As SpeechBrain's loader does it, whatever the number of workers."""
    sampler = ShardBatchSampler(*corpus(40, 6, 0), 2, 5, BATCHING)

    def loader() -> SaveableDataLoader:
        return SaveableDataLoader(
            Rows(), batch_sampler=sampler, num_workers=workers, collate_fn=list
        )

    sampler.set_epoch(3)
    whole = list(loader())
    assert whole == list(sampler)
    folder = tmp_path_factory.mktemp("save")
    stopped = loader()
    before = list(islice(iter(stopped), 4))
    Checkpointer(folder, {"loader": stopped}).save_checkpoint(
        end_of_epoch=False
    )
    resumed = loader()
    Checkpointer(folder, {"loader": resumed}).recover_if_possible()
    assert before + list(resumed) == whole


class Train:
    """What the loader's options read of a training set."""

    data_ids = ("u0", "u1", "u2")
    data = {
        name: {"wav": f"/s/{n % 2}.tar?bytes=0+9", "duration": 2.0}
        for n, name in enumerate(data_ids)
    }


def test_the_yaml_decides() -> None:
    """Dynamic batches, or batches of one size."""
    hparams = {
        "train_shards": {"source": "/s", "buffer": 1},
        "seed": 3,
        "dynamic_batching": BATCHING,
        "train_dataloader_opts": {"num_workers": 2, "batch_size": 2},
    }
    loader = train_loader_options(hparams, Train())
    assert loader["num_workers"] == 2 and "batch_size" not in loader
    batches = sorted(sorted(b) for b in loader["batch_sampler"])
    assert batches == [[0, 2], [1]]
    hparams["dynamic_batching"] = None
    batches = list(train_loader_options(hparams, Train())["batch_sampler"])
    assert batches == [[0, 2], [1]]
    for wrong in ({"max_length": 3}, "yes"):
        hparams["dynamic_batching"] = wrong
        with pytest.raises(InputError, match=r"^dynamic_batching: "):
            train_loader_options(hparams, Train())
