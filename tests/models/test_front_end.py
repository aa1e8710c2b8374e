"""The convolutional front-end is SpeechBrain's, with zero padding.

Protects: parameter names and numbers of SpeechBrain's ``ConvolutionFrontEnd``
and the refusal of options for which the lengths would not be exact.

Authors
 * The speechbrain-ee contributors 2026
"""

from functools import partial

import pytest
import torch
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.nnet.CNN import Conv2d

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.masking import MaskedConvolutionFrontEnd

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
