"""SpeechBrain's convolutions read padding; ours do not.

Trap avoided: the convolutions of SpeechBrain's Conformer, Branchformer and
front-end see what follows an utterance in its batch (for the Conformer see
SpeechBrain issue 2986), and its normalisation counts a padded frame when a
relative length is rounded up. Each test first shows that the leak is there,
so that the fix can go once SpeechBrain has closed it.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.processing.features import InputNormalization
from torch import Tensor

from speechbrain_ee.models.masking import MaskedConvolutionFrontEnd
from tests.helpers import N_MELS, noise, padded, tiny_model, valid

LEAK = 1e-2
FRONT_END = dict(
    input_shape=(None, None, N_MELS),
    num_blocks=2,
    num_layers_per_block=1,
    out_channels=[6, 4],
    kernel_sizes=[3, 3],
    strides=[2, 2],
    dropout=0.0,
)


def difference(mask_padding: bool, encoder_module: str) -> list[float]:
    model = tiny_model(encoder_module=encoder_module, mask_padding=mask_padding)
    model.encoder.front_end.mask_padding = True
    wav = noise(6000, 1)
    alone = model(*padded([wav]))
    batched = model(*padded([wav, noise(9000, 2)]))
    return [
        float((valid(a) - valid(b)).abs().max()) for a, b in zip(alone, batched)
    ]


@pytest.mark.parametrize("encoder_module", ["conformer", "branchformer"])
@torch.no_grad()
def test_encoder_layers(encoder_module: str) -> None:
    """At every exit: a leak without our masking, none with it."""
    assert min(difference(False, encoder_module)) > LEAK
    assert max(difference(True, encoder_module)) < 1e-5


@torch.no_grad()
def test_transformer_layers_do_not_leak() -> None:
    """Attention masks its keys: nothing to mend in a Transformer."""
    assert max(difference(False, "transformer")) < 1e-5


def last_frame_difference(front_end: torch.nn.Module, ours: bool) -> float:
    def run(features: Tensor) -> Tensor:
        if ours:
            return front_end(features, torch.tensor([45]))[0]
        return front_end(features).flatten(start_dim=2)

    features = torch.randn(1, 64, N_MELS)
    alone, batched = run(features[:, :45]), run(features)
    difference = (alone - batched[:, : alone.shape[1]]).abs().amax(dim=-1)[0]
    assert difference[:-3].max() < 1e-5
    return float(difference[-1])


@torch.no_grad()
def test_last_frame_of_the_front_end() -> None:
    """SpeechBrain's reads (and reflects) beyond the end, ours does not."""
    theirs = ConvolutionFrontEnd(residuals=[False] * 2, **FRONT_END).eval()
    assert last_frame_difference(theirs, ours=False) > LEAK
    ours = MaskedConvolutionFrontEnd(**FRONT_END).eval()
    assert last_frame_difference(ours, ours=True) < 1e-5


def test_relative_lengths_are_rounded_up() -> None:
    """63 of 119 frames become 64 in SpeechBrain's normalisation."""
    features = torch.zeros(1, 119, 1)
    features[:, 63] = 1e3
    normalize = InputNormalization(norm_type="sentence", epsilon=0.001)
    assert normalize(features, torch.tensor([63]) / 119)[0, 0].abs() > LEAK
    model = tiny_model()
    wav = noise(62 * 160, 1)
    alone, _ = model.encoder.features(*padded([wav]))
    batched, _ = model.encoder.features(*padded([wav], extra=56 * 160))
    assert alone.shape[1] == 63 and batched.shape[1] == 119
    assert (alone - batched[:, :63]).abs().max() < 1e-5
