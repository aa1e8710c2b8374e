"""What the utterances of a batch have passed, and which are still in it.

Axes: B utterances that are still in the batch.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding.beam_search import NBest
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.inference.live.gathered import Gathered
from speechbrain_ee.models.heads import ExitOutput


@dataclass
class Passed:
    """What the utterances that are still in the batch have passed."""

    rows: list[int]  # of the original batch
    exits: list[int] = field(default_factory=list)  # whose heads ran
    scored: int = 0  # exits at which the criterion was asked
    views: list[ExitView] = field(default_factory=list)
    gathered: Gathered = field(default_factory=Gathered)
    score_B: NDArray[np.float64] | None = None
    nbest: list[NBest] | None = None
    searches: list[int] = field(default_factory=list)  # MACs by row

    def __post_init__(self) -> None:
        self.searches = [0] * len(self.rows)

    def charge(self, macs: Sequence[int]) -> None:
        """Count what searching has cost."""
        self.searches = [sum(both) for both in zip(self.searches, macs)]

    def evidence(self, layers: Sequence[int]) -> Evidence:
        """What is known of the utterances that are still in."""
        return self.gathered.evidence(
            layers[: self.scored], self.rows, "live evidence"
        )

    def select(self, keep: NDArray[np.int64]) -> None:
        """Forget the utterances that have left."""
        self.rows = [self.rows[place] for place in keep]
        self.searches = [self.searches[place] for place in keep]
        self.gathered.select(keep)
        views: list[ExitView] = []
        for view in self.views:
            views.append(ExitView(chosen_rows(view.output, keep), views))
        self.views = views


def chosen_rows(output: ExitOutput, keep: NDArray[np.int64]) -> ExitOutput:
    """Some utterances of an exit, trimmed to the longest of them."""
    if len(keep) == len(output.lengths_B):
        return output
    at = torch.from_numpy(keep).to(output.lengths_B.device)
    lengths_B = output.lengths_B[at]
    frames = int(lengths_B.max())
    hidden = output.hidden_BTD
    return replace(
        output,
        log_probs_BTV=output.log_probs_BTV[at, :frames],
        lengths_B=lengths_B,
        hidden_BTD=None if hidden is None else hidden[at, :frames],
    )
