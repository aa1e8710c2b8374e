"""What is registered under which name, and by whom.

The modules of this package register when somebody asks for a name; a module of
a user's own registers when it is imported (see
:mod:`~speechbrain_ee.exits.criteria.outside`).

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.parameters import Parameters

_PACKAGE = __name__.rpartition(".")[0]


@dataclass(frozen=True)
class Entry:
    """How to make a measure or criterion from its parameters.

    Arguments
    ---------
    build : callable
        From the full name and the parameters to what is registered.
    parameters : Parameters
        Those that a user may give.
    function : callable
        What was decorated.
    """

    build: Callable[..., Any]
    parameters: Parameters
    function: Callable[..., Any]

    @property
    def module(self) -> str:
        """Full name of the module that registered it."""
        return self.function.__module__

    @property
    def origin(self) -> str:
        """Where the function stands; the same after a cell has run again."""
        return f"{self.module}.{self.function.__qualname__}"


class Registered:
    """Measures or criteria by name.

    Arguments
    ---------
    kind : str
        What one is called, for messages.
    kinds : str
        What several are called.
    """

    def __init__(self, kind: str, kinds: str):
        self.kind = kind
        self.kinds = kinds
        self._entries: dict[str, Entry] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def check(self, name: str, entry: Entry) -> None:
        """Refuse a name that another function has.

        Arguments
        ---------
        name : str
            The name, without parameters.
        entry : Entry
            What it stands for.

        Raises
        ------
        ValueError
            If another function has that name.
        """
        if not entry.module.startswith(f"{_PACKAGE}."):
            # So that the name is refused to who comes from outside.
            _package().load()
        known = self._entries.get(name)
        if known is not None and known.origin != entry.origin:
            raise ValueError(
                f"{name!r} is registered twice: by {known.origin} and by "
                f"{entry.origin}; choose another name"
            )

    def add(self, name: str, entry: Entry) -> None:
        """Register; the same function once more takes its own place."""
        self.check(name, entry)
        self._entries[name] = entry

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Forget what is registered inside if that ends in an error."""
        entries, modules = dict(self._entries), {*sys.modules}
        try:
            yield
        except BaseException:
            for name in self._entries.keys() - entries.keys():
                module = self._entries[name].module
                if module not in modules:  # importing it again registers again
                    sys.modules.pop(module, None)
            self._entries = entries
            raise

    def pop(self, name: str) -> Entry:
        """Take a name back, such as one that a test has registered."""
        return self._entries.pop(name)

    def names(self) -> tuple[str, ...]:
        """All names: those of this package in its order, then the others.

        Returns
        -------
        tuple of str
        """
        package = _package()
        # Whoever asks finds everything, whatever was imported before.
        package.load()
        return tuple(
            sorted(
                self._entries,
                key=lambda name: package.place(self._entries[name].module),
            )
        )

    def get(self, name: str) -> Any:
        """Look one up.

        Arguments
        ---------
        name : str
            Its name, with the parameters that are not to have their default.

        Returns
        -------
        Measure or Criterion

        Raises
        ------
        InputError
            If there is none of that name, or no such parameter.
        """
        stem = name.partition(":")[0]
        _package().load(lambda: stem in self._entries)
        if stem not in self._entries:
            raise InputError(
                f"{self.kind} {stem!r} is not known; valid {self.kinds}: "
                f"{', '.join(self.names())}. One of your own is known once "
                "its module is imported (on the command line: --criteria "
                "FILE)."
            )
        entry = self._entries[stem]
        return entry.build(name, **entry.parameters.parse(self.kind, name))


def _package() -> ModuleType:
    return importlib.import_module(_PACKAGE)
