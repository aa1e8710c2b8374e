"""Live inference: a batch walks up the encoder, utterances leave on the way.

At every exit that a policy looks at the head is read and the criterion asked.
Utterances that stop leave the batch; the others go on, trimmed to the longest
of them. Nothing above the highest exit taken is computed, and no head that
nobody asks. What an utterance gets does not depend on the batch it was in.

Axes: B utterances of the batch, of which some are still in; E exits; T frames;
V tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import forced_align

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.cost import CostModel, DecodingCost
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.criteria import get_criterion, measure_names
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.criteria.registry import Measure, get_measure
from speechbrain_ee.exits.criteria.text import (
    OF_TEXT,
    measure_texts,
)
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding import (
    GREEDY,
    Decoding,
    NBest,
    Scored,
    SearchOptions,
    greedy_tokens,
)
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.policy import (
    ThresholdPolicy,
    check_exit,
    rule_for,
)
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.selector.words import WordReader
from speechbrain_ee.inference.hypothesis import (
    Gathered,
    Hypothesis,
    TimedToken,
    timed_runs,
    words_of,
)
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel

TRANSCRIPTS = "transcripts"
_REFERENCE_S = 100  # length on which the frame rate is read
# Layers and heads take a polynomial of the frames, of degree 2.
_FITTED_AT = (512, 1024, 1536)
_CHECKED_AT = (2, 100, 777, 4001)


class LiveScorer:
    """One criterion for a batch that stands at an exit, and all that it reads.

    A criterion is the same function here as on a trace
    (:mod:`speechbrain_ee.exits.criteria`); this class finds out what it has
    to be given, and takes no other measurement.
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
        known = set(measure_names())
        self.measures: tuple[Measure, ...] = tuple(
            get_measure(each)
            for each in sorted(names)
            if each.partition(":")[0] in known
        )
        self.of_text = tuple(name for name in OF_TEXT if name in names)
        self.reads_transcripts = bool(self.of_text) or TRANSCRIPTS in names
        self.language_model = None
        if self.of_text:
            found = self._given(selector, "exit_selector.json.gz")
            self.language_model = self._given(
                found.language_model, "a language model"
            )
        self.reader = None
        if self.criterion.name == "learned" and selector.language_model:
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
        """As :meth:`measure` and :meth:`score`, where :attr:`is_direct`."""
        (value_B,) = self.measure(view, texts).values()
        score_B = self.criterion.sign * value_B
        return np.where(np.isnan(score_B), -np.inf, score_B)

    def measure(
        self, view: ExitView, texts: Sequence[str] | None
    ) -> dict[str, NDArray[np.float64]]:
        """What the criterion reads of a batch at an exit."""
        passed, rows = len(view.earlier), len(view.output.lengths_B)
        values = {
            measure.name: measure.function(view).double().cpu().numpy()
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
        """Scores at the exit where a batch stands."""
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
        """Thresholds on a criterion."""
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
        for criteria that remember.
        """
        remembers = self.scorer is not None and self.scorer.remembers
        *early, last = self.decides
        return (*(each or remembers for each in early), last)


@dataclass
class Passed:
    """What the utterances that are still in the batch have passed."""

    rows: list[int]  # of the original batch
    exits: list[int] = field(default_factory=list)  # whose heads ran
    scored: int = 0  # exits at which the criterion was asked
    views: list[ExitView] = field(default_factory=list)
    gathered: Gathered = field(default_factory=Gathered)
    score_B: NDArray[np.float64] | None = None
    nbest: list[NBest] | None = None
    searches: list[int] = field(default_factory=list)  # MACs by row

    def __post_init__(self) -> None:
        self.searches = [0] * len(self.rows)

    def charge(self, macs: Sequence[int]) -> None:
        """Count what searching has cost."""
        self.searches = [sum(both) for both in zip(self.searches, macs)]

    def evidence(self, layers: Sequence[int]) -> Evidence:
        """What is known of the utterances that are still in."""
        return self.gathered.evidence(
            layers[: self.scored], self.rows, "live evidence"
        )

    def select(self, keep: NDArray[np.int64]) -> None:
        """Forget the utterances that have left."""
        self.rows = [self.rows[place] for place in keep]
        self.searches = [self.searches[place] for place in keep]
        self.gathered.select(keep)
        views: list[ExitView] = []
        for view in self.views:
            views.append(ExitView(chosen_rows(view.output, keep), views))
        self.views = views


def chosen_rows(output: ExitOutput, keep: NDArray[np.int64]) -> ExitOutput:
    """Some utterances of an exit, trimmed to the longest of them."""
    if len(keep) == len(output.lengths_B):
        return output
    at = torch.from_numpy(keep).to(output.lengths_B.device)
    lengths_B = output.lengths_B[at]
    frames = int(lengths_B.max())
    hidden = output.hidden_BTD
    return replace(
        output,
        log_probs_BTV=output.log_probs_BTV[at, :frames],
        lengths_B=lengths_B,
        hidden_BTD=None if hidden is None else hidden[at, :frames],
    )


class LiveCost:
    """MACs of an utterance that has passed some exits, for any length.

    The figures are those of :class:`speechbrain_ee.evaluation.cost.CostModel`,
    asked for a few lengths instead of for each utterance.
    """

    def __init__(self, model: EarlyExitModel):
        self.model = model
        self.below = CostModel(model)
        self._fitted: dict[tuple[int, ...], tuple[int, int, int] | None] = {}

    def macs(self, samples: int, frames: int, exits: Sequence[int]) -> int:
        """MACs of the encoder and of the CTC heads that were read."""
        start = self.below.start.macs(samples)
        # Not lru_cache, with which a recogniser could not be pickled.
        if (read := tuple(exits)) not in self._fitted:
            self._fitted[read] = self._fit(read)
        fitted = self._fitted[read]
        if fitted is None:
            return start + self._counted(frames, exits)
        constant, linear, square = fitted
        # The coefficients are halves at most.
        return start + (constant + frames * (linear + frames * square)) // 2

    def _counted(self, frames: int, exits: Sequence[int]) -> int:
        top = self.model.exit_layers[exits[-1] - 1]
        layers = sum(self.below.layer(i, frames) for i in range(top))
        read = self.model.reads(exits)
        return layers + sum(self.below.head(k, frames) for k in read)

    def _fit(self, exits: tuple[int, ...]) -> tuple[int, int, int] | None:
        """Twice the coefficients; None where there are none."""
        one, two, three = (self._counted(t, exits) for t in _FITTED_AT)
        step = _FITTED_AT[0]
        square, rest = divmod(one - 2 * two + three, step**2)
        slope = 2 * (two - one) - 3 * square * step**2
        linear, more = divmod(slope, step)
        constant = 2 * one - linear * step - square * step**2
        if rest or more:
            return None
        for frames in _CHECKED_AT:
            value = constant + frames * (linear + frames * square)
            if value != 2 * self._counted(frames, exits):
                return None
        return constant, linear, square


def timed_tokens(
    output: ExitOutput,
    tokens: Sequence[Sequence[int]] | None,
    pieces: Sequence[str],
) -> list[list[TimedToken]]:
    """Tokens of every utterance with their frames and probabilities.

    Without ``tokens`` CTC's own best path is taken, otherwise the most
    probable path that spells them; tokens that do not fit into the frames
    have no times: the list is then empty.

    Example
    -------
    >>> frames = torch.tensor([[[0.1, 0.9], [0.2, 0.8], [0.7, 0.3]]])
    >>> output = ExitOutput(frames.log(), torch.tensor([3]), layer=2)
    >>> timed_tokens(output, None, ["", "a"])[0][0]
    TimedToken(token=1, piece='a', first=0, last=1, confidence=0.8500000238418579)
    """
    lengths = output.lengths_B.tolist()
    blank = output.blank_index
    if tokens is None:
        best = output.log_probs_BTV.max(-1)
        path_BT = best.indices.cpu().numpy()
        prob_BT = best.values.float().exp().cpu().numpy()
        paths = list(zip(path_BT, prob_BT))
    else:
        # On the CPU, utterance by utterance: alignments are short.
        log_probs = output.log_probs_BTV.float().cpu()
        paths = [
            _aligned(one[:length], wanted, blank)
            for one, length, wanted in zip(log_probs, lengths, tokens)
        ]
    return [
        timed_runs(path_T[:length], prob_T[:length], blank, pieces)
        for (path_T, prob_T), length in zip(paths, lengths)
    ]


def _aligned(
    log_probs_TV: Tensor, tokens: Sequence[int], blank: int
) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
    """The best path that spells some tokens, and its probabilities."""
    repeats = sum(a == b for a, b in zip(tokens, tokens[1:]))
    if not tokens or len(tokens) + repeats > len(log_probs_TV):
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    wanted = torch.tensor([list(tokens)], dtype=torch.int32)
    finite = log_probs_TV.clamp(min=-1e4).unsqueeze(0)
    path, score = forced_align(finite, wanted, blank=blank)
    return path[0].numpy(), score[0].exp().numpy()


class LiveRunner:
    """Transcribes batches, each utterance as deep as a policy wants it.

    ``pieces`` are what tokens write, by index; ``decode`` makes the text of
    an utterance of its tokens; ``decoding`` says how the exit taken is
    decoded, one of :data:`speechbrain_ee.exits.decoding.DECODINGS`.
    """

    def __init__(
        self,
        model: EarlyExitModel,
        pieces: Sequence[str],
        decode: Callable[[list[int]], str],
        sample_rate: int = 16000,
        decoding: str = GREEDY,
        search: SearchOptions | None = None,
    ):
        self.model = model.eval()
        self.pieces = tuple(pieces)
        self.decode = decode
        self.sample_rate = sample_rate
        options = search or SearchOptions()
        self.decoding = Decoding(decoding, model, options)
        costs = DecodingCost(model, options)
        self.decoding_macs = partial(costs.macs, decoding)
        self.cost = LiveCost(model)
        some, more = (
            self.cost.below.frames(times * _REFERENCE_S * sample_rate)
            for times in (1, 2)
        )
        self.frame_s = _REFERENCE_S / (more - some)

    # Not inference_mode: SpeechBrain keeps tables between calls, and training
    # in the same process could not use those made in it.
    @torch.no_grad()
    def run(
        self, wavs_BS: Tensor, wav_lens_B: Tensor, policy: LivePolicy
    ) -> list[Hypothesis]:
        """Transcribe a batch; lengths are relative to the longest."""
        self._check(policy)
        samples_B = (wav_lens_B * wavs_BS.shape[1]).round().long().tolist()
        found: dict[int, Hypothesis] = {}
        state = self.model.start(wavs_BS, wav_lens_B)
        passed = Passed(state.rows_B.tolist())
        for place, exit in enumerate(policy.exits):
            if not policy.reads[place]:
                continue
            state, output = self.model.walk(state, exit)
            stop_B = self._stopping(place, exit, output, policy, passed)
            leaving = np.flatnonzero(stop_B)
            if len(leaving):
                left = chosen_rows(output, leaving)
                done = self._finish(leaving, left, policy, passed, samples_B)
                found.update(done)
            if len(leaving) == len(stop_B):
                break
            if len(leaving):
                keep = np.flatnonzero(~stop_B)
                keep_B = torch.from_numpy(~stop_B).to(state.rows_B.device)
                state = state.select(keep_B)
                passed.select(keep)
        return [found[row] for row in range(len(samples_B))]

    def _check(self, policy: LivePolicy) -> None:
        scorer = policy.scorer
        decodes = scorer is not None and scorer.decodes
        if decodes and not self.decoding.uses_attention:
            raise InputError(
                f"policy: {scorer.criterion.name} looks at what an attention "
                f"decoder finds, but exits are decoded by "
                f"{self.decoding.name}; choose another decoding or criterion."
            )

    def _stopping(
        self,
        place: int,
        exit: int,
        output: ExitOutput,
        policy: LivePolicy,
        passed: Passed,
    ) -> NDArray[np.bool_]:
        """Which utterances stop at an exit?"""
        passed.exits.append(exit)
        passed.nbest = None
        rows = len(output.lengths_B)
        passed.score_B = np.full(rows, np.nan)
        scorer = policy.scorer
        if place == len(policy.exits) - 1 or scorer is None:
            return np.ones(rows, dtype=bool)
        passed.scored += 1
        texts = None
        if scorer.reads_transcripts:
            texts = [self.decode(tokens) for tokens in greedy_tokens(output)]
        if scorer.is_direct:
            passed.score_B = scorer.direct(ExitView(output), texts)
            return policy.rule.stop(place + 1, passed.score_B)
        if scorer.decodes:
            passed.nbest = self.decoding(exit, output)
            passed.charge(self._search_macs(exit, output, passed.nbest))
        view = ExitView(output, passed.views, passed.nbest)
        if scorer.looks_back:
            passed.views.append(view)
        passed.gathered.add(scorer.measure(view, texts), texts)
        if not policy.decides[place]:
            return np.zeros(rows, dtype=bool)
        passed.score_B = scorer.score(passed.evidence(policy.layers))
        return policy.rule.stop(place + 1, passed.score_B)

    def _search_macs(
        self, exit: int, output: ExitOutput, nbest: Sequence[NBest]
    ) -> list[int]:
        frames_B = output.lengths_B.tolist()
        pairs = zip(frames_B, nbest, strict=True)
        return [
            self.decoding_macs(exit, count, found) for count, found in pairs
        ]

    def _finish(
        self,
        leaving: NDArray[np.int64],
        output: ExitOutput,
        policy: LivePolicy,
        passed: Passed,
        samples_B: Sequence[int],
    ) -> list[tuple[int, Hypothesis]]:
        """Hypotheses of the utterances that stop, by row of the batch."""
        exit = passed.exits[-1]
        greedy = self.decoding.name == GREEDY and passed.nbest is None
        searched = [0] * len(leaving)
        if greedy:
            timed = timed_tokens(output, None, self.pieces)
            nbest = [
                NBest((Scored(tuple(one.token for one in tokens)),))
                for tokens in timed
            ]
        else:
            if passed.nbest is None:
                nbest = self.decoding(exit, output)
                searched = self._search_macs(exit, output, nbest)
            else:  # charged when they were found
                nbest = [passed.nbest[place] for place in leaving]
            spelt = [found.tokens for found in nbest]
            timed = timed_tokens(output, spelt, self.pieces)
        frames_B = output.lengths_B.tolist()
        hidden_BTD = output.hidden_BTD
        width = None if hidden_BTD is None else hidden_BTD.shape[-1]
        finished = []
        for at, place in enumerate(leaving.tolist()):
            row = passed.rows[place]
            samples, frames = samples_B[row], frames_B[at]
            duration_s = samples / self.sample_rate
            macs = self.cost.macs(samples, frames, passed.exits)
            macs += searched[at] + passed.searches[place]
            if policy.scorer is not None:
                macs += passed.scored * policy.scorer.macs(
                    frames,
                    self.model.heads.vocab_size,
                    width=width,
                    frames_per_s=1 / self.frame_s,
                )
            ranked = sorted(
                nbest[at].hypotheses[1:], key=lambda one: -one.score
            )
            texts = [
                self.decode(list(one.tokens))
                for one in (nbest[at].best, *ranked)
            ]
            tokens = nbest[at].tokens
            spoken = [token.confidence for token in timed[at]]
            finished.append(
                (
                    row,
                    Hypothesis(
                        text=texts[0],
                        tokens=tuple(tokens),
                        exit=exit,
                        layer=output.layer,
                        score=float(passed.score_B[place]),
                        confidence=sum(spoken) / len(spoken) if spoken else 0.0,
                        words=words_of(timed[at], self.frame_s, duration_s),
                        nbest=tuple(texts),
                        macs=macs,
                        duration_s=duration_s,
                    ),
                )
            )
        return finished


def compile_segments(
    model: EarlyExitModel, backend: str = "inductor"
) -> EarlyExitModel:
    """Compile what runs between two exits, in place.

    A segment is compiled layer by layer, with dynamic batch and time: layers
    of one shape share what was compiled, so that the time to compile does not
    grow with depth, and an utterance can leave after any of them. The first
    batches are slow.
    """
    for layer in model.encoder.layers:
        layer.compile(dynamic=True, backend=backend)
    return model
