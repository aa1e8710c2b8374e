"""Manifests on disk: a split's CSV, what it lacks, and when it was made.

``<split>.csv`` holds the utterances, ``<split>.skipped.csv`` the ids that
were left out, ``prepare.json`` from which arguments and corpus they came.
Every file is written beside its final name first, so none is ever half
there; ``prepare.json`` is emptied before the first manifest is touched and
filled after the last, so it never vouches for a mixture.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechbrain_ee import __version__
from speechbrain_ee.data.layout import Skipped
from speechbrain_ee.errors import InputError
from speechbrain_ee.files import whole_file

logger = logging.getLogger(__name__)

COLUMNS = ("ID", "duration", "wav", "spk_id", "wrd")
SKIPPED_COLUMNS = ("ID", "path", "reason")
FINGERPRINT = "prepare.json"
EXAMPLES = 3  # ids that the log names for each reason
SECONDS_PER_HOUR = 3600
_WAY_OUT = "make room or give permission, or pass another save_folder"

Row = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class SplitReport:
    """What became of a split.

    Arguments
    ---------
    split : str
        Its name.
    utterances : int
        How many are in the manifest.
    hours : float
        How long they are together.
    skipped : mapping
        Reason -> ids that were left out for it.
    """

    split: str
    utterances: int
    hours: float
    skipped: Mapping[str, tuple[str, ...]]


def write_csv(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Write a table; the csv module quotes commas and quotes."""
    with whole_file(path, _WAY_OUT, text=True) as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)


def save_split(
    save_folder: Path,
    split: str,
    rows: Sequence[Row],
    skipped: Sequence[Skipped],
) -> SplitReport:
    """Write the manifest of a split and say what it lacks."""
    list_of_skipped = save_folder / f"{split}.skipped.csv"
    if skipped:
        write_csv(
            list_of_skipped,
            SKIPPED_COLUMNS,
            ((one.utterance_id, one.path, one.reason) for one in skipped),
        )
    else:
        list_of_skipped.unlink(missing_ok=True)
    report = _report(split, rows, skipped)
    _log(report, list_of_skipped)
    if not rows:
        # A manifest of an earlier call must not pass for this one's.
        (save_folder / f"{split}.csv").unlink(missing_ok=True)
        counts = [f"{len(ids)} {why}" for why, ids in report.skipped.items()]
        if not counts:
            raise InputError(
                f"data_folder: the transcripts of the split {split} have no "
                "lines; fill them, or leave the split out."
            )
        raise InputError(
            f"data_folder: nothing of the split {split} can be used "
            f"({', '.join(counts)}); mend the files that {list_of_skipped} "
            "lists, or leave the split out."
        )
    write_csv(save_folder / f"{split}.csv", COLUMNS, rows)
    return report


def _report(
    split: str, rows: Sequence[Row], skipped: Sequence[Skipped]
) -> SplitReport:
    """Count what is in and what is out."""
    reasons: dict[str, list[str]] = {}
    for one in skipped:
        reasons.setdefault(one.reason, []).append(one.utterance_id)
    hours = sum(float(row[1]) for row in rows) / SECONDS_PER_HOUR
    ids = {reason: tuple(those) for reason, those in reasons.items()}
    return SplitReport(split, len(rows), hours, ids)


def _log(report: SplitReport, list_of_skipped: Path) -> None:
    """One line for the split, and one for each reason to skip."""
    skipped = sum(len(ids) for ids in report.skipped.values())
    logger.info(
        "%s: %d utterances, %.2f h, %d left out",
        report.split,
        report.utterances,
        report.hours,
        skipped,
    )
    for reason, ids in report.skipped.items():
        more = ", ..." if len(ids) > EXAMPLES else ""
        logger.warning(
            "%s: %d left out, %s: %s%s (all in %s)",
            report.split,
            len(ids),
            reason,
            ", ".join(ids[:EXAMPLES]),
            more,
            list_of_skipped,
        )


def _signed(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The fingerprint as JSON gives it back, with the version."""
    return json.loads(json.dumps({"version": __version__, **fingerprint}))


def earlier_reports(
    save_folder: Path, fingerprint: Mapping[str, Any]
) -> dict[str, SplitReport] | None:
    """The reports of an earlier call whose manifests still hold."""
    try:
        stored = json.loads((save_folder / FINGERPRINT).read_text("utf-8"))
        if stored["fingerprint"] != _signed(fingerprint):
            return None
        reports = {}
        for name, fields in stored["reports"].items():
            skipped = fields.pop("skipped")
            reports[name] = SplitReport(
                **fields, skipped={why: tuple(skipped[why]) for why in skipped}
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # absent, unfinished or damaged: make it anew
    if all((save_folder / f"{name}.csv").is_file() for name in reports):
        return reports
    return None


def begin(save_folder: Path) -> None:
    """Make the folder and declare its manifests unfinished."""
    try:
        save_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"save_folder: {save_folder} cannot be made ({error.strerror}); "
            "pass a folder that you may write to."
        ) from error
    path = save_folder / FINGERPRINT
    with whole_file(path, _WAY_OUT, text=True) as stream:
        json.dump({}, stream)


def finish(
    save_folder: Path,
    fingerprint: Mapping[str, Any],
    reports: Mapping[str, SplitReport],
) -> None:
    """Record from what the manifests were made."""
    stored = {
        "fingerprint": _signed(fingerprint),
        "reports": {name: asdict(one) for name, one in reports.items()},
    }
    path = save_folder / FINGERPRINT
    with whole_file(path, _WAY_OUT, text=True) as stream:
        json.dump(stored, stream, indent=1)
