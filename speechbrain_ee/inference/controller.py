"""Hold a real-time factor while the machine's load changes.

The controller moves along a ladder of policies, ordered by what they
compute. Its model of the machine has one number, the load ``s``: the seconds
that the multiply-accumulates (MACs) of one second of audio take at full
quality. A policy that computes the share ``c`` of these MACs then has the
real-time factor (RTF) ``s c``. After every batch

    y = log(wall_s / audio_s)                        what was measured
    m = macs / (audio_s rate)                        1 where MACs are not told
    l <- l + a (y - log m - log c - l),  a = 1 - exp(-audio_s / T)
    d <- d + b (m - d),                  b = 1 - exp(-audio_s / (30 T))
    u = log(deadline) + log(1 - margin) - l - log d  log c that is affordable

and the next policy is the costliest with ``log c <= u``; upwards, where
``log c <= u - hysteresis``. ``l`` estimates ``log s``; the first batch sets
it. ``rate`` is what the policy computed per second of calibration data: ``m``
tells a hard batch from a slow machine, and its slow average ``d`` harder
data than those. Without it ``l`` takes all.

Where the ladder is fine and ``m`` is 1, ``log c`` equals ``u`` and the error ``e = y -
log((1 - margin) deadline)`` obeys ``u <- u - a e``: integral control of the
logarithm of the RTF with gain ``a < 1``, in its internal-model form (Morari
and Zafiriou 1989, "Robust Process Control"). Hence

* at constant load ``e <- (1 - a) e``: monotone, without overshoot; still so
  where the RTF goes with ``c ** b`` as long as ``a b <= 1``, and stable up
  to ``a b < 2`` (``b < 1``: something in a batch does not depend on ``c``);
* nothing winds up: at an end of the ladder ``l`` still follows the load, as
  ``c`` is that of the policy that ran;
* after a step of the load by the factor ``F`` the deadline holds again when
  ``|log F| exp(-t / T) <= -log(1 - margin)``, ``t`` in seconds of audio
  (:meth:`LatencyController.settling_s`).

The ladder has thresholds of one criterion, or fixed exits, measured on a
calibration trace, of which only the efficient ones stay: a policy that
computes more than another makes fewer errors.

Axes: N utterances, E exits, T candidates.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import math
from bisect import bisect_right
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
from speechbrain_ee.inference.live import LivePolicy

logger = logging.getLogger(__name__)

RUNGS = 24
_SLOWER = 30  # how much slower data change than the load does


@dataclass(frozen=True)
class Rung:
    """A policy of a ladder."""

    # Of a model; where none is at hand, for the exits of a trace.
    policy: ThresholdPolicy | FixedExit | LivePolicy
    macs_per_s: float  # multiply-accumulates per second of audio
    wer: float = float("nan")  # percent, on the calibration data


class LatencyController:
    """Lower or raise the threshold so that a deadline is held: seconds that
    may pass per second of audio, on a ladder of policies by rising compute.

    Example
    -------
    >>> ladder = [Rung(FixedExit(1), 1e6), Rung(FixedExit(2), 2e6)]
    >>> controller = LatencyController(0.1, ladder)
    >>> controller.policy
    FixedExit(exit=2)
    >>> controller.observe(audio_s=10, wall_s=1.5)
    >>> controller.policy, round(controller.load_rtf, 3)
    (FixedExit(exit=1), 0.15)
    """

    def __init__(
        self,
        deadline_rtf: float,
        ladder: Sequence[Rung],
        margin: float = 0.15,  # share of the deadline that is kept free
        time_constant_s: float = 10.0,  # of audio: T, over which is averaged
        # How much more than the next policy's compute must be affordable, so
        # that noise does not change the policy with every batch.
        hysteresis: float = 0.1,
    ):
        _check("deadline_rtf", deadline_rtf, deadline_rtf > 0)
        _check("margin", margin, 0 <= margin < 1)
        _check("time_constant_s", time_constant_s, time_constant_s > 0)
        _check("hysteresis", hysteresis, hysteresis >= 0)
        rates = [rung.macs_per_s for rung in ladder]
        if not rates or min(rates) <= 0 or rates != sorted({*rates}):
            raise InputError(
                f"ladder: {rates!r} MACs per second of audio; give policies "
                "of rising compute, at least one."
            )
        self.deadline_rtf = deadline_rtf
        self.ladder = tuple(ladder)
        self.margin = margin
        self.time_constant_s = time_constant_s
        self.hysteresis = hysteresis
        self._log_shares = [math.log(r / rates[-1]) for r in rates]
        self._log_load: float | None = None
        self._difficulty = 1.0
        self._place = len(rates) - 1
        self._late = False

    @property
    def policy(self) -> LivePolicy | ThresholdPolicy | FixedExit:
        """The policy for the next batch; at first that of full quality."""
        return self.rung.policy

    @property
    def rung(self) -> Rung:
        """The policy for the next batch with what is known of it."""
        return self.ladder[self._place]

    @property
    def load_rtf(self) -> float | None:
        """RTF that full quality would have now on data as hard as those of
        the calibration; None before the first batch.
        """
        return None if self._log_load is None else math.exp(self._log_load)

    @property
    def feasible(self) -> bool:
        """Whether the cheapest policy is expected to hold the deadline."""
        if self._log_load is None:
            return True
        return self._cheapest() <= math.log(self.deadline_rtf)

    def observe(
        self, audio_s: float, wall_s: float, macs: float | None = None
    ) -> None:
        """Learn what a batch took, and choose the policy for the next.

        The batch took ``wall_s`` with :attr:`policy`; one without audio says
        nothing about the load and is passed over. Without ``macs``, what was
        computed for it, the policy's average is taken, and utterances that
        are easier or harder than that look like a change of the load.
        """
        given = {"audio_s": audio_s, "wall_s": wall_s, "macs": macs or 0}
        for name, value in given.items():
            _check(name, value, value >= 0)
        if not audio_s or not wall_s:
            return
        harder = macs / audio_s / self.rung.macs_per_s if macs else 1.0
        found = math.log(wall_s / audio_s / harder)
        found -= self._log_shares[self._place]
        if self._log_load is None:
            self._log_load = found
        passed = audio_s / self.time_constant_s
        self._log_load -= math.expm1(-passed) * (found - self._log_load)
        if macs:
            # a mean of logarithms would not be the logarithm of the mean
            gain = -math.expm1(-passed / _SLOWER)
            self._difficulty += gain * (harder - self._difficulty)
        self._move()

    def settling_s(self, factor: float) -> float:
        """How long the deadline may be missed after the load has jumped.

        In seconds of audio until the RTF is back at the deadline, by the
        equations of this module; infinite without a margin. ``factor`` is the
        load after the jump by the load before it.
        """
        if self.margin == 0:
            return math.inf
        ratio = abs(math.log(factor)) / -math.log1p(-self.margin)
        return self.time_constant_s * max(0.0, math.log(max(ratio, 1e-9)))

    def _cheapest(self) -> float:
        """Log of the RTF that the cheapest policy is expected to have."""
        expected = self._log_load + math.log(self._difficulty)
        return expected + self._log_shares[0]

    def _move(self) -> None:
        limit = math.log(self.deadline_rtf * (1 - self.margin))
        limit -= self._log_load + math.log(self._difficulty)
        affordable = bisect_right(self._log_shares, limit) - 1
        if affordable > self._place:
            limit -= self.hysteresis
            affordable = bisect_right(self._log_shares, limit) - 1
            self._place = max(self._place, affordable)
        else:
            self._place = max(affordable, 0)
        if self.feasible == self._late:
            self._late = not self._late
            if self._late:
                logger.warning(
                    "A real-time factor of %g is out of reach: the cheapest "
                    "policy is expected at %.3g.",
                    self.deadline_rtf,
                    math.exp(self._cheapest()),
                )


def _check(name: str, value: float, valid: bool) -> None:
    if not math.isfinite(value) or not valid:
        raise InputError(
            f"{name}: {value!r} is out of range; see LatencyController."
        )


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
    macs_NE = _macs_NE(trace)
    if decoding == GREEDY and trace.decoding_macs_NE is not None:
        macs_NE = macs_NE - trace.decoding_macs_NE
    layers = trace.header.exit_layers
    if top.rule is None:
        exits = [exit_layers.index(layer) + 1 for layer in layers]
        below = _up_to(top.exits[-1], exits)
        policies = [LivePolicy.fixed(exit, exit_layers) for exit in below]
        choice_NT = np.tile(np.arange(len(below)), (len(trace), 1))
        rungs = _measure(trace, policies, choice_NT, macs_NE)
        return efficient(rungs, len(exits), rungs[-1])
    if top.layers != layers:
        raise InputError(
            f"deadline: the policy {top.name} chooses from the exits after "
            f"the layers {list(top.layers)}, but what exits cost is known for "
            f"{list(layers)}; give a policy that was calibrated on these, or "
            "an exit."
        )
    name = top.rule.criterion
    # Thresholds alone do not say which exits they are for.
    return tuple(
        replace(rung, policy=replace(top, rule=rung.policy))
        for rung in threshold_ladder(trace, name, top.rule, macs_NE=macs_NE)
    )


def threshold_ladder(
    trace: Trace,
    criterion: str,
    top: ThresholdPolicy | None = None,
    rungs: int = RUNGS,
    macs_NE: NDArray[np.floating] | None = None,
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
    spent_NE = _macs_NE(trace) if macs_NE is None else macs_NE
    spent_NE = spent_NE + criterion_macs(trace, found)
    measured = _measure(trace, policies, choice_NT, spent_NE)
    return efficient(measured, rungs, measured[-1] if top else None)


def _up_to(top: int, known: Sequence[int]) -> list[int]:
    """Known exits up to one, or up to the last below it."""
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
    return below


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
    return list(map(Rung, policies, macs_T.tolist(), wer_T.tolist()))


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
