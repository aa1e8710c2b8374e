"""What a learned selector sees at an exit.

What an exit showed does not change at the exits after it: the features of a
transcript are computed once, when its exit has been passed, and read again
at the next one.

Axes: N utterances, E exits, M words, P features, Q sums over words.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.criteria.combined import LIGHT
from speechbrain_ee.exits.decoding import BY_ATTENTION
from speechbrain_ee.exits.evidence import Evidence, text_change
from speechbrain_ee.exits.selector.value import WordValue
from speechbrain_ee.exits.selector.words import (
    WORD_FEATURES,
    WordReader,
    WordTable,
)
from speechbrain_ee.exits.trace import Trace

# A feature's name starts with its family.
FAMILIES = ("words", "spelling", "agreement", "length", "frames")
# By column, features of the transcripts of N utterances.
Transcripts: TypeAlias = Mapping[int, list[list[float]]]
# By measure, the quantiles of training that a value may exceed at one exit: a
# sum of weighted measures is straight in each of them, but an N-best
# posterior, for one, says nearly nothing below 0.9 and much above 0.99.
Steps: TypeAlias = Mapping[str, tuple[float, ...]]

_GREEDY = "greedy"
# how a measure is read at an exit and at the one before: as it is, and times
# the words of the transcript
_KINDS = (("0", "by words"), ("-1", "before by words"))
_QUANTILES = np.linspace(0.1, 0.9, 9)
# what `Transcript.sums` adds up beside the words
_SUMMED = ("letters", "unseen", "spelling_total", "is_stable", "worst_spelling")


def exit_features(
    evidence: Evidence,
    measures: Sequence[str],
    exit_: int,
    transcripts: Transcripts,
    exits: int,
    steps: Steps,
) -> tuple[list[str], NDArray[np.float64]]:
    """Names and values (N, P) of what is known at an exit, counted from 0.

    A name is family, feature, and how many exits back (``frames entropy
    -1``). Transcripts are those of that exit and the one before, valued for
    so many exits, or none (0); steps those of that exit.
    """
    # in plain lists, since live there is one utterance at a time
    rows: list[list[float]] = [[] for _ in range(len(evidence))]
    names: list[str] = []
    columns = range(exit_, max(exit_ - 2, -1), -1)  # here and before
    words_N = [1.0] * len(rows)
    if transcripts:
        words_N = [values[0] for values in transcripts[exit_]]
        for column in columns:
            own = _transcript_names(column, exits)
            names += [f"{name} {column - exit_}" for name in own]
            for row, values in zip(rows, transcripts[column]):
                row += values
    for name in measures:
        values_NE = evidence.column(name)
        for column, kinds in zip(columns, _KINDS):
            values_N = values_NE[:, column].tolist()
            if any(map(math.isnan, values_N)):
                break  # compares with an exit that is not there
            names += [f"frames {name} {kind}" for kind in kinds]
            for row, value, words in zip(rows, values_N, words_N):
                row += (value, value * words)
    for name, places in steps.items():
        names += [f"frames {name} step {n}" for n in range(len(places))]
        values_N = evidence.column(name)[:, exit_].tolist()
        for row, value in zip(rows, values_N):
            row += [float(value > place) for place in places]
    return names, np.array(rows, dtype=float).reshape(len(rows), -1)


@lru_cache(maxsize=256)
def _transcript_names(column: int, exits: int) -> list[str]:
    """Names of what :func:`_transcript_features` gives."""
    names = ["length words", "length letters"]
    names += ["spelling unseen", "spelling total"]
    names += ["agreement new"] if column else []
    names += ["spelling mean", "spelling worst"]
    names += ["agreement change", "agreement edits"] if column else []
    for later in _later(column, exits):
        last = later == exits - 1
        where = "at last" if last else f"{later - column} further"
        names.append(f"words gain {where}")
    return names


@lru_cache(maxsize=256)
def _later(column: int, exits: int) -> list[int]:
    """The exits asked about: the next two and the last."""
    return sorted({column + 1, min(column + 2, exits - 1), exits - 1})


def _transcript_features(
    sums: Sequence[float],
    gains: Sequence[float],
    texts: Sequence[str],
    column: int,
) -> list[float]:
    """Features of a transcript, the last of those up to its column."""
    words, letters, unseen, spelling, stable, worst = sums
    spaced = letters + words
    means = [spelling / max(spaced, 1), worst / max(words, 1)]
    later = [gains[exit_] for exit_ in _later(column, len(gains))]
    if not column:  # the first exit has nothing to agree with
        return [words, letters, unseen, spelling, *means, *later]
    change = text_change(texts[column - 1], texts[column])
    agreement = [change, change * spaced]
    new = words - stable
    return [words, letters, unseen, spelling, new, *means, *agreement, *later]


def read_transcripts(
    evidence: Evidence,
    columns: Sequence[int],
    reader: WordReader,
    value: WordValue,
) -> Transcripts:
    """Features of the transcripts, those that are new to the reader computed."""
    hyps = evidence.transcripts()
    # utterance by utterance: the reader does not remember whole test sets
    read_NC = [[reader.read(tuple(t[: c + 1])) for c in columns] for t in hyps]
    entropy_NE = evidence.values.get("entropy")
    keys: list[tuple] = [(value,)] * len(hyps)
    found = {}
    for place, column in enumerate(columns):
        read_N = [read[place] for read in read_NC]
        if entropy_NE is not None:
            known_N2 = entropy_NE[:, max(column - 1, 0) : column + 1]
            keys = [(value, *known) for known in known_N2.tolist()]
        pairs = enumerate(zip(read_N, keys))
        new = [row for row, (one, key) in pairs if key not in one.features]
        if new:
            rows = ((row, column, read_N[row]) for row in new)
            table = WordTable.of(evidence, rows)
            gains_NE = table.sums(value.predict(table), len(hyps))
            for row in new:
                read_N[row].features[keys[row]] = _transcript_features(
                    read_N[row].sums(),
                    gains_NE[row].tolist(),
                    hyps[row],
                    column,
                )
        found[column] = [one.features[key] for one, key in zip(read_N, keys)]
    return found


def valued_transcripts(
    evidence: Evidence, table: WordTable, gains_NEE: NDArray[np.float64]
) -> Transcripts:
    """The same from the words of all exits and their expected gains, summed
    by utterance from exit to exit; of all exits but the last.
    """
    summed = [WORD_FEATURES.index(name) for name in _SUMMED]
    values_MQ = np.ones((len(table.exit_M), 1 + len(summed)), np.float32)
    values_MQ[:, 1:] = table.features_MF[:, summed]
    sums = table.totals(values_MQ, evidence.shape).tolist()
    rows = list(zip(sums, gains_NEE.tolist(), evidence.transcripts()))
    return {
        column: [
            _transcript_features(of_exit[column], gains[column], texts, column)
            for of_exit, gains, texts in rows
        ]
        for column in range(evidence.shape[1] - 1)
    }


def fit_steps(evidence: Evidence, measures: Sequence[str], exit_: int) -> Steps:
    """Quantiles of the measures that have values at an exit, from 0."""
    steps = {}
    for name in measures:
        values_N = evidence.column(name)[:, exit_]
        if not np.isnan(values_N).any():
            found = np.unique(np.quantile(values_N, _QUANTILES))
            steps[name] = tuple(found.tolist())
    return steps


def family_shares(
    shares: Iterable[tuple[Sequence[str], Sequence[float]]],
) -> dict[str, float]:
    """Shares of the features of every exit by family, largest first, sum 1."""
    sums = dict.fromkeys(FAMILIES, 0.0)
    for names, of_exit in shares:
        for name, share in zip(names, of_exit):
            sums[name.partition(" ")[0]] += share
    total = sum(sums.values()) or 1.0  # 0: nothing was learned
    ordered = sorted(sums.items(), key=lambda item: -item[1])
    return {name: share / total for name, share in ordered}


def usable_evidence(trace: Trace) -> tuple[str, ...]:
    """Evidence of a trace that a selector learns from, whatever else is there.

    What costs next to nothing (:data:`LIGHT`), and what CTC's beam search
    gives, if one was made to decode.
    """
    names = {*LIGHT}
    if trace.header.decoding not in (_GREEDY, *BY_ATTENTION):
        names.add("nbest_posterior")
    return tuple(n for n in trace.evidence_names if n in names)
