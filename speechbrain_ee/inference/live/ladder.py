"""The ladder of a latency controller: policies by what they compute.

Thresholds of one criterion, or fixed exits, measured on a calibration
trace. Only the efficient ones stay: a policy that computes more than another
makes fewer errors.

Axes: N utterances, E exits, T candidates.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.operating_point import criterion_macs
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.ladder import (
    at_choice_NT,
    choices_NT,
    single_ladder,
)
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.decoding.methods import GREEDY
from speechbrain_ee.exits.policy import FixedExit, ThresholdPolicy
from speechbrain_ee.exits.trace import Trace

RUNGS = 24

Rule = ThresholdPolicy | FixedExit


@dataclass(frozen=True)
class Rung:
    """A policy of a ladder.

    Arguments
    ---------
    policy : ThresholdPolicy or FixedExit
        The policy.
    macs_per_s : float
        What it computes per second of audio, in multiply-accumulates.
    wer : float
        Word error rate on the calibration data, percent; NaN if unknown.
    """

    policy: Rule
    macs_per_s: float
    wer: float = float("nan")


class Calibrated(Protocol):
    """What is asked of an inference folder."""

    policies: dict[str, ExitPolicy]
    default_policy: str | None
    calibration: Trace | None


def ladder_of_folder(
    folder: Calibrated,
    policy: ExitPolicy | str | None = None,
    decoding: str | None = None,
) -> tuple[Rung, ...]:
    """The ladder below a policy of an inference folder.

    Arguments
    ---------
    folder : ModelFolder
        The folder, with its calibration.
    policy : ExitPolicy or str, optional
        Full quality, or its name; by default the folder's default policy.
        Without any policy in the folder, a ladder of fixed exits.
    decoding : str, optional
        How exits are decoded. ``ctc_greedy`` takes off what a search took on
        the calibration data.

    Returns
    -------
    tuple of Rung
        By rising compute; the policy is the last.

    Raises
    ------
    InputError
        If the folder has no calibration, or no such policy.
    """
    if folder.calibration is None:
        raise InputError(
            "calibration.jsonl.gz: the model folder has none, so what a "
            "threshold costs is not known; export it again with a "
            "development set."
        )
    trace = folder.calibration
    if decoding == GREEDY:
        trace = _without_search(trace)
    name = folder.default_policy if policy is None else policy
    if name is None:
        return exit_ladder(trace)
    if isinstance(name, str):
        if name not in folder.policies:
            listed = ", ".join(sorted(folder.policies)) or "none"
            raise InputError(
                f"policy {name!r}: not in the model folder; "
                f"policies there: {listed}."
            )
        name = folder.policies[name]
    return threshold_ladder(trace, name.criterion, name.policy)


def threshold_ladder(
    trace: Trace,
    criterion: str,
    top: ThresholdPolicy | None = None,
    rungs: int = RUNGS,
) -> tuple[Rung, ...]:
    """Thresholds of one criterion.

    Arguments
    ---------
    trace : Trace
        Calibration data, with durations and MACs.
    criterion : str
        Name of the criterion.
    top : ThresholdPolicy, optional
        Full quality; nothing costlier is in the ladder. By default the
        threshold with the fewest errors.
    rungs : int
        Most policies.

    Returns
    -------
    tuple of Rung
        By rising compute, at about even steps of its logarithm.

    Raises
    ------
    InputError
        If the trace lacks durations, MACs or the criterion's evidence.
    """
    found = get_criterion(criterion)
    scores_NE = found.scores(trace.evidence)
    ladder_TK = single_ladder(scores_NE)
    exits = scores_NE.shape[1]
    policies = [
        ThresholdPolicy(criterion, float(limit), exits)
        for limit in (ladder_TK[:, 0] if exits > 1 else [np.inf])
    ]
    if top is not None:
        last = top.threshold
        limits = last if isinstance(last, tuple) else (last,) * (exits - 1)
        ladder_TK = np.vstack([ladder_TK, limits[: exits - 1]])
        policies.append(top)
    choice_NT = choices_NT(scores_NE, ladder_TK)
    spent_NE = _macs_NE(trace) + criterion_macs(trace, found)
    measured = _measure(trace, policies, choice_NT, spent_NE)
    return efficient(measured, rungs, measured[-1] if top else None)


def exit_ladder(trace: Trace) -> tuple[Rung, ...]:
    """Fixed exits.

    Arguments
    ---------
    trace : Trace
        Calibration data, with durations and MACs.

    Returns
    -------
    tuple of Rung
        By rising compute, up to the exit with the fewest errors.

    Raises
    ------
    InputError
        If the trace lacks durations or MACs.
    """
    exits = len(trace.layers_E)
    choice_NT = np.tile(np.arange(exits), (len(trace), 1))
    policies = [FixedExit(place + 1) for place in range(exits)]
    measured = _measure(trace, policies, choice_NT, _macs_NE(trace))
    return efficient(measured, exits)


def efficient(
    rungs: Sequence[Rung], size: int, top: Rung | None = None
) -> tuple[Rung, ...]:
    """Policies that no cheaper one equals, at even steps of log compute.

    Arguments
    ---------
    rungs : sequence of Rung
        Candidates.
    size : int
        Most that stay, at least 2.
    top : Rung, optional
        The last of the result, whatever its errors.

    Returns
    -------
    tuple of Rung
        By rising compute and falling errors; below ``top`` no error counts
        against a policy but that of a cheaper one.

    Example
    -------
    >>> costs, errors = (1.0, 2.0, 3.0, 4.0), (9, 5, 6, 4)
    >>> found = [Rung(FixedExit(1), c, e) for c, e in zip(costs, errors)]
    >>> [rung.macs_per_s for rung in efficient(found, 9)]
    [1.0, 2.0, 4.0]
    """
    kept: list[Rung] = []
    for rung in sorted(rungs, key=lambda r: (r.macs_per_s, r.wer)):
        costly = top is not None and rung.macs_per_s >= top.macs_per_s
        if not costly and (not kept or rung.wer < kept[-1].wer):
            kept.append(rung)
    if top is not None:
        kept.append(top)
    logs = np.log([rung.macs_per_s for rung in kept])
    wanted = np.linspace(logs[0], logs[-1], size)
    nearest = np.abs(logs[:, None] - wanted).argmin(axis=0)
    return tuple(kept[i] for i in sorted({*nearest.tolist()}))


def _measure(
    trace: Trace,
    policies: Sequence[Rule],
    choice_NT: NDArray[np.integer],
    macs_NE: NDArray[np.floating],
) -> list[Rung]:
    seconds = sum(record.duration_s or 0.0 for record in trace.records)
    macs_T = at_choice_NT(macs_NE, choice_NT).sum(axis=0) / seconds
    errors_T = at_choice_NT(trace.errors_NE, choice_NT).sum(axis=0)
    wer_T = 100 * errors_T / max(1, int(trace.words_N.sum()))
    rows = zip(policies, macs_T.tolist(), wer_T.tolist(), strict=True)
    return [Rung(*row) for row in rows]


def _without_search(trace: Trace) -> Trace:
    """The trace with the multiply-accumulates of greedy decoding."""
    if trace.decoding_macs_NE is None:
        return trace
    records = []
    for record in trace.records:
        exits = tuple(
            replace(
                exit_,
                macs=exit_.macs - exit_.decoding_macs,
                decoding_macs=None,
            )
            for exit_ in record.exits
        )
        records.append(replace(record, exits=exits))
    return Trace(trace.header, tuple(records), trace.source)


def _macs_NE(trace: Trace) -> NDArray[np.float64]:
    macs_NE = trace.macs_NE
    known = all(record.duration_s for record in trace.records)
    if macs_NE is None or not known or not len(trace):
        raise InputError(
            f"{trace.source}: a latency controller needs durations and "
            "multiply-accumulates of all utterances; record the trace with "
            "this project's evaluation."
        )
    return macs_NE
