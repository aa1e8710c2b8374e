"""Plausibility of transcripts: evidence, criteria, real exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.criteria.ngram import EDGE, CharNgram
from speechbrain_ee.exits.criteria.text import (
    FLOOR,
    add_plausibility,
    measure_texts,
)
from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_file import read_trace, write_trace

TEXTS = ["the cat sat on the mat", "a hat for the cat", "the cat ate"]
HYPS = [["th c t", "the cta", "the cat"], ["", "a ht", "a hat"]]


@pytest.fixture
def model():
    return CharNgram.train(TEXTS)


def trace_of(hyps):
    layers = (2, 4, 6)
    records = tuple(
        UtteranceRecord(
            f"u{row}",
            "test",
            "the cat",
            tuple(
                ExitRecord(
                    layer,
                    hyp=hyp,
                    errors=0 if hyp is None else None,
                    evidence={"entropy": 0.1},
                )
                for layer, hyp in zip(layers, texts)
            ),
        )
        for row, texts in enumerate(hyps)
    )
    return Trace(TraceHeader("tiny", "greedy", layers), records)


def test_evidence_of_a_trace(model, tmp_path):
    trace = add_plausibility(trace_of(HYPS), model)
    plausibility_NE = trace.evidence_NE("plausibility")
    unseen_NE = trace.evidence_NE("unseen_words")
    for row, texts in enumerate(HYPS):
        for place, text in enumerate(texts):
            if text:
                expected = model.log_probs(text).mean()
                assert plausibility_NE[row, place] == pytest.approx(expected)
    assert unseen_NE.tolist() == [[1.0, 0.5, 0.0], [1.0, 0.5, 0.0]]
    assert plausibility_NE[1, 0] == FLOOR
    assert trace.evidence_NE("entropy").tolist() == [[0.1] * 3] * 2
    write_trace(tmp_path / "t.jsonl", trace.header, trace.records)
    again = read_trace(tmp_path / "t.jsonl").evidence_NE("plausibility")
    assert again.tolist() == plausibility_NE.tolist()


def test_adding_twice_changes_nothing(model):
    once = add_plausibility(trace_of(HYPS), model)
    assert add_plausibility(once, model) == once


def test_a_batch_changes_nothing(model):
    texts = [text for row in HYPS for text in row] * 2
    together = measure_texts(texts, model)
    for place, text in enumerate(texts):
        for name, values in measure_texts([text], model).items():
            assert together[name][place] == values[0]
    assert measure_texts([], model)["plausibility"].shape == (0,)


@pytest.mark.parametrize("empty", ["", "  "])
def test_empty_transcript_is_the_least_ready(model, empty):
    least = {k: v[0] for k, v in measure_texts([empty], model).items()}
    for text in ["#" * 50, "the cat", "qqqq", "á é í ó ú ý æ ß ð þ"]:
        measured = measure_texts([text], model)
        assert measured["plausibility"][0] > least["plausibility"]
        assert measured["unseen_words"][0] <= least["unseen_words"]


def test_nothing_is_below_the_floor():
    counts = {EDGE + "a": 10**12, "a" + EDGE: 10**12}
    frequent = CharNgram(2, counts, {"a": 10**12})
    assert frequent.per_char("b" * 50) < FLOOR
    measured = measure_texts(["b" * 50], frequent)
    assert measured["plausibility"].tolist() == [FLOOR]


def test_criteria_prefer_what_reads_well(model):
    evidence = add_plausibility(trace_of(HYPS), model).evidence
    for name in ("plausibility", "unseen_words"):
        chosen = get_criterion(name)
        assert chosen.available(evidence.names) and chosen.needs == (name,)
        scores_NE = chosen.scores(evidence)
        assert (np.diff(scores_NE) > 0).all()
        part_NE = chosen.scores(evidence.upto(2))
        assert part_NE.tolist() == scores_NE[:, :2].tolist()


def test_trace_without_transcripts(model):
    with pytest.raises(InputError, match="no transcripts"):
        add_plausibility(trace_of([[None] * 3]), model)


def test_foreign_language_is_reported(model, caplog):
    with caplog.at_level(logging.WARNING):
        add_plausibility(trace_of(HYPS), model)
        assert not caplog.records
        add_plausibility(trace_of([["le chat dort"] * 3]), model)
    assert "100 % of the words at the last exit" in caplog.text


def test_real_exits_read_better_with_depth(shared_folder):
    path = shared_folder / "traces" / "wav2vec2-ee.greedy.jsonl.gz"
    trace = read_trace(path)
    other = [r.ref for r in trace.records if r.set == "test-other"]
    model = CharNgram.train(other)
    clean = trace.subset("test-clean")
    evidence = add_plausibility(clean, model).evidence
    assert (np.diff(evidence.column("plausibility").mean(0)) > 0).all()
    assert (np.diff(evidence.column("unseen_words").mean(0)) < 0).all()
    # Within one exit, what reads worse holds more errors.
    rate_N = clean.errors_NE[:, 2] / clean.words_N
    value_N = evidence.column("plausibility")[:, 2]
    assert np.corrcoef(rate_N, value_N)[0, 1] < -0.3
