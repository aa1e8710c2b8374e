"""Live inference on PyTorch: the loop of :mod:`speechbrain_ee.inference.live`.

Axes: B utterances of the batch, of which some are still in; E exits; T frames;
V tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import forced_align

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.cost import CostModel, DecodingCost
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding.beam_search import NBest, Scored
from speechbrain_ee.exits.decoding.methods import (
    GREEDY,
    Decoding,
    greedy_tokens,
)
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.inference.hypothesis import (
    Hypothesis,
    TimedToken,
    timed_runs,
)
from speechbrain_ee.inference.live import LiveBatch, LivePolicy, Said
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.state import EncoderState

_REFERENCE_S = 100  # length on which the frame rate is read
_CHECKED_AT = (100, 777, 4001)  # frames


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

    The figures are those of :class:`speechbrain_ee.evaluation.cost.CostModel`.
    Layers and heads take a polynomial of the frames, of degree 2, so that
    they are counted for a few lengths instead of for each utterance.
    """

    def __init__(self, model: EarlyExitModel):
        self.model = model
        self.below = CostModel(model)
        # Not lru_cache, with which a recogniser could not be pickled.
        self._fitted: dict[tuple[int, ...], tuple[int, int, int] | None] = {}

    def macs(self, samples: int, frames: int, exits: Sequence[int]) -> int:
        """MACs of the encoder and of the CTC heads that were read."""
        start = self.below.start.macs(samples)
        if (read := tuple(exits)) not in self._fitted:
            self._fitted[read] = self._fit(read)
        fitted = self._fitted[read]
        if fitted is None:
            return start + self._counted(frames, exits)
        return start + _polynomial(fitted, frames)

    def _counted(self, frames: int, exits: Sequence[int]) -> int:
        top = self.model.exit_layers[exits[-1] - 1]
        layers = sum(self.below.layer(i, frames) for i in range(top))
        read = self.model.reads(exits)
        return layers + sum(self.below.head(k, frames) for k in read)

    def _fit(self, exits: tuple[int, ...]) -> tuple[int, int, int] | None:
        """Twice the coefficients, which are halves; None without any."""
        none, one, two = (self._counted(t, exits) for t in range(3))
        fitted = 2 * none, 4 * one - 3 * none - two, none - 2 * one + two
        for frames in _CHECKED_AT:
            if _polynomial(fitted, frames) != self._counted(frames, exits):
                return None
        return fitted


def _polynomial(doubled: tuple[int, int, int], frames: int) -> int:
    constant, linear, square = doubled
    return (constant + frames * (linear + frames * square)) // 2


def timed_tokens(
    output: ExitOutput,
    tokens: Sequence[Sequence[int]] | None,
    pieces: Sequence[str],
) -> list[list[TimedToken]]:
    """Tokens of every utterance with their frames and probabilities.

    Without ``tokens`` CTC's own best path is taken, otherwise the most
    probable path that spells them; tokens that do not fit into the frames
    have no times: the list is then empty.
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


class TorchBatch(LiveBatch):
    """A batch on PyTorch."""

    def __init__(
        self,
        engine: "LiveRunner",
        policy: LivePolicy,
        state: EncoderState,
        samples_B: Sequence[int],
    ):
        super().__init__(engine, policy, samples_B)
        self.frames_per_s = 1 / engine.frame_s
        self.state = state
        self.output: ExitOutput | None = None
        self._views: list[ExitView] = []
        self._nbest: list[NBest] | None = None  # of this exit
        self._searches_B = np.zeros(len(samples_B), dtype=np.int64)  # MACs

    def climb(self, exit: int) -> None:
        """Compute up to an exit, and read its head."""
        self.state, self.output = self.engine.model.walk(self.state, exit)
        self._nbest = None
        if self.output.hidden_BTD is not None:
            self.width = self.output.hidden_BTD.shape[-1]

    def measure(self) -> dict[str, NDArray[np.floating]]:
        """What the policy's measures give at this exit."""
        scorer, output = self.policy.scorer, self.output
        if scorer.decodes:
            self._nbest = self.engine.decoding(self.exits[-1], output)
            self._searches_B += self._search_macs(output, self._nbest)
        view = ExitView(output, self._views, self._nbest)
        if scorer.looks_back:
            self._views.append(view)
        return {
            measure.name: measure.function(view).double().cpu().numpy()
            if measure.earlier <= len(view.earlier)
            else np.full(len(self.rows_B), np.nan)
            for measure in scorer.measures
        }

    def texts(self) -> list[str]:
        """What CTC's best path says at this exit."""
        return [self.engine.decode(t) for t in greedy_tokens(self.output)]

    def said(self, places: NDArray[np.int64]) -> list[Said]:
        """What this exit says of some of the utterances."""
        if not len(places):
            return []
        engine, nbest = self.engine, self._nbest
        output = chosen_rows(self.output, places)
        macs_B = self._searches_B[places]
        if nbest is not None:  # charged when they were found
            nbest = [nbest[place] for place in places]
        elif engine.decoding.name != GREEDY:
            nbest = engine.decoding(self.exits[-1], output)
            macs_B = macs_B + self._search_macs(output, nbest)
        spelt = None if nbest is None else [one.tokens for one in nbest]
        timed = timed_tokens(output, spelt, engine.pieces)
        if nbest is None:
            best = [tuple(token.token for token in each) for each in timed]
            nbest = [NBest((Scored(tokens),)) for tokens in best]
        frames_B = output.lengths_B.tolist()
        found = []
        for one, frames, each, macs in zip(nbest, frames_B, timed, macs_B):
            first, *others = one.hypotheses
            ranked = [first, *sorted(others, key=lambda other: -other.score)]
            texts = [engine.decode(list(other.tokens)) for other in ranked]
            tokens = one.tokens
            found.append(
                Said(output.layer, frames, tokens, each, texts, int(macs))
            )
        return found

    def select(self, keep: NDArray[np.int64]) -> None:
        """Go on with some of the utterances, cut to the longest."""
        keep_B = torch.zeros(len(self.rows_B), dtype=torch.bool)
        keep_B[keep] = True
        self.state = self.state.select(keep_B.to(self.state.rows_B.device))
        self._searches_B = self._searches_B[keep]
        views: list[ExitView] = []
        for view in self._views:
            views.append(ExitView(chosen_rows(view.output, keep), views))
        self._views = views

    def _search_macs(
        self, output: ExitOutput, nbest: Sequence[NBest]
    ) -> NDArray[np.int64]:
        pairs = zip(output.lengths_B.tolist(), nbest, strict=True)
        macs = self.engine.decoding_macs
        return np.array([macs(self.exits[-1], n, found) for n, found in pairs])


class LiveRunner:
    """Transcribes batches, each utterance as deep as a policy wants it.

    ``pieces`` are what tokens write, by index; ``decode`` makes the text of
    an utterance of its tokens; ``decoding`` says how the exit taken is
    decoded, one of :data:`speechbrain_ee.exits.decoding.methods.DECODINGS`.
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
        self.vocab_size = model.heads.vocab_size
        options = search or SearchOptions()
        self.decoding = Decoding(decoding, model, options)
        self.decoding_macs = partial(
            DecodingCost(model, options).macs, decoding
        )
        self.cost = LiveCost(model)
        self.macs = self.cost.macs
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
        decodes = policy.scorer is not None and policy.scorer.decodes
        if decodes and not self.decoding.uses_attention:
            raise InputError(
                f"policy: {policy.scorer.criterion.name} looks at what an "
                "attention decoder finds, but exits are decoded by "
                f"{self.decoding.name}; choose another decoding or criterion."
            )
        samples_B = (wav_lens_B * wavs_BS.shape[1]).round().long().tolist()
        state = self.model.start(wavs_BS, wav_lens_B)
        return TorchBatch(self, policy, state, samples_B).run()


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
