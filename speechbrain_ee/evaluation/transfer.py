"""Transfer: a threshold chosen on one test set, used on another.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.operating_point import (
    criterion_macs,
    measure,
)
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.policy import first_exit

LEVEL = "plus_5"


@dataclass(frozen=True)
class TransferCell:
    """A threshold chosen on set A, used on set B.

    Arguments
    ---------
    criterion : str
        What is thresholded.
    calibrated_on : str
        Set A, on which the threshold is the cheapest that costs at most 5 %
        (relative) more errors than the last exit.
    used_on : str
        Set B.
    threshold : float
        The score threshold.
    wer : float
        Word error rate on B in percent.
    excess : float, optional
        How much that is above B's last exit, in percent of the latter;
        None if B's last exit makes no error.
    avg_layer : float
        Average layer on B.
    avg_macs : float, optional
        Average multiply-accumulates on B.
    """

    criterion: str
    calibrated_on: str
    used_on: str
    threshold: float
    wer: float
    excess: float | None
    avg_layer: float
    avg_macs: float | None = None


@dataclass(frozen=True)
class TransferMatrix:
    """All ordered pairs of test sets for one criterion.

    Arguments
    ---------
    criterion : str
        What is thresholded.
    sets : tuple of str
        Keys of the test sets, in order of the report.
    cells : mapping of (str, str) to TransferCell
        By set A and set B; on the diagonal A is B. Pairs with other exit
        layers, or without the criterion, are not there.
    """

    criterion: str
    sets: tuple[str, ...]
    cells: Mapping[tuple[str, str], TransferCell] = field(default_factory=dict)


def transfer_matrices(
    analyses: Sequence[SetAnalysis],
) -> dict[str, TransferMatrix]:
    """Measure the transfer between all test sets.

    Arguments
    ---------
    analyses : sequence of SetAnalysis
        The test sets.

    Returns
    -------
    dict of str to TransferMatrix
        By criterion; empty if there is no pair of two different sets.
    """
    matrices = {}
    names = dict.fromkeys(n for a in analyses for n in a.criteria)
    for name in names:
        having = [a for a in analyses if name in a.criteria]
        cells = {}
        for source in having:
            for target in having:
                cell = _cell(name, source, target)
                if cell is not None:
                    cells[source.key, target.key] = cell
        if any(a != b for a, b in cells):
            keys = tuple(a.key for a in having)
            matrices[name] = TransferMatrix(name, keys, cells)
    return matrices


def _cell(
    name: str, source: SetAnalysis, target: SetAnalysis
) -> TransferCell | None:
    point = source.criteria[name].points[LEVEL]
    layers = [a.trace.header.exit_layers for a in (source, target)]
    if layers[0] != layers[1] or point is None or point.threshold is None:
        return None
    used = measure(
        target.trace,
        first_exit(target.scores[name], point.threshold),
        point.threshold,
        criterion_macs(target.trace, get_criterion(name)),
    )
    return TransferCell(
        name,
        source.key,
        target.key,
        point.threshold,
        used.wer,
        target.excess(used.wer),
        used.avg_layer,
        used.avg_macs,
    )
