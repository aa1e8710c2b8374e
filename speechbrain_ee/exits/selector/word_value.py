"""What going on is worth for a single word.

A small network over a word's features predicts, for every later exit, how
many errors that exit would take away there: +1 for a wrong word that it puts
right, -1 for a right word that it spoils. A test set has some hundred times
as many words as utterances, so this is where there is most to learn from.

Axes: N utterances, E exits, M words, F features.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn

from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.selector.word_table import WordTable

_WIDTH = 48
_EPOCHS = 6
_BATCH = 2048
_LEARNING_RATE = 3e-3
_MEMBERS = 3  # networks that are averaged
_LIMIT = 6.0  # standard deviations beyond which a feature is cut
_FLAT, _NEVER = 1e-6, 1e9
_CHUNK = 4096  # words at a time: what a cache holds


class WordValue:
    """Errors that each later exit takes away at a word.

    Arguments
    ---------
    exits : int
        Number of exits E.
    mean_F : array of shape (F,)
        Means of the features in training.
    scale_F : array of shape (F,)
        Their standard deviations.
    members : sequence of torch.nn.Sequential
        Networks whose predictions are averaged.
    """

    def __init__(
        self,
        exits: int,
        mean_F: NDArray[np.float32],
        scale_F: NDArray[np.float32],
        members: Sequence[nn.Sequential],
    ):
        self.exits = exits
        self.mean_F, self.scale_F = mean_F, scale_F
        self.members = tuple(members)

    @classmethod
    def fit(
        cls,
        table: WordTable,
        gains_ME: NDArray[np.floating],
        members: int = _MEMBERS,
        seed: int = 0,
    ) -> "WordValue":
        """Learn from words of which the gains are known.

        Arguments
        ---------
        table : WordTable
            The words.
        gains_ME : array of shape (M, E)
            What each exit takes away; see :func:`word_gains`.
        members : int
            How many networks are averaged.
        seed : int
            Of their initial weights and batches.

        Returns
        -------
        WordValue
            Without any word it expects no gain anywhere.
        """
        features_MF, exits = table.features_MF, gains_ME.shape[1]
        if not len(features_MF):
            none_F = np.zeros(features_MF.shape[1], dtype=np.float32)
            return cls(exits, none_F, none_F + 1, ())
        mean_F = features_MF.mean(0, dtype=float).astype(np.float32)
        scale_F = features_MF.std(0, dtype=float)
        # of a feature that never varied nothing is learned
        scale_F = np.where(scale_F > _FLAT, scale_F + _FLAT, _NEVER)
        scale_F = scale_F.astype(np.float32)
        value = cls(exits, mean_F, scale_F, ())
        inputs = torch.from_numpy(value._inputs(table).T.copy())
        targets = torch.from_numpy(gains_ME.astype(np.float32))
        exit_M1 = torch.from_numpy(table.exit_M).unsqueeze(1)
        # an exit is asked about later exits only
        later_ME = (torch.arange(exits) > exit_M1).float()
        # the caller's random numbers stay as they are
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            value.members = tuple(
                _train(inputs, targets, later_ME) for _ in range(members)
            )
        return value

    def predict(self, table: WordTable) -> NDArray[np.float32]:
        """Expected gains.

        Arguments
        ---------
        table : WordTable
            The words.

        Returns
        -------
        array of shape (M, E)
            Errors that each exit takes away; columns up to a word's own
            exit hold no meaning.
        """
        inputs_IM = self._inputs(table)
        gains_ME = np.zeros((inputs_IM.shape[1], self.exits), dtype=np.float32)
        if not self.members:
            return gains_ME
        for start in range(0, len(gains_ME), _CHUNK):
            words = slice(start, start + _CHUNK)
            gains_ME[words] = self._forward(inputs_IM[:, words]).T
        return gains_ME

    def _forward(self, inputs_IM: NDArray[np.float32]) -> NDArray[np.float32]:
        """All members at once, in numpy: for the few words of a transcript
        torch would take longer to start its operations than to do them."""
        (first, bias1), (second, bias2), (third, bias3) = self._layers
        hidden = _silu_of_twice(first @ inputs_IM + bias1)
        hidden = hidden.reshape(len(self.members), _WIDTH, -1)
        hidden = _silu_of_twice(second @ hidden + bias2)
        return third @ hidden.reshape(len(third[0]), -1) + bias3

    @cached_property
    def _layers(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weights and biases of the members one below the other.

        Those before a SiLU are halved, which it would do otherwise; the last
        layer takes the mean of the members.
        """
        members = (
            [weight.detach().numpy() for weight in member.parameters()]
            for member in self.members
        )
        stacked = map(np.stack, zip(*members, strict=True))
        first, bias1, second, bias2, third, bias3 = stacked
        third, bias3 = np.concatenate(third, axis=1), bias3.mean(0)
        return [
            (np.concatenate(first) / 2, bias1.reshape(-1, 1) / 2),
            (second / 2, bias2[:, :, None] / 2),
            (third / len(self.members), bias3[:, None]),
        ]

    def totals(
        self, table: WordTable, shape: tuple[int, int]
    ) -> NDArray[np.float64]:
        """Expected gains summed over the words of a transcript.

        Arguments
        ---------
        table : WordTable
            The words.
        shape : tuple of int
            Utterances and exits.

        Returns
        -------
        array of shape (N, E, E)
            From each exit (second axis) to each exit (third).
        """
        return table.totals(self.predict(table), shape)

    def to_dict(self) -> dict[str, Any]:
        """All of it as lists and numbers."""
        return {
            "exits": self.exits,
            "mean": self.mean_F.tolist(),
            "scale": self.scale_F.tolist(),
            "members": [
                {name: t.tolist() for name, t in member.state_dict().items()}
                for member in self.members
            ],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "WordValue":
        """What :meth:`to_dict` gave.

        Arguments
        ---------
        data : dict
            Lists and numbers.

        Returns
        -------
        WordValue
        """
        mean_F = np.array(data["mean"], dtype=np.float32)
        members = []
        for weights in data["members"]:
            member = _network(len(mean_F) + data["exits"], data["exits"])
            member.load_state_dict(
                {name: torch.tensor(value) for name, value in weights.items()}
            )
            members.append(member.eval())
        scale_F = np.array(data["scale"], dtype=np.float32)
        return cls(data["exits"], mean_F, scale_F, members)

    def _inputs(self, table: WordTable) -> NDArray[np.float32]:
        """Standardised features and the exit, shape (F + E, M)."""
        words, features = table.features_MF.shape
        inputs_IM = np.empty((features + self.exits, words), np.float32)
        scaled_FM = inputs_IM[:features]
        np.subtract(table.features_MF.T, self.mean_F[:, None], out=scaled_FM)
        np.divide(scaled_FM, self.scale_F[:, None], out=scaled_FM)
        np.maximum(scaled_FM, -_LIMIT, out=scaled_FM)
        np.minimum(scaled_FM, _LIMIT, out=scaled_FM)
        exits_E1 = np.arange(self.exits)[:, None]
        np.equal(exits_E1, table.exit_M, out=inputs_IM[features:])
        return inputs_IM


def word_gains(
    evidence: Evidence, refs: Sequence[str], table: WordTable
) -> NDArray[np.float32]:
    """Errors that every exit takes away at every word.

    Arguments
    ---------
    evidence : Evidence
        With the transcripts that the words come from.
    refs : sequence of N str
        What was said.
    table : WordTable
        Words of all exits of the evidence.

    Returns
    -------
    array of shape (M, E)
        +1 where the word is wrong (or too much) and the exit has its word
        of the reference right, -1 where the word is right and the exit has
        lost it, else 0.
    """
    gains = []
    exits = evidence.shape[1]
    for ref, texts in zip(refs, evidence.transcripts(), strict=True):
        said = ref.lower().split()
        meant = [_meant(said, text.lower().split()) for text in texts]
        right_EW = np.zeros((exits, len(said) + 1))
        for exit_, words in enumerate(meant):
            for place, is_right in words:
                if is_right:
                    right_EW[exit_, place] = 1
        # The last column stands for words that nobody said: any exit may
        # be without them.
        right_EW[:, -1] = 1
        for words in meant:
            for place, is_right in words:
                gains.append(right_EW[:, place] - is_right)
    assert len(gains) == len(table.exit_M)
    return np.array(gains, dtype=np.float32).reshape(-1, exits)


def _meant(said: list[str], heard: list[str]) -> list[tuple[int, bool]]:
    """For each word heard its place in what was said, and if it is right."""
    found = [(-1, False)] * len(heard)
    for tag, start, stop, to, _ in Levenshtein.opcodes(said, heard):
        for step in range(stop - start):
            if tag in ("equal", "replace"):
                found[to + step] = (start + step, tag == "equal")
    return found


def _silu_of_twice(half: NDArray[np.float32]) -> NDArray[np.float32]:
    return half + half * np.tanh(half)  # no overflow, as x / (1 + e^-x) has


def _network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, _WIDTH),
        nn.SiLU(),
        nn.Linear(_WIDTH, _WIDTH),
        nn.SiLU(),
        nn.Linear(_WIDTH, outputs),
    )


def _train(inputs: Tensor, targets: Tensor, weights: Tensor) -> nn.Sequential:
    """Least squares over the later exits of every word."""
    network = _network(inputs.shape[1], targets.shape[1])
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=_LEARNING_RATE, weight_decay=1e-3
    )
    batches = -(-len(inputs) // _BATCH)
    # a small set is gone over more often
    epochs = max(_EPOCHS, -(-_EPOCHS * 8 // batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, _LEARNING_RATE, total_steps=epochs * batches
    )
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(_BATCH):
            missed = network(inputs[rows]) - targets[rows]
            loss = (missed**2 * weights[rows]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()
