"""What live inference computed, in multiply-accumulates.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.models.model import EarlyExitModel

# Layers and heads take a polynomial of the frames, of degree 2.
_FITTED_AT = (512, 1024, 1536)
_CHECKED_AT = (2, 100, 777, 4001)


class LiveCost:
    """MACs of an utterance that has passed some exits, for any length.

    The figures are those of :class:`speechbrain_ee.evaluation.cost.CostModel`,
    asked for a few lengths instead of for each utterance.

    Arguments
    ---------
    model : EarlyExitModel
        The model.
    """

    def __init__(self, model: EarlyExitModel):
        self.model = model
        self.below = CostModel(model)
        self._fitted: dict[tuple[int, ...], tuple[int, int, int] | None] = {}

    def macs(self, samples: int, frames: int, exits: Sequence[int]) -> int:
        """MACs of the encoder and of the CTC heads that were read.

        Arguments
        ---------
        samples : int
            Length of the audio.
        frames : int
            Encoder frames.
        exits : sequence of int
            The exits whose heads ran, from 1; the layers up to the last of
            them ran.

        Returns
        -------
        int
        """
        start = self.below.start.macs(samples)
        fitted = self._polynomial(tuple(exits))
        if fitted is None:
            return start + self._counted(frames, exits)
        constant, linear, square = fitted
        # The coefficients are halves at most.
        return start + (constant + frames * (linear + frames * square)) // 2

    def _counted(self, frames: int, exits: Sequence[int]) -> int:
        top = self.model.exit_layers[exits[-1] - 1]
        layers = sum(self.below.layer(i, frames) for i in range(top))
        read = self.model.reads(exits)
        return layers + sum(self.below.head(k, frames) for k in read)

    def _polynomial(
        self, exits: tuple[int, ...]
    ) -> tuple[int, int, int] | None:
        # Not lru_cache, with which a recogniser could not be pickled.
        if exits not in self._fitted:
            self._fitted[exits] = self._fit(exits)
        return self._fitted[exits]

    def _fit(self, exits: tuple[int, ...]) -> tuple[int, int, int] | None:
        """Twice the coefficients; None where there are none."""
        one, two, three = (self._counted(t, exits) for t in _FITTED_AT)
        step = _FITTED_AT[0]
        square, rest = divmod(one - 2 * two + three, step**2)
        slope = 2 * (two - one) - 3 * square * step**2
        linear, more = divmod(slope, step)
        constant = 2 * one - linear * step - square * step**2
        if rest or more:
            return None
        for frames in _CHECKED_AT:
            value = constant + frames * (linear + frames * square)
            if value != 2 * self._counted(frames, exits):
                return None
        return constant, linear, square
