"""What a kept reader remembers of transcripts, and for whom.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

import pytest

from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.selector.words import WordReader
from tests.exits.selector_trace import synthetic_trace


@pytest.fixture(scope="module")
def dev():
    return synthetic_trace(100)


@pytest.fixture(scope="module")
def other():
    return synthetic_trace(40, seed=1)


@pytest.fixture(scope="module")
def selector(dev):
    return LearnedSelector.fit(dev)


def test_a_kept_reader_remembers_for_one_selector(selector, dev, other):
    reader = WordReader(selector.language_model)
    twin = replace(
        LearnedSelector.fit(dev, seed=1),
        language_model=selector.language_model,
    )
    evidence = other.evidence.upto(2)
    for each in (selector, twin, selector, selector):
        expected_NE = each.scores(evidence)
        found_N = each.score_at(evidence, 2, reader)
        assert found_N == pytest.approx(expected_NE[:, 1], abs=1e-6)
    assert (twin.scores(evidence) != selector.scores(evidence))[:, 1].any()
    # another entropy or another history is another utterance
    entropy_NE = evidence.column("entropy") + [0.1, 0.0]
    changed = evidence.with_columns({"entropy": entropy_NE})
    hyps = [[second, first] for first, second in evidence.hyps]
    for part in (changed, replace(evidence, hyps=hyps)):
        found_N = selector.score_at(part, 2, reader)
        expected_N = selector.score_at(part, 2)
        assert found_N == pytest.approx(expected_N, abs=1e-6)
    with pytest.raises(ValueError, match="another language model"):
        again = LearnedSelector.fit(dev)
        selector.score_at(evidence, 2, WordReader(again.language_model))


def test_the_exit_before_is_not_valued_again(selector, other, monkeypatch):
    reader, evidence = WordReader(selector.language_model), other.evidence
    selector.score_at(evidence.upto(1), 1, reader)
    exits = []
    value = type(selector.word_value)
    monkeypatch.setattr(
        value,
        "predict",
        lambda self, table, predict=value.predict: (
            exits.append({*table.exit_M.tolist()}) or predict(self, table)
        ),
    )
    selector.score_at(evidence.upto(2), 2, reader)
    assert exits == [{1}]
    selector.score_at(evidence.upto(2), 2, reader)
    assert exits == [{1}]
