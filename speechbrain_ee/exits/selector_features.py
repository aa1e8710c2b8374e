"""What a learned selector sees at an exit.

Axes: N utterances, E exits, P features.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.words import WordTable

# A feature's name starts with its family.
FAMILIES = ("words", "spelling", "agreement", "length", "frames")


@dataclass(frozen=True)
class ExitFeatures:
    """Features of utterances at one exit.

    Arguments
    ---------
    names : tuple of str
        Family, feature and how many exits back, for example
        ``frames entropy -1``.
    values_NP : array of shape (N, P)
        Their values.
    """

    names: tuple[str, ...]
    values_NP: NDArray[np.float64]


def exit_features(
    evidence: Evidence,
    measures: Sequence[str],
    exit_: int,
    table: WordTable | None,
    gains_NEE: NDArray[np.float64] | None,
) -> ExitFeatures:
    """Features at an exit, from what is known there.

    Arguments
    ---------
    evidence : Evidence
        At least up to that exit.
    measures : sequence of str
        Measurements to use.
    exit_ : int
        The exit's column, counted from 0.
    table : WordTable, optional
        The words.
    gains_NEE : array of shape (N, E, E), optional
        Expected gains summed over words, from exit to exit.

    Returns
    -------
    ExitFeatures
    """
    columns: dict[str, NDArray[np.floating]] = {}
    words_N = np.ones(len(evidence))
    if table is not None and gains_NEE is not None:
        _add_transcripts(columns, evidence, exit_, table, gains_NEE)
        words_N = columns["length words 0"]
    for name in measures:
        values_NE = evidence.column(name)
        here_N = values_NE[:, exit_]
        if np.isnan(here_N).any():
            continue  # compares with an exit that is not there
        columns[f"frames {name} 0"] = here_N
        columns[f"frames {name} by words"] = here_N * words_N
        before_N = values_NE[:, exit_ - 1] if exit_ else here_N
        if exit_ and not np.isnan(before_N).any():
            columns[f"frames {name} -1"] = before_N
            columns[f"frames {name} before by words"] = before_N * words_N
    return ExitFeatures(tuple(columns), np.stack([*columns.values()], axis=1))


def _add_transcripts(
    columns: dict[str, NDArray[np.floating]],
    evidence: Evidence,
    exit_: int,
    table: WordTable,
    gains_NEE: NDArray[np.float64],
) -> None:
    shape = evidence.shape
    exits = gains_NEE.shape[2]
    ones_M = np.ones(len(table.exit_M))
    totals = {
        "length words": table.total(ones_M, shape),
        "length letters": table.total(table.feature("letters"), shape),
        "spelling unseen": table.total(table.feature("unseen"), shape),
        "spelling total": table.total(table.feature("spelling_total"), shape),
        "agreement new": table.total(1 - table.feature("is_stable"), shape),
    }
    letters_NE = totals["length letters"] + totals["length words"]
    spelling_NE = totals["spelling total"] / np.maximum(letters_NE, 1)
    totals["spelling mean"] = spelling_NE
    worst_NE = table.total(table.feature("worst_spelling"), shape)
    totals["spelling worst"] = worst_NE / np.maximum(totals["length words"], 1)
    if exit_:
        change_NE = evidence.change_NE(1)
        totals["agreement change"] = np.nan_to_num(change_NE)
        totals["agreement edits"] = totals["agreement change"] * letters_NE
    for back in range(min(exit_, 1) + 1):
        place = exit_ - back
        for name, values_NE in totals.items():
            if place == 0 and name.startswith("agreement"):
                continue  # nothing to agree with
            columns[f"{name} {-back}"] = values_NE[:, place]
        for later in sorted({place + 1, min(place + 2, exits - 1), exits - 1}):
            name = f"words gain {later - place} further {-back}"
            if later == exits - 1:
                name = f"words gain at last {-back}"
            columns[name] = gains_NEE[:, place, later]
