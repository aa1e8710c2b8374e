"""A given policy, measured on a test set.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass

from speechbrain_ee.evaluation.operating_point import OperatingPoint


@dataclass(frozen=True)
class PolicyResult:
    """What a policy, calibrated elsewhere, gives on a test set.

    Arguments
    ---------
    name : str
        Name of the policy; that of the default says so.
    criterion : str
        What it looks at.
    point : OperatingPoint
        Word error rate and cost, the criterion's own included.
    excess : float, optional
        How much the word error rate is above the last exit's, in percent of
        the latter; None if the last exit makes no error.
    exit_shares : tuple of float
        Share of utterances that stop at each exit.
    budget : str, optional
        What it was calibrated for, as given.
    holds : bool, optional
        Whether the budget holds on this set; None without a budget.
    warnings : tuple of str
        Why what is promised may not hold here, or is not tested here.
    seen : float
        Share of the calibration data that is in this set.
    default : bool
        Whether the model follows it if nothing is said.
    """

    name: str
    criterion: str
    point: OperatingPoint
    excess: float | None
    exit_shares: tuple[float, ...]
    budget: str | None = None
    holds: bool | None = None
    warnings: tuple[str, ...] = ()
    seen: float = 0.0
    default: bool = False

    @property
    def verdict(self) -> str:
        """Whether the budget holds, for a table; empty if unknown."""
        word = {True: "yes", False: "no", None: ""}[self.holds]
        return f"{word}, same data" if word and self.seen else word
