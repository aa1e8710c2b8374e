"""The closed-form cost equals what is counted while the model runs.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.encoder import MultiExitEncoder
from speechbrain_ee.models.features import LogMel
from speechbrain_ee.models.heads import CTCHeads
from speechbrain_ee.models.masking import MaskedConvolutionFrontEnd
from speechbrain_ee.models.model import EarlyExitModel

KINDS = [
    ("conformer", "RelPosMHAXL"),
    ("conformer", "RoPEMHA"),
    ("conformer", "regularMHA"),
    ("branchformer", "RelPosMHAXL"),
    ("branchformer", "regularMHA"),
    ("transformer", "regularMHA"),
]


def build(kind: str, attention: str) -> EarlyExitModel:
    """A four-layer model with exits after layers 1 and 4."""
    front_end = MaskedConvolutionFrontEnd(
        input_shape=(None, None, 40),
        num_blocks=2,
        num_layers_per_block=1,
        out_channels=[6, 5],
        kernel_sizes=[3, 3],
        strides=[2, 2],
    )
    stack = TransformerASR(
        tgt_vocab=11,
        input_size=50,
        d_model=16,
        nhead=2,
        num_encoder_layers=4,
        num_decoder_layers=0,
        d_ffn=24,
        kernel_size=5,
        encoder_module=kind,
        attention_type=attention,
        csgu_linear_units=20,
        normalize_before=True,
        causal=False,
    )
    features = LogMel(Fbank(n_mels=40, n_fft=400))
    encoder = MultiExitEncoder(features, front_end, stack, [1, 4])
    return EarlyExitModel(encoder, CTCHeads([1, 4], 16, 11)).eval()


def counted_macs(model: torch.nn.Module, samples: int) -> int:
    """Half of PyTorch's count of floating-point operations."""
    counter = FlopCounterMode(display=False)
    # Only the unfused kernel is counted on a CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(torch.rand(1, samples), torch.ones(1))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("samples", [8000, 16037])
@pytest.mark.parametrize("kind,attention", KINDS)
def test_closed_form_equals_count(kind, attention, samples):
    model = build(kind, attention)
    cost = CostModel(model)
    frames = samples // 160 + 1
    fourier = cost.start.features(frames) - frames * 201 * 40
    for exits in (1, 2):
        predicted = cost.macs(samples)[exits - 1] - fourier
        assert predicted == counted_macs(model.truncated(exits), samples)


def test_parameters_of_truncated_models():
    model = build("conformer", "RelPosMHAXL")
    first = model.truncated(1)
    assert CostModel(model).parameters()[0] == sum(
        parameter.numel() for parameter in first.parameters()
    )
    total = sum(parameter.numel() for parameter in model.parameters())
    other_head = sum(
        parameter.numel()
        for module in (model.heads.norms[0], model.heads.projections[0])
        for parameter in module.parameters()
    )
    assert CostModel(model).parameters()[1] == total - other_head


@pytest.mark.parametrize("exits", [(1,), (2,), (1, 2)])
def test_heads_that_are_not_read_cost_nothing(exits):
    model = build("conformer", "RelPosMHAXL")
    cost, some = CostModel(model), CostModel(model, exits)
    frames = cost.frames(8000)
    skipped = 0 if 1 in exits else cost.head(1, frames)
    whole = dict(enumerate(cost.macs(8000), start=1))
    assert some.macs(8000) == tuple(
        whole[exit] - (skipped if exit == 2 else 0) for exit in exits
    )
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        state = model.start(torch.rand(1, 8000), torch.ones(1))
        for exit in exits:
            state, _ = model.walk(state, exit)
    fourier = cost.start.features(51) - 51 * 201 * 40
    counted = counter.get_total_flops() // 2
    assert some.macs(8000)[-1] - fourier == counted
    assert some.parameters() == tuple(
        cost.parameters()[exit - 1] for exit in exits
    )


@pytest.mark.parametrize("decoders", ["shared", "separate"])
def test_parameters_with_attention_heads(decoders):
    """Of each kind of head one, that of the exit."""
    model = build("conformer", "regularMHA")
    model.attention = AttentionHeads(
        [1, 4], 16, 11, decoders=decoders, num_layers=2, nhead=2, d_ffn=24
    )
    expected = []
    for exit in (1, 2):
        part = model.truncated(exit)
        total = count(part)
        for other in range(exit - 1):
            total -= count(part.heads.norms[other])
            total -= count(part.heads.projections[other])
            total -= count(part.attention.norms[other])
            if decoders == "separate":
                total -= count(part.attention.decoders[other])
            else:
                total -= part.attention.places[other].numel()
        expected.append(total)
    assert CostModel(model).parameters() == tuple(expected)
    # decoding is charged by itself
    macs = CostModel(model).macs(8000)
    model.attention = None
    assert CostModel(model).macs(8000) == macs


def count(module: torch.nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
