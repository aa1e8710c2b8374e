"""An utterance alone and in any batch gives the same result at every exit.

Protects: no padding, no neighbour, no order of the batch and nothing that the
waveform holds behind its end changes an exit's output, nor does it matter
which utterances have left.

Authors
 * The speechbrain-ee contributors 2026
"""

import functools
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.state import EncoderState
from tests.helpers import STACKS, noise, padded, tiny_model, valid

TOLERANCE = 1e-5
PROPERTY = settings(max_examples=8, deadline=None, derandomize=True)
# One frame, or at least six: over two or three frames a band can be so nearly
# constant that normalising it magnifies the rounding of the FFT.
SAMPLES = st.sampled_from([1, 159]) | st.integers(800, 9000)
LENGTHS = st.lists(SAMPLES, min_size=2, max_size=4)


@functools.cache
def model_of(stack_name: tuple[str, str]) -> EarlyExitModel:
    return tiny_model(
        encoder_module=stack_name[0], attention_type=stack_name[1]
    )


def assert_same(alone, batched, row: int) -> None:
    for single, output in zip(alone, batched, strict=True):
        assert single.layer == output.layer
        assert int(single.lengths_B[0]) == int(output.lengths_B[row])
        torch.testing.assert_close(
            valid(single), valid(output, row), atol=TOLERANCE, rtol=0
        )


@pytest.mark.parametrize("stack_name", STACKS, ids="-".join)
@PROPERTY
@given(lengths=LENGTHS, extra=st.integers(0, 4000), data=st.data())
@torch.no_grad()
def test_alone_equals_batched(
    stack_name: tuple[str, str], lengths: list[int], extra: int, data
) -> None:
    """Any lengths, any order, any padding, and noise in the padding."""
    model = model_of(stack_name)
    wavs = [noise(length, seed) for seed, length in enumerate(lengths)]
    wavs = data.draw(st.permutations(wavs))
    loudness = data.draw(st.sampled_from([0.0, 1.0, 1e4]))
    junk = loudness * torch.randn(
        len(wavs), 13000, generator=torch.Generator().manual_seed(extra)
    )
    batched = model(*padded(wavs, extra, junk))
    for row, wav in enumerate(wavs):
        assert_same(model(*padded([wav])), batched, row)


@pytest.mark.parametrize("stack_name", STACKS, ids="-".join)
@pytest.mark.parametrize("fill", [1e6, float("inf"), float("nan")], ids=str)
@torch.no_grad()
def test_junk_behind_the_end_is_ignored(
    stack_name: tuple[str, str], fill: float
) -> None:
    """Not even a value that is not finite gets out of the padding."""
    model = model_of(stack_name)
    wavs = [noise(4000, 1), noise(6000, 2)]
    clean = model(*padded(wavs, extra=1700))
    dirty = model(*padded(wavs, extra=1700, fill=fill))
    for expected, output in zip(clean, dirty):
        for row in range(len(wavs)):
            assert torch.equal(valid(output, row), valid(expected, row))


@pytest.mark.parametrize("stack_name", STACKS, ids="-".join)
@torch.no_grad()
def test_padded_states_are_never_read(stack_name: tuple[str, str]) -> None:
    """What a padded frame holds between two exits reaches no valid frame."""
    model = model_of(stack_name)
    state = model.start(*padded([noise(4000, 1), noise(9000, 2)]))
    for _ in model.exit_layers:
        junk = 1e3 * torch.randn(state.hidden_BTD.shape)
        padding = state.padding_mask_BT.unsqueeze(-1)
        dirty = EncoderState(
            torch.where(padding, junk, state.hidden_BTD),
            state.lengths_B,
            state.rows_B,
            state.depth,
            state.positions,
        )
        _, expected = model.step(state)
        state, output = model.step(dirty)
        for row in range(2):
            torch.testing.assert_close(
                valid(output, row), valid(expected, row), atol=1e-5, rtol=0
            )


LEAVING = (9000, 3000, 6100, 700)


@pytest.mark.parametrize("stack_name", STACKS, ids="-".join)
@torch.no_grad()
def test_rows_that_stay_are_unchanged(stack_name: tuple[str, str]) -> None:
    """Any rows leave after any exit: later exits of the others are equal."""
    model = tiny_model(
        encoder_module=stack_name[0],
        attention_type=stack_name[1],
        exit_layers=(1, 3, 4),
    )
    wavs = [noise(samples, samples) for samples in LEAVING]
    start = model.start(*padded(wavs, extra=500))
    full = model(*padded(wavs, extra=500))
    for keep in itertools.product([True, False], repeat=len(LEAVING)):
        if not any(keep):
            continue
        for leave_after in range(3):
            state = start
            for exit in range(3):
                if exit == leave_after:
                    state = state.select(torch.tensor(keep))
                state, output = model.step(state)
                for row, original in enumerate(state.rows_B.tolist()):
                    torch.testing.assert_close(
                        valid(output, row),
                        valid(full[exit], original),
                        atol=1e-5,
                        rtol=0,
                    )
            stayed = [row for row, stays in enumerate(keep) if stays]
            assert state.rows_B.tolist() == stayed


@torch.no_grad()
def test_positions_are_those_of_the_shorter_batch() -> None:
    """The slice equals what SpeechBrain computes for the shorter length."""
    model = tiny_model(attention_type="RelPosMHAXL")
    state = model.start(*padded([noise(s, s) for s in LEAVING]))
    for keep in ([0, 1, 1, 1], [0, 0, 0, 1], [1, 0, 0, 0]):
        part = state.select(torch.tensor(keep, dtype=torch.bool))
        expected = model.encoder.positional_encoding(part.hidden_BTD)
        assert part.positions.shape[1] == 2 * part.hidden_BTD.shape[1] - 1
        torch.testing.assert_close(part.positions, expected)
