"""The closed-form cost of decoding equals what is counted, and who pays it.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from speechbrain.decoders.ctc import CTCPrefixScore
from torch.utils.flop_counter import FlopCounterMode

from speechbrain_ee.evaluation.decoding_cost import DecodingCost
from speechbrain_ee.evaluation.operating_point import criterion_macs
from speechbrain_ee.exits import ExitRecord, Trace, TraceHeader, UtteranceRecord
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.decoding.beam_search import NBest, Scored
from speechbrain_ee.exits.decoding.methods import Decoding
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.heads import ExitOutput
from tests.helpers import shaken

FRAMES = 9
SIZES = [
    {"decoders": "shared", "num_layers": 1, "d_model": 8, "d_ffn": 12},
    {"decoders": "shared", "num_layers": 3, "d_model": 12, "d_ffn": 32},
    {"decoders": "separate", "num_layers": 2, "d_model": 16, "d_ffn": 8},
]


def model_of(vocab: int = 7, **sizes: Any) -> SimpleNamespace:
    """What a search sees of a model."""
    torch.manual_seed(0)
    attention = AttentionHeads([2, 4], vocab_size=vocab, nhead=2, **sizes)
    shaken(attention.eval())
    for decoder in attention.decoders:
        with torch.no_grad():
            decoder.output.bias[attention.eos_index] -= 2.0  # say something
    return SimpleNamespace(
        attention=attention,
        heads=SimpleNamespace(vocab_size=vocab),
    )


def output_of(model: SimpleNamespace, frames: int = FRAMES) -> ExitOutput:
    """One utterance at an exit."""
    generator = torch.Generator().manual_seed(1)
    width = model.attention.norms[0].normalized_shape[0]
    logits = torch.randn(1, frames, model.heads.vocab_size, generator=generator)
    return ExitOutput(
        (2 * logits).log_softmax(-1),
        torch.tensor([frames]),
        layer=2,
        hidden_BTD=torch.randn(1, frames, width, generator=generator),
    )


def counted(
    decoding: Decoding, exit: int, output: ExitOutput
) -> tuple[NBest, int]:
    """What was found, and the products of matrices that it took."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        (found,) = decoding(exit, output)
    return found, counter.get_total_flops() // 2


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("sizes", SIZES)
def test_search_with_the_attention_head_alone(sizes, beam):
    model, options = model_of(**sizes), SearchOptions(beam_size=beam)
    cost = DecodingCost(model, options)
    decoding = Decoding("attention", model, options)
    for exit, frames in ((1, 3), (2, FRAMES)):
        found, macs = counted(decoding, exit, output_of(model, frames))
        assert found.steps > 1
        assert cost.macs("attention", exit, frames, found) == macs
        assert cost.decoder(exit, frames, found.steps, beam) == macs


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("sizes", SIZES)
def test_rescoring_reads_all_hypotheses_at_once(sizes, beam):
    model, options = model_of(**sizes), SearchOptions(beam_size=beam)
    cost = DecodingCost(model, options)
    found, macs = counted(
        Decoding("rescoring", model, options), 2, output_of(model)
    )
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

    def counting(
        self: Any, tokens: Any, states: Any, candidates: Any, attn: Any = None
    ) -> Any:
        per_hypothesis = 7 if candidates is None else candidates.shape[1]
        looked.append(len(tokens) * per_hypothesis)
        return step(self, tokens, states, candidates, attn)

    monkeypatch.setattr(CTCPrefixScore, "forward_step", counting)
    model = model_of(**sizes)
    options = SearchOptions(beam_size=3, scorer_beam_scale=scale)
    cost = DecodingCost(model, options)
    found, macs = counted(
        Decoding("joint", model, options), 1, output_of(model)
    )
    assert len(looked) == found.steps
    prefixes = 4 * FRAMES * sum(looked)
    assert cost.macs("joint", 1, FRAMES, found) == macs + prefixes


def test_the_greedy_path_is_free_and_a_search_is_not():
    cost = DecodingCost(model_of(**SIZES[0]))
    found = NBest((Scored((3,), 0.0),), steps=2)
    assert cost.macs("ctc_greedy", 1, FRAMES, found) == 0
    assert cost.macs("ctc_beam", 1, 2 * FRAMES, found) == 2 * cost.macs(
        "ctc_beam", 1, FRAMES, found
    )
    by_steps = [
        cost.macs("joint", 1, FRAMES, replace(found, steps=steps))
        for steps in (1, 2, 3)
    ]
    assert 0 < by_steps[0] < by_steps[1] < by_steps[2]


def searched(decodes: bool = True, told: bool = True) -> Trace:
    """Forty utterances at four exits, each decoded at its own price."""
    generator = np.random.default_rng(0)
    records = []
    for n in range(40):
        exits = []
        for layer in (2, 4, 6, 8):
            spent = int(generator.integers(1, 1000)) if decodes else None
            score = float(generator.random())
            evidence = {"beam_score": score, "entropy": 1 - score}
            exits.append(
                ExitRecord(
                    layer,
                    "a",
                    None,
                    evidence,
                    10_000 * layer + (spent or 0),
                    "b",
                    spent,
                )
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
    trace = searched(told=told)
    cost_NE = criterion_macs(trace, get_criterion(name))
    spent_NE = trace.macs_NE + cost_NE
    for row, record in enumerate(trace.records):
        for taken in range(4):
            # encoder and heads, and the search at the exit taken
            exit_ = record.exits[taken]
            macs = 10_000 * exit_.layer + exit_.decoding_macs
            for passed in range(taken):
                if name == "beam_score":
                    macs += record.exits[passed].decoding_macs
            if told and name == "entropy":
                # nothing is decided at the last exit
                decisions = min(taken + 1, 3)
                macs += decisions * math.ceil(25 * record.duration_s) * 30
            assert spent_NE[row, taken] == macs


def test_without_searches_there_is_nothing_to_pay():
    trace = searched(decodes=False)
    assert trace.decoding_macs_NE is None
    cost_NE = criterion_macs(trace, get_criterion("beam_score"))
    assert np.broadcast_to(cost_NE, (40, 4)).sum() == 0
