"""Words of transcripts against a reading word by word.

Axes: N utterances, E exits, M words.

Authors
 * The speechbrain-ee contributors 2026
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from speechbrain_ee.exits.criteria.text import CharNgram
from speechbrain_ee.exits.evidence import Evidence, text_change
from speechbrain_ee.exits.selector.word_changes import Transcript
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


def transcript(text):
    return Transcript(MODEL.word_scores(text))


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
                yield {
                    "letters": len(word),
                    "spelling": spelling,
                    "spelling_total": totals[place],
                    "log_count": log_count,
                    "unseen": float(word not in MODEL.words),
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
                    "unseen_share": np.mean(
                        [w not in MODEL.words for w in words]
                    ),
                    "mean_spelling": sum(totals) / characters,
                    "worst_spelling": min(s for _, s, _ in scores),
                }


@given(hyps=TEXTS)
@settings(max_examples=60, deadline=None)
def test_features_as_word_by_word(hyps):
    evidence = evidence_of(hyps)
    table = WordReader(MODEL).table(evidence)
    rows = list(reference_rows(evidence))
    assert table.features_MF.shape == (len(rows), len(WORD_FEATURES))
    for name in WORD_FEATURES:
        expected = [row[name] for row in rows]
        assert table.feature(name) == pytest.approx(expected, abs=2e-6), name
    places = [
        (row, exit_)
        for row, texts in enumerate(hyps)
        for exit_, text in enumerate(texts)
        for _ in text.split()
    ]
    assert list(zip(table.utterance_M, table.exit_M)) == places


@given(before=TEXT, after=TEXT)
@settings(max_examples=100, deadline=None)
def test_alignment(before, after):
    earlier, here = transcript(before), transcript(after)
    changes = here.changes(earlier)
    mapped = [place for place in changes.equal if place >= 0]
    assert mapped == sorted(set(mapped))
    for place, source in enumerate(changes.equal):
        if source >= 0:
            assert earlier.words[source] == here.words[place]
            assert changes.edits[place] == 0
        else:
            assert changes.edits[place] > 0
    # nothing that stays in order is missed: at most that many were edited
    edited = max(len(earlier.words), len(here.words)) - len(mapped)
    assert edited <= 2 * Levenshtein.distance(earlier.words, here.words)
    assert here.changes(earlier) is changes
    same = here.changes(here)
    assert same.equal == list(range(len(here.words)))


def test_stability_counts_exits():
    hyps = [["a cat", "the cat", "the cat sat", "cat sat", ""]]
    table = WordReader(MODEL).table(evidence_of(hyps))
    stable = table.feature("stable_exits")
    counted = [stable[table.exit_M == exit_].tolist() for exit_ in range(5)]
    assert counted == [[0, 0], [0, 1], [1, 2, 0], [3, 1], []]


@given(hyps=TEXTS)
@settings(max_examples=30, deadline=None)
def test_an_utterance_alone_an_exit_alone_and_a_kept_reader(hyps):
    evidence = evidence_of(hyps)
    whole = WordReader(MODEL).table(evidence)
    kept = WordReader(MODEL)
    for row in range(len(hyps)):
        alone = WordReader(MODEL).table(evidence.select([row]))
        own = whole.select(whole.utterance_M == row)
        assert alone.features_MF.tolist() == own.features_MF.tolist()
        assert alone.exit_M.tolist() == own.exit_M.tolist()
    for exits in (1, 2, 3):
        part = kept.table(evidence.upto(exits), [exits - 1])
        own = whole.select(whole.exit_M == exits - 1)
        assert part.features_MF.tolist() == own.features_MF.tolist()
        assert part.utterance_M.tolist() == own.utterance_M.tolist()


@given(hyps=TEXTS, data=st.data())
@settings(max_examples=30, deadline=None)
def test_joined_restores_the_order(hyps, data):
    evidence = evidence_of(hyps)
    rows = data.draw(st.permutations(range(len(hyps))))
    cut = data.draw(st.integers(0, len(rows)))
    places = [np.array(sorted(part), int) for part in (rows[:cut], rows[cut:])]
    reader = WordReader(MODEL)
    parts = [reader.table(evidence.select(part)) for part in places]
    joined = WordTable.joined(parts, places)
    whole = reader.table(evidence)
    assert joined.features_MF.tolist() == whole.features_MF.tolist()
    assert joined.utterance_M.tolist() == whole.utterance_M.tolist()
    assert joined.exit_M.tolist() == whole.exit_M.tolist()


def test_totals_are_sums():
    hyps = [["a cat", "the", ""], ["", "", "the cat sat"]]
    table = WordReader(MODEL).table(evidence_of(hyps))
    values = np.arange(12.0).reshape(6, 2)
    totals = table.totals(values, (2, 3))
    assert totals[:, :, 0].tolist() == [[2, 4, 0], [0, 0, 24]]
    assert totals[:, :, 1].tolist() == [[4, 5, 0], [0, 0, 27]]


def test_without_words_or_entropy():
    none = WordReader(MODEL).table(evidence_of([["", " ", ""]]))
    assert none.features_MF.shape == (0, len(WORD_FEATURES))
    assert none.totals(np.zeros((0, 2)), (1, 3)).tolist() == [[[0, 0]] * 3]
    texts = Evidence(np.array([2]), ["u"], hyps=[["the cat"]])
    table = WordReader(MODEL).table(texts)
    assert table.feature("log_entropy").tolist() == [0, 0]


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("speechbrain_ee.exits.selector.words._REMEMBERED", 3)
    reader = WordReader(MODEL)
    hyps = [["a", "a cat", "the cat"], ["hat", "a hat", "the hat"]]
    first = reader.table(evidence_of(hyps))
    assert not reader._texts and not reader._stable
    again = reader.table(evidence_of(hyps))
    assert again.features_MF.tolist() == first.features_MF.tolist()


def test_memory_has_one_owner_and_is_bounded(monkeypatch):
    reader, first, second = WordReader(MODEL), object(), object()
    reader.memory(first)["the cat"] = 1
    assert reader.memory(first) == {"the cat": 1}
    assert reader.memory(second) == {}
    assert reader.memory(first) == {}
    monkeypatch.setattr("speechbrain_ee.exits.selector.words._REMEMBERED", 3)
    reader.memory(first).update(zip("abcd", "abcd"))
    assert reader.memory(first) == {}


@given(hyps=TEXTS)
@settings(max_examples=30, deadline=None)
def test_sums_and_chosen_utterances(hyps):
    evidence, reader = evidence_of(hyps), WordReader(MODEL)
    whole = reader.table(evidence)
    chosen = [row for row in range(len(hyps)) if row % 2 == 0]
    part = reader.table(evidence, [1], chosen)
    own = whole.select((whole.exit_M == 1) & (whole.utterance_M % 2 == 0))
    assert part.features_MF.tolist() == own.features_MF.tolist()
    assert part.utterance_M.tolist() == own.utterance_M.tolist()
    names = ("letters", "unseen", "spelling_total", "is_stable")
    for row in chosen:
        rows = own.utterance_M == row
        expected = [own.feature(name)[rows].sum() for name in names]
        worst = own.feature("worst_spelling")[rows].sum()
        found = reader.sums(hyps[row][:2])
        assert found == pytest.approx((rows.sum(), *expected, worst), abs=1e-4)


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
