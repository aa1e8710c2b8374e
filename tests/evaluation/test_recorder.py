"""Records of a trace say what the exits said, however they were batched.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
import json
from collections.abc import Sequence
from functools import partial

import jiwer
import numpy as np
import pytest
import torch
from speechbrain.utils.metric_stats import ErrorRateStats

from speechbrain_ee.evaluation.cost import CostModel, DecodingCost
from speechbrain_ee.evaluation.recorder import Recorded, TraceRecorder
from speechbrain_ee.exits.criteria import get_measure, measure_all
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding import (
    Decoding,
    NBest,
    Scored,
    SearchOptions,
    greedy_tokens,
)
from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_file import read_trace, write_trace
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel
from tests.helpers import noise, padded, shaken, tiny_model

LETTERS = "_ABC "  # token 0 is the blank, token 4 a space
LAYERS = (2, 4, 7)
RATE = 8000
WORDS = "A B C AB BC CA ABC".split()
REFS = ["A B", "", "ABC CA", "B", "C C C"]
FRAMES = [9, 1, 14, 0, 6]
SAMPLES = [3600, 400, 5600, 40, 2401]
WHOLE = [[*range(5)]]


def decode(tokens: list[int]) -> str:
    """Tokens to text."""
    return "".join(LETTERS[token] for token in tokens)


def macs(samples: int) -> list[int]:
    """A cost that can be recognised."""
    return [samples * layer for layer in LAYERS]


def make_outputs(blank_index: int = 0) -> list[ExitOutput]:
    """Sharp random posteriors at three exits, garbage in the padding."""
    generator = torch.Generator().manual_seed(5)
    outputs = []
    for layer in LAYERS:
        logits_BTV = 3 * torch.randn(5, 14, len(LETTERS), generator=generator)
        lengths_B = torch.tensor(FRAMES)
        outputs.append(
            ExitOutput(
                logits_BTV.log_softmax(-1), lengths_B, layer, blank_index
            )
        )
    return outputs


def alone(output: ExitOutput, row: int) -> ExitOutput:
    """One utterance of a batch, without its padding."""
    frames = FRAMES[row]
    return ExitOutput(
        output.log_probs_BTV[row : row + 1, :frames],
        output.lengths_B[row : row + 1],
        output.layer,
        output.blank_index,
    )


def collapse(output: ExitOutput, row: int) -> list[int]:
    """CTC's rule, written as the papers tell it: merge, then drop blanks."""
    best = output.log_probs_BTV[row].argmax(-1).tolist()[: FRAMES[row]]
    merged = [token for token, _ in itertools.groupby(best)]
    return [token for token in merged if token != output.blank_index]


def recorder_of(outputs, batches, macs=macs, **options):
    """What has recorded the given batches of rows."""
    recorder = TraceRecorder("set", decode, macs, RATE, **options)
    for rows in batches:
        frames = max(FRAMES[row] for row in rows)
        parts = [
            ExitOutput(
                output.log_probs_BTV[rows, :frames],
                output.lengths_B[rows],
                output.layer,
                output.blank_index,
            )
            for output in outputs
        ]
        columns = [[each[row] for row in rows] for each in (REFS, SAMPLES)]
        recorder.append([f"u{row}" for row in rows], *columns, parts)
    return recorder


def edits(ref, hyp):
    """Word errors, for an empty reference, too, where jiwer has no answer."""
    if not ref or not hyp.split():
        return max(len(ref.split()), len(hyp.split()))
    result = jiwer.process_words(ref, hyp)
    return result.substitutions + result.deletions + result.insertions


@pytest.mark.parametrize("blank_index", [0, 3])
def test_records_equal_the_direct_computation(blank_index: int):
    """Hypothesis, evidence, cost, order of the exits, lengths."""
    outputs = make_outputs(blank_index)
    records = recorder_of(outputs, WHOLE).records
    assert [record.id for record in records] == [f"u{n}" for n in range(5)]
    for row, record in enumerate(records):
        assert (record.set, record.ref) == ("set", REFS[row])
        assert record.duration_s == SAMPLES[row] / RATE
        assert [exit_.layer for exit_ in record.exits] == list(LAYERS)
        assert [exit_.macs for exit_ in record.exits] == macs(SAMPLES[row])
        views: list[ExitView] = []
        for output, exit_ in zip(outputs, record.exits):
            own = alone(output, row)
            views.append(ExitView(own, tuple(views)))
            assert exit_.hyp == decode(collapse(output, row))
            assert exit_.errors == edits(REFS[row], exit_.hyp)
            assert exit_.hyp == decode(greedy_tokens(own)[0])
            expected = measure_all(views[-1])
            assert set(exit_.evidence) == set(expected)
            for name, value in expected.items():
                assert isinstance(exit_.evidence[name], float)
                assert exit_.evidence[name] == pytest.approx(
                    value.item(), rel=1e-5, abs=1e-7
                ), name
    assert any(
        len({exit_.hyp for exit_ in record.exits}) > 1 for record in records
    ), "exits that agree would hide a mix-up"


@pytest.mark.parametrize("seed", range(5))
def test_wer_of_the_trace_is_jiwers_and_speechbrains(seed, tmp_path):
    """At every exit, before and after a trip through the file."""
    draws = np.random.default_rng(seed)
    refs, *by_exit = (
        [" ".join(draws.choice(WORDS, draws.integers(k, 9))) for _ in range(40)]
        for k in (1, 0, 0, 0)
    )
    by_exit[-1][:30] = refs[:30]
    records = tuple(
        UtteranceRecord(
            f"u{n}",
            "set",
            ref,
            tuple(map(ExitRecord, LAYERS, [hyps[n] for hyps in by_exit])),
        )
        for n, ref in enumerate(refs)
    )
    header = TraceHeader("tiny", "greedy", LAYERS)
    path = tmp_path / "set.jsonl.gz"
    write_trace(path, header, records)
    for trace in (Trace(header, records), read_trace(path)):
        wer_E = 100 * trace.errors_NE.sum(axis=0) / trace.words_N.sum()
        edits_E3 = trace.edits_NE3.sum(axis=0)
        for k, hyps in enumerate(by_exit):
            stats = ErrorRateStats()
            split = [[text.split() for text in each] for each in (hyps, refs)]
            stats.append([*range(40)], *split)
            expected = stats.summarize()
            assert wer_E[k] == pytest.approx(expected["WER"], rel=1e-12)
            assert edits_E3[k].sum() == expected["num_edits"]
            rate = 100 * jiwer.wer(refs, hyps)
            assert wer_E[k] == pytest.approx(rate, rel=1e-12)
        assert 0 < wer_E[-1] < wer_E[0]


def test_plain_batches_make_the_same_records():
    """By way of JSON, in another recorder, and with nothing recorded."""
    outputs = make_outputs()
    recorder = recorder_of(outputs, [[4, 0, 2], [3, 1]])
    batches = json.loads(json.dumps(recorder.plain_batches()))
    assert [len(batch["ctc_greedy"]) for batch in batches] == [3, 2]
    other = recorder_of(outputs, [[1]])
    other.replace(batches)
    assert other.records == recorder.records
    assert other.plain_batches() == recorder.plain_batches()
    other.replace([])
    assert other.records == other.plain_batches() == []


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
BY_SEARCH = (
    "beam_score beam_posterior token_confidence token_confidence_min".split()
)


def assert_same(
    found: Sequence[UtteranceRecord], expected: Sequence[UtteranceRecord]
) -> None:
    """Equal records, up to the rounding of evidence in other batches."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        for name in ("id", "ref", "duration_s"):
            assert getattr(one, name) == getattr(other, name)
        for a, b in zip(one.exits, other.exits, strict=True):
            assert a.evidence == pytest.approx(b.evidence, rel=1e-5)
            for name in ("layer", "hyp", "errors", "macs", "greedy"):
                assert getattr(a, name) == getattr(b, name), name
            assert a.decoding_macs == b.decoding_macs


def test_every_decoding_has_records_of_its_own():
    outputs = make_outputs()
    recorder = recorder_of(outputs, WHOLE, decoders=DECODERS)
    greedy = recorder_of(outputs, WHOLE).records
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


@pytest.mark.parametrize("batches", [[[0, 1], [2, 3, 4]], [[4, 0, 2], [3, 1]]])
def test_batches_change_nothing(batches):
    """One batch, many, and another order: the same records."""
    outputs = make_outputs()
    whole = recorder_of(outputs, WHOLE, decoders=DECODERS)
    parts = recorder_of(outputs, batches, decoders=DECODERS)
    order = [*itertools.chain(*batches)]
    assert parts.cut == whole.cut
    for name, records in whole.by_decoding.items():
        assert_same(parts.by_decoding[name], [records[row] for row in order])


def test_without_a_cost_model_there_is_no_cost():
    recorder = recorder_of(make_outputs(), [[0, 2]], None, decoders=DECODERS)
    for record in recorder.records:
        for exit_ in record.exits:
            assert (exit_.macs, exit_.decoding_macs) == (None, None)


def test_some_exits_only():
    """Others are neither decoded nor recorded."""
    asked = []

    def noted(exit: int, output: ExitOutput) -> list[NBest]:
        asked.append((exit, output.layer))
        return reversed_path(exit, output)

    decoders = {"joint": Recorded(noted, search_macs)}
    outputs, rows = make_outputs(), WHOLE
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
def test_an_exit_is_the_model_that_ends_there(decoders: str):
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
