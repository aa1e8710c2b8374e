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
    """An utterance to be written."""

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
    """What is to be written."""

    shards: tuple[tuple[Source, ...], ...]
    fingerprint: str


def read_sources(
    manifest: str | os.PathLike[str], data_folder: str | None
) -> list[Source]:
    """The utterances of a manifest."""
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
    """Deal utterances out to shards of one size."""
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
    """File name of a shard."""
    return f"{stem}-{number:06d}.tar"


def stem_of(manifest: str | os.PathLike[str]) -> str:
    """Name of the set that a manifest describes."""
    stem = re.sub(r"[^\w.+-]", "_", Path(manifest).stem)
    return stem if FILE_NAME.fullmatch(stem) else f"_{stem}"
