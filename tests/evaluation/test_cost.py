"""The closed-form costs equal what is counted, and who pays them.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from speechbrain.decoders.ctc import CTCPrefixScore
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from speechbrain_ee.evaluation.cost import (
    CostModel,
    DecodingCost,
    convolution_macs,
    criterion_macs,
    parameter_count,
    start_cost,
)
from speechbrain_ee.exits import ExitRecord, Trace, TraceHeader, UtteranceRecord
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.decoding import Decoding, NBest, Scored, SearchOptions
from speechbrain_ee.models import pretrained
from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.encoder import MultiExitEncoder
from speechbrain_ee.models.features import LogMel
from speechbrain_ee.models.heads import CTCHeads, ExitOutput
from speechbrain_ee.models.layerwise import LayerwiseEncoder
from speechbrain_ee.models.masking import MaskedConvolutionFrontEnd
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.pretrained import Backbone
from tests.helpers import noise, padded, shaken
from tests.models.pretrained_models import MODELS as FAMILIES
from tests.models.pretrained_models import pretrained_model, write_model
from tests.models.ssl_models import (
    MODELS,
    ssl_model,
    transformers,
    write_ssl_model,
)

KINDS = [
    ("conformer", "RelPosMHAXL"),
    ("conformer", "RoPEMHA"),
    ("conformer", "regularMHA"),
    ("branchformer", "RelPosMHAXL"),
    ("branchformer", "regularMHA"),
    ("transformer", "regularMHA"),
]
EXITS = (1, 2, 4)
FRAMES = 9
SIZES = [
    {"decoders": "shared", "num_layers": 1, "d_model": 8, "d_ffn": 12},
    {"decoders": "shared", "num_layers": 3, "d_model": 12, "d_ffn": 32},
    {"decoders": "separate", "num_layers": 2, "d_model": 16, "d_ffn": 8},
]


def build(kind="conformer", attention="RelPosMHAXL"):
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


def counted(run):
    """What a function gives, and half of PyTorch's count of operations."""
    counter = FlopCounterMode(display=False)
    # Only the unfused kernel is counted on a CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        found = run()
    return found, counter.get_total_flops() // 2


def counted_macs(model, samples):
    return counted(lambda: model(torch.rand(1, samples), torch.ones(1)))[1]


def fourier(cost, samples):
    """The part that PyTorch does not count."""
    frames = samples // 160 + 1
    return cost.start.features(frames) - frames * 201 * 40


@pytest.mark.parametrize("samples", [8000, 16037])
@pytest.mark.parametrize("kind,attention", KINDS)
def test_closed_form_equals_count(kind, attention, samples):
    model = build(kind, attention)
    cost = CostModel(model)
    for exits in (1, 2):
        predicted = cost.macs(samples)[exits - 1] - fourier(cost, samples)
        assert predicted == counted_macs(model.truncated(exits), samples)


@pytest.mark.parametrize("exits", [(1,), (2,), (1, 2)])
def test_heads_that_are_not_read_cost_nothing(exits):
    model = build()
    cost, some = CostModel(model), CostModel(model, exits)
    skipped = 0 if 1 in exits else cost.head(1, cost.frames(8000))
    whole = dict(enumerate(cost.macs(8000), start=1))
    assert some.macs(8000) == tuple(
        whole[exit] - (skipped if exit == 2 else 0) for exit in exits
    )

    def walk():
        state = model.start(torch.rand(1, 8000), torch.ones(1))
        for exit in exits:
            state, _ = model.walk(state, exit)

    assert some.macs(8000)[-1] - fourier(cost, 8000) == counted(walk)[1]
    wanted = tuple(cost.parameters()[exit - 1] for exit in exits)
    assert some.parameters() == wanted


@pytest.mark.parametrize("decoders", ["shared", "separate", None])
def test_parameters_of_truncated_models(decoders):
    """Of each kind of head one, that of the exit."""
    model = build("conformer", "regularMHA")
    macs = CostModel(model).macs(8000)
    if decoders:
        model.attention = AttentionHeads(
            [1, 4], 16, 11, decoders=decoders, num_layers=2, nhead=2, d_ffn=24
        )
    expected = []
    for exit in (1, 2):
        part = model.truncated(exit)
        total = parameter_count(part)
        for other in range(exit - 1):
            unused = [part.heads.norms[other], part.heads.projections[other]]
            if decoders:
                unused.append(part.attention.norms[other])
            if decoders == "separate":
                unused.append(part.attention.decoders[other])
            elif decoders:
                total -= part.attention.places[other].numel()
            total -= sum(map(parameter_count, unused))
        expected.append(total)
    assert CostModel(model).parameters() == tuple(expected)
    # decoding is charged by itself
    assert CostModel(model).macs(8000) == macs


@pytest.mark.parametrize("kernel", [16, 15])
@pytest.mark.parametrize("name", MODELS, ids="-".join)
def test_closed_form_of_pretrained_encoders(tmp_path, name, kernel):
    """Every exit; even and odd kernels of the positions; any length."""
    folder = write_ssl_model(tmp_path, *name, num_conv_pos_embeddings=kernel)
    model = ssl_model(folder, EXITS)
    cost = CostModel(model)
    for samples in (100, 400, 719, 16037):
        for exits in (1, 2, 3):
            macs = counted_macs(model.truncated(exits), samples)
            assert cost.macs(samples)[exits - 1] == macs
        states = model.encoder(*padded([noise(samples, 1)]))
        assert cost.frames(samples) == states[0].hidden_BTD.shape[1]
    for exit in (1, 2, 3):
        # parameters are those that a loss at that exit alone reaches
        part = model.truncated(exit)
        part.zero_grad()
        output = part(*padded([noise(3000, 1)]))[-1]
        output.log_probs_BTV.square().sum().backward()
        reached = [p.numel() for p in part.parameters() if p.grad is not None]
        assert cost.parameters()[exit - 1] == sum(reached)


@pytest.mark.parametrize("name", FAMILIES)
def test_closed_form_of_every_family(tmp_path, name):
    """At every exit, Fourier transforms aside."""
    model = pretrained_model(write_model(tmp_path, name), EXITS)
    cost = CostModel(model)
    features = getattr(model.encoder, "features", None)
    for samples in (1, 719, 16037):
        uncounted = 0
        if features is not None:
            bands, n_fft = features.bands(samples), features.n_fft
            uncounted = bands * round(2 * n_fft * math.log2(n_fft))
        for exits in (1, 2, 3):
            macs = counted_macs(model.truncated(exits), samples)
            assert cost.macs(samples)[exits - 1] - uncounted == macs
    for exit in (1, 2, 3):
        part = model.truncated(exit)
        total = parameter_count(part) - parameter_count(part.encoder.final_norm)
        for other in range(exit - 1):
            total -= parameter_count(part.heads.norms[other])
            total -= parameter_count(part.heads.projections[other])
        assert cost.parameters()[exit - 1] == total


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("method", ["signal", "convolution", "pooling"])
def test_down_sampling(tmp_path, method, factor):
    """Counted with its filter; a fraction of the cost without it."""
    folder = write_ssl_model(tmp_path)
    options = {"method": method, "factor": factor}
    model = ssl_model(folder, EXITS, downsampling=options)
    cost, plain = CostModel(model), CostModel(ssl_model(folder, EXITS))
    for samples in (20, 1439, 7200, 7201):
        assert cost.macs(samples)[-1] == counted_macs(model, samples)
        states = model.encoder(*padded([noise(samples, 1)]))
        assert cost.frames(samples) == states[0].hidden_BTD.shape[1]
    macs = cost.macs(48000)[-1] - cost.start.downsampling(48000)[0]
    assert macs < plain.macs(48000)[-1] / factor
    learned = 81 + 1 if method == "convolution" else 0
    for one, other in zip(cost.parameters(), plain.parameters()):
        assert one - other == learned


@pytest.mark.parametrize(
    "head", ["two_layer", "feed_forward", "self_attention"]
)
@pytest.mark.parametrize("tied", ["separate", "projection", "all"])
def test_heads_with_bodies(tmp_path, head, tied):
    """A body is run, and counted, at every exit that is passed."""
    model = ssl_model(write_ssl_model(tmp_path), EXITS)
    linear = CostModel(model).parameters()
    options = {"tied": tied, "head": head, "width": 8, "nhead": 2}
    model.heads = CTCHeads(EXITS, 16, 7, **options).eval()
    cost = CostModel(model)
    for exits in (1, 2, 3):
        macs = counted_macs(model.truncated(exits), 9000)
        assert cost.macs(9000)[exits - 1] == macs
        body = parameter_count(model.heads.body(exits))
        change = body + 8 * 7 + 7 - (16 * 7 + 7)
        assert cost.parameters()[exits - 1] - linear[exits - 1] == change


def test_unknown_kinds_are_not_guessed():
    with pytest.raises(TypeError, match="LayerwiseEncoder"):
        start_cost(LayerwiseEncoder([nn.Identity()], [1]))


def test_published_size_of_a_base_model(monkeypatch):
    """wav2vec2-base: 94.4 million parameters; a third of the MACs in the CNN.

    The weights of the model are shapes alone, on PyTorch's meta device.
    """
    with torch.device("meta"):
        config = transformers.Wav2Vec2Config(layerdrop=0.0)
        model = transformers.AutoModel.from_config(config)
    backbone = Backbone(model, transformers.Wav2Vec2FeatureExtractor())
    monkeypatch.setattr(pretrained, "load_backbone", lambda *_: backbone)
    cost = CostModel(ssl_model("base", (12,)))
    # The embedding of masked frames is not loaded; the head has 7 tokens.
    loaded = cost.parameters()[0] - 2 * 768 - (768 * 7 + 7)
    assert loaded + 768 == 94_371_712
    samples = frames = 10 * 16000
    macs = 0
    for layer in cost.encoder.convolutions.conv_layers:
        more, frames = convolution_macs(layer.conv, frames)
        macs += more
    assert round(cost.macs(samples)[0] / 1e9) == 74
    assert round(100 * macs / cost.macs(samples)[0]) == 33


def model_of(vocab=7, **sizes):
    """What a search sees of a model."""
    torch.manual_seed(0)
    attention = AttentionHeads([2, 4], vocab_size=vocab, nhead=2, **sizes)
    shaken(attention.eval())
    for decoder in attention.decoders:
        with torch.no_grad():
            decoder.output.bias[attention.eos_index] -= 2.0  # say something
    heads = SimpleNamespace(vocab_size=vocab)
    return SimpleNamespace(attention=attention, heads=heads)


def searched_by(way, options, sizes, exit=2, frames=FRAMES):
    """Cost model, what was found, and the products of matrices it took."""
    model = model_of(**sizes)
    draws = torch.Generator().manual_seed(1)
    width = model.attention.norms[0].normalized_shape[0]
    logits_BTV = 2 * torch.randn(1, frames, 7, generator=draws)
    output = ExitOutput(
        logits_BTV.log_softmax(-1),
        torch.tensor([frames]),
        layer=2,
        hidden_BTD=torch.randn(1, frames, width, generator=draws),
    )
    decoding = Decoding(way, model, options)
    (found,), macs = counted(lambda: decoding(exit, output))
    return DecodingCost(model, options), found, macs


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("sizes", SIZES)
def test_search_with_the_attention_head_alone_and_rescoring(sizes, beam):
    options = SearchOptions(beam_size=beam)
    for exit, frames in ((1, 3), (2, FRAMES)):
        given = "attention", options, sizes, exit, frames
        cost, found, macs = searched_by(*given)
        assert found.steps > 1
        assert cost.macs("attention", exit, frames, found) == macs
        assert cost.decoder(exit, frames, found.steps, beam) == macs
    # rescoring reads all hypotheses at once
    cost, found, macs = searched_by("rescoring", options, sizes)
    assert len(found.hypotheses) == beam
    assert found.steps == 1 + max(len(h.tokens) for h in found.hypotheses)
    by_ctc = cost.macs("ctc_beam", 2, FRAMES, found)
    assert cost.macs("rescoring", 2, FRAMES, found) - by_ctc == macs
    assert by_ctc == FRAMES * (7 + beam * min(beam, 7))


@pytest.mark.parametrize(
    ("sizes", "scale"),
    [(SIZES[0], 0.1), (SIZES[0], 20.0), (SIZES[1], 1.5), (SIZES[2], 1.5)],
)
def test_joint_search_adds_the_prefix_scores(sizes, scale, monkeypatch):
    """Four operations for each frame, hypothesis and candidate looked at."""
    looked = []
    step = CTCPrefixScore.forward_step

    def counting(self, tokens, states, candidates, attn=None):
        per_hypothesis = 7 if candidates is None else candidates.shape[1]
        looked.append(len(tokens) * per_hypothesis)
        return step(self, tokens, states, candidates, attn)

    monkeypatch.setattr(CTCPrefixScore, "forward_step", counting)
    options = SearchOptions(beam_size=3, scorer_beam_scale=scale)
    cost, found, macs = searched_by("joint", options, sizes, exit=1)
    assert len(looked) == found.steps
    prefixes = 4 * FRAMES * sum(looked)
    assert cost.macs("joint", 1, FRAMES, found) == macs + prefixes


def test_the_greedy_path_is_free_and_a_search_is_not():
    cost = DecodingCost(model_of(**SIZES[0]))
    found = NBest((Scored((3,), 0.0),), steps=2)
    assert cost.macs("ctc_greedy", 1, FRAMES, found) == 0
    once, twice = (cost.macs("ctc_beam", 1, n * FRAMES, found) for n in (1, 2))
    assert twice == 2 * once
    by_steps = [
        cost.macs("joint", 1, FRAMES, replace(found, steps=steps))
        for steps in (1, 2, 3)
    ]
    assert 0 < by_steps[0] < by_steps[1] < by_steps[2]


def searched(told=True):
    """Forty utterances at four exits, each decoded at its own price."""
    generator = np.random.default_rng(0)
    records = []
    for n in range(40):
        exits = []
        for layer in (2, 4, 6, 8):
            spent = int(generator.integers(1, 1000))
            score = float(generator.random())
            evidence = {"beam_score": score, "entropy": 1 - score}
            macs = 10_000 * layer + spent
            exits.append(
                ExitRecord(layer, "a", None, evidence, macs, "b", spent)
            )
        duration_s = float(generator.uniform(1, 9))
        records.append(
            UtteranceRecord(f"u{n}", "s", "a", tuple(exits), duration_s)
        )
    extra = {"vocab_size": 30, "frames_per_s": 25.0} if told else {}
    return Trace(TraceHeader("m", "joint", (2, 4, 6, 8), **extra), (*records,))


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("name", ["beam_score", "entropy"])
def test_who_looks_at_searches_pays_for_each_of_them_once(name, told):
    trace = searched(told)
    cost_NE = criterion_macs(trace, get_criterion(name))
    spent_NE = trace.macs_NE + cost_NE
    for row, record in enumerate(trace.records):
        for taken in range(4):
            # encoder and heads, and the search at the exit taken
            exit_ = record.exits[taken]
            macs = 10_000 * exit_.layer + exit_.decoding_macs
            if name == "beam_score":
                macs += sum(e.decoding_macs for e in record.exits[:taken])
            if told and name == "entropy":
                # nothing is decided at the last exit
                decisions = min(taken + 1, 3)
                macs += decisions * math.ceil(25 * record.duration_s) * 30
            assert spent_NE[row, taken] == macs
