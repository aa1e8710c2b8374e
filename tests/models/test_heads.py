"""Exit heads read the right norm, body and projection, at their layer.

Protects: which parameters an exit uses (own, or shared on purpose), the names
of old checkpoints, the formulas of bodies, what a head costs, and the type and
sum of the log-probabilities that CTC and the criteria rely on.

Authors
 * The speechbrain-ee contributors 2026
"""

import math

import pytest
import torch
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.heads import (
    HEAD_KINDS,
    SHARING,
    CTCHeads,
    HeadBody,
)
from speechbrain_ee.models.padding import padding_mask
from speechbrain_ee.models.state import EncoderState
from tests.helpers import shaken, valid

LAYERS = (2, 4, 6)
EXITS = (1, 2, 3)
D_MODEL, WIDTH, TOKENS, NHEAD = 8, 12, 5, 2
BODIES = HEAD_KINDS[1:]
# Alone and in a batch differ by the rounding of sums of other lengths.
ALONE = dict(rtol=2e-6, atol=2e-6)
EVERY_HEAD = pytest.mark.parametrize("head", HEAD_KINDS)
EVERY_SHARING = pytest.mark.parametrize("tied", SHARING)


def a_state(depth: int = 4) -> EncoderState:
    return EncoderState(
        torch.randn(2, 6, D_MODEL), torch.tensor([6, 3]), torch.arange(2), depth
    )


def some_heads(head: str = "linear", tied: bool | str = False) -> CTCHeads:
    torch.manual_seed(0)
    heads = CTCHeads(LAYERS, D_MODEL, TOKENS, tied=tied, head=head, width=WIDTH)
    return shaken(heads).eval()


def pointers(parameters: object) -> set[int]:
    return {parameter.data_ptr() for parameter in parameters}


@pytest.mark.parametrize("tied", [False, True])
def test_formula_of_linear_heads(tied: bool) -> None:
    """log_softmax(W_k norm_k(h) + b_k), written out."""
    heads = some_heads(tied=tied)
    state = a_state()
    hidden = heads.norms[1](state.hidden_BTD)
    linear = heads.projections[0 if tied else 1]
    scores = hidden @ linear.weight.T + linear.bias
    expected = scores - scores.logsumexp(dim=-1, keepdim=True)
    output = heads(2, state)
    torch.testing.assert_close(output.log_probs_BTV, expected)
    assert output.layer == 4
    assert torch.equal(output.lengths_B, state.lengths_B)


@EVERY_HEAD
def test_fp32_under_autocast(head: str) -> None:
    """Half precision above, single precision in the sums of CTC."""
    heads = CTCHeads([2, 4], D_MODEL, TOKENS, blank_index=3, head=head)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = heads(1, a_state(2))
    assert output.log_probs_BTV.dtype == torch.float32
    sums = output.log_probs_BTV.exp().sum(dim=-1)
    torch.testing.assert_close(sums, torch.ones(2, 6))
    assert output.blank_index == 3


@EVERY_HEAD
@EVERY_SHARING
def test_what_is_shared_is_said(head: str, tied: str) -> None:
    """Distinct tensors but for what is tied, each once in the checkpoint."""
    heads = some_heads(head, tied)
    assert heads.num_exits == 3 and heads.vocab_size == TOKENS
    counts = {"norms": 3}
    counts["projections"] = 3 if tied == "separate" else 1
    if head != "linear":
        counts["bodies"] = 1 if tied == "all" else 3
    parameters = list(heads.parameters())
    assert len(pointers(parameters)) == len(parameters)
    places = {tuple(name.split(".")[:2]) for name in heads.state_dict()}
    assert places == {
        (part, str(k)) for part, count in counts.items() for k in range(count)
    }
    for part, get in (
        ("projections", heads.projection),
        ("bodies", heads.body),
    ):
        if part in counts:
            used = {id(get(k)) for k in EXITS}
            assert len(used) == counts[part]


@EVERY_HEAD
@EVERY_SHARING
def test_parts_are_what_an_exit_learns(head: str, tied: str) -> None:
    """The loss of exit k reaches its own parts, all of them, no others."""
    for k in EXITS:
        heads = some_heads(head, tied).train()
        heads(k, a_state()).log_probs_BTV[..., 0].square().sum().backward()
        reached = {p for p in heads.parameters() if p.grad is not None}
        parts = {p for part in heads.parts(k) for p in part.parameters()}
        assert reached == parts
        assert all(p.grad.abs().max() > 0 for p in parts)


@EVERY_HEAD
@EVERY_SHARING
def test_truncated_shares_and_equals(head: str, tied: str) -> None:
    """The first two heads alone: the same tensors, the same outputs."""
    heads = some_heads(head, tied)
    short = heads.truncated(2)
    assert short.num_exits == 2 and not short.training
    kept = [p for k in (1, 2) for m in heads.parts(k) for p in m.parameters()]
    assert pointers(short.parameters()) == pointers(kept)
    state = a_state()
    for k in (1, 2):
        expected = heads(k, state).log_probs_BTV
        assert torch.equal(short(k, state).log_probs_BTV, expected)


@EVERY_HEAD
def test_alone_is_in_a_batch(head: str) -> None:
    """After rows have left and time is trimmed, too."""
    heads = some_heads(head)
    state = a_state()
    state.hidden_BTD[1, 3:] = 1e3
    together = heads(3, state)
    alone = heads(3, state.select(torch.tensor([False, True])))
    assert alone.log_probs_BTV.shape[1] == 3
    torch.testing.assert_close(valid(together, 1), valid(alone), **ALONE)


def test_old_checkpoints_load() -> None:
    """The names that linear heads have always had, and no others."""
    torch.manual_seed(3)
    norms = [nn.LayerNorm(D_MODEL) for _ in LAYERS]
    projections = [nn.Linear(D_MODEL, TOKENS) for _ in LAYERS]
    old = {
        f"{name}.{k}.{key}": tensor
        for name, modules in (("norms", norms), ("projections", projections))
        for k, module in enumerate(modules)
        for key, tensor in module.state_dict().items()
    }
    # Nor does a seed start linear heads elsewhere than it did.
    torch.manual_seed(3)
    heads = CTCHeads(LAYERS, D_MODEL, TOKENS)
    state_dict = heads.state_dict()
    assert list(state_dict) == list(old)
    assert all(torch.equal(state_dict[name], old[name]) for name in old)
    shaken(heads).load_state_dict(old, strict=True)
    assert torch.equal(heads.projection(2).weight, projections[1].weight)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tied": "body"}, "tied_heads: 'body' .*separate, projection, all"),
        ({"head": "mlp"}, "head: 'mlp' .*linear, two_layer, feed_forward"),
        ({"width": 0}, "head_width: 0 .*null"),
        ({"width": "512"}, "head_width: '512' .*null"),
        ({"nhead": 0}, "head_nhead: 0 .* of 12 "),
        ({"nhead": 5}, "head_nhead: 5 .* of 12 "),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    """The key, the value and what it may be."""
    usual = {"head": "self_attention", "width": WIDTH}
    with pytest.raises(InputError, match=f"^{message}"):
        CTCHeads(LAYERS, D_MODEL, TOKENS, **usual | options)


@pytest.mark.parametrize(
    "flag, name", [(False, "separate"), (True, "projection")]
)
def test_flags_are_names(flag: bool, name: str) -> None:
    """The YAMLs' True and False mean what they always did."""
    assert some_heads("two_layer", flag).sharing == name


def a_body(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return shaken(HeadBody(kind, D_MODEL, WIDTH, NHEAD, 0.0)).eval()


def affine(x: Tensor, layer: nn.Module) -> Tensor:
    return x @ layer.weight.T + layer.bias


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    scale = (centred.square().mean(dim=-1, keepdim=True) + norm.eps).rsqrt()
    return centred * scale * norm.weight + norm.bias


def attended(x: Tensor, attention: nn.Module) -> Tensor:
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


@pytest.mark.parametrize("kind", BODIES)
def test_formula(kind: str) -> None:
    """Each body equals its definition, written out, at its own width."""
    body = a_body(kind)
    x = torch.randn(3, 5, D_MODEL)
    output = body(x, padding_mask(torch.tensor([5, 5, 5]), 5))
    assert output.shape == (3, 5, WIDTH)
    torch.testing.assert_close(
        output, written_out(kind, body, x), rtol=0.0, atol=1e-5
    )
