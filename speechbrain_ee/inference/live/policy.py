"""A policy as live inference follows it.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.policy import (
    ThresholdPolicy,
    check_exit,
    rule_for,
)
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.inference.live.scorer import LiveScorer


@dataclass(frozen=True)
class LivePolicy:
    """Which exits are read, and which utterances stop there.

    Arguments
    ---------
    name : str
        For tables and messages.
    exits : tuple of int
        The model's exits that can be taken, from 1; all stop at the last.
    layers : tuple of int
        The layers that they follow.
    rule : ThresholdPolicy, optional
        Compares scores with thresholds; None where there is one exit.
    scorer : LiveScorer, optional
        Gives the scores.
    """

    name: str
    exits: tuple[int, ...]
    layers: tuple[int, ...]
    rule: ThresholdPolicy | None = None
    scorer: LiveScorer | None = None

    @classmethod
    def fixed(cls, exit: int, exit_layers: Sequence[int]) -> "LivePolicy":
        """All utterances take one exit; no other head is read.

        Arguments
        ---------
        exit : int
            The exit, from 1.
        exit_layers : sequence of int
            Layers of the model's exits.

        Returns
        -------
        LivePolicy

        Raises
        ------
        InputError
            If there is no such exit.
        """
        check_exit(exit, exit_layers, "this model has")
        return cls(f"exit {exit}", (exit,), (exit_layers[exit - 1],))

    @classmethod
    def of(
        cls,
        policy: ExitPolicy | ThresholdPolicy,
        exit_layers: Sequence[int],
        selector: LearnedSelector | None = None,
        combination: ZScores | None = None,
        name: str | None = None,
    ) -> "LivePolicy":
        """Thresholds on a criterion.

        Arguments
        ---------
        policy : ExitPolicy or ThresholdPolicy
            What was calibrated, or thresholds alone.
        exit_layers : sequence of int
            Layers of the model's exits.
        selector, combination : optional
            See :class:`~speechbrain_ee.inference.live.scorer.LiveScorer`.
        name : str, optional
            For tables and messages; by default the policy's.

        Returns
        -------
        LivePolicy

        Raises
        ------
        InputError
            If the policy is not for these exits, or its criterion needs what
            is not given.
        """
        exits, layers, rule = rule_for(policy, exit_layers, "this model has")
        return cls(
            name or getattr(policy, "name", policy.criterion),
            exits,
            layers,
            rule,
            LiveScorer(policy.criterion, layers, selector, combination),
        )

    @cached_property
    def decides(self) -> tuple[bool, ...]:
        """By exit, whether a score can stop an utterance there."""
        places = range(1, len(self.exits) + 1)
        if self.rule is None:
            return (True,) * len(self.exits)
        return tuple(map(self.rule.decides, places))

    @cached_property
    def reads(self) -> tuple[bool, ...]:
        """By exit, whether its head is read: where nothing can stop, only
        for criteria that remember."""
        remembers = self.scorer is not None and self.scorer.remembers
        *early, last = self.decides
        return (*(each or remembers for each in early), last)
