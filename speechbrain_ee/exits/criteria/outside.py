"""Criteria of a user's own, from a file or module outside this package.

A module that registers measures and criteria by the decorators of
:mod:`~speechbrain_ee.exits.criteria.registry` only has to be imported. In
Python that is an import, in a YAML any tag that names a function of it; for
the command line it is done here.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.exits.criteria.registry import (
    all_or_none,
    criterion_names,
    measure_names,
)


def load_criteria(name: str | Path) -> tuple[str, ...]:
    """Import a module that registers measures or criteria.

    It is executed: name only code that you trust.

    Arguments
    ---------
    name : str or Path
        A Python file (``my_criteria.py``), or a module that Python can
        import (``my_package.criteria``).

    Returns
    -------
    tuple of str
        Names that are registered now and were not before; empty if the
        module had been imported.

    Raises
    ------
    InputError
        If it cannot be imported, which leaves nothing of it registered, or
        registers nothing.

    Example
    -------
    >>> load_criteria("speechbrain_ee.exits.criteria.frames")
    ()
    """
    before = {*criterion_names(), *measure_names()}
    try:
        with all_or_none():
            module, is_new = _imported(str(name))
    except Exception as error:
        raise InputError(
            f"criteria: {name} cannot be imported ({one_line(error)}); give a "
            "Python file or a module that registers criteria."
        ) from error
    after = dict.fromkeys((*criterion_names(), *measure_names()))
    added = tuple(each for each in after if each not in before)
    if is_new and not added:
        raise InputError(
            f"criteria: {name} registers no criterion; decorate a function "
            "with `measure` or `criterion` of speechbrain_ee.exits.criteria "
            f"in it (read: {module.__file__})."
        )
    return added


def _imported(name: str) -> tuple[ModuleType, bool]:
    """The module, and whether it was imported only now."""
    if not name.endswith(".py"):
        is_new = name not in sys.modules
        return importlib.import_module(name), is_new
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError("no such file")
    for module in list(sys.modules.values()):
        # Somebody may have imported it under the name that a package gives it.
        file = getattr(module, "__dict__", {}).get("__file__") or ""
        if file.endswith(path.name) and Path(file).resolve() == path:
            return module, False
    return _executed(path), True


def _executed(path: Path) -> ModuleType:
    """The module in a file, registered as Python's own import does it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    known = sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    finally:
        if known is not None:  # another module of that name stays
            sys.modules[path.stem] = known
    return module
