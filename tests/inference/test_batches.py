"""Batches hold every item once, within their bound, and come back in order.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.transcriber import (
    WINDOW_BATCHES,
    batches_of_like_length,
    in_order,
)

LENGTHS = st.lists(st.floats(0.001, 25), max_size=80)


@given(lengths=LENGTHS, batch_s=st.floats(1, 100))
def test_every_item_once_within_the_bound(lengths, batch_s) -> None:
    """Padded seconds stay below the bound, but for a single long item."""
    seen = []
    for batch in batches_of_like_length(lengths, float, batch_s):
        longest = max(length for _, length in batch)
        assert len(batch) * longest <= batch_s or len(batch) == 1
        seen += batch
    assert sorted(seen) == [*enumerate(lengths)]


@given(lengths=LENGTHS)
def test_results_come_back_in_order(lengths) -> None:
    """Out of the batches, the stream again."""
    batches = batches_of_like_length(lengths, float, 30.0)
    assert [*in_order(each for b in batches for each in b)] == lengths


def test_like_goes_with_like() -> None:
    """Sorting within the window saves most of the padding."""
    lengths = [1.0, 20.0] * 6
    batches = [*batches_of_like_length(lengths, float, 60.0)]
    padded = sum(len(b) * max(s for _, s in b) for b in batches)
    assert padded == sum(lengths)


def test_no_more_is_read_than_a_window() -> None:
    """The first batch comes before the last item was asked for."""
    read = []

    def items() -> Iterator[float]:
        for number in range(10_000):
            read.append(number)
            yield 1.0

    next(batches_of_like_length(items(), float, 10.0))
    assert len(read) == WINDOW_BATCHES * 10


def test_results_do_not_wait_for_later_ones() -> None:
    """A result whose turn it is comes at once."""

    def results() -> Iterator[tuple[int, str]]:
        yield 1, "b"
        yield 0, "a"
        raise AssertionError("asked for too much")

    ordered = in_order(results())
    assert [next(ordered), next(ordered)] == ["a", "b"]


@pytest.mark.parametrize("batch_s", [0, -1, float("nan")])
def test_a_bound_that_makes_no_sense(batch_s: float) -> None:
    """Named."""
    with pytest.raises(InputError, match="batch_s"):
        next(batches_of_like_length([1.0], float, batch_s))
