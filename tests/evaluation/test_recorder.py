"""Records of a trace say what the exits said, however they were batched.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
import json
from typing import Any

import jiwer
import numpy as np
import pytest
import torch
from speechbrain.utils.metric_stats import ErrorRateStats

from speechbrain_ee.evaluation.recorder import TraceRecorder
from speechbrain_ee.exits.criteria import measure_all
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_file import read_trace, write_trace
from speechbrain_ee.models.heads import ExitOutput

LETTERS = "_ABC "  # token 0 is the blank, token 4 a space
LAYERS = (2, 4, 7)
RATE = 8000
WORDS = "A B C AB BC CA ABC".split()
REFS = ["A B", "", "ABC CA", "B", "C C C"]
FRAMES = [9, 1, 14, 0, 6]
SAMPLES = [3600, 400, 5600, 40, 2401]


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


def recorded(outputs: list[ExitOutput], batches: list[list[int]]):
    """Records made of the given batches of rows."""
    return recorder_of(outputs, batches).records


def recorder_of(
    outputs: list[ExitOutput],
    batches: list[list[int]],
    macs: Any = macs,
    **options: Any,
) -> TraceRecorder:
    """What has recorded the given batches of rows."""
    recorder = TraceRecorder("set", decode, macs, RATE, **options)
    for rows in batches:
        frames = max(FRAMES[row] for row in rows)
        recorder.append(
            [f"u{row}" for row in rows],
            [REFS[row] for row in rows],
            [SAMPLES[row] for row in rows],
            [
                ExitOutput(
                    output.log_probs_BTV[rows, :frames],
                    output.lengths_B[rows],
                    output.layer,
                    output.blank_index,
                )
                for output in outputs
            ],
        )
    return recorder


@pytest.mark.parametrize("blank_index", [0, 3])
def test_records_equal_the_direct_computation(blank_index: int) -> None:
    """Hypothesis, evidence, cost, order of the exits, lengths."""
    outputs = make_outputs(blank_index)
    records = recorded(outputs, [[0, 1, 2, 3, 4]])
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


def test_batches_change_nothing() -> None:
    """One batch, many, and another order: the same records."""
    outputs = make_outputs()
    whole = {record.id: record for record in recorded(outputs, [[*range(5)]])}
    for batches in ([[0, 1], [2, 3, 4]], [[4, 0, 2], [3, 1]]):
        parts = recorded(outputs, batches)
        order = [f"u{row}" for row in itertools.chain(*batches)]
        assert [record.id for record in parts] == order
        for part in parts:
            same = whole[part.id]
            assert (part.ref, part.duration_s) == (same.ref, same.duration_s)
            for one, other in zip(part.exits, same.exits):
                assert (one.hyp, one.errors) == (other.hyp, other.errors)
                assert one.evidence == pytest.approx(other.evidence, rel=1e-6)


def test_errors_of_a_record_are_jiwers() -> None:
    """Also for an empty reference, where jiwer itself has no answer."""
    for record in recorded(make_outputs(), [[*range(5)]]):
        for exit_ in record.exits:
            if record.ref and exit_.hyp.split():
                result = jiwer.process_words(record.ref, exit_.hyp)
                expected = (
                    result.substitutions + result.deletions + result.insertions
                )
            else:
                longer = (record.ref, exit_.hyp)
                expected = max(len(text.split()) for text in longer)
            assert exit_.errors == expected


def test_without_a_cost_model_there_is_no_cost() -> None:
    recorder = TraceRecorder("set", decode)
    recorder.append([f"u{n}" for n in range(5)], REFS, SAMPLES, make_outputs())
    record = recorder.records[0]
    assert [exit_.macs for exit_ in record.exits] == [None] * 3
    assert record.duration_s == SAMPLES[0] / 16000


def random_texts(number: int, shortest: int, seed: int) -> list[str]:
    """Sentences of up to eight words."""
    rng = np.random.default_rng(seed)
    return [
        " ".join(rng.choice(WORDS, rng.integers(shortest, 9)))
        for _ in range(number)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_wer_of_the_trace_is_jiwers_and_speechbrains(
    seed: int, tmp_path
) -> None:
    """At every exit, before and after a trip through the file."""
    refs = random_texts(40, 1, seed)
    by_exit = [random_texts(40, 0, 100 * seed + layer) for layer in LAYERS]
    by_exit[-1][:30] = refs[:30]
    records = tuple(
        UtteranceRecord(
            f"u{n}",
            "set",
            ref,
            tuple(
                ExitRecord(layer, hyp=hyps[n])
                for layer, hyps in zip(LAYERS, by_exit)
            ),
        )
        for n, ref in enumerate(refs)
    )
    header = TraceHeader("tiny", "greedy", LAYERS)
    write_trace(tmp_path / "set.jsonl.gz", header, records)
    for trace in (
        Trace(header, records),
        read_trace(tmp_path / "set.jsonl.gz"),
    ):
        wer_E = 100 * trace.errors_NE.sum(axis=0) / trace.words_N.sum()
        edits_E3 = trace.edits_NE3.sum(axis=0)
        for k, hyps in enumerate(by_exit):
            expected = speechbrain_stats(refs, hyps)
            assert wer_E[k] == pytest.approx(expected["WER"], rel=1e-12)
            assert edits_E3[k].sum() == expected["num_edits"]
            assert wer_E[k] == pytest.approx(
                100 * jiwer.wer(refs, hyps), rel=1e-12
            )
        assert 0 < wer_E[-1] < wer_E[0]


def test_plain_batches_make_the_same_records() -> None:
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


def speechbrain_stats(refs: list[str], hyps: list[str]) -> dict:
    """SpeechBrain's own figures for the same hypotheses."""
    stats = ErrorRateStats()
    stats.append(
        [str(n) for n in range(len(refs))],
        [hyp.split() for hyp in hyps],
        [ref.split() for ref in refs],
    )
    return stats.summarize()
