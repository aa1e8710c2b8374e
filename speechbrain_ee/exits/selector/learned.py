"""A learned selector: what is going on worth, in errors per layer?

At exit k the selector predicts from all evidence of exits 1 to k how many
word errors each later exit would take away. The score is

    -max_(q > k) E[errors_k - errors_q] / (layers_q - layers_k),

so a threshold of -0.05 stops an utterance as soon as no later exit is
expected to take away more than 0.05 errors per layer. One model serves all
thresholds.

Two steps predict the errors: a network values the words
(:mod:`~speechbrain_ee.exits.selector.word_value`), ridge regressions combine the sums
over words with all other evidence (:mod:`~speechbrain_ee.exits.selector.ridge`).

Axes: N utterances, E exits, P features.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.text import CharNgram
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.selector.features import (
    exit_features,
    family_shares,
    known_in_training,
    usable_evidence,
)
from speechbrain_ee.exits.selector.ridge import Ridge
from speechbrain_ee.exits.selector.steps import Steps, fit_steps, with_steps
from speechbrain_ee.exits.selector.transcript_features import (
    Transcripts,
    read_transcripts,
    valued_transcripts,
)
from speechbrain_ee.exits.selector.valued_words import ValuedWords
from speechbrain_ee.exits.selector.word_value import WordValue
from speechbrain_ee.exits.selector.words import WordReader
from speechbrain_ee.exits.trace import Trace

_FEWEST = 20  # utterances to learn from


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
        For every exit but the last, see :mod:`~speechbrain_ee.exits.selector.steps`;
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
        """Learn from a development trace.

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
        LearnedSelector

        Raises
        ------
        InputError
            If the trace is too small, or has neither evidence nor
            transcripts.
        """
        return cls.fit_left_out(trace, texts, references, seed)[0]

    @classmethod
    def fit_left_out(
        cls,
        trace: Trace,
        texts: Sequence[str] = (),
        references: bool | None = None,
        seed: int = 0,
    ) -> "tuple[LearnedSelector, NDArray[np.float64]]":
        """As :meth:`fit`, with scores of the trace to calibrate a policy on.

        Arguments
        ---------
        trace, texts, references, seed : as for :meth:`fit`
        Returns
        -------
        selector : LearnedSelector
            The selector.
        scores_NE : array of shape (N, E)
            Scores of the trace's own utterances, each from regressions
            without it and networks that saw other speakers.
        """
        names = usable_evidence(trace)
        has_words = trace.evidence.hyps is not None
        if len(trace) < _FEWEST or not (names or has_words):
            raise InputError(
                f"{trace.source}: {len(trace)} utterances with the evidence "
                f"{', '.join(names) or 'none'}; a learned selector needs at "
                f"least {_FEWEST} utterances with evidence or transcripts."
            )
        words, transcripts = None, {}
        if has_words:
            learn = not texts if references is None else references
            words = ValuedWords.fit(trace, texts, learn, seed)
            transcripts = valued_transcripts(
                trace.evidence, words.table, words.gains_NEE
            )
        errors_NE = trace.errors_NE.astype(float)
        layers_E = trace.layers_E.astype(float)
        exits = range(len(layers_E) - 1)
        steps: tuple[Steps, ...] = ()
        if not has_words:
            steps = tuple(fit_steps(trace.evidence, names, e) for e in exits)
        ridges, scores_NE = [], np.zeros(errors_NE.shape)
        for exit_ in exits:
            features = exit_features(trace.evidence, names, exit_, transcripts)
            if steps:
                features = with_steps(
                    features, trace.evidence, steps[exit_], exit_
                )
            later_NQ = errors_NE[:, [exit_]] - errors_NE[:, exit_ + 1 :]
            ridge, left_out_NQ = Ridge.fit_left_out(
                features.names, features.values_NP, later_NQ
            )
            ridges.append(ridge)
            scores_NE[:, exit_] = _index(left_out_NQ, layers_E, exit_)
        selector = cls(
            trace.header.exit_layers,
            names,
            tuple(ridges),
            words.value if words else None,
            words.model if words else None,
            steps,
        )
        return selector, scores_NE

    def scores(
        self, evidence: Evidence, reader: WordReader | None = None
    ) -> NDArray[np.float64]:
        """Scores at every exit passed, higher = more ready to stop.

        Arguments
        ---------
        evidence : Evidence
            Of exits 1 to k of this model.
        reader : WordReader, optional
            Kept from exit to exit, so that no text is read twice.

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
        columns = range(evidence.shape[1])
        evidence, transcripts = self._read(evidence, reader, columns)
        scores = [self._score_N(evidence, e, transcripts) for e in columns]
        return np.stack(scores, axis=1)

    def score_at(
        self, evidence: Evidence, exit: int, reader: WordReader | None = None
    ) -> NDArray[np.float64]:
        """Scores at one exit: what live inference needs, and no more.

        Arguments
        ---------
        evidence : Evidence
            At least up to that exit.
        exit : int
            The exit, counted from 1.
        reader : WordReader, optional
            Kept from exit to exit, so that no text is read twice.

        Returns
        -------
        array of shape (N,)
            Column ``exit - 1`` of :meth:`scores`.

        Raises
        ------
        InputError
            As :meth:`scores`.
        """
        if not 1 <= exit <= evidence.shape[1]:
            raise ValueError(f"exit {exit}: evidence of {evidence.shape[1]}")
        columns = range(max(exit - 2, 0), exit)
        evidence, transcripts = self._read(evidence, reader, columns)
        return self._score_N(evidence, exit - 1, transcripts)

    def _score_N(
        self, evidence: Evidence, exit_: int, transcripts: Transcripts
    ) -> NDArray[np.float64]:
        if exit_ == len(self.ridges):
            return np.zeros(len(evidence))
        ridge = self.ridges[exit_]
        features = exit_features(
            evidence, self.evidence_names, exit_, transcripts
        )
        if self.steps:
            features = with_steps(features, evidence, self.steps[exit_], exit_)
        features.check(ridge.names, evidence.source)
        return _index(ridge.predict(features.values_NP), self._layers_E, exit_)

    @cached_property
    def _layers_E(self) -> NDArray[np.float64]:
        return np.array(self.exit_layers, dtype=float)

    def _read(
        self,
        evidence: Evidence,
        reader: WordReader | None,
        columns: Sequence[int],
    ) -> tuple[Evidence, Transcripts]:
        evidence = known_in_training(
            evidence, self.exit_layers, self.evidence_names
        )
        if self.word_value is None or self.language_model is None:
            return evidence, {}
        reader = reader or WordReader(self.language_model)
        if reader.model is not self.language_model:
            raise ValueError("the reader is for another language model")
        # nothing is asked at the last exit
        columns = [column for column in columns if column < len(self.ridges)]
        return evidence, read_transcripts(
            evidence, columns, reader, self.word_value
        )

    def explain(self) -> dict[str, float]:
        """How much of the predictions each family of evidence makes.

        Returns
        -------
        dict of str to float
            Share of the variance of the predicted gains that goes with the
            family's part of the sum, averaged over exits; largest first.
            The shares sum to 1; one below 0 works against the others.
        """
        return family_shares([ridge.shares() for ridge in self.ridges])


def _index(
    gains_NQ: NDArray[np.float64], layers_E: NDArray[np.float64], exit_: int
) -> NDArray[np.float64]:
    """Minus the best gain per layer among the later exits."""
    steps_Q = layers_E[exit_ + 1 :] - layers_E[exit_]
    return -(gains_NQ / steps_Q).max(axis=1)
