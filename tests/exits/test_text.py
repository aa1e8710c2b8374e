"""Plausibility of transcripts: the character n-gram model, its file, criteria.

Authors
 * The speechbrain-ee contributors 2026
"""

import gzip
import json
import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import text as module
from speechbrain_ee.exits.criteria.text import (
    EDGE,
    FLOOR,
    CharNgram,
    add_plausibility,
    measure_texts,
    read_ngram,
    write_ngram,
)
from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_file import read_trace, write_trace

TEXTS = ["the cat sat", "the hat", "a cat ate the hat", "at the sea"]


texts_of_three = st.lists(st.text("ab ", max_size=8), min_size=1, max_size=5)


def by_the_book(texts, context, character):
    """Witten-Bell, straight from the formula, by counting in the texts."""
    lines = [EDGE + " ".join(text.split()) + EDGE for text in texts]

    def after(history):
        return [
            line[place]
            for line in lines
            for place in range(1, len(line))
            if line[:place].endswith(history)
        ]

    if context is None:
        return 1 / (len(set(after(""))) + 1)
    shorter = None if context == "" else context[1:]
    found, rest = after(context), by_the_book(texts, shorter, character)
    kinds = len(set(found))
    if not found:
        return rest
    return (found.count(character) + kinds * rest) / (len(found) + kinds)


@settings(max_examples=60, deadline=None)
@given(
    texts_of_three.filter(lambda texts: any(t.strip() for t in texts)),
    st.integers(1, 4),
    st.text("abz ", max_size=5),
)
def test_formula(texts, order, said):
    model = CharNgram.train([text.upper() for text in texts], order)
    line, expected = EDGE + " ".join(said.split()) + EDGE, []
    for place in range(1, len(line)):
        context = line[max(place - order + 1, 0) : place] if order > 1 else ""
        expected.append(math.log(by_the_book(texts, context, line[place])))
    assert model.log_probs(said) == pytest.approx(expected)
    assert model.per_char(f" {said.upper()}\n") == pytest.approx(
        np.mean(expected)
    )


def test_words():
    model = CharNgram.train(TEXTS)
    assert model.unseen_words("the cat zat on") == 0.5
    assert model.unseen_words(" ") == 1.0
    scores = model.word_scores("the  zat")
    assert [word for word, _, _ in scores] == ["the", "zat"]
    assert [count for _, _, count in scores] == [math.log(5), 0.0]
    total = sum(mean * (len(word) + 1) for word, mean, _ in scores)
    assert total == pytest.approx(sum(model.log_probs("the zat")))
    assert scores[0][1] > scores[1][1]
    assert model.word_scores("") == []


def test_memory_is_bounded_and_changes_nothing(monkeypatch):
    texts = ["zebra xylophone", "quick brown", "zebra xylophone"]
    expected = [CharNgram.train(TEXTS).per_char(text) for text in texts]
    monkeypatch.setattr(module, "_MEMO", 5)
    model = CharNgram.train(TEXTS)
    assert [model.per_char(text) for text in texts] == expected
    assert len(model._memo) <= 5


def test_file_keeps_the_model(tmp_path):
    for name, texts in (("a", TEXTS), ("b", TEXTS[::-1])):
        write_ngram(tmp_path / name, CharNgram.train([*texts, "größe"]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = read_ngram(tmp_path / "a")
    write_ngram(tmp_path / "c", again)
    assert (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()
    model = CharNgram.train([*TEXTS, "größe"])
    for text in ("the cat", "größen", ""):
        assert again.per_char(text) == model.per_char(text)


def test_models_that_cannot_be(model):
    for order in (0, 11):
        with pytest.raises(InputError, match=f"order={order} .* 1 to 10"):
            CharNgram.train(TEXTS, order)
    with pytest.raises(InputError, match="no character"):
        CharNgram.train(["", " "])
    with pytest.raises(InputError, match="no transcripts"):
        add_plausibility(trace_of([[None] * 3]), model)


GOOD = {
    "schema": "char-ngram/1",
    "order": 2,
    "grams": {"\na": 1, "a\n": 1},
    "words": {"a": 1},
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema": "char-ngram/2"}, "schema"),
        ({"order": 0}, "order"),
        ({"order": True}, "order"),
        ({"order": "2"}, "order"),
        ({"grams": []}, "grams"),
        ({"grams": {}}, "grams"),
        ({"grams": {"\na": 0}}, r"(?s)grams.*: 0 does not fit"),
        ({"grams": {"\na": 1.0}}, r"(?s)grams.*: 1.0 does not fit"),
        ({"grams": {"abc": 1}}, "'abc'"),
        ({"grams": {"a": 1}}, "'a'"),
        ({"order": 3, "grams": {"a\nb": 1}}, "grams: .* is no sequence"),
        ({"words": None}, "words"),
        ({"words": {"a": "1"}}, "words.a: '1'"),
        ({"extra": 1}, "extra: not known; valid keys: order, grams"),
    ],
)
def test_malformed_content(tmp_path, change, named):
    path = tmp_path / "model.json.gz"
    path.write_bytes(gzip.compress(json.dumps(GOOD | change).encode()))
    with pytest.raises(InputError, match=named) as caught:
        read_ngram(path)
    assert str(path) in str(caught.value)


SAID = ["the cat sat on the mat", "a hat for the cat", "the cat ate"]


HYPS = [["th c t", "the cta", "the cat"], ["", "a ht", "a hat"]]


@pytest.fixture
def model():
    return CharNgram.train(SAID)


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
                expected = np.mean(model.log_probs(text))
                assert plausibility_NE[row, place] == pytest.approx(expected)
    assert unseen_NE.tolist() == [[1.0, 0.5, 0.0], [1.0, 0.5, 0.0]]
    assert plausibility_NE[1, 0] == FLOOR
    assert trace.evidence_NE("entropy").tolist() == [[0.1] * 3] * 2
    write_trace(tmp_path / "t.jsonl", trace.header, trace.records)
    again = read_trace(tmp_path / "t.jsonl").evidence_NE("plausibility")
    assert again.tolist() == plausibility_NE.tolist()


@pytest.mark.parametrize("empty", ["", "  "])
def test_empty_transcript_is_the_least_ready(model, empty):
    least = {k: v[0] for k, v in measure_texts([empty], model).items()}
    for text in ["#" * 50, "the cat", "qqqq", "á é í ó ú ý æ ß ð þ"]:
        measured = measure_texts([text], model)
        assert measured["plausibility"][0] > least["plausibility"]
        assert measured["unseen_words"][0] <= least["unseen_words"]


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
