"""From manifests to batches: data sets, dynamic batching, shards.

Axes: N utterances.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.tokenizers.SentencePiece import SentencePiece
from speechbrain.utils.data_utils import batch_pad_right
from speechbrain.utils.distributed import if_main_process
from torch import Tensor
from torch.utils.data import Sampler

from speechbrain_ee.data.audio import AudioReader
from speechbrain_ee.data.manifests import (
    SKIPPED_COLUMNS,
    Clip,
    check_rows,
    first_few,
    read_manifest,
    write_csv,
)
from speechbrain_ee.data.shards import ShardReader, ShardSource
from speechbrain_ee.data.words import TranscriptCheck
from speechbrain_ee.errors import InputError

logger = logging.getLogger(__name__)

TOO_FEW_FRAMES = "too few frames for its tokens"
# What SpeechBrain's sampler raises for arguments that it cannot use.
SAMPLER_ERRORS = (
    AssertionError,
    AttributeError,
    RuntimeError,
    TypeError,
    ValueError,
)
OUTPUT_KEYS = ("id", "sig", "wrd", "tokens")
SPEAKER_KEY = "spk_id"  # manifests from elsewhere may lack this column


@dataclass(frozen=True)
class Datasets:
    """The data of one experiment."""

    train: DynamicItemDataset
    valid: DynamicItemDataset
    tests: dict[str, DynamicItemDataset]


def make_datasets(
    hparams: Mapping[str, Any],
    tokenizer: SentencePiece,
    frames: Callable[[int], int] | None = None,
) -> Datasets:
    """Build the data sets that the YAML names.

    Arguments
    ---------
    hparams : mapping
        Uses ``data_folder``, ``train_csv``, ``valid_csv``, ``test_csv``,
        ``sample_rate``, ``cache_audio`` and, if it is there,
        ``train_shards``; with ``frames`` also ``save_folder``.
    tokenizer : SentencePiece
        Turns transcripts into tokens.
    frames : callable, optional
        Frames that the model makes of so many samples. Training utterances
        that have fewer than CTC needs for their tokens are left out, and
        listed in ``<save_folder>/<manifest>.skipped.csv``; of the other sets
        they are counted in the log.

    Returns
    -------
    Datasets
        Training, validation and test sets.

    Raises
    ------
    InputError
        If a manifest or its audio cannot be used, or if no training utterance
        has enough frames.
    """
    shards = hparams.get("train_shards")
    reader = AudioReader(
        hparams["sample_rate"],
        hparams["cache_audio"],
        ShardReader(ShardSource.of(shards)) if shards else None,
    )
    train = _read_manifest(hparams, hparams["train_csv"], tokenizer)
    valid = _read_manifest(hparams, hparams["valid_csv"], tokenizer)
    if not any(row["wrd"] for row in valid.data.values()):
        raise InputError(
            f"{hparams['valid_csv']}: all transcripts are empty, and the best "
            "checkpoint is chosen by its errors on them; give transcripts, "
            "or another set with --dev_splits or --valid_csv."
        )
    valid = valid.filtered_sorted(sort_key="duration", reverse=True)
    tests = {}
    test_csv = hparams["test_csv"]
    for path in [test_csv] if isinstance(test_csv, str) else test_csv:
        test = _read_manifest(hparams, path, tokenizer)
        name = os.path.splitext(os.path.basename(path))[0]
        tests[name] = test.filtered_sorted(sort_key="duration", reverse=True)
    if frames is not None:
        too_few = [
            _with_too_few_frames(dataset, tokenizer, frames, reader.sample_rate)
            for dataset in (train, valid, *tests.values())
        ]
        train = _without(train, too_few[0], hparams)
        consequence = "and cannot be recognised in full by CTC"
        for name, names in zip((hparams["valid_csv"], *tests), too_few[1:]):
            _warn(Path(name).stem, names, consequence)
    for dataset in (train, valid, *tests.values()):
        _add_pipelines(dataset, reader, tokenizer)
    return Datasets(train, valid, tests)


def _read_manifest(
    hparams: Mapping[str, Any], path: str, tokenizer: SentencePiece
) -> DynamicItemDataset:
    """A set whose transcripts are written as the tokenizer writes them."""
    rows = read_manifest(path, hparams["data_folder"])
    check_rows(path, rows)
    check = TranscriptCheck(path, tokenizer.sp)
    for row in rows.values():
        row["wrd"] = check(row["wrd"])
    if if_main_process():
        check.log()
    return DynamicItemDataset(rows)


def frames_needed(tokens: Sequence[int]) -> int:
    """Frames that CTC needs for a transcript."""
    return len(tokens) + sum(map(operator.eq, tokens, tokens[1:]))


def _with_too_few_frames(
    dataset: DynamicItemDataset,
    tokenizer: SentencePiece,
    frames: Callable[[int], int],
    sample_rate: int,
) -> list[str]:
    """IDs of the utterances that CTC cannot align."""
    return [
        name
        for name, row in dataset.data.items()
        if frames(round(row["duration"] * sample_rate))
        < frames_needed(tokenizer.sp.encode_as_ids(row["wrd"]))
    ]


def _without(
    train: DynamicItemDataset, names: Sequence[str], hparams: Mapping[str, Any]
) -> DynamicItemDataset:
    """The training set without some utterances, which are listed."""
    stem = Path(hparams["train_csv"]).stem
    if len(names) == len(train):
        raise InputError(
            f"{hparams['train_csv']}: no utterance has a frame for each of its "
            "tokens, so that CTC could learn nothing; use longer tokens "
            "(token_type, output_neurons), or a model that makes more frames "
            "per second (strides, downsampling)."
        )
    listing = Path(hparams["save_folder"], f"{stem}.skipped.csv")
    if if_main_process():
        listing.unlink(missing_ok=True)
        if names:
            wavs = [train.data[name]["wav"] for name in names]
            rows = [(*row, TOO_FEW_FRAMES) for row in zip(names, wavs)]
            write_csv(listing, SKIPPED_COLUMNS, rows)
    _warn(stem, names, f"and are left out of training (all in {listing})")
    left_out = set(names)
    return DynamicItemDataset(
        {n: row for n, row in train.data.items() if n not in left_out}
    )


def _warn(name: str, utterances: Sequence[str], consequence: str) -> None:
    """Say that utterances have too few frames, and what becomes of them."""
    if utterances and if_main_process():
        logger.warning(
            "%s: %d utterances have too few frames for their tokens %s: %s",
            name,
            len(utterances),
            consequence,
            first_few(utterances),
        )


def _add_pipelines(
    dataset: DynamicItemDataset, reader: AudioReader, tokenizer: SentencePiece
) -> None:
    @sb.utils.data_pipeline.takes("wav")
    @sb.utils.data_pipeline.provides("sig")
    def audio_pipeline(wav: str) -> Tensor:
        return reader(wav)

    @sb.utils.data_pipeline.takes("wrd")
    @sb.utils.data_pipeline.provides("tokens")
    def text_pipeline(wrd: str) -> Tensor:
        return torch.tensor(tokenizer.sp.encode_as_ids(wrd), dtype=torch.long)

    dataset.add_dynamic_item(audio_pipeline)
    dataset.add_dynamic_item(text_pipeline)
    known = all(SPEAKER_KEY in row for row in dataset.data.values())
    dataset.set_output_keys([*OUTPUT_KEYS, *[SPEAKER_KEY] * known])


def utterance_batch(examples: Sequence[Mapping[str, Any]]) -> PaddedBatch:
    """SpeechBrain's batch, also of utterances in which nobody speaks.

    Without any token, there is a column of padding, of which nothing counts.
    """
    return PaddedBatch(examples, padding_func=_padded)


def _padded(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    if any(len(tensor) for tensor in tensors):
        return batch_pad_right(tensors)
    first = tensors[0]
    return first.new_zeros(len(tensors), 1), torch.zeros(len(tensors))


class ShardBatchSampler(Sampler[list[int]]):
    """Shuffle shards, then utterances and batches among a few of them.

    The batches of an epoch depend on seed and epoch alone, and every
    utterance is in exactly one: any number of processes can share them, and a
    resumed epoch goes on where it was.
    """

    def __init__(
        self,
        shards_N: Sequence[Any],
        lengths_N: Sequence[float],
        buffer: int,
        seed: int,
        batching: Mapping[str, Any] | None = None,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
    ):
        rows: dict[Any, list[int]] = {}
        for row, shard in enumerate(shards_N):
            rows.setdefault(shard, []).append(row)
        self.rows_by_shard = list(rows.values())
        self.lengths_N = list(lengths_N)
        self.buffer, self.seed, self.batching = buffer, seed, batching
        self.batch_size, self.drop_last = batch_size, drop_last
        self.shuffle = shuffle
        if batching is not None:
            self.shuffle = batching.get("shuffle", True)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Make the batches of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        self.batches: list[list[int]] = []
        if self.batching is None:
            self._fill(rng)
        else:
            for rows in self._groups(rng):
                self._fill_by_length(rows, int(rng.integers(2**31)))

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the epoch."""
        return iter(self.batches)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.batches)

    def _groups(self, rng: np.random.Generator) -> Iterator[list[int]]:
        """The utterances of some shards, then those of others."""
        order = np.arange(len(self.rows_by_shard))
        if self.shuffle:
            rng.shuffle(order)
        for first in range(0, len(order), self.buffer):
            group = order[first : first + self.buffer]
            yield [row for shard in group for row in self.rows_by_shard[shard]]

    def _fill(self, rng: np.random.Generator) -> None:
        order: list[int] = []
        for rows in self._groups(rng):
            if self.shuffle:
                rng.shuffle(rows)
            order += rows
        size = self.batch_size
        stop = len(order) - len(order) % size if self.drop_last else len(order)
        self.batches = [order[at : at + size] for at in range(0, stop, size)]

    def _fill_by_length(self, rows: list[int], seed: int) -> None:
        lengths = [self.lengths_N[row] for row in rows]
        # An epoch other than 0, which would be logged at length.
        sampler = DynamicBatchSampler(
            rows, lengths_list=lengths, seed=seed, epoch=1, **self.batching
        )
        # Read to its end it would make the batches of another epoch.
        for batch in islice(sampler, len(sampler)):
            self.batches.append([rows[place] for place in batch])


def train_loader_options(
    hparams: Mapping[str, Any], train: DynamicItemDataset
) -> dict[str, Any]:
    """The arguments of the training set's loader.

    Arguments
    ---------
    hparams : mapping
        Uses ``train_dataloader_opts`` and, if not null,
        ``dynamic_batching``: the arguments of SpeechBrain's
        ``DynamicBatchSampler``, lengths in seconds. With ``train_shards``
        batches are made of a few shards at a time, by ``seed`` and epoch.
    train : DynamicItemDataset
        The training set.

    Returns
    -------
    dict
        What ``Brain.fit`` takes as ``train_loader_kwargs``.
    """
    options = dict(hparams["train_dataloader_opts"])
    batching = hparams["dynamic_batching"]
    shards = hparams.get("train_shards")
    if batching is None and not shards:
        return options
    try:
        if shards:
            sampler = _shard_batches(hparams, train)
        else:
            sampler = DynamicBatchSampler(
                train,
                length_func=lambda row: float(row["duration"]),
                seed=hparams["seed"],
                **batching,
            )
    except SAMPLER_ERRORS as error:
        raise InputError(
            f"dynamic_batching: {batching} cannot be used ({error}); it "
            "needs max_batch_length in seconds and num_buckets, or null for "
            "batches of train_dataloader_opts' batch_size."
        ) from error
    for key in ("batch_size", "shuffle", "drop_last"):
        options.pop(key, None)
    options["batch_sampler"] = sampler
    return options


def _shard_batches(
    hparams: Mapping[str, Any], train: DynamicItemDataset
) -> ShardBatchSampler:
    """Batches of a manifest that names parts of shards."""
    rows = [train.data[name] for name in train.data_ids]
    given = hparams["train_dataloader_opts"]
    plain = ("batch_size", "shuffle", "drop_last")
    return ShardBatchSampler(
        [Clip.parse(row["wav"]).path for row in rows],
        [float(row["duration"]) for row in rows],
        ShardSource.of(hparams["train_shards"]).buffer,
        hparams["seed"],
        hparams["dynamic_batching"],
        **{key: given[key] for key in plain if key in given},
    )
