"""What holds for every measure, whatever an exit puts out.

Ranges, the direction of readiness, and changes of the input that a formula
must not, or must, notice. Written without any formula of the measures.

Axes: B utterances, T frames, V vocabulary entries, D model width.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.exits.criteria import (
    get_criterion,
    get_measure,
    measure_names,
)
from speechbrain_ee.exits.criteria.successive import LEAST_LOG, LEAST_LOG_PROB
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.models.heads import ExitOutput

EXITS, D = 5, 4
FEW = settings(max_examples=20, deadline=None, derandomize=True)
SURENESS = st.sampled_from([0.3, 1, 3, 12])
OWN = tuple(
    name
    for name in measure_names()
    if get_measure(name).function.__module__.rpartition(".")[2]
    in ("frames", "successive")
)
# of frames alone: neither hidden states, earlier exits nor alignments
FRAMES = tuple(
    name
    for name in OWN
    if not get_measure(name).earlier and not name.startswith("ctc_forward")
)
# no frame, or nothing but blanks: what "least ready" is
RANGES = {
    "entropy": lambda vocab: (0, math.log(vocab) / vocab),
    "entropy_nats": lambda vocab: (0, math.log(vocab)),
    "entropy_nonblank": lambda vocab: (0, math.log(vocab) / vocab),
    "tsallis_mean": lambda vocab: (0, 1),
    "tsallis_min": lambda vocab: (0, 1),
    "max_prob": lambda vocab: (1 / vocab, 1),
    "max_prob_nonblank": lambda vocab: (1 / vocab, 1),
    "margin": lambda vocab: (0, 1),
    "margin_nonblank": lambda vocab: (0, 1),
    "token_quantile": lambda vocab: (1 / vocab, 1),
    "token_quantile_nonblank": lambda vocab: (1 / vocab, 1),
    "ctc_forward": lambda vocab: (LEAST_LOG_PROB, 0),
    "ctc_forward_per_frame": lambda vocab: (-math.log(vocab), 0),
    "hidden_cosine": lambda vocab: (-1, 1),
    **{
        f"cross_entropy_{lag}": lambda vocab: (0, -LEAST_LOG)
        for lag in range(1, EXITS)
    },
}


@dataclass(frozen=True)
class Utterance:
    """What successive exits put out, and where the blank is."""

    log_probs_ETV: torch.Tensor
    hidden_ETD: torch.Tensor
    blank: int

    def changed(self, log_probs_ETV: torch.Tensor) -> "Utterance":
        """The same with other distributions."""
        return Utterance(log_probs_ETV, self.hidden_ETD, self.blank)

    def at(self, frames_T: torch.Tensor) -> "Utterance":
        """The frames at some places, in their order."""
        return Utterance(
            self.log_probs_ETV[:, frames_T],
            self.hidden_ETD[:, frames_T],
            self.blank,
        )


@st.composite
def utterances(draw, vocab=None):
    """Distributions from nearly uniform to nearly certain, none impossible."""
    frames = draw(st.integers(1, 9))
    vocab = draw(st.integers(2, 6)) if vocab is None else vocab
    random = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    logits = torch.randn(EXITS, frames, vocab, generator=random)
    return Utterance(
        (draw(SURENESS) * logits).log_softmax(-1),
        torch.randn(EXITS, frames, D, generator=random),
        draw(st.sampled_from([0, vocab - 1])),
    )


def measured(name, batch, extra=0, fill=0.0):
    """A measure at the last of the exits, of a padded batch."""
    lengths_B = torch.tensor([u.log_probs_ETV.shape[1] for u in batch])
    frames = int(lengths_B.max()) + extra
    views = []
    for k in range(EXITS):
        log_probs, hidden = (
            torch.full((len(batch), frames, width), fill)
            for width in (batch[0].log_probs_ETV.shape[-1], D)
        )
        for row, utterance in enumerate(batch):
            log_probs[row, : lengths_B[row]] = utterance.log_probs_ETV[k]
            hidden[row, : lengths_B[row]] = utterance.hidden_ETD[k]
        output = ExitOutput(
            log_probs, lengths_B, 2 * k, batch[0].blank, hidden_BTD=hidden
        )
        views.append(ExitView(output, views))
    return get_measure(name).function(views[-1])


def scored(name, value):
    """What the criterion of a measure makes of its value."""

    class Column:
        def column(self, _):
            return np.array([[float(value)]])

    return float(get_criterion(name).scores(Column())[0, 0])


def emits(utterance):
    """Whether the last exit says anything."""
    best_T = utterance.log_probs_ETV[-1].argmax(-1)
    return bool((best_T != utterance.blank).any())


def test_every_measure_has_a_range():
    assert set(RANGES) == set(OWN)


@pytest.mark.parametrize("name", OWN)
@FEW
@given(utterances())
def test_range(name, utterance):
    vocab = utterance.log_probs_ETV.shape[-1]
    low, high = RANGES[name](vocab)
    value = measured(name, [utterance]).item()
    if emits(utterance):
        assert low - 1e-5 <= value <= high + 1e-5
    elif name in FRAMES:
        # as little ready as anything, or less: probability 0, all entropy
        least = min(scored(name, low), scored(name, high))
        assert scored(name, value) <= least + 1e-6


@pytest.mark.parametrize("name", OWN)
@FEW
@given(
    st.integers(2, 5).flatmap(
        lambda vocab: st.lists(utterances(vocab=vocab), min_size=1, max_size=4)
    ),
    st.integers(0, 3),
    st.sampled_from([0.0, math.nan, math.inf, -math.inf]),
)
def test_alone_as_in_any_batch(name, batch, extra, fill):
    batch = [
        Utterance(u.log_probs_ETV, u.hidden_ETD, batch[0].blank) for u in batch
    ]
    alone_B = torch.cat([measured(name, [one]) for one in batch])
    together_B = measured(name, batch, extra, fill)
    assert torch.allclose(alone_B, together_B, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FRAMES)
@FEW
@given(utterances(), st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_closer_to_uniform_is_never_more_ready(name, utterance, shares):
    """Mixed with a uniform distribution, which leaves the best token."""
    probs = utterance.log_probs_ETV.exp()
    vocab = probs.shape[-1]
    scores = []
    for share in sorted(shares):
        share = 0.9 * share  # at 1 there is no best token any more
        mixed = ((1 - share) * probs + share / vocab).log()
        value = measured(name, [utterance.changed(mixed)]).item()
        scores.append(scored(name, value))
    assert scores[1] <= scores[0] + 1e-5


@pytest.mark.parametrize("name", OWN)
@FEW
@given(utterances(vocab=5), st.permutations(range(4)))
def test_names_of_the_tokens_mean_nothing(name, utterance, order):
    others = [v for v in range(5) if v != utterance.blank]
    places = torch.arange(5)
    places[others] = torch.tensor([others[n] for n in order])
    renamed = utterance.changed(utterance.log_probs_ETV[..., places])
    value, same = measured(name, [utterance]), measured(name, [renamed])
    assert torch.allclose(value, same, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FRAMES)
@FEW
@given(utterances(), st.data())
def test_order_of_the_frames_means_nothing(name, utterance, data):
    frames = utterance.log_probs_ETV.shape[1]
    order = data.draw(st.permutations(range(frames)))
    moved = utterance.at(torch.tensor(order))
    value, same = measured(name, [utterance]), measured(name, [moved])
    assert torch.allclose(value, same, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", [n for n in OWN if "quantile" not in n and "ctc" not in n]
)
@FEW
@given(utterances(), st.integers(2, 3))
def test_means_do_not_grow_with_length(name, utterance, times):
    """Every frame several times: the same mean, the same extreme."""
    frames_T = torch.arange(utterance.log_probs_ETV.shape[1])
    longer = utterance.at(frames_T.repeat_interleave(times))
    value, same = measured(name, [utterance]), measured(name, [longer])
    assert torch.allclose(value, same, rtol=1e-4, atol=1e-5)


@FEW
@given(utterances(), st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_a_higher_quantile_is_never_lower(utterance, shares):
    shares = [0.0, *sorted(shares), 1.0]
    for kind, mean in (("", "max_prob"), ("_nonblank", "max_prob_nonblank")):
        values = [
            measured(f"token_quantile{kind}:q={q}", [utterance]).item()
            for q in shares
        ]
        assert all(a <= b + 1e-6 for a, b in zip(values, values[1:]))
        average = measured(mean, [utterance]).item()
        assert values[0] - 1e-6 <= average <= values[-1] + 1e-6


@FEW
@given(utterances())
def test_measures_that_bound_each_other(utterance):
    value = {name: measured(name, [utterance]).item() for name in OWN}
    vocab = utterance.log_probs_ETV.shape[-1]
    assert value["entropy_nats"] == pytest.approx(vocab * value["entropy"])
    assert value["tsallis_mean"] <= value["tsallis_min"] + 1e-6
    for kind in ("", "_nonblank"):
        assert value[f"margin{kind}"] <= value[f"max_prob{kind}"] + 1e-6
    if not emits(utterance):
        return
    # the greedy path is one of the alignments of its hypothesis
    path = utterance.log_probs_ETV[-1].amax(-1).sum().item()
    assert value["ctc_forward"] >= path - 1e-3
    frames = utterance.log_probs_ETV.shape[1]
    assert value["ctc_forward_per_frame"] >= path / frames - 1e-4
    # Gibbs: an exit is best described by itself
    before = utterance.log_probs_ETV[-2]
    entropy = -(before.exp() * before).sum(-1).mean().item()
    assert value["cross_entropy_1"] >= entropy - 1e-4


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("vocab", [2, 3, 7])
def test_uniform_frames_reach_the_end_of_the_range(name, vocab):
    """A token ahead by a hair, so that it is not the blank that wins."""
    log_probs = torch.full((EXITS, 4, vocab), 1 / vocab).log()
    log_probs[..., 1] += 1e-6
    uniform = Utterance(log_probs, torch.zeros(EXITS, 4, D), 0)
    least = min(scored(name, end) for end in RANGES[name](vocab))
    found = scored(name, measured(name, [uniform]).item())
    assert found == pytest.approx(least, abs=1e-5)


def test_blank_is_the_first_token_unless_said_otherwise():
    """As in what a test or an exported model hands over."""
    log_probs_BTV = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]]).log()
    bare = SimpleNamespace(
        log_probs_BTV=log_probs_BTV, lengths_B=torch.tensor([2])
    )
    assert ExitView(bare).emitting_BT.tolist() == [[False, True]]
