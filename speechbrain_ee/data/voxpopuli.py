"""CSV manifests for VoxPopuli, English, transcribed.

The layout that the corpus's own tools make: one recording per utterance in
``transcribed_data/en/<year>/<id>.ogg`` (the year is the beginning of the id),
and ``transcribed_data/en/asr_{train,dev,test}.tsv`` with one line per
utterance, of which the columns ``id``, ``normalized_text`` and ``speaker_id``
are read. The transcripts are written as LibriSpeech's; digits stay. A
``speaker_id`` of ``None`` is one that the corpus does not know.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from speechbrain_ee.data.layout import (
    DUPLICATE_ID,
    EMPTY_TRANSCRIPT,
    MISSING_AUDIO,
    Skipped,
    SplitText,
    Utterance,
)
from speechbrain_ee.data.preparation import FixedSplits
from speechbrain_ee.data.words import librispeech_words
from speechbrain_ee.errors import InputError

SPLITS = ("train", "dev", "test")
LAYOUT = (
    "<data_folder>/transcribed_data/en/asr_{train,dev,test}.tsv and "
    "<data_folder>/transcribed_data/en/<year>/<id>.ogg"
)
COLUMNS = ("id", "normalized_text", "speaker_id")
AUDIO_SUFFIXES = (".ogg", ".wav", ".flac")
UNKNOWN_SPEAKER = "None"
YEAR_DIGITS = 4


@dataclass(frozen=True)
class Table:
    """The table of a split, and the folder that holds the years."""

    path: Path
    folder: Path


def find_table(data_folder: Path, split: str) -> Table:
    """The table of a split."""
    name = f"asr_{split}.tsv"
    places = [data_folder / "transcribed_data/en", data_folder / "en"]
    for folder in (*places, data_folder):
        if (folder / name).is_file():
            return Table(folder / name, folder)
    raise InputError(
        f"data_folder: {data_folder} has no split {split!r} of VoxPopuli: "
        f"{places[0] / name} is no file; the layout is {LAYOUT}."
    )


def table_state(table: Table) -> list[int]:
    """Numbers that differ when the corpus has changed."""
    status = table.path.stat()
    years = sorted(path for path in table.folder.glob("*") if path.is_dir())
    changed = [year.stat().st_mtime_ns for year in years]
    return [status.st_size, status.st_mtime_ns, *changed]


def read_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Id, text and speaker, empty if unknown, of every line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"data_folder: {path} cannot be read as UTF-8 text ({error}); "
            "convert or replace it."
        ) from error
    columns = lines[0].rstrip("\r").split("\t")
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise InputError(
            f"data_folder: {path}:1: lacks the columns {', '.join(missing)}; "
            "make the table again with VoxPopuli's own tools."
        )
    places = [columns.index(name) for name in COLUMNS]
    # Not by the csv module: quotes in this table are those of the speeches.
    for number, line in enumerate(lines[1:], start=2):
        cells = line.rstrip("\r").split("\t")
        if cells == [""]:
            continue
        if len(cells) != len(columns) or not cells[places[0]]:
            raise InputError(
                f"data_folder: {path}:{number}: has {len(cells)} cells, of "
                f"{len(columns)}, or no id; mend or remove the line."
            )
        name, text, speaker = (cells[place] for place in places)
        yield name, text, "" if speaker == UNKNOWN_SPEAKER else speaker


def read_table(table: Table) -> SplitText:
    """The utterances of a split."""
    audio = _audio(table.folder)
    utterances: dict[str, Utterance] = {}
    skipped = []
    for name, text, speaker in read_rows(table.path):
        words = librispeech_words(text)
        path = audio.get(name)
        reason = None
        if not words:
            reason = EMPTY_TRANSCRIPT
        elif path is None:
            reason = MISSING_AUDIO
        elif name in utterances:
            reason = DUPLICATE_ID
        if reason:
            skipped.append(Skipped(name, path or str(table.path), reason))
        else:
            utterances[name] = Utterance(name, speaker, path, words)
    return SplitText(
        tuple(utterances[name] for name in sorted(utterances)),
        tuple(sorted(skipped, key=lambda one: (one.utterance_id, one.path))),
    )


def _audio(folder: Path) -> dict[str, str]:
    """Recordings of all years, by id."""
    found = {}
    for year in sorted(folder.glob("[0-9]" * YEAR_DIGITS)):
        for path in sorted(year.iterdir()):
            if path.suffix in AUDIO_SUFFIXES:
                found.setdefault(path.stem, str(path))
    return found


VOXPOPULI = FixedSplits(
    "VoxPopuli", SPLITS, find_table, table_state, read_table
)
prepare_voxpopuli = VOXPOPULI.prepare
