"""What a learned selector sees at an exit.

Axes: N utterances, E exits, P features.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.word_table import WORD_FEATURES, WordTable

# A feature's name starts with its family.
FAMILIES = ("words", "spelling", "agreement", "length", "frames")
# Evidence that was fitted to data teaches no other fit; what is measured on
# transcripts the selector reads by itself.
DERIVED = ("learned", "combination", "plausibility", "unseen_words")
# Measures that share one pass over the probabilities. The others cost several
# times as much and were not measured to add to these.
LIGHT = (
    "entropy",
    "entropy_nonblank",
    "max_prob_nonblank",
    "margin_nonblank",
)
GREEDY = "greedy"
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

    def check(self, names: Sequence[str], source: str) -> None:
        """Raise an InputError if these are not the features of training.

        Arguments
        ---------
        names : sequence of str
            Features of training.
        source : str
            Where the evidence comes from, for the message.
        """
        if self.names != tuple(names):
            differ = sorted({*self.names} ^ {*names})
            raise InputError(
                f"{source}: {', '.join(differ) or 'the order of features'} "
                f"is not as when the learned selector was trained; train one "
                f"for this model and its evidence."
            )


@dataclass(frozen=True)
class TranscriptTotals:
    """Sums over the words of every transcript.

    Arguments
    ---------
    words_NEQ : array of shape (N, E, Q)
        Words, letters, unseen words, spelling, stable words, worst spelling.
    gains_NEE : array of shape (N, E, all exits)
        Errors that later exits are expected to take away.
    """

    words_NEQ: NDArray[np.float64]
    gains_NEE: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        table: WordTable,
        gains_NEE: NDArray[np.float64],
    ) -> "TranscriptTotals":
        """Sum up.

        Arguments
        ---------
        table : WordTable
            The words.
        gains_NEE : array of shape (N, E, all exits)
            Expected gains, summed.

        Returns
        -------
        TranscriptTotals
        """
        features_MQ = table.features_MF[:, _SUMMED]
        words_MQ = np.concatenate(
            [np.ones((len(features_MQ), 1), np.float32), features_MQ], axis=1
        )
        return cls(table.totals(words_MQ, gains_NEE.shape[:2]), gains_NEE)


def exit_features(
    evidence: Evidence,
    measures: Sequence[str],
    exit_: int,
    totals: TranscriptTotals | None,
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
    totals : TranscriptTotals, optional
        Of the words, at that exit and the one before.

    Returns
    -------
    ExitFeatures
    """
    columns: dict[str, NDArray[np.floating]] = {}
    words_N = np.ones(len(evidence))
    if totals is not None:
        _add_transcripts(columns, evidence, exit_, totals)
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
    values_NP = np.empty((len(evidence), len(columns)))
    for place, values_N in enumerate(columns.values()):
        values_NP[:, place] = values_N
    return ExitFeatures(tuple(columns), values_NP)


def _add_transcripts(
    columns: dict[str, NDArray[np.floating]],
    evidence: Evidence,
    exit_: int,
    totals: TranscriptTotals,
) -> None:
    exits = totals.gains_NEE.shape[2]
    for back in range(min(exit_, 1) + 1):
        place = exit_ - back
        words_N, letters_N, unseen_N, spelling_N, stable_N, worst_N = (
            totals.words_NEQ[:, place].T
        )
        letters_N = letters_N + words_N  # with the spaces
        found = {
            "length words": words_N,
            "length letters": letters_N - words_N,
            "spelling unseen": unseen_N,
            "spelling total": spelling_N,
        }
        if place:  # the first exit has nothing to agree with
            found["agreement new"] = words_N - stable_N
        found["spelling mean"] = spelling_N / np.maximum(letters_N, 1)
        found["spelling worst"] = worst_N / np.maximum(words_N, 1)
        if place:
            change_N = evidence.change_NE(1)[:, place]
            found["agreement change"] = change_N
            found["agreement edits"] = change_N * letters_N
        gains_NE = totals.gains_NEE[:, place]
        for later in sorted({place + 1, min(place + 2, exits - 1), exits - 1}):
            name = f"words gain {later - place} further"
            if later == exits - 1:
                name = "words gain at last"
            found[name] = gains_NE[:, later]
        for name, values_N in found.items():
            columns[f"{name} {-back}"] = values_N


def known_in_training(
    evidence: Evidence, exit_layers: Sequence[int], names: Sequence[str]
) -> Evidence:
    """Evidence of the same exits, without what was not there in training.

    Arguments
    ---------
    evidence : Evidence
        Of exits 1 to k.
    exit_layers : sequence of int
        Layers of all exits in training.
    names : sequence of str
        Measurements in training.

    Returns
    -------
    Evidence

    Raises
    ------
    InputError
        If the exits are others.
    """
    layers = evidence.layers_E.tolist()
    if layers != list(exit_layers[: len(layers)]):
        raise InputError(
            f"{evidence.source}: exits after layers {layers}, but the "
            f"learned selector was trained for {list(exit_layers)}; train "
            f"one for this model."
        )
    if "entropy" in names or "entropy" not in evidence.values:
        return evidence
    # words are read with the entropy, if there is one
    return replace(evidence, values={n: evidence.column(n) for n in names})


def usable_evidence(trace: Trace) -> tuple[str, ...]:
    """Evidence that a selector learns from: what costs next to nothing.

    Arguments
    ---------
    trace : Trace
        A development trace.

    Returns
    -------
    tuple of str
        Of the measures of this package those in :data:`LIGHT` (and what a
        beam search gives, if one was made to decode); all other evidence
        that was not learned itself.
    """
    # here, because that module imports the selector to register it
    from speechbrain_ee.exits.criteria import measure_names

    known = {*measure_names(), *DERIVED} - {*LIGHT}
    if trace.header.decoding != GREEDY:
        known -= {"nbest_posterior"}
    return tuple(n for n in trace.evidence_names if n not in known)
