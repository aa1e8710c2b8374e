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

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import math
from collections.abc import Sequence

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.policy import FixedExit, ThresholdPolicy
from speechbrain_ee.inference.policies import Rung

logger = logging.getLogger(__name__)

_SLOWER = 30  # how much slower data change than the load does


class LatencyController:
    """Lower or raise the threshold so that a deadline is held.

    Arguments
    ---------
    deadline_rtf : float
        Seconds that may pass per second of audio.
    ladder : sequence of Rung
        Policies by rising compute, see
        :func:`speechbrain_ee.inference.policies.ladder_below`.
    margin : float
        Share of the deadline that is kept free, 0 to below 1: what noise of
        single batches may take.
    time_constant_s : float
        ``T``, in seconds of audio: how long the load is averaged over.
    hysteresis : float
        How much more than the next policy's compute must be affordable
        before it is taken (0.1: 10 %), so that noise does not change the
        policy with every batch.

    Raises
    ------
    InputError
        If the ladder is empty or not in order, or a number is out of range.

    Example
    -------
    >>> ladder = [Rung(FixedExit(1), 1e6), Rung(FixedExit(2), 2e6)]
    >>> controller = LatencyController(0.1, ladder)
    >>> controller.policy
    FixedExit(exit=2)
    >>> controller.observe(audio_s=10, wall_s=1.5)
    >>> controller.policy, round(controller.load_rtf, 3)
    (FixedExit(exit=1), 0.15)
    >>> for _ in range(10):
    ...     controller.observe(audio_s=10, wall_s=0.2)
    >>> controller.policy, round(controller.load_rtf, 3)
    (FixedExit(exit=2), 0.02)
    """

    def __init__(
        self,
        deadline_rtf: float,
        ladder: Sequence[Rung],
        margin: float = 0.15,
        time_constant_s: float = 10.0,
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
    def policy(self) -> ThresholdPolicy | FixedExit:
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
        for name, value in (("audio_s", audio_s), ("wall_s", wall_s)):
            _check(name, value, value >= 0)
        _check("macs", macs or 0, (macs or 0) >= 0)
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
        self._move(self._log_load + math.log(self._difficulty))

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
        expected = (self._log_load or 0.0) + math.log(self._difficulty)
        return expected + self._log_shares[0]

    def _move(self, log_load: float) -> None:
        limit = math.log(self.deadline_rtf * (1 - self.margin)) - log_load
        fits = [i for i, c in enumerate(self._log_shares) if c <= limit]
        place = fits[-1] if fits else 0
        if place > self._place:
            limit -= self.hysteresis
            fits = [i for i, c in enumerate(self._log_shares) if c <= limit]
            place = max([self._place, *fits])
        self._place = place
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
