"""A learned selector: what is going on worth, in errors per layer?

At exit k the selector predicts from all evidence of exits 1 to k how many
word errors each later exit would take away. The score is

    -max_(q > k) E[errors_k - errors_q] / (layers_q - layers_k),

so a threshold of -0.05 stops an utterance as soon as no later exit is
expected to take away more than 0.05 errors per layer. One model serves all
thresholds.

Two steps predict the errors: a network values the words
(:mod:`~speechbrain_ee.exits.selector.value`), ridge regressions combine the
sums over words with all other evidence
(:mod:`~speechbrain_ee.exits.selector.features`).

Axes: N utterances, E exits, P features, Q targets.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import msgspec
import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.criteria.text import CharNgram, add_plausibility
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.selector.features import (
    FAMILIES,
    Steps,
    Transcripts,
    exit_features,
    family_shares,
    fit_steps,
    read_transcripts,
    usable_evidence,
    valued_transcripts,
)
from speechbrain_ee.exits.selector.value import Scale, WordValue, value_words
from speechbrain_ee.exits.selector.words import WordReader
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.schema import Finite, Record

# One criterion of each kind: frames, agreement of exits, spelling.
COMBINED = ("entropy", "agreement", "plausibility")
_FEWEST = 20  # utterances to learn from
_STRENGTHS = np.geomspace(0.01, 10.0, 13)  # of ridge's penalty, per utterance
_LIMIT = 6.0  # standard deviations beyond which a feature is cut
_FLAT = 1e-9


class Ridge(Record, eq=False, dict=True):
    """Linear predictions of several targets from standardised features."""

    names: list[str]  # of the features
    mean: list[Finite]  # of the features in training
    scale: list[Scale]  # their standard deviations
    weights: list[list[Finite]]  # by feature, by target
    bias: list[Finite]
    # share of the variance of all predictions that goes with each feature's
    # term, in training
    shares: list[Finite]

    def __post_init__(self) -> None:
        for name in self.names:
            if name.partition(" ")[0] not in FAMILIES:
                raise ValueError(f"no feature is called {name[:100]!r}")
        *by_name, bias, shares = astuple(self)
        widths = {len(bias), *map(len, self.weights)}
        if len({len(shares), *map(len, by_name)}) > 1 or len(widths) > 1:
            raise ValueError("names and numbers differ in length")

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        values_NP: NDArray[np.floating],
        targets_NQ: NDArray[np.floating],
    ) -> "tuple[Ridge, NDArray[np.float64]]":
        """Least squares with the penalty on the weights whose leave-one-out
        error is least, and the prediction (N, Q) of each utterance by others.

        Example
        -------
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> ridge, _ = Ridge.fit(["frames a", "frames b"], x, 3 * x[:, :1] + 1)
        >>> ridge.predict(np.array([[1.0, 5.0]])).round(1).tolist()
        [[4.0]]
        """
        mean_P = values_NP.mean(0)
        scale_P = np.maximum(values_NP.std(0), _FLAT)
        inputs_NP = _standardised(values_NP, mean_P, scale_P)
        # cut features are no longer centred; the bias takes that up
        centre_P = inputs_NP.mean(0)
        inputs_NP -= centre_P
        mean_Q = targets_NQ.mean(0)
        weights_PQ, missed_NQ = _solve(inputs_NP, targets_NQ - mean_Q)
        parts_NP = inputs_NP * weights_PQ.mean(1)
        total_N = parts_NP.sum(1)
        power = max(float(total_N @ total_N), _FLAT)
        numbers = (
            mean_P,
            scale_P,
            weights_PQ,
            mean_Q - centre_P @ weights_PQ,
            parts_NP.T @ total_N / power,
        )
        ridge = cls([*names], *(each.tolist() for each in numbers))
        return ridge, targets_NQ - missed_NQ

    def predict(self, values_NP: NDArray[np.floating]) -> NDArray[np.float64]:
        """The targets (N, Q) from features in the order of the names."""
        mean_P, scale_P, weights_PQ, bias_Q = self._arrays
        return _standardised(values_NP, mean_P, scale_P) @ weights_PQ + bias_Q

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.float64], ...]:
        # without rows the columns are not known
        weights_PQ = np.array(self.weights).reshape(-1, len(self.bias))
        return (
            np.array(self.mean),
            np.array(self.scale),
            weights_PQ,
            np.array(self.bias),
        )


def _standardised(
    values_NP: NDArray[np.floating],
    mean_P: NDArray[np.float64],
    scale_P: NDArray[np.float64],
) -> NDArray[np.float64]:
    inputs_NP = (values_NP - mean_P) / scale_P
    return np.minimum(np.maximum(inputs_NP, -_LIMIT), _LIMIT)


def _solve(
    inputs_NP: NDArray[np.float64], targets_NQ: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights and left-out residuals at the strength with the least leave-one-out error.

    With inputs U S V^T the fit of strength r is U D U^T y, D = S^2/(S^2 + r),
    and leaving utterance i out changes its residual to
    (y_i - fit_i) / (1 - h_i), h = diag(U D U^T) + 1/N (Allen's PRESS; the
    1/N is the bias).
    """
    count = len(inputs_NP)
    left_NP, sizes_P, right_PP = np.linalg.svd(inputs_NP, full_matrices=False)
    along_PQ = left_NP.T @ targets_NQ
    fits = []
    for strength in _STRENGTHS * count:
        kept_P = sizes_P**2 / (sizes_P**2 + strength)
        fitted_NQ = left_NP @ (kept_P[:, None] * along_PQ)
        leverage_N = (left_NP**2) @ kept_P + 1 / count
        missed_NQ = (targets_NQ - fitted_NQ) / (1 - leverage_N)[:, None]
        fits.append((float((missed_NQ**2).sum()), strength, missed_NQ))
    _, strength, missed_NQ = min(fits, key=lambda fit: fit[0])
    shrunk_P = sizes_P / (sizes_P**2 + strength)
    return right_PP.T @ (shrunk_P[:, None] * along_PQ), missed_NQ


@dataclass(frozen=True)
class LearnedSelector:
    """Scores exits by what going on is worth.

    Arguments
    ---------
    exit_layers : tuple of int
        Layers of the exits.
    evidence_names : tuple of str
        Measurements that it reads.
    ridges : tuple of Ridge
        For every exit but the last, from its features to the errors that
        each later exit takes away.
    word_value : WordValue, optional
        Values words; None where there were no transcripts.
    language_model : CharNgram, optional
        How words are spelt.
    steps : tuple of mapping
        For every exit but the last, by measure the quantiles of training;
        empty where there are words, which say more.

    Example
    -------
    >>> from speechbrain_ee.exits.trace import (
    ...     ExitRecord, TraceHeader, UtteranceRecord,
    ... )
    >>> rng = np.random.default_rng(0)
    >>> def utterance(i):
    ...     hard = rng.random()
    ...     exits = [
    ...         ExitRecord(2, errors=int(4 * hard), evidence={"entropy": hard}),
    ...         ExitRecord(4, errors=0, evidence={"entropy": hard / 2}),
    ...     ]
    ...     return UtteranceRecord(f"s{i % 9}-{i}", "dev", "a b c d", tuple(exits))
    >>> trace = Trace(
    ...     TraceHeader("tiny", "greedy", (2, 4)),
    ...     tuple(utterance(i) for i in range(60)),
    ... )
    >>> selector = LearnedSelector.fit(trace)
    >>> scores = selector.scores(trace.evidence)[:, 0]
    >>> entropy = trace.evidence_NE("entropy")[:, 0]
    >>> bool(np.corrcoef(scores, entropy)[0, 1] < -0.9)
    True
    """

    exit_layers: tuple[int, ...]
    evidence_names: tuple[str, ...]
    ridges: tuple[Ridge, ...]
    word_value: WordValue | None = None
    language_model: CharNgram | None = None
    steps: tuple[Steps, ...] = ()

    @classmethod
    def fit(
        cls,
        trace: Trace,
        texts: Sequence[str] = (),
        references: bool | None = None,
        seed: int = 0,
    ) -> "LearnedSelector":
        """Learn from a development trace, see :meth:`fit_left_out`."""
        return cls.fit_left_out(trace, texts, references, seed)[0]

    @classmethod
    def fit_left_out(
        cls,
        trace: Trace,
        texts: Sequence[str] = (),
        references: bool | None = None,
        seed: int = 0,
    ) -> "tuple[LearnedSelector, NDArray[np.float64]]":
        """Learn from a development trace, and score it to calibrate on.

        Arguments
        ---------
        trace : Trace
            Utterances that no model was trained on.
        texts : sequence of str
            Training transcripts, for the spelling of words.
        references : bool, optional
            Learn spelling from the references of the trace, too, so that
            each utterance is read with what other speakers said; by default
            where there are no texts.
        seed : int
            Of the networks' initial weights.

        Returns
        -------
        selector : LearnedSelector
            The selector.
        scores_NE : array of shape (N, E)
            Scores of the trace's own utterances, each from regressions
            without it and networks that saw other speakers.

        Raises
        ------
        InputError
            If the trace is too small, or has neither evidence nor
            transcripts.
        """
        evidence, names = trace.evidence, usable_evidence(trace)
        has_words = evidence.hyps is not None
        if len(trace) < _FEWEST or not (names or has_words):
            raise InputError(
                f"{trace.source}: {len(trace)} utterances with the evidence "
                f"{', '.join(names) or 'none'}; a learned selector needs at "
                f"least {_FEWEST} utterances with evidence or transcripts."
            )
        exits = len(trace.layers_E)
        selector = cls(trace.header.exit_layers, names, ())
        transcripts: Transcripts = {}
        if has_words:
            learn = not texts if references is None else references
            value, model, *words = value_words(trace, texts, learn, seed)
            transcripts = valued_transcripts(evidence, *words)
            selector = replace(selector, word_value=value, language_model=model)
        else:
            steps = [fit_steps(evidence, names, e) for e in range(exits - 1)]
            selector = replace(selector, steps=tuple(steps))
        errors_NE = trace.errors_NE.astype(float)
        ridges, scores_NE = [], np.zeros(errors_NE.shape)
        for exit_ in range(exits - 1):
            ridge, left_out_NQ = Ridge.fit(
                *selector._features(evidence, exit_, transcripts),
                errors_NE[:, [exit_]] - errors_NE[:, exit_ + 1 :],
            )
            ridges.append(ridge)
            scores_NE[:, exit_] = selector._score_N(left_out_NQ, exit_)
        return replace(selector, ridges=tuple(ridges)), scores_NE

    def scores(self, evidence: Evidence) -> NDArray[np.float64]:
        """Scores at every exit passed, higher = more ready to stop.

        Arguments
        ---------
        evidence : Evidence
            Of exits 1 to k of this model.

        Returns
        -------
        array of shape (N, k)
            Minus the errors per layer that going on is expected to take
            away; 0 at the last exit.

        Raises
        ------
        InputError
            If the exits are others, or evidence is missing.
        """
        return self._scores_NE(evidence, range(evidence.shape[1]), None)

    def score_at(
        self, evidence: Evidence, exit: int, reader: WordReader | None = None
    ) -> NDArray[np.float64]:
        """Column ``exit - 1`` of :meth:`scores`, and no more computed; a reader
        that is kept from exit to exit reads no text twice.
        """
        if not 1 <= exit <= evidence.shape[1]:
            raise ValueError(f"exit {exit}: evidence of {evidence.shape[1]}")
        return self._scores_NE(evidence, [exit - 1], reader)[:, 0]

    def explain(self) -> dict[str, float]:
        """How much of the predictions each family of evidence makes.

        Returns
        -------
        dict of str to float
            Share of the variance of the predicted gains that goes with the
            family's part of the sum, averaged over exits; largest first.
            The shares sum to 1; one below 0 works against the others.
        """
        return family_shares([(r.names, r.shares) for r in self.ridges])

    def _scores_NE(
        self,
        evidence: Evidence,
        asked: Sequence[int],
        reader: WordReader | None,
    ) -> NDArray[np.float64]:
        """Scores at some exits, counted from 0."""
        layers = evidence.layers_E.tolist()
        if layers != [*self.exit_layers[: len(layers)]]:
            raise InputError(
                f"{evidence.source}: exits after layers {layers}, but the "
                f"learned selector was trained for {list(self.exit_layers)}; "
                f"train one for this model."
            )
        # words are read with the entropy, if there was one in training
        known = {name: evidence.column(name) for name in self.evidence_names}
        evidence = replace(evidence, values=known)
        transcripts: Transcripts = {}
        # nothing is asked at the last exit
        early = [exit_ for exit_ in asked if exit_ < len(self.ridges)]
        if self.word_value is not None and self.language_model is not None:
            reader = reader or WordReader(self.language_model)
            if reader.model is not self.language_model:
                raise ValueError("the reader is for another language model")
            columns = sorted(
                {max(e - back, 0) for e in early for back in (0, 1)}
            )
            transcripts = read_transcripts(
                evidence, columns, reader, self.word_value
            )
        scores_NE = np.zeros((len(evidence), len(asked)))
        for place, exit_ in enumerate(early):
            ridge = self.ridges[exit_]
            names, values_NP = self._features(evidence, exit_, transcripts)
            if names != ridge.names:
                differ = sorted({*names} ^ {*ridge.names})
                raise InputError(
                    f"{evidence.source}: "
                    f"{', '.join(differ) or 'the order of features'} is not "
                    f"as when the learned selector was trained; train one "
                    f"for this model and its evidence."
                )
            gains_NQ = ridge.predict(values_NP)
            scores_NE[:, place] = self._score_N(gains_NQ, exit_)
        return scores_NE

    def _features(
        self, evidence: Evidence, exit_: int, transcripts: Transcripts
    ) -> tuple[list[str], NDArray[np.float64]]:
        return exit_features(
            evidence,
            self.evidence_names,
            exit_,
            transcripts,
            self.word_value.exits if self.word_value else 0,
            self.steps[exit_] if self.steps else {},
        )

    def _score_N(
        self, gains_NQ: NDArray[np.float64], exit_: int
    ) -> NDArray[np.float64]:
        """Minus the best gain per layer among the later exits."""
        own, *later = self.exit_layers[exit_:]
        steps_Q = np.array([layer - own for layer in later], dtype=float)
        return -(gains_NQ / steps_Q).max(axis=1)


def truncated_selector(
    selector: LearnedSelector, exits: int
) -> LearnedSelector:
    """The selector of the model that ends at an exit, from 2: of the exits
    that stay it expects what it expected before.
    """
    ridges = [
        msgspec.structs.replace(
            ridge,
            weights=[row[:later] for row in ridge.weights],
            bias=ridge.bias[:later],
        )
        for ridge, later in zip(selector.ridges, range(exits - 1, 0, -1))
    ]
    return replace(
        selector,
        exit_layers=selector.exit_layers[:exits],
        ridges=tuple(ridges),
        steps=selector.steps[: exits - 1],
    )


@dataclass(frozen=True)
class Selection:
    """A learned selector and a combination of the criteria in
    :data:`COMBINED`, both from the development set and with the selector's
    model of spelling.
    """

    selector: LearnedSelector
    combination: ZScores

    @classmethod
    def fit(
        cls, trace: Trace, texts: Sequence[str], seed: int = 0
    ) -> "tuple[Selection, Trace]":
        """Learn from a development trace and training transcripts.

        The trace comes back with the same evidence as :meth:`annotate` gives;
        its ``learned`` scores are from fits without each utterance, so that a
        policy can be calibrated on them.
        """
        selector, scores_NE = LearnedSelector.fit_left_out(
            trace, texts, references=False, seed=seed
        )
        trace = add_plausibility(trace, selector.language_model)
        known = {*trace.evidence_names}
        known |= {"agreement"} if trace.evidence.hyps is not None else set()
        combination = ZScores.fit(trace, [n for n in COMBINED if n in known])
        selection = cls(selector, combination)
        return selection, selection._scored(trace, scores_NE)

    def annotate(self, trace: Trace) -> Trace:
        """A trace of the same model with ``plausibility``, ``unseen_words``,
        ``learned`` and ``combination``.
        """
        trace = add_plausibility(trace, self.selector.language_model)
        return self._scored(trace, self.selector.scores(trace.evidence))

    def _scored(self, trace: Trace, learned_NE: NDArray[np.float64]) -> Trace:
        combined_NE = self.combination.scores(trace.evidence)
        return trace.with_columns(
            {"learned": learned_NE, "combination": combined_NE}
        )
