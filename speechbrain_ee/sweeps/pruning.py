"""When a trial is given up: validation WER of its epochs against others'.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
from dataclasses import dataclass

from optuna.pruners import (
    BasePruner,
    MedianPruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)

from speechbrain_ee.errors import InputError

KINDS = ("median", "halving", "threshold")
_EPOCH = re.compile(r"^epoch: (\d+)\b")
_WER = re.compile(r"\bvalid [WC]ER L(\d+): ([\d.eE+-]+)")


@dataclass(frozen=True)
class Pruning:
    """How trials are given up.

    ``median`` and ``halving`` compare with the trials that came before, so
    that which ones are given up depends on the order of events; ``threshold``
    does not.

    Arguments
    ---------
    kind : str
        median (worse than half of the others at the same epoch), halving
        (not in the best quarter at epochs n, 4 n, 16 n), or threshold (above
        ``upper``).
    after_epochs : int
        First epoch that is looked at.
    startup_trials : int
        Finished trials before ``median`` compares.
    upper : float, optional
        Validation WER in percent, of ``threshold``.
    """

    kind: str = "median"
    after_epochs: int = 1
    startup_trials: int = 5
    upper: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(
                f"prune: kind {self.kind!r} is none of {', '.join(KINDS)}."
            )
        for name, least in (("after_epochs", 1), ("startup_trials", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InputError(
                    f"prune: {name}: {value!r} must be a whole number, at "
                    f"least {least}."
                )
        if (self.upper is not None) != (self.kind == "threshold"):
            raise InputError(
                "prune: `upper` (percent) belongs to kind threshold, and "
                "kind threshold needs it."
            )

    def pruner(self) -> BasePruner:
        """The same for Optuna."""
        if self.kind == "median":
            return MedianPruner(self.startup_trials, self.after_epochs)
        if self.kind == "halving":
            return SuccessiveHalvingPruner(min_resource=self.after_epochs)
        return ThresholdPruner(
            upper=self.upper, n_warmup_steps=self.after_epochs
        )


def valid_wers(log: str) -> dict[int, float]:
    """Validation WER of the last exit by epoch, from a ``train_log.txt``.

    Arguments
    ---------
    log : str
        Its content; a last line without end is not read yet.

    Returns
    -------
    dict of int to float
        Percent.

    Example
    -------
    >>> valid_wers("epoch: 2, lr: 0.1 - valid WER L1: 9.5, valid WER L2: 7\\n")
    {2: 7.0}
    """
    found = {}
    for line in log.rpartition("\n")[0].splitlines():
        epoch = _EPOCH.match(line)
        rates = [(int(layer), float(wer)) for layer, wer in _WER.findall(line)]
        if epoch and rates:
            found[int(epoch[1])] = max(rates)[1]
    return found
