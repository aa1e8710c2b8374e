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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
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

Cost = Callable[..., Any]  # of frames and vocabulary, see `priced`
Range = tuple[float, float]
Function = TypeVar("Function", bound=Callable[..., Any])

# Modules of this folder that register, the one that needs torch last, and
# those that do not; any other module in it may.
_MODULES = ("frames", "successive", "text", "combined", "beams")
_TOOLS = ("ngram", "registry", "view")
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


def priced(
    cost: Cost,
    frames: Any,
    vocab: int,
    width: int | None,
    frames_per_s: float | None,
) -> Any:
    """What a cost comes to; it may also take ``width`` and ``frames_per_s``.

    Where they are not known, its own defaults hold.
    """
    known = {"width": width, "frames_per_s": frames_per_s}
    takes = inspect.signature(cost).parameters
    given = {n: v for n, v in known.items() if v is not None and n in takes}
    return cost(frames, vocab, **given)


@dataclass(frozen=True)
class Measure:
    """A registered measure.

    Arguments
    ---------
    name : str
        Key of its values in a trace, parameters included.
    function : callable
        From an :class:`~speechbrain_ee.exits.criteria.view.ExitView` to raw
        evidence of shape (B,).
    formula : str
        The definition in one line.
    source : str
        Publication it comes from.
    cost : callable
        Frames and vocabulary entries to multiply-accumulates.
    earlier : int
        How many earlier exits it looks at: it has no value at the first
        ``earlier`` exits.
    hidden : bool
        Whether it needs the hidden states.
    always : bool
        Whether it is cheap enough to be taken in every evaluation.
    decodes : bool
        Whether it needs what an attention decoder found.
    """

    name: str
    function: Callable[[ExitView], Tensor]
    formula: str
    source: str
    cost: Cost
    earlier: int = 0
    hidden: bool = False
    always: bool = True
    decodes: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name: what is registered are functions in functions."""
        return get_measure, (self.name,)


@dataclass(frozen=True)
class Criterion:
    """A registered criterion.

    Arguments
    ---------
    name : str
        Its name, parameters included.
    function : callable
        From :class:`~speechbrain_ee.exits.evidence.Evidence` to scores of
        shape (N, E).
    needs : tuple of str
        Evidence it reads: measures, or ``transcripts``.
    formula : str
        The definition of what is thresholded, in one line.
    source : str
        Publication it comes from.
    cost : callable
        Frames and vocabulary entries to multiply-accumulates, those of the
        measures it reads included.
    baseline : bool
        Whether it ignores the utterance (a fixed or a random exit).
    same_as : str, optional
        Criterion that orders utterances and exits the same way, so that one
        threshold on either gives the same decisions.
    decodes : bool
        Whether it needs what an attention decoder found, at every exit that
        it is evaluated at.
    sign : float, optional
        1 or -1 where a score is the one piece of evidence that it needs,
        times this, whichever exit it is taken at. None for every other rule:
        its scores may depend on the exit and on those before, so that all of
        these have to be read.
    """

    name: str
    function: Callable[[Evidence], NDArray[np.floating]] = field(repr=False)
    needs: tuple[str, ...]
    formula: str
    source: str
    cost: Cost = field(repr=False)
    baseline: bool = False
    same_as: str | None = None
    decodes: bool = False
    sign: float | None = None

    def scores(self, evidence: Evidence) -> NDArray[np.float64]:
        """Scores (N, E), higher = more ready to stop.

        Minus infinity where the criterion has nothing to go by yet;
        InputError if evidence in ``needs`` is missing.
        """
        scores_NE = np.asarray(self.function(evidence), dtype=np.float64)
        return np.where(np.isnan(scores_NE), -np.inf, scores_NE)

    def available(self, names: Iterable[str]) -> bool:
        """Whether evidence of these names is enough for it."""
        return set(self.needs) <= set(names)

    def macs(
        self,
        frames: Any,
        vocab: int,
        width: int | None = None,
        frames_per_s: float | None = None,
    ) -> Any:
        """Declared multiply-accumulates at one exit for one utterance.

        Of ``frames`` encoder frames (a number or an array) over ``vocab``
        entries; its own defaults stand for what is not known of the model.
        """
        return priced(self.cost, frames, vocab, width, frames_per_s)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name: what is registered are functions in functions."""
        return get_criterion, (self.name,)


# ---- What is registered under which name, and by whom ----------------------


@dataclass(frozen=True)
class Entry:
    """How to make a measure or criterion from a name, `tsallis_min:alpha=0.5`.

    Parameters are the keyword-only arguments of the decorated function; their
    defaults say of which kind the numbers are.
    """

    build: Callable[..., Any]
    function: Callable[..., Any]
    defaults: Mapping[str, float | int]
    ranges: Mapping[str, Range]

    @classmethod
    def of(
        cls,
        build: Callable[..., Any],
        function: Callable[..., Any],
        ranges: Mapping[str, Range] | None,
    ) -> Entry:
        """With the parameters of a function, each within a range if given."""
        arguments = inspect.signature(function).parameters
        defaults = {
            name: argument.default
            for name, argument in arguments.items()
            if argument.kind is inspect.Parameter.KEYWORD_ONLY
        }
        unknown = set(ranges or {}) - set(defaults)
        if unknown:
            raise ValueError(f"range for no argument: {sorted(unknown)}")
        return cls(build, function, defaults, ranges or {})

    @property
    def module(self) -> str:
        """Full name of the module that registered it."""
        return self.function.__module__

    @property
    def origin(self) -> str:
        """Where the function stands; the same after a cell has run again."""
        return f"{self.module}.{self.function.__qualname__}"

    def made(self, kind: str, name: str) -> Any:
        """The measure or criterion (``kind``) of a whole name."""
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
        return self.build(name, **given)

    def _number(self, kind: str, name: str, key: str, text: str) -> float | int:
        default = self.defaults[key]
        low, high = self.ranges.get(key, (-math.inf, math.inf))
        wanted = "a whole number" if isinstance(default, int) else "a number"
        try:
            value = type(default)(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise InputError(
                f"{kind} {name!r}: {key}={text!r} must be {wanted} from "
                f"{low:g} to {high:g} (default {default:g})."
            )
        return value


class Registered:
    """Measures or criteria by name."""

    def __init__(self, kind: str, kinds: str):
        self.kind = kind
        self.kinds = kinds
        self._entries: dict[str, Entry] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def check(self, name: str, entry: Entry) -> None:
        """Refuse a name that another function has, by ValueError."""
        if not entry.module.startswith(f"{__package__}."):
            # So that the name is refused to who comes from outside.
            _load()
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
        """All names: those of this package in its order, then the others."""
        _load()  # whoever asks finds everything, whatever was imported before
        place = {name: place for place, name in enumerate(_ORDER)}
        return tuple(
            sorted(self._entries, key=lambda n: place.get(n, len(place)))
        )

    def get(self, name: str) -> Any:
        """Look one up."""
        stem = name.partition(":")[0]
        _load(lambda: stem in self._entries)
        if stem not in self._entries:
            raise InputError(
                f"{self.kind} {stem!r} is not known; valid {self.kinds}: "
                f"{', '.join(self.names())}. One of your own is known once "
                "its module is imported (on the command line: --criteria "
                "FILE)."
            )
        return self._entries[stem].made(self.kind, name)


def _load(enough: Callable[[], bool] = lambda: False) -> None:
    """Import the modules that register, until what was wanted is there.

    What needs torch is left out where there is no torch.
    """
    for name in chain(_MODULES, _others()):
        if enough():
            return
        try:
            importlib.import_module(f"{__package__}.{name}")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "torch":
                raise


def _others() -> Iterator[str]:
    """Modules of this folder that are not listed above."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    yield from sorted({one.name for one in modules} - {*_MODULES, *_TOOLS})


_MEASURES = Registered("measure", "measures")
_CRITERIA = Registered("criterion", "criteria")


def measure(
    name: str,
    *,
    formula: str,
    source: str,
    higher_is_ready: bool | None = None,
    cost: Cost | None = None,
    earlier: int = 0,
    hidden: bool = False,
    always: bool = True,
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
    always : bool
        Whether it is cheap enough to be taken in every evaluation.
    decodes : bool
        Whether it needs what an attention decoder found.
    same_as : str, optional
        Of that criterion, see :class:`Criterion`.
    ranges : mapping of str to pair of float, optional
        Least and largest value of its parameters.

    Returns
    -------
    callable
        The decorator; it returns the function unchanged.
    """
    cost = cost or per_entry(1)

    def register(function: Function) -> Function:
        def build(full: str, **parameters: Any) -> Measure:
            bound = partial(function, **parameters) if parameters else function
            return Measure(
                full,
                bound,
                formula,
                source,
                cost,
                earlier,
                hidden,
                always,
                decodes,
            )

        def build_criterion(full: str, **parameters: Any) -> Criterion:
            sign = _sign(higher_is_ready)
            return Criterion(
                full,
                lambda evidence: sign * evidence.column(full),
                (full,),
                formula,
                source,
                cost,
                same_as=same_as,
                decodes=decodes,
                sign=sign,
            )

        entry = Entry.of(build_criterion, function, ranges)
        if higher_is_ready is not None:
            _CRITERIA.check(name, entry)  # before either is there
        _MEASURES.add(name, Entry.of(build, function, ranges))
        if higher_is_ready is not None:
            _CRITERIA.add(name, entry)
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

    def register(function: Function) -> Function:
        def build(full: str, **parameters: Any) -> Criterion:
            bound = partial(function, **parameters) if parameters else function
            everything = {**entry.defaults, **parameters}
            read = tuple(needs(**everything) if callable(needs) else needs)
            total = _with_measures(cost, read)
            if higher_is_ready is not None and len(read) != 1:
                raise ValueError(
                    f"criterion {full!r}: higher_is_ready is for a score that "
                    f"is one piece of evidence, but it needs {read}"
                )
            return Criterion(
                full,
                bound,
                read,
                formula,
                source,
                total,
                baseline,
                decodes=any(one.decodes for one in _measures(read)),
                sign=_sign(higher_is_ready),
            )

        entry = Entry.of(build, function, ranges)
        _CRITERIA.add(name, entry)
        return function

    return register


@contextmanager
def all_or_none() -> Iterator[None]:
    """Register all measures and criteria of a module, or none of them."""
    with _MEASURES.whole(), _CRITERIA.whole():
        yield


def criterion_names() -> tuple[str, ...]:
    """Names of all criteria, in order of registration."""
    return _CRITERIA.names()


def measure_names() -> tuple[str, ...]:
    """Names of all measures, in order of registration."""
    return _MEASURES.names()


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
    return _CRITERIA.get(name)


def read_threshold(text: str) -> tuple[str, float] | None:
    """A criterion's name and threshold, as a user writes them.

    ``entropy:0.9`` stops where the entropy is at most 0.9, ``max_prob:0.9``
    where the probability is at least 0.9; None if the text ends in no number.
    The threshold is for scores, which are higher the more ready an exit is.

    Example
    -------
    >>> read_threshold("entropy:0.9"), read_threshold("max_prob:0.9")
    (('entropy', -0.9), ('max_prob', 0.9))
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


def get_measure(name: str) -> Measure:
    """Look a measure up, as :func:`get_criterion` does a criterion."""
    return _MEASURES.get(name)


def _with_measures(cost: Cost, needs: Sequence[str]) -> Cost:
    """A criterion's own cost and that of the measures it reads.

    Evidence that is no measure (transcripts, a language model's score) is
    there anyway or charged by its criterion.
    """

    def total(
        frames: Any,
        vocab: int,
        width: int | None = None,
        frames_per_s: float | None = None,
    ) -> Any:
        costs = [cost, *(one.cost for one in _measures(needs))]
        model = frames, vocab, width, frames_per_s
        return sum(priced(each, *model) for each in costs)

    return total


def _sign(higher_is_ready: bool | None) -> float | None:
    return {True: 1.0, False: -1.0, None: None}[higher_is_ready]


def _measures(needs: Sequence[str]) -> list[Measure]:
    """The measures among what a criterion reads."""
    names = [name for name in needs if name.partition(":")[0] in _MEASURES]
    return [get_measure(name) for name in names]


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
