"""Live inference takes the decisions that the trace predicts, and no layer
above them runs.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.operating_point import criterion_macs
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.criteria import criterion_names, get_criterion
from speechbrain_ee.exits.policy import ThresholdPolicy
from speechbrain_ee.inference.runner import LivePolicy
from tests.helpers import padded
from tests.inference.live_runs import (
    EXITS,
    LayerCounter,
    live_model,
    runner_of,
    thresholds_between,
    trace_of,
    waves,
)


@pytest.fixture(scope="module")
def model():
    return live_model()


@pytest.fixture(scope="module")
def trace(model):
    return trace_of(model, waves())


def live_criteria() -> list[str]:
    """All but those that need texts, a fit, or a decoder."""
    left_out = {"plausibility", "unseen_words", "learned", "combination"}
    names = [name for name in criterion_names() if name not in left_out]
    return [name for name in names if not get_criterion(name).decodes]


@pytest.mark.parametrize("name", live_criteria())
def test_decisions_texts_and_costs_are_those_of_the_trace(model, trace, name):
    criterion = get_criterion(name)
    if not criterion.available(trace.evidence.names):
        pytest.skip(f"{name} needs an extra that is not installed")
    scores_NE = criterion.scores(trace.evidence)
    extra_NE = criterion_macs(trace, criterion)
    runner = runner_of(model)
    thresholds = thresholds_between(scores_NE)
    assert thresholds
    for threshold in thresholds:
        rule = ThresholdPolicy(name, threshold)
        policy = LivePolicy.of(rule, EXITS)
        heard = runner.run(*padded(waves()), policy)
        chosen = ThresholdPolicy(name, threshold).choose(scores_NE)
        for row, (one, column) in enumerate(zip(heard, chosen)):
            assert one.exit == column + 1
            assert one.layer == EXITS[column]
            assert one.text == trace.records[row].exits[column].hyp
            paid = trace.macs_NE[row, column] + extra_NE[row, column]
            # Frames are estimated from the duration in a trace.
            assert one.macs == pytest.approx(paid, rel=2e-3)
            if column < len(EXITS) - 1:
                assert one.score == pytest.approx(
                    scores_NE[row, column], rel=1e-4, abs=1e-5
                )
            else:
                assert np.isnan(one.score)


@pytest.mark.parametrize("decoding", ["joint", "rescoring"])
@pytest.mark.parametrize("name", ["token_confidence", "entropy"])
def test_decisions_by_what_a_search_found(decoding, name):
    model = live_model(attention="shared")
    trace = trace_of(model, waves(), decoding)
    scores_NE = get_criterion(name).scores(trace.evidence)
    runner = runner_of(model, decoding)
    for threshold in thresholds_between(scores_NE):
        policy = LivePolicy.of(ThresholdPolicy(name, threshold), EXITS)
        heard = runner.run(*padded(waves()), policy)
        chosen = policy.rule.choose(scores_NE)
        extra_NE = criterion_macs(trace, get_criterion(name))
        for row, (one, column) in enumerate(zip(heard, chosen)):
            assert one.exit == column + 1
            assert one.text == trace.records[row].exits[column].hyp
            paid = trace.macs_NE[row, column] + extra_NE[row, column]
            if name == "entropy":
                assert one.macs == pytest.approx(paid, rel=2e-3)
            assert one.nbest[0] == one.text


def test_searches_at_every_exit_are_charged():
    model = live_model(attention="shared")
    trace = trace_of(model, waves(), "joint")
    name = "beam_score"
    criterion = get_criterion(name)
    never = ThresholdPolicy(name, 1e9)
    heard = runner_of(model, "joint").run(
        *padded(waves()), LivePolicy.of(never, EXITS)
    )
    paid_NE = trace.macs_NE + criterion_macs(trace, criterion)
    for one, paid in zip(heard, paid_NE[:, -1]):
        assert one.macs == pytest.approx(paid, rel=2e-3)


def test_alone_and_in_any_batch(model):
    runner = runner_of(model)
    wavs = waves()
    policy = LivePolicy.of(ThresholdPolicy("max_prob", 0.45), EXITS)
    together = runner.run(*padded(wavs), policy)
    backwards = runner.run(*padded(wavs[::-1], extra=4000), policy)[::-1]
    for wav, one, other in zip(wavs, together, backwards):
        (alone,) = runner.run(*padded([wav]), policy)
        for second in (one, other):
            assert second.tokens == alone.tokens
            assert second.exit == alone.exit
            assert second.macs == alone.macs
            assert second.confidence == pytest.approx(
                alone.confidence, abs=1e-5
            )
            for mine, theirs in zip(alone.words, second.words, strict=True):
                assert (mine.start_s, mine.end_s) == (
                    theirs.start_s,
                    theirs.end_s,
                )


def test_no_layer_above_an_exit_runs(model, trace):
    scores_NE = get_criterion("entropy").scores(trace.evidence)
    threshold = float(np.median(scores_NE[:, :2].max(1))) + 1e-4
    policy = LivePolicy.of(ThresholdPolicy("entropy", threshold), EXITS)
    column_N = policy.rule.choose(scores_NE)
    assert 0 < (column_N <= 1).sum() < len(column_N)
    counter = LayerCounter(model)
    heard = runner_of(model).run(*padded(waves()), policy)
    for number in range(len(EXITS)):
        still_in = (column_N >= number).sum()
        assert counter.layers[number] == still_in
        assert counter.heads[number] == still_in
    for handle in counter.handles:
        handle.remove()
    assert [one.exit - 1 for one in heard] == column_N.tolist()


def test_time_is_trimmed_to_who_is_left(model):
    # The longest utterance leaves at once: the others go on without it.
    wavs = waves((3000, 40000, 5000))
    scores = [-1.0, 1.0, -1.0]
    policy = LivePolicy.of(ThresholdPolicy("agreement", 0.0), EXITS)
    object.__setattr__(policy.scorer, "score", lambda e: _first(e, scores))
    counter = LayerCounter(model)
    runner_of(model).run(*padded(wavs), policy)
    for handle in counter.handles:
        handle.remove()
    runner = runner_of(model)
    longest = runner.cost.below.frames(5000)
    assert counter.frames[1] == 2 * longest


def _first(evidence, scores):
    rows = [int(id) for id in evidence.ids]
    return np.array([scores[row] for row in rows])


@pytest.mark.parametrize("exit", range(1, len(EXITS) + 1))
def test_a_fixed_exit_is_the_truncated_model(model, exit):
    wavs, lens = padded(waves())
    counter = LayerCounter(model)
    heard = runner_of(model).run(wavs, lens, LivePolicy.fixed(exit, EXITS))
    for handle in counter.handles:
        handle.remove()
    # One head alone is read.
    rows = [0] * len(EXITS)
    rows[exit - 1] = len(wavs)
    assert counter.heads == rows
    assert not any(counter.layers[exit:])
    short = model.truncated(exit)
    of_short = runner_of(short).run(
        wavs, lens, LivePolicy.fixed(exit, EXITS[:exit])
    )
    assert of_short == heard or all(
        _same(a, b) for a, b in zip(of_short, heard, strict=True)
    )


def _same(one, other) -> bool:
    fields = "text tokens exit layer confidence words nbest macs".split()
    return all(getattr(one, f) == getattr(other, f) for f in fields)


def test_exits_at_which_nothing_can_stop_are_not_read(model):
    limits = (np.inf, -0.2, np.inf)
    policy = LivePolicy.of(ThresholdPolicy("entropy", limits), EXITS)
    assert policy.reads == (False, True, False, True)
    counter = LayerCounter(model)
    runner_of(model).run(*padded(waves()), policy)
    for handle in counter.handles:
        handle.remove()
    assert counter.heads[0] == counter.heads[2] == 0
    assert counter.heads[1] == len(waves())


def test_criteria_that_remember_read_every_exit():
    limits = (np.inf, -0.2, np.inf)
    policy = LivePolicy.of(ThresholdPolicy("agreement", limits), EXITS)
    assert policy.reads == (True, True, True, True)


def test_a_policy_for_some_of_the_exits(model, trace):
    """Exits that were not decoded are passed by, as in their trace."""
    chosen = (2, 4)
    policy = ExitPolicy("entropy", chosen, -1.0, "layers=3", "naive")
    live = LivePolicy.of(policy, EXITS)
    assert live.exits == (2, 4)
    counter = LayerCounter(model)
    heard = runner_of(model).run(*padded(waves()), live)
    for handle in counter.handles:
        handle.remove()
    assert counter.heads[0] == counter.heads[2] == 0
    score_N = get_criterion("entropy").scores(trace.evidence)[:, 1]
    assert [one.exit for one in heard] == np.where(
        score_N >= -1.0, 2, 4
    ).tolist()


def test_policies_of_other_models_are_refused():
    policy = ExitPolicy("entropy", (2, 6), -1.0, "layers=3", "naive")
    with pytest.raises(InputError, match=r"\[2, 6\].*calibrate it"):
        LivePolicy.of(policy, EXITS)
    with pytest.raises(InputError, match="5 thresholds for 4 exits"):
        LivePolicy.of(ThresholdPolicy("entropy", (0.0,) * 5), EXITS)
    with pytest.raises(InputError, match="exits 1 to 4"):
        LivePolicy.fixed(5, EXITS)


def test_attention_evidence_needs_a_search():
    model = live_model(attention="shared")
    policy = LivePolicy.of(ThresholdPolicy("beam_score", 0.0), EXITS)
    with pytest.raises(InputError, match="decoded by ctc_greedy"):
        runner_of(model).run(*padded(waves()), policy)


def test_no_gradients_are_kept(model):
    with torch.enable_grad():
        wavs, lens = padded(waves())
        wavs.requires_grad_()
        runner_of(model).run(wavs, lens, LivePolicy.fixed(1, EXITS))
    assert wavs.grad is None
