"""Writing shards that also the library webdataset reads.

Every utterance is two members of a tar archive: its sound file, byte for byte
where the manifest names a whole file, and ``.json`` with id, duration, speaker
and words. A part of a recording is coded as FLAC, without loss. The bytes of
an archive depend on the utterances alone.

An archive gets its name when it is complete, and a file beside it notes what
is in it; ``shards.json`` is written last, and then the notes are removed. So a
run that was interrupted goes on with the first archive that is missing.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import hashlib
import io
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speechbrain_ee.data.manifests import COLUMNS
from speechbrain_ee.data.shards.archive import Hashing, write_shard
from speechbrain_ee.data.shards.index import INDEX, Shard, ShardIndex
from speechbrain_ee.data.shards.plan import (
    BYTES_PER_MB,
    Plan,
    Source,
    make_plan,
    read_sources,
    shard_name,
    stem_of,
)
from speechbrain_ee.errors import InputError
from speechbrain_ee.files import whole_file

logger = logging.getLogger(__name__)

_WAY_OUT = (
    "make room or give another folder. The same command goes on where it "
    "stopped"
)


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
    sources = read_sources(manifest, data_folder)
    plan = make_plan(sources, shard_size_mb * BYTES_PER_MB, seed)
    done = _earlier(folder, plan)
    if done is not None:
        logger.info("%s: the shards are up to date, left as they are", folder)
        return done
    notes = _write_all(folder, stem, plan, jobs)
    return _finish(folder, stem, plan, notes)


def _earlier(folder: Path, plan: Plan) -> ShardIndex | None:
    """The index of the same plan; an error for what is in the way."""
    path = folder / INDEX
    if path.exists():
        index = ShardIndex.from_json(path.read_bytes(), str(path))
        if index.made_from != plan.fingerprint:
            raise InputError(
                f"{folder}: holds shards of another manifest, of audio that "
                "has changed since, or of other options; give an empty folder."
            )
        sizes = [_size(folder / shard.file) for shard in index.shards]
        if sizes == [shard.bytes for shard in index.shards]:
            return index
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _write_all(
    folder: Path, stem: str, plan: Plan, jobs: int
) -> list[dict[str, Any]]:
    """Every shard that is not there yet; the notes of all."""
    one = partial(_write_if_missing, folder, stem, plan.fingerprint)
    total = len(plan.shards)
    bar = partial(
        tqdm, desc=f"shards of {stem}", total=total, unit="shard", delay=5
    )
    if jobs == 1:
        return list(bar(map(one, range(total), plan.shards)))
    with ProcessPoolExecutor(jobs) as pool:
        try:
            return list(bar(pool.map(one, range(total), plan.shards)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _note_of(path: Path) -> Path:
    return path.with_suffix(".part.json")


def _write_if_missing(
    folder: Path,
    stem: str,
    fingerprint: str,
    number: int,
    sources: Sequence[Source],
) -> dict[str, Any]:
    path = folder / shard_name(stem, number)
    try:
        note = json.loads(_note_of(path).read_text("utf-8"))
        known = note["made_from"] == fingerprint
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
    note = {"made_from": fingerprint, "shard": asdict(shard), "rows": rows}
    with whole_file(_note_of(path), _WAY_OUT) as stream:
        stream.write(json.dumps(note).encode())
    return note


def _finish(
    folder: Path, stem: str, plan: Plan, notes: Sequence[dict[str, Any]]
) -> ShardIndex:
    """Write the manifest and the index; remove the notes."""
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
        plan.fingerprint,
        manifest.name,
        hashlib.sha256(content).hexdigest(),
        tuple(Shard(**note["shard"]) for note in notes),
    )
    with whole_file(folder / INDEX, _WAY_OUT) as stream:
        stream.write(index.to_json().encode())
    for number in range(len(notes)):
        note = _note_of(folder / shard_name(stem, number))
        note.unlink(missing_ok=True)
    return index
