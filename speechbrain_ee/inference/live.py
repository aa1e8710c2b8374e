"""Live inference: a batch walks up the encoder, utterances leave on the way.

At every exit that a policy looks at the head is read and the criterion asked.
Utterances that stop leave the batch; the others go on, cut to the longest of
them. Nothing above the highest exit taken is computed, and no head that
nobody asks. What an utterance gets does not depend on the batch it was in.

This is the one loop, without torch: :mod:`speechbrain_ee.inference.runner`
follows it on PyTorch, :mod:`speechbrain_ee.inference.onnx.host` on graphs.

Axes: B utterances of the batch that are still in, N that were in at first; E
exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import get_criterion, measure_names
from speechbrain_ee.exits.criteria.registry import Measure, get_measure
from speechbrain_ee.exits.criteria.text import OF_TEXT, CharNgram, measure_texts
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.policy import ThresholdPolicy, check_exit, rule_for
from speechbrain_ee.inference.hypothesis import (
    Hypothesis,
    TimedToken,
    words_of,
)

TRANSCRIPTS = "transcripts"
HOLDER = "this model has"


class LiveScorer:
    """One criterion for a batch that stands at an exit, and all that it reads.

    A criterion is the same function here as on a trace
    (:mod:`speechbrain_ee.exits.criteria`); this class finds out what it has
    to be given, and no other measurement is taken.
    """

    def __init__(
        self,
        criterion: str,
        exit_layers: Sequence[int],
        selector: Any = None,  # gives the scores of `learned`
        combination: Any = None,  # and of `combination`
        language_model: CharNgram | None = None,  # by default the selector's
        measures: Sequence[str] | None = None,  # all that can be taken
    ):
        self.criterion = get_criterion(criterion)
        self.exit_layers = tuple(exit_layers)
        self.selector = selector
        self.combination = combination
        self.language_model = language_model
        if measures is not None:
            self._check(measures)
        names = self._sources(criterion)
        known = set(measure_names())
        self.measures: tuple[Measure, ...] = tuple(
            get_measure(each)
            for each in sorted(names)
            if each.partition(":")[0] in known
        )
        self.of_text = tuple(name for name in OF_TEXT if name in names)
        self.reads_transcripts = bool(self.of_text) or TRANSCRIPTS in names
        if self.of_text and language_model is None:
            found = self._given(selector, "exit_selector.json.gz")
            self.language_model = self._given(
                found.language_model, "a language model"
            )
        self.reader = None
        if self.criterion.name == "learned" and selector.language_model:
            from speechbrain_ee.exits.selector.words import WordReader

            self.reader = WordReader(selector.language_model)

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

    def score(self, evidence: Evidence) -> NDArray[np.float64]:
        """Scores at the exit where a batch stands."""
        name = self.criterion.name
        if name == "learned":
            exit = evidence.shape[1]
            return self.selector.score_at(evidence, exit, self.reader)
        source = self.combination if name == "combination" else self.criterion
        return source.scores(evidence)[:, -1]

    def _check(self, measures: Sequence[str]) -> None:
        known = [*measures, *(OF_TEXT if self.language_model else ())]
        missing = {*self.criterion.needs} - {*known, TRANSCRIPTS}
        if missing:
            raise InputError(
                f"policy: {self.criterion.name} reads "
                f"{', '.join(sorted(missing))}, which is not known here; "
                f"there are {', '.join(known)} and transcripts."
            )

    def _sources(self, name: str) -> set[str]:
        """Evidence that a criterion rests on in the end."""
        if name == "learned":
            selector = self._given(self.selector, "exit_selector.json.gz")
            if selector.exit_layers != self.exit_layers:
                raise InputError(
                    f"policy: the learned selector is for exits after the "
                    f"layers {list(selector.exit_layers)}, the policy for "
                    f"{list(self.exit_layers)}; learn and calibrate anew."
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


@dataclass(frozen=True)
class LivePolicy:
    """Which exits are read, and which utterances stop there."""

    name: str
    exits: tuple[int, ...]  # that can be taken, from 1; all stop at the last
    layers: tuple[int, ...]  # that they follow
    rule: ThresholdPolicy | None = None  # None: there is one exit
    scorer: LiveScorer | None = None

    @classmethod
    def fixed(cls, exit: int, exit_layers: Sequence[int]) -> "LivePolicy":
        """All utterances take one exit; no other head is read."""
        check_exit(exit, exit_layers, HOLDER)
        return cls(f"exit {exit}", (exit,), (exit_layers[exit - 1],))

    @classmethod
    def of(
        cls,
        policy: Any,
        exit_layers: Sequence[int],
        name: str | None = None,
        layers: Sequence[int] | None = None,
        **sources: Any,
    ) -> "LivePolicy":
        """Thresholds on a criterion: for exits after some ``layers``, where
        the policy does not say so itself; ``sources`` as :class:`LiveScorer`.
        """
        exits, layers, rule = rule_for(policy, exit_layers, HOLDER, layers)
        scorer = LiveScorer(policy.criterion, layers, **sources)
        name = name or getattr(policy, "name", policy.criterion)
        return cls(name, exits, layers, rule, scorer)

    @cached_property
    def decides(self) -> tuple[bool, ...]:
        """By exit, whether a score can stop an utterance there."""
        if self.rule is None:
            return (True,) * len(self.exits)
        return tuple(map(self.rule.decides, range(1, len(self.exits) + 1)))

    @cached_property
    def reads(self) -> tuple[bool, ...]:
        """By exit, whether its head is read: where nothing can stop, only
        for criteria that remember.
        """
        remembers = self.scorer is not None and self.scorer.remembers
        *early, last = self.decides
        return (*(each or remembers for each in early), last)


class Engine(Protocol):
    """What runs a model, and what is known of the model."""

    sample_rate: int
    frame_s: float  # seconds from one encoder frame to the next
    vocab_size: int

    def macs(self, samples: int, frames: int, exits: Sequence[int]) -> int:
        """MACs of an utterance that ends at the last of the exits read."""


@dataclass
class Said:
    """What an exit says of an utterance."""

    layer: int
    frames: int
    tokens: Sequence[int]
    timed: Sequence[TimedToken]
    texts: Sequence[str]  # best first
    macs: int = 0  # of finding it


class LiveBatch(ABC):
    """A batch on its way up: who is still in, and what was seen of them."""

    # Of the hidden states and of time, where criteria's costs depend on them.
    width: int | None = None
    frames_per_s: float | None = None

    def __init__(
        self, engine: Engine, policy: LivePolicy, samples_N: Sequence[int]
    ):
        self.engine = engine
        self.policy = policy
        self.samples_N = samples_N
        self.rows_B = np.arange(len(samples_N))
        self.exits: list[int] = []  # whose heads ran
        self._values: dict[str, list[NDArray[np.float64]]] = {}
        self._texts: list[list[str]] = []
        self._scored = 0  # exits at which the criterion was asked

    @abstractmethod
    def climb(self, exit: int) -> None:
        """Compute up to an exit, and read its head."""

    @abstractmethod
    def measure(self) -> Mapping[str, NDArray[np.floating]]:
        """What the policy's measures give at this exit."""

    @abstractmethod
    def texts(self) -> list[str]:
        """What CTC's best path says at this exit."""

    @abstractmethod
    def said(self, places: NDArray[np.int64]) -> list[Said]:
        """What this exit says of some of the utterances."""

    @abstractmethod
    def select(self, keep: NDArray[np.int64]) -> None:
        """Go on with some of the utterances, cut to the longest."""

    def run(self) -> list[Hypothesis]:
        """Go up until all have stopped; in the order of the batch."""
        policy = self.policy
        found: dict[int, Hypothesis] = {}
        for place, exit in enumerate(policy.exits):
            if not policy.reads[place]:
                continue
            self.climb(exit)
            self.exits.append(exit)
            score_B = np.full(len(self.rows_B), np.nan)
            stop_B = np.ones(len(self.rows_B), dtype=bool)
            if place < len(policy.exits) - 1:
                score_B = self.scores(place)
                stop_B = policy.rule.stop(place + 1, score_B)
            leaving = np.flatnonzero(stop_B)
            for at, said in zip(leaving, self.said(leaving)):
                found[self.rows_B[at]] = self._hypothesis(
                    self.rows_B[at], said, float(score_B[at])
                )
            if len(leaving) == len(stop_B):
                break
            if len(leaving):
                keep = np.flatnonzero(~stop_B)
                self.select(keep)
                self._forget(keep)
        return [found[row] for row in range(len(self.samples_N))]

    def scores(self, place: int) -> NDArray[np.float64]:
        """Ask the criterion at an exit, by its place in the policy; NaN where
        no score could stop an utterance.
        """
        self._scored += 1
        scorer = self.policy.scorer
        texts = self.texts() if scorer.reads_transcripts else None
        values = dict(self.measure())
        if scorer.of_text:
            values |= measure_texts(
                texts, scorer.language_model, scorer.of_text
            )
        layers = self.policy.layers[: place + 1]
        if not scorer.remembers:
            self._values, self._texts, layers = {}, [], layers[-1:]
        for name, value_B in values.items():
            exact_B = np.asarray(value_B, dtype=np.float64)
            self._values.setdefault(name, []).append(exact_B)
        if texts is not None:
            self._texts.append(texts)
        if not self.policy.decides[place]:
            return np.full(len(self.rows_B), np.nan)
        return scorer.score(
            Evidence(
                np.array(layers),
                [str(row) for row in self.rows_B],
                {name: np.stack(v, axis=1) for name, v in self._values.items()},
                list(zip(*self._texts)) if self._texts else None,
                source="live evidence",
            )
        )

    def _forget(self, keep: NDArray[np.int64]) -> None:
        """Forget the utterances that have left."""
        self.rows_B = self.rows_B[keep]
        self._texts = [[texts[at] for at in keep] for texts in self._texts]
        self._values = {
            name: [value_B[keep] for value_B in columns]
            for name, columns in self._values.items()
        }

    def _hypothesis(self, row: int, said: Said, score: float) -> Hypothesis:
        engine, samples = self.engine, self.samples_N[row]
        macs = said.macs + engine.macs(samples, said.frames, self.exits)
        if self.policy.scorer is not None:
            macs += self._scored * int(
                self.policy.scorer.criterion.macs(
                    said.frames,
                    engine.vocab_size,
                    width=self.width,
                    frames_per_s=self.frames_per_s,
                )
            )
        duration_s = samples / engine.sample_rate
        spoken = [token.confidence for token in said.timed]
        return Hypothesis(
            text=said.texts[0],
            tokens=tuple(said.tokens),
            exit=self.exits[-1],
            layer=said.layer,
            score=score,
            confidence=sum(spoken) / len(spoken) if spoken else 0.0,
            words=words_of(said.timed, engine.frame_s, duration_s),
            nbest=tuple(said.texts),
            macs=macs,
            duration_s=duration_s,
        )
