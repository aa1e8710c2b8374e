"""The registries of measures and criteria: how to add one and find one.

Most criteria read one measure and only say which way it points; others
compare transcripts or combine evidence.

Axes: B utterances of a batch.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.criterion import (
    Cost,
    Criterion,
    Measure,
    free,
    per_entry,
    priced,
)
from speechbrain_ee.exits.criteria.parameters import Parameters, Range
from speechbrain_ee.exits.criteria.registered import Entry, Registered

Function = TypeVar("Function", bound=Callable[..., Any])

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

        parameters = Parameters.of(function, ranges)
        entry = Entry(build_criterion, parameters, function)
        if higher_is_ready is not None:
            _CRITERIA.check(name, entry)  # before either is there
        _MEASURES.add(name, Entry(build, parameters, function))
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
        known = Parameters.of(function, ranges)

        def build(full: str, **parameters: Any) -> Criterion:
            bound = partial(function, **parameters) if parameters else function
            everything = {**known.defaults, **parameters}
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

        _CRITERIA.add(name, Entry(build, known, function))
        return function

    return register


@contextmanager
def all_or_none() -> Iterator[None]:
    """Register all measures and criteria of a module, or none of them."""
    with _MEASURES.whole(), _CRITERIA.whole():
        yield


def criterion_names() -> tuple[str, ...]:
    """Names of all criteria, in order of registration.

    Returns
    -------
    tuple of str

    Example
    -------
    >>> from speechbrain_ee.exits.criteria import criterion_names
    >>> "entropy" in criterion_names()
    True
    """
    return _CRITERIA.names()


def measure_names() -> tuple[str, ...]:
    """Names of all measures, in order of registration.

    Returns
    -------
    tuple of str
    """
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
    """A criterion with a threshold, as a user writes it.

    Arguments
    ---------
    text : str
        ``entropy:0.9`` stops where the entropy is at most 0.9,
        ``max_prob:0.9`` where the probability is at least 0.9.

    Returns
    -------
    criterion : str
        Its name, parameters included.
    threshold : float
        For its scores, which are higher the more ready an exit is.
        None instead of both if the text ends in no number.

    Raises
    ------
    InputError
        If there is no such criterion, or it is never below 0 and the
        threshold is.

    Example
    -------
    >>> from speechbrain_ee.exits.criteria.registry import read_threshold
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
    """Look a measure up.

    Arguments
    ---------
    name : str
        Its name, with parameters where the default is not wanted:
        ``tsallis_min:alpha=0.5``.

    Returns
    -------
    Measure

    Raises
    ------
    InputError
        If there is none of that name, or no such parameter.
    """
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
