"""Words of transcripts against a reading word by word, and what they are worth.

Axes: N utterances, E exits, M words.

Authors
 * The speechbrain-ee contributors 2026
"""

import math

import jiwer
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from speechbrain_ee.exits.criteria.text import CharNgram
from speechbrain_ee.exits.evidence import Evidence, text_change
from speechbrain_ee.exits.selector.value import WordValue, word_gains
from speechbrain_ee.exits.selector.words import (
    WORD_FEATURES,
    WordReader,
    WordTable,
)

MODEL = CharNgram.train(["the cat sat on the mat", "a hat for the cat"])
WORD = st.sampled_from(["the", "cat", "hat", "ca", "xq", "a"])
TEXT = st.lists(WORD, max_size=6).map(" ".join)
TEXTS = st.lists(st.lists(TEXT, min_size=3, max_size=3), min_size=1, max_size=4)


def evidence_of(hyps, seed=0):
    rng = np.random.default_rng(seed)
    exits = len(hyps[0])
    return Evidence(
        np.arange(2, 2 + 2 * exits, 2),
        [f"u{n}" for n in range(len(hyps))],
        {"entropy": rng.random((len(hyps), exits))},
        hyps,
    )


def table_of(evidence, reader=None, columns=None):
    reader = reader or WordReader(MODEL)
    columns = range(evidence.shape[1]) if columns is None else columns
    return WordTable.of(
        evidence,
        (
            (row, column, reader.read(tuple(texts[: column + 1])))
            for row, texts in enumerate(evidence.hyps)
            for column in columns
        ),
    )


def column(table, name):
    return table.features_MF[:, WORD_FEATURES.index(name)]


def same(one, other):
    for name in ("features_MF", "utterance_M", "exit_M"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()


def reference_rows(evidence):
    """Features of every word, by name, one at a time."""
    for row, texts in enumerate(evidence.hyps):
        stable = []
        for exit_, text in enumerate(texts):
            words = text.split()
            scores = MODEL.word_scores(text)
            old = [(word, *score[1:]) for word, score in zip(words, scores)]
            before = [-1] * len(words)
            edits = [0.0 if exit_ == 0 else 1.0] * len(words)
            if exit_:
                earlier = texts[exit_ - 1].split()
                earlier_scores = MODEL.word_scores(texts[exit_ - 1])
                for tag, a, b, c, _ in Levenshtein.opcodes(earlier, words):
                    for step in range(
                        b - a if tag in ("equal", "replace") else 0
                    ):
                        place = c + step
                        if tag == "replace":
                            old[place] = earlier_scores[a + step]
                        edits[place] = Levenshtein.distance(
                            earlier[a + step], words[place]
                        ) / len(earlier[a + step])
                        if tag == "equal":
                            before[place] = a + step
            stable = [stable[b] + 1 if b >= 0 else 0 for b in before]
            characters = sum(len(word) + 1 for word in words)
            totals = [(len(w) + 1) * s for w, s, _ in scores]
            log_E = np.log(evidence.column("entropy")[row] + 1e-9)
            for place, (word, spelling, log_count) in enumerate(scores):
                previous = scores[place - 1] if place else ("", 0.0, 8.0)
                last = place + 1 == len(words)
                following = ("", 0.0, 8.0) if last else scores[place + 1]
                unseen = [w not in MODEL.words for w in words]
                yield {
                    "letters": len(word),
                    "spelling": spelling,
                    "spelling_total": totals[place],
                    "log_count": log_count,
                    "unseen": float(unseen[place]),
                    "stable_exits": stable[place],
                    "is_stable": float(stable[place] > 0),
                    "change": edits[place],
                    "spelling_gain": spelling - old[place][1],
                    "log_count_gain": log_count - old[place][2],
                    "spelling_before": previous[1],
                    "log_count_before": previous[2],
                    "spelling_after": following[1],
                    "log_count_after": following[2],
                    "place": place / len(words),
                    "log_words": math.log(len(words)),
                    "log_entropy": log_E[exit_],
                    "log_entropy_earlier": log_E[max(exit_ - 1, 0)],
                    "unstable_share": np.mean([s == 0 for s in stable]),
                    "unseen_share": np.mean(unseen),
                    "mean_spelling": sum(totals) / characters,
                    "worst_spelling": min(s for _, s, _ in scores),
                }


@given(hyps=TEXTS)
@settings(max_examples=40, deadline=None)
def test_features_as_word_by_word(hyps):
    evidence, reader = evidence_of(hyps), WordReader(MODEL)
    table = table_of(evidence, reader)
    rows = list(reference_rows(evidence))
    assert table.features_MF.shape == (len(rows), len(WORD_FEATURES))
    for name in WORD_FEATURES:
        expected = [row[name] for row in rows]
        assert column(table, name) == pytest.approx(expected, abs=2e-6), name
    places = [
        (row, exit_)
        for row, texts in enumerate(hyps)
        for exit_, text in enumerate(texts)
        for _ in text.split()
    ]
    assert list(zip(table.utterance_M, table.exit_M)) == places
    summed = "letters", "unseen", "spelling_total", "is_stable"
    for row, texts in enumerate(hyps):
        own = table.select((table.utterance_M == row) & (table.exit_M == 1))
        words = [column(own, n).sum() for n in (*summed, "worst_spelling")]
        expected = (len(own.exit_M), *words)
        found = reader.read(tuple(texts[:2])).sums()
        assert found == pytest.approx(expected, abs=1e-4)


def test_stability_counts_exits():
    hyps = [["a cat", "the cat", "the cat sat", "cat sat", ""]]
    table = table_of(evidence_of(hyps))
    stable = column(table, "stable_exits")
    counted = [stable[table.exit_M == exit_].tolist() for exit_ in range(5)]
    assert counted == [[0, 0], [0, 1], [1, 2, 0], [3, 1], []]


@given(hyps=TEXTS)
@settings(max_examples=30, deadline=None)
def test_an_utterance_alone_an_exit_alone_and_a_kept_reader(hyps):
    evidence = evidence_of(hyps)
    whole, kept = table_of(evidence), WordReader(MODEL)
    for row in range(len(hyps)):
        own = whole.select(whole.utterance_M == row)
        alone = table_of(evidence.select([row]))
        same(alone, WordTable(own.features_MF, own.utterance_M * 0, own.exit_M))
    for exit_ in range(3):
        part = table_of(evidence.upto(exit_ + 1), kept, [exit_])
        same(part, whole.select(whole.exit_M == exit_))


def test_sums_and_totals():
    hyps = [["a cat", "the", ""], ["", "", "the cat sat"]]
    table = table_of(evidence_of(hyps))
    values = np.arange(12.0).reshape(6, 2)
    totals = table.totals(values, (2, 3))
    assert totals[:, :, 0].tolist() == [[2, 4, 0], [0, 0, 24]]
    assert totals[:, :, 1].tolist() == [[4, 5, 0], [0, 0, 27]]
    assert table.sums(values, 2).tolist() == totals.sum(1).tolist()


def test_without_words_or_entropy():
    none = table_of(evidence_of([["", " ", ""]]))
    assert none.features_MF.shape == (0, len(WORD_FEATURES))
    assert none.totals(np.zeros((0, 2)), (1, 3)).tolist() == [[[0, 0]] * 3]
    texts = Evidence(np.array([2]), ["u"], hyps=[["the cat"]])
    assert column(table_of(texts), "log_entropy").tolist() == [0, 0]
    value = WordValue.fit(none, np.zeros((0, 3)))
    assert value.predict(table_of(texts)).tolist() == np.zeros((2, 3)).tolist()


def test_memory_is_bounded(monkeypatch):
    evidence = evidence_of([["a", "a cat", "the cat"], ["hat", "a hat", "a"]])
    whole = table_of(evidence)
    monkeypatch.setattr("speechbrain_ee.exits.selector.words._REMEMBERED", 2)
    reader = WordReader(MODEL)
    for _ in range(2):
        same(table_of(evidence, reader), whole)
        assert len(reader._read) <= 2


def test_a_word_s_score_is_that_of_its_place(monkeypatch):
    monkeypatch.setattr("speechbrain_ee.exits.criteria.text._WORDS", 3)
    for order in (1, 2, 5, 10):
        model = CharNgram.train(["the cat sat on the mat", "a cat"], order)
        for text in ("cat the cat", "A  cat", "xcat cat", "cat", "", "t cat"):
            log_probs, start = model.log_probs(text), 0
            for word, spelling, log_count in model.word_scores(text):
                stop = start + len(word) + 1
                assert spelling == pytest.approx(log_probs[start:stop].mean())
                assert log_count == math.log1p(model.words.get(word, 0))
                start = stop
        assert len(model._scores) <= 6


@given(before=TEXT, after=TEXT)
@settings(max_examples=50, deadline=None)
def test_text_change_as_evidence_has_it(before, after):
    change_NE = evidence_of([[before, after]]).change_NE(1)
    assert text_change(before, after) == change_NE[0, 1]


def gains_of(ref, *texts):
    evidence = Evidence(np.arange(len(texts)) + 1, ["u"], hyps=[list(texts)])
    return word_gains(evidence, [ref])


def test_gains_by_hand():
    gains_ME = gains_of("the cat sat", "the kat sat uh", "a cat", "The cat sat")
    assert gains_ME.tolist() == [
        # the kat sat uh
        [0, -1, 0],
        [0, 1, 1],
        [0, -1, 0],
        [1, 1, 1],  # nobody said it: any exit may be without
        # a cat
        [1, 0, 1],
        [-1, 0, 0],
        # The cat sat
        [0, -1, 0],
        [-1, 0, 0],
        [0, -1, 0],
    ]


SAID = st.lists(st.sampled_from("abcd"), min_size=1, max_size=7)


@given(ref=SAID, texts=st.lists(SAID, min_size=3, max_size=3))
@settings(max_examples=100, deadline=None)
def test_gains_add_up_to_errors(ref, texts):
    texts = [" ".join(text) for text in texts]
    gains_ME = gains_of(" ".join(ref), *texts)
    exit_M = np.repeat(range(3), [len(text.split()) for text in texts])
    scored = [jiwer.process_words(" ".join(ref), text) for text in texts]
    for here, own in enumerate(scored):
        if own.deletions:
            continue  # a word that is not there has no row
        for there, other in enumerate(scored):
            total = gains_ME[exit_M == here, there].sum()
            expected = own.substitutions + own.insertions
            lost = other.substitutions + other.deletions
            assert total == expected - lost
        # words too many count as put right by every exit, this one included
        assert gains_ME[exit_M == here, here].sum() == own.insertions


def random_table(seed, words=600, exits=3):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(words, len(WORD_FEATURES))).astype(np.float32)
    rows = np.sort(rng.integers(0, 50, words))
    return WordTable(features, rows, rng.integers(0, exits, words))


@pytest.fixture(scope="module")
def fitted():
    table = random_table(0, 4000)
    gains_ME = np.repeat(np.tanh(table.features_MF[:, [1]]), 3, axis=1)
    return table, gains_ME, WordValue.fit(table, gains_ME)


def test_learns_a_function_of_the_features(fitted):
    unseen = random_table(1)
    predicted_ME = fitted[2].predict(unseen)
    wanted_M = np.tanh(unseen.features_MF[:, 1])
    rows = unseen.exit_M == 0
    for exit_ in (1, 2):  # from the first exit to a later one
        found = np.corrcoef(predicted_ME[rows, exit_], wanted_M[rows])
        assert found[0, 1] > 0.95


def test_seed_decides_own_and_earlier_exits_teach_nothing(fitted):
    table, gains_ME, value = fitted
    wild_ME = gains_ME.copy()
    wild_ME[np.arange(3) <= table.exit_M[:, None]] = 1e3
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = WordValue.fit(table, wild_ME)
    assert torch.equal(torch.get_rng_state(), state)
    predicted = value.predict(table).tolist()
    assert again.predict(table).tolist() == predicted
    other = WordValue.fit(table, gains_ME, seed=1)
    assert other.predict(table).tolist() != predicted


def test_predict_is_the_mean_of_the_networks(fitted):
    value, table = fitted[2], random_table(2, 5000)  # several chunks
    scaled = (table.features_MF - value.mean) / value.scale
    exits = np.eye(3)[table.exit_M]
    inputs = np.concatenate([np.clip(scaled, -6, 6), exits], axis=1)
    each = []
    for member in value.members:
        hidden = torch.from_numpy(inputs)
        for layer in "024":
            if layer != "0":
                hidden = torch.nn.functional.silu(hidden)
            weight, bias = (member[f"{layer}.{p}"] for p in ("weight", "bias"))
            hidden = hidden @ torch.tensor(weight).double().T
            hidden += torch.tensor(bias)
        each.append(hidden)
    mean_ME = torch.stack(each).mean(0).numpy()
    assert value.predict(table) == pytest.approx(mean_ME, abs=2e-6)


def test_a_feature_that_never_varied_says_nothing():
    table, changed = random_table(3), random_table(3)
    table.features_MF[:, 4], changed.features_MF[:, 4] = 0.3, 50.0
    gains_ME = np.random.default_rng(3).normal(size=(600, 3))
    value = WordValue.fit(table, gains_ME)
    expected = value.predict(table)
    assert value.predict(changed) == pytest.approx(expected, abs=1e-5)
