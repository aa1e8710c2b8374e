"""An utterance is encoded alike alone and in a padded batch.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch
from speechbrain.lobes.models.transformer.Conformer import (
    ConformerEncoder,
    ConvolutionModule,
)
from speechbrain.nnet.attention import RelPosEncXL
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

VALID, PADDED, WIDTH = 21, 40, 16  # frames, frames, features
TOLERANCE = 1e-5  # states have unit scale


def batch():
    """Two sequences, the first padded with anything, and its mask."""
    torch.manual_seed(0)
    x = torch.randn(2, PADDED, WIDTH)
    mask = torch.zeros(2, PADDED, dtype=torch.bool)
    mask[0, VALID:] = True
    return x, mask


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("chunk_size", [None, 4, 8])
def test_convolution_module(causal, chunk_size):
    """The module alone, whole sequences and chunks."""
    chunks = None
    if chunk_size is not None:
        if causal:
            pytest.skip("chunked convolutions are not causal")
        chunks = DynChunkTrainConfig(chunk_size)
    x, mask = batch()
    module = ConvolutionModule(WIDTH, kernel_size=5, causal=causal).eval()
    with torch.no_grad():
        batched = module(x, mask.unsqueeze(-1), dynchunktrain_config=chunks)
        alone = module(
            x[:1, :VALID],
            mask[:1, :VALID].unsqueeze(-1),
            dynchunktrain_config=chunks,
        )
    assert (batched[:1, :VALID] - alone).abs().max() < TOLERANCE
    assert batched[0, VALID:].eq(0).all()


@pytest.mark.parametrize("attention_type", ["RelPosMHAXL", "regularMHA"])
def test_encoder(attention_type):
    """Four layers: a leak would grow with every kernel."""
    x, mask = batch()
    torch.manual_seed(1)
    encoder = ConformerEncoder(
        num_layers=4,
        nhead=2,
        d_ffn=32,
        d_model=WIDTH,
        kernel_size=5,
        attention_type=attention_type,
    ).eval()

    def encode(src, src_key_padding_mask):
        positions = None
        if attention_type == "RelPosMHAXL":
            positions = RelPosEncXL(WIDTH)(src)
        return encoder(
            src,
            src_key_padding_mask=src_key_padding_mask,
            pos_embs=positions,
        )[0]

    with torch.no_grad():
        batched = encode(x, mask)
        alone = encode(x[:1, :VALID], mask[:1, :VALID])
    assert (batched[:1, :VALID] - alone).abs().max() < TOLERANCE


def test_gradients():
    """Nothing flows back from valid frames to padding."""
    x, mask = batch()
    x.requires_grad_()
    module = ConvolutionModule(WIDTH, kernel_size=5)
    module(x, mask.unsqueeze(-1))[0, :VALID].sum().backward()
    assert x.grad[0, VALID:].eq(0).all()
    assert x.grad[0, :VALID].ne(0).any()
