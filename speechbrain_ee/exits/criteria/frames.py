"""Measures over the frames of one exit: entropies and probabilities.

Where a formula averages over all frames, an utterance of which the exit
emits nothing counts as if its frames were undecided (``spoken_BT`` of
:class:`~speechbrain_ee.exits.criteria.view.ExitView`).

Axes: B utterances, T frames, V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

from __future__ import annotations  # a device without torch reads criteria

import math
from typing import TYPE_CHECKING

from speechbrain_ee.exits.criteria.registry import measure, per_entry

if TYPE_CHECKING:
    from torch import Tensor

    from speechbrain_ee.exits.criteria.view import ExitView

TSALLIS = "Laptev and Ginsburg 2022, arXiv 2212.08703, Tsallis entropy"
MARGIN = "after Berrebbi et al. 2023, arXiv 2211.08989, margin"


@measure(
    "entropy",
    higher_is_ready=False,
    source="Wright et al. 2024, arXiv 2309.09546, frame entropy",
    formula="-1/(T V) sum_t sum_v p ln p",
)
def entropy(view: ExitView) -> Tensor:
    """Frame entropy, normalised by frames and vocabulary."""
    worst = math.log(view.vocab) / view.vocab
    return view.mean(view.entropy_BT / view.vocab, view.spoken_BT, worst)


@measure(
    "entropy_nats",
    higher_is_ready=False,
    source="Zaiem et al. 2023, arXiv 2303.06740, entropy",
    formula="-1/T sum_t sum_v p ln p",
    same_as="entropy",
)
def entropy_nats(view: ExitView) -> Tensor:
    """Mean entropy of a frame in nats."""
    return view.mean(view.entropy_BT, view.spoken_BT, math.log(view.vocab))


@measure(
    "entropy_nonblank",
    higher_is_ready=False,
    source="after Laptev and Ginsburg 2022, arXiv 2212.08703",
    formula="-1/(|S| V) sum_(t in S) sum_v p ln p, S: argmax not blank",
)
def entropy_nonblank(view: ExitView) -> Tensor:
    """Frame entropy over the frames that emit something.

    The blank stays in the distribution of those frames: whether a frame is
    a token or nothing is a decision that can be wrong, too (a deletion).
    """
    worst = math.log(view.vocab) / view.vocab
    return view.mean(view.entropy_BT / view.vocab, view.emitting_BT, worst)


@measure(
    "max_prob",
    higher_is_ready=True,
    source="Berrebbi et al. 2023, arXiv 2211.08989, maximum probability",
    formula="1/T sum_t max_v p",
)
def max_prob(view: ExitView) -> Tensor:
    """Mean over frames of the largest probability."""
    return view.mean(view.top2_BT2[..., 0], view.spoken_BT, 0.0)


@measure(
    "max_prob_nonblank",
    higher_is_ready=True,
    source="after Laptev and Ginsburg 2022, arXiv 2212.08703",
    formula="1/|S| sum_(t in S) max_v p, S: argmax not blank",
)
def max_prob_nonblank(view: ExitView) -> Tensor:
    """Mean largest probability over the frames that emit something."""
    return view.mean(view.top2_BT2[..., 0], view.emitting_BT, 0.0)


@measure(
    "margin",
    higher_is_ready=True,
    source=MARGIN,
    formula="1/T sum_t (p_1 - p_2), p_1 >= p_2 the two largest",
)
def margin(view: ExitView) -> Tensor:
    """Mean lead of the most probable token over the next."""
    return view.mean(_margin_BT(view), view.spoken_BT, 0.0)


@measure(
    "margin_nonblank",
    higher_is_ready=True,
    source=MARGIN,
    formula="1/|S| sum_(t in S) (p_1 - p_2), S: argmax not blank",
)
def margin_nonblank(view: ExitView) -> Tensor:
    """Mean lead over the frames that emit something."""
    return view.mean(_margin_BT(view), view.emitting_BT, 0.0)


@measure(
    "token_quantile",
    higher_is_ready=True,
    source="of this project; min aggregation: Laptev and Ginsburg 2022",
    formula="q-quantile over t of max_v p",
    ranges={"q": (0.0, 1.0)},
)
def token_quantile(view: ExitView, *, q: float = 0.1) -> Tensor:
    """Low quantile over frames of the largest probability."""
    return view.quantile(view.top2_BT2[..., 0], view.spoken_BT, q, 0.0)


@measure(
    "token_quantile_nonblank",
    higher_is_ready=True,
    source="of this project; min aggregation: Laptev and Ginsburg 2022",
    formula="q-quantile over t in S of max_v p, S: argmax not blank",
    ranges={"q": (0.0, 1.0)},
)
def token_quantile_nonblank(view: ExitView, *, q: float = 0.1) -> Tensor:
    """Low quantile of the largest probability where something is emitted."""
    return view.quantile(view.top2_BT2[..., 0], view.emitting_BT, q, 0.0)


@measure(
    "tsallis_mean",
    higher_is_ready=False,
    source=TSALLIS,
    formula="1/|S| sum_(t in S) (1 - sum_v p^alpha) / (1 - V^(1 - alpha))",
    cost=per_entry(2),
    ranges={"alpha": (0.01, 10.0)},
)
def tsallis_mean(view: ExitView, *, alpha: float = 1 / 3) -> Tensor:
    """Mean Tsallis entropy of the frames that emit something.

    Divided by its largest value: 0 is certain, 1 is uniform.
    """
    return view.mean(_tsallis_BT(view, alpha), view.emitting_BT, 1.0)


@measure(
    "tsallis_min",
    higher_is_ready=False,
    source=TSALLIS,
    formula="max_(t in S) (1 - sum_v p^alpha) / (1 - V^(1 - alpha))",
    cost=per_entry(2),
    ranges={"alpha": (0.01, 10.0)},
)
def tsallis_min(view: ExitView, *, alpha: float = 1 / 3) -> Tensor:
    """Tsallis entropy of the least certain frame that emits something.

    The minimum of the confidence is the maximum of the entropy.
    """
    value_BT = _tsallis_BT(view, alpha)
    return view.quantile(value_BT, view.emitting_BT, 1.0, 1.0)


def _tsallis_BT(view: ExitView, alpha: float) -> Tensor:
    """Tsallis entropy of each frame as a share of the uniform one's."""
    # the formula is 0 / 0 at alpha = 1, and rounding spoils it close by
    if abs(alpha - 1) < 1e-3:
        return view.entropy_BT / math.log(max(view.vocab, 2))
    power_BT = view.probs_BTV.pow(alpha).sum(-1)
    return (1 - power_BT) / (1 - max(view.vocab, 2) ** (1 - alpha))


def _margin_BT(view: ExitView) -> Tensor:
    return view.top2_BT2[..., 0] - view.top2_BT2[..., -1]
