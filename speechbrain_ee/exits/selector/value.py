"""What going on is worth for a single word.

A small network over a word's features predicts, for every later exit, how
many errors that exit would take away there: +1 for a wrong word that it puts
right, -1 for a right word that it spoils. A test set has some hundred times
as many words as utterances, so this is where there is most to learn from.

Axes: N utterances, E exits, M words, F features, I inputs of the networks.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from msgspec import Meta
from msgspec.structs import replace
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn

from speechbrain_ee.exits.criteria.text import CharNgram
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.selector.words import (
    WORD_FEATURES,
    WordReader,
    WordTable,
)
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.schema import Positive, Record

_WIDTH = 48
_FOLDS = 5
_EPOCHS = 6
_BATCH = 2048
_LEARNING_RATE = 3e-3
_MEMBERS = 3  # networks that are averaged
_LIMIT = 6.0  # standard deviations beyond which a feature is cut
_FLAT, _NEVER = 1e-6, 1e9
_CHUNK = 4096  # words at a time: what a cache holds


# What single precision holds; standard deviations.
Single = Annotated[float, Meta(ge=-3.4e38, le=3.4e38)]
Scale = Annotated[float, Meta(ge=1e-38, le=3.4e38)]


class WordValue(Record, eq=False, dict=True):
    """Errors that each later exit takes away at a word."""

    exits: Positive
    mean: list[Single]  # of the features in training
    scale: list[Scale]  # their standard deviations
    # of each network that is averaged the parameters, as torch names them
    members: list[dict[str, list[Single | list[Single]]]]

    def __post_init__(self) -> None:
        count = len(WORD_FEATURES)
        if not len(self.mean) == len(self.scale) == count:
            raise ValueError(f"mean and scale need {count} numbers each")
        with torch.device("meta"):  # which draws no random numbers
            network = _network(count + self.exits, self.exits)
        parameters = network.state_dict().items()
        shapes = {name: (*each.shape,) for name, each in parameters}
        for member in self.members:
            found = {name: np.shape(each) for name, each in member.items()}
            if found != shapes:
                raise ValueError(f"a network of {found}, not of {shapes}")

    @classmethod
    def fit(
        cls,
        table: WordTable,
        gains_ME: NDArray[np.floating],
        seed: int = 0,
    ) -> "WordValue":
        """Learn from words of which it is known what each exit takes away
        (:func:`word_gains`); without any word no gain is expected anywhere.
        """
        features_MF, exits = table.features_MF, gains_ME.shape[1]
        if not len(features_MF):
            none = [0.0] * features_MF.shape[1]
            return cls(exits, none, [1.0] * len(none), [])
        mean_F = features_MF.mean(0, dtype=float).astype(np.float32)
        scale_F = features_MF.std(0, dtype=float)
        # of a feature that never varied nothing is learned
        scale_F = np.where(scale_F > _FLAT, scale_F + _FLAT, _NEVER)
        scale_F = scale_F.astype(np.float32)
        value = cls(exits, mean_F.tolist(), scale_F.tolist(), [])
        inputs = torch.from_numpy(value.inputs(table).T.copy())
        targets = torch.from_numpy(gains_ME.astype(np.float32))
        exit_M1 = torch.from_numpy(table.exit_M).unsqueeze(1)
        # an exit is asked about later exits only
        later_ME = (torch.arange(exits) > exit_M1).float()
        # the caller's random numbers stay as they are
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trained = [
                _trained(inputs, targets, later_ME) for _ in range(_MEMBERS)
            ]
        return replace(value, members=trained)

    def predict(self, table: WordTable) -> NDArray[np.float32]:
        """Expected gains (M, E); columns up to a word's own exit hold no
        meaning.
        """
        inputs_IM = self.inputs(table)
        gains_ME = np.zeros((inputs_IM.shape[1], self.exits), dtype=np.float32)
        if not self.members:
            return gains_ME
        for start in range(0, len(gains_ME), _CHUNK):
            words = slice(start, start + _CHUNK)
            gains_ME[words] = self._forward(inputs_IM[:, words]).T
        return gains_ME

    def inputs(self, table: WordTable) -> NDArray[np.float32]:
        """Standardised features and the exit, shape (I, M)."""
        words, features = table.features_MF.shape
        inputs_IM = np.empty((features + self.exits, words), np.float32)
        scaled_FM = inputs_IM[:features]
        mean_F1, scale_F1 = self._standard_2F1
        np.subtract(table.features_MF.T, mean_F1, out=scaled_FM)
        np.divide(scaled_FM, scale_F1, out=scaled_FM)
        np.maximum(scaled_FM, -_LIMIT, out=scaled_FM)
        np.minimum(scaled_FM, _LIMIT, out=scaled_FM)
        exits_E1 = np.arange(self.exits)[:, None]
        np.equal(exits_E1, table.exit_M, out=inputs_IM[features:])
        return inputs_IM

    def _forward(self, inputs_IM: NDArray[np.float32]) -> NDArray[np.float32]:
        """All members at once, in numpy: for the few words of a transcript
        torch would take longer to start its operations than to do them.
        """
        (first, bias1), (second, bias2), (third, bias3) = self._layers
        hidden = _silu_of_twice(first @ inputs_IM + bias1)
        hidden = hidden.reshape(len(self.members), _WIDTH, -1)
        hidden = _silu_of_twice(second @ hidden + bias2)
        return third @ hidden.reshape(len(third[0]), -1) + bias3

    @cached_property
    def _standard_2F1(self) -> NDArray[np.float32]:
        return np.array([self.mean, self.scale], np.float32)[:, :, None]

    @cached_property
    def _layers(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weights and biases of the members one below the other.

        Those before a SiLU are halved, which it would do otherwise; the last
        layer takes the mean of the members.
        """
        bias1, first, bias2, second, bias3, third = (
            np.array([member[name] for member in self.members], np.float32)
            for name in sorted(self.members[0])
        )
        third, bias3 = np.concatenate(third, axis=1), bias3.mean(0)
        return [
            (np.concatenate(first) / 2, bias1.reshape(-1, 1) / 2),
            (second / 2, bias2[:, :, None] / 2),
            (third / len(self.members), bias3[:, None]),
        ]


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


def _trained(
    inputs: Tensor, targets: Tensor, weights: Tensor
) -> dict[str, list]:
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
    parameters = network.state_dict().items()
    return {name: each.tolist() for name, each in parameters}


def word_gains(evidence: Evidence, refs: Sequence[str]) -> NDArray[np.float32]:
    """Errors (M, E) that every exit takes away at every word of all exits.

    +1 where the word is wrong (or too much) and the exit has its word of the
    reference right, -1 where the word is right and the exit has lost it,
    else 0.
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
    return np.array(gains, dtype=np.float32).reshape(-1, exits)


def _meant(said: list[str], heard: list[str]) -> list[tuple[int, bool]]:
    """For each word heard its place in what was said, and if it is right."""
    found = [(-1, False)] * len(heard)
    steps = Levenshtein.opcodes(said, heard)
    for tag, start, stop, to, to_stop in steps:
        for place, word in zip(range(start, stop), range(to, to_stop)):
            found[word] = (place, tag == "equal")
    return found


def value_words(
    trace: Trace, texts: Sequence[str], references: bool, seed: int
) -> tuple[WordValue, CharNgram, WordTable, NDArray[np.float64]]:
    """Value the words of a development trace by cross-fitting over speakers.

    Gives networks that saw all words, for other utterances, and how words
    are spelt; then the words, and by networks that did not see them the
    expected gains (N, E, E) of every utterance, from exit to exit. With
    ``references`` words are spelt as in the references of other folds, too.
    """
    evidence, shape = trace.evidence, trace.evidence.shape
    fold_N = trace.clusters.folds(_FOLDS)
    folds = np.unique(fold_N)
    refs = [record.ref for record in trace.records]
    model = CharNgram.train([*texts, *(refs if references else ())])
    readers = dict.fromkeys(folds, WordReader(model))
    if references:
        for fold in folds:
            others = [ref for ref, own in zip(refs, fold_N) if own != fold]
            spelling = CharNgram.train([*texts, *(others or refs)])
            readers[fold] = WordReader(spelling)
    table = WordTable.of(
        evidence,
        (
            (row, column, readers[fold].read(tuple(hyps[: column + 1])))
            for row, (hyps, fold) in enumerate(
                zip(evidence.transcripts(), fold_N)
            )
            for column in range(shape[1])
        ),
    )
    gains_ME = word_gains(evidence, refs)
    gains_NEE = np.zeros((*shape, shape[1]))
    for fold in folds:
        seen_M = fold_N[table.utterance_M] != fold
        other = WordValue.fit(table.select(seen_M), gains_ME[seen_M], seed=seed)
        unseen = table.select(~seen_M)
        gains_NEE += unseen.totals(other.predict(unseen), shape)
    value = WordValue.fit(table, gains_ME, seed=seed)
    return value, model, table, gains_NEE
