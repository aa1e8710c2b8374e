"""What a learned selector sees of a transcript as a whole.

What an exit showed does not change at the exits after it: the features of a
transcript are computed once, when its exit has been passed, and read again
at the next one.

Axes: N utterances, E exits, M words, P features, Q sums over words.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.evidence import Evidence, text_change
from speechbrain_ee.exits.selector.word_table import WORD_FEATURES, WordTable
from speechbrain_ee.exits.selector.word_value import WordValue
from speechbrain_ee.exits.selector.words import WordReader

_SUMMED = [
    WORD_FEATURES.index(name)
    for name in (
        "letters",
        "unseen",
        "spelling_total",
        "is_stable",
        "worst_spelling",
    )
]


@dataclass(frozen=True)
class TranscriptFeatures:
    """Features of the transcripts of one exit.

    Arguments
    ---------
    names : tuple of str
        Family and feature; the number of words comes first.
    rows : list of N lists of P float
        Their values.
    """

    names: tuple[str, ...]
    rows: list[list[float]]


Transcripts: TypeAlias = Mapping[int, TranscriptFeatures]


def read_transcripts(
    evidence: Evidence,
    columns: Sequence[int],
    reader: WordReader,
    value: WordValue,
) -> Transcripts:
    """Features of the transcripts, those that are new to the reader computed.

    Arguments
    ---------
    evidence : Evidence
        With transcripts.
    columns : sequence of int
        The exits, counted from 0.
    reader : WordReader
        Remembers the features by what they depend on.
    value : WordValue
        Values the words.

    Returns
    -------
    dict of int to TranscriptFeatures
        By column.
    """
    memory = reader.memory(value)
    found = {}
    for column in columns:
        keys = _keys(evidence, column)
        new = [row for row, key in enumerate(keys) if key not in memory]
        if new:
            table = reader.table(evidence, [column], new)
            gains_NE = table.sums(value.predict(table), len(evidence))
            for row in new:
                texts = evidence.transcripts()[row][: column + 1]
                memory[keys[row]] = _of_transcript(
                    reader.sums(texts),
                    gains_NE[row].tolist(),
                    texts[-2:],
                    column,
                )
        found[column] = TranscriptFeatures(
            _names(column, value.exits), [memory[key] for key in keys]
        )
    return found


def _keys(evidence: Evidence, column: int) -> list[Hashable]:
    """All that the features of an exit's transcripts depend on."""
    texts_N = [tuple(texts[: column + 1]) for texts in evidence.transcripts()]
    if "entropy" not in evidence.values:
        return list(texts_N)
    first = max(column - 1, 0)
    entropy_N2 = evidence.column("entropy")[:, first : column + 1]
    return list(zip(texts_N, map(tuple, entropy_N2.tolist())))


def valued_transcripts(
    evidence: Evidence, table: WordTable, gains_NEE: NDArray[np.float64]
) -> Transcripts:
    """Features of transcripts of which the words have been valued.

    Arguments
    ---------
    evidence : Evidence
        With transcripts.
    table : WordTable
        The words of all exits.
    gains_NEE : array of shape (N, E, E)
        Expected gains from exit to exit, summed over words.

    Returns
    -------
    dict of int to TranscriptFeatures
        By column, of all exits but the last.
    """
    features_MF = table.features_MF
    values_MQ = np.ones((len(features_MF), 1 + len(_SUMMED)), np.float32)
    values_MQ[:, 1:] = features_MF[:, _SUMMED]
    sums_NEQ = table.totals(values_MQ, evidence.shape).tolist()
    exits = evidence.shape[1]
    return {
        column: TranscriptFeatures(
            _names(column, exits),
            [
                _of_transcript(
                    sums_EQ[column],
                    gains_EE[column],
                    texts[max(column - 1, 0) : column + 1],
                    column,
                )
                for sums_EQ, gains_EE, texts in zip(
                    sums_NEQ, gains_NEE.tolist(), evidence.transcripts()
                )
            ],
        )
        for column in range(exits - 1)
    }


def _of_transcript(
    sums: Sequence[float],
    gains: Sequence[float],
    texts: Sequence[str],
    column: int,
) -> list[float]:
    """Features in the order of :func:`_names`.

    In plain numbers, since live there is one transcript at a time.
    ``texts`` are the one before, if there is one, and the transcript.
    """
    words, letters, unseen, spelling, stable, worst = sums
    spaced = letters + words
    means = [spelling / max(spaced, 1), worst / max(words, 1)]
    later = [gains[exit_] for exit_ in _later(column, len(gains))]
    if len(texts) < 2:  # the first exit has nothing to agree with
        return [words, letters, unseen, spelling, *means, *later]
    change = text_change(*texts)
    agreement = [change, change * spaced]
    new = words - stable
    return [words, letters, unseen, spelling, new, *means, *agreement, *later]


@lru_cache(maxsize=256)
def _later(column: int, exits: int) -> list[int]:
    """The exits asked about: the next two and the last."""
    return sorted({column + 1, min(column + 2, exits - 1), exits - 1})


@lru_cache(maxsize=256)
def _names(column: int, exits: int) -> tuple[str, ...]:
    names = [
        "length words",
        "length letters",
        "spelling unseen",
        "spelling total",
        "agreement new",
        "spelling mean",
        "spelling worst",
        "agreement change",
        "agreement edits",
    ]
    if not column:
        names = [name for name in names if not name.startswith("agreement")]
    for later in _later(column, exits):
        further = f"{later - column} further"
        names.append(
            f"words gain {'at last' if later == exits - 1 else further}"
        )
    return tuple(names)
