"""From manifests to batches: data sets and dynamic batching.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.tokenizers.SentencePiece import SentencePiece
from torch import Tensor

from speechbrain_ee.data.audio import AudioReader
from speechbrain_ee.data.clips import Clip
from speechbrain_ee.data.manifest_check import check_manifest
from speechbrain_ee.data.shards.batches import ShardBatchSampler
from speechbrain_ee.data.shards.index import ShardSource
from speechbrain_ee.data.shards.store import ShardReader
from speechbrain_ee.errors import InputError

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
    """The data of one experiment.

    Arguments
    ---------
    train : DynamicItemDataset
        Training set.
    valid : DynamicItemDataset
        Validation set, longest utterance first.
    tests : dict of str to DynamicItemDataset
        Test sets by name (the manifest's file name), longest first.
    """

    train: DynamicItemDataset
    valid: DynamicItemDataset
    tests: dict[str, DynamicItemDataset]


def make_datasets(
    hparams: Mapping[str, Any], tokenizer: SentencePiece
) -> Datasets:
    """Build the data sets that the YAML names.

    Arguments
    ---------
    hparams : mapping
        Uses ``data_folder``, ``train_csv``, ``valid_csv``, ``test_csv``,
        ``sample_rate``, ``cache_audio`` and, if it is there,
        ``train_shards``.
    tokenizer : SentencePiece
        Turns transcripts into tokens.

    Returns
    -------
    Datasets
        Training, validation and test sets.
    """
    shards = hparams.get("train_shards")
    reader = AudioReader(
        hparams["sample_rate"],
        hparams["cache_audio"],
        ShardReader(ShardSource.of(shards)) if shards else None,
    )
    train = _read_manifest(hparams, hparams["train_csv"])
    valid = _read_manifest(hparams, hparams["valid_csv"])
    valid = valid.filtered_sorted(sort_key="duration", reverse=True)
    tests = {}
    test_csv = hparams["test_csv"]
    for path in [test_csv] if isinstance(test_csv, str) else test_csv:
        name = os.path.splitext(os.path.basename(path))[0]
        tests[name] = _read_manifest(hparams, path).filtered_sorted(
            sort_key="duration", reverse=True
        )
    for dataset in (train, valid, *tests.values()):
        _add_pipelines(dataset, reader, tokenizer)
    return Datasets(train, valid, tests)


def _read_manifest(hparams: Mapping[str, Any], path: str) -> DynamicItemDataset:
    check_manifest(path)
    return DynamicItemDataset.from_csv(
        csv_path=path, replacements={"data_root": hparams["data_folder"]}
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
