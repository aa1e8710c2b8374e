"""Given policies, measured on a test set that they were not calibrated on.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.operating_point import (
    average_costs,
    criterion_macs,
    measure,
)
from speechbrain_ee.evaluation.policy_result import PolicyResult
from speechbrain_ee.evaluation.result import exit_shares
from speechbrain_ee.evaluation.rows import Row
from speechbrain_ee.exits.calibration.budget import Budget, Outcomes
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.shift import (
    seen_share,
    seen_warnings,
    shift_warnings,
)
from speechbrain_ee.exits.clusters import SPEAKER
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.policy import at_choice
from speechbrain_ee.exits.selector.selector_file import read_selector
from speechbrain_ee.exits.trace import Trace

DEFAULT = "Default policy"  # of a report's facts
# Sums in another order may differ in the last digits.
_TOLERANCE = 1e-9


def with_policies(
    analysis: SetAnalysis,
    policies: Sequence[ExitPolicy],
    default: ExitPolicy | None = None,
) -> SetAnalysis:
    """The analysis with policies measured on its set.

    Arguments
    ---------
    analysis : SetAnalysis
        A test set.
    policies : sequence of ExitPolicy
        Policies for the same exits.
    default : ExitPolicy, optional
        The one of them that the model follows if nothing is said.

    Returns
    -------
    SetAnalysis

    Raises
    ------
    InputError
        If a policy was made for other exits, or its evidence is not there.
    """
    results = tuple(
        _measured(analysis, policy, policy == default) for policy in policies
    )
    return analysis.extended(policies=results)


def scored_for(
    traces: Sequence[Trace], path: Path, policy: ExitPolicy
) -> list[Trace]:
    """Traces with the scores that a policy of a learned selector needs.

    Arguments
    ---------
    traces : sequence of Trace
        The traces.
    path : Path
        The policy file: its selector lies relative to it.
    policy : ExitPolicy
        The policy.

    Returns
    -------
    list of Trace
        Scored by the policy's selector where the scores are not there yet;
        those of other exits as they are.

    Raises
    ------
    InputError
        If the selector cannot be read.
    """
    if policy.selector is None:
        return list(traces)
    selector = None
    scored = []
    for trace in traces:
        same = trace.header.exit_layers == policy.exit_layers
        if same and policy.criterion not in trace.evidence.names:
            if selector is None:
                selector = read_selector(path.parent / policy.selector)
            scores_NE = selector.scores(trace.evidence)
            trace = trace.with_evidence(policy.criterion, scores_NE)
        scored.append(trace)
    return scored


def unlabelled_rows(
    traces: Sequence[Trace], policies: Sequence[ExitPolicy]
) -> list[Row]:
    """What policies choose on the sets that have no transcripts.

    Arguments
    ---------
    traces : sequence of Trace
        Of any sets.
    policies : sequence of ExitPolicy
        For the exits of the traces.

    Returns
    -------
    list of dict
        Layers and multiply-accumulates per utterance of the last exit and of
        every policy, by set; empty if all sets have transcripts.
    """
    rows: list[Row] = []
    for trace in traces:
        for name in trace.sets:
            if name in trace.labelled_sets:
                continue
            part = trace.subset(name)
            last_N = np.full(len(part), len(part.layers_E) - 1)
            choices = {"last exit": (last_N, 0.0)}
            choices |= {each.name: choice_of(part, each) for each in policies}
            for choice, (choice_N, cost_NE) in choices.items():
                layers, macs = average_costs(part, choice_N[:, None], cost_NE)
                rows.append(
                    {
                        "set": name,
                        "utterances": len(part),
                        "choice": choice,
                        "layers": layers[0],
                        "macs": macs[0],
                    }
                )
    return rows


def choice_of(
    trace: Trace, policy: ExitPolicy
) -> tuple[NDArray[np.int64], NDArray[np.float64] | float]:
    """Every utterance's exit (N,), and what choosing costs at each (N, E)."""
    layers = tuple(trace.header.exit_layers)
    if tuple(policy.exit_layers) != layers:
        raise InputError(
            f"policy {policy.name}: made for exits after layers "
            f"{list(policy.exit_layers)}, but {trace.source} has exits after "
            f"layers {list(layers)}; calibrate a policy on a trace of this "
            f"model."
        )
    criterion = get_criterion(policy.criterion)
    choice_N = policy.choose(criterion.scores(trace.evidence))
    return choice_N, criterion_macs(trace, criterion)


def _measured(
    analysis: SetAnalysis, policy: ExitPolicy, default: bool
) -> PolicyResult:
    trace = analysis.trace
    choice_N, cost_NE = choice_of(trace, policy)
    point = measure(trace, choice_N, None, cost_NE)
    known = policy.calibration
    seen = seen_share(known.fingerprint, trace.records) if known else 0.0
    return PolicyResult(
        name=f"{policy.name}, default" if default else policy.name,
        criterion=policy.criterion,
        point=point,
        excess=analysis.excess(point.wer),
        exit_shares=exit_shares(choice_N, len(trace.layers_E)),
        budget=policy.budget,
        holds=_holds(trace, Budget.parse(policy.budget), choice_N, cost_NE),
        warnings=_warnings(policy, trace, seen),
        seen=seen,
        default=default,
    )


def _warnings(policy: ExitPolicy, trace: Trace, seen: float) -> tuple[str, ...]:
    found = seen_warnings(seen) + shift_warnings(policy, trace.evidence)
    known = policy.calibration
    if not policy.satisfied:
        found.insert(
            0,
            "No threshold satisfied the budget on its calibration data, so "
            "it does not depend on the utterance.",
        )
    elif policy.method == "ltt" and known is not None:
        if policy.guarantee.startswith("None"):
            found.insert(
                0,
                f"Calibrated on {known.clusters} speakers, too few for a "
                f"promise.",
            )
        elif known.clustered_by != SPEAKER:
            found.insert(
                0, "Calibrated by utterance: no promise for new speakers."
            )
    return tuple(found)


def _holds(
    trace: Trace,
    budget: Budget,
    choice_N: NDArray[np.integer],
    cost_NE: NDArray[np.floating] | float,
) -> bool | None:
    """Whether the budget holds on this set; None if it cannot be told."""
    macs_NE = None if trace.macs_NE is None else trace.macs_NE + cost_NE
    if budget.kind == "macs" and macs_NE is None:
        return None
    outcomes = Outcomes(trace.errors_NE, trace.words_N, trace.layers_E, macs_NE)
    losses_NE = budget.losses_NE(outcomes)
    losses_N = at_choice(losses_NE, choice_N)
    return bool(losses_N.mean() <= _TOLERANCE * np.abs(losses_NE).max())
