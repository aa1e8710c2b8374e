"""The evidence of a set of utterances: what a score may be computed from.

A table of a whole test set (:attr:`Trace.evidence
<speechbrain_ee.exits.trace.Trace.evidence>`) and a batch that stands at exit
k look the same to a criterion: utterances x exits 1 to k. That is why a
score must not depend on later exits (``criterion(evidence.upto(k))`` equals
the first k columns of ``criterion(evidence)``).

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from speechbrain_ee.errors import InputError


@dataclass(frozen=True)
class Evidence:
    """What exits 1 to E have shown of N utterances.

    Arguments
    ---------
    layers_E : array of shape (E,)
        Encoder layer of each exit.
    ids : sequence of str
        Names of the utterances.
    values : mapping of str to array of shape (N, E)
        Raw measurements; NaN in the first columns where a measure needs
        earlier exits.
    hyps : sequence of N sequences of E str, optional
        Transcripts.
    source : str
        Where it comes from, for messages.

    Example
    -------
    >>> evidence = Evidence(
    ...     layers_E=np.array([2, 4]),
    ...     ids=["u1"],
    ...     values={"entropy": np.array([[0.4, 0.1]])},
    ...     hyps=[["a cat", "the cat"]],
    ... )
    >>> evidence.upto(1).column("entropy").tolist()
    [[0.4]]
    >>> evidence.change_NE(1).round(2).tolist()
    [[nan, 0.6]]
    """

    layers_E: NDArray[np.integer]
    ids: Sequence[str]
    values: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    hyps: Sequence[Sequence[str]] | None = None
    source: str = "evidence"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int]:
        """Utterances and exits."""
        return len(self.ids), len(self.layers_E)

    @cached_property
    def names(self) -> frozenset[str]:
        """What criteria can ask for; ``transcripts`` if there are any."""
        transcripts = ["transcripts"] if self.hyps is not None else []
        return frozenset([*self.values, *transcripts])

    def column(self, name: str) -> NDArray[np.floating]:
        """Raw measurements of one kind, shape (N, E); InputError without."""
        if name not in self.values:
            listed = ", ".join(sorted(self.values)) or "none"
            raise InputError(
                f"{self.source}: no evidence {name!r} at every exit of every "
                f"utterance; evidence present: {listed}."
            )
        return self.values[name]

    def transcripts(self) -> Sequence[Sequence[str]]:
        """N sequences of E transcripts; InputError if there are none."""
        if self.hyps is None:
            raise InputError(
                f"{self.source}: no transcripts (`hyp` is not there at every "
                f"exit), which this criterion needs."
            )
        return self.hyps

    def change_NE(self, lag: int) -> NDArray[np.float64]:
        """Character error rate of each exit's transcript against an earlier.

        Edits between the two transcripts by the characters of the earlier
        one; NaN in the first ``lag`` columns, read-only. An empty transcript
        agrees with nothing (the change from and to it is 1), so that exits
        that have not learnt anything yet never look settled.
        """
        if lag < 1:
            raise ValueError(f"lag {lag}: an earlier exit has a lag of 1 on")
        if lag not in self._changes:
            change_NE = np.full(self.shape, np.nan)
            for row, texts in enumerate(self.transcripts()):
                for place in range(lag, len(texts)):
                    change_NE[row, place] = text_change(
                        texts[place - lag], texts[place]
                    )
            change_NE.setflags(write=False)  # callers share it
            self._changes[lag] = change_NE
        return self._changes[lag]

    def upto(self, exits: int) -> "Evidence":
        """What was known after so many exits."""
        return self._cut(np.arange(len(self)), exits)

    def select(self, rows: Sequence[int] | NDArray[np.integer]) -> "Evidence":
        """The utterances at some positions."""
        return self._cut(np.asarray(rows, dtype=np.int64), None)

    def _cut(self, rows: NDArray[np.int64], exits: int | None) -> "Evidence":
        hyps = self.hyps
        part = replace(
            self,
            layers_E=self.layers_E[:exits],
            ids=[self.ids[i] for i in rows],
            values={n: v[rows, :exits] for n, v in self.values.items()},
            hyps=None if hyps is None else [hyps[i][:exits] for i in rows],
        )
        for lag, change_NE in self._changes.items():
            part._changes[lag] = change_NE[rows, :exits]
        return part

    def with_columns(
        self, columns: Mapping[str, NDArray[np.floating]]
    ) -> "Evidence":
        """With further measurements (N, E), or others of the same name."""
        values = {**self.values, **columns}
        part = replace(self, values={n: values[n] for n in sorted(values)})
        part._changes.update(self._changes)
        return part

    @cached_property
    def _changes(self) -> dict[int, NDArray[np.float64]]:
        return {}


def text_change(before: str, after: str) -> float:
    """Edits between two transcripts by the characters of the earlier one.

    0 where they are equal, 1 from and to an empty transcript.
    """
    if not before or not after:
        return 1.0
    if before == after:
        return 0.0
    return Levenshtein.distance(before, after) / len(before)
