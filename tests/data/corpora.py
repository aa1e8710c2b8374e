"""Corpora in LibriSpeech's layout, written in a moment, and CSV readers.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
SHARD_MB = 0.1  # three or four of the utterances that are put in shards
FORMATS = {
    "flac": ("FLAC", "PCM_16"),
    "wav": ("WAV", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}


def tone(seconds, channels=1):
    """A quiet sine, (samples,) or (samples, channels)."""
    wave = 0.1 * np.sin(np.arange(round(seconds * RATE)) / 5)
    return wave if channels == 1 else np.stack([wave] * channels, axis=1)


def add(split, name, words, seconds=1.0, suffix="flac"):
    """Add an utterance; no audio for None seconds, no line for None words."""
    speaker, chapter, _ = name.split("-")
    folder = Path(split) / speaker / chapter
    folder.mkdir(parents=True, exist_ok=True)
    if words is not None:
        transcript = folder / f"{speaker}-{chapter}.trans.txt"
        with open(transcript, "a", encoding="utf-8") as stream:
            stream.write(f"{name} {words}".rstrip(" ") + "\n")
    path = folder / f"{name}.{suffix}"
    if seconds is not None:
        kind, subtype = FORMATS[suffix]
        soundfile.write(path, tone(seconds), RATE, subtype, format=kind)
    return path


def rows_of(path):
    """The lines of a CSV file as dictionaries."""
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def ids_of(path):
    """The ID column."""
    return [row["ID"] for row in rows_of(path)]


def spoil(path, content):
    """Put other content into an audio file."""
    path.write_bytes(content)
