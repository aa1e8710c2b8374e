"""Policies on a device without torch: exits, thresholds, and their evidence.

Criteria are those of :mod:`speechbrain_ee.exits.criteria`. What they read is
what the graphs put out, and transcripts.

Axes: B utterances that are still in the batch, E exits passed.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.criteria.ngram import CharNgram
from speechbrain_ee.exits.criteria.registry import Criterion, read_threshold
from speechbrain_ee.exits.criteria.text import OF_TEXT, measure_texts
from speechbrain_ee.exits.policy import (
    ThresholdPolicy,
    check_exit,
    rule_for,
)
from speechbrain_ee.inference.hypothesis import Gathered
from speechbrain_ee.inference.onnx.manifest import Manifest

TRANSCRIPTS = "transcripts"
LAST = "last"


@dataclass(frozen=True)
class HostPolicy:
    """Which exits are read, and which utterances stop there.

    Arguments
    ---------
    exits : tuple of int
        The exits that can be taken, from 1; all stop at the last.
    layers : tuple of int
        The layers that they follow.
    rule : ThresholdPolicy, optional
        Compares scores with thresholds; None where there is one exit.
    """

    exits: tuple[int, ...]
    layers: tuple[int, ...]
    rule: ThresholdPolicy | None = None

    @classmethod
    def fixed(cls, exit: int, exit_layers: Sequence[int]) -> "HostPolicy":
        """All utterances take one exit.

        Arguments
        ---------
        exit : int
            From 1.
        exit_layers : sequence of int
            Layers of the model's exits.

        Returns
        -------
        HostPolicy
        """
        check_exit(exit, exit_layers, "these graphs have")
        return cls((exit,), (exit_layers[exit - 1],))

    @classmethod
    def thresholds(
        cls,
        policy: Any,
        exit_layers: Sequence[int],
        evidence: Sequence[str],
        its_layers: Sequence[int] | None = None,
    ) -> "HostPolicy":
        """Thresholds on a criterion.

        Arguments
        ---------
        policy : ExitPolicy or ThresholdPolicy
            What was calibrated, or thresholds alone.
        exit_layers : sequence of int
            Layers of the model's exits.
        evidence : sequence of str
            What there is beside transcripts.
        its_layers : sequence of int, optional
            Layers of the exits that bare thresholds are for; by default all.

        Returns
        -------
        HostPolicy

        Raises
        ------
        InputError
            If it is not for these exits, or reads what graphs do not give.
        """
        exits, layers, rule = rule_for(
            policy, exit_layers, "these graphs have", its_layers
        )
        missing = {*get_criterion(policy.criterion).needs}
        missing -= {*evidence, TRANSCRIPTS}
        if missing:
            raise InputError(
                f"policy: {policy.criterion} reads {', '.join(sorted(missing))}"
                f", which is not known here; there are "
                f"{', '.join(evidence)} and transcripts."
            )
        return cls(exits, layers, rule)

    @property
    def criterion(self) -> Criterion | None:
        """What gives the scores; None where nothing is asked."""
        return None if self.rule is None else get_criterion(self.rule.criterion)


@dataclass
class HostEvidence:
    """What the utterances that are still in the batch have shown."""

    policy: HostPolicy
    rows: NDArray[np.int64]  # of the original batch
    language_model: CharNgram | None = None
    reads: list[int] = field(default_factory=list)  # exits whose heads ran
    gathered: Gathered = field(default_factory=Gathered)

    def __post_init__(self) -> None:
        found = self.policy.criterion
        needs = () if found is None else found.needs
        self.criterion = found
        self.of_text = tuple(name for name in needs if name in OF_TEXT)
        other = (*self.of_text, TRANSCRIPTS)
        self.measures = tuple(name for name in needs if name not in other)
        self.keeps_texts = TRANSCRIPTS in needs
        self.reads_texts = self.keeps_texts or bool(self.of_text)

    def looks(self, place: int) -> bool:
        """Whether an exit's head is read, by its place in the policy."""
        rule = self.policy.rule
        if place == len(self.policy.exits) - 1 or rule is None:
            return True
        remembers = self.criterion.sign is None
        return remembers or rule.decides(place + 1)

    def score(self) -> NDArray[np.float64]:
        """Scores at the exit where the batch stands."""
        layers = self.policy.layers[: len(self.reads)]
        evidence = self.gathered.evidence(
            layers, self.rows, "evidence of the graphs"
        )
        return self.criterion.scores(evidence)[:, -1]

    def add(
        self, values: dict[str, NDArray[np.floating]], texts: Sequence[str]
    ) -> None:
        """Note what an exit has shown."""
        read = {name: values[name] for name in self.measures}
        if self.of_text:
            read |= measure_texts(texts, self.language_model, self.of_text)
        self.gathered.add(read, texts if self.keeps_texts else None)

    def select(self, keep: NDArray[np.int64]) -> None:
        """Forget the utterances that have left."""
        self.rows = self.rows[keep]
        self.gathered.select(keep)


def resolve(
    given: Any,
    manifest: Manifest,
    policies: Mapping[str, ExitPolicy],
    language_model: CharNgram | None = None,
) -> HostPolicy:
    """What to follow.

    Arguments
    ---------
    given : optional
        See :meth:`speechbrain_ee.inference.onnx.host.OnnxRecogniser.resolve`.
    manifest : Manifest
        Of the graphs.
    policies : mapping of str to ExitPolicy
        Those of the folder, by name.
    language_model : CharNgram, optional
        What ``plausibility`` and ``unseen_words`` are read with.

    Returns
    -------
    HostPolicy

    Raises
    ------
    InputError
        If it is none of these, or reads what the graphs do not give.
    """
    layers = manifest.exit_layers
    evidence = manifest.measures
    if language_model is not None:
        evidence = (*evidence, *OF_TEXT)
    if given is None:
        given = manifest.default_policy or LAST
    if isinstance(given, HostPolicy):
        return given
    if hasattr(given, "rule"):  # a policy of the runner on PyTorch
        if given.rule is None:
            return HostPolicy.fixed(given.exits[-1], layers)
        return HostPolicy.thresholds(given.rule, layers, evidence, given.layers)
    if hasattr(given, "threshold"):
        return HostPolicy.thresholds(given, layers, evidence)
    text = str(getattr(given, "exit", given)).strip()
    if text == LAST or text.isdecimal():
        exit = len(layers) if text == LAST else int(text)
        return HostPolicy.fixed(exit, layers)
    named = text in policies or Path(text).is_file()
    rule = None if named else read_threshold(text)
    if rule is not None:
        return HostPolicy.thresholds(ThresholdPolicy(*rule), layers, evidence)
    if not named:
        raise InputError(
            f"policy: {text!r} is none of these graphs' policies "
            f"({', '.join(policies) or 'there are none'}) and no "
            f"file; give one of these, a policy file, an exit (1 to "
            f"{len(layers)}), or last."
        )
    policy = policies.get(text) or read_policy(text)
    return HostPolicy.thresholds(policy, layers, evidence)
