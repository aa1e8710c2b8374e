"""``python -m speechbrain_ee shards``: a manifest becomes tar archives.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse

from speechbrain_ee.data.shards.writing import write_shards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "manifest", metavar="MANIFEST", help="CSV, as data preparation writes"
    )
    parser.add_argument(
        "folder", metavar="OUT", help="where the shards go; one per manifest"
    )
    parser.add_argument(
        "--shard-size-mb",
        type=float,
        default=500.0,
        help="size of a shard, about (default 500)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the order (default 0)"
    )
    parser.add_argument(
        "--no-shuffle",
        action="store_true",
        help="keep the order of the manifest",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="shards written at the same time (default 1)",
    )
    parser.add_argument(
        "--data-folder",
        metavar="FOLDER",
        help="what $data_root in the manifest stands for",
    )


def run(arguments: argparse.Namespace) -> str:
    """Write the shards."""
    index = write_shards(
        arguments.manifest,
        arguments.folder,
        arguments.shard_size_mb,
        None if arguments.no_shuffle else arguments.seed,
        arguments.jobs,
        arguments.data_folder,
    )
    size_mb = sum(shard.bytes for shard in index.shards) / 10**6
    return (
        f"{arguments.folder}: {len(index.shards)} shards, {size_mb:.1f} MB, "
        f"{index.utterances} utterances, {index.hours:.2f} h"
    )
