"""Exit criteria: what says that an exit is good enough.

Asking for a name fills the registries. What measures an exit's frames is in
:mod:`~speechbrain_ee.exits.criteria.frames`, hypotheses and successive exits in
:mod:`~speechbrain_ee.exits.criteria.sequences`; what waits until exits agree is in
:mod:`~speechbrain_ee.exits.criteria.patience`, what looks at an attention
decoder's beam in :mod:`~speechbrain_ee.exits.criteria.attention`, what ignores
the utterance in :mod:`~speechbrain_ee.exits.criteria.baselines`.

To add a measure or a criterion, write one decorated function, in one of these
modules, in a new one of this folder, or in a module of your own (see
:mod:`~speechbrain_ee.exits.criteria.outside`): the evaluation then records it in
every trace, and every report shows it.

Rules that all follow (the baselines aside): padding frames do not count; a
batch changes nothing; the score of an exit does not depend on later exits;
without a frame, or where an exit emits blanks alone, there is no evidence of
readiness, and the least ready value is returned. Early exits are sure of
their blanks before they have learnt anything; the formulas of the literature
would stop there.

Those modules are imported when they are asked for: a device that runs exported
graphs reads policies and criteria without torch.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from speechbrain_ee.exits.criteria.criterion import Criterion, Measure
from speechbrain_ee.exits.criteria.registry import (
    criterion,
    criterion_names,
    get_criterion,
    get_measure,
    measure,
    measure_names,
)

# Modules that register, in the order in which criteria are listed.
_MODULES = (
    "attention",
    "baselines",
    "frames",
    "learned",
    "nbest",
    "sequences",
    "patience",
    "plausibility",
    "zscores",
)
_WITH_TORCH = ("attention", "nbest", "sequences")
# Modules that register nothing; any other one in this folder may.
_TOOLS = (
    "beam",
    "criterion",
    "measuring",
    "ngram",
    "ngram_file",
    "outside",
    "parameters",
    "registered",
    "registry",
    "view",
)
__all__ = [
    "Criterion",
    "Measure",
    "attention",
    "baselines",
    "criterion",
    "criterion_names",
    "frames",
    "get_criterion",
    "get_measure",
    "learned",
    "measure",
    "measure_all",
    "measure_names",
    "nbest",
    "patience",
    "plausibility",
    "sequences",
    "zscores",
]


def load(enough: Callable[[], bool] = lambda: False) -> None:
    """Import the modules that register measures and criteria.

    What needs torch comes last, and is left out where there is no torch.

    Arguments
    ---------
    enough : callable
        Whether what was wanted has been registered: nothing more is imported
        then.
    """
    listed = sorted(_MODULES, key=_WITH_TORCH.__contains__)
    for name in chain(listed, _others()):
        if enough():
            return
        try:
            importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "torch":
                raise


def _others() -> Iterator[str]:
    """Modules of this folder that are not listed above."""
    found = {module.name for module in pkgutil.iter_modules(__path__)}
    yield from sorted(found - {*_MODULES, *_TOOLS})


def place(module: str) -> int:
    """Where a module's criteria stand in a list of all, whoever was first.

    Arguments
    ---------
    module : str
        Its full name.

    Returns
    -------
    int
        Modules from outside come last.
    """
    package, _, name = module.rpartition(".")
    if package == __name__ and name in _MODULES:
        return _MODULES.index(name)
    return len(_MODULES)


def __getattr__(name: str) -> Any:
    if name == "measure_all":
        return importlib.import_module(f"{__name__}.measuring").measure_all
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
