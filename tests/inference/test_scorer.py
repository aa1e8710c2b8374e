"""Scores that rest on what was learned: live as on a trace.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import (
    get_criterion,
    get_measure,
    measure_names,
)
from speechbrain_ee.exits.criteria.registry import criterion, measure
from speechbrain_ee.exits.criteria.text import measure_texts
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.policy import ThresholdPolicy
from speechbrain_ee.exits.selector.selection import Selection
from speechbrain_ee.inference.runner import LivePolicy, LiveScorer
from tests.helpers import noise, padded
from tests.inference.live_runs import (
    EXITS,
    live_model,
    runner_of,
    thresholds_between,
    trace_of,
    waves,
)

TEXTS = ["t1 t2 t3", "t4 t4 t5", "t6 t1"]


@pytest.fixture(scope="module")
def model():
    return live_model()


@pytest.fixture(scope="module")
def learned(model):
    """What a development set teaches, and an annotated test trace."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4000, 20000, 30)
    wavs = [noise(int(n), 100 + k) for k, n in enumerate(lengths)]
    selection, _ = Selection.fit(trace_of(model, wavs), TEXTS)
    return selection, selection.annotate(trace_of(model, waves()))


@pytest.mark.parametrize(
    "name", ["learned", "combination", "plausibility", "unseen_words"]
)
def test_decisions_are_those_of_the_trace(model, learned, name):
    selection, trace = learned
    scores_NE = get_criterion(name).scores(trace.evidence)
    runner = runner_of(model)
    for threshold in thresholds_between(scores_NE):
        policy = LivePolicy.of(
            ThresholdPolicy(name, threshold),
            EXITS,
            selection.selector,
            selection.combination,
        )
        chosen = policy.rule.choose(scores_NE)
        heard = runner.run(*padded(waves()), policy)
        assert [one.exit - 1 for one in heard] == chosen.tolist()
        for one, column, scores in zip(heard, chosen, scores_NE):
            if column < len(EXITS) - 1:
                assert one.score == pytest.approx(
                    scores[column], rel=1e-3, abs=1e-4
                )


def test_nothing_else_is_measured(learned):
    selection, _ = learned
    entropy = LiveScorer("entropy", EXITS)
    assert [m.name for m in entropy.measures] == ["entropy"]
    assert not entropy.reads_transcripts and not entropy.remembers
    combined = LiveScorer(
        "combination", EXITS, selection.selector, selection.combination
    )
    assert [m.name for m in combined.measures] == ["entropy"]
    assert combined.reads_transcripts and combined.remembers
    assert combined.of_text == ("plausibility",)
    agreement = LiveScorer("agreement", EXITS)
    assert not agreement.measures and agreement.remembers


def test_parameters_of_a_criterion(model):
    name = "patience_transcript:patience=1"
    trace = trace_of(model, waves())
    scores_NE = get_criterion(name).scores(trace.evidence)
    policy = LivePolicy.of(ThresholdPolicy(name, -0.7), EXITS)
    heard = runner_of(model).run(*padded(waves()), policy)
    chosen = policy.rule.choose(scores_NE)
    assert [one.exit - 1 for one in heard] == chosen.tolist()


def test_what_is_missing_is_named():
    for name, file in (
        ("learned", "exit_selector.json.gz"),
        ("combination", "combination.json"),
        ("plausibility", "exit_selector.json.gz"),
    ):
        with pytest.raises(InputError, match=f"{name}.*{file}"):
            LiveScorer(name, EXITS)
    with pytest.raises(InputError, match="not known"):
        LiveScorer("entropie", EXITS)


def test_a_selector_of_other_exits_is_refused(learned):
    with pytest.raises(InputError, match=r"\[1, 2, 3, 4\].*\[2, 4\]"):
        LiveScorer("learned", (2, 4), learned[0].selector)


def test_a_new_criterion_works_live(model):
    """One decorated function is enough, here too."""

    @measure(
        "longest_silence",
        formula="longest run of blanks",
        source="this test",
        higher_is_ready=False,
    )
    def longest_silence(view):
        return (~view.emitting_BT & view.frames_BT).sum(1).float()

    @criterion(
        "settled_silence",
        needs=("longest_silence",),
        formula="change of it",
        source="this test",
    )
    def settled_silence(evidence):
        change_NE = np.diff(evidence.column("longest_silence"), prepend=99)
        return -np.abs(change_NE)

    from speechbrain_ee.exits.criteria import registry

    try:
        trace = trace_of(model, waves())
        for name in ("longest_silence", "settled_silence"):
            scores_NE = get_criterion(name).scores(trace.evidence)
            for threshold in thresholds_between(scores_NE):
                policy = LivePolicy.of(ThresholdPolicy(name, threshold), EXITS)
                heard = runner_of(model).run(*padded(waves()), policy)
                chosen = policy.rule.choose(scores_NE)
                assert [h.exit - 1 for h in heard] == chosen.tolist()
        assert LiveScorer("settled_silence", EXITS).remembers
        assert not LiveScorer("longest_silence", EXITS).remembers
    finally:
        registry._MEASURES.pop("longest_silence")
        registry._CRITERIA.pop("longest_silence")
        registry._CRITERIA.pop("settled_silence")


def test_scores_are_compared_in_double_precision(model):
    """A threshold that single precision would round to the score."""
    wavs, lens = padded(waves((9000,)))
    runner = runner_of(model)
    policy = LivePolicy.of(ThresholdPolicy("max_prob", 0.0), EXITS)
    (one,) = runner.run(wavs, lens, policy)
    assert one.score == float(torch.tensor(one.score))
    above = np.nextafter(one.score, 1.0)
    policy = LivePolicy.of(ThresholdPolicy("max_prob", (above, -9, -9)), EXITS)
    assert runner.run(wavs, lens, policy)[0].exit == 2
    at = ThresholdPolicy("max_prob", (one.score, -9, -9))
    assert runner.run(wavs, lens, LivePolicy.of(at, EXITS))[0].exit == 1


@pytest.mark.parametrize("name", ["entropy", "max_prob", "margin_nonblank"])
@pytest.mark.parametrize("lengths", [(9000,), (9000, 9000), (9000, 4000)])
def test_a_direct_score_is_the_criterions(model, name, lengths):
    """With padding and without; bit for bit."""
    scorer = LiveScorer(name, EXITS)
    assert scorer.is_direct
    with torch.no_grad():
        outputs = model(*padded(waves(lengths)))
    for output in outputs:
        values = scorer.measure(ExitView(output), None)
        evidence = Evidence(
            np.array(EXITS[:1]),
            [str(row) for row in range(len(lengths))],
            {key: value_B[:, None] for key, value_B in values.items()},
        )
        direct_B = scorer.direct(ExitView(output))
        assert np.array_equal(direct_B, scorer.score(evidence))


@pytest.mark.parametrize("name", ["plausibility", "unseen_words"])
def test_a_score_of_the_text_alone_is_direct(model, learned, name):
    """No earlier exit is read for it, and no measure taken."""
    selector = learned[0].selector
    scorer = LiveScorer(name, EXITS, selector)
    assert scorer.is_direct and not scorer.remembers and not scorer.measures
    texts = ["seven two", "xqz vvk", ""]
    evidence = Evidence(
        np.array(EXITS[:1]),
        ["a", "b", "c"],
        {
            key: value_B[:, None]
            for key, value_B in measure_texts(
                texts, selector.language_model
            ).items()
        },
    )
    wanted_B = get_criterion(name).scores(evidence)[:, 0]
    with torch.no_grad():
        output = model(*padded(waves((5000, 4000, 3000))))[0]
    assert np.array_equal(scorer.direct(ExitView(output), texts), wanted_B)
    policy = LivePolicy.of(
        ThresholdPolicy(name, (np.inf, 9.0, 9.0)), EXITS, selector
    )
    assert policy.reads == (False, True, True, True)


def test_other_rules_are_not_direct(learned):
    for name in ("agreement", "hidden_cosine", "patience_transcript"):
        assert not LiveScorer(name, EXITS).is_direct
    assert not LiveScorer("learned", EXITS, learned[0].selector).is_direct


def test_measures_without_padding_are_those_with(model):
    """The short cut for full batches changes nothing."""
    with torch.no_grad():
        (output, *_) = model(*padded(waves((9000,))))
    view, masked = ExitView(output), ExitView(output)
    assert view.full
    masked.__dict__["full"] = False
    for name in measure_names():
        measure = get_measure(name)
        if measure.earlier or measure.decodes:
            continue
        assert torch.equal(measure.function(view), measure.function(masked))
