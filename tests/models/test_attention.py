"""Attention heads: one decoder for all exits, or one for each.

Protects: that separate decoders are separate and a shared one is told where
it reads, that every part is saved, trained by its own exit's loss alone and
kept in a truncated model, and the messages of wrong options.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.heads import CTCHeads, ExitOutput
from speechbrain_ee.models.model import EarlyExitModel
from tests.helpers import (
    VOCAB,
    noise,
    padded,
    shaken,
    tiny_attention,
    tiny_model,
)

EXITS = (1, 2, 4)
KINDS = ("shared", "separate")
TOKENS = torch.tensor([[1, 5, 3, 3, 6], [1, 4, 0, 0, 0]])
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def heads_of(kind: str, seed: int = 0) -> AttentionHeads:
    """Three exits, every parameter at work."""
    torch.manual_seed(seed)
    return shaken(tiny_attention(kind, EXITS), seed)


def model_of(kind: str, seed: int = 0) -> EarlyExitModel:
    """A whole model with such heads."""
    model = tiny_model(exit_layers=EXITS, attention=kind, seed=seed)
    shaken(model.attention, seed)
    return model


def read(seed: int = 0) -> ExitOutput:
    """Random hidden states of two utterances."""
    generator = torch.Generator().manual_seed(seed)
    return ExitOutput(
        log_probs_BTV=torch.zeros(2, 6, VOCAB),
        lengths_B=torch.tensor([6, 4]),
        layer=2,
        hidden_BTD=torch.randn(2, 6, 16, generator=generator),
    )


def sizes(kind: str) -> tuple[int, int]:
    """Parameters of all heads, and of one decoder."""
    heads = tiny_attention(kind, EXITS)
    count = [sum(p.numel() for p in heads.parameters())]
    return count[0], sum(p.numel() for p in heads.decoders[0].parameters())


def test_parameters_in_closed_form() -> None:
    """Separate: E decoders and norms. Shared: one, norms and embeddings."""
    D, F, V, E, layers = 16, 32, VOCAB, len(EXITS), 2
    attention = 4 * D * D + 4 * D
    feed_forward = 2 * D * F + F + D
    decoder = layers * (2 * attention + feed_forward + 3 * 2 * D)
    decoder += 2 * D + V * D + V * D + V
    assert sizes("shared") == (decoder + E * 2 * D + E * D, decoder)
    assert sizes("separate") == (E * (decoder + 2 * D), decoder)


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_tensors_are_one(kind: str) -> None:
    """Also by value: separate decoders start from different weights."""
    heads = tiny_attention(kind, EXITS)
    tensors = list(heads.parameters())
    assert len({p.data_ptr() for p in tensors}) == len(tensors)
    own = [heads.decoder(k).output.weight for k in (1, 2, 3)]
    assert len({id(weight) for weight in own}) == (1 if kind == "shared" else 3)
    if kind == "separate":
        assert not torch.equal(own[0], own[1])
        assert not torch.equal(own[1], own[2])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_checkpoint_holds_all_of_it(kind: str) -> None:
    """Loaded into other heads, they predict the same at every exit."""
    heads, other = heads_of(kind), heads_of(kind, seed=1)
    names = heads.state_dict().keys()
    assert names >= {name for name, _ in heads.named_parameters()}
    before = [other(k, read(), TOKENS) for k in (1, 2, 3)]
    other.load_state_dict(heads.state_dict(), strict=True)
    for k in (1, 2, 3):
        expected = heads(k, read(), TOKENS)
        assert torch.equal(other(k, read(), TOKENS), expected)
        assert not torch.allclose(before[k - 1], expected, atol=1e-3)


@pytest.mark.parametrize("exit", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_the_own_parts_alone(kind: str, exit: int) -> None:
    """Norm, embedding of the exit and decoder of exit k, no other's."""
    heads = tiny_attention(kind, EXITS)
    heads(exit, read(), TOKENS)[..., 3].sum().backward()
    reached = {
        ".".join(name.split(".")[:2])
        for name, parameter in heads.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().max() > 0
    }
    place = exit - 1
    if kind == "shared":
        expected = {f"norms.{place}", f"places.{place}", "decoders.0"}
    else:
        expected = {f"norms.{place}", f"decoders.{place}"}
    assert reached == expected


@pytest.mark.parametrize(
    "told_by", ["norms.1.weight", "norms.1.bias", "places.1"]
)
@torch.no_grad()
def test_shared_decoder_is_told_where_it_reads(told_by: str) -> None:
    """Alike at every exit at first; another once norm or embedding differ."""
    heads = tiny_attention("shared", EXITS)
    first = [heads(k, read(), TOKENS) for k in (1, 2, 3)]
    assert torch.equal(first[0], first[1])
    heads.get_parameter(told_by)[:8] += 1.0
    second = [heads(k, read(), TOKENS) for k in (1, 2, 3)]
    assert torch.equal(second[0], first[0])
    assert torch.equal(second[2], first[2])
    assert (second[1] - first[1]).abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_started_and_extended_equals_forward(kind: str) -> None:
    """The search reads every exit as training does: its norm, its place."""
    heads = heads_of(kind)
    for k in (1, 2, 3):
        state = heads.start(k, read())
        pieces = []
        for tokens_B1 in TOKENS.split(1, dim=1):
            logits, _, state = heads.decoder(k).extend(tokens_B1, state)
            pieces.append(logits.log_softmax(-1))
        expected = heads(k, read(), TOKENS)
        torch.testing.assert_close(torch.cat(pieces, 1), expected, **CLOSE)
        torch.testing.assert_close(
            expected.logsumexp(-1), torch.zeros(2, 5), **CLOSE
        )


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_alone_equals_in_a_batch(kind: str) -> None:
    """From the waveform on, at every exit, with padding of both kinds."""
    model = model_of(kind)
    wavs = [noise(7000, 1), noise(4100, 2)]
    tokens = [TOKENS[0], TOKENS[1, :2]]
    batch = model(*padded(wavs, extra=900, fill=0.1), TOKENS)
    for row, (wav, alone_S) in enumerate(zip(wavs, tokens)):
        alone = model(*padded([wav]), alone_S[None])
        for expected, output in zip(alone, batch):
            torch.testing.assert_close(
                output.attention_BSV[row, : len(alone_S)],
                expected.attention_BSV[0],
                **CLOSE,
            )


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_model_reads_every_exit_by_its_head(kind: str) -> None:
    """What ``forward`` attaches to exit k is head k on its hidden states."""
    model = model_of(kind)
    batch = padded([noise(7000, 1), noise(4100, 2)])
    outputs = model(*batch, TOKENS)
    predictions = [output.attention_BSV for output in outputs]
    for k, output in enumerate(outputs, start=1):
        expected = model.attention(k, output, TOKENS)
        assert torch.equal(predictions[k - 1], expected)
    assert not torch.allclose(predictions[0], predictions[1], atol=1e-3)
    assert all(output.attention_BSV is None for output in model(*batch))


def kept(name: str, exits: int, kind: str) -> bool:
    """Whether a parameter of the heads belongs to the first exits."""
    part, number = name.split(".")[:2]
    if kind == "shared" and part == "decoders":
        return True
    return int(number) < exits


@pytest.mark.parametrize("exits", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_truncated(kind: str, exits: int) -> None:
    """The same bits from the same tensors, and none above the exit."""
    model = model_of(kind)
    batch = padded([noise(7000, 1), noise(4100, 2)])
    small = model.truncated(exits)
    for expected, output in zip(model(*batch, TOKENS), small(*batch, TOKENS)):
        assert torch.equal(output.attention_BSV, expected.attention_BSV)
    whole = dict(model.attention.named_parameters())
    parts = dict(small.attention.named_parameters())
    assert small.attention.num_exits == exits
    assert parts.keys() == {n for n in whole if kept(n, exits, kind)}
    assert all(parameter is whole[name] for name, parameter in parts.items())
    assert small.attention.bos_index == model.attention.bos_index
    assert small.attention.eos_index == model.attention.eos_index
    assert small.attention.vocab_size == VOCAB
    for training in (True, False):
        cut = model.train(training).truncated(exits).attention
        assert {module.training for module in cut.modules()} == {training}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"decoders": "each"},
            r"^attention_decoders: 'each'.*shared, separate",
        ),
        ({"bos_index": 2}, r"^bos_index, eos_index: 2 and 2 .* 1 and 6;"),
        ({"bos_index": 0}, r"^bos_index, eos_index: 0 and 2 .*blank"),
        ({"eos_index": 0}, r"^bos_index, eos_index: 1 and 0 "),
        ({"eos_index": VOCAB}, r"^bos_index, eos_index: 1 and 7 "),
        ({"bos_index": VOCAB}, r"^bos_index, eos_index: 7 and 2 "),
        ({"bos_index": -1}, r"^bos_index, eos_index: -1 and 2 "),
        ({"eos_index": -1}, r"^bos_index, eos_index: 1 and -1 "),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    """The message names the key and what it may be."""
    with pytest.raises(InputError, match=message):
        AttentionHeads(EXITS, 16, VOCAB, num_layers=1, nhead=2, **options)


def test_heads_must_fit_each_other() -> None:
    """Another number of exits, or another vocabulary than CTC's."""
    model = tiny_model(exit_layers=EXITS)
    with pytest.raises(InputError, match="^exit_layers: .*3 .* 2 heads"):
        EarlyExitModel(model.encoder, model.heads, tiny_attention())
    larger = CTCHeads(EXITS, 16, VOCAB + 2)
    with pytest.raises(InputError, match="^output_neurons: .* 9 .* 7; build"):
        EarlyExitModel(model.encoder, larger, tiny_attention("shared", EXITS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_are_fp32(dtype: torch.dtype) -> None:
    """Also under autocast: many of them are summed to a score."""
    enabled = dtype is not torch.float32
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        predicted: Tensor = heads_of("shared")(2, read(), TOKENS)
    assert predicted.dtype is torch.float32
