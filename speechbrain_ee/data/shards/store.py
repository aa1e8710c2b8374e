"""Getting at shards: beside the reader, or fetched to a local disk first.

A shard from elsewhere is fetched once by whichever process on a machine needs
it first, while the others wait for it; it gets its name when it is complete.
The copies of all processes together stay below a limit. A copy may be deleted
while another process reads it: on POSIX systems an open file stays readable,
and a reader that comes too late fetches it again.

Authors
 * The speechbrain-ee contributors 2026
"""

import fcntl
import hashlib
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from speechbrain_ee.data.clips import Clip
from speechbrain_ee.data.shards.index import (
    BYTES_PER_GB,
    ShardSource,
    is_remote,
)
from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.files import open_plain, whole_file

logger = logging.getLogger(__name__)

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
                f"{clip.path}: is no shard of train_shards, "
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
