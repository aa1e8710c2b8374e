"""Batches of like length, from a stream and back into its order.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from speechbrain_ee.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

# Batches' worth of items that are sorted together. More waste less padding,
# and let the first result wait longer.
WINDOW_BATCHES = 4


def batches_of_like_length(
    items: Iterable[T],
    length_s: Callable[[T], float],
    batch_s: float,
) -> Iterator[list[tuple[int, T]]]:
    """Batches whose padded length is bounded.

    As many items as make ``WINDOW_BATCHES`` batches are read, sorted by
    length and handed out, longest first, before more are read.

    Arguments
    ---------
    items : iterable
        Pieces of audio, in any order and number.
    length_s : callable
        The length of an item in seconds.
    batch_s : float
        Bound on the number of items in a batch times the longest of them,
        in seconds; an item that is longer is a batch of its own.

    Yields
    ------
    list of (int, item)
        Every item once, with its place in the stream.

    Raises
    ------
    InputError
        If ``batch_s`` is not above 0.

    Example
    -------
    >>> lengths = [3.0, 1.0, 2.9, 1.1]
    >>> for batch in batches_of_like_length(lengths, float, batch_s=6.0):
    ...     print(batch)
    [(0, 3.0), (2, 2.9)]
    [(3, 1.1), (1, 1.0)]
    """
    if not batch_s > 0:
        raise InputError(f"batch_s: {batch_s} s; give seconds above 0.")
    window: list[tuple[int, T]] = []
    waiting_s = 0.0
    for numbered in enumerate(items):
        window.append(numbered)
        waiting_s += length_s(numbered[1])
        if waiting_s >= WINDOW_BATCHES * batch_s:
            yield from _sorted_batches(window, length_s, batch_s)
            window, waiting_s = [], 0.0
    yield from _sorted_batches(window, length_s, batch_s)


def _sorted_batches(
    window: list[tuple[int, T]], length_s: Callable[[T], float], batch_s: float
) -> Iterator[list[tuple[int, T]]]:
    window = sorted(window, key=lambda numbered: -length_s(numbered[1]))
    batch: list[tuple[int, T]] = []
    for numbered in window:
        if batch and (len(batch) + 1) * length_s(batch[0][1]) > batch_s:
            yield batch
            batch = []
        batch.append(numbered)
    if batch:
        yield batch


def in_order(numbered: Iterable[tuple[int, R]]) -> Iterator[R]:
    """Results in the order of their numbers, as soon as that allows.

    Arguments
    ---------
    numbered : iterable of (int, result)
        The numbers from 0 on, each once, in any order.

    Yields
    ------
    result
        The next in order.

    Example
    -------
    >>> list(in_order([(1, "b"), (0, "a"), (2, "c")]))
    ['a', 'b', 'c']
    """
    early: dict[int, R] = {}
    due = 0
    for number, result in numbered:
        early[number] = result
        while due in early:
            yield early.pop(due)
            due += 1
