"""Utterances that leave the batch do not disturb those that stay.

Protects: ``EncoderState.select``, which live inference calls after every exit.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools

import pytest
import torch

from speechbrain_ee.models.state import EncoderState
from tests.helpers import STACKS, noise, padded, tiny_model, valid

SAMPLES = (9000, 3000, 6100, 700)


@pytest.mark.parametrize("stack_name", STACKS, ids="-".join)
@torch.no_grad()
def test_rows_that_stay_are_unchanged(stack_name: tuple[str, str]) -> None:
    """Any rows leave after any exit: later exits of the others are equal."""
    model = tiny_model(
        encoder_module=stack_name[0],
        attention_type=stack_name[1],
        exit_layers=(1, 3, 4),
    )
    wavs = [noise(samples, samples) for samples in SAMPLES]
    start = model.start(*padded(wavs, extra=500))
    full = model(*padded(wavs, extra=500))
    for keep in itertools.product([True, False], repeat=len(SAMPLES)):
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
def test_time_is_trimmed_and_rows_are_renumbered_once() -> None:
    """Two selections in a row still point at the original batch."""
    model = tiny_model()
    state = model.start(*padded([noise(s, s) for s in SAMPLES]))
    first = state.select(torch.tensor([False, True, True, True]))
    second = first.select(torch.tensor([True, False, True]))
    assert first.rows_B.tolist() == [1, 2, 3]
    assert second.rows_B.tolist() == [1, 3]
    for part in (first, second):
        assert part.hidden_BTD.shape[1] == int(part.lengths_B.max())
        for row, original in enumerate(part.rows_B.tolist()):
            frames = part.hidden_BTD.shape[1]
            assert torch.equal(
                part.hidden_BTD[row], state.hidden_BTD[original, :frames]
            )


@torch.no_grad()
def test_positions_are_those_of_the_shorter_batch() -> None:
    """The slice equals what SpeechBrain computes for the shorter length."""
    model = tiny_model(attention_type="RelPosMHAXL")
    state = model.start(*padded([noise(s, s) for s in SAMPLES]))
    for keep in ([0, 1, 1, 1], [0, 0, 0, 1], [1, 0, 0, 0]):
        part = state.select(torch.tensor(keep, dtype=torch.bool))
        expected = model.encoder.positional_encoding(part.hidden_BTD)
        assert part.positions.shape[1] == 2 * part.hidden_BTD.shape[1] - 1
        torch.testing.assert_close(part.positions, expected)


def test_select_leaves_its_state_alone() -> None:
    """A state is a value: selecting from it does not change it."""
    hidden = torch.rand(2, 5, 3)
    state = EncoderState(hidden, torch.tensor([5, 2]), torch.arange(2), 2)
    part = state.select(torch.tensor([False, True]))
    part.hidden_BTD.zero_()
    assert torch.equal(state.hidden_BTD, hidden)
    assert state.lengths_B.tolist() == [5, 2]
