"""Live inference takes the decisions that the trace predicts, and no layer
above them runs; what it costs, and when every word was said.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.cost import CostModel, criterion_macs
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.criteria import (
    criterion_names,
    get_criterion,
    get_measure,
    measure_names,
)
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding.methods import greedy_tokens
from speechbrain_ee.exits.policy import ThresholdPolicy
from speechbrain_ee.exits.selector.selection import Selection
from speechbrain_ee.inference.hypothesis import TimedToken, words_of
from speechbrain_ee.inference.live import LivePolicy, LiveScorer
from speechbrain_ee.inference.runner import (
    LiveCost,
    compile_segments,
    timed_tokens,
)
from speechbrain_ee.models.heads import ExitOutput
from tests.helpers import STACKS, noise, padded, shaken, tiny_model
from tests.inference.live_runs import (
    EXITS,
    LayerCounter,
    live_model,
    runner_of,
    thresholds_between,
    trace_of,
    waves,
)

LEARNED = ("learned", "combination", "plausibility", "unseen_words")


@pytest.fixture(scope="module")
def model():
    return live_model()


@pytest.fixture(scope="module")
def selection(model):
    rng = np.random.default_rng(0)
    lengths = rng.integers(4000, 20000, 30)
    wavs = [noise(int(n), 100 + k) for k, n in enumerate(lengths)]
    texts = ["t1 t2 t3", "t4 t4 t5", "t6 t1"]
    return Selection.fit(trace_of(model, wavs), texts)[0]


@pytest.fixture(scope="module")
def trace(model, selection):
    return selection.annotate(trace_of(model, waves()))


def sources(selection):
    return {
        "selector": selection.selector,
        "combination": selection.combination,
    }


def live_criteria() -> list[str]:
    names = [n for n in criterion_names() if not get_criterion(n).decodes]
    return [*names, "patience_transcript:patience=1"]


@pytest.mark.parametrize("name", live_criteria())
def test_decisions_texts_and_costs_are_those_of_the_trace(
    model, trace, selection, name
):
    criterion = get_criterion(name)
    if not criterion.available(trace.evidence.names):
        pytest.skip(f"{name} needs an extra that is not installed")
    scores_NE = criterion.scores(trace.evidence)
    extra_NE = criterion_macs(trace, criterion)
    thresholds = thresholds_between(scores_NE)
    assert thresholds
    for threshold in thresholds:
        rule = ThresholdPolicy(name, threshold)
        policy = LivePolicy.of(rule, EXITS, **sources(selection))
        heard = runner_of(model).run(*padded(waves()), policy)
        chosen = rule.choose(scores_NE)
        for row, (one, column) in enumerate(zip(heard, chosen)):
            assert one.exit == column + 1
            assert one.layer == EXITS[column]
            assert one.text == trace.records[row].exits[column].hyp
            if name not in LEARNED:
                paid = trace.macs_NE[row, column] + extra_NE[row, column]
                # Frames are estimated from the duration in a trace.
                assert one.macs == pytest.approx(paid, rel=2e-3)
            if column < len(EXITS) - 1:
                assert one.score == pytest.approx(
                    scores_NE[row, column], rel=1e-3, abs=1e-4
                )
            else:
                assert np.isnan(one.score)


@pytest.mark.parametrize("decoding", ["joint", "rescoring"])
@pytest.mark.parametrize("name", ["token_confidence", "entropy"])
def test_decisions_by_what_a_search_found(decoding, name):
    """Where the criterion looks at it, every exit's search is charged."""
    model = live_model(attention="shared")
    trace = trace_of(model, waves(), decoding)
    scores_NE = get_criterion(name).scores(trace.evidence)
    paid_NE = trace.macs_NE + criterion_macs(trace, get_criterion(name))
    runner = runner_of(model, decoding)
    for threshold in (*thresholds_between(scores_NE), 1e9):
        policy = LivePolicy.of(ThresholdPolicy(name, threshold), EXITS)
        heard = runner.run(*padded(waves()), policy)
        chosen = policy.rule.choose(scores_NE)
        for row, (one, column) in enumerate(zip(heard, chosen)):
            assert one.exit == column + 1
            assert one.text == trace.records[row].exits[column].hyp
            assert one.macs == pytest.approx(paid_NE[row, column], rel=2e-3)
            assert one.nbest[0] == one.text


def test_alone_and_in_any_batch(model):
    runner, wavs = runner_of(model), waves()
    policy = LivePolicy.of(ThresholdPolicy("max_prob", 0.45), EXITS)
    together = runner.run(*padded(wavs), policy)
    backwards = runner.run(*padded(wavs[::-1], extra=4000), policy)[::-1]
    for wav, *others in zip(wavs, together, backwards):
        (alone,) = runner.run(*padded([wav]), policy)
        for other in others:
            for name in ("tokens", "exit", "macs"):
                assert getattr(other, name) == getattr(alone, name)
            assert other.confidence == pytest.approx(alone.confidence, abs=1e-5)
            assert [(w.start_s, w.end_s) for w in other.words] == [
                (w.start_s, w.end_s) for w in alone.words
            ]


def test_no_layer_above_an_exit_runs(model, trace):
    scores_NE = get_criterion("entropy").scores(trace.evidence)
    threshold = float(np.median(scores_NE[:, :2].max(1))) + 1e-4
    policy = LivePolicy.of(ThresholdPolicy("entropy", threshold), EXITS)
    column_N = policy.rule.choose(scores_NE)
    assert 0 < (column_N <= 1).sum() < len(column_N)
    with LayerCounter(model) as counter:
        heard = runner_of(model).run(*padded(waves()), policy)
        for number in range(len(EXITS)):
            still_in = (column_N >= number).sum()
            assert counter.layers[number] == still_in
            assert counter.heads[number] == still_in
    assert [one.exit - 1 for one in heard] == column_N.tolist()


def test_time_is_trimmed_to_who_is_left(model):
    # The longest utterance leaves at once: the others go on without it.
    wavs = waves((3000, 40000, 5000))
    scores = [-1.0, 1.0, -1.0]
    policy = LivePolicy.of(ThresholdPolicy("agreement", 0.0), EXITS)
    object.__setattr__(policy.scorer, "score", lambda e: _first(e, scores))
    with LayerCounter(model) as counter:
        runner_of(model).run(*padded(wavs), policy)
    runner = runner_of(model)
    longest = runner.cost.below.frames(5000)
    assert counter.frames[1] == 2 * longest


def _first(evidence, scores):
    rows = [int(id) for id in evidence.ids]
    return np.array([scores[row] for row in rows])


@pytest.mark.parametrize("exit", range(1, len(EXITS) + 1))
def test_a_fixed_exit_is_the_truncated_model(model, exit):
    wavs, lens = padded(waves())
    with LayerCounter(model) as counter:
        heard = runner_of(model).run(wavs, lens, LivePolicy.fixed(exit, EXITS))
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
    """But for criteria that remember the exits before."""
    limits = (np.inf, -0.2, np.inf)
    policy = LivePolicy.of(ThresholdPolicy("entropy", limits), EXITS)
    with LayerCounter(model) as counter:
        runner_of(model).run(*padded(waves()), policy)
    assert counter.heads[0] == counter.heads[2] == 0
    assert counter.heads[1] == len(waves())
    policy = LivePolicy.of(ThresholdPolicy("agreement", limits), EXITS)
    assert policy.reads == (True, True, True, True)


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


def test_nothing_else_is_measured(selection):
    entropy = LiveScorer("entropy", EXITS)
    assert [m.name for m in entropy.measures] == ["entropy"]
    assert not entropy.reads_transcripts and not entropy.remembers
    combined = LiveScorer("combination", EXITS, **sources(selection))
    assert [m.name for m in combined.measures] == ["entropy"]
    assert combined.reads_transcripts and combined.remembers
    assert combined.of_text == ("plausibility",)
    text = LiveScorer("plausibility", EXITS, selection.selector)
    assert not text.measures and not text.remembers


def test_what_is_missing_is_named(selection):
    for name, file in (
        ("learned", "exit_selector.json.gz"),
        ("combination", "combination.json"),
        ("plausibility", "exit_selector.json.gz"),
    ):
        with pytest.raises(InputError, match=f"{name}.*{file}"):
            LiveScorer(name, EXITS)
    with pytest.raises(InputError, match=r"\[1, 2, 3, 4\].*\[2, 4\]"):
        LiveScorer("learned", (2, 4), selection.selector)


def test_scores_are_compared_in_double_precision(model):
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


def test_measures_without_padding_are_those_with(model):
    with torch.no_grad():
        (output, *_) = model(*padded(waves((9000,))))
    view, masked = ExitView(output), ExitView(output)
    assert view.full
    masked.__dict__["full"] = False
    for name in measure_names():
        measure = get_measure(name)
        if measure.earlier or measure.decodes or not measure.always:
            continue
        assert torch.equal(measure.function(view), measure.function(masked))


@pytest.mark.parametrize(("module", "attention"), STACKS)
def test_equal_to_the_cost_model(module, attention):
    model = tiny_model(encoder_module=module, attention_type=attention)
    live, whole = LiveCost(model), CostModel(model)
    for samples in (400, 6001, 16000, 77777, 480000):
        frames = whole.frames(samples)
        expected = whole.macs(samples)
        for exit in (1, 2):
            passed = range(1, exit + 1)
            assert live.macs(samples, frames, passed) == expected[exit - 1]


def test_heads_that_were_not_read_are_not_counted():
    model = live_model()
    live, whole = LiveCost(model), CostModel(model)
    frames = whole.frames(20000)
    skipped = sum(whole.head(exit, frames) for exit in (1, 2, 3))
    full = whole.macs(20000)[-1]
    assert live.macs(20000, frames, [len(EXITS)]) == full - skipped


def test_what_is_no_polynomial_is_counted():
    live = LiveCost(live_model())
    live.below.layer = lambda index, frames: frames**3
    below = live.below.head(4, 7) + live.below.start.macs(3000)
    assert live.macs(3000, 7, [4]) == below + 4 * 7**3


PIECES = ("", "\u2581a", "b", "\u2581c")


def output_of(path: list[int]) -> ExitOutput:
    probs = torch.full((len(path), 4), 0.03)
    probs[torch.arange(len(path)), torch.tensor(path)] = 0.91
    return ExitOutput(probs.log()[None], torch.tensor([len(path)]), layer=1)


@pytest.mark.parametrize("seed", range(5))
def test_times_of_the_best_path_and_of_any_text(seed):
    """A path spells the text, and no frame is better assigned."""
    generator = torch.Generator().manual_seed(seed)
    log_probs = (3 * torch.randn(3, 40, 4, generator=generator)).log_softmax(-1)
    output = ExitOutput(log_probs, torch.tensor([40, 17, 1]), layer=1)
    greedy = timed_tokens(output, None, PIECES)
    for timed, tokens in zip(greedy, greedy_tokens(output), strict=True):
        assert [t.piece for t in timed] == [PIECES[k] for k in tokens]
        for one, next_ in zip(timed, timed[1:]):
            assert one.first <= one.last < next_.first
    wanted = [[1, 2, 2, 3], [3], []]
    found = timed_tokens(output, wanted, PIECES)
    for timed, tokens, length in zip(found, wanted, (40, 17, 1), strict=True):
        assert [t.piece for t in timed] == [PIECES[k] for k in tokens]
        assert all(t.last < length for t in timed)
    # A single token covers the stretch that gains most over blanks.
    (one,) = found[1]
    gains = log_probs[1, :17, 3] - log_probs[1, :17, 0]
    stretches = [(a, b) for a in range(17) for b in range(a, 17)]
    best = max(stretches, key=lambda ab: float(gains[ab[0] : ab[1] + 1].sum()))
    assert (one.first, one.last) == best
    share = log_probs[1, one.first : one.last + 1, 3].exp().mean()
    assert one.confidence == pytest.approx(float(share), abs=1e-5)


def test_texts_that_do_not_fit_or_that_nobody_can_write():
    assert timed_tokens(output_of([1, 1]), [[1, 1]], PIECES) == [[]]
    assert timed_tokens(output_of([1]), [[1, 2]], PIECES) == [[]]
    first, second = timed_tokens(output_of([3, 2]), None, PIECES[:3])[0]
    assert (first.piece, second.piece) == ("", "b")


def test_words():
    tokens = [
        TimedToken(1, "\u2581a", 1, 2, 0.5),
        TimedToken(2, "b", 5, 5, 1.0),
        TimedToken(3, "\u2581c", 9, 30, 0.25),
    ]
    first, second = words_of(tokens, 0.04, 1.0)
    assert (first.text, first.start_s, first.end_s) == ("ab", 0.04, 0.24)
    assert first.confidence == pytest.approx(0.75)
    assert (second.text, second.start_s, second.end_s) == ("c", 0.36, 1.0)
    assert words_of([TimedToken(1, "\u2581", 0, 1, 0.9)], 0.04, 1.0) == ()


@pytest.mark.parametrize("attention_type", ("RoPEMHA", "RelPosMHAXL"))
def test_outputs_are_equal_at_any_length_and_batch(attention_type):
    model = shaken(tiny_model(attention_type=attention_type), by=0.1)
    names = list(model.state_dict())
    batches = [
        padded([noise(n, seed=n) for n in lengths])
        for lengths in ((8000, 5000), (12000,), (9000, 4000, 16000))
    ]
    with torch.no_grad():
        wanted = [model(*batch) for batch in batches]
        # Tracing and guards, without the minutes that a C++ compiler takes.
        assert compile_segments(model, backend="aot_eager") is model
        found = [model(*batch) for batch in batches]
    assert list(model.state_dict()) == names
    for outputs, same in zip(wanted, found):
        for one, other in zip(outputs, same):
            torch.testing.assert_close(
                other.log_probs_BTV, one.log_probs_BTV, atol=1e-4, rtol=0
            )
    torch.compiler.reset()
