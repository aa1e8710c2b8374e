"""Scores of a batch that stands at an exit: criteria, live.

A criterion is the same function here as on a trace
(:mod:`speechbrain_ee.exits.criteria`); this module finds out what it has to be
given, and takes no other measurement.

Axes: B utterances that are still in the batch, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import get_criterion, measure_names
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.criteria.ngram import CharNgram
from speechbrain_ee.exits.criteria.registry import Measure, get_measure
from speechbrain_ee.exits.criteria.text import OF_TEXT, measure_texts
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.selector.words import WordReader

TRANSCRIPTS = "transcripts"


class LiveScorer:
    """One criterion and all that it reads.

    Arguments
    ---------
    criterion : str
        Its name, parameters included.
    exit_layers : sequence of E int
        Layers of the exits that a policy chooses from.
    selector : LearnedSelector, optional
        Gives the scores of ``learned``, and reads ``plausibility``.
    combination : ZScores, optional
        Gives the scores of ``combination``.

    Raises
    ------
    InputError
        If the criterion is not known, or needs what is not given.
    """

    def __init__(
        self,
        criterion: str,
        exit_layers: Sequence[int],
        selector: LearnedSelector | None = None,
        combination: ZScores | None = None,
    ):
        self.criterion = get_criterion(criterion)
        self.layers_E = np.array(exit_layers)
        self.selector = selector
        self.combination = combination
        names = self._sources(criterion)
        self.measures: tuple[Measure, ...] = tuple(
            map(get_measure, sorted(_measures(names)))
        )
        self.of_text = tuple(name for name in OF_TEXT if name in names)
        self.reads_transcripts = bool(self.of_text) or TRANSCRIPTS in names
        self.language_model = self._language_model() if self.of_text else None
        self.reader = self._reader()

    @property
    def decodes(self) -> bool:
        """Whether it needs what an attention decoder finds at each exit."""
        return any(measure.decodes for measure in self.measures)

    @property
    def looks_back(self) -> bool:
        """Whether it compares an exit's output with earlier ones."""
        return any(measure.earlier for measure in self.measures)

    @property
    def remembers(self) -> bool:
        """Whether a score may depend on the exits before."""
        return self.criterion.sign is None or self.looks_back

    def macs(self, *sizes: int, **more: float) -> int:
        """Declared cost of a score at one exit, as :meth:`Criterion.macs`."""
        return int(self.criterion.macs(*sizes, **more))

    @property
    def is_direct(self) -> bool:
        """Whether the score is a measure of the exit alone, or minus it."""
        return not self.remembers and not self.decodes

    def direct(
        self, view: ExitView, texts: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        """As :meth:`measure` and :meth:`score`, where :attr:`is_direct`.

        Arguments
        ---------
        view : ExitView
            The batch at the exit.
        texts : sequence of B str, optional
            As for :meth:`measure`.

        Returns
        -------
        array of shape (B,)
            Higher = more ready to stop.
        """
        (value_B,) = self.measure(view, texts).values()
        score_B = self.criterion.sign * value_B
        return np.where(np.isnan(score_B), -np.inf, score_B)

    def measure(
        self, view: ExitView, texts: Sequence[str] | None
    ) -> dict[str, NDArray[np.float64]]:
        """What the criterion reads of a batch at an exit.

        Arguments
        ---------
        view : ExitView
            The batch at the exit.
        texts : sequence of B str or None
            CTC's transcripts there, where ``reads_transcripts``.

        Returns
        -------
        dict of str to array of shape (B,)
            NaN where a measure needs earlier exits that there are not.
        """
        passed, rows = len(view.earlier), len(view.output.lengths_B)
        values = {
            measure.name: _numbers(measure.function(view))
            if measure.earlier <= passed
            else np.full(rows, np.nan)
            for measure in self.measures
        }
        if self.of_text:
            values |= measure_texts(
                texts or (), self.language_model, self.of_text
            )
        return values

    def score(self, evidence: Evidence) -> NDArray[np.float64]:
        """Scores at the exit where a batch stands.

        Arguments
        ---------
        evidence : Evidence
            Of all exits up to that one, as :meth:`measure` gave it.

        Returns
        -------
        array of shape (B,)
            Higher = more ready to stop.
        """
        exit = evidence.shape[1]
        name = self.criterion.name
        if name == "learned":
            return self.selector.score_at(evidence, exit, self.reader)
        if name == "combination":
            return self.combination.scores(evidence)[:, -1]
        return self.criterion.scores(evidence)[:, -1]

    def _sources(self, name: str) -> set[str]:
        """Evidence that a criterion rests on in the end."""
        if name == "learned":
            selector = self._given(self.selector, "exit_selector.json.gz")
            if selector.exit_layers != tuple(self.layers_E.tolist()):
                raise InputError(
                    f"policy: the learned selector is for exits after the "
                    f"layers {list(selector.exit_layers)}, the policy for "
                    f"{self.layers_E.tolist()}; learn and calibrate anew."
                )
            words = selector.word_value is not None
            return {*selector.evidence_names, *([TRANSCRIPTS] * words)}
        if name == "combination":
            combined = self._given(self.combination, "combination.json")
            return set().union(*map(self._sources, combined.weights))
        return set(get_criterion(name).needs)

    def _given(self, part: Any, file: str) -> Any:
        if part is None:
            raise InputError(
                f"policy: the criterion {self.criterion.name!r} needs {file}, "
                "which is not in the model folder; export the model again, "
                "or choose another criterion."
            )
        return part

    def _reader(self) -> WordReader | None:
        if self.criterion.name != "learned":
            return None
        model = self.selector.language_model
        return None if model is None else WordReader(model)

    def _language_model(self) -> CharNgram:
        selector = self._given(self.selector, "exit_selector.json.gz")
        return self._given(selector.language_model, "a language model")


def _measures(names: set[str]) -> list[str]:
    known = set(measure_names())
    return [name for name in names if name.partition(":")[0] in known]


def _numbers(raw_B: Tensor) -> NDArray[np.float64]:
    return raw_B.double().cpu().numpy()
