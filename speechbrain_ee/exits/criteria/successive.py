"""Hypotheses and successive exits: how probable, how far apart, since when.

The window rule (after Berrebbi et al. 2023, arXiv 2211.08989): keep a window
of exits, at first the first one. D is the largest distance from the new exit
to the window. If D <= tau the new exit joins the window, else it takes the
place of the oldest member. Stop at P + 1 members, with the newest.

As a criterion with a threshold: the score of an exit is -tau for the smallest
tau with which the rule has stopped at or before it. The window is always the
last L exits, and L grows with tau. So with T_k(L) the smallest tau for a
window of at least L members after exit k,

    T_(k+1)(L) = min(T_k(L), max(T_k(L - 1), D_(k+1)(L - 1)))

where D_(k+1)(L) is the largest distance to the L exits before; T_1(1) is
minus infinity, T_1(L > 1) infinity.

Axes: B utterances of a batch, N of a table, E exits, T frames, V vocabulary
entries, D model width.

Authors
 * The speechbrain-ee contributors 2026
"""

from __future__ import annotations  # a device without torch reads criteria

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.criteria.registry import criterion, measure
from speechbrain_ee.exits.evidence import Evidence

if TYPE_CHECKING:
    from torch import Tensor

    from speechbrain_ee.exits.criteria.view import ExitView

# Lags at which distances between output distributions are recorded.
LAGS = (1, 2, 3, 4)
PATIENCE = "after Berrebbi et al. 2023, arXiv 2211.08989, patience"
RULE = "-(least tau for P + 1 members: join if max distance <= tau, else slide)"

Distances = Callable[[int], NDArray[np.floating]]
# What an exit with no hypothesis gets: below 50 s of 20 ms frames that are
# uniform over 32 characters (-50 * 50 * ln 32 = -8,664).
LEAST_LOG_PROB = -1e4
# Logarithm of the smallest normal fp32 number: keeps a cross-entropy finite
# where an exit rules out what an earlier one believed.
LEAST_LOG = math.log(float(np.finfo(np.float32).tiny))
_WIDTH = 768  # of hidden states where it is not known, as in old traces

FORWARD = "Graves et al. 2006, CTC forward variables, of the greedy hypothesis"


def _forward_cost(frames: Any, vocab: int) -> Any:
    """Greedy path, and 3 products at 2 U + 1 states a frame, U = T / 3.

    15 characters a second at 50 frames a second are about U = T / 3.
    """
    return frames * vocab + 2 * frames * frames + 3 * frames


@measure(
    "ctc_forward",
    higher_is_ready=True,
    source=FORWARD,
    formula="ln P_CTC(greedy hypothesis), summed over its alignments",
    cost=_forward_cost,
)
def ctc_forward(view: ExitView) -> Tensor:
    """Log posterior of the greedy hypothesis: exact, and without a beam."""
    log_prob_B = view.hypothesis_log_prob_B
    spoken_B = view.spoken_BT.any(1)
    floor_B = log_prob_B.clamp(min=LEAST_LOG_PROB)
    return floor_B.where(spoken_B, LEAST_LOG_PROB)


@measure(
    "ctc_forward_per_frame",
    higher_is_ready=True,
    source=FORWARD,
    formula="1/T ln P_CTC(greedy hypothesis)",
    cost=_forward_cost,
)
def ctc_forward_per_frame(view: ExitView) -> Tensor:
    """Log posterior by frame; ``-ln V``, of uniform frames, without tokens."""
    least = -math.log(view.vocab)
    frames_B = view.frames_BT.sum(1)
    rate_B = view.hypothesis_log_prob_B / frames_B.clamp(min=1)
    return rate_B.clamp(min=least).where(view.spoken_BT.any(1), least)


@measure(
    "hidden_cosine",
    higher_is_ready=True,
    source="Zaiem et al. 2023, arXiv 2303.06740, layer similarity",
    formula="1/T sum_t cos(h_t, h_t of the previous exit)",
    cost=lambda frames, vocab, width=_WIDTH: 3 * frames * width,
    earlier=1,
    hidden=True,
)
def hidden_cosine(view: ExitView) -> Tensor:
    """Mean over frames of the cosine of successive exits' hidden states."""
    from torch.nn import functional

    now_BTD = view.output.hidden_BTD.float()
    # fewer utterances may have made the batch shorter since
    before_BTD = view.earlier[-1].output.hidden_BTD[:, : now_BTD.shape[1]]
    cosine_BT = functional.cosine_similarity(
        now_BTD, before_BTD.float(), dim=-1
    )
    return view.mean(cosine_BT, view.spoken_BT, -1.0)


def cross_entropy(view: ExitView, lag: int) -> Tensor:
    """Cross-entropy of two exits' output distributions in nats per frame.

    The probabilities of the exit ``lag`` earlier are the weights.
    """
    now_BTV = view.log_probs_BTV.clamp(min=LEAST_LOG)
    before_BTV = view.earlier[-lag].probs_BTV[:, : now_BTV.shape[1]]
    value_BT = -(before_BTV * now_BTV).sum(-1)
    return view.mean(value_BT, view.spoken_BT, -LEAST_LOG)


for _lag in LAGS:
    measure(
        f"cross_entropy_{_lag}",
        source="after Berrebbi et al. 2023, arXiv 2211.08989, patience",
        formula=f"-1/T sum_t sum_v p_(k-{_lag}) ln p_k",
        earlier=_lag,
    )(lambda view, lag=_lag: cross_entropy(view, lag))


@criterion(
    "agreement",
    needs=("transcripts",),
    formula="-CER(transcript, transcript of the previous exit), at least -1",
    source="after Zhou et al. 2020, arXiv 2006.04152, patience 1",
)
def agreement(evidence: Evidence) -> NDArray[np.float64]:
    """How little the transcript has changed since the previous exit.

    0 where nothing has, -1 where everything has or nothing was recognised; NaN
    at the first exit.
    """
    return -_transcript_distance(evidence, 1)


@criterion(
    "patience_transcript",
    needs=("transcripts",),
    formula=f"{RULE}; distance: CER, at most 1",
    source=PATIENCE,
    ranges={"patience": (1, 100)},
)
def patience_transcript(
    evidence: Evidence, *, patience: int = 2
) -> NDArray[np.float64]:
    """Patience with the distance between transcripts."""
    return window_scores(
        lambda lag: _transcript_distance(evidence, lag),
        evidence.shape,
        patience,
    )


@criterion(
    "patience_distribution",
    needs=lambda patience: tuple(
        f"cross_entropy_{lag}" for lag in range(1, patience + 1)
    ),
    formula=f"{RULE}; distance: cross-entropy of output distributions",
    source=PATIENCE,
    ranges={"patience": (1, max(LAGS))},
)
def patience_distribution(
    evidence: Evidence, *, patience: int = 2
) -> NDArray[np.float64]:
    """Patience with the distance between output distributions."""
    return window_scores(
        lambda lag: evidence.column(f"cross_entropy_{lag}"),
        evidence.shape,
        patience,
    )


def window_scores(
    distances: Distances, shape: tuple[int, int], patience: int
) -> NDArray[np.float64]:
    """Scores (N, E) of the window rule for every tau at once.

    ``score >= -tau`` from the exit on at which the rule with tau stops.
    ``distances`` gives those (N, E) to the exit so many earlier.
    """
    rows, exits = shape
    by_lag = {
        lag: np.asarray(distances(lag), dtype=np.float64)
        for lag in range(1, min(patience, exits - 1) + 1)
    }
    # least tau for a window of L members, L = 1 to P + 1
    least = [np.full(rows, np.inf) for _ in range(patience + 1)]
    least[0] = np.full(rows, -np.inf)
    scores_NE = np.full(shape, -np.inf)
    for place in range(1, exits):
        reached, worst_N = [least[0]], np.full(rows, -np.inf)
        for members in range(1, min(patience, place) + 1):
            worst_N = np.maximum(worst_N, by_lag[members][:, place])
            joined_N = np.maximum(least[members - 1], worst_N)
            reached.append(np.minimum(least[members], joined_N))
        least = reached + least[len(reached) :]
        scores_NE[:, place] = -least[patience]
    return scores_NE


def _transcript_distance(evidence: Evidence, lag: int) -> NDArray[np.float64]:
    """CER between exits; at most 1, what nothing recognised counts as.

    A short early transcript would make it larger, but a change of everything
    is not less of an agreement than an empty transcript.
    """
    return np.minimum(evidence.change_NE(lag), 1.0)
