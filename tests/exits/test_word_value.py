"""Gains of words by hand and in sum; the networks that predict them.

Axes: N utterances, E exits, M words.

Authors
 * The speechbrain-ee contributors 2026
"""

import jiwer
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.exits.criteria.text import CharNgram
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.selector.word_value import WordValue, word_gains
from speechbrain_ee.exits.selector.words import (
    WORD_FEATURES,
    WordReader,
    WordTable,
)

MODEL = CharNgram.train(["the cat sat on the mat"])


def gains_of(ref, *texts):
    evidence = Evidence(np.arange(len(texts)) + 1, ["u"], hyps=[list(texts)])
    table = WordReader(MODEL).table(evidence)
    return word_gains(evidence, [ref], table), table


def test_gains_by_hand():
    gains_ME, _ = gains_of(
        "the cat sat", "the kat sat uh", "a cat", "The cat sat"
    )
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


WORDS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=7)


@given(ref=WORDS, texts=st.lists(WORDS, min_size=3, max_size=3))
@settings(max_examples=150, deadline=None)
def test_gains_add_up_to_errors(ref, texts):
    texts = [" ".join(text) for text in texts]
    gains_ME, table = gains_of(" ".join(ref), *texts)
    scored = [jiwer.process_words(" ".join(ref), text) for text in texts]
    for here, own in enumerate(scored):
        if own.deletions:
            continue  # a word that is not there has no row
        for there, other in enumerate(scored):
            total = gains_ME[table.exit_M == here, there].sum()
            expected = own.substitutions + own.insertions
            lost = other.substitutions + other.deletions
            assert total == expected - lost
        # words too many count as put right by every exit, this one included
        own_total = gains_ME[table.exit_M == here, here].sum()
        assert own_total == own.insertions


def random_table(rng, words=600, exits=3):
    features = rng.normal(size=(words, len(WORD_FEATURES))).astype(np.float32)
    return WordTable(
        features,
        np.sort(rng.integers(0, 50, words)),
        rng.integers(0, exits, words),
    )


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    table = random_table(rng, 4000)
    gains_ME = np.repeat(np.tanh(table.features_MF[:, [1]]), 3, axis=1)
    return table, gains_ME, WordValue.fit(table, gains_ME)


def test_learns_a_function_of_the_features(fitted):
    _, _, value = fitted
    unseen = random_table(np.random.default_rng(1))
    predicted_ME = value.predict(unseen)
    wanted_M = np.tanh(unseen.features_MF[:, 1])
    for exit_ in (1, 2):  # from the first exit to a later one
        rows = unseen.exit_M == 0
        found = np.corrcoef(predicted_ME[rows, exit_], wanted_M[rows])
        assert found[0, 1] > 0.95


def test_own_and_earlier_exits_teach_nothing(fitted):
    table, gains_ME, value = fitted
    wild_ME = gains_ME.copy()
    wild_ME[np.arange(3) <= table.exit_M[:, None]] = 1e3
    again = WordValue.fit(table, wild_ME)
    assert again.to_dict() == value.to_dict()


def test_predict_is_the_mean_of_the_networks(fitted):
    _, _, value = fitted
    table = random_table(np.random.default_rng(2), 5000)  # several chunks
    scaled = (table.features_MF - value.mean_F) / value.scale_F
    exits = np.eye(3, dtype=np.float32)[table.exit_M]
    inputs = np.concatenate([np.clip(scaled, -6, 6), exits], axis=1)
    with torch.inference_mode():
        each = [member(torch.from_numpy(inputs)) for member in value.members]
    mean_ME = torch.stack(each).mean(0).numpy()
    assert value.predict(table) == pytest.approx(mean_ME, abs=2e-6)


def test_totals(fitted):
    table, _, value = fitted
    totals_NEE = value.totals(table, (50, 3))
    predicted_ME = value.predict(table)
    rows = (table.utterance_M == 7) & (table.exit_M == 1)
    assert totals_NEE[7, 1] == pytest.approx(
        predicted_ME[rows].sum(0), abs=1e-4
    )


def test_seed_decides_and_callers_randomness_stays(fitted):
    table, gains_ME, value = fitted
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = WordValue.fit(table, gains_ME)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.to_dict() == value.to_dict()
    other = WordValue.fit(table, gains_ME, seed=1)
    assert other.to_dict() != value.to_dict()


def test_a_feature_that_never_varied_says_nothing():
    rng = np.random.default_rng(3)
    table = random_table(rng)
    table.features_MF[:, 4] = 0.3
    value = WordValue.fit(table, rng.normal(size=(600, 3)), members=1)
    changed = WordTable(
        table.features_MF.copy(), table.utterance_M, table.exit_M
    )
    changed.features_MF[:, 4] = 50.0
    assert value.predict(changed) == pytest.approx(
        value.predict(table), abs=1e-5
    )


def test_without_words():
    table = random_table(np.random.default_rng(0), 0)
    value = WordValue.fit(table, np.zeros((0, 3)))
    assert value.totals(table, (2, 3)).tolist() == np.zeros((2, 3, 3)).tolist()
    some = random_table(np.random.default_rng(0), 5)
    assert value.predict(some).tolist() == np.zeros((5, 3)).tolist()


def test_as_plain_values_and_back(fitted):
    table, _, value = fitted
    again = WordValue.from_dict(value.to_dict())
    assert again.predict(table).tolist() == value.predict(table).tolist()
