"""The ladder of a latency controller: policies by what they compute.

Thresholds of one criterion, or fixed exits, measured on a calibration
trace. Only the efficient ones stay: a policy that computes more than another
makes fewer errors.

Axes: N utterances, E exits, T candidates.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.cost import criterion_macs
from speechbrain_ee.exits.calibration.ladder import single_ladder
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.decoding.methods import GREEDY
from speechbrain_ee.exits.policy import (
    FixedExit,
    ThresholdPolicy,
    at_choice,
    choices_NT,
    error_rate,
)
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.inference.live.policy import LivePolicy

logger = logging.getLogger(__name__)

RUNGS = 24

Rule = ThresholdPolicy | FixedExit | LivePolicy


@dataclass(frozen=True)
class Rung:
    """A policy of a ladder.

    Arguments
    ---------
    policy : ThresholdPolicy, FixedExit or LivePolicy
        The policy: one of a model, or, where no model is at hand, thresholds
        for the exits of a trace.
    macs_per_s : float
        What it computes per second of audio, in multiply-accumulates.
    wer : float
        Word error rate on the calibration data, percent; NaN if unknown.
    """

    policy: Rule
    macs_per_s: float
    wer: float = float("nan")


def ladder_below(
    top: LivePolicy,
    trace: Trace,
    exit_layers: Sequence[int],
    decoding: str | None = None,
) -> tuple[Rung, ...]:
    """The ladder of a model, below the policy that it shall follow.

    Arguments
    ---------
    top : LivePolicy
        Full quality.
    trace : Trace
        Calibration data of the model, of all its exits or of some.
    exit_layers : sequence of int
        Layers of the model's exits.
    decoding : str, optional
        How exits are decoded. ``ctc_greedy`` takes off what a search took on
        the calibration data.

    Returns
    -------
    tuple of Rung
        By rising compute, policies of the model; ``top`` is the last, or, if
        it is an exit that the trace does not have, the exit below it.

    Raises
    ------
    InputError
        If the trace does not tell what ``top`` and cheaper policies cost.
    """
    if decoding == GREEDY:
        trace = _without_search(trace)
    if top.rule is None:
        rungs = _exits_below(top.exits[-1], trace, exit_layers)
        return tuple(
            replace(
                rung, policy=LivePolicy.fixed(rung.policy.exit, exit_layers)
            )
            for rung in rungs
        )
    if top.layers != trace.header.exit_layers:
        raise InputError(
            f"deadline: the policy {top.name} chooses from the exits after "
            f"the layers {list(top.layers)}, but what exits cost is known for "
            f"{list(trace.header.exit_layers)}; give a policy that was "
            "calibrated on these, or an exit."
        )
    rungs = threshold_ladder(trace, top.rule.criterion, top.rule)
    # Thresholds alone do not say which exits they are for.
    return tuple(
        replace(rung, policy=replace(top, rule=rung.policy)) for rung in rungs
    )


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


def exit_ladder(
    trace: Trace, exit_layers: Sequence[int], top: int | None = None
) -> tuple[Rung, ...]:
    """Fixed exits.

    Arguments
    ---------
    trace : Trace
        Calibration data, with durations and MACs, of all exits of a model or
        of some.
    exit_layers : sequence of int
        Layers of the model's exits, by which the exits of the result are
        counted.
    top : int, optional
        Full quality, an exit of the trace; by default the exit with the
        fewest errors.

    Returns
    -------
    tuple of Rung
        By rising compute.

    Raises
    ------
    InputError
        If the trace lacks durations or MACs.
    """
    exits = [exit_layers.index(layer) + 1 for layer in trace.header.exit_layers]
    choice_NT = np.tile(np.arange(len(exits)), (len(trace), 1))
    policies = [FixedExit(exit) for exit in exits]
    measured = _measure(trace, policies, choice_NT, _macs_NE(trace))
    last = None if top is None else measured[exits.index(top)]
    return efficient(measured, len(exits), last)


def _exits_below(
    top: int, trace: Trace, exit_layers: Sequence[int]
) -> tuple[Rung, ...]:
    """Fixed exits up to one, or up to the last of the trace below it."""
    known = [exit_layers.index(layer) + 1 for layer in trace.header.exit_layers]
    below = [exit for exit in known if exit <= top]
    if not below:
        raise InputError(
            f"deadline: what exit {top} costs is not known, nor is there a "
            f"cheaper one to fall back on; give one of the exits "
            f"{', '.join(map(str, known))}."
        )
    if below[-1] != top:
        logger.warning(
            "deadline: what exit %d costs is not known; none above exit %d "
            "is taken.",
            top,
            below[-1],
        )
    return exit_ladder(trace, exit_layers, below[-1])


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
    macs_T = at_choice(macs_NE, choice_NT).sum(axis=0) / seconds
    wer_T = error_rate(trace.errors_NE, trace.words_N, choice_NT)
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
