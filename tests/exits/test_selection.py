"""What a development set teaches, and evidence that comes from it.

Protects: that scores to calibrate on are not those of a fit that saw the
utterance, and that other sets are scored with what was learned alone.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.criteria.text import CharNgram, measure_texts
from speechbrain_ee.exits.selector.selector import Selection, truncated_selector
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.inference.folder.model_folder import up_to_layer
from tests.spoken import spoken, texts

GIVEN = ("plausibility", "unseen_words", "learned", "combination")


@pytest.fixture(scope="module")
def fitted() -> tuple[Selection, Trace]:
    """What 60 utterances of six speakers teach, and their scores."""
    return Selection.fit(spoken(), texts())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_development_scores_are_not_in_sample(seed):
    """They miss more than the scores of the selector that saw the answers."""
    trace = spoken(60, seed, layers=(2, 4))
    selection, scored = Selection.fit(trace, texts())
    own_N = scored.evidence_NE("learned")[:, 0]
    seen_N = selection.selector.scores(trace.evidence)[:, 0]
    errors_NE = trace.errors_NE
    truth_N = -(errors_NE[:, 0] - errors_NE[:, 1]) / 2
    assert np.abs(own_N - seen_N).min() > 0
    assert ((own_N - truth_N) ** 2).sum() > ((seen_N - truth_N) ** 2).sum()
    # and they still know much: chance stays below three times 1 / sqrt(60)
    assert np.corrcoef(own_N, truth_N)[0, 1] > 0.39


def test_development_trace_gets_what_other_sets_get(fitted):
    """But ``learned``, in which no utterance had a part."""
    selection, scored = fitted
    before = spoken()
    assert set(scored.evidence_names) == {*before.evidence_names, *GIVEN}
    again = selection.annotate(before)
    for name in scored.evidence_names:
        same = np.array_equal(scored.evidence_NE(name), again.evidence_NE(name))
        assert same == (name != "learned"), name
    assert scored.ids == before.ids and scored.source == before.source
    for one, other in zip(scored.records, before.records, strict=True):
        assert [e.hyp for e in one.exits] == [e.hyp for e in other.exits]


def test_evidence_of_another_set(fitted):
    selection, scored = fitted
    test = spoken(40, 9, name="test")
    marked = selection.annotate(test)
    model = CharNgram.train(texts())
    rows = test.evidence.transcripts()
    for row, hyps in enumerate(rows):
        for name, values in measure_texts(hyps, model).items():
            assert marked.evidence_NE(name)[row] == pytest.approx(values)
    assert marked.evidence_NE("unseen_words").mean() > 0.05
    assert np.array_equal(
        marked.evidence_NE("learned"), selection.selector.scores(test.evidence)
    )
    # one standard deviation of each on the development set weighs the same
    total_NE = np.zeros((40, 3))
    for name in ("entropy", "agreement", "plausibility"):
        dev_NE, test_NE = (
            get_criterion(name).scores(trace.evidence)
            for trace in (scored, marked)
        )
        known = dev_NE[np.isfinite(dev_NE)]
        z_NE = (test_NE - known.mean()) / known.std()
        total_NE += np.clip(z_NE, -6, 6)
    assert marked.evidence_NE("combination") == pytest.approx(total_NE)


def test_evidence_of_an_utterance_is_its_own(fitted):
    """Other utterances change nothing, nor does what was there before."""
    selection, _ = fitted
    test = spoken(40, 9, name="test")
    whole = selection.annotate(test)
    part = selection.annotate(test.select([31, 4]))
    stale = test.with_evidence("learned", np.full((40, 3), 7.0))
    for name in GIVEN:
        column = whole.evidence_NE(name)
        assert part.evidence_NE(name) == pytest.approx(column[[31, 4]])
        for again in (selection.annotate(whole), selection.annotate(stale)):
            assert np.array_equal(again.evidence_NE(name), column)


def test_answers_of_the_test_set_are_not_read(fitted):
    """Other references, the same evidence."""
    selection, _ = fitted
    test = spoken(40, 9, name="test")
    records = tuple(replace(r, ref="nothing of this") for r in test.records)
    other = selection.annotate(Trace(test.header, records))
    whole = selection.annotate(test)
    for name in GIVEN:
        assert np.array_equal(other.evidence_NE(name), whole.evidence_NE(name))


def test_it_can_be_repeated(fitted):
    _, scored = fitted
    again = Selection.fit(spoken(), texts())[1].evidence_NE("learned")
    assert np.array_equal(again, scored.evidence_NE("learned"))
    other = Selection.fit(spoken(), texts(), seed=1)[1].evidence_NE("learned")
    assert not np.array_equal(other, again)


def test_without_entropy_the_combination_does_without():
    records = [
        replace(r, exits=tuple(replace(e, evidence={}) for e in r.exits))
        for r in spoken().records
    ]
    trace = Trace(spoken().header, tuple(records))
    selection, scored = Selection.fit(trace, texts())
    assert set(selection.combination.weights) == {"agreement", "plausibility"}
    assert np.isfinite(scored.evidence_NE("combination")).all()


def test_a_truncated_selector_looks_less_far_ahead(fitted):
    """Of the exits that stay it expects what it expected before."""
    selector, dev = fitted[0].selector, fitted[1]
    exits = len(selector.exit_layers) - 1
    short = truncated_selector(selector, exits)
    whole_NE = selector.scores(dev.evidence)
    cut = up_to_layer(dev, short.exit_layers[-1])
    short_NE = short.scores(cut.evidence)
    assert (short_NE[:, -1] == 0).all()
    # One exit less to go on to: the best gain per layer is no larger.
    earlier_NE = whole_NE[:, : exits - 1]
    assert (short_NE[:, :-1] >= earlier_NE - 1e-9).all()
    assert np.isclose(short_NE[:, :-1], earlier_NE).any()
    assert (short_NE[:, :-1] > earlier_NE + 0.01).any()


def test_other_exits_are_refused(fitted):
    selection, _ = fitted
    with pytest.raises(InputError, match=r"\[3, 5, 7\].*\[2, 4, 6\]"):
        selection.annotate(spoken(20, 1, layers=(3, 5, 7)))
