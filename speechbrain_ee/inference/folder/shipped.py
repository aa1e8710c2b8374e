"""What a folder ships for choosing exits: policies, and what they rest on.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import calibrate_trace
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.criteria.plausibility import OF_TEXT
from speechbrain_ee.exits.records import UtteranceRecord
from speechbrain_ee.exits.selector.truncation import truncated_selector
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.inference.folder.model_folder import (
    POLICY_SELECTOR,
    ModelFolder,
)

logger = logging.getLogger(__name__)

# These take microseconds; the learned selector reads every word.
CHEAP = ("entropy", *OF_TEXT)
CRITERIA = (*CHEAP, "learned")
# On every corpus at hand a naive policy broke its budget on a test set.
METHODS = ("naive", "ltt")
# What a policy has to save of the last exit's time to be the default.
WORTH = 0.1
# They look at later exits, or read with what belongs to the selector.
_OF_SELECTOR = ("learned", "combination")


def shipped_policies(
    trace: Trace, budget: str | None, criteria: Sequence[str] = CRITERIA
) -> dict[str, ExitPolicy]:
    """Calibrate the policies that a folder ships.

    Arguments
    ---------
    trace : Trace
        Of the development set.
    budget : str, optional
        What they hold, for example ``wer=+5%``; without it there are none.
    criteria : sequence of str
        Those without evidence in the trace are left out.

    Returns
    -------
    dict of str to ExitPolicy
        By ``<criterion>.<method>``.
    """
    found = {}
    if budget is None or len(trace.layers_E) < 2:
        return found
    for name in criteria:
        if not get_criterion(name).available(trace.evidence_names):
            continue
        for method in METHODS:
            try:
                policy = calibrate_trace(trace, name, budget, method)
            except InputError as error:
                logger.warning("%s.%s is not shipped: %s", name, method, error)
                continue
            if name == "learned":
                policy = replace(policy, selector=POLICY_SELECTOR)
            found[f"{name}.{method}"] = policy
    return dict(sorted(found.items()))


def candidates(
    policies: Mapping[str, ExitPolicy], trace: Trace | None
) -> dict[str, float]:
    """Which policies may be the default, and what they take.

    Arguments
    ---------
    policies : mapping of str to ExitPolicy
        By name.
    trace : Trace, optional
        Of the development set; without it there are none.

    Returns
    -------
    dict of str to float
        Those that found a threshold; for each its multiply-accumulates
        (layers, where these are not known) over the last exit's.
    """
    if trace is None:
        return {}
    return {
        name: _share(policy, trace)
        for name, policy in policies.items()
        if policy.satisfied and policy.calibration is not None
    }


def default_of(
    policies: Mapping[str, ExitPolicy],
    trace: Trace | None,
    times: Mapping[str, float] | None = None,
) -> tuple[str | None, str]:
    """The policy to use where none is asked for.

    Arguments
    ---------
    policies : mapping of str to ExitPolicy
        By name.
    trace : Trace, optional
        Of the development set.
    times : mapping of str to float, optional
        Time of :func:`candidates` over the last exit's, as far as it was
        measured. Without it multiply-accumulates stand for it, and only
        criteria count whose own time is short.

    Returns
    -------
    name : str or None
        Of those that save a tenth, the fastest by Learn then Test; if none
        of these does, the fastest that promises nothing; else None, the last
        exit.
    reason : str
        Why, for people.
    """
    unit = "multiply-accumulates" if times is None else "time"
    shares = times
    if shares is None:
        cheap = {n: p for n, p in policies.items() if p.criterion in CHEAP}
        shares = candidates(cheap, trace)
    worth = {n: s for n, s in shares.items() if s <= 1 - WORTH}
    sure = {n: s for n, s in worth.items() if policies[n].method == "ltt"}
    count = 0 if trace is None else len(trace)
    if worth:
        name = min(sure or worth, key=worth.get)
        policy = policies[name]
        takes = (
            f"takes {worth[name]:.0%} of the last exit's {unit} on the "
            f"development set ({policy.calibration.avg_layer:.1f} of "
            f"{policy.exit_layers[-1]} layers)"
        )
        if sure:
            return name, f"{takes} and promises its budget, {policy.budget}."
        return name, (
            f"{takes} and keeps {policy.budget} there. It promises nothing for "
            f"other speech: with {count} utterances, no policy that does saves "
            "a tenth. Where the budget must hold, take one that ends in .ltt, "
            "or calibrate on more data."
        )
    if not policies:
        return None, "there is no calibrated policy."
    return None, (
        f"with the {count} utterances of the development set, no policy "
        f"saves a tenth of the {unit} and keeps its budget. Calibrate on more "
        "data, or for a larger budget."
    )


def _share(policy: ExitPolicy, trace: Trace) -> float:
    """What it computes on its calibration data, of the last exit's."""
    known = policy.calibration
    if known.avg_macs is None or trace.macs_NE is None:
        return known.avg_layer / trace.header.exit_layers[-1]
    return known.avg_macs / float(trace.macs_NE[:, -1].mean())


def without_transcripts(trace: Trace) -> Trace:
    """A trace of which nobody learns what was said, or by whom.

    Arguments
    ---------
    trace : Trace
        Of any data.

    Returns
    -------
    Trace
        Same errors, words, durations, costs and measurements; references are
        as many dashes as they had words (or characters), names are numbers,
        those of speakers too.
    """
    records = []
    errors_NE, words_N = trace.errors_NE, trace.words_N
    clusters = trace.clusters
    space = " " if trace.header.error_unit == "word" else ""
    for row, record in enumerate(trace.records):
        exits = tuple(
            replace(exit_, hyp=None, greedy=None, errors=int(errors))
            for exit_, errors in zip(record.exits, errors_NE[row])
        )
        records.append(
            UtteranceRecord(
                id=str(row + 1),
                set=record.set,
                ref=space.join("-" * int(words_N[row])),
                exits=exits,
                duration_s=record.duration_s,
                speaker=record.speaker and str(clusters.label_N[row] + 1),
            )
        )
    return Trace(trace.header, tuple(records), trace.source)


def up_to_layer(trace: Trace, layer: int) -> Trace | None:
    """What a trace says of a model that ends at a layer.

    Arguments
    ---------
    trace : Trace
        Of the whole model.
    layer : int
        The encoder's last layer.

    Returns
    -------
    Trace, optional
        Without the scores of a learned selector, which look at what later
        exits would bring; None if it has no exit so early.
    """
    header = trace.header
    exits = sum(each <= layer for each in header.exit_layers)
    if not exits:
        return None
    cut = {
        key: value[:exits]
        for key in ("exit_layers", "macs", "parameters")
        if (value := getattr(header, key)) is not None
    }
    records = tuple(
        replace(
            record,
            exits=tuple(
                replace(
                    exit_,
                    evidence={
                        name: value
                        for name, value in exit_.evidence.items()
                        if name not in _OF_SELECTOR
                    },
                )
                for exit_ in record.exits[:exits]
            ),
        )
        for record in trace.records
    )
    return Trace(replace(header, **cut), records, trace.source)


def truncated_folder(folder: ModelFolder, exits: int) -> ModelFolder:
    """The smaller model that ends at an exit, with policies of its own.

    Its outputs are those of the whole model at these exits, bit by bit.
    Budgets that speak of the last exit now speak of another one: policies are
    calibrated again, on the development set of the folder, for the same
    budgets. Those of the learned selector are left out: its scores of the
    development set take the transcripts, which no folder holds.

    Arguments
    ---------
    folder : ModelFolder
        The whole model.
    exits : int
        How many exits stay, 1 to the number of exits.

    Returns
    -------
    ModelFolder
        In memory; ``path`` is that of the whole model.

    Raises
    ------
    InputError
        If there is no such exit.
    """
    model = folder.model.truncated(exits)
    if exits == len(folder.exit_layers):
        return folder
    trace, policies, selector = folder.calibration, {}, folder.selector
    if selector is not None:
        selector = truncated_selector(selector, exits) if exits > 1 else None
    if trace is not None:
        trace = up_to_layer(trace, model.exit_layers[-1])
    if trace is not None:
        for name, policy in folder.policies.items():
            again = shipped_policies(trace, policy.budget, [policy.criterion])
            if name in again:
                policies[name] = _known_as(again[name], policy)
    kept = [r for r in folder.measured if r.exit and r.exit <= exits]
    default, reason = default_of(policies, trace)
    return replace(
        folder,
        model=model.eval(),
        architecture=folder.architecture.truncated(exits),
        policies=policies,
        default_policy=default,
        default_reason=reason,
        selector=selector,
        combination=None,
        calibration=trace,
        facts={
            **folder.facts,
            "Truncated": f"at exit {exits} of {len(folder.exit_layers)}",
        },
        measured=tuple(kept),
    )


def _known_as(policy: ExitPolicy, old: ExitPolicy) -> ExitPolicy:
    """Calibrated on the same utterances, which have lost their names."""
    if policy.calibration is None or old.calibration is None:
        return policy
    fingerprint = old.calibration.fingerprint
    known = replace(policy.calibration, fingerprint=fingerprint)
    return replace(policy, calibration=known)
