"""A decoder run token by token is the decoder run whole, and SpeechBrain's.

Protects: the cached steps of the beam search against teacher forcing, the
hypotheses that share an utterance's frames, and that neither padded tokens
nor padded frames say anything.

Axes: B utterances, K hypotheses of each, N = B K, S tokens, T frames, D width.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from torch import Tensor, nn

from speechbrain_ee.models.decoder import TokenDecoder
from tests.helpers import VOCAB, shaken

WIDTH = 16
FRAMES = torch.tensor([9, 4, 6])
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def tiny_decoder(seed: int = 0) -> TokenDecoder:
    """Two layers in evaluation mode, every parameter at work."""
    decoder = TokenDecoder(VOCAB, WIDTH, num_layers=2, nhead=4, d_ffn=24)
    return shaken(decoder.eval(), seed)


def drawn(seed: int, hypotheses: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (N, 7), frames (B, 9, D) and an offset (D,)."""
    generator = torch.Generator().manual_seed(seed)
    tokens_NS = torch.randint(VOCAB, (3 * hypotheses, 7), generator=generator)
    memory_BTD = torch.randn(3, 9, WIDTH, generator=generator)
    return tokens_NS, memory_BTD, torch.randn(WIDTH, generator=generator)


def whole(
    decoder: TokenDecoder, tokens_NS: Tensor, memory_BTD: Tensor, offset_D
) -> Tensor:
    """``forward``, with the frames repeated for every hypothesis."""
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
    """SpeechBrain's own model around the same weights."""
    model = TransformerASR(
        tgt_vocab=VOCAB,
        input_size=5,
        d_model=WIDTH,
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
def test_alone_equals_in_a_batch() -> None:
    """Neither other utterances nor frames or tokens behind the end matter."""
    decoder = tiny_decoder()
    tokens_BS, memory_BTD, offset_D = drawn(4)
    counts = [7, 3, 5]
    longer_BTD = torch.cat([memory_BTD, 50 * torch.ones(3, 4, WIDTH)], 1)
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


@pytest.mark.parametrize("place", [0, 3, 6])
@torch.no_grad()
def test_a_token_is_seen_from_its_place_on(place: int) -> None:
    """The prediction after it changes, those before keep their value."""
    decoder = tiny_decoder()
    tokens_BS, memory_BTD, offset_D = drawn(5)
    other_BS = tokens_BS.clone()
    other_BS[:, place] = (other_BS[:, place] + 1) % VOCAB
    one, two = (
        decoder(tokens, memory_BTD, FRAMES, offset_D)
        for tokens in (tokens_BS, other_BS)
    )
    torch.testing.assert_close(one[:, :place], two[:, :place], **CLOSE)
    changed_BS = (one - two).abs().amax(-1) > 1e-4
    assert changed_BS[:, place:].all()


@pytest.mark.parametrize("part", ["frames", "offset", "places"])
@torch.no_grad()
def test_everything_that_is_read_matters(part: str) -> None:
    """Other frames, another offset, the same token at another place."""
    decoder = tiny_decoder()
    tokens_BS, memory_BTD, offset_D = drawn(6)
    tokens_BS[:] = 4
    before = decoder(tokens_BS, memory_BTD, FRAMES, offset_D)
    if part == "places":
        after = before.roll(1, dims=1)
    elif part == "offset":
        after = decoder(tokens_BS, memory_BTD, FRAMES, offset_D.roll(1))
    else:
        after = decoder(tokens_BS, memory_BTD.roll(1, -1), FRAMES, offset_D)
    assert ((before - after).abs().amax(-1) > 1e-4).all()
