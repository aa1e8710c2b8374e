"""Policies from a trace: the commands ``calibrate`` and ``learn``.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import math
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from speechbrain_ee.data.words import normalised
from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import outcomes_of
from speechbrain_ee.evaluation.curves import reference_words
from speechbrain_ee.evaluation.tables import WIDTH, aligned
from speechbrain_ee.exits.calibration.budget import Budget
from speechbrain_ee.exits.calibration.calibrate import (
    FEW_UTTERANCES,
    calibrate,
)
from speechbrain_ee.exits.calibration.policy_file import (
    CalibrationSummary,
    ExitPolicy,
    write_policy,
)
from speechbrain_ee.exits.calibration.risk import guarantee
from speechbrain_ee.exits.calibration.shift import (
    distributions,
    fingerprint,
    seen_share,
    seen_warnings,
    shift_warnings,
)
from speechbrain_ee.exits.clusters import Clusters
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.criteria.text import OF_TEXT
from speechbrain_ee.exits.selector.selector import LearnedSelector
from speechbrain_ee.exits.selector.selector_file import (
    read_selector,
    write_selector,
)
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace, write_trace

logger = logging.getLogger(__name__)
SELECTOR_FILE = "exit_selector.json.gz"

# These take microseconds; the learned selector reads every word.
CHEAP = ("entropy", *OF_TEXT)
CRITERIA = (*CHEAP, "learned")

# On every corpus at hand a naive policy broke its budget on a test set.
METHODS = ("naive", "ltt")

# What a policy has to save of the last exit's time to be the default.
WORTH = 0.1
_SHARE = re.compile(r"(macs|layers)=(\d+(?:\.\d*)?|\.\d+)\s*%")


def calibrate_trace(
    trace: Trace,
    criterion: str,
    budget: str,
    method: str = "ltt",
    delta: float = 0.1,
    per_exit: bool = False,
    target: float | None = None,
    target_clusters: float | None = None,
) -> ExitPolicy:
    """Calibrate a policy on all utterances of a trace.

    Arguments
    ---------
    trace : Trace
        The calibration data.
    criterion : str
        Name of the criterion.
    budget : str
        What to hold, see :meth:`Budget.parse
        <speechbrain_ee.exits.calibration.budget.Budget.parse>`; or
        ``macs=60%``, ``layers=60%``, of what the last exit takes.
    method : str
        ``naive``, ``crc`` or ``ltt``.
    delta : float
        Accepted probability of breaking the budget (``ltt``).
    per_exit : bool
        A threshold per exit instead of one for all.
    target, target_clusters : float, optional
        Utterances and speakers of the target set, see
        :func:`~speechbrain_ee.exits.calibration.calibrate.calibrate`.

    Returns
    -------
    ExitPolicy

    Raises
    ------
    InputError
        If an argument is not valid, the trace lacks what the criterion or
        the budget needs, or a compute budget is below the first exit.
    """
    parsed = Budget.parse(_absolute(budget, trace))
    found = get_criterion(criterion)
    reference_words(trace)
    if len(trace.layers_E) < 2:
        raise InputError(
            f"{trace.source}: one exit only, so there is nothing to choose."
        )
    scores_NE = found.scores(trace.evidence)
    outcomes = outcomes_of(trace, found)
    given = criterion, scores_NE, outcomes, parsed
    asked = method, delta, per_exit, target
    result = calibrate(*given, *asked, target_clusters=target_clusters)
    promise = _unsatisfied(parsed, method)
    if result.satisfied:
        unit = parsed.words.replace("word", trace.header.error_unit)
        sizes = result.target, result.target_clusters, result.clusters
        promise = guarantee(method, delta, *sizes, unit)
    finite = np.isfinite(result.target)
    return ExitPolicy(
        criterion=criterion,
        exit_layers=tuple(trace.layers_E.tolist()),
        threshold=result.policy.threshold,
        budget=str(parsed),
        method=method,
        delta=float(delta),
        satisfied=result.satisfied,
        guarantee=promise,
        target_utterances=int(result.target) if finite else None,
        calibration=CalibrationSummary(
            model=trace.header.name,
            decoding=trace.header.decoding,
            sets=trace.sets,
            utterances=len(outcomes),
            words=int(outcomes.words_N.sum()),
            wer_last=round(result.wer_last, 4),
            wer=round(result.wer, 4),
            avg_layer=round(result.avg_layer, 4),
            avg_macs=result.avg_macs,
            fingerprint=fingerprint(trace.records),
            clustered_by=trace.clusters.by,
            clusters=trace.clusters.count,
        ),
        distributions=distributions(scores_NE),
    )


def _absolute(budget: str, trace: Trace) -> str:
    """A share of what the last exit takes, as a number."""
    share = _SHARE.fullmatch(budget.strip())
    if share is None:
        return budget
    kind, percent = share.groups()
    table_NE = trace.layers_E[None, :] if kind == "layers" else trace.macs_NE
    if table_NE is None:
        raise InputError(
            f"budget {budget}: {trace.source} does not tell multiply-"
            f"accumulates; give layers={percent}%, for example."
        )
    exact = float(np.mean(table_NE[:, -1])) * float(percent) / 100
    if exact > 0:  # four digits are shown and written; the share still fits
        step = 10.0 ** (math.floor(math.log10(exact)) - 3)
        exact = math.ceil(exact / step - 1e-6) * step
    return f"{kind}={exact:.12g}"


def shipped_policies(
    trace: Trace,
    budget: str | None,
    criteria: Sequence[str] = CRITERIA,
    selector: str | None = None,
) -> dict[str, ExitPolicy]:
    """Calibrate the policies that a report measures and a folder ships.

    They are named ``<criterion>.<method>``. There are none without a budget,
    or of criteria that the trace has no evidence of; ``selector`` is the file
    that those on ``learned`` refer to.
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
                logger.warning("%s.%s is left out: %s", name, method, error)
                continue
            if name == "learned":
                policy = replace(policy, selector=selector)
            found[f"{name}.{method}"] = policy
    return dict(sorted(found.items()))


def candidates(
    policies: Mapping[str, ExitPolicy], trace: Trace | None
) -> dict[str, float]:
    """Policies that may be the default: those that found a threshold.

    By name, their multiply-accumulates (layers, where these are not known)
    on the development set over the last exit's; none without that set.
    """
    shares = {}
    for name, policy in policies.items():
        known = policy.calibration
        if trace is None or known is None or not policy.satisfied:
            continue
        share = known.avg_layer / trace.header.exit_layers[-1]
        if known.avg_macs is not None and trace.macs_NE is not None:
            share = known.avg_macs / float(trace.macs_NE[:, -1].mean())
        shares[name] = share
    return shares


def default_of(
    policies: Mapping[str, ExitPolicy],
    trace: Trace | None,
    times: Mapping[str, float] | None = None,
) -> tuple[str | None, str]:
    """The policy to use where none is asked for, and why."""
    unit, shares = "time", times
    if shares is None:
        unit = "multiply-accumulates"
        cheap = {n: p for n, p in policies.items() if p.criterion in CHEAP}
        shares = candidates(cheap, trace)
    worth = {n: s for n, s in shares.items() if s <= 1 - WORTH}
    sure = {n: s for n, s in worth.items() if policies[n].method == "ltt"}
    count = 0 if trace is None else len(trace)
    if not policies:
        return None, "there is no calibrated policy."
    if not worth:
        return None, (
            f"with the {count} utterances of the development set, no policy "
            f"saves a tenth of the {unit} and keeps its budget. Calibrate on "
            "more data, or for a larger budget."
        )
    name = min(sure or worth, key=worth.get)
    policy, known = policies[name], policies[name].calibration
    promise = f"promises its budget, {policy.budget}."
    if not sure:
        promise = (
            f"keeps {policy.budget} there. It promises nothing for other "
            f"speech: with {count} utterances, no policy that does saves a "
            "tenth. Where the budget must hold, take one that ends in .ltt, "
            "or calibrate on more data."
        )
    elif policy.guarantee.startswith("None"):
        promise = (
            f"passed the test of {policy.budget}, with {known.clusters} "
            "speakers too few for a promise."
        )
    return name, (
        f"takes {worth[name]:.0%} of the last exit's {unit} on the "
        f"development set ({known.avg_layer:.1f} of {policy.exit_layers[-1]} "
        f"layers) and {promise}"
    )


def calibrate_command(
    trace: str | Path,
    criterion: str,
    budget: str,
    method: str = "ltt",
    delta: float = 0.1,
    per_exit: bool = False,
    out: str | Path = "exit-policy.yaml",
    set_name: str | None = None,
    target: str | Path | None = None,
    selector: str | Path | None = None,
    speakers_from_ids: bool = False,
) -> str:
    """What ``python -m speechbrain_ee calibrate`` does."""
    data = read_trace(trace)
    if set_name is not None:
        data = data.subset(set_name)
    aim = None if target is None else read_trace(target)
    if speakers_from_ids:
        data = data.with_speakers_from_ids()
        aim = aim and aim.with_speakers_from_ids()
    same_kind = aim is not None and aim.clusters.by == data.clusters.by
    sizes = (aim and len(aim), aim.clusters.count if same_kind else None)
    asked = criterion, budget, method, delta, per_exit
    policy = calibrate_trace(data, *asked, *sizes)
    if selector is not None:
        _check_selector(Path(selector), criterion, data)
        policy = replace(
            policy, selector=os.path.relpath(selector, Path(out).parent)
        )
    warnings = []
    if aim is not None:
        seen = seen_share(policy.calibration.fingerprint, aim.records)
        warnings += seen_warnings(seen) + shift_warnings(policy, aim.evidence)
    if len(data) < FEW_UTTERANCES:
        warnings.append(
            f"{len(data)} utterances are few: promises rest on averages of "
            f"at least {FEW_UTTERANCES}."
        )
    write_policy(out, policy)
    logger.info("Policy written to %s", out)
    return _text(
        policy, data.clusters, warnings, Path(out), data.header.error_unit
    )


def _check_selector(path: Path, criterion: str, trace: Trace) -> None:
    if criterion != "learned":
        raise InputError(
            f"--selector {path}: gives the scores of --criterion learned, "
            f"not of {criterion}; leave it out."
        )
    layers = read_selector(path).exit_layers
    if layers != trace.header.exit_layers:
        raise InputError(
            f"--selector {path}: made for exits after layers {list(layers)}, "
            f"but {trace.source} has {list(trace.header.exit_layers)}; learn "
            f"one from a trace of this model."
        )


def _unsatisfied(budget: Budget, method: str) -> str:
    if budget.on_compute:
        return (
            f"No threshold satisfies {budget} by {method}: the policy always "
            f"stops at the first exit, and even so there are too few data to "
            f"promise the budget."
        )
    return (
        f"No threshold satisfies {budget} by {method}: the policy always "
        f"goes to the last exit, which holds the budget and saves nothing. "
        f"Allow more errors, use more data of more speakers, or another "
        f"criterion."
    )


def _text(
    policy: ExitPolicy,
    clusters: Clusters,
    warnings: list[str],
    out: Path,
    unit: str,
) -> str:
    known = policy.calibration
    assert known is not None  # calibrate_trace always gives it
    if isinstance(policy.threshold, tuple):
        pairs = zip(policy.exit_layers, policy.threshold)
        limits = ", ".join(f"layer {at}: {limit:.6g}" for at, limit in pairs)
    else:
        limits = f"{policy.threshold:.6g} at every exit"
    delta = f", delta {policy.delta:g}" if policy.method == "ltt" else ""
    lines = [
        f"Criterion    {policy.criterion}",
        f"Thresholds   {limits}",
        f"Budget       {policy.budget}, method {policy.method}{delta}",
        f"Calibration  {known.model}, {', '.join(known.sets)}: "
        f"{known.utterances} utterances, {known.words} {unit}s, "
        f"{clusters.said}",
        f"Reached      {known.wer:.2f} % WER (last exit {known.wer_last:.2f} "
        f"%) at {known.avg_layer:.2f} of {policy.exit_layers[-1]} layers",
        f"Guarantee    {policy.guarantee}",
        *(f"Warning      {warning}" for warning in warnings),
        f"Policy file  {out}",
    ]
    whole = {"break_long_words": False, "break_on_hyphens": False}
    indent = " " * len("Guarantee    ")
    return "\n".join(
        textwrap.fill(line, WIDTH, subsequent_indent=indent, **whole)
        for line in lines
    )


def learn_command(
    trace: str | Path,
    out: str | Path,
    texts: str | Path | None = None,
    speakers_from_ids: bool = False,
) -> str:
    """What ``python -m speechbrain_ee learn`` does.

    Writes the selector and the trace with its scores, those of each
    utterance from fits without it; ``calibrate`` takes that trace.
    """
    data, folder = read_trace(trace), Path(out)
    if speakers_from_ids:
        data = data.with_speakers_from_ids()
    target = folder / Path(trace).name
    if target.resolve() == Path(trace).resolve():
        raise InputError(
            f"--out {folder}: the trace itself lies there; choose another "
            f"folder."
        )
    lines = [] if texts is None else _lines(Path(texts))
    selector, scores_NE = LearnedSelector.fit_left_out(data, lines)
    scored = data.with_evidence("learned", scores_NE)
    write_selector(folder / SELECTOR_FILE, selector)
    write_trace(target, scored.header, scored.records)
    shares = [["what the predictions rest on", "share %"]]
    for name, share in selector.explain().items():
        shares.append([name, f"{100 * share:.0f}"])
    return (
        f"{aligned(shares)}\n\nSelector  {folder / SELECTOR_FILE}\n"
        f"Trace     {target}"
    )


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read as text ({error}); give transcripts in "
            f"UTF-8, one per line."
        ) from None
    return [line for line in map(normalised, text.splitlines()) if line]
