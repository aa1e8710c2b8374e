"""Two exit criteria of one's own: one function each.

Axes: B utterances of a batch, T frames, N utterances of a table, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from speechbrain_ee.exits.criteria import criterion, measure
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.evidence import Evidence


@measure(
    "doubtful_share",
    formula="share of tokens with p < limit",
    source="an example",
    higher_is_ready=False,
    ranges={"limit": (0.0, 1.0)},
)
def doubtful_share(view: ExitView, *, limit: float = 0.6) -> Tensor:
    """Share of the greedy tokens that the exit is not sure of, shape (B,)."""
    doubtful_BT = (view.top2_BT2[..., 0] < limit).float()
    # An exit that says nothing is never ready: all of its tokens are doubtful.
    return view.mean(doubtful_BT, view.starts_BT, without=1.0)


@criterion(
    "lasting_doubt",
    needs=("doubtful_share",),
    formula="larger doubtful share of this exit and the one before",
    source="an example",
)
def lasting_doubt(evidence: Evidence) -> NDArray[np.float64]:
    """Ready when two exits in a row have little doubt, shape (N, E)."""
    now_NE = evidence.column("doubtful_share")
    before_NE = np.pad(now_NE, ((0, 0), (1, 0)), constant_values=1.0)[:, :-1]
    return -np.maximum(now_NE, before_NE)
