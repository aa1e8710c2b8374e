"""Hypotheses and successive exits: brute force, loops, the rule's own window.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.criteria.successive import (
    LAGS,
    LEAST_LOG,
    LEAST_LOG_PROB,
    cross_entropy,
    ctc_forward,
    ctc_forward_per_frame,
    hidden_cosine,
    window_scores,
)
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.policy import first_exit
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.models.heads import ExitOutput


def log_probs(frames, vocab, seed, scale=1.0):
    random = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(frames, vocab, generator=random)).log_softmax(
        -1
    )


def collapse(path, blank=0):
    merged = [token for token, _ in itertools.groupby(path)]
    return tuple(token for token in merged if token != blank)


def posterior(log_probs_TV):
    """Of the greedy hypothesis: the sum over every path there is."""
    frames, vocab = log_probs_TV.shape
    rows = log_probs_TV.tolist()
    greedy = collapse([row.index(max(row)) for row in rows])
    total = 0.0
    for path in itertools.product(range(vocab), repeat=frames):
        if collapse(path) == greedy:
            total += math.exp(sum(rows[t][v] for t, v in enumerate(path)))
    return greedy, total


@given(
    frames=st.integers(1, 6),
    vocab=st.integers(2, 4),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None)
def test_ctc_forward_is_the_sum_over_all_paths(frames, vocab, seed):
    log_probs_TV = log_probs(frames, vocab, seed)
    view = ExitView(
        ExitOutput(log_probs_TV.unsqueeze(0), torch.tensor([frames]), 2)
    )
    greedy, total = posterior(log_probs_TV)
    assert greedy_tokens(view.output) == [list(greedy)]
    log_prob = view.hypothesis_log_prob_B.item()
    assert log_prob == pytest.approx(math.log(total), abs=1e-4)
    if not greedy:
        assert ctc_forward(view).item() == LEAST_LOG_PROB
        assert ctc_forward_per_frame(view).item() == pytest.approx(
            -math.log(vocab)
        )
        return
    assert ctc_forward(view).item() == pytest.approx(log_prob)
    assert ctc_forward_per_frame(view).item() == pytest.approx(
        log_prob / frames
    )


def views_of(per_exit, hidden=None):
    views = []
    for k, each in enumerate(per_exit):
        output = ExitOutput(
            each.unsqueeze(0),
            torch.tensor([len(each)]),
            k,
            hidden_BTD=None if hidden is None else hidden[k].unsqueeze(0),
        )
        views.append(ExitView(output, views))
    return views


@pytest.mark.parametrize("lag", LAGS)
def test_cross_entropy_by_hand(lag):
    exits = [log_probs(6, 4, seed, 2.0) for seed in range(5)]
    before, now = exits[4 - lag].tolist(), exits[4].tolist()
    expected = -sum(
        math.exp(p) * q
        for row, other in zip(before, now)
        for p, q in zip(row, other)
    )
    value = cross_entropy(views_of(exits)[4], lag).item()
    assert value == pytest.approx(expected / 6, rel=1e-5)


def test_nothing_is_further_than_an_exit_without_output():
    """An exit that rules out all it believed, blanks alone, no frames."""
    certain = torch.eye(4)[1:].log()
    blanks = torch.tensor([[0.97, 0.01, 0.01, 0.01]] * 3).log()
    for before, now in ((certain, certain.roll(1, 0)), (blanks, blanks)):
        value = cross_entropy(views_of([before, now])[1], 1)
        assert value.item() == pytest.approx(-LEAST_LOG)
    empty = cross_entropy(views_of([certain[:0], certain[:0]])[1], 1)
    assert empty.item() == pytest.approx(-LEAST_LOG)


def test_hidden_cosine_by_hand():
    exits = [log_probs(6, 4, seed) for seed in range(2)]
    random = torch.Generator().manual_seed(5)
    hidden = torch.randn(2, 6, 3, generator=random)
    expected = 0.0
    for a, b in zip(hidden[0].tolist(), hidden[1].tolist()):
        dot = sum(x * y for x, y in zip(a, b))
        expected += dot / (math.hypot(*a) * math.hypot(*b)) / 6
    value = hidden_cosine(views_of(exits, hidden)[1]).item()
    assert value == pytest.approx(expected, rel=1e-5)


def test_batch_trimmed_since_the_earlier_exit():
    """Live, the longest utterance may have left in between."""
    random = torch.Generator().manual_seed(6)
    hidden = torch.randn(2, 9, 3, generator=random)
    exits = [log_probs(9, 4, seed) for seed in range(2)]

    def last(frames_before):
        outputs = [
            ExitOutput(
                exits[k][:n].unsqueeze(0),
                torch.tensor([5]),
                k,
                hidden_BTD=hidden[k, :n].unsqueeze(0),
            )
            for k, n in enumerate((frames_before, 5))
        ]
        return ExitView(outputs[1], [ExitView(outputs[0])])

    for measure in (hidden_cosine, lambda view: cross_entropy(view, 1)):
        assert measure(last(9)).item() == pytest.approx(measure(last(5)).item())


# few distinct values, so that ties with the threshold happen
DISTANCES = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0])
# words of one another's neighbourhood, and nothing at all
TEXTS = st.sampled_from(["", "a", "ab", "abc", "abx", "xbx", "abcabcabc"])


def simulate(distance, exits, patience, tau):
    """Column at which the rule stops, exit by exit; the last one if never."""
    window = [0]
    for new in range(1, exits):
        if max(distance(old, new) for old in window) <= tau:
            window.append(new)
        else:
            window = [*window[1:], new]
        if len(window) == patience + 1:
            return new
    return exits - 1


@st.composite
def distance_tables(draw):
    exits = draw(st.integers(1, 7))
    rows = draw(st.integers(1, 3))
    return np.array(
        [
            [[draw(DISTANCES) for _ in range(exits)] for _ in range(exits)]
            for _ in range(rows)
        ]
    )


@given(
    table_NEE=distance_tables(),
    patience=st.integers(1, 5),
    taus=st.lists(
        st.one_of(DISTANCES, st.floats(0, 1.2)), min_size=1, max_size=6
    ),
)
@settings(max_examples=200, deadline=None)
def test_scores_decide_as_the_rule_does(table_NEE, patience, taus):
    rows, exits, _ = table_NEE.shape

    def by_lag(lag):
        # first exits poisoned: nothing before may be read
        lag_NE = np.full((rows, exits), np.nan)
        for new in range(lag, exits):
            lag_NE[:, new] = table_NEE[:, new - lag, new]
        return lag_NE

    scores_NE = window_scores(by_lag, (rows, exits), patience)
    assert not np.isnan(scores_NE).any()
    for tau in taus:
        expected = [
            simulate(lambda a, b, row=table_EE: row[a, b], exits, patience, tau)
            for table_EE in table_NEE
        ]
        assert first_exit(scores_NE, -tau).tolist() == expected


@given(
    texts=st.lists(
        st.lists(TEXTS, min_size=6, max_size=6), min_size=1, max_size=4
    ),
    patience=st.integers(1, 3),
    tau=st.floats(0, 0.99),
)
@settings(max_examples=150, deadline=None)
def test_transcripts(texts, patience, tau):
    def cer(before, after):
        if not before or not after:
            return 1.0
        return min(Levenshtein.distance(before, after) / len(before), 1.0)

    ids = [f"u{n}" for n in range(len(texts))]
    evidence = Evidence(np.arange(2, 14, 2), ids, {}, texts)
    chosen = get_criterion(f"patience_transcript:patience={patience}")
    expected = [
        simulate(lambda a, b, row=row: cer(row[a], row[b]), 6, patience, tau)
        for row in texts
    ]
    scores_NE = chosen.scores(evidence)
    assert first_exit(scores_NE, -tau).tolist() == expected
    if patience == 1:
        agreed_NE = get_criterion("agreement").scores(evidence)
        assert first_exit(agreed_NE, -tau).tolist() == expected


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_distributions(patience):
    random = np.random.default_rng(0)
    values = {
        f"cross_entropy_{lag}": random.random((50, 6))
        for lag in range(1, patience + 1)
    }
    evidence = Evidence(np.arange(6), [str(n) for n in range(50)], values)
    chosen = get_criterion(f"patience_distribution:patience={patience}")
    assert chosen.needs == tuple(values)
    expected_NE = window_scores(
        lambda lag: values[f"cross_entropy_{lag}"], (50, 6), patience
    )
    assert np.array_equal(chosen.scores(evidence), expected_NE)


def test_nothing_recognised_is_not_settled():
    evidence = Evidence(np.arange(3), ["u"], {}, [["", "", ""]])
    for name in ("agreement", "patience_transcript"):
        assert get_criterion(name).scores(evidence).max() == -1.0
    # three exits cannot gather five members
    never = get_criterion("patience_transcript:patience=4").scores(evidence)
    assert (never == -math.inf).all()
    changed = Evidence(np.arange(3), ["u"], {}, [["a", "xxxxxxxx", "a"]])
    assert get_criterion("agreement").scores(changed)[0, 1] == -1.0


@pytest.mark.parametrize(
    "set_name, wer, layers",
    [("test-clean", 4.576, 9.621), ("test-other", 12.382, 11.058)],
)
def test_identical_transcripts_on_real_traces(
    shared_folder, set_name, wer, layers
):
    """Stop where two successive transcripts are the same."""
    trace = read_trace(
        shared_folder / "traces" / "wav2vec2-ee.greedy.jsonl.gz"
    ).subset(set_name)
    for name in ("agreement", "patience_transcript:patience=1"):
        scores_NE = get_criterion(name).scores(trace.evidence)
        chosen_N = first_exit(scores_NE, 0.0)
        errors = trace.errors_NE[np.arange(len(trace)), chosen_N].sum()
        assert 100 * errors / trace.words_N.sum() == pytest.approx(
            wer, abs=5e-4
        )
        assert trace.layers_E[chosen_N].mean() == pytest.approx(
            layers, abs=5e-4
        )
