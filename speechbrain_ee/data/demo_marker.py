"""Is there a demo corpus, whole and as wanted?

``corpus.json`` is written when everything else is in place. It says from
which version, seed and scale the corpus was made, what it contains, and size
and checksum of every file, so that a damaged corpus is noticed in a fraction
of a second.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechbrain_ee.errors import InputError
from speechbrain_ee.files import check_ours, read_json

VERSION = 2  # raise it with every change that is heard or read
MARKER = "corpus.json"
FORMAT = "speechbrain-ee demo corpus"
# Speaker (LibriSpeech has none from 9000 on), chapter, file.
_FILE = r"(?P<s>9\d{3})/(?P<c>\d+)/(?P=s)-(?P=c)(-\d+\.flac|\.trans\.txt)"


@dataclass(frozen=True)
class SplitSummary:
    """What a split holds."""

    utterances: int
    hours: float
    speakers: int


def identity(seed: int, scale: float) -> dict[str, Any]:
    """What makes two demo corpora the same."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "seed": int(seed),
        "scale": float(scale),
    }


def read_marker(folder: Path) -> dict[str, Any] | None:
    """Read the marker."""
    try:
        marker = read_json(folder / MARKER, "build the corpus again")
    except InputError:
        return None
    return marker if marker.get("format") == FORMAT else None


def write_marker(folder: Path, marker: dict[str, Any]) -> None:
    """Write the marker, as the last file of the corpus."""
    text = json.dumps(marker, indent=1) + "\n"
    (folder / MARKER).write_text(text, encoding="utf-8")


def find_problem(
    folder: Path, marker: dict[str, Any] | None, wanted: dict[str, Any]
) -> str | None:
    """Find out why the corpus has to be built."""
    if not folder.exists():
        return "it is not there"
    if marker is None:
        return f"it has no readable {MARKER}"
    for key, value in wanted.items():
        if marker.get(key) != value:
            return f"its {key} is {marker.get(key)}, not {value}"
    try:
        for summary in marker["splits"].values():
            SplitSummary(**summary)
        for path, expected in marker["files"].items():
            if ".." in path or os.path.isabs(path):
                return f"its {MARKER} names files elsewhere"
            if fingerprint(folder / path) != expected:
                return f"{path} is damaged"
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"{error.filename} is missing"
    except IsADirectoryError as error:
        return f"{error.filename} is not a file"
    except (AttributeError, KeyError, TypeError):
        return f"its {MARKER} is damaged"
    return None


def fingerprint(path: Path) -> list[int]:
    """Size and checksum of a file."""
    content = path.read_bytes()
    return [len(content), zlib.crc32(content)]


def refuse_foreign(folder: Path, splits: Iterable[str]) -> None:
    """Make sure that a rebuild deletes nothing but a demo corpus."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder instead.")
    check_ours(
        folder, True, re.escape(MARKER), rf"({'|'.join(splits)})/{_FILE}"
    )
