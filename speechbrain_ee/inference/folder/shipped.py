"""What a folder ships for choosing exits: policies, and what they rest on.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

from speechbrain_ee.evaluation.calibrate import default_of, shipped_policies
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.selector.truncation import truncated_selector
from speechbrain_ee.exits.trace import Trace, UtteranceRecord
from speechbrain_ee.inference.folder.model_folder import ModelFolder

# They look at later exits, or read with what belongs to the selector.
_OF_SELECTOR = ("learned", "combination")


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
