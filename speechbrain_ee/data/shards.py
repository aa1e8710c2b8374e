"""Shards: corpora in tar archives, for those that do not fit a local disk.

``shards.json`` lists the archives with their sizes, counts and durations;
beside it lies the manifest of all utterances, whose column ``wav`` says where
in which archive an utterance is. Both are small and read in full before
training; the archives may be far away. Utterances are read by their place
rather than in the order of the archive, so that an interrupted epoch resumes
with the batch at which it stopped.

A shard from elsewhere is fetched once by whichever process on a machine needs
it first, while the others wait for it; it gets its name when it is complete.
The copies of all processes together stay below a limit. A copy may be deleted
while another process reads it: on POSIX systems an open file stays readable,
and a reader that comes too late fetches it again.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import fcntl
import hashlib
import json
import logging
import os
import re
import shlex
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

from speechbrain_ee.data.clips import BYTES, PIPE, Clip, is_remote
from speechbrain_ee.data.manifests import COLUMNS, parse_manifest
from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.files import open_plain, parse_json, whole_file

logger = logging.getLogger(__name__)

INDEX = "shards.json"
FORMAT = 1
BYTES_PER_GB = 10**9
PLACE = "{}"  # of the file's name in a URL
_REMEDY = "write it again with `python -m speechbrain_ee shards`"
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
                f"{name}: is not an index of shards ({one_line(error)}); "
                f"{_REMEDY}."
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
        # `not >` holds for NaN, too
        if not made.cache_gb > 0:
            raise InputError(
                f"train_shards: cache_gb: {made.cache_gb} must be positive."
            )
        if is_remote(made.source) and made.cache is None:
            raise InputError(
                f"train_shards: {made.source} is not a local folder; give a "
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
        """What stands before and after the name of a file."""
        if PLACE in self.source:
            before, _, after = self.source.partition(PLACE)
            return before, after
        if is_remote(self.source):
            return f"{self.source.rstrip('/')}/", ""
        folder = os.path.abspath(os.path.expanduser(self.source))
        return os.path.join(folder, ""), ""


# ---- Reading -------------------------------------------------------------

COPIED = 1 << 20  # bytes at a time
ATTEMPTS = 2


class ShardReader:
    """Read utterances out of shards.

    Arguments
    ---------
    source : ShardSource
        Where the shards are; a local one needs no cache.
    """

    def __init__(self, source: ShardSource):
        self.source = source
        cache = source.cache
        if cache is not None:
            cache = os.path.abspath(os.path.expanduser(cache))
        self.cache = ShardCache(cache, source.cache_gb) if cache else None

    def __call__(self, clip: Clip) -> bytes:
        """The bytes of an utterance."""
        if not self.source.holds(clip.path):
            raise InputError(
                f"{clip.path}: is not a shard of train_shards, "
                f"{self.source.source}; leave its rows out of the manifest, or "
                "name its source."
            )
        for attempt in range(1, ATTEMPTS + 1):
            try:
                found, fault = self._bytes(clip), None
                if clip.crc32 not in (None, f"{zlib.crc32(found):08x}"):
                    fault = "the checksum differs"
            except OSError as error:
                fault = one_line(error)
            if fault is None:
                return found
            if self.cache is None or attempt == ATTEMPTS:
                break
            logger.warning("%s: fetched again, since %s", clip.path, fault)
            self.cache.forget(clip.path)
        raise InputError(
            f"{clip.path}: bytes {clip.start} to {clip.start + clip.length} "
            f"of this shard cannot be read ({fault}); copy or write the shard "
            "again, or make train_shards name the place where it is."
        )

    def _bytes(self, clip: Clip) -> bytes:
        with self._open(clip.path) as stream:
            # An index from elsewhere may ask for more than there is memory.
            left = os.fstat(stream.fileno()).st_size - clip.start
            stream.seek(clip.start)
            return stream.read(max(0, min(clip.length, left)))

    def _open(self, path: str) -> BinaryIO:
        if not is_remote(path):
            return open_plain(path)
        if self.cache is None:
            raise InputError(
                f"{path}: is a shard from elsewhere, and train_shards names "
                "no cache."
            )
        return self.cache.open(path)


class ShardCache:
    """Copies of files from elsewhere, shared by the processes of a machine."""

    def __init__(self, folder: str | os.PathLike[str], limit_gb: float):
        self.folder = Path(folder)
        self.limit_bytes = limit_gb * BYTES_PER_GB

    def path(self, url: str) -> Path:
        """Where the copy of a file is, or will be."""
        name = hashlib.sha256(url.encode()).hexdigest()[:24]
        return self.folder / f"{name}.shard"

    def open(self, url: str) -> BinaryIO:
        """Open the copy of a file, which is fetched if it is not there."""
        path = self.path(url)
        while True:
            with suppress(FileNotFoundError, NotADirectoryError):
                stream = open(path, "rb")
                with suppress(PermissionError):  # somebody else's copy
                    os.utime(path)  # was read now
                return stream
            with self._alone(path):
                if not path.exists():
                    self._fetch(url, path)

    def forget(self, url: str) -> None:
        """Delete a copy."""
        self.path(url).unlink(missing_ok=True)

    @contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """Only one process at a time fetches a file."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open(path.with_suffix(".lock"), "w", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"train_shards: cache: {self.folder} cannot be written "
                f"({error.strerror}); give another folder."
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _fetch(self, url: str, path: Path) -> None:
        """Copy a file, then delete others that are too many."""
        with whole_file(path) as copy, fetching(url) as stream:
            while block := stream.read(COPIED):
                copy.write(block)
        self._make_room(path)

    def _make_room(self, newest: Path) -> None:
        copies = []
        for path in self.folder.glob("*.shard"):
            with suppress(FileNotFoundError):
                status = path.stat()
                copies.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in copies)
        for _, size, path in sorted(copies):
            if total <= self.limit_bytes:
                return
            if path != newest:
                total -= size
                path.unlink(missing_ok=True)


@contextmanager
def fetching(url: str) -> Iterator[Any]:
    """Open a file from elsewhere for reading."""
    try:
        from webdataset.gopen import gopen
    except ImportError as error:
        raise InputError(
            f"{url}: the package webdataset is missing, which fetches it; "
            "pip install 'speechbrain-ee[shards]'."
        ) from error
    try:
        with gopen(url) as stream:
            yield stream
    except InputError:
        raise
    except Exception as error:  # of whatever the scheme is handled by
        raise InputError(
            f"{url}: cannot be fetched ({one_line(error)}); try it in a shell, "
            "and make train_shards name the place where the shards are."
        ) from error


def read_all(url: str) -> bytes:
    """The content of a small file, here or elsewhere."""
    if is_remote(url):
        with fetching(url) as stream:
            blocks = []
            while block := stream.read(COPIED):
                blocks.append(block)
            return b"".join(blocks)
    try:
        with open_plain(url) as stream:
            return stream.read()
    except OSError as error:
        raise InputError(
            f"{url}: cannot be read ({one_line(error)}); give the folder that "
            "`python -m speechbrain_ee shards` has written, with its index."
        ) from error


# ---- Before training -----------------------------------------------------


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
            f"train_csv: {path} is not a file of output_folder, and with "
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
        fault = "is not a part of a shard"
    elif clip.path not in sizes:
        fault = f"is in {clip.path}, which {INDEX} does not list"
    elif clip.start + clip.length > sizes[clip.path]:
        fault = f"is beyond the end of {clip.path}"
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
