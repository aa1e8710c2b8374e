"""What a folder of shards says of itself, and where the shards are.

``shards.json`` lists the archives with their sizes, counts and durations;
beside it lies the manifest of all utterances, whose column ``wav`` says where
in which archive an utterance is. Both are small and read in full before
training; the archives may be far away.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.files import parse_json

INDEX = "shards.json"
FORMAT = 1
BYTES_PER_GB = 10**9
PLACE = "{}"  # of the file's name in a URL
_REMEDY = "write it again with `python -m speechbrain_ee shards`"
PIPE = "pipe:"
# An index may come from elsewhere. What it and its manifest name goes into
# paths, URLs and, by ``pipe:``, to a shell: one word of harmless letters.
FILE_NAME = re.compile(r"\w[\w.+-]*")


@dataclass(frozen=True)
class Shard:
    """One archive."""

    file: str
    utterances: int
    duration_s: float
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardIndex:
    """All archives of a set."""

    made_from: str
    manifest: str
    manifest_sha256: str
    shards: tuple[Shard, ...]

    @property
    def utterances(self) -> int:
        """How many there are in all archives."""
        return sum(shard.utterances for shard in self.shards)

    @property
    def hours(self) -> float:
        """How long they are."""
        return sum(shard.duration_s for shard in self.shards) / 3600

    def to_json(self) -> str:
        """The content of ``shards.json``."""
        content = {
            "format": FORMAT,
            "utterances": self.utterances,
            "hours": round(self.hours, 6),
            **asdict(self),
        }
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, name: str) -> "ShardIndex":
        """Read ``shards.json``."""
        try:
            content = parse_json(text, name, _REMEDY)
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, not {FORMAT}")
            shards = tuple(Shard(**shard) for shard in content["shards"])
            names = [shard.file for shard in shards] + [content["manifest"]]
            strange = [name for name in names if not FILE_NAME.fullmatch(name)]
            if strange or not shards:
                raise ValueError(f"files {strange[:3]}"[:200])
            for shard in shards:
                if not shard.bytes > 0 or not shard.duration_s >= 0:
                    raise ValueError(f"sizes of {shard.file}")
            given = {f.name: content[f.name] for f in fields(cls)}
            return cls(**{**given, "shards": shards})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{name}: is no index of shards ({one_line(error)}); {_REMEDY}."
            ) from error


@dataclass(frozen=True)
class ShardSource:
    """``train_shards`` of a YAML: where archives are, and how to read them.

    Arguments
    ---------
    source : str
        A folder, a URL of one, or any URL in which ``{}`` stands for the
        name of the file: ``pipe:`` starts a shell command that writes the
        file to its output. The command is the source's alone; names of files
        are checked and quoted.
    buffer : int
        Archives among which utterances are shuffled and batched at a time.
    cache : str or None
        Folder on a local disk for archives from elsewhere.
    cache_gb : float
        What it may hold, in GB; the archives that were not read for the
        longest time are deleted.

    Example
    -------
    >>> ShardSource("gs://corpus/train/").url("train-000000.tar")
    'gs://corpus/train/train-000000.tar'
    >>> ShardSource("pipe:ssh host cat /shards/{}").url("shards.json")
    'pipe:ssh host cat /shards/shards.json'
    """

    source: str
    buffer: int = 16
    cache: str | None = None
    cache_gb: float = 50.0

    @classmethod
    def of(
        cls, given: "str | Mapping[str, Any] | ShardSource"
    ) -> "ShardSource":
        """Read the value of the key."""
        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            given = {"source": given}
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(given) - set(known))
        if unknown or not given.get("source"):
            raise InputError(
                f"train_shards: {dict(given)} has to name the source, and may "
                f"name {', '.join(known[1:])}, nothing else."
            )
        made = cls(**given)
        if not isinstance(made.buffer, int) or made.buffer < 1:
            raise InputError(
                f"train_shards: buffer: {made.buffer!r} must be a number of "
                "shards, at least 1."
            )
        # `not >` holds for what is no number, too
        if not made.cache_gb > 0:
            raise InputError(
                f"train_shards: cache_gb: {made.cache_gb} must be positive."
            )
        if is_remote(made.source) and made.cache is None:
            raise InputError(
                f"train_shards: {made.source} is no local folder; give a "
                "folder for copies, too: --train_shards='{source: ..., "
                "cache: /scratch/shards}'."
            )
        return made

    def url(self, file: str) -> str:
        """Where a file of the set is."""
        before, after = self._around
        if before.startswith(PIPE):
            file = shlex.quote(file)
        return f"{before}{file}{after.replace(PLACE, file)}"

    def holds(self, url: str) -> bool:
        """Whether a path or URL is one that :meth:`url` gives."""
        before, after = self._around
        quoted = "'?" if before.startswith(PIPE) else ""
        after = re.escape(after).replace(re.escape(PLACE), r"\1\2\1")
        name = rf"({quoted})({FILE_NAME.pattern})\1"
        found = re.fullmatch(re.escape(before) + name + after, url)
        return found is not None and self.url(found[2]) == url

    @property
    def _around(self) -> tuple[str, str]:
        """What stands before and behind the name of a file."""
        if PLACE in self.source:
            before, _, after = self.source.partition(PLACE)
            return before, after
        if is_remote(self.source):
            return f"{self.source.rstrip('/')}/", ""
        folder = os.path.abspath(os.path.expanduser(self.source))
        return os.path.join(folder, ""), ""


def is_remote(url: str) -> bool:
    """Whether a file has to be fetched before it can be read."""
    return url.startswith(PIPE) or "://" in url
