"""What a development set teaches about choosing exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass

from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.criteria.text import add_plausibility
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.trace import Trace

# One criterion of each kind: frames, agreement of exits, spelling.
COMBINED = ("entropy", "agreement", "plausibility")


@dataclass(frozen=True)
class Selection:
    """A learned selector and a combination of criteria.

    Both read with the selector's character n-gram model.

    Arguments
    ---------
    selector : LearnedSelector
        Trained on the development set.
    combination : ZScores
        Of the criteria in :data:`COMBINED`, with its means.
    """

    selector: LearnedSelector
    combination: ZScores

    @classmethod
    def fit(
        cls, trace: Trace, texts: Sequence[str], seed: int = 0
    ) -> "tuple[Selection, Trace]":
        """Learn from a development trace.

        Arguments
        ---------
        trace : Trace
            Of data that the model was not trained on.
        texts : sequence of str
            Training transcripts.
        seed : int
            Of the selector's networks.

        Returns
        -------
        selection : Selection
            What was learned.
        trace : Trace
            The trace with the same evidence as :meth:`annotate` gives; its
            ``learned`` scores are from fits without each utterance, so that
            a policy can be calibrated on them.
        """
        selector, scores_NE = LearnedSelector.fit_left_out(
            trace, texts, references=False, seed=seed
        )
        trace = add_plausibility(trace, selector.language_model)
        combination = ZScores.fit(
            trace, [n for n in COMBINED if n in _known(trace)]
        )
        trace = trace.with_columns(
            {
                "learned": scores_NE,
                "combination": combination.scores(trace.evidence),
            }
        )
        return cls(selector, combination), trace

    def annotate(self, trace: Trace) -> Trace:
        """Give a trace the evidence that needs texts or was learned.

        Arguments
        ---------
        trace : Trace
            Of the same model.

        Returns
        -------
        Trace
            With ``plausibility``, ``unseen_words``, ``learned`` and
            ``combination``.
        """
        trace = add_plausibility(trace, self.selector.language_model)
        return trace.with_columns(
            {
                "learned": self.selector.scores(trace.evidence),
                "combination": self.combination.scores(trace.evidence),
            }
        )


def _known(trace: Trace) -> set[str]:
    """Criteria of which the trace has the evidence."""
    names = {"agreement"} if trace.evidence.hyps is not None else set()
    return names | set(trace.evidence_names)
