"""What a search makes small: numbers of a trained model.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from speechbrain_ee.errors import InputError

METRICS = ("wer", "macs", "layers")
POLICIES = ("ltt", "naive")
LAST = "last"


@dataclass(frozen=True)
class Objective:
    """A number of a trained model that shall become small.

    Arguments
    ---------
    metric : str
        wer (percent), macs (per utterance) or layers (per utterance).
    set : str
        Set that was evaluated, a development set for choice.
    at : str or int
        Operating point: ``last`` exit, an exit counted from 1, or the policy
        that was calibrated by ``ltt`` or ``naive``.

    Raises
    ------
    InputError
        If there is no such number.

    Example
    -------
    >>> Objective("wer", "dev-clean", 3).label
    'wer dev-clean exit 3'
    """

    metric: str
    set: str
    at: str | int = LAST

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise InputError(
                f"objectives: metric {self.metric!r} is none of "
                f"{', '.join(METRICS)}."
            )
        if not isinstance(self.set, str):
            raise InputError(
                "objectives: `set` is missing; name the set that a trial is "
                "judged on, for example the development set."
            )
        counted = isinstance(self.at, int) and self.at >= 1
        if self.at is True or not (counted or self.at in (LAST, *POLICIES)):
            raise InputError(
                f"objectives: at: {self.at!r} is no operating point; give "
                f"{LAST}, an exit counted from 1, or {' or '.join(POLICIES)}."
            )

    @property
    def label(self) -> str:
        """For tables: metric, set and operating point."""
        at = f"exit {self.at}" if isinstance(self.at, int) else self.at
        return f"{self.metric} {self.set} {at}"


def read_objectives(given: Any) -> tuple[Objective, ...]:
    """Read ``objectives`` of a search.

    Arguments
    ---------
    given : list of mapping
        One or two.

    Returns
    -------
    tuple of Objective

    Raises
    ------
    InputError
        If something in it is unknown or cannot be.
    """
    if not isinstance(given, list) or len(given) not in (1, 2):
        raise InputError("objectives: give a list of one or two.")
    for each in given:
        check_keys("objectives", each, Objective)
    found = tuple(
        Objective(each.get("metric"), each.get("set"), each.get("at", LAST))
        for each in given
    )
    if len(set(found)) < len(found):
        raise InputError("objectives: the same one is there twice.")
    return found


def check_keys(what: str, given: Any, cls: type) -> None:
    """Refuse what is no mapping, or has keys that a dataclass lacks.

    Arguments
    ---------
    what : str
        For the message.
    given : object
        Plain data.
    cls : type
        The dataclass.

    Raises
    ------
    InputError
        With the known keys.
    """
    valid = [each.name for each in fields(cls)]
    if not isinstance(given, Mapping):
        raise InputError(f"{what}: {given!r} is no mapping.")
    for key in given:
        if key not in valid:
            raise InputError(
                f"{what} has the unknown key {key!r}; known keys: "
                f"{', '.join(valid)}."
            )
