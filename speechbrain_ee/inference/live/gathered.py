"""What the exits passed have shown of the utterances still in a batch.

Needs no torch: the runner on PyTorch and the host on onnxruntime share it.

Axes: B utterances that are still in the batch.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.evidence import Evidence


class Gathered:
    """Measurements and transcripts by exit.

    Example
    -------
    >>> gathered = Gathered()
    >>> gathered.add({"entropy": np.array([0.1, 0.3])}, ["a cat", "the"])
    >>> gathered.select(np.array([1]))
    >>> gathered.evidence([2], [7], "an example").column("entropy")
    array([[0.3]])
    """

    def __init__(self) -> None:
        self.values: dict[str, list[NDArray[np.float64]]] = {}
        self.texts: list[list[str]] = []

    def add(
        self,
        values: Mapping[str, NDArray[np.floating]],
        texts: Sequence[str] | None,
    ) -> None:
        """Note what was measured at an exit.

        Arguments
        ---------
        values : mapping of str to array of shape (B,)
            By measure, the same ones at every exit.
        texts : sequence of B str, optional
            Transcripts, where they are read.
        """
        for name, value_B in values.items():
            exact_B = np.asarray(value_B, dtype=np.float64)
            self.values.setdefault(name, []).append(exact_B)
        if texts is not None:
            self.texts.append(list(texts))

    def evidence(
        self, layers: Sequence[int], rows: Sequence[int], source: str
    ) -> Evidence:
        """What is known of the utterances that are still in.

        Arguments
        ---------
        layers : sequence of int
            Layers of the exits passed.
        rows : sequence of B int
            Rows of the original batch.
        source : str
            For messages.

        Returns
        -------
        Evidence
        """
        return Evidence(
            np.array(layers),
            [str(row) for row in rows],
            {name: np.stack(v, axis=1) for name, v in self.values.items()},
            list(zip(*self.texts)) if self.texts else None,
            source=source,
        )

    def select(self, keep: NDArray[np.int64]) -> None:
        """Forget the utterances that have left.

        Arguments
        ---------
        keep : array of int
            The places of those that stay.
        """
        self.values = {
            name: [value_B[keep] for value_B in columns]
            for name, columns in self.values.items()
        }
        self.texts = [[texts[at] for at in keep] for texts in self.texts]
