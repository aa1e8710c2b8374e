"""Bodies of heads compute their formulas and let nothing leak from padding.

Protects: what each kind is, that only self-attention mixes frames, that an
utterance alone equals itself in a batch, and the errors of wrong options.

Authors
 * The speechbrain-ee contributors 2026
"""

import math

import pytest
import torch
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.head_bodies import HEAD_KINDS, head_body
from speechbrain_ee.models.padding import padding_mask
from tests.helpers import shaken

KINDS = HEAD_KINDS[1:]
D_MODEL, WIDTH, NHEAD = 8, 6, 2

# Alone and in a batch differ by the rounding of sums of other lengths.
ALONE = dict(rtol=2e-6, atol=2e-6)


def a_body(kind: str, dropout: float = 0.0) -> nn.Module:
    """A body with parameters unlike the initial ones, in evaluation mode."""
    torch.manual_seed(0)
    return shaken(head_body(kind, D_MODEL, WIDTH, NHEAD, dropout)).eval()


def affine(x: Tensor, layer: nn.Module) -> Tensor:
    """A linear layer, written out."""
    return x @ layer.weight.T + layer.bias


def gelu(x: Tensor) -> Tensor:
    """x Phi(x), written out."""
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    """A layer norm, written out."""
    centred = x - x.mean(dim=-1, keepdim=True)
    scale = (centred.square().mean(dim=-1, keepdim=True) + norm.eps).rsqrt()
    return centred * scale * norm.weight + norm.bias


def attended(x: Tensor, attention: nn.Module) -> Tensor:
    """Multi-head self-attention over frames that are all valid."""
    parts = (x @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(
        3, dim=-1
    )
    query, key, value = (
        part.reshape(*x.shape[:2], NHEAD, WIDTH // NHEAD) for part in parts
    )
    scores = torch.einsum("bthd,bshd->bhts", query, key)
    weights = (scores / math.sqrt(WIDTH // NHEAD)).softmax(dim=-1)
    mixed = torch.einsum("bhts,bshd->bthd", weights, value)
    return affine(mixed.flatten(2), attention.out_proj)


def written_out(kind: str, body: nn.Module, x: Tensor) -> Tensor:
    """The formulas of the three bodies."""
    x = affine(x, body.linear)
    if kind == "two_layer":
        return torch.where(x > 0, x, 0.01 * x)
    if kind == "feed_forward":
        inner, _, _, outer = body.network.ffn
        return x + affine(gelu(affine(x, inner)), outer)
    layer = body.layer
    x = normed(x + attended(x, layer.self_att.att), layer.norm1.norm)
    inner, _, _, outer = layer.pos_ffn.ffn
    x = x + affine(gelu(affine(x, inner)), outer)
    return normed(x, layer.norm2.norm)


@pytest.mark.parametrize("kind", KINDS)
def test_formula(kind: str) -> None:
    """Each body equals its definition, written out, at its own width."""
    body = a_body(kind)
    x = torch.randn(3, 5, D_MODEL)
    output = body(x, padding_mask(torch.tensor([5, 5, 5]), 5))
    assert output.shape == (3, 5, WIDTH)
    torch.testing.assert_close(
        output, written_out(kind, body, x), rtol=0.0, atol=1e-5
    )


def test_linear_has_no_body() -> None:
    """Today's head: norm and projection alone."""
    assert head_body("linear", D_MODEL, WIDTH) is None


@pytest.mark.parametrize("kind", KINDS)
def test_alone_is_in_a_batch(kind: str) -> None:
    """Whatever stands in the padding, and however much of it there is."""
    body = a_body(kind)
    lengths = torch.tensor([9, 4, 1])
    x = torch.randn(3, 12, D_MODEL)
    mask = padding_mask(lengths, 12)
    x[mask] = 1e3 * torch.randn(int(mask.sum()), D_MODEL)
    together = body(x, mask)
    for row, length in enumerate(lengths.tolist()):
        mask = torch.zeros(1, length, dtype=torch.bool)
        alone = body(x[row : row + 1, :length], mask)
        torch.testing.assert_close(together[row, :length], alone[0], **ALONE)


@pytest.mark.parametrize("kind", KINDS)
def test_only_self_attention_mixes_frames(kind: str) -> None:
    """A changed frame changes the others there, and nowhere else."""
    body = a_body(kind)
    x = torch.randn(1, 5, D_MODEL)
    mask = torch.zeros(1, 5, dtype=torch.bool)
    before = body(x, mask)
    x[0, 2] += 1.0
    changed = (body(x, mask) - before).abs().amax(dim=-1)[0] > 1e-5
    expected = [kind == "self_attention"] * 5
    expected[2] = True
    assert changed.tolist() == expected


@pytest.mark.parametrize("kind", KINDS[1:])
def test_dropout_reaches_the_body(kind: str) -> None:
    """Random in training, absent in evaluation mode."""
    body = a_body(kind, dropout=0.5)
    x, mask = torch.randn(2, 5, D_MODEL), padding_mask(torch.tensor([5, 3]), 5)
    assert torch.equal(body(x, mask), body(x, mask))
    body.train()
    assert not torch.equal(body(x, mask), body(x, mask))


def test_unknown_kind_lists_the_known() -> None:
    """The misspelt name and the four valid ones."""
    with pytest.raises(InputError, match=r"^head: 'two-layer'.*") as caught:
        head_body("two-layer", D_MODEL, WIDTH)
    assert all(kind in str(caught.value) for kind in HEAD_KINDS)


@pytest.mark.parametrize("width", [0, -4, 2.5, "512"])
def test_impossible_width(width: object) -> None:
    """The key, the value and the way out."""
    with pytest.raises(InputError, match=r"head_width: .*null"):
        head_body("two_layer", D_MODEL, width)


@pytest.mark.parametrize("nhead", [0, 4])
def test_heads_that_do_not_divide(nhead: int) -> None:
    """Both numbers are named, because either may be the wrong one."""
    with pytest.raises(InputError, match=f"head_nhead: {nhead} .* of 6 "):
        head_body("self_attention", D_MODEL, WIDTH, nhead)
