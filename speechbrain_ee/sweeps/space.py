"""What is searched: keys of a YAML and the values that they may take.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from speechbrain_ee.errors import InputError

KINDS = ("float", "int", "categorical", "together")
_FIELDS = {
    "float": {"kind", "low", "high", "log", "step"},
    "int": {"kind", "low", "high", "log", "step"},
    "categorical": {"kind", "choices"},
    "together": {"kind", "choices"},
}
_DIGITS = 6  # significant digits of a drawn number


@dataclass(frozen=True)
class Parameter:
    """A key of the YAML and what it may be.

    Arguments
    ---------
    key : str
        Key, with dots into nested mappings (``distillation.alpha``).
    kind : str
        float, int, categorical, or together: choices of several keys at
        once, where ``key`` is a name for people.
    low, high : float
        Bounds, both included.
    log : bool
        Whether equal ratios, not equal differences, are equally likely.
    step : float, optional
        Distance of the values from ``low`` on; always given for an int.
    choices : tuple
        What a categorical chooses from; lists and mappings are allowed.

    Example
    -------
    >>> Parameter.parse("lr", {"low": 0.001, "high": 0.1, "log": True}).value(
    ...     0.5
    ... )
    0.01
    >>> Parameter.parse("exit_layers", {"choices": [[2, 4], [4]]}).value(0.9)
    [4]
    """

    key: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    @classmethod
    def parse(cls, key: str, fields: Any) -> "Parameter":
        """Read one entry of ``space``.

        Arguments
        ---------
        key : str
            Key of the YAML.
        fields : mapping
            ``choices``, or ``low``, ``high`` and what goes with them.

        Returns
        -------
        Parameter

        Raises
        ------
        InputError
            If the entry is not understood.
        """
        if not isinstance(fields, Mapping):
            raise _wrong(key, f"{fields!r} is no mapping")
        kind = fields.get("kind", _likely_kind(fields))
        if kind not in KINDS:
            raise _wrong(key, f"kind {kind!r} is none of {', '.join(KINDS)}")
        unknown = sorted(fields.keys() - _FIELDS[kind])
        if unknown:
            valid = ", ".join(sorted(_FIELDS[kind]))
            raise _wrong(key, f"{unknown[0]!r} is no field of {kind}: {valid}")
        if "choices" in _FIELDS[kind]:
            choices = _choices(key, fields.get("choices"))
            if kind == "together" and not all(
                isinstance(choice, Mapping) for choice in choices
            ):
                raise _wrong(key, "choices of kind together are mappings")
            return cls(key, kind, choices=choices)
        return cls(key, kind, **_bounds(key, kind, fields))

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the YAML that it sets."""
        if self.kind != "together":
            return (self.key,)
        return tuple({key: 0 for choice in self.choices for key in choice})

    def settings(self, value: Any) -> dict[str, Any]:
        """What a value sets in the YAML.

        Arguments
        ---------
        value : object
            One of this parameter's.

        Returns
        -------
        dict of str to object
        """
        return value if self.kind == "together" else {self.key: value}

    @property
    def values(self) -> tuple[Any, ...] | None:
        """All values if they are finitely many, else None."""
        if self.choices:
            return self.choices
        if self.step is None or self.log:
            return None
        return tuple(self._stepped(place) for place in range(self._steps))

    def value(self, unit: float) -> Any:
        """The value at a place of the unit interval.

        Arguments
        ---------
        unit : float
            From 0 to 1, 1 excluded.

        Returns
        -------
        object
        """
        values = self.values
        if values is not None:
            return values[min(int(unit * len(values)), len(values) - 1)]
        if not self.log:
            drawn = self.low + unit * (self.high - self.low)
        else:
            # an int is the floor, so that the last value has its share
            high = self.high + (self.kind == "int")
            drawn = self.low * (high / self.low) ** unit
        if self.kind == "int":
            return min(int(drawn), int(self.high))
        short = float(f"{drawn:.{_DIGITS}g}")
        return min(max(short, self.low), self.high)

    @property
    def distribution(self) -> BaseDistribution:
        """The same for Optuna, which knows no lists and no mappings."""
        if self.choices:
            return CategoricalDistribution([_label(c) for c in self.choices])
        # the last one that is reached, which Optuna would warn of
        high = self.values[-1] if self.values else self.high
        if self.kind == "int":
            step = int(self.step or 1)
            return IntDistribution(int(self.low), int(high), self.log, step)
        return FloatDistribution(self.low, high, self.log, self.step)

    def shown(self, value: Any) -> Any:
        """A value as Optuna keeps it.

        Arguments
        ---------
        value : object
            One of this parameter's.

        Returns
        -------
        None, bool, int, float or str
        """
        return _label(value) if self.choices else value

    def meant(self, shown: Any) -> Any:
        """The value that Optuna keeps as this; see :meth:`shown`.

        Arguments
        ---------
        shown : None, bool, int, float or str
            From a trial.

        Returns
        -------
        object
        """
        if not self.choices:
            return shown
        labels = [_label(choice) for choice in self.choices]
        return self.choices[labels.index(shown)]

    @property
    def _steps(self) -> int:
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def _stepped(self, place: int) -> float | int:
        value = self.low + place * self.step
        if self.kind == "int":
            return int(value)
        return float(f"{value:.12g}")


def _label(choice: Any) -> Any:
    if isinstance(choice, list | dict):
        return json.dumps(choice, sort_keys=True)
    return choice


def _likely_kind(fields: Mapping[str, Any]) -> str:
    if "choices" in fields:
        return "categorical"
    bounds = (fields.get("low"), fields.get("high"))
    return "int" if all(isinstance(b, int) for b in bounds) else "float"


def _choices(key: str, choices: Any) -> tuple[Any, ...]:
    if not isinstance(choices, list) or not choices:
        raise _wrong(key, "choices must be a list of at least one value")
    labels = [repr(_label(choice)) for choice in choices]
    if len(set(labels)) < len(labels):
        raise _wrong(key, "a choice is there twice")
    return tuple(choices)


def _bounds(key: str, kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    number = int if kind == "int" else float
    bounds: dict[str, Any] = {}
    for name in ("low", "high", "step"):
        given = fields.get(name)
        if given is None and name == "step":
            continue
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise _wrong(key, f"{name}: {given!r} is no number")
        bounds[name] = number(given)
        if bounds[name] != given or not math.isfinite(given):
            raise _wrong(key, f"{name}: {given!r} is not for kind {kind}")
    log = fields.get("log", False)
    if not isinstance(log, bool):
        raise _wrong(key, f"log: {log!r} is neither true nor false")
    if log and "step" in bounds:
        raise _wrong(key, "log and step exclude each other")
    if bounds["low"] >= bounds["high"]:
        raise _wrong(key, "low must be below high")
    if log and bounds["low"] <= 0:
        raise _wrong(key, "low must be positive where log is true")
    if bounds.get("step", 1) <= 0:
        raise _wrong(key, "step must be positive")
    if kind == "int" and not log:
        bounds.setdefault("step", 1)
    return {**bounds, "log": log}


def _wrong(key: str, what: str) -> InputError:
    return InputError(
        f"space, {key}: {what}; write for example {{low: 0.0001, high: 0.01, "
        "log: true}} or {choices: [[2, 4, 6], [1, 6]]}.".replace("}}", "}")
    )
