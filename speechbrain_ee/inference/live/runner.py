"""Live inference: a batch walks up the encoder, utterances leave on the way.

At every exit that a policy looks at the head is read and the criterion asked.
Utterances that stop leave the batch; the others go on, trimmed to the longest
of them. Nothing above the highest exit taken is computed, and no head that
nobody asks. What an utterance gets does not depend on the batch it was in.

Axes: B utterances of the batch, of which some are still in; T frames.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.decoding_cost import DecodingCost
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding.beam_search import NBest, Scored
from speechbrain_ee.exits.decoding.methods import (
    GREEDY,
    Decoding,
    greedy_tokens,
)
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.inference.live.alignment import timed_tokens
from speechbrain_ee.inference.live.cost import LiveCost
from speechbrain_ee.inference.live.hypothesis import Hypothesis, words_of
from speechbrain_ee.inference.live.passed import Passed, chosen_rows
from speechbrain_ee.inference.live.policy import LivePolicy
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel

_REFERENCE_S = 100  # length on which the frame rate is read


class LiveRunner:
    """Transcribes batches, each utterance as deep as a policy wants it.

    Arguments
    ---------
    model : EarlyExitModel
        The model; it is put in evaluation mode.
    pieces : sequence of str
        What the tokens write, by index.
    decode : callable
        Tokens of an utterance to its text.
    sample_rate : int
        Samples per second.
    decoding : str
        How the exit taken is decoded, one of
        :data:`speechbrain_ee.exits.decoding.methods.DECODINGS`.
    search : SearchOptions, optional
        Width of the beam, weights.
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
        """Transcribe a batch.

        Arguments
        ---------
        wavs_BS : torch.Tensor
            Waveforms, shape (B, samples), on the model's device.
        wav_lens_B : torch.Tensor
            Lengths relative to the longest, shape (B,).
        policy : LivePolicy
            When an utterance may stop.

        Returns
        -------
        list of B Hypothesis
            In the order of the batch.

        Raises
        ------
        InputError
            If the policy needs what the decoding does not give.
        """
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
        if scorer is None or not scorer.decodes:
            return
        if not self.decoding.uses_attention:
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
        passed: "Passed",
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
        passed: "Passed",
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
        finished = []
        for at, place in enumerate(leaving.tolist()):
            row = passed.rows[place]
            samples, frames = samples_B[row], frames_B[at]
            duration_s = samples / self.sample_rate
            macs = self.cost.macs(samples, frames, passed.exits)
            macs += searched[at] + passed.searches[place]
            if policy.scorer is not None:
                hidden_BTD = output.hidden_BTD
                macs += passed.scored * policy.scorer.macs(
                    frames,
                    self.model.heads.vocab_size,
                    width=None if hidden_BTD is None else hidden_BTD.shape[-1],
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
