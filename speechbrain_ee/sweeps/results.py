"""What a sweep has found: table, front, figure, and YAMLs to run again.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import optuna
from optuna.trial import FrozenTrial, TrialState

from speechbrain_ee.data.manifests import write_csv
from speechbrain_ee.files import ROOM, whole_file
from speechbrain_ee.sweeps.definition import quiet
from speechbrain_ee.sweeps.study import ENDED, StudyFolder, by_point

TABLE, FIGURE, BEST, FRONT = "results.csv", "pareto.png", "best.yaml", "front"
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Row:
    """A point and what became of it.

    ``values`` has one number per objective, of a pruned point its last
    validation WER; ``attempts`` counts trials, one more after each failure;
    ``seconds`` are those of the attempt that counts.
    """

    point: int
    state: str
    values: tuple[float, ...] = ()
    parameters: dict[str, Any] | None = None
    attempts: int = 0
    seconds: float | None = None
    error: str = ""


def rows_of(folder: StudyFolder) -> list[Row]:
    """The points of a study; each once, however often it was tried."""
    attempts = by_point(folder.trials())
    points = range(folder.definition.trials)
    return [_row(folder, point, attempts.get(point, [])) for point in points]


def _row(folder: StudyFolder, point: int, tried: list[FrozenTrial]) -> Row:
    ended = [trial for trial in tried if trial.state in ENDED]
    kept = None if ended else folder.result(point)
    if kept is not None:  # trained without a storage
        return Row(
            point,
            "complete",
            tuple(kept["values"]),
            kept["parameters"],
            max(1, len(tried)),
            kept["seconds"],
        )
    if not tried:
        return Row(point, "waiting")
    trial = ended[0] if ended else tried[-1]
    failed = trial.state == TrialState.FAIL
    return Row(
        point,
        _STATES[trial.state],
        tuple(trial.values or ()),
        {
            key: each.meant(trial.params[key])
            for key, each in folder.definition.space.items()
            if key in trial.params
        },
        len(tried),
        trial.duration.total_seconds() if ended else None,
        trial.user_attrs.get("error", "its worker died") if failed else "",
    )


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """The complete rows that no other one beats in everything.

    By ascending first objective; of equal ones the first point alone.

    Example
    -------
    >>> values = [(3.0, 1.0), (2.0, 2.0), (3.0, 2.0), (2.0, 2.0)]
    >>> rows = [Row(n, "complete", v) for n, v in enumerate(values)]
    >>> [row.point for row in pareto_front(rows)]
    [1, 0]
    """
    complete = [row for row in rows if row.state == "complete"]
    if not complete:
        return []
    first: dict[tuple[float, ...], Row] = {}
    for trial in _study_of(complete).best_trials:
        first.setdefault(tuple(trial.values), complete[trial.number])
    return [first[values] for values in sorted(first)]


def _study_of(complete: Sequence[Row]) -> optuna.Study:
    """A study in memory of what is complete, for Optuna's own analyses."""
    directions = ["minimize"] * len(complete[0].values)
    with quiet():
        study = optuna.create_study(directions=directions)
    for row in complete:
        study.add_trial(optuna.create_trial(values=row.values))
    return study


def write_results(folder: StudyFolder) -> str:
    """Write table, figure and YAMLs; returns the table and how to go on."""
    rows = rows_of(folder)
    front = pareto_front(rows)
    labels = [each.label for each in folder.definition.objectives]
    _write_table(folder, rows, front, labels)
    lines = [_console(folder, rows, front, labels)]
    if not front:
        return "\n".join([*lines, "No point is complete yet."])
    _draw(folder.path / FIGURE, rows, labels)
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


def _draw(path: Path, rows: Sequence[Row], labels: Sequence[str]) -> None:
    """Optuna's figure of the complete points."""
    plots = optuna.visualization.matplotlib
    study = _study_of([row for row in rows if row.state == "complete"])
    with quiet(), plt.rc_context():  # it changes the style for good
        if len(labels) == 1:
            axes = plots.plot_optimization_history(study, target_name=labels[0])
        else:
            axes = plots.plot_pareto_front(study, target_names=list(labels))
        try:
            with whole_file(path) as stream:
                axes.figure.savefig(
                    stream, format="png", dpi=150, bbox_inches="tight"
                )
        finally:
            plt.close(axes.figure)


def _write_table(
    folder: StudyFolder, rows: list[Row], front: list[Row], labels: list[str]
) -> None:
    keys = list(folder.definition.space)
    last = ["attempts", "seconds", "folder", "error"]
    lines = [
        [row.point, row.state, "yes" if row in front else "no"]
        + [*(row.values or [""] * len(labels)), *_cells(row, keys)]
        + [row.attempts, "" if row.seconds is None else row.seconds]
        + [folder.trial(row.point), " ".join(row.error.split())]
        for row in rows
    ]
    columns = ["point", "state", "front", *labels, *keys, *last]
    write_csv(folder.path / TABLE, columns, lines, ROOM)


def _console(
    folder: StudyFolder, rows: list[Row], front: list[Row], labels: list[str]
) -> str:
    keys = list(folder.definition.space)
    table = [["point", "state", *labels, *keys]]
    for row in rows:
        if row.state != "waiting":
            values = [f"{each:.6g}" for each in row.values]
            mark = "*" if row in front else ""
            table.append(
                [f"{row.point}{mark}", row.state]
                + [*(values or [""] * len(labels)), *_cells(row, keys)]
            )
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


def _cells(row: Row, keys: Sequence[str]) -> list[str]:
    values = [(row.parameters or {}).get(key, "") for key in keys]
    return [v if isinstance(v, str) else json.dumps(v) for v in values]


def _write_yaml(
    folder: StudyFolder, row: Row, labels: list[str], path: Path
) -> Path:
    """A whole YAML, with a comment that says where it is from."""
    pairs = zip(labels, row.values, strict=True)
    gave = ", ".join(f"{label} = {value:.6g}" for label, value in pairs)
    head = f"# Point {row.point} of a search gave {gave}.\n"
    text = folder.yaml(row.parameters or {}, path.with_suffix(""))
    with whole_file(path, text=True) as stream:
        stream.write(head + text)
    return path
