"""Given policies, measured on a test set that they were not calibrated on.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.cost import criterion_macs
from speechbrain_ee.evaluation.curves import (
    OperatingPoint,
    exit_shares,
    measure,
    relative_excess,
)
from speechbrain_ee.exits.calibration.budget import Budget, Outcomes
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy
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


@dataclass(frozen=True)
class PolicyResult:
    """What a policy, calibrated elsewhere, gives on a test set."""

    name: str  # name of the policy; that of the default says so
    criterion: str  # what it looks at
    # word error rate and cost, the criterion's own included
    point: OperatingPoint
    # how much the word error rate is above the last exit's, in percent of the
    # latter; None if the last exit makes no error
    excess: float | None
    # share of utterances that stop at each exit
    exit_shares: tuple[float, ...]
    budget: str | None = None  # what it was calibrated for, as given
    # whether the budget holds on this set; None without a budget
    holds: bool | None = None
    # why what is promised may not hold here, or is not tested here
    warnings: tuple[str, ...] = ()
    seen: float = 0.0  # share of the calibration data that is in this set
    default: bool = False  # whether the model follows it if nothing is said

    @property
    def verdict(self) -> str:
        """Whether the budget holds, for a table; empty if unknown."""
        word = {True: "yes", False: "no", None: ""}[self.holds]
        return f"{word}, same data" if word and self.seen else word


DEFAULT = "Default policy"  # of a report's facts

# Sums in another order may differ in the last digits.
_TOLERANCE = 1e-9


def scored_for(
    traces: Sequence[Trace], path: Path, policy: ExitPolicy
) -> list[Trace]:
    """Traces with the scores that a policy of a learned selector needs."""
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


def measured(
    trace: Trace, policy: ExitPolicy, last_wer: float, default: bool = False
) -> PolicyResult:
    """A policy on a test set whose last exit has this word error rate."""
    choice_N, cost_NE = choice_of(trace, policy)
    point = measure(trace, choice_N, None, cost_NE)
    known = policy.calibration
    seen = seen_share(known.fingerprint, trace.records) if known else 0.0
    return PolicyResult(
        name=f"{policy.name}, default" if default else policy.name,
        criterion=policy.criterion,
        point=point,
        excess=relative_excess(point.wer, last_wer),
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
