"""What a user may say about when to stop, and what it comes to.

Needs no torch: exported graphs read policies on devices.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.criteria.registry import read_threshold
from speechbrain_ee.exits.policy import (
    FixedExit,
    ThresholdPolicy,
    first_exit,
)
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.inference.live import LivePolicy

logger = logging.getLogger(__name__)

# What a policy may be given as.
PolicyLike = (
    str | int | Path | LivePolicy | ExitPolicy | ThresholdPolicy | FixedExit
)
LAST = "last"
CRITERION = "entropy"  # of budgets: a pass over the probabilities


class Policies:
    """Turns what a user says into a policy of one model.

    The shipped policies are known by name; the ``default`` is followed if
    nothing is said, and without it all utterances take the last exit; budgets
    are met on the calibration data. ``sources`` are what scores rest on, as
    for :class:`~speechbrain_ee.inference.live.LiveScorer`.

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
        calibration: Trace | None = None,
        **sources: Any,
    ):
        self.exit_layers = tuple(exit_layers)
        self.shipped = dict(shipped or {})
        self.default = default
        self.calibration = calibration
        self.sources = sources
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
            if given.rule is None or "measures" not in self.sources:
                return given
            return self._live(given.rule, given.name, given.layers)
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
        layers: Sequence[int] | None = None,
        **sources: Any,
    ) -> LivePolicy:
        sources = {**self.sources, **sources}
        return LivePolicy.of(policy, self.exit_layers, name, layers, **sources)

    def _from_file(self, path: Path) -> LivePolicy:
        policy = read_policy(path)
        # Beside the policy, or that of the model.
        beside = path.parent / (policy.selector or "")
        if "measures" in self.sources or not beside.is_file():
            return self._live(policy, path.name)
        from speechbrain_ee.exits.selector.selector_file import read_selector

        return self._live(policy, path.name, selector=read_selector(beside))

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
        from speechbrain_ee.evaluation.calibrate import calibrate_trace

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
