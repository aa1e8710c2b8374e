"""The hypotheses of one utterance at one exit, with their scores.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scored:
    """A hypothesis.

    Arguments
    ---------
    tokens : tuple of int
        Without the tokens for beginning and end.
    score : float
        Its log-probability in nats, of all models that took part, weighted.
    log_probs : tuple of float
        What the attention head gave each token and the end, in nats; empty
        where none was asked.
    complete : bool
        Whether it ended itself; False if it was cut at the greatest length.
    """

    tokens: tuple[int, ...]
    score: float = math.nan
    log_probs: tuple[float, ...] = ()
    complete: bool = True

    @property
    def score_per_token(self) -> float:
        """The score over the number of tokens; an end that was said counts."""
        return self.score / max(len(self.tokens) + self.complete, 1)


@dataclass(frozen=True)
class NBest:
    """The hypotheses of one utterance, the chosen one first.

    Arguments
    ---------
    hypotheses : tuple of Scored
        At least one; the others may come in any order.
    steps : int
        Tokens that the attention decoder read for each hypothesis.

    Example
    -------
    >>> nbest = NBest((Scored((5, 6), -1.0), Scored((5,), -2.0)), steps=3)
    >>> nbest.tokens, round(nbest.posterior, 3)
    ((5, 6), 0.731)
    """

    hypotheses: tuple[Scored, ...]
    steps: int = 0

    @property
    def best(self) -> Scored:
        """The chosen hypothesis."""
        return self.hypotheses[0]

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens of the chosen hypothesis."""
        return self.best.tokens

    @property
    def posterior(self) -> float:
        """Share of the chosen hypothesis in the probability of all."""
        scores = np.array([one.score for one in self.hypotheses])
        shares = np.exp(scores - scores.max())
        return float(shares[0] / shares.sum())
