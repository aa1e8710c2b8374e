"""Shards: corpora in tar archives, for those that do not fit a local disk.

Writing (the command ``shards``): every utterance is two members, as the
library webdataset reads them, its sound file, byte for byte where the manifest
names a whole file, and ``.json`` with id, duration, speaker and words. A part
of a recording is coded as FLAC, without loss. The bytes of an archive depend
on the utterances alone. An archive gets its name when it is complete, and a
file beside it notes what is in it; ``shards.json`` is written last, and then
the notes are removed. So an interrupted run goes on with the first archive
that is missing.

Reading: ``shards.json`` lists the archives; beside it lies the manifest of all
utterances, whose column ``wav`` says where in which archive an utterance is.
Utterances are read by their place rather than in the order of the archive, so
that an interrupted epoch resumes with the batch at which it stopped.

An archive from elsewhere is fetched once by whichever process on a machine
needs it first; the copies of all processes together stay below a limit. A copy
may be deleted while another process reads it: on POSIX systems an open file
stays readable, and a reader that comes too late fetches it again.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import fcntl
import hashlib
import io
import json
import logging
import os
import re
import shlex
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
import soundfile
from msgspec import Meta
from msgspec.structs import force_setattr
from tqdm import tqdm

from speechbrain_ee.data.manifests import (
    BYTES,
    COLUMNS,
    PIPE,
    Clip,
    check_rows,
    file_of,
    is_remote,
    parse_manifest,
    read_manifest,
    write_csv,
)
from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.files import ROOM, open_plain, parse_json, whole_file
from speechbrain_ee.schema import (
    Count,
    Positive,
    Record,
    convert,
    plain,
    read_record,
)

logger = logging.getLogger(__name__)

INDEX = "shards.json"
BYTES_PER_GB = 10**9
PLACE = "{}"  # of the file's name in a URL
_REMEDY = "write it again with `python -m speechbrain_ee shards`"
# An index may come from elsewhere. What it and its manifest name goes into
# paths, URLs and, by ``pipe:``, to a shell: one word of harmless letters.
FILE_NAME = r"\w[\w.+-]*"
FileName = Annotated[str, Meta(pattern=rf"\A{FILE_NAME}\Z")]


class Shard(Record):
    """One archive."""

    file: FileName
    utterances: Count
    duration_s: Annotated[float, Meta(ge=0)]
    bytes: Positive
    sha256: str


class ShardIndex(Record):
    """All archives of a set; the totals follow from them."""

    made_from: str
    manifest: FileName
    manifest_sha256: str
    shards: Annotated[tuple[Shard, ...], Meta(min_length=1)]
    format: Literal[1] = 1
    utterances: int = 0
    hours: float = 0.0

    def __post_init__(self) -> None:
        seconds = sum(shard.duration_s for shard in self.shards)
        utterances = sum(shard.utterances for shard in self.shards)
        force_setattr(self, "utterances", utterances)
        force_setattr(self, "hours", round(seconds / 3600, 6))

    def to_json(self) -> str:
        """The content of ``shards.json``, totals first."""
        content = plain(self)
        first = {key: content[key] for key in ("format", "utterances", "hours")}
        return json.dumps({**first, **content}, indent=1) + "\n"


class ShardSource(Record):
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
    >>> ShardSource("gs://corpus/train/", cache="/tmp").url("train-000000.tar")
    'gs://corpus/train/train-000000.tar'
    >>> source = ShardSource("pipe:ssh host cat /shards/{}", cache="/tmp")
    >>> source.url("shards.json")
    'pipe:ssh host cat /shards/shards.json'
    """

    source: Annotated[str, Meta(min_length=1)]
    buffer: Positive = 16
    cache: str | None = None
    cache_gb: Annotated[float, Meta(gt=0)] = 50.0

    def __post_init__(self) -> None:
        if is_remote(self.source) and self.cache is None:
            raise ValueError(
                f"{self.source} is not a local folder; give a folder for "
                "copies, too: --train_shards='{source: ..., cache: "
                "/scratch/shards}'"
            )

    @classmethod
    def of(
        cls, given: "str | Mapping[str, Any] | ShardSource"
    ) -> "ShardSource":
        """Read the value of the key."""
        if isinstance(given, cls):
            return given
        given = {"source": given} if isinstance(given, str) else dict(given)
        remedy = "docs/corpora.md describes the keys"
        return convert(given, cls, "train_shards", remedy)

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
        name = rf"({quoted})({FILE_NAME})\1"
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
    """Read utterances out of shards."""

    def __init__(self, source: ShardSource):
        self.source = source
        self.cache = None
        if source.cache:
            folder = os.path.abspath(os.path.expanduser(source.cache))
            self.cache = ShardCache(folder, source.cache_gb)

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
        opened = self.cache.open if is_remote(clip.path) else open_plain
        with opened(clip.path) as stream:
            # An index from elsewhere may ask for more than there is memory.
            left = os.fstat(stream.fileno()).st_size - clip.start
            stream.seek(clip.start)
            return stream.read(max(0, min(clip.length, left)))


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
            return b"".join(iter(partial(stream.read, COPIED), b""))
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
    write_csv(path, COLUMNS, table, ROOM)
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
    content = parse_json(read_all(url), url, _REMEDY)
    index = convert(content, ShardIndex, url, _REMEDY)
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
            f"{manifest}: cannot be read as UTF-8 ({error}); {_REMEDY}."
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
        if (size := _size(path)) != shard.bytes:
            fault = "is missing" if size < 0 else f"has {size} bytes"
            raise InputError(
                f"{path}: this shard {fault}, not {shard.bytes} bytes as "
                f"{INDEX} says; copy it again, or write the shards again."
            )


# ---- Writing: which utterance goes to which shard ---------------------------

_WAY_OUT = (
    "make room or give another folder. The same command goes on where it "
    "stopped"
)
PER_MEMBER_BYTES = 3 * 1024  # heads, metadata and filling of the tar format
Row = list[str]  # of the manifest
# webdataset takes what is before the first dot for the name.
NO_KEY = re.compile(r"[./\\\s]")
FLAC_SUBTYPES = ("PCM_S8", "PCM_16", "PCM_24")


@dataclass(frozen=True)
class Source:
    """An utterance to be written."""

    name: str
    duration: str
    wav: str
    speaker: str
    words: str
    state: tuple[int, int]  # size and modification time of the file

    @property
    def expected_bytes(self) -> int:
        """About what it takes in a shard; a byte for two that are coded."""
        clip = Clip.parse(self.wav)
        size = self.state[0] if clip is None else clip.length
        return size + PER_MEMBER_BYTES


def _sources(
    manifest: str | os.PathLike[str], data_folder: str | None
) -> list[Source]:
    """The utterances of a manifest."""
    rows = read_manifest(manifest, data_folder)
    for name, row in rows.items():
        clip = Clip.parse(row["wav"])
        if clip is not None and clip.unit == BYTES:
            raise InputError(
                f"{manifest}: {name} is in a shard already ({clip.path}); "
                "give the manifest that the shards were made from."
            )
    check_rows(manifest, rows)
    stat = cache(os.stat)  # a talk has hundreds of utterances
    sources = []
    for name, row in rows.items():
        status = stat(file_of(row["wav"]))
        facts = name, str(row["duration"]), row["wav"], row.get("spk_id", "")
        state = status.st_size, status.st_mtime_ns
        sources.append(Source(*facts, row["wrd"], state))
    return sources


def _planned(
    sources: Sequence[Source], shard_bytes: float, seed: int | None
) -> tuple[list[list[Source]], str]:
    """Utterances of each shard, all of one size, and a fingerprint.

    It differs when the manifest, its audio or the options do.
    """
    order = np.arange(len(sources))
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)
    shards: list[list[Source]] = []
    room = 0.0
    for source in (sources[place] for place in order):
        if not shards or source.expected_bytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(source)
        room -= source.expected_bytes
    content = [shard_bytes, seed, *map(astuple, sources)]
    return shards, hashlib.sha256(json.dumps(content).encode()).hexdigest()


def stem_of(manifest: str | os.PathLike[str]) -> str:
    """Name of the set that a manifest describes, fit for a shard's name."""
    stem = re.sub(r"[^\w.+-]", "_", Path(manifest).stem)
    return stem if re.fullmatch(FILE_NAME, stem) else f"_{stem}"


# ---- One archive -----------------------------------------------------------


class _Hashing:
    """A stream that counts and hashes what is written to it."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.sha256 = hashlib.sha256()
        self.written = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.written += len(data)
        return self.stream.write(data)

    def tell(self) -> int:
        return self.written


def write_shard(stream: Any, file: str, sources: Sequence[Source]) -> list[Row]:
    """Write one archive; the rows of its manifest."""
    rows, keys = [], set()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as t:
        for number, source in enumerate(sources):
            key = NO_KEY.sub("_", source.name)
            key = f"{key}_{number}" if key in keys else key
            keys.add(key)
            sound, suffix = sound_file(source)
            _add(t, f"{key}.{suffix}", sound)
            # what was written last ends at the next multiple of a block
            filled = -(-len(sound) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            start = t.offset - filled
            facts = {
                "id": source.name,
                "duration": float(source.duration),
                "spk_id": source.speaker,
                "wrd": source.words,
            }
            text = json.dumps(facts, ensure_ascii=False)
            _add(t, f"{key}.json", text.encode())
            checksum = f"{zlib.crc32(sound):08x}"
            clip = Clip(file, BYTES, start, len(sound), checksum)
            row = [source.name, source.duration, str(clip)]
            rows.append([*row, source.speaker, source.words])
    return rows


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # no owner, mode or time of this machine
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def sound_file(source: Source) -> tuple[bytes, str]:
    """The sound file of an utterance, and its suffix without a dot."""
    clip = Clip.parse(source.wav)
    try:
        if clip is None:
            path = Path(source.wav)
            return path.read_bytes(), path.suffix.lstrip(".").lower() or "audio"
        with soundfile.SoundFile(clip.path) as audio:
            # FLAC holds 24 bits; other codecs decode to floats.
            exact = audio.subtype in FLAC_SUBTYPES
            kind, subtype = (
                ("FLAC", audio.subtype) if exact else ("WAV", "FLOAT")
            )
            audio.seek(min(clip.start, audio.frames))
            samples = audio.read(clip.length, "int32" if exact else "float32")
        if len(samples) != clip.length:
            missing = clip.length - len(samples)
            raise OSError(f"it ends {missing} samples too early")
        coded = io.BytesIO()
        soundfile.write(coded, samples, audio.samplerate, subtype, format=kind)
        return coded.getvalue(), kind.lower()
    except (OSError, soundfile.SoundFileError) as error:
        raise InputError(
            f"{source.wav}: the audio of {source.name} cannot be read "
            f"({one_line(error)}); mend it, or prepare the data again."
        ) from error


# ---- All archives ----------------------------------------------------------


def write_shards(
    manifest: str | Path,
    folder: str | Path,
    shard_size_mb: float = 500.0,
    seed: int | None = 0,
    jobs: int = 1,
    data_folder: str | None = None,
) -> ShardIndex:
    """Write the utterances of a manifest to shards.

    Arguments
    ---------
    manifest : path
        CSV as data preparation writes it.
    folder : path
        Where the shards go; one folder per manifest.
    shard_size_mb : float
        Size of a shard, about, in MB.
    seed : int or None
        Of the order of utterances; None leaves it as the manifest has it.
        Shuffled, a few shards are a fair sample of all utterances.
    jobs : int
        Shards that are written at the same time.
    data_folder : str, optional
        What ``$data_root`` in the manifest stands for.

    Returns
    -------
    ShardIndex
        What was written, or was there already.

    Raises
    ------
    InputError
        If the manifest cannot be used, audio cannot be read, or the folder
        holds shards of something else or cannot be written.
    """
    if not shard_size_mb > 0 or jobs < 1:
        raise InputError(
            f"--shard-size-mb, --jobs: {shard_size_mb} and {jobs} must be "
            "positive."
        )
    folder, stem = Path(folder).expanduser().absolute(), stem_of(manifest)
    sources = _sources(manifest, data_folder)
    plan, made_from = _planned(sources, shard_size_mb * 10**6, seed)
    path = folder / INDEX
    if path.exists():
        index = read_record(path, ShardIndex, _REMEDY)
        if index.made_from != made_from:
            raise InputError(
                f"{folder}: holds shards of another manifest, of audio that "
                "has changed since, or of other options; give an empty folder."
            )
        if all(_size(folder / one.file) == one.bytes for one in index.shards):
            logger.info("%s: shards are up to date, left as they are", folder)
            return index
    paths = [folder / f"{stem}-{k:06d}.tar" for k in range(len(plan))]
    one = partial(_write_if_missing, made_from)
    bar = partial(
        tqdm, desc=f"shards of {stem}", total=len(plan), unit="shard", delay=5
    )
    if jobs == 1:
        notes = list(bar(map(one, paths, plan)))
    else:
        with ProcessPoolExecutor(jobs) as pool:
            try:
                notes = list(bar(pool.map(one, paths, plan)))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    index = _finish(folder, stem, made_from, notes)
    for path in paths:
        _note_of(path).unlink(missing_ok=True)
    return index


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _note_of(path: Path) -> Path:
    return path.with_suffix(".part.json")


class _Note(Record):
    """What is in a shard, until the index tells."""

    made_from: str
    shard: Shard
    rows: list[list[str]]


def _write_if_missing(
    made_from: str, path: Path, sources: Sequence[Source]
) -> _Note:
    """Write a shard that is not there yet; the note of what is in it."""
    with suppress(InputError):  # not there, or not whole: write it (again)
        note = read_record(_note_of(path), _Note, _WAY_OUT)
        if note.made_from == made_from and note.shard.bytes == _size(path):
            return note
    with whole_file(path, _WAY_OUT) as stream:
        hashing = _Hashing(stream)
        rows = write_shard(hashing, path.name, sources)
    duration_s = sum(float(source.duration) for source in sources)
    shard = Shard(
        path.name,
        len(rows),
        round(duration_s, 6),
        hashing.written,
        hashing.sha256.hexdigest(),
    )
    note = _Note(made_from, shard, rows)
    with whole_file(_note_of(path), _WAY_OUT, text=True) as stream:
        json.dump(plain(note), stream)
    return note


def _finish(
    folder: Path, stem: str, made_from: str, notes: Sequence[_Note]
) -> ShardIndex:
    """Write the manifest and the index."""
    manifest = folder / f"{stem}.csv"
    rows = (row for note in notes for row in note.rows)
    write_csv(manifest, COLUMNS, rows, _WAY_OUT)
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    shards = tuple(note.shard for note in notes)
    index = ShardIndex(made_from, manifest.name, digest, shards)
    with whole_file(folder / INDEX, _WAY_OUT, text=True) as stream:
        stream.write(index.to_json())
    return index


# ---- The command -----------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add = parser.add_argument
    add("manifest", metavar="MANIFEST", help="CSV, as data preparation writes")
    add("folder", metavar="OUT", help="where the shards go; one per manifest")
    add(
        "--shard-size-mb",
        type=float,
        default=500.0,
        help="size of a shard, about (default 500)",
    )
    add("--seed", type=int, default=0, help="of the order (default 0)")
    add(
        "--no-shuffle",
        action="store_true",
        help="keep the order of the manifest",
    )
    add(
        "--jobs",
        type=int,
        default=1,
        help="shards written at the same time (default 1)",
    )
    add(
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
