"""Checking a manifest before it is used.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import os

from speechbrain_ee.errors import InputError

COLUMNS = ("ID", "duration", "wav", "wrd")


def check_manifest(path: str) -> None:
    """Look for what SpeechBrain's reader of manifests would stumble over.

    Arguments
    ---------
    path : str
        A manifest, CSV.

    Raises
    ------
    InputError
        If it is missing or unreadable, lacks a column, has a ragged row, a
        repeated ID or an impossible duration.
    """
    if not os.path.isfile(path):
        raise InputError(
            f"{path}: this manifest does not exist; run without "
            "--skip_prep=True, or pass --train_csv, --valid_csv, --test_csv."
        )
    fault = None
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            fault = _first_fault(csv.DictReader(stream, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        fault = f"cannot be read ({error})"
    if fault:
        raise InputError(
            f"{path}: {fault}; a manifest needs the columns "
            f"{','.join(COLUMNS)} and at least one utterance. Mend it, or "
            "run without --skip_prep=True to have it made again."
        )


def _first_fault(table: csv.DictReader) -> str | None:
    columns = table.fieldnames or ()
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        return f"the column {' and '.join(missing)} is missing"
    known = set()
    for row in table:
        where = f"line {table.line_num}"
        if None in row or None in row.values():
            return f"{where} has not as many cells as the first line"
        if row["ID"] in known:
            return f"{where} repeats the ID {row['ID']!r}"
        known.add(row["ID"])
        try:
            positive = 0 < float(row["duration"]) < float("inf")
        except ValueError:
            positive = False
        if not positive:
            return f"{where} has the duration {row['duration']!r}"
    return None if known else "it has no utterance"
