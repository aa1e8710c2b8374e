"""Clusters: which utterances are not independent of each other.

Utterances of one speaker are alike: who is hard to recognise in one of them
is so in the next. A variance over utterances therefore says how far a result
may be off for other utterances *of the same speakers*; for new speakers it
has to be taken over speakers. Every interval, every calibration and every
cross-fit of this project asks the trace for its clusters: speakers where the
corpus names them, single utterances where it does not.

Axes: N utterances, G clusters.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError

SPEAKER, UTTERANCE = "speaker", "utterance"
# With fewer speakers, Student's t and resampling promise too much. Compared
# with the number of speakers of equal size that would tell as much.
FEW_CLUSTERS = 8


@dataclass(frozen=True)
class Clusters:
    """The utterances of a trace, grouped by what makes them alike."""

    names: tuple[str, ...]
    label_N: NDArray[np.int64]
    by: str  # `speaker` or `utterance`

    @classmethod
    def of(
        cls, speakers: Sequence[str | None], ids: Sequence[str]
    ) -> "Clusters":
        """Group by speaker; by the unique ids where no speaker is known."""
        if not any(speakers):
            return cls(tuple(ids), np.arange(len(ids)), UTTERANCE)
        keys = np.array([speaker or "" for speaker in speakers])
        names, label_N = np.unique(keys, return_inverse=True)
        return cls(tuple(names.tolist()), label_N.reshape(-1), SPEAKER)

    @classmethod
    def single(cls, utterances: int) -> "Clusters":
        """Every utterance by itself."""
        return cls.of([None] * utterances, [str(n) for n in range(utterances)])

    @property
    def count(self) -> int:
        """How many clusters G there are."""
        return len(self.names)

    @property
    def unknown(self) -> int:
        """Utterances without a speaker where others have one: one cluster
        together, which is the careful guess.
        """
        if self.by == UTTERANCE or "" not in self.names:
            return 0
        return int(self.sizes_G[self.names.index("")])

    @cached_property
    def sizes_G(self) -> NDArray[np.int64]:
        """Utterances of each cluster."""
        return np.bincount(self.label_N, minlength=self.count)

    @property
    def effective(self) -> float:
        """Clusters of equal size that would tell as much as these."""
        return float(self.sizes_G.sum() ** 2 / (self.sizes_G**2).sum())

    @property
    def few(self) -> bool:
        """Whether there are too few speakers for a promise."""
        return self.by == SPEAKER and self.effective < FEW_CLUSTERS

    @property
    def said(self) -> str:
        """What they are and how many."""
        if self.by == UTTERANCE:
            return "no speakers known"
        count = self.count - bool(self.unknown)
        text = f"{count} speaker{'' if count == 1 else 's'}"
        if self.unknown:
            text += f" and {self.unknown} utterances of unknown ones"
        return text

    @property
    def caveat(self) -> str:
        """What they cannot carry, as a sentence; empty if nothing."""
        if self.by == UTTERANCE:
            return "By utterance; no promise for new speakers."
        if self.few:
            return (
                f"{self.said}: too few for a promise about new ones, which "
                f"takes about ten."
            )
        return ""

    def sums(self, values_N: NDArray[np.number]) -> NDArray[np.number]:
        """Sums over the utterances of each cluster, (N, ...) to (G, ...)."""
        if self.by == UTTERANCE:
            return np.asarray(values_N)
        ordered_N = np.asarray(values_N)[self._order_N]
        return np.add.reduceat(ordered_N, self._starts_G, axis=0)

    def select(self, rows: NDArray[np.integer]) -> "Clusters":
        """The clusters of the utterances in some rows."""
        if self.by == UTTERANCE:
            names = tuple(self.names[row] for row in rows)
            return Clusters(names, np.arange(len(names)), UTTERANCE)
        kept, label_N = np.unique(self.label_N[rows], return_inverse=True)
        names = tuple(self.names[place] for place in kept)
        return Clusters(names, label_N.reshape(-1), self.by)

    def split(
        self, share: float, seed: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of two parts that share no cluster; share of clusters in the first."""
        mixed_G = np.random.default_rng(seed).permutation(self.count)
        first = mixed_G[: round(share * self.count)]
        in_first_N = np.isin(self.label_N, first)
        return np.flatnonzero(in_first_N), np.flatnonzero(~in_first_N)

    def folds(self, folds: int) -> NDArray[np.int64]:
        """Fold of each utterance, from 0: whole clusters, nearly equal sizes."""
        sizes = np.zeros(min(folds, self.count))
        fold_G = np.zeros(self.count, dtype=np.int64)
        # largest first, each to the fold that has least
        for place in np.argsort(-self.sizes_G, kind="stable"):
            fold_G[place] = sizes.argmin()
            sizes[fold_G[place]] += self.sizes_G[place]
        return fold_G[self.label_N]

    @cached_property
    def _order_N(self) -> NDArray[np.int64]:
        return np.argsort(self.label_N, kind="stable")

    @cached_property
    def _starts_G(self) -> NDArray[np.int64]:
        return np.concatenate([[0], self.sizes_G.cumsum()[:-1]])


def speakers_from_ids(ids: Sequence[str], source: str) -> tuple[str, ...]:
    """Speaker of each utterance, after LibriSpeech's way of naming.

    What stands before the first hyphen of ``speaker-chapter-number``. A guess,
    made only where somebody asks for it: other corpora begin their names with
    a date or a recording.
    """
    whole = next((name for name in ids if not name.partition("-")[2]), None)
    names = tuple(name.partition("-")[0] for name in ids)
    if whole is None and len(set(names)) > 1:
        return names
    why = f"{whole!r} has no hyphen"
    if whole is None:
        why = f"all begin with {names[0]!r}"
    raise InputError(
        f"{source}: speakers cannot be read from the names of the utterances "
        f"({why}); they must be like LibriSpeech's, 6930-75918-0000. Give "
        f"every utterance of the trace its speaker, or leave the option out."
    )
