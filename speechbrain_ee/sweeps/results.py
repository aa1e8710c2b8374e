"""What a search has found: table, front, and YAMLs to run again.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import io
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from speechbrain_ee.files import whole_file
from speechbrain_ee.sweeps.figure import draw_results
from speechbrain_ee.sweeps.ledger import ENDED, by_point
from speechbrain_ee.sweeps.study import StudyFolder

TABLE, FIGURE, BEST, FRONT = "results.csv", "pareto.png", "best.yaml", "front"


@dataclass(frozen=True)
class Row:
    """A point and what became of it.

    Arguments
    ---------
    point : int
        Counted from 0.
    state : str
        complete, pruned, running, failed or waiting.
    values : tuple of float
        One per objective; of a pruned point its last validation WER.
    parameters : dict of str to object
        Values by key; empty while waiting.
    attempts : int
        Trials, one more after each failure.
    seconds : float, optional
        Of the attempt that counts.
    error : str
        Why the last attempt failed.
    """

    point: int
    state: str
    values: tuple[float, ...] = ()
    parameters: dict[str, Any] | None = None
    attempts: int = 0
    seconds: float | None = None
    error: str = ""


def rows_of(folder: StudyFolder) -> list[Row]:
    """The points of a study; each once, however often it was tried.

    Arguments
    ---------
    folder : StudyFolder
        The study.

    Returns
    -------
    list of Row
        In order of the points.
    """
    _, study_id = folder.open()
    trials = folder.storage.get_all_trials(study_id, deepcopy=False)
    attempts = by_point(trials, folder.definition.trials)
    return [_row(folder, point, tried) for point, tried in attempts.items()]


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """The complete rows that no other one beats in everything.

    Arguments
    ---------
    rows : sequence of Row
        Points.

    Returns
    -------
    list of Row
        By ascending first objective; of equal ones the first point alone.

    Example
    -------
    >>> values = [(3.0, 1.0), (2.0, 2.0), (3.0, 2.0), (2.0, 2.0)]
    >>> rows = [Row(n, "complete", v) for n, v in enumerate(values)]
    >>> [row.point for row in pareto_front(rows)]
    [1, 0]
    """
    complete = [row for row in rows if row.state == "complete"]
    front: list[Row] = []
    for row in sorted(complete, key=lambda row: (row.values, row.point)):
        # sorted, so only one that came before can be as good in everything
        if not any(_as_good(other, row) for other in front):
            front.append(row)
    return front


def write_results(folder: StudyFolder) -> str:
    """Write table, figure and YAMLs into the study's folder.

    Arguments
    ---------
    folder : StudyFolder
        The study.

    Returns
    -------
    str
        The table, and how to go on.
    """
    rows = rows_of(folder)
    front = pareto_front(rows)
    labels = [each.label for each in folder.definition.objectives]
    with whole_file(folder.path / TABLE) as stream:
        stream.write(_csv(folder, rows, front, labels).encode())
    lines = [_console(folder, rows, front, labels)]
    if not front:
        return "\n".join([*lines, "No point is complete yet."])
    draw_results(folder.path / FIGURE, rows, front, labels)
    best = _write_yaml(folder, front[0], labels, folder.path / BEST)
    if len(labels) > 1:
        for row in front:
            name = f"{row.point:04d}.yaml"
            _write_yaml(folder, row, labels, folder.path / FRONT / name)
        lines.append(
            f"The front's YAMLs are in {folder.path / FRONT}; {BEST} is the "
            f"one with the lowest {labels[0]}."
        )
    script = folder.definition.script
    lines += [
        f"Table: {folder.path / TABLE}   figure: {folder.path / FIGURE}",
        "Train the best one again:",
        f"  python {shlex.quote(script)} {shlex.quote(str(best))}",
    ]
    return "\n".join(lines)


def _row(folder: StudyFolder, point: int, tried: list[FrozenTrial]) -> Row:
    if not tried:
        return Row(point, "waiting")
    ended = [trial for trial in tried if trial.state in ENDED]
    trial = ended[0] if ended else tried[-1]
    states = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.RUNNING: "running",
    }
    return Row(
        point,
        states.get(trial.state, "failed"),
        tuple(trial.values or ()),
        {
            each.key: each.meant(trial.params[each.key])
            for each in folder.definition.space
        },
        len(tried),
        trial.user_attrs.get("seconds"),
        "" if ended else trial.user_attrs.get("error", ""),
    )


def _as_good(one: Row, other: Row) -> bool:
    pairs = zip(one.values, other.values, strict=True)
    return all(mine <= its for mine, its in pairs)


def _csv(
    folder: StudyFolder, rows: list[Row], front: list[Row], labels: list[str]
) -> str:
    keys = [each.key for each in folder.definition.space]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["point", "state", "front", *labels, *keys]
        + ["attempts", "seconds", "folder", "error"]
    )
    for row in rows:
        parameters = row.parameters or {}
        values = row.values or [""] * len(labels)
        writer.writerow(
            [row.point, row.state, "yes" if row in front else "no"]
            + [*values, *(_cell(parameters.get(key, "")) for key in keys)]
            + [row.attempts, "" if row.seconds is None else row.seconds]
            + [folder.trial(row.point), " ".join(row.error.split())]
        )
    return text.getvalue()


def _console(
    folder: StudyFolder, rows: list[Row], front: list[Row], labels: list[str]
) -> str:
    keys = [each.key for each in folder.definition.space]
    table = [["point", "state", *labels, *keys]]
    for row in rows:
        if row.state == "waiting":
            continue
        values = [f"{value:.6g}" for value in row.values] or [""] * len(labels)
        mark = "*" if row in front else ""
        cells = [_cell((row.parameters or {}).get(key)) for key in keys]
        table.append([f"{row.point}{mark}", row.state, *values, *cells])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True))
        for line in table
    ]
    complete = sum(row.state == "complete" for row in rows)
    lines.append(f"{complete} of {len(rows)} points complete; * is the front.")
    lines += [
        f"Point {row.point} failed: {row.error}"
        for row in rows
        if row.state == "failed"
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _write_yaml(
    folder: StudyFolder, row: Row, labels: list[str], path: Path
) -> Path:
    """A whole YAML, with a comment that says where it is from."""
    pairs = zip(labels, row.values, strict=True)
    gave = ", ".join(f"{label} = {value:.6g}" for label, value in pairs)
    head = f"# Point {row.point} of a search gave {gave}.\n"
    text = folder.yaml(row.parameters or {}, path.with_suffix(""))
    with whole_file(path) as stream:
        stream.write((head + text).encode())
    return path
