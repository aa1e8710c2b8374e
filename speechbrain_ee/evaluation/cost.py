"""What an exit costs: multiply-accumulates and parameters in closed form.

What is counted and how is said in :mod:`speechbrain_ee.evaluation.module_cost`.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

from speechbrain_ee.evaluation.module_cost import module_macs, parameter_count
from speechbrain_ee.evaluation.start_cost import start_cost
from speechbrain_ee.models.model import EarlyExitModel


class CostModel:
    """Multiply-accumulates (MACs) of a model by exit.

    Arguments
    ---------
    model : EarlyExitModel
        The model; its attention must be ``regularMHA``, ``RelPosMHAXL`` or
        ``RoPEMHA``, or that of a pre-trained encoder.
    exits : sequence of int, optional
        The exits in use, counted from 1; by default all. Heads of others are
        not run.
    """

    def __init__(
        self, model: EarlyExitModel, exits: Sequence[int] | None = None
    ):
        self.model = model
        self.encoder = model.encoder
        self.start = start_cost(model.encoder)
        every = range(1, len(model.exit_layers) + 1)
        self.exits = tuple(every if exits is None else exits)
        self._remembered: dict[int, tuple[int, ...]] = {}

    def macs(self, samples: int) -> tuple[int, ...]:
        """MACs of one utterance up to and including every exit.

        Arguments
        ---------
        samples : int
            Length of its audio in samples.

        Returns
        -------
        tuple of int
            What lies below the layers, the layers, and the CTC heads of the
            exits passed on the way: what a live early exit pays, its
            criterion and an attention decoder aside.
        """
        below = self.start.macs(samples)
        return tuple(below + macs for macs in self._above(self.frames(samples)))

    def parameters(self) -> tuple[int, ...]:
        """Parameters of the model truncated at every exit.

        Returns
        -------
        tuple of int
            A truncated model has one head of each kind, those of its exit,
            and nothing that it does not run.
        """
        return tuple(self._parameters(exit) for exit in self.exits)

    def frames(self, samples: int) -> int:
        """Encoder frames of an utterance of so many samples."""
        return self.start.frames(samples)

    def layer(self, index: int, frames: int) -> int:
        """MACs of one encoder layer.

        Arguments
        ---------
        index : int
            The layer, from 0.
        frames : int
            Encoder frames.

        Returns
        -------
        int
            Weights times frames, and the products of attention.
        """
        return module_macs(self.encoder.layers[index], frames)

    def head(self, exit: int, frames: int) -> int:
        """MACs of an exit's head; exits count from 1."""
        parts = self.model.heads.parts(exit)
        return sum(module_macs(part, frames) for part in parts)

    def _above(self, frames: int) -> tuple[int, ...]:
        # Not lru_cache: what holds one cannot be pickled.
        if frames not in self._remembered:
            self._remembered[frames] = self._exits(frames)
        return self._remembered[frames]

    def _exits(self, frames: int) -> tuple[int, ...]:
        macs, depth, exits = 0, 0, []
        for exit in self.model.reads(self.exits):
            layer = self.model.exit_layers[exit - 1]
            macs += sum(self.layer(i, frames) for i in range(depth, layer))
            macs += self.head(exit, frames)
            if exit in self.exits:
                exits.append(macs)
            depth = layer
        return tuple(exits)

    def _parameters(self, exit: int) -> int:
        layer, attention = (
            self.model.exit_layers[exit - 1],
            self.model.attention,
        )
        parts = [
            *self.start.parts(),
            self.encoder.layers[:layer],
            *self.model.heads.parts(exit),
        ]
        if attention is not None:
            parts += [attention.norms[exit - 1], attention.decoder(exit)]
            parts += [attention.places[exit - 1 : exit]]
        return sum(parameter_count(part) for part in parts)
