"""The registry of criteria: what one is, how to add one and find one.

A *measure* turns what an exit put out into one number per utterance: raw
evidence, recorded in a trace under the measure's name. A *criterion* turns
evidence into scores, higher = more ready to stop. Most criteria read one
measure and only say which way it points; others compare transcripts or combine
evidence.

A module of a user's own that registers by :func:`measure` or :func:`criterion`
only has to be imported. In Python that is an import, in a YAML any tag that
names a function of it; for the command line :func:`load_criteria` does it.

Axes: B utterances of a batch, N of a table, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from __future__ import annotations  # a device without torch reads criteria

import importlib
import importlib.util
import inspect
import math
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.exits.evidence import Evidence

if TYPE_CHECKING:
    from torch import Tensor

    from speechbrain_ee.exits.criteria.view import ExitView

Cost = Callable[..., Any]  # of frames and vocabulary, see `Criterion.macs`
Range = tuple[float, float]
Function = TypeVar("Function", bound=Callable[..., Any])

# Modules of this folder that register, the one that needs torch last, and
# those that do not; any other module in it may.
_MODULES = ("frames", "successive", "text", "combined", "beams")
_TOOLS = ("registry", "view")
# In which a list of all has them; others follow.
_ORDER = """
    beam_score beam_posterior token_confidence token_confidence_min
    fixed random
    entropy entropy_nats entropy_nonblank max_prob max_prob_nonblank
    margin margin_nonblank token_quantile token_quantile_nonblank
    tsallis_mean tsallis_min
    learned nbest_posterior
    ctc_forward ctc_forward_per_frame hidden_cosine
    cross_entropy_1 cross_entropy_2 cross_entropy_3 cross_entropy_4
    agreement patience_transcript patience_distribution
    plausibility unseen_words combination
""".split()


# ---- Measures and criteria -------------------------------------------------


def per_entry(operations: int) -> Cost:
    """Cost of so many operations per frame and vocabulary entry."""
    return lambda frames, vocab: operations * frames * vocab


def free(frames: Any, vocab: int) -> Any:
    """Cost of table look-ups, not worth counting."""
    return 0 * frames


@dataclass(frozen=True)
class Measure:
    """A registered measure, as :func:`measure` declares it.

    Its function makes of an :class:`ExitView
    <speechbrain_ee.exits.criteria.view.ExitView>` raw evidence of shape (B,).
    """

    name: str
    function: Callable[[ExitView], Tensor]
    formula: str
    source: str
    cost: Cost
    earlier: int = 0
    hidden: bool = False
    decodes: bool = False
    ranges: Mapping[str, Range] = field(default_factory=dict, compare=False)
    origin: tuple[str, str] = ("", "")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name: what is registered are functions in functions."""
        return get_measure, (self.name,)


@dataclass(frozen=True)
class Criterion:
    """A registered criterion, as :func:`criterion` or :func:`measure`
    declares it.

    Its function makes of :class:`~speechbrain_ee.exits.evidence.Evidence`
    scores of shape (N, E); without one a score is the evidence that it needs
    times the sign.
    """

    name: str
    function: Callable[[Evidence], NDArray[np.floating]] | None = field(
        repr=False
    )
    needs: tuple[str, ...]
    formula: str
    source: str
    cost: Cost = field(repr=False)
    baseline: bool = False
    same_as: str | None = None
    sign: float | None = None
    ranges: Mapping[str, Range] = field(default_factory=dict, compare=False)
    origin: tuple[str, str] = ("", "")

    def scores(self, evidence: Evidence) -> NDArray[np.float64]:
        """Scores (N, E), higher = more ready to stop.

        Minus infinity where the criterion has nothing to go by yet;
        InputError if evidence in ``needs`` is missing.
        """
        if self.function is None:
            scores_NE = self.sign * evidence.column(self.needs[0])
        else:
            scores_NE = np.asarray(self.function(evidence), dtype=np.float64)
        return np.where(np.isnan(scores_NE), -np.inf, scores_NE)

    def available(self, names: Iterable[str]) -> bool:
        """Whether evidence of these names is enough for it."""
        return set(self.needs) <= set(names)

    @property
    def decodes(self) -> bool:
        """Whether it needs what an attention decoder found, at every exit
        that it is evaluated at.
        """
        return any(each.decodes for each in self._measures())

    def macs(
        self,
        frames: Any,
        vocab: int,
        width: int | None = None,
        frames_per_s: float | None = None,
    ) -> Any:
        """Declared multiply-accumulates at one exit for one utterance.

        Of ``frames`` encoder frames (a number or an array) over ``vocab``
        entries, those of the measures it reads included; the costs' own
        defaults stand for what is not known of the model.
        """
        known = {"width": width, "frames_per_s": frames_per_s}
        total = 0
        for each in (self, *self._measures()):
            takes = inspect.signature(each.cost).parameters
            given = {n: v for n, v in known.items() if v is not None}
            given = {n: v for n, v in given.items() if n in takes}
            total = total + each.cost(frames, vocab, **given)
        return total

    def _measures(self) -> list[Measure]:
        """The measures it reads; other evidence is there anyway."""
        names = [n for n in self.needs if n.partition(":")[0] in _MEASURES]
        return [get_measure(name) for name in names]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name: what is registered are functions in functions."""
        return get_criterion, (self.name,)


# ---- Registering -----------------------------------------------------------

# As declared; what a criterion needs may be a function of its parameters.
_MEASURES: dict[str, Measure] = {}
_CRITERIA: dict[str, Criterion] = {}


def measure(
    name: str,
    *,
    formula: str,
    source: str,
    higher_is_ready: bool | None = None,
    cost: Cost | None = None,
    earlier: int = 0,
    hidden: bool = False,
    decodes: bool = False,
    same_as: str | None = None,
    ranges: Mapping[str, Range] | None = None,
) -> Callable[[Function], Function]:
    """Register the decorated function as a measure.

    Its keyword-only arguments are the parameters that a user may set, see
    :func:`get_measure`.

    Arguments
    ---------
    name : str
        Key of its values in a trace.
    formula : str
        Definition in one line.
    source : str
        Publication.
    higher_is_ready : bool, optional
        Register the criterion of the same name, too: whether a larger value
        speaks for stopping. Left out, the values only serve other criteria.
    cost : callable, optional
        Multiply-accumulates from frames and vocabulary; by default one per
        frame and vocabulary entry. It may also take ``width`` (of hidden
        states) and ``frames_per_s``, with defaults for where they are not
        known.
    earlier : int
        How many earlier exits it looks at.
    hidden : bool
        Whether it needs the hidden states.
    decodes : bool
        Whether it needs what an attention decoder found.
    same_as : str, optional
        Criterion that orders utterances and exits the same way, so that one
        threshold on either gives the same decisions.
    ranges : mapping of str to pair of float, optional
        Least and largest value of its parameters.

    Returns
    -------
    callable
        The decorator; it returns the function unchanged.
    """
    text = {"formula": formula, "source": source, "ranges": ranges or {}}

    def register(function: Function) -> Function:
        found = Measure(
            name,
            function,
            cost=cost or per_entry(1),
            earlier=earlier,
            hidden=hidden,
            decodes=decodes,
            **text,
        )
        # The criterion of its value, times a sign, has no function of its own.
        sign = _SIGNS[higher_is_ready]
        twin = Criterion(
            name, None, (name,), cost=free, same_as=same_as, sign=sign, **text
        )
        _register(function, found, *([twin] if sign else []))
        return function

    return register


def criterion(
    name: str,
    *,
    needs: Sequence[str] | Callable[..., Sequence[str]] = (),
    formula: str,
    source: str,
    cost: Cost = free,
    baseline: bool = False,
    higher_is_ready: bool | None = None,
    ranges: Mapping[str, Range] | None = None,
) -> Callable[[Function], Function]:
    """Register the decorated function of evidence as a criterion.

    Arguments
    ---------
    name : str
        Its name.
    needs : sequence of str, or callable
        Evidence it reads: measures, or ``transcripts``. A callable gets the
        parameters as keywords.
    formula : str
        Definition in one line.
    source : str
        Publication.
    cost : callable
        What scoring costs beyond the measures.
    baseline : bool
        Whether it ignores the utterance.
    higher_is_ready : bool, optional
        Promise that a score is the one piece of evidence in ``needs`` (minus
        it, if this is false) at every exit alike: live inference then reads
        no exit at which no utterance can stop. Left out, a score may depend on
        the exit and on those before.
    ranges : mapping of str to pair of float, optional
        Least and largest value of its parameters.

    Returns
    -------
    callable
        The decorator; it returns the function unchanged.
    """

    read = needs if callable(needs) else tuple(needs)
    if higher_is_ready is not None and (callable(read) or len(read) != 1):
        raise ValueError(
            f"criterion {name!r}: higher_is_ready is for a score that is one "
            f"piece of evidence, but it needs {read}"
        )

    def register(function: Function) -> Function:
        found = Criterion(
            name,
            function,
            read,
            formula,
            source,
            cost,
            baseline,
            sign=_SIGNS[higher_is_ready],
            ranges=ranges or {},
        )
        _register(function, found)
        return function

    return register


_SIGNS = {True: 1.0, False: -1.0, None: None}


def _register(
    function: Callable[..., Any], *found: Measure | Criterion
) -> None:
    """Add all of them or, if another function has a name, none.

    The same function once more takes its own place.
    """
    origin = function.__module__, function.__qualname__
    if not origin[0].startswith(f"{__package__}."):
        _load()  # so that the name is refused to who comes from outside
    for each in found:
        if unknown := set(each.ranges) - set(_defaults(function)):
            raise ValueError(f"range for no argument: {sorted(unknown)}")
        known = _table(each).get(each.name)
        if known is not None and known.origin != origin:
            raise ValueError(
                f"{each.name!r} is registered twice: by "
                f"{'.'.join(known.origin)} and by {'.'.join(origin)}; choose "
                "another name"
            )
    for each in found:
        _table(each)[each.name] = replace(each, origin=origin)


def _table(found: Measure | Criterion) -> dict[str, Any]:
    return _MEASURES if isinstance(found, Measure) else _CRITERIA


@cache
def _defaults(function: Callable[..., Any]) -> dict[str, float | int]:
    """The parameters that a name may set: keyword-only arguments, whose
    defaults say of which kind the numbers are.
    """
    arguments = inspect.signature(function).parameters.values()
    return {
        one.name: one.default
        for one in arguments
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    }


# ---- Looking up ------------------------------------------------------------


def criterion_names() -> tuple[str, ...]:
    """Names of all criteria, in order of registration."""
    return _names(_CRITERIA)


def measure_names() -> tuple[str, ...]:
    """Names of all measures, in order of registration."""
    return _names(_MEASURES)


def get_criterion(name: str) -> Criterion:
    """Look a criterion up.

    Arguments
    ---------
    name : str
        Its name, with parameters where the default is not wanted:
        ``patience_transcript:patience=1``.

    Returns
    -------
    Criterion

    Raises
    ------
    InputError
        If there is none of that name, or no such parameter.

    Example
    -------
    >>> from speechbrain_ee.exits.criteria import get_criterion
    >>> get_criterion("max_prob").needs
    ('max_prob',)
    """
    declared = _declared(_CRITERIA, "criterion", "criteria", name)
    needs = declared.needs
    if declared.name == name and not callable(needs):
        return declared
    if declared.function is None:
        _bound(_MEASURES[declared.name].function, declared, name)
        return replace(declared, name=name, needs=(name,))
    function, parameters = _bound(declared.function, declared, name)
    needs = tuple(needs(**parameters)) if callable(needs) else needs
    return replace(declared, name=name, function=function, needs=needs)


def get_measure(name: str) -> Measure:
    """Look a measure up, as :func:`get_criterion` does a criterion."""
    declared = _declared(_MEASURES, "measure", "measures", name)
    if declared.name == name:
        return declared
    function, _ = _bound(declared.function, declared, name)
    return replace(declared, name=name, function=function)


def read_threshold(text: str) -> tuple[str, float] | None:
    """A criterion's name and threshold, as a user writes them.

    ``entropy:0.9`` stops where the entropy is at most 0.9, ``max_prob:0.9``
    where the probability is at least 0.9; None if the text ends in no number.
    The threshold is for scores, which are higher the more ready an exit is.
    """
    name, colon, number = (part.strip() for part in text.rpartition(":"))
    try:
        value = float(number)
    except ValueError:
        return None
    if not colon or not math.isfinite(value):
        return None
    found = get_criterion(name)
    if found.sign == -1.0 and value < 0:
        raise InputError(
            f"policy: {text!r}: {name} is not below 0; {name}:{-value:g} "
            f"stops where it is at most {-value:g}."
        )
    return found.name, value * (found.sign or 1.0)


def _names(table: Mapping[str, Any]) -> tuple[str, ...]:
    """All names: those of this package in its order, then the others."""
    _load()  # whoever asks finds everything, whatever was imported before
    place = {name: place for place, name in enumerate(_ORDER)}
    return tuple(sorted(table, key=lambda n: place.get(n, len(place))))


def _declared(
    table: Mapping[str, Any], kind: str, kinds: str, name: str
) -> Any:
    """What is registered under a name, which parameters may follow."""
    stem = name.partition(":")[0]
    _load(stem, table)
    if stem not in table:
        raise InputError(
            f"{kind} {stem!r} is not known; valid {kinds}: "
            f"{', '.join(_names(table))}. One of your own is known once its "
            "module is imported (on the command line: --criteria FILE)."
        )
    return table[stem]


def _load(wanted: str = "", table: Mapping[str, Any] | None = None) -> None:
    """Import the modules that register, until what is wanted is in a table.

    What needs torch is left out where there is no torch.
    """
    if table and wanted in table:
        return
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    others = {one.name for one in found} - {*_MODULES, *_TOOLS}
    for name in (*_MODULES, *sorted(others)):
        try:
            importlib.import_module(f"{__package__}.{name}")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "torch":
                raise
        if table and wanted in table:
            return


def _bound(
    function: Callable[..., Any], declared: Measure | Criterion, name: str
) -> tuple[Callable[..., Any], dict[str, float | int]]:
    """The function with the parameters of a whole name, and all of these.

    ``tsallis_min:alpha=0.5`` sets one.
    """
    defaults, given = _defaults(function), {}
    stem, colon, tail = name.partition(":")
    fail = f"{type(declared).__name__.lower()} {name!r}:"
    for part in tail.split(",") if colon else ():
        key, _, text = part.partition("=")
        if key not in defaults:
            valid = ", ".join(defaults) or "none"
            raise InputError(
                f"{fail} no parameter {key!r}; parameters of {stem}: {valid}."
            )
        if key in given:
            raise InputError(f"{fail} {key} is given twice.")
        default = defaults[key]
        low, high = declared.ranges.get(key, (-math.inf, math.inf))
        try:
            value = type(default)(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            whole = " whole" if isinstance(default, int) else ""
            raise InputError(
                f"{fail} {key}={text!r} must be a{whole} number from {low:g} "
                f"to {high:g} (default {default:g})."
            )
        given[key] = value
    bound = partial(function, **given) if given else function
    return bound, {**defaults, **given}


def not_measured(view: ExitView) -> dict[str, str]:
    """Measures that :func:`measure_all` leaves out for want of hidden states,
    and why.
    """
    why = "the model gives no hidden states"
    hidden = [n for n in measure_names() if get_measure(n).hidden]
    return {} if _has_hidden(view) else dict.fromkeys(hidden, why)


def measure_all(
    view: ExitView,
    names: Sequence[str] | None = None,
    decoded: bool = False,
) -> dict[str, Tensor]:
    """Raw evidence for a batch at one exit, shape (B,) by name.

    Of some measures; by default of all, either those that look at what an
    attention decoder found (``decoded``) or the others. What needs more than
    the view holds is left out.
    """
    measured = {}
    for found in map(get_measure, measure_names() if names is None else names):
        wanted = names is not None or found.decodes == decoded
        possible = (
            found.earlier <= len(view.earlier)
            and (not found.hidden or _has_hidden(view))
            and (not found.decodes or view.nbest is not None)
        )
        if wanted and possible:
            measured[found.name] = found.function(view)
    return measured


def _has_hidden(view: ExitView) -> bool:
    return getattr(view.output, "hidden_BTD", None) is not None


# ---- Criteria of a user's own --------------------------------------------


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
    tables, modules = (dict(_MEASURES), dict(_CRITERIA)), {*sys.modules}
    try:
        module, is_new = _imported(str(name))
    except Exception as error:
        for table, known in zip((_MEASURES, _CRITERIA), tables):
            for each in table.keys() - known.keys():
                origin = table.pop(each).origin[0]
                if origin not in modules:  # imported again, it registers again
                    sys.modules.pop(origin, None)
            table.update(known)
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
