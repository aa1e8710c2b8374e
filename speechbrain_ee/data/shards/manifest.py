"""The training manifest of a run that reads shards.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from speechbrain_ee.data.clips import BYTES, Clip
from speechbrain_ee.data.manifest_check import parse_manifest
from speechbrain_ee.data.manifests import COLUMNS
from speechbrain_ee.data.shards.index import (
    BYTES_PER_GB,
    INDEX,
    ShardIndex,
    ShardSource,
    is_remote,
)
from speechbrain_ee.data.shards.store import read_all
from speechbrain_ee.errors import InputError
from speechbrain_ee.files import whole_file

logger = logging.getLogger(__name__)


def write_training_manifest(hparams: Mapping[str, Any]) -> None:
    """Write the manifest of ``train_shards``, if there are any.

    It is the one that lies beside the shards, with their paths or URLs. What
    is read in training are the parts of shards that it names.
    """
    if not hparams["train_shards"]:
        return
    source = ShardSource.of(hparams["train_shards"])
    path = Path(os.path.abspath(hparams["train_csv"]))
    if path.parent != Path(os.path.abspath(hparams["output_folder"])):
        raise InputError(
            f"train_csv: {path} is no file of output_folder, and with "
            "train_shards the manifest is written there; leave train_csv out."
        )
    index, text = read_index(source)
    _check_shards(source, index)
    rows = parse_manifest(text, source.url(index.manifest))
    sizes = {shard.file: shard.bytes for shard in index.shards}
    table = [_located(source, sizes, name, row) for name, row in rows.items()]
    with whole_file(path, text=True) as stream:
        written = csv.writer(stream, lineterminator="\n")
        written.writerows([COLUMNS, *table])
    logger.info(
        "%s: %d shards, %d utterances, %.2f h",
        source.source,
        len(index.shards),
        index.utterances,
        index.hours,
    )


def read_index(source: ShardSource) -> tuple[ShardIndex, str]:
    """What the index says, and the manifest beside it."""
    url = source.url(INDEX)
    index = ShardIndex.from_json(read_all(url), url)
    manifest = source.url(index.manifest)
    content = read_all(manifest)
    if hashlib.sha256(content).hexdigest() != index.manifest_sha256:
        raise InputError(
            f"{manifest}: is not the manifest that {url} was written with; "
            "copy the folder of shards again, or write it again."
        )
    try:
        return index, content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{manifest}: cannot be read as UTF-8 ({error}); write the shards "
            "again."
        ) from error


def _located(
    source: ShardSource,
    sizes: Mapping[str, int],
    name: str,
    row: Mapping[str, Any],
) -> list[Any]:
    """The row with the path or URL of its shard, which the index must list."""
    clip = Clip.parse(row["wav"])
    if clip is None or clip.unit != BYTES:
        fault = "is no part of a shard"
    elif clip.path not in sizes:
        fault = f"is in {clip.path}, which {INDEX} does not list"
    elif clip.start + clip.length > sizes[clip.path]:
        fault = f"is behind the end of {clip.path}"
    else:
        wav = str(replace(clip, path=source.url(clip.path)))
        return [name, row["duration"], wav, row.get("spk_id", ""), row["wrd"]]
    raise InputError(
        f"train_shards: the utterance {name} of {source.source} {fault}; write "
        "the shards again."
    )


def _check_shards(source: ShardSource, index: ShardIndex) -> None:
    """Raise InputError for what would end a run after hours."""
    largest = sorted(shard.bytes for shard in index.shards)[-source.buffer :]
    if is_remote(source.source):
        if sum(largest) > source.cache_gb * BYTES_PER_GB:
            raise InputError(
                f"train_shards: cache_gb: {source.cache_gb} is less than the "
                f"{len(largest)} shards that are read at a time, "
                f"{sum(largest) / BYTES_PER_GB:.3g} GB; raise it, or lower "
                "buffer."
            )
        return
    for shard in index.shards:
        path = Path(source.url(shard.file))
        if not path.is_file():
            raise InputError(
                f"{path}: this shard is missing, which {INDEX} lists; copy "
                "it there, or write the shards again."
            )
        if path.stat().st_size != shard.bytes:
            raise InputError(
                f"{path}: this shard has {path.stat().st_size} bytes, not "
                f"{shard.bytes} as {INDEX} says; copy it again, or write the "
                "shards again."
            )
