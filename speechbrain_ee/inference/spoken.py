"""Utterances to measure on: a manifest or a folder, in memory.

Audio is read before anything is timed, so that a slow disk is not taken for
a slow model.

Axes: N utterances, B utterances of a batch, S samples.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor

from speechbrain_ee.data.audio import AudioReader
from speechbrain_ee.data.manifests import check_rows, read_manifest
from speechbrain_ee.data.words import TranscriptCheck
from speechbrain_ee.errors import InputError


@dataclass(frozen=True)
class Spoken:
    """An utterance."""

    id: str
    wav_S: Tensor
    ref: str | None = None  # what was said, if that is known


@dataclass(frozen=True)
class Batch:
    """Utterances of like length, padded."""

    rows: tuple[int, ...]  # places of the utterances in the data
    wavs_BS: Tensor
    wav_lens_B: Tensor  # relative to the longest


def read_spoken(
    data: str | Path,
    sample_rate: int,
    limit: int | None = None,
    tokenizer: Any = None,
) -> tuple[Spoken, ...]:
    """Read a manifest, of which only the column ``wav`` is needed, or all
    audio files of a folder.

    With a limit so many utterances, evenly spread over the data; with the
    tokenizer of a model references are written as it writes them.
    """
    data = Path(data)
    rows = _of_folder(data) if data.is_dir() else _of_manifest(data)
    if limit is not None and limit < len(rows):
        rows = [rows[i * len(rows) // limit] for i in range(limit)]
    if tokenizer is not None:
        check = TranscriptCheck(str(data), tokenizer)
        rows = [(*row, ref and check(ref)) for *row, ref in rows]
        check.log()
    reader = AudioReader(sample_rate)
    return tuple(Spoken(id, reader(path), ref) for id, path, ref in rows)


def batches_of(spoken: Sequence[Spoken], size: int) -> tuple[Batch, ...]:
    """Batches of ``size`` utterances, longest first.

    Example
    -------
    >>> data = [Spoken(str(n), torch.zeros(n)) for n in (4, 9, 8)]
    >>> [(b.rows, b.wav_lens_B.tolist()) for b in batches_of(data, 2)]
    [((1, 2), [1.0, 0.8888888955116272]), ((0,), [1.0])]
    """
    order = sorted(range(len(spoken)), key=lambda i: -len(spoken[i].wav_S))
    batches = []
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        wavs_BS = torch.nn.utils.rnn.pad_sequence(
            [spoken[row].wav_S for row in rows], batch_first=True
        )
        lengths_B = torch.tensor([len(spoken[row].wav_S) for row in rows])
        batches.append(Batch(tuple(rows), wavs_BS, lengths_B / len(wavs_BS[0])))
    return tuple(batches)


def _of_manifest(path: Path) -> list[tuple[str, str, str | None]]:
    try:
        rows = read_manifest(path, needed=("wav",))
        check_rows(path, rows)
    except InputError as error:
        raise InputError(f"--data {error}") from None
    return [(name, row["wav"], row.get("wrd")) for name, row in rows.items()]


def _of_folder(folder: Path) -> list[tuple[str, str, str | None]]:
    known = {f".{name.lower()}" for name in soundfile.available_formats()}
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in known | {".opus"} and path.is_file()
    )
    if not paths:
        raise InputError(
            f"--data {folder}: holds no audio files; give a folder of "
            "recordings, or a manifest."
        )
    return [(str(p.relative_to(folder)), str(p), None) for p in paths]
