"""Records of several decodings from one pass: what each found and cost.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
from collections.abc import Sequence
from functools import partial

import jiwer
import numpy as np
import pytest
import torch

from speechbrain_ee.evaluation.cost import CostModel, DecodingCost
from speechbrain_ee.evaluation.recorder import Recorded, TraceRecorder
from speechbrain_ee.exits.criteria import get_measure
from speechbrain_ee.exits.decoding import NBest, Scored, greedy_tokens
from speechbrain_ee.exits.decoding.methods import Decoding
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.exits.trace import UtteranceRecord
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel
from tests.evaluation.test_recorder import (
    FRAMES,
    REFS,
    alone,
    macs,
    make_outputs,
    recorded,
    recorder_of,
)
from tests.helpers import noise, padded, shaken, tiny_model


def reversed_path(exit: int, output: ExitOutput) -> list[NBest]:
    """A search: the greedy path backwards; a long one is cut."""
    return [
        NBest(
            (
                Scored(
                    tuple(tokens[::-1]),
                    -float(len(tokens)),
                    (-0.5,) * (len(tokens) + 1),
                    complete=len(tokens) < 4,
                ),
            ),
            steps=len(tokens),
        )
        for tokens in greedy_tokens(output)
    ]


def search_macs(exit: int, frames: int, found: NBest) -> int:
    """A cost that can be recognised."""
    return 1000 * exit + 100 * frames + found.steps


DECODERS = {
    "joint": Recorded(reversed_path, search_macs),
    "ctc_greedy": None,
    "ctc_beam": Recorded(reversed_path, lambda *_: 3, has_evidence=False),
}
BY_SEARCH = "beam_score beam_posterior token_confidence".split()
BY_SEARCH.append("token_confidence_min")


def assert_same(
    found: Sequence[UtteranceRecord], expected: Sequence[UtteranceRecord]
) -> None:
    """Equal records, up to the rounding of evidence in other batches."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert (one.id, one.ref) == (other.id, other.ref)
        for a, b in zip(one.exits, other.exits, strict=True):
            assert a.evidence == pytest.approx(b.evidence, rel=1e-5)
            for name in ("layer", "hyp", "errors", "macs", "greedy"):
                assert getattr(a, name) == getattr(b, name), name
            assert a.decoding_macs == b.decoding_macs


def test_every_decoding_has_records_of_its_own() -> None:
    outputs = make_outputs()
    recorder = recorder_of(outputs, [[*range(5)]], decoders=DECODERS)
    greedy = recorded(outputs, [[*range(5)]])
    assert list(recorder.by_decoding) == list(DECODERS)
    assert recorder.records is recorder.by_decoding["joint"]
    # the path that was always there is as it was, cost included
    assert_same(recorder.by_decoding["ctc_greedy"], greedy)
    cut = 0
    for name in ("joint", "ctc_beam"):
        for row, record in enumerate(recorder.by_decoding[name]):
            for exit, exit_ in enumerate(record.exits, start=1):
                plain = greedy[row].exits[exit - 1]
                (nbest,) = reversed_path(exit, alone(outputs[exit - 1], row))
                assert exit_.greedy == plain.hyp
                assert exit_.hyp == plain.hyp[::-1]
                assert exit_.errors == edits(REFS[row], exit_.hyp)
                spent = 3
                if name == "joint":
                    spent = search_macs(exit, FRAMES[row], nbest)
                    cut += len(nbest.tokens) >= 4
                assert exit_.decoding_macs == spent
                assert exit_.macs == plain.macs + spent
                expected = dict(plain.evidence)
                if name == "joint":
                    said = len(nbest.tokens)
                    expected |= dict.fromkeys(BY_SEARCH[2:], np.exp(-0.5))
                    expected["beam_posterior"] = 1.0
                    ended = nbest.best.complete
                    expected["beam_score"] = -said / max(said + ended, 1)
                    if not said:
                        expected |= dict.fromkeys(BY_SEARCH[1:], 0.0)
                        expected["beam_score"] = -100.0
                assert exit_.evidence == pytest.approx(expected, rel=1e-5)
    assert 0 < cut < 15
    assert recorder.cut == {"joint": cut, "ctc_greedy": 0, "ctc_beam": cut}


def edits(ref: str, hyp: str) -> int:
    """Word errors, for an empty reference, too."""
    if not ref or not hyp.split():
        return max(len(ref.split()), len(hyp.split()))
    result = jiwer.process_words(ref, hyp)
    return result.substitutions + result.deletions + result.insertions


@pytest.mark.parametrize("batches", [[[0, 1], [2, 3, 4]], [[4, 0, 2], [3, 1]]])
def test_batches_change_no_decoding(batches: list[list[int]]) -> None:
    outputs = make_outputs()
    whole = recorder_of(outputs, [[*range(5)]], decoders=DECODERS)
    parts = recorder_of(outputs, batches, decoders=DECODERS)
    order = [*itertools.chain(*batches)]
    assert parts.cut == whole.cut
    for name, records in whole.by_decoding.items():
        assert_same(parts.by_decoding[name], [records[row] for row in order])


def test_some_exits_only() -> None:
    """Others are neither decoded nor recorded."""
    asked = []

    def noted(exit: int, output: ExitOutput) -> list[NBest]:
        asked.append((exit, output.layer))
        return reversed_path(exit, output)

    decoders = {"joint": Recorded(noted, search_macs)}
    outputs, rows = make_outputs(), [[*range(5)]]
    some = recorder_of(
        outputs,
        rows,
        lambda samples: macs(samples)[1:],
        decoders=decoders,
        exits=(2, 3),
    )
    assert asked == [(2, 4), (3, 7)]
    whole = recorder_of(outputs, rows, decoders=DECODERS)
    for one, other in zip(some.records, whole.records, strict=True):
        # the first one recorded has no earlier one to compare with
        assert one.exits[0].evidence.keys() == other.exits[0].evidence.keys()
        for a, b in zip(one.exits, other.exits[1:], strict=True):
            for name in ("layer", "hyp", "macs", "greedy", "decoding_macs"):
                assert getattr(a, name) == getattr(b, name)
            for name in a.evidence:
                if not get_measure(name).earlier:
                    assert a.evidence[name] == b.evidence[name], name


def test_a_search_without_a_cost_model_has_no_cost() -> None:
    outputs = make_outputs()
    recorder = recorder_of(outputs, [[0, 2]], None, decoders=DECODERS)
    for record in recorder.records:
        for exit_ in record.exits:
            assert (exit_.macs, exit_.decoding_macs) == (None, None)


def joint_recorder(model: EarlyExitModel) -> TraceRecorder:
    """Joint decoding of a real model's exits, with its cost."""
    options = SearchOptions(beam_size=3)
    decoder = Recorded(
        Decoding("joint", model, options),
        partial(DecodingCost(model, options).macs, "joint"),
    )
    return TraceRecorder(
        "set",
        lambda tokens: " ".join(map(str, tokens)),
        CostModel(model).macs,
        decoders={"joint": decoder},
    )


@pytest.mark.parametrize("decoders", ["shared", "separate"])
def test_an_exit_is_the_model_that_ends_there(decoders: str) -> None:
    """Joint decoding, what it costs and what it shows, bit for bit."""
    model = shaken(tiny_model(attention=decoders), by=0.2)
    for decoder in model.attention.decoders:
        with torch.no_grad():
            decoder.output.weight *= 4
    wavs, wav_lens = padded([noise(9000, 1), noise(6000, 2)])
    kept = {}
    for exits in (1, 2):
        part = model.truncated(exits)
        recorder = joint_recorder(part)
        with torch.no_grad():
            outputs = part(wavs, wav_lens)
        recorder.append("ab", ["3", "4 5"], [9000, 6000], outputs)
        kept[exits] = recorder.records
    for small, whole in zip(kept[1], kept[2], strict=True):
        assert small.exits == whole.exits[:1]
        assert whole.exits[0].hyp != whole.exits[1].hyp
