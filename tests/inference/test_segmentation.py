"""Pieces tile the recording, and end where nobody speaks.

Protects: samples lost or doubled at a cut, cuts that depend on how the audio
was read, pieces that are too long for the model, cuts inside words.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.segmentation import (
    Cutting,
    Piece,
    cut_at_pauses,
    quiet_frames,
)
from tests.inference.heard import speech

RATE = 1000  # a low rate keeps the properties quick


def cut(
    samples: np.ndarray, block: int = 700, rate: int = RATE, **options
) -> list[Piece]:
    """Pieces of a recording that comes in equal blocks."""
    blocks = (samples[i : i + block] for i in range(0, len(samples), block))
    return [*cut_at_pauses(blocks, rate, **options)]


@settings(max_examples=40, deadline=None)
@given(
    seconds=st.floats(0, 90),
    seed=st.integers(0, 9),
    kind=st.sampled_from(["speech", "noise", "silence", "clipped", "offset"]),
    blocks=st.tuples(st.integers(1, 50_000), st.integers(500, 5000)),
    longest=st.sampled_from([5.0, 20.0, 7.3]),
)
def test_pieces_tile_the_recording(seconds, seed, kind, blocks, longest):
    samples = speech(seconds, RATE, seed)
    if kind == "noise":
        samples = np.random.default_rng(seed).normal(size=len(samples))
    if kind == "silence":
        samples = np.zeros_like(samples)
    if kind == "clipped":
        samples = np.sign(samples)
    if kind == "offset":
        samples = samples + 0.5
    cutting = Cutting(max_s=longest, min_s=1.0)
    pieces = cut(samples, max(blocks[0], 100), cutting=cutting)
    if not len(samples):
        assert not pieces
        return
    np.testing.assert_array_equal(
        np.concatenate([piece.samples for piece in pieces]), samples
    )
    starts = [piece.start for piece in pieces]
    assert starts == [0, *(piece.end for piece in pieces[:-1])]
    lengths = [len(piece.samples) for piece in pieces]
    assert max(lengths) <= longest * RATE
    if len(pieces) > 1:
        assert min(lengths) >= 1.0 * RATE
    again = cut(samples, blocks[1], cutting=cutting)
    assert [piece.start for piece in again] == starts


def test_short_recordings_are_not_cut() -> None:
    assert len(cut(speech(20, RATE))) == 1
    assert len(cut(speech(20.001, RATE))) == 2


def test_cuts_lie_in_pauses() -> None:
    for level, floor in ((1.0, 0.001), (0.01, 0.0), (1.0, 0.03)):
        samples = level * speech(120, 8000, seed=3)
        samples += floor * np.random.default_rng(1).uniform(-1, 1, len(samples))
        for piece in cut(samples, rate=8000)[:-1]:
            around = samples[piece.end - 400 : piece.end + 400]
            assert np.abs(around).max() < 0.1 * level


def test_the_longest_pause_wins_until_it_is_certain() -> None:
    loud = np.random.default_rng(0).uniform(-1, 1, 40 * RATE)

    def with_pauses(*pauses: tuple[float, float]) -> list[int]:
        samples = loud.copy()
        for at_s, length_s in pauses:
            start = int(at_s * RATE)
            samples[start : start + int(length_s * RATE)] = 0
        return [piece.start for piece in cut(samples)]

    assert with_pauses((12, 0.4), (17, 0.2), (30, 3))[1] == 12_200
    assert with_pauses((12, 0.9), (17, 0.6), (30, 3))[1] == 17_300
    # a pause in the first half would make short pieces
    assert with_pauses((5, 0.9), (17, 0.2), (30, 3))[1] == 17_100


def test_without_a_pause_the_quietest_place() -> None:
    loud = np.random.default_rng(0).uniform(-1, 1, 40 * RATE)
    loud[15_000:15_100] *= 0.6
    first = cut(loud)[0]
    assert 14_980 <= first.end <= 15_120


def test_quiet_follows_level_and_offset() -> None:
    samples = speech(20, 8000).astype(np.float64)
    found = quiet_frames(samples, 8000)
    assert 0.1 < found.mean() < 0.5
    for changed in (samples * 0.01, samples + 0.2):
        np.testing.assert_array_equal(quiet_frames(changed, 8000), found)


@pytest.mark.parametrize(
    "options", [{"max_s": 0.5}, {"min_s": 11}, {"min_s": 0}]
)
def test_lengths_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Cutting(**options)
