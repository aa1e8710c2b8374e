"""Utterances worth looking at, and listening to, in a report.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import base64
import csv
import io
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.trace import Trace, UtteranceRecord

logger = logging.getLogger(__name__)

_RATE_HZ = 16000
_LONGEST_S = 30.0  # a page holds a few utterances, not recordings


@dataclass(frozen=True)
class Example:
    """An utterance worth looking at.

    Arguments
    ---------
    kind : str
        ``overthinking`` or ``typical``.
    record : UtteranceRecord
        With a hypothesis at every exit.
    errors : tuple of int
        Word errors at every exit.
    """

    kind: str
    record: UtteranceRecord
    errors: tuple[int, ...]


def choose_examples(trace: Trace, each: int = 3) -> tuple[Example, ...]:
    """Strongest overthinking, and utterances nearest to the average.

    Arguments
    ---------
    trace : Trace
        One test set.
    each : int
        How many of each kind at most.

    Returns
    -------
    tuple of Example
        None without hypotheses.
    """
    if trace.edits_NE3 is None:
        return ()
    errors_NE, words_N = trace.errors_NE, trace.words_N
    readable_N = (words_N >= 4) & (words_N <= 25)
    harm_N = (errors_NE[:, -1] - errors_NE.min(axis=1)) * readable_N
    over = [i for i in np.argsort(-harm_N, kind="stable") if harm_N[i] > 0]
    rate_NE = errors_NE / np.maximum(words_N, 1)[:, None]
    mean_E = errors_NE.sum(axis=0) / max(words_N.sum(), 1)
    distance_N = np.abs(rate_NE - mean_E).sum(axis=1)
    distance_N[~readable_N] = np.inf
    typical = [
        i for i in np.argsort(distance_N, kind="stable") if i not in over[:each]
    ]
    return tuple(
        Example(kind, trace.records[i], tuple(errors_NE[i].tolist()))
        for kind, rows in (("overthinking", over), ("typical", typical))
        for i in rows[:each]
    )


def nearby_sounds(trace: Trace, ids: Collection[str]) -> dict[str, str]:
    """Utterances as sounds that a page can hold, where their audio is near.

    A run writes its traces into a folder beside the manifest of every test
    set; a trace that was taken elsewhere has no sound.

    Arguments
    ---------
    trace : Trace
        One test set, read from or written to a file.
    ids : collection of str
        The utterances.

    Returns
    -------
    dict of str to str
        A ``data:`` address by utterance; those without audio are left out.
    """
    paths = _audio_paths(trace, ids)
    if not paths:
        return {}
    # imports torchaudio, which most reports need not wait for
    from speechbrain_ee.data.audio import AudioReader

    sounds, read = {}, AudioReader(_RATE_HZ)
    for name, path in paths.items():
        try:
            samples = read(path).numpy()
            if len(samples) <= _LONGEST_S * _RATE_HZ:
                sounds[name] = _address(samples)
        except (InputError, RuntimeError) as error:
            logger.info("No sound of %s in the report: %s", name, error)
    return sounds


def _audio_paths(trace: Trace, ids: Collection[str]) -> dict[str, str]:
    """Where the manifest beside a trace says that the audio is."""
    source = Path(trace.source)
    if not source.is_file():
        return {}
    for folder in source.resolve().parents[:2]:
        manifest = folder / f"{trace.sets[0]}.csv"
        if not manifest.is_file():
            continue
        try:
            with open(manifest, encoding="utf-8", newline="") as stream:
                rows = list(csv.DictReader(stream))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            logger.info("%s: cannot be read: %s", manifest, error)
            return {}
        return {
            row["ID"]: row["wav"]
            for row in rows
            if row.get("ID") in ids and row.get("wav")
        }
    return {}


def _address(samples: np.ndarray) -> str:
    """Samples as MP3, which every browser plays, in a ``data:`` address."""
    stream = io.BytesIO()
    kind = "MP3" if "MP3" in soundfile.available_formats() else "FLAC"
    soundfile.write(stream, samples, _RATE_HZ, format=kind)
    text = base64.b64encode(stream.getvalue()).decode()
    return f"data:audio/{'mpeg' if kind == 'MP3' else 'flac'};base64,{text}"
