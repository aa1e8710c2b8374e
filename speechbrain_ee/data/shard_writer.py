"""``python -m speechbrain_ee shards``: a manifest becomes tar archives.

Every utterance is two members of an archive, as the library webdataset reads
them: its sound file, byte for byte where the manifest names a whole file, and
``.json`` with id, duration, speaker and words. A part of a recording is coded
as FLAC, without loss. The bytes of an archive depend on the utterances alone,
and the manifest names their places, which webdataset's own writer does not
tell.

An archive gets its name when it is complete, and a file beside it notes what
is in it; ``shards.json`` is written last, and then the notes are removed. So a
run that was interrupted goes on with the first archive that is missing.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import csv
import hashlib
import io
import json
import logging
import os
import re
import tarfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, astuple, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from tqdm import tqdm

from speechbrain_ee.data.clips import BYTES, Clip, file_of
from speechbrain_ee.data.manifests import COLUMNS, check_rows, read_manifest
from speechbrain_ee.data.shards import FILE_NAME, INDEX, Shard, ShardIndex
from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.files import whole_file

logger = logging.getLogger(__name__)

_WAY_OUT = (
    "make room or give another folder. The same command goes on where it "
    "stopped"
)
BYTES_PER_MB = 10**6
# Of samples that have to be coded: two bytes each, which FLAC about halves.
CODED_BYTES_PER_SAMPLE = 1
PER_MEMBER_BYTES = 3 * 1024  # heads, metadata and filling of the tar format
Row = list[str]  # of the manifest
# webdataset takes what is before the first dot for the name.
NO_KEY = re.compile(r"[./\\\s]")
FLAC_SUBTYPES = ("PCM_S8", "PCM_16", "PCM_24")


# ---- Which utterance goes to which shard -----------------------------------


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
        """About what it takes in a shard."""
        clip = Clip.parse(self.wav)
        size = self.state[0]
        if clip is not None:
            size = clip.length * CODED_BYTES_PER_SAMPLE
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

    @cache  # a talk has hundreds of utterances
    def state(path: str) -> tuple[int, int]:
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns

    return [
        Source(
            name,
            str(row["duration"]),
            row["wav"],
            row.get("spk_id", ""),
            row["wrd"],
            state(file_of(row["wav"])),
        )
        for name, row in rows.items()
    ]


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
    for place in order:
        source = sources[place]
        if not shards or source.expected_bytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(source)
        room -= source.expected_bytes
    content: list[Any] = [shard_bytes, seed]
    content += map(astuple, sources)
    return shards, hashlib.sha256(json.dumps(content).encode()).hexdigest()


def stem_of(manifest: str | os.PathLike[str]) -> str:
    """Name of the set that a manifest describes, fit for a shard's name."""
    stem = re.sub(r"[^\w.+-]", "_", Path(manifest).stem)
    return stem if FILE_NAME.fullmatch(stem) else f"_{stem}"


# ---- One archive -----------------------------------------------------------


class Hashing:
    """A stream that counts and hashes what is written to it."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.sha256 = hashlib.sha256()
        self.written = 0

    def write(self, data: bytes) -> int:
        """Pass bytes on."""
        self.sha256.update(data)
        self.written += len(data)
        return self.stream.write(data)

    def tell(self) -> int:
        """How many bytes were written."""
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
    # No owner, mode or time of the machine that writes it.
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def sound_file(source: Source) -> tuple[bytes, str]:
    """The sound file of an utterance, and its suffix without a dot."""
    clip = Clip.parse(source.wav)
    try:
        if clip is None:
            path = Path(source.wav)
            return path.read_bytes(), path.suffix.lstrip(".").lower() or "audio"
        return _coded(clip)
    except (OSError, soundfile.SoundFileError) as error:
        raise InputError(
            f"{source.wav}: the audio of {source.name} cannot be read "
            f"({one_line(error)}); mend it, or prepare the data again."
        ) from error


def _coded(clip: Clip) -> tuple[bytes, str]:
    with soundfile.SoundFile(clip.path) as audio:
        # FLAC holds 24 bits; other codecs decode to floats.
        subtype = audio.subtype if audio.subtype in FLAC_SUBTYPES else None
        audio.seek(min(clip.start, audio.frames))
        kind = "int32" if subtype else "float32"
        samples = audio.read(clip.length, dtype=kind)
        rate = audio.samplerate
    if len(samples) != clip.length:
        raise OSError(f"it ends {clip.length - len(samples)} samples too early")
    coded = io.BytesIO()
    kind = ("FLAC", subtype) if subtype else ("WAV", "FLOAT")
    soundfile.write(coded, samples, rate, kind[1], format=kind[0])
    return coded.getvalue(), kind[0].lower()


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
    plan, made_from = _planned(sources, shard_size_mb * BYTES_PER_MB, seed)
    path = folder / INDEX
    if path.exists():
        index = ShardIndex.from_json(path.read_bytes(), str(path))
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


def _write_if_missing(
    made_from: str, path: Path, sources: Sequence[Source]
) -> dict[str, Any]:
    """Write a shard that is not there yet; the note of what is in it."""
    try:
        note = json.loads(_note_of(path).read_text("utf-8"))
        known = note["made_from"] == made_from
        if known and note["shard"]["bytes"] == _size(path):
            return note
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or not whole: write it (again)
    with whole_file(path, _WAY_OUT) as stream:
        hashing = Hashing(stream)
        rows = write_shard(hashing, path.name, sources)
    duration_s = sum(float(source.duration) for source in sources)
    shard = Shard(
        path.name,
        len(rows),
        round(duration_s, 6),
        hashing.written,
        hashing.sha256.hexdigest(),
    )
    note = {"made_from": made_from, "shard": asdict(shard), "rows": rows}
    with whole_file(_note_of(path), _WAY_OUT) as stream:
        stream.write(json.dumps(note).encode())
    return note


def _finish(
    folder: Path, stem: str, made_from: str, notes: Sequence[dict[str, Any]]
) -> ShardIndex:
    """Write the manifest and the index."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for note in notes:
        table.writerows(note["rows"])
    content = text.getvalue().encode()
    manifest = folder / f"{stem}.csv"
    with whole_file(manifest, _WAY_OUT) as stream:
        stream.write(content)
    index = ShardIndex(
        made_from,
        manifest.name,
        hashlib.sha256(content).hexdigest(),
        tuple(Shard(**note["shard"]) for note in notes),
    )
    with whole_file(folder / INDEX, _WAY_OUT) as stream:
        stream.write(index.to_json().encode())
    return index


# ---- The command -----------------------------------------------------------


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
