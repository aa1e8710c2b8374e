"""Early-exit encoders: each layer once, no padding, the same decisions.

Authors
 * The speechbrain-ee contributors 2026
"""

import copy
import math
from types import SimpleNamespace

import pytest
import torch

from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.early_exit import (
    CRITERIA,
    CTCHeads,
    EarlyExitModel,
    EncoderState,
    ExitOutput,
    LogMel,
    MaskedConvolutionFrontEnd,
    MultiExitEncoder,
    SSLEncoder,
    cross_entropy,
    entropy,
    exit_scores,
    max_prob,
    patience,
)
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from speechbrain.processing.features import InputNormalization

TOLERANCE = 1e-5  # states and log-probabilities have unit scale
MELS, WIDTH, VOCAB, LAYERS, EXITS = 16, 16, 7, 4, (1, 2, 4)
STACKS = [
    ("conformer", "RelPosMHAXL"),
    ("conformer", "RoPEMHA"),
    ("conformer", "regularMHA"),
    ("branchformer", "RelPosMHAXL"),
    ("transformer", "regularMHA"),
]


def make_stack(encoder_module="conformer", attention_type="RelPosMHAXL"):
    """SpeechBrain's encoder stack, without dropout."""
    return TransformerASR(
        tgt_vocab=VOCAB,
        input_size=MELS,
        d_model=WIDTH,
        nhead=2,
        num_encoder_layers=LAYERS,
        num_decoder_layers=0,
        d_ffn=32,
        dropout=0.0,
        kernel_size=5,
        encoder_module=encoder_module,
        attention_type=attention_type,
        normalize_before=True,
        causal=False,
        csgu_linear_units=32,
    ).eval()


def make_model(stack=None, exit_layers=EXITS):
    """A whole model; a copy of the stack, whose layers are rebuilt."""
    torch.manual_seed(0)
    stack = copy.deepcopy(stack) if stack is not None else make_stack()
    encoder = MultiExitEncoder(
        LogMel(
            Fbank(n_mels=MELS),
            InputNormalization(norm_type="sentence", epsilon=0.001),
        ),
        MaskedConvolutionFrontEnd(
            (None, None, MELS),
            num_blocks=2,
            num_layers_per_block=1,
            out_channels=[6, 4],
            kernel_sizes=[3, 3],
            strides=[2, 2],
            dropout=0.0,
        ),
        stack,
        exit_layers,
    )
    model = EarlyExitModel(encoder, CTCHeads(exit_layers, WIDTH, VOCAB))
    with torch.no_grad():  # nothing at its initial zero or one
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return model.eval()


def make_batch(fill=0.0):
    """Three utterances of noise whose loudness varies; padding of anything."""
    torch.manual_seed(1)
    samples = [6400, 4000, 2161]
    wavs = torch.full((3, 6400), fill)
    for wav, count in zip(wavs, samples):
        loudness = torch.rand(17).repeat_interleave(400)[:count]
        wav[:count] = 0.2 * loudness * torch.randn(count)
    return wavs, torch.tensor(samples) / 6400, samples


def close(one, other, tolerance=TOLERANCE):
    """Same shape, and no element further apart than the tolerance."""
    assert one.shape == other.shape
    assert (one - other).abs().max() < tolerance
    return True


@pytest.mark.parametrize("stack", STACKS)
@torch.no_grad()
def test_alone_and_in_a_batch(stack):
    """An utterance gives the same at every exit, whatever is beside it."""
    model = make_model(make_stack(*stack))
    wavs, wav_lens, samples = make_batch()
    batched = model(wavs, wav_lens)
    other = model(make_batch(fill=0.5)[0], wav_lens)
    for row, count in enumerate(samples):
        alone = model(wavs[row : row + 1, :count], torch.ones(1))
        for mine, same, lone in zip(batched, other, alone):
            frames = int(lone.lengths[0])
            assert int(mine.lengths[row]) == frames == lone.log_probs.shape[1]
            close(mine.log_probs[row, :frames], lone.log_probs[0])
            close(same.log_probs[row, :frames], lone.log_probs[0])


@pytest.mark.parametrize("stack", STACKS)
@torch.no_grad()
def test_layer_by_layer_is_the_whole_stack(stack):
    """Without padding, and within zeros where the stack reflects."""
    stack = make_stack(*stack)
    encoder = make_model(stack, exit_layers=[1, 3, 4]).encoder
    stack.encoder.layers.load_state_dict(encoder.layers.state_dict())
    stack.custom_src_module.load_state_dict(
        encoder.input_projection.state_dict()
    )
    for layer in stack.encoder.layers:
        if hasattr(layer, "convolution_branch"):
            layer.convolution_branch.csgu.conv.padding_mode = "constant"
    wavs = make_batch()[0][:1]
    wav_lens = torch.ones(1)
    state = encoder.start(wavs, wav_lens)
    while state.depth < LAYERS:
        state = encoder.advance(state)
    features, lengths = encoder.front_end(*encoder.features(wavs, wav_lens))
    whole = stack.encode(features, lengths / features.shape[1])
    close(stack.encoder.norm(state.hidden), whole)


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_decisions_are_those_of_the_full_depth(criterion):
    """Live, an utterance stops where its scores say; nothing runs above."""
    model = make_model(exit_layers=(1, 2, 3, 4))
    wavs, wav_lens, _ = make_batch()
    with torch.no_grad():
        outputs = model(wavs, wav_lens)
    scores = torch.stack(
        [
            exit_scores(criterion, outputs[:exit]).double()
            for exit in range(1, 5)
        ],
        dim=1,
    )
    run = []
    for depth, layer in enumerate(model.encoder.layers, start=1):
        layer.register_forward_hook(
            lambda layer, inputs, out, depth=depth: run.append(
                (depth, len(inputs[0]))
            )
        )
    ordered = scores[:, :-1].flatten().unique()
    ordered = ordered[ordered.isfinite()]
    between = (ordered[1:] + ordered[:-1]) / 2  # away from rounding
    found = set()
    for threshold in [-math.inf, *between.tolist(), math.inf]:
        stop = scores >= threshold
        stop[:, -1] = True
        expected = stop.int().argmax(dim=1) + 1
        run.clear()
        decisions = model.decide(wavs, wav_lens, criterion, threshold)
        assert [exit for exit, _ in decisions] == expected.tolist()
        assert run == [
            (depth, int((expected >= depth).sum()))
            for depth in range(1, int(expected.max()) + 1)
        ]
        for row, (exit, log_probs) in enumerate(decisions):
            output = outputs[exit - 1]
            frames = int(output.lengths[row])
            close(log_probs, output.log_probs[row, :frames])
        found.update(expected.tolist())
    assert len(found) > 1


def test_unknown_criterion():
    """The error lists the known ones."""
    wavs, wav_lens, _ = make_batch()
    with pytest.raises(ValueError, match="entropy, max_prob, patience"):
        make_model().decide(wavs, wav_lens, "confidence", 0.5)


@pytest.mark.parametrize("layers", [[], [0, 2], [2, 2], [3, 1], [1, 9]])
def test_exit_layers_are_checked(layers):
    """They increase, within the layers that there are."""
    with pytest.raises(ValueError, match="between 1 and 4"):
        make_model(exit_layers=layers)


def test_select_keeps_rows_and_trims():
    """Rows by their number in the first batch; positions around zero."""
    state = EncoderState(
        torch.rand(3, 9, 4),
        torch.tensor([9, 5, 2]),
        torch.arange(3),
        2,
        positions=torch.arange(-8, 9).view(1, 17, 1),
    )
    short = state.select(torch.tensor([False, True, True]))
    assert torch.equal(short.hidden, state.hidden[1:, :5])
    assert short.rows.tolist() == [1, 2] and short.depth == 2
    assert short.positions.flatten().tolist() == list(range(-4, 5))


def test_heads_are_distinct_unless_tied():
    """All in the state, each learning by itself; tied ones share a matrix."""
    state = EncoderState(
        torch.rand(1, 3, 8), torch.tensor([3]), torch.arange(1), 4
    )
    heads = CTCHeads([2, 4], 8, 5)
    assert not torch.equal(heads(1, state).log_probs, heads(2, state).log_probs)
    heads(2, state).log_probs[..., 0].sum().backward()
    assert heads.projections[0].weight.grad is None
    tied = CTCHeads([2, 4], 8, 5, tied=True)
    assert torch.equal(tied(1, state).log_probs, tied(2, state).log_probs)
    assert len(heads.state_dict()) == 8 and len(tied.state_dict()) == 6


def make_output(probs, lengths=None):
    """An exit from its probabilities."""
    probs = torch.tensor(probs)
    lengths = torch.tensor(lengths or [probs.shape[1]] * len(probs))
    return ExitOutput(probs.log(), lengths, layer=1)


def test_measures_by_hand():
    """Padding does not count, nor does an exit that emits blanks alone."""
    output = make_output(
        [
            [[0.5, 0.5], [0.0, 1.0], [0.9, 0.1]],
            [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]],
        ],
        [2, 2],
    )
    log2 = math.log(2)
    close(entropy(output), torch.tensor([log2 / 4, log2 / 2]))
    close(max_prob(output), torch.tensor([0.75, 0.0]))
    earlier = make_output([[[0.2, 0.8], [0.0, 1.0], [1.0, 0.0]]] * 2)
    assert cross_entropy(output, earlier)[0].item() == pytest.approx(log2 / 2)
    assert cross_entropy(output, earlier)[1].item() > 80


def test_patience_by_hand(monkeypatch):
    """The smallest tau of the window rule, for windows of two and three."""
    table = {(1, 1): 0.3, (2, 1): 0.1, (3, 1): 0.2, (2, 2): 0.5, (3, 2): 0.4}
    outputs = [make_output([[[0.5, 0.5]]]) for _ in range(4)]
    places = {id(output): k for k, output in enumerate(outputs)}

    def distance(output, earlier):
        """From the table, by exit and lag."""
        k = places[id(output)]
        return torch.tensor([table[k, k - places[id(earlier)]]])

    monkeypatch.setattr(
        "speechbrain.lobes.models.early_exit.cross_entropy", distance
    )
    one = [-patience(outputs[:k], exits=1).item() for k in (1, 2, 3, 4)]
    assert one == pytest.approx([math.inf, 0.3, 0.1, 0.1])
    two = [-patience(outputs[:k], exits=2).item() for k in (1, 2, 3, 4)]
    assert two == pytest.approx([math.inf, math.inf, 0.5, 0.4])


def make_wav2vec2(style):
    """A tiny pre-trained model as SpeechBrain's interface holds it."""
    transformers = pytest.importorskip("transformers")
    large = style == "large"
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm="layer" if large else "group",
        do_stable_layer_norm=large,
        conv_bias=large,
    )
    model = transformers.Wav2Vec2Model(config).eval()
    return SimpleNamespace(model=model, normalize_wav=True)


@pytest.mark.parametrize("style", ["base", "large"])
@torch.no_grad()
def test_wav2vec2(style):
    """Its layers give transformers' states, alone and in a batch."""
    wav2vec2 = make_wav2vec2(style)
    encoder = SSLEncoder(wav2vec2, [1, 3, 4]).eval()
    wavs, wav_lens, samples = make_batch(fill=0.5)
    states = [encoder.start(wavs, wav_lens)]
    while states[-1].depth < LAYERS:
        states.append(encoder.advance(states[-1]))
    for row, count in enumerate(samples):
        wav = wavs[row : row + 1, :count]
        wav = (wav - wav.mean()) / (wav.var(unbiased=False) + 1e-7).sqrt()
        whole = wav2vec2.model(wav, output_hidden_states=True)
        for state in states:
            frames = int(state.lengths[row])
            hidden = state.hidden[row : row + 1, :frames]
            if state.depth < LAYERS:
                close(hidden, whole.hidden_states[state.depth])
            else:
                close(encoder.final_norm(hidden), whole.last_hidden_state)
