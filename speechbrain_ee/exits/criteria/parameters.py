"""Parameters in a name: ``tsallis_min:alpha=0.5``.

The keyword-only arguments of a measure or criterion are what a user may set;
their defaults say of which kind the numbers are.

Authors
 * The speechbrain-ee contributors 2026
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from speechbrain_ee.errors import InputError

Range = tuple[float, float]


@dataclass(frozen=True)
class Parameters:
    """What a user may set, and to what.

    Arguments
    ---------
    defaults : mapping of str to number
        Value of each parameter if it is not given.
    ranges : mapping of str to pair of float
        Least and largest value allowed, both included.

    Example
    -------
    >>> parameters = Parameters({"alpha": 0.5}, {"alpha": (0.1, 2.0)})
    >>> parameters.parse("criterion", "tsallis_min:alpha=1")
    {'alpha': 1.0}
    """

    defaults: Mapping[str, float | int]
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        ranges: Mapping[str, Range] | None = None,
    ) -> "Parameters":
        """The keyword-only arguments of a function.

        Arguments
        ---------
        function : callable
            The measure or criterion.
        ranges : mapping of str to pair of float, optional
            Values allowed.

        Returns
        -------
        Parameters

        Raises
        ------
        ValueError
            If a range is for an argument that is not there.
        """
        arguments = inspect.signature(function).parameters
        defaults = {
            name: argument.default
            for name, argument in arguments.items()
            if argument.kind is inspect.Parameter.KEYWORD_ONLY
        }
        unknown = set(ranges or {}) - set(defaults)
        if unknown:
            raise ValueError(f"range for no argument: {sorted(unknown)}")
        return cls(defaults, ranges or {})

    def parse(self, kind: str, name: str) -> dict[str, float | int]:
        """Read the values given in a name.

        Arguments
        ---------
        kind : str
            ``criterion`` or ``measure``, for messages.
        name : str
            The whole name.

        Returns
        -------
        dict of str to number
            The parameters given, by name.

        Raises
        ------
        InputError
            If a parameter is not known, given twice, or out of range.
        """
        stem, colon, tail = name.partition(":")
        given: dict[str, float | int] = {}
        for part in tail.split(",") if colon else ():
            key, _, text = part.partition("=")
            if key not in self.defaults:
                valid = ", ".join(self.defaults) or "none"
                raise InputError(
                    f"{kind} {name!r}: no parameter {key!r}; parameters of "
                    f"{stem}: {valid}."
                )
            if key in given:
                raise InputError(f"{kind} {name!r}: {key} is given twice.")
            given[key] = self._number(kind, name, key, text)
        return given

    def _number(self, kind: str, name: str, key: str, text: str) -> float | int:
        default = self.defaults[key]
        low, high = self.ranges.get(key, (-float("inf"), float("inf")))
        wanted = "a whole number" if isinstance(default, int) else "a number"
        try:
            value = type(default)(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise InputError(
                f"{kind} {name!r}: {key}={text!r} must be {wanted} from "
                f"{low:g} to {high:g} (default {default:g})."
            )
        return value
