"""Which utterance goes to which shard.

Authors
 * The speechbrain-ee contributors 2026
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_ee.data.clips import BYTES, Clip
from speechbrain_ee.data.manifest_check import check_rows, read_manifest
from speechbrain_ee.data.shards.index import FILE_NAME
from speechbrain_ee.errors import InputError

BYTES_PER_MB = 10**6
# Of samples that have to be coded: two bytes each, which FLAC about halves.
CODED_BYTES_PER_SAMPLE = 1
PER_MEMBER_BYTES = 3 * 1024  # heads, metadata and filling of the tar format


@dataclass(frozen=True)
class Source:
    """An utterance to be written.

    Arguments
    ---------
    name : str
        ID of the manifest.
    duration : str
        Length in seconds, as the manifest has it.
    wav : str
        File, or a part of one.
    speaker : str
        Of the manifest, or empty.
    words : str
        Transcript.
    state : tuple of int
        Size in bytes and modification time of the file.
    """

    name: str
    duration: str
    wav: str
    speaker: str
    words: str
    state: tuple[int, int]

    @property
    def expected_bytes(self) -> int:
        """About what it takes in a shard."""
        clip = Clip.parse(self.wav)
        size = self.state[0]
        if clip is not None:
            size = clip.length * CODED_BYTES_PER_SAMPLE
        return size + PER_MEMBER_BYTES


@dataclass(frozen=True)
class Plan:
    """What is to be written.

    Arguments
    ---------
    shards : tuple of tuple of Source
        The utterances of every shard, in order.
    fingerprint : str
        Differs when the manifest, its audio or the options do.
    """

    shards: tuple[tuple[Source, ...], ...]
    fingerprint: str


def read_sources(
    manifest: str | os.PathLike[str], data_folder: str | None
) -> list[Source]:
    """The utterances of a manifest.

    Arguments
    ---------
    manifest : path
        CSV as data preparation writes it.
    data_folder : str or None
        What ``$data_root`` in it stands for.

    Returns
    -------
    list of Source
        In its order.

    Raises
    ------
    InputError
        If it cannot be used, or audio is missing.
    """
    rows = read_manifest(manifest, data_folder)
    clips = {name: Clip.parse(row["wav"]) for name, row in rows.items()}
    for name, clip in clips.items():
        if clip is not None and clip.unit == BYTES:
            raise InputError(
                f"{manifest}: {name} is in a shard already ({clip.path}); "
                "give the manifest that the shards were made from."
            )
    check_rows(manifest, rows)
    states: dict[str, tuple[int, int]] = {}
    sources = []
    for name, row in rows.items():
        path = row["wav"] if clips[name] is None else clips[name].path
        if path not in states:
            status = os.stat(path)
            states[path] = status.st_size, status.st_mtime_ns
        sources.append(
            Source(
                name,
                str(row["duration"]),
                row["wav"],
                row.get("spk_id", ""),
                row["wrd"],
                states[path],
            )
        )
    return sources


def make_plan(
    sources: Sequence[Source], shard_bytes: float, seed: int | None
) -> Plan:
    """Deal utterances out to shards of one size.

    Arguments
    ---------
    sources : sequence of Source
        The utterances.
    shard_bytes : float
        What a shard should have, about.
    seed : int or None
        Of the order; None leaves it as it is.

    Returns
    -------
    Plan
        The same for the same arguments.
    """
    order = np.arange(len(sources))
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)
    shards: list[list[Source]] = []
    room = 0.0
    for place in order:
        source = sources[place]
        if not shards or source.expected_bytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(source)
        room -= source.expected_bytes
    content: list[Any] = [shard_bytes, seed]
    content += [
        [s.name, s.duration, s.wav, s.speaker, s.words, s.state]
        for s in sources
    ]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return Plan(tuple(map(tuple, shards)), digest)


def shard_name(stem: str, number: int) -> str:
    """File name of a shard.

    Arguments
    ---------
    stem : str
        Name of the set.
    number : int
        From 0.

    Returns
    -------
    str

    Example
    -------
    >>> shard_name("train", 12)
    'train-000012.tar'
    """
    return f"{stem}-{number:06d}.tar"


def stem_of(manifest: str | os.PathLike[str]) -> str:
    """Name of the set that a manifest describes.

    Arguments
    ---------
    manifest : path
        Its path.

    Returns
    -------
    str
        What a shard's name may begin with: letters, digits and ``_ . + -``.

    Example
    -------
    >>> stem_of("results/my train.csv")
    'my_train'
    """
    stem = re.sub(r"[^\w.+-]", "_", Path(manifest).stem)
    return stem if FILE_NAME.fullmatch(stem) else f"_{stem}"
