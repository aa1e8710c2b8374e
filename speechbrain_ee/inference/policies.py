"""What a user may say about when to stop, and what it comes to.

And the ladder of a latency controller: thresholds of one criterion, or fixed
exits, measured on a calibration trace, of which only the efficient ones stay: a
policy that computes more than another makes fewer errors.

Axes: N utterances, E exits, T candidates.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import calibrate_trace
from speechbrain_ee.evaluation.cost import criterion_macs
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.ladder import single_ladder
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.criteria.registry import read_threshold
from speechbrain_ee.exits.decoding import GREEDY
from speechbrain_ee.exits.policy import (
    FixedExit,
    ThresholdPolicy,
    at_choice,
    choices_NT,
    error_rate,
    first_exit,
)
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.selector.selector_file import read_selector
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.inference.runner import LivePolicy

logger = logging.getLogger(__name__)

# What a policy may be given as.
PolicyLike = (
    str | int | Path | LivePolicy | ExitPolicy | ThresholdPolicy | FixedExit
)
LAST = "last"
CRITERION = "entropy"  # of budgets: a pass over the probabilities
RUNGS = 24


class Policies:
    """Turns what a user says into a policy of one model.

    The shipped policies are known by name; the ``default`` is followed if
    nothing is said, and without it all utterances take the last exit.
    Selector and combination give the scores of ``learned`` and
    ``combination``; budgets are met on the calibration data.

    Example
    -------
    >>> entropy = ExitPolicy("entropy", (2, 4), -0.1, "wer=+5%", "naive")
    >>> policies = Policies((2, 4), {"fast": entropy})
    >>> policies.resolve(1).layers, policies.resolve("fast").layers
    ((2,), (2, 4))
    """

    def __init__(
        self,
        exit_layers: Sequence[int],
        shipped: Mapping[str, ExitPolicy] | None = None,
        default: str | None = None,
        selector: LearnedSelector | None = None,
        combination: ZScores | None = None,
        calibration: Trace | None = None,
    ):
        self.exit_layers = tuple(exit_layers)
        self.shipped = dict(shipped or {})
        self.default = default
        self.selector = selector
        self.combination = combination
        self.calibration = calibration
        # Not lru_cache, with which a recogniser could not be pickled.
        self._on_budget: dict[str, ExitPolicy] = {}

    def resolve(self, given: PolicyLike | None = None) -> LivePolicy:
        """What live inference can follow.

        Arguments
        ---------
        given : str, int, Path or policy
            An exit, from 1, or ``last``; the name of a shipped policy; a
            policy file; a budget: ``macs=60%`` (of the last exit's),
            ``macs=4.2G``, ``layers=8``, ``wer=+2%`` (relative to the last
            exit), ``wer=+0.5`` (points), with another criterion than the
            default policy's in front of a colon: ``learned:wer=+2%``; a
            criterion with a threshold: ``entropy:0.9`` stops where the
            entropy is at most 0.9, ``max_prob:0.9`` where the probability is
            at least that; or a policy as an object. None: the default.

        Returns
        -------
        LivePolicy

        Raises
        ------
        InputError
            If it is none of these, or needs what the model lacks.
        """
        if given is None:
            given = self.default or LAST
        if isinstance(given, bool):
            raise InputError(
                f"policy: {given} says nothing about when to stop; give an "
                "exit, the name of a policy, or a budget such as macs=60%."
            )
        if isinstance(given, LivePolicy):
            return given
        if isinstance(given, FixedExit):
            given = given.exit
        if isinstance(given, ExitPolicy | ThresholdPolicy):
            return self._live(given)
        if isinstance(given, int) or str(given).strip().isdecimal():
            return LivePolicy.fixed(int(given), self.exit_layers)
        text = str(given).strip()
        if text == LAST:
            return LivePolicy.fixed(len(self.exit_layers), self.exit_layers)
        if text in self.shipped:
            return self._live(self.shipped[text], text)
        if Path(text).expanduser().is_file():
            return self._from_file(Path(text).expanduser())
        rule = read_threshold(text)
        if rule is not None:
            self._warn_of_one_exit(*rule, text)
            return self._live(ThresholdPolicy(*rule), text)
        if "=" in text:
            if text not in self._on_budget:
                self._on_budget[text] = self._calibrated(text)
            return self._live(self._on_budget[text], text)
        raise InputError(
            f"policy: {text!r} is none of this model's policies "
            f"({', '.join(self.shipped) or 'it has none'}) and no file; give "
            f"one of these, a policy file, an exit (1 to "
            f"{len(self.exit_layers)}, or last), a criterion with a "
            "threshold such as entropy:0.9, or a budget such as macs=60%, "
            "layers=8 or wer=+2%."
        )

    def _live(
        self,
        policy: ExitPolicy | ThresholdPolicy,
        name: str | None = None,
        selector: LearnedSelector | None = None,
    ) -> LivePolicy:
        return LivePolicy.of(
            policy,
            self.exit_layers,
            selector or self.selector,
            self.combination,
            name,
        )

    def _from_file(self, path: Path) -> LivePolicy:
        policy = read_policy(path)
        selector = None
        if policy.selector is not None:
            # Beside the policy, or that of the model.
            beside = path.parent / policy.selector
            selector = read_selector(beside) if beside.is_file() else None
        return self._live(policy, path.name, selector)

    def _warn_of_one_exit(self, name: str, threshold: float, text: str) -> None:
        """Say so where a threshold lies beside all that was measured."""
        criterion, trace = get_criterion(name), self.calibration
        if trace is None or not criterion.available(trace.evidence_names):
            return
        scores_NE = criterion.scores(trace.evidence)
        taken = {*first_exit(scores_NE, threshold).tolist()}
        last = len(self.exit_layers) - 1
        if taken in ({0}, {last}):
            early_NE = scores_NE[:, :-1] * (criterion.sign or 1.0)
            logger.warning(
                "policy %s: all utterances of the calibration data take %s "
                "exit; most of them lie between %.3g and %.3g.",
                text,
                "the last" if taken == {last} else "the first",
                *np.percentile(early_NE, [5, 95]),
            )

    def _calibrated(self, text: str) -> ExitPolicy:
        """A policy for a budget, from the calibration data."""
        criterion, budget = self._parsed(text)
        trace = self.calibration
        if trace is None:
            raise InputError(
                f"policy: the budget {text!r} needs calibration.jsonl.gz in "
                "the model folder, which is not there; export the model with "
                "its development trace, or give an exit or a policy file."
            )
        method = "ltt" if budget.startswith("wer") else "naive"
        policy = calibrate_trace(trace, criterion, budget, method)
        if not policy.satisfied:
            logger.warning(
                "policy %s: no threshold holds it for certain on %d "
                "utterances; all utterances take %s exit. A larger budget or "
                "more calibration data would help.",
                text,
                len(trace),
                "the last" if method == "ltt" else "the first",
            )
        return policy

    def _parsed(self, text: str) -> tuple[str, str]:
        """Criterion and budget."""
        first, colon, rest = text.rpartition(":")
        # A criterion's parameters have an equals sign, too.
        if colon:
            get_criterion(first)
            return first, rest.strip()
        default = self.shipped.get(self.default or "")
        return default.criterion if default else CRITERION, text


@dataclass(frozen=True)
class Rung:
    """A policy of a ladder."""

    # Of a model; where none is at hand, for the exits of a trace.
    policy: ThresholdPolicy | FixedExit | LivePolicy
    macs_per_s: float  # multiply-accumulates per second of audio
    wer: float = float("nan")  # percent, on the calibration data


def ladder_below(
    top: LivePolicy,
    trace: Trace,
    exit_layers: Sequence[int],
    decoding: str | None = None,
) -> tuple[Rung, ...]:
    """The ladder of a model, below the policy that it shall follow.

    Greedy decoding takes off what a search took on the calibration data. If
    the trace does not have the exit ``top``, the exit below it is the last.
    """
    if decoding == GREEDY:
        trace = _without_search(trace)
    if top.rule is None:
        return tuple(
            replace(
                each, policy=LivePolicy.fixed(each.policy.exit, exit_layers)
            )
            for each in _exits_below(top.exits[-1], trace, exit_layers)
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
    """Thresholds of one criterion, by rising compute.

    Without ``top``, full quality, the last has the fewest errors.
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
    """Fixed exits up to ``top``, by default the one with the fewest errors.

    Exits are counted by ``exit_layers``, of which the trace may have some.
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

    ``top`` is the last whatever its errors; below it no error counts against
    a policy but that of a cheaper one.

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
    policies: Sequence[ThresholdPolicy | FixedExit],
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
