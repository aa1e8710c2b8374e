"""From traces to analyses: every set, every criterion that its trace allows.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Iterator, Sequence

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.carried import carried
from speechbrain_ee.evaluation.curves import sweep
from speechbrain_ee.evaluation.operating_point import LEVELS
from speechbrain_ee.evaluation.policies import with_policies
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.criteria import (
    Criterion,
    criterion_names,
    get_criterion,
    measure_names,
)
from speechbrain_ee.exits.trace import Trace

logger = logging.getLogger(__name__)


def analyse(trace: Trace, key: str | None = None) -> SetAnalysis:
    """Analyse one test set.

    Arguments
    ---------
    trace : Trace
        One set (see :meth:`Trace.subset`).
    key : str, optional
        Its name in the report; by default the name of the set.

    Returns
    -------
    SetAnalysis
    """
    bare = SetAnalysis(key or trace.sets[0], trace)
    criteria, scores = {}, {}
    for criterion in available_criteria(trace):
        name = criterion.name
        scores[name] = criterion.scores(trace.evidence)
        curve = sweep(trace, name, scores[name], bare.bootstrap)
        criteria[name] = bare.criterion_result(curve, scores[name])
    return bare.extended(criteria=criteria, scores=scores)


def available_criteria(trace: Trace) -> tuple[Criterion, ...]:
    """The criteria that a report compares.

    Those whose evidence is there; baselines are left out, which look at no
    utterance, and criteria that decide exactly as another one does.

    Arguments
    ---------
    trace : Trace
        With evidence, transcripts, both or neither.

    Returns
    -------
    tuple of Criterion
        In order of registration; then evidence recorded with parameters of
        its own, such as ``tsallis_min:alpha=0.5``.
    """
    names = trace.evidence.names
    found = {
        criterion.name: criterion
        for criterion in _candidates(trace)
        if not criterion.baseline and criterion.available(names)
    }
    return tuple(c for c in found.values() if c.same_as not in found)


def criteria_note(trace: Trace) -> str:
    """How many criteria a report compares, and where the others are."""
    names = trace.evidence.names
    candidates = {c.name: c for c in _candidates(trace)}
    scored = {n: c for n, c in candidates.items() if not c.baseline}
    found = {n for n, c in scored.items() if c.available(names)}
    compared = len(available_criteria(trace))
    left_out = {
        "baselines": len(candidates) - len(scored),
        "without evidence in this trace": len(scored) - len(found),
        "deciding as another does": len(found) - compared,
    }
    reasons = [f"{why} ({n})" for why, n in left_out.items() if n]
    own = len(candidates) - len(criterion_names())
    text = f"Of {len(criterion_names())} registered criteria"
    if own:
        text += f", and {own} with parameters of their own,"
    text += f" {compared} are compared here"
    return f"{text}; left out: {', '.join(reasons)}." if reasons else f"{text}."


def analyse_all(
    traces: Sequence[Trace],
    policies: Sequence[ExitPolicy] = (),
    dev: Trace | None = None,
    default: ExitPolicy | None = None,
) -> dict[str, SetAnalysis]:
    """Analyse every set of every trace, those without transcripts left out.

    Arguments
    ---------
    traces : sequence of Trace
        Sets of one name in two traces are told apart by what the traces
        differ in.
    policies : sequence of ExitPolicy
        Measured on every set.
    dev : Trace, optional
        Development data: criteria and thresholds are chosen on it, unless
        it holds utterances of a test set.
    default : ExitPolicy, optional
        The policy that the model follows if nothing is said.

    Returns
    -------
    dict of str to SetAnalysis

    Raises
    ------
    InputError
        If a set is there twice, or the development data were recorded at
        other exits.
    """
    chosen_on = _analyse_dev(dev, traces) if dev is not None else None
    analyses: dict[str, SetAnalysis] = {}
    all_sets = [name for trace in traces for name in trace.sets]
    for trace in traces:
        _log_unknown_evidence(trace)
        trace.score()
        for name in trace.labelled_sets:
            key = name
            if all_sets.count(name) > 1:
                key = f"{name}, {_difference(trace, traces)}"
            if key in analyses:
                raise InputError(
                    f"{trace.source}: set {key!r} is there twice; give every "
                    f"trace once, and traces that differ in name or decoding."
                )
            analysis = analyse(trace.subset(name), key)
            if chosen_on is not None:
                used = {n: carried(chosen_on, analysis, n) for n in LEVELS}
                analysis = analysis.extended(dev=chosen_on, carried=used)
            analyses[key] = with_policies(analysis, policies, default)
    return analyses


def _analyse_dev(dev: Trace, traces: Sequence[Trace]) -> SetAnalysis | None:
    """The development set; None if utterances of it are tested, too."""
    known = {(row.id, row.ref) for row in dev.records}
    for trace in traces:
        if trace.header.exit_layers != dev.header.exit_layers:
            raise InputError(
                f"{dev.source}: has exits after layers "
                f"{list(dev.header.exit_layers)}, {trace.source} after "
                f"{list(trace.header.exit_layers)}; give the development "
                f"trace of the same model."
            )
        for row in trace.records:
            if (row.id, row.ref) in known:
                # a run that tests on its development set still has a report
                logger.warning(
                    "%s: utterance %r is also in the test data of %s, so that "
                    "nothing can be chosen on it; criteria and thresholds are "
                    "chosen on the test sets, and the report says so.",
                    dev.source,
                    row.id,
                    trace.source,
                )
                return None
    return analyse(dev, ", ".join(dev.sets))


def _candidates(trace: Trace) -> Iterator[Criterion]:
    yield from map(get_criterion, criterion_names())
    for name in trace.evidence_names:
        if name.partition(":")[0] in criterion_names() and ":" in name:
            yield get_criterion(name)


def _difference(trace: Trace, traces: Sequence[Trace]) -> str:
    """What tells a trace from the others: model, decoding or both."""
    models = {other.header.name for other in traces}
    decodings = {other.header.decoding for other in traces}
    if len(models) == 1:
        return trace.header.decoding
    if len(decodings) == 1:
        return trace.header.name
    return f"{trace.header.name}, {trace.header.decoding}"


def _log_unknown_evidence(trace: Trace) -> None:
    known = {n for c in criterion_names() for n in get_criterion(c).needs}
    known |= set(measure_names())
    unknown = sorted(
        name
        for name in trace.evidence_names
        if name not in known and name.partition(":")[0] not in known
    )
    if unknown:
        logger.info(
            "%s: evidence %s belongs to no registered criterion; left out",
            trace.source,
            ", ".join(unknown),
        )
