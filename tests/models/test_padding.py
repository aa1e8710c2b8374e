"""An utterance alone and in any batch gives the same result at every exit.

Protects: no padding, no neighbour, no order of the batch and nothing that the
waveform holds behind its end changes an exit's output.

Authors
 * The speechbrain-ee contributors 2026
"""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.models.masking import MaskedConvolutionFrontEnd
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.state import EncoderState
from tests.helpers import N_MELS, STACKS, noise, padded, tiny_model, valid

TOLERANCE = 1e-5
PROPERTY = settings(max_examples=8, deadline=None, derandomize=True)
# One frame, or at least six: over two or three frames a band can be so nearly
# constant that normalising it magnifies the rounding of the FFT.
SAMPLES = st.sampled_from([1, 159]) | st.integers(800, 9000)
LENGTHS = st.lists(SAMPLES, min_size=2, max_size=4)


@functools.cache
def model_of(stack_name: tuple[str, str]) -> EarlyExitModel:
    """One model per stack for all examples."""
    return tiny_model(
        encoder_module=stack_name[0], attention_type=stack_name[1]
    )


def assert_same(alone, batched, row: int) -> None:
    """Compare every exit of a single utterance with a row of a batch."""
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


@PROPERTY
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4))
@torch.no_grad()
def test_front_end_lengths(lengths: list[int]) -> None:
    """The frames after subsampling are those that are there when alone."""
    front_end = MaskedConvolutionFrontEnd(
        input_shape=(None, None, N_MELS),
        num_blocks=2,
        num_layers_per_block=2,
        out_channels=[3, 2],
        kernel_sizes=[3, 5],
        strides=[2, 2],
        dropout=0.0,
    ).eval()
    features = torch.randn(len(lengths), max(lengths), N_MELS)
    out, frames = front_end(features, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone, count = front_end(
            features[row : row + 1, :length], torch.tensor([length])
        )
        assert int(count[0]) == int(frames[row]) == alone.shape[1]
        torch.testing.assert_close(
            alone[0], out[row, : alone.shape[1]], atol=TOLERANCE, rtol=0
        )
