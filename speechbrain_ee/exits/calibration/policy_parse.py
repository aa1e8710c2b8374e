"""Checked access to the keys of a policy file.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.exits.calibration.budget import Budget
from speechbrain_ee.exits.calibration.risk import METHODS
from speechbrain_ee.files import read_yaml

_REQUIRED = object()


class Keys:
    """The keys of a mapping; remembers which ones were asked for.

    Arguments
    ---------
    path : Path
        The file, for messages.
    values : mapping
        What the file holds.
    prefix : str
        Where in the file, for messages.
    """

    def __init__(self, path: Path, values: Any, prefix: str = ""):
        self.path = path
        self.prefix = prefix
        self.asked: list[str] = []
        self.values: Mapping[Any, Any] = {}
        if not isinstance(values, dict):
            self.fail("", f"a mapping is expected, not {quoted(values)}")
        self.values = values

    @classmethod
    def read(cls, path: Path) -> "Keys":
        """Parse a file.

        Arguments
        ---------
        path : Path
            A YAML file.

        Returns
        -------
        Keys

        Raises
        ------
        InputError
            If it cannot be read or is not YAML of plain values.
        """
        values = read_yaml(
            path,
            "give the path of a policy file, or write it again with "
            "`calibrate`",
        )
        return cls(path, values)

    def fail(self, key: str, problem: str) -> NoReturn:
        """Refuse the file.

        Arguments
        ---------
        key : str
            The culprit.
        problem : str
            What is wrong with it.

        Raises
        ------
        InputError
            Always.
        """
        where = f"{self.prefix}{key}".rstrip(".")
        raise InputError(
            f"{self.path}, {f'key {where}' if where else 'content'}: "
            f"{problem}. Correct it, or write the policy again with "
            f"`calibrate`."
        )

    def end(self) -> None:
        """Refuse keys that nobody asked for."""
        unknown = [key for key in self.values if key not in self.asked]
        if unknown:
            listed = ", ".join(dict.fromkeys(self.asked))
            self.fail(str(unknown[0])[:100], f"not known; valid keys: {listed}")

    def take(self, key: str, default: Any = _REQUIRED) -> Any:
        """The raw value; a key that may be left out has a default."""
        self.asked.append(key)
        if key not in self.values:
            if default is _REQUIRED:
                self.fail(key, "missing")
            return default
        return self.values[key]

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        """A string."""
        return self._checked(key, default, str, "a text")

    def texts(self, key: str, default: Any = _REQUIRED) -> tuple[str, ...]:
        """Strings."""
        value = self.take(key, default)
        if key not in self.values:
            return value
        if not isinstance(value, list) or not all(
            isinstance(item, str) for item in value
        ):
            self.fail(key, f"{quoted(value)} is not a list of texts")
        return tuple(value)

    def flag(self, key: str) -> bool:
        """True or false."""
        return self._checked(key, _REQUIRED, bool, "true or false")

    def count(self, key: str, default: Any = _REQUIRED) -> Any:
        """A whole number above 0."""
        value = self._checked(key, default, int, "a whole number")
        if key in self.values and (value is True or value < 1):
            self.fail(key, f"{quoted(value)} is not a whole number above 0")
        return value

    def number(self, key: str) -> float:
        """A number; infinities allowed, NaN not."""
        return self._number(key, self.take(key))

    def finite(self, key: str, default: Any = _REQUIRED) -> Any:
        """A finite number."""
        value = self.take(key, default)
        if key not in self.values:
            return value
        number = self._number(key, value)
        if not math.isfinite(number):
            self.fail(key, f"{quoted(value)} is not a finite number")
        return number

    def share(self, key: str) -> float:
        """A number between 0 and 1, both excluded."""
        number = self.number(key)
        if not 0 < number < 1:
            self.fail(key, f"{quoted(number)} is not between 0 and 1")
        return number

    def numbers(self, key: str, length: int | None = None) -> tuple[float, ...]:
        """Numbers, so many of them."""
        value = self.take(key)
        if not isinstance(value, list) or not value:
            self.fail(key, f"{quoted(value)} is not a list of numbers")
        if length is not None and len(value) != length:
            self.fail(key, f"{len(value)} numbers where {length} are needed")
        return tuple(self._number(key, item) for item in value)

    def rising(self, key: str) -> tuple[int, ...]:
        """At least two rising whole numbers above 0."""
        value = self.take(key)
        if (
            not isinstance(value, list)
            or len(value) < 2
            or not all(type(item) is int and item > 0 for item in value)
            or any(a >= b for a, b in zip(value, value[1:]))
        ):
            self.fail(key, f"{quoted(value)} is not a list of rising layers")
        return tuple(value)

    def budget(self, key: str) -> str:
        """A budget, as a user writes it."""
        text = self.text(key)
        try:
            return str(Budget.parse(text))
        except InputError as error:
            self.fail(key, str(error).rstrip("."))

    def method(self, key: str) -> str:
        """A method of calibration."""
        value = self.text(key)
        if value not in METHODS:
            self.fail(
                key, f"{quoted(value)} is not one of {', '.join(METHODS)}"
            )
        return value

    def part(self, key: str) -> "Keys | None":
        """A mapping inside, if there."""
        value = self.take(key, None)
        if value is None:
            return None
        return Keys(self.path, value, f"{self.prefix}{key}.")

    def parts(self, key: str, length: int) -> list["Keys"]:
        """Mappings inside, none or so many of them."""
        value = self.take(key, [])
        if not isinstance(value, list) or len(value) not in (0, length):
            self.fail(key, f"a list of {length} mappings is expected")
        return [
            Keys(self.path, item, f"{self.prefix}{key}[{place}].")
            for place, item in enumerate(value)
        ]

    def _checked(self, key: str, default: Any, kind: type, words: str) -> Any:
        value = self.take(key, default)
        if key in self.values and not isinstance(value, kind):
            self.fail(key, f"{quoted(value)} is not {words}")
        return value

    def _number(self, key: str, value: Any) -> float:
        if type(value) not in (int, float) or math.isnan(value):
            self.fail(key, f"{quoted(value)} is not a number")
        return float(value)
