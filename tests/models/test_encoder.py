"""The layer-wise encoder is SpeechBrain's encoder, cut at the exits.

Protects: the same numbers as ``TransformerASR.encode`` for every stack and as
``ConvolutionFrontEnd``, features normalised over an utterance's own frames,
the hidden state of the right layer at every exit, LayerDrop that keeps the
layers' indices, and the errors for wrong options.

Authors
 * The speechbrain-ee contributors 2026
"""

import copy
from functools import partial

import pytest
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from speechbrain.nnet.CNN import Conv2d
from speechbrain.processing.features import InputNormalization

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.encoder import MultiExitEncoder
from speechbrain_ee.models.features import LogMel
from speechbrain_ee.models.layerwise import check_exit_layers
from speechbrain_ee.models.masking import MaskedConvolutionFrontEnd
from tests.helpers import (
    EXITS,
    N_MELS,
    STACKS,
    noise,
    padded,
    tiny_model,
    tiny_stack,
)

TOLERANCE = 1e-5


def reference_states(
    stack: TransformerASR,
    encoder: MultiExitEncoder,
    wavs: torch.Tensor,
    wav_lens: torch.Tensor,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    hidden, lengths = encoder.front_end(*encoder.features(wavs, wav_lens))
    return stack.encode(hidden, lengths / hidden.shape[1])


def zero_padded(stack: TransformerASR) -> TransformerASR:
    stack = copy.deepcopy(stack)
    for layer in stack.encoder.layers:
        if hasattr(layer, "convolution_branch"):
            layer.convolution_branch.csgu.conv.padding_mode = "constant"
    return stack


@pytest.mark.parametrize("stack_name", STACKS, ids="-".join)
@torch.no_grad()
def test_equals_speechbrain_bit_for_bit(stack_name: tuple[str, str]) -> None:
    """Without our masking, a padded batch is SpeechBrain's to the bit."""
    stack = tiny_stack(*stack_name, output_hidden_states=True)
    encoder = tiny_model(stack, mask_padding=False).encoder
    batch = padded([noise(9000, 1), noise(5500, 2)], extra=700)
    out, hidden = reference_states(stack, encoder, *batch)
    states = encoder(*batch)
    assert [state.depth for state in states] == list(EXITS)
    for state in states:
        assert torch.equal(state.hidden_BTD, hidden[state.depth])
    assert torch.equal(stack.encoder.norm(states[-1].hidden_BTD), out)


@pytest.mark.parametrize("stack_name", STACKS, ids="-".join)
@torch.no_grad()
def test_masking_changes_nothing_without_padding(
    stack_name: tuple[str, str],
) -> None:
    """Alone there is nothing to mask: the same as SpeechBrain's layers."""
    stack = tiny_stack(*stack_name, output_hidden_states=True)
    encoder = tiny_model(stack, mask_padding=True).encoder
    batch = padded([noise(9000, 1)])
    out, hidden = reference_states(zero_padded(stack), encoder, *batch)
    states = encoder(*batch)
    for state in states:
        torch.testing.assert_close(
            state.hidden_BTD, hidden[state.depth], atol=TOLERANCE, rtol=0
        )
    torch.testing.assert_close(
        stack.encoder.norm(states[-1].hidden_BTD), out, atol=TOLERANCE, rtol=0
    )


@pytest.mark.parametrize("mask_padding", [False, True])
@torch.no_grad()
def test_causal_conformer(mask_padding: bool) -> None:
    """A causal stack keeps its look-ahead mask and its causal convolution."""
    stack = tiny_stack(causal=True)
    encoder = tiny_model(stack, mask_padding=mask_padding).encoder
    batch = padded([noise(9000, 1)])
    out = reference_states(stack, encoder, *batch)
    torch.testing.assert_close(
        stack.encoder.norm(encoder(*batch)[-1].hidden_BTD),
        out,
        atol=TOLERANCE,
        rtol=0,
    )


@pytest.mark.parametrize("exit_layers", [(1, 2, 3, 4), (3,), (1, 4)])
@torch.no_grad()
def test_exit_layers_are_free(exit_layers: tuple[int, ...]) -> None:
    """An exit reads the same layer wherever the other exits are."""
    stack = tiny_stack(output_hidden_states=True)
    encoder = tiny_model(stack, exit_layers, mask_padding=False).encoder
    batch = padded([noise(6000)])
    _, hidden = reference_states(stack, encoder, *batch)
    assert len(encoder.layers) == exit_layers[-1]
    for layer, state in zip(exit_layers, encoder(*batch), strict=True):
        assert state.depth == layer
        assert torch.equal(state.hidden_BTD, hidden[layer])


@torch.no_grad()
def test_layerdrop_never_drops_in_evaluation() -> None:
    """Evaluation runs every layer, whatever the probability."""
    stack = tiny_stack()
    batch = padded([noise(6000)])
    whole = tiny_model(stack)(*batch)
    dropping = tiny_model(stack, layerdrop_prob=1.0)(*batch)
    for expected, output in zip(whole, dropping):
        assert torch.equal(output.log_probs_BTV, expected.log_probs_BTV)


@pytest.mark.parametrize(
    "exit_layers",
    [[], [0, 2], [2, 5], [4, 2], [2, 2], [2.0, 4], ["2"], 4, None, "24"],
    ids=str,
)
def test_wrong_exit_layers(exit_layers: object) -> None:
    """The error names the key, the value and the layers there are."""
    with pytest.raises(InputError, match="exit_layers") as error:
        check_exit_layers(exit_layers, num_layers=4)
    assert repr(exit_layers) in str(error.value)
    assert "between 1 and 4" in str(error.value)


HOP = 160


def make_features(norm_type: str = "sentence") -> LogMel:
    return LogMel(
        Fbank(n_mels=N_MELS, n_fft=400),
        InputNormalization(norm_type=norm_type, epsilon=0.001),
    )


@pytest.mark.parametrize("frames", [64, 75, 119, 125])
def test_statistics_hold_no_padded_frame(frames: int) -> None:
    """Every length from 1 to T in one batch: mean 0 and variance 1 each."""
    wavs = [noise(HOP * t, seed=t) for t in range(10, frames)]
    features, lengths = make_features()(*padded(wavs))
    assert features.shape[1] == frames
    assert lengths.tolist() == list(range(11, frames + 1))
    for row, length in zip(features, lengths):
        part = row[:length]
        assert part.mean(dim=0).abs().max() < 1e-4
        assert (part.var(dim=0, correction=0) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("samples", [1, 159, 160, 161, 400, 8000])
def test_one_frame_per_hop(samples: int) -> None:
    """The count is what the filterbank gives for the utterance alone."""
    features, lengths = make_features()(*padded([noise(samples)]))
    assert lengths.tolist() == [features.shape[1]] == [samples // HOP + 1]
    assert torch.isfinite(features).all()


OPTIONS = dict(
    input_shape=(None, None, 16),
    num_blocks=2,
    num_layers_per_block=2,
    out_channels=[6, 4],
    kernel_sizes=[3, 5],
    strides=[2, 2],
    dropout=0.0,
)


@pytest.mark.parametrize("mask_padding", [True, False])
@torch.no_grad()
def test_equals_speechbrain(mask_padding: bool) -> None:
    """Without padding, the same numbers from the same parameters."""
    ours = MaskedConvolutionFrontEnd(mask_padding=mask_padding, **OPTIONS)
    theirs = ConvolutionFrontEnd(
        residuals=[False] * 2,
        conv_module=partial(Conv2d, padding_mode="constant"),
        **OPTIONS,
    )
    theirs.load_state_dict(ours.blocks.state_dict(), strict=True)
    features = torch.randn(1, 37, 16)
    out, lengths = ours(features, torch.tensor([37]))
    expected = theirs(features).flatten(start_dim=2)
    assert lengths.tolist() == [expected.shape[1]]
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key", ["residuals", "padding", "conv_module"])
def test_options_that_would_break_the_lengths(key: str) -> None:
    """They are refused by name."""
    with pytest.raises(InputError, match=f"front_end: `{key}`"):
        MaskedConvolutionFrontEnd(**OPTIONS, **{key: "x"})
