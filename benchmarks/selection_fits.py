"""Scores and thresholds from models that never heard the speaker.

Axes: N utterances, E exits, T thresholds, K exits but the last.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from speechbrain_ee.exits.calibration.calibrate import Search
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.criteria.text import CharNgram, measure_texts
from speechbrain_ee.exits.policy import at_choice, choices_NT, first_exit
from speechbrain_ee.exits.selector.selector import COMBINED, LearnedSelector
from speechbrain_ee.exits.trace import Trace, cross_fitted

# Word errors that are allowed, in those of the last exit.
LEVELS = {"equal_wer": 1.0, "plus_1": 1.01, "plus_5": 1.05, "plus_10": 1.1}
PRICES = 48
Fit = Callable[[Trace], Callable[..., NDArray[np.float64]]]


def with_texts(
    trace: Trace, texts: Sequence[str], references: bool, folds: int
) -> Trace:
    """Add plausibility, unseen words and the combination, cross-fitted."""

    def reader(name: str) -> Fit:
        def fit(part: Trace) -> Callable[..., NDArray[np.float64]]:
            refs = [record.ref for record in part.records]
            model = CharNgram.train([*texts, *(refs if references else ())])

            def scores(evidence: Any) -> NDArray[np.float64]:
                flat = [text for row in evidence.hyps for text in row]
                values = measure_texts(flat, model)[name]
                return values.reshape(evidence.shape)

            return scores

        return fit

    for name in ("plausibility", "unseen_words"):
        values_NE = cross_fitted(trace, reader(name), folds)
        trace = trace.with_evidence(name, values_NE)
    combined_NE = cross_fitted(
        trace, lambda part: ZScores.fit(part, COMBINED).scores, folds
    )
    return trace.with_evidence("combination", combined_NE)


def learned(
    trace: Trace, texts: Sequence[str], references: bool, folds: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, float]]:
    """Cross-fitted scores, and decisions with cross-fitted thresholds."""
    fold_N = trace.clusters.folds(folds)
    found = {"scores": np.zeros(trace.evidence.shape)}
    found |= {n: np.zeros(len(trace), dtype=np.int64) for n in LEVELS}
    shares: dict[str, float] = {}
    for fold in tqdm(np.unique(fold_N), desc="learned", leave=False):
        rows = np.flatnonzero(fold_N == fold)
        part = trace.select(np.flatnonzero(fold_N != fold).tolist())
        selector, own_NE = LearnedSelector.fit_left_out(part, texts, references)
        for name, share in selector.explain().items():
            shares[name] = shares.get(name, 0.0) + share / (fold_N.max() + 1)
        scores_NE = selector.scores(trace.evidence.select(rows))
        found["scores"][rows] = scores_NE
        sets_N = np.array([record.set for record in trace.records])[rows]
        for set_name in part.sets:
            of_set = part.subset(set_name)
            kept = [r.set == set_name for r in part.records]
            for level, factor in LEVELS.items():
                limit = threshold(of_set, own_NE[kept], factor)
                chosen_N = first_exit(scores_NE, limit)
                here = sets_N == set_name
                found[level][rows[here]] = chosen_N[here]
    return found, shares


def ablations(
    trace: Trace, texts: Sequence[str], references: bool, folds: int
) -> dict[str, NDArray[np.float64]]:
    """Scores of selectors that see less."""
    views = {
        "learned, frames alone": (
            seen_as(trace, hyps=False),
            texts,
            references,
        ),
        "learned, transcripts alone": (
            seen_as(trace, evidence=False),
            texts,
            references,
        ),
        "learned, no spelling": (trace, ["a"], False),
    }
    return {
        name: learned(view, own, refs, folds)[0]["scores"]
        for name, (view, own, refs) in views.items()
    }


def seen_as(trace: Trace, hyps: bool = True, evidence: bool = True) -> Trace:
    """The trace without its transcripts or without its evidence."""
    records = []
    for record, errors in zip(trace.records, trace.errors_NE.tolist()):
        exits = tuple(
            replace(
                exit_,
                hyp=exit_.hyp if hyps else None,
                evidence=exit_.evidence if evidence else {},
                errors=wrong,
            )
            for exit_, wrong in zip(record.exits, errors)
        )
        records.append(replace(record, exits=exits))
    return Trace(trace.header, tuple(records), trace.source)


def threshold(
    trace: Trace, scores_NE: NDArray[np.float64], factor: float
) -> float:
    """The threshold with the fewest layers at most ``factor`` as many errors."""
    reached_N = np.maximum.accumulate(scores_NE[:, :-1], axis=1)
    limits = np.append(np.quantile(reached_N, np.linspace(0, 1, 1000)), np.inf)
    choice_NT = choices_NT(scores_NE, limits)
    errors_T = at_choice(trace.errors_NE, choice_NT).sum(axis=0)
    layers_T = trace.layers_E[choice_NT].mean(axis=0)
    good = errors_T <= factor * trace.errors_NE[:, -1].sum() + 1e-9
    return float(limits[good][layers_T[good].argmin()])


def per_exit(
    trace: Trace, scores_NE: NDArray[np.float64], folds: int
) -> dict[str, float]:
    """Layers with a threshold per exit, each vector from other speakers."""
    fold_N = trace.clusters.folds(folds)
    errors_NE = trace.errors_NE.astype(float)
    layers_NE = np.broadcast_to(trace.layers_E.astype(float), errors_NE.shape)
    totals = np.zeros((PRICES, 2))
    for fold in np.unique(fold_N):
        seen, rows = fold_N != fold, fold_N == fold
        search = Search(scores_NE[seen])
        limits_K = np.full(errors_NE.shape[1] - 1, np.inf)
        for place, price in enumerate(np.geomspace(1e-3, 1.0, PRICES)):
            total_NE = errors_NE[seen] + price * layers_NE[seen]
            _, limits_K = search.minimise(limits_K, total_NE)
            choice_N1 = choices_NT(scores_NE[rows], limits_K[None])
            for column, values_NE in enumerate((layers_NE, errors_NE)):
                sum_ = at_choice(values_NE[rows], choice_N1).sum()
                totals[place, column] += sum_
    depth, last = float(trace.layers_E[-1]), errors_NE[:, -1].sum()
    layers_T = np.append(totals[:, 0] / len(trace), depth)
    errors_T = np.append(totals[:, 1], last)
    return {
        level: float(layers_T[errors_T <= factor * last + 1e-9].min())
        for level, factor in LEVELS.items()
    }
