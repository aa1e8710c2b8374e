"""Attention heads: one decoder for all exits, or one for each.

Protects: that separate decoders are separate and a shared one is told where
it reads, that every part is trained by its own exit's loss alone and kept in
a truncated model; the cached steps of the beam search against teacher forcing
and SpeechBrain; that neither padded tokens nor padded frames say anything.

Axes: B utterances, K hypotheses of each, N = B K, S tokens, T frames, D width.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.attention import AttentionHeads, TokenDecoder
from speechbrain_ee.models.heads import ExitOutput
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
FRAMES = torch.tensor([9, 4, 6])
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def model_of(kind: str, seed: int = 0) -> EarlyExitModel:
    model = tiny_model(exit_layers=EXITS, attention=kind, seed=seed)
    shaken(model.attention, seed)
    return model


def read(seed: int = 0) -> ExitOutput:
    generator = torch.Generator().manual_seed(seed)
    return ExitOutput(
        log_probs_BTV=torch.zeros(2, 6, VOCAB),
        lengths_B=torch.tensor([6, 4]),
        layer=2,
        hidden_BTD=torch.randn(2, 6, 16, generator=generator),
    )


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


def kept(name: str, exits: int, kind: str) -> bool:
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


def tiny_decoder(seed: int = 0) -> TokenDecoder:
    decoder = TokenDecoder(VOCAB, 16, num_layers=2, nhead=4, d_ffn=24)
    return shaken(decoder.eval(), seed)


def drawn(seed: int, hypotheses: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens_NS = torch.randint(VOCAB, (3 * hypotheses, 7), generator=generator)
    memory_BTD = torch.randn(3, 9, 16, generator=generator)
    return tokens_NS, memory_BTD, torch.randn(16, generator=generator)


def whole(
    decoder: TokenDecoder, tokens_NS: Tensor, memory_BTD: Tensor, offset_D
) -> Tensor:
    hypotheses = len(tokens_NS) // len(memory_BTD)
    return decoder(
        tokens_NS,
        memory_BTD.repeat_interleave(hypotheses, 0),
        FRAMES.repeat_interleave(hypotheses),
        offset_D,
    )


@pytest.mark.parametrize("hypotheses", [1, 3])
@pytest.mark.parametrize(
    "chunks", [[1] * 7, [7], [3, 1, 3], [1, 6], [5, 2]], ids=str
)
@torch.no_grad()
def test_extended_equals_forward(chunks: list[int], hypotheses: int) -> None:
    """However the tokens arrive, for one hypothesis or several."""
    decoder = tiny_decoder()
    tokens_NS, memory_BTD, offset_D = drawn(hypotheses, hypotheses)
    state = decoder.start(memory_BTD, FRAMES, offset_D)
    assert state.length == 0
    pieces = []
    for chunk_NS in tokens_NS.split(chunks, dim=1):
        logits, looked_NST, state = decoder.extend(chunk_NS, state)
        pieces.append(logits)
        assert state.length == sum(piece.shape[1] for piece in pieces)
        assert looked_NST.shape == (*chunk_NS.shape, 9)
    expected = whole(decoder, tokens_NS, memory_BTD, offset_D)
    torch.testing.assert_close(torch.cat(pieces, 1), expected, **CLOSE)
    assert expected.std() > 0.1


@torch.no_grad()
def test_reordered_hypotheses_take_their_past_with_them() -> None:
    """Continued from others of the same utterance, some of them twice."""
    decoder = tiny_decoder()
    tokens_NS, memory_BTD, offset_D = drawn(1, hypotheses=3)
    index_N = torch.tensor([2, 0, 0, 3, 5, 4, 8, 8, 8])
    moved_NS = torch.cat([tokens_NS[index_N, :4], tokens_NS[:, 4:]], 1)
    start = decoder.start(memory_BTD, FRAMES, offset_D)
    _, _, state = decoder.extend(tokens_NS[:, :4], start)
    logits, _, _ = decoder.extend(tokens_NS[:, 4:], state.reordered(index_N))
    expected = whole(decoder, moved_NS, memory_BTD, offset_D)[:, 4:]
    torch.testing.assert_close(logits, expected, **CLOSE)
    # A state is a value: to continue it once more is to continue it anew.
    again, _, _ = decoder.extend(tokens_NS[:, 4:], state)
    expected = whole(decoder, tokens_NS, memory_BTD, offset_D)[:, 4:]
    torch.testing.assert_close(again, expected, **CLOSE)
    assert (again - logits).abs().max() > 0.01


@torch.no_grad()
def test_looked_is_speechbrains_attention() -> None:
    """The last layer's weights over the frames, nothing on padding."""
    decoder = tiny_decoder()
    tokens_BS, memory_BTD, offset_D = drawn(2)
    seen = {}
    decoder.decoder.register_forward_hook(
        lambda _, inputs, outputs: seen.update(weights=outputs[2][-1])
    )
    decoder(tokens_BS, memory_BTD, FRAMES, offset_D)
    state = decoder.start(memory_BTD, FRAMES, offset_D)
    _, looked_BST, _ = decoder.extend(tokens_BS, state)
    torch.testing.assert_close(looked_BST, seen["weights"], **CLOSE)
    torch.testing.assert_close(looked_BST.sum(-1), torch.ones(3, 7))
    assert looked_BST[1, :, 4:].abs().max() == 0


def speechbrains(decoder: TokenDecoder) -> TransformerASR:
    model = TransformerASR(
        tgt_vocab=VOCAB,
        input_size=5,
        d_model=16,
        nhead=4,
        num_encoder_layers=1,
        num_decoder_layers=2,
        d_ffn=24,
        activation=nn.GELU,
        attention_type="RelPosMHAXL",
        normalize_before=True,
        causal=False,
        encoder_module="conformer",
    ).eval()
    model.decoder.load_state_dict(decoder.decoder.state_dict())
    model.custom_tgt_module.layers[0].load_state_dict(
        decoder.embedding.state_dict()
    )
    return model


@torch.no_grad()
def test_equals_speechbrains_decode() -> None:
    """``TransformerASR.decode`` with the output layer behind it."""
    decoder = tiny_decoder()
    tokens_BS, memory_BTD, _ = drawn(3)
    hidden_BSD, _ = speechbrains(decoder).decode(tokens_BS, memory_BTD, FRAMES)
    torch.testing.assert_close(
        decoder(tokens_BS, memory_BTD, FRAMES),
        decoder.output(hidden_BSD),
        **CLOSE,
    )


@torch.no_grad()
def test_a_decoder_alone_and_in_a_batch() -> None:
    """Neither other utterances nor frames or tokens behind the end matter."""
    decoder = tiny_decoder()
    tokens_BS, memory_BTD, offset_D = drawn(4)
    counts = [7, 3, 5]
    longer_BTD = torch.cat([memory_BTD, 50 * torch.ones(3, 4, 16)], 1)
    for row, (frames, count) in enumerate(zip(FRAMES, counts)):
        longer_BTD[row, frames:] *= -9
        tokens_BS[row, count:] = 0
    batch = decoder(tokens_BS, longer_BTD, FRAMES, offset_D)
    state = decoder.start(longer_BTD, FRAMES, offset_D)
    stepped, _, _ = decoder.extend(tokens_BS, state)
    for row, (frames, count) in enumerate(zip(FRAMES, counts)):
        alone = decoder(
            tokens_BS[row : row + 1, :count],
            memory_BTD[row : row + 1, :frames],
            frames[None],
            offset_D,
        )[0]
        torch.testing.assert_close(batch[row, :count], alone, **CLOSE)
        torch.testing.assert_close(stepped[row, :count], alone, **CLOSE)
