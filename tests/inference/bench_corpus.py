"""A few recordings with a manifest.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
from pathlib import Path

import soundfile

from tests.helpers import SAMPLE_RATE
from tests.inference.live_runs import waves

LENGTHS = (9000, 21000, 4000, 15500)


def write_corpus(folder: Path) -> Path:
    """Four recordings and a manifest, one without a reference."""
    rows = []
    for number, wav in enumerate(waves(LENGTHS)):
        path = folder / "audio" / f"u{number}.flac"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, wav.numpy(), SAMPLE_RATE)
        rows.append([f"u{number}", path, f"t{number + 1} t2"])
    (folder / "audio" / "notes.txt").write_text("no audio")
    with open(folder / "test.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["ID", "wav", "wrd"], *rows])
    return folder
