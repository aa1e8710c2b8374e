"""From an exit's log-probabilities to a hypothesis, in numpy.

Axes: T frames, V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.data.words import decode, pieces_of
from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.hypothesis import (
    Hypothesis,
    TimedToken,
    timed_runs,
    words_of,
)
from speechbrain_ee.inference.onnx.manifest import Manifest
from speechbrain_ee.inference.onnx.policy import HostEvidence


class HostWriter:
    """Writes down what CTC's best path says.

    Arguments
    ---------
    manifest : Manifest
        Of the graphs.
    tokenizer : sentencepiece.SentencePieceProcessor
        From tokens to text.
    """

    def __init__(self, manifest: Manifest, tokenizer: Any):
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.pieces = pieces_of(tokenizer)

    def text(self, log_probs_TV: NDArray[np.float32]) -> str:
        """The words of an utterance without its padding.

        Arguments
        ---------
        log_probs_TV : array of shape (T, V)
            What an exit put out.

        Returns
        -------
        str
        """
        timed = self._timed(log_probs_TV)
        return decode(self.tokenizer, [one.token for one in timed])

    def hypothesis(
        self,
        log_probs_TV: NDArray[np.float32],
        score: float,
        samples: int,
        known: HostEvidence,
    ) -> Hypothesis:
        """What was said, and what it took to find out.

        Arguments
        ---------
        log_probs_TV : array of shape (T, V)
            What the exit taken put out.
        score : float
            What the criterion gave it.
        samples : int
            Length of the audio.
        known : HostEvidence
            The exits passed.

        Returns
        -------
        Hypothesis
        """
        manifest, frames = self.manifest, len(log_probs_TV)
        timed = self._timed(log_probs_TV)
        tokens = tuple(one.token for one in timed)
        spoken = [token.confidence for token in timed]
        duration_s = samples / manifest.sample_rate
        text = decode(self.tokenizer, tokens)
        exit = known.reads[-1]
        return Hypothesis(
            text=text,
            tokens=tokens,
            exit=exit,
            layer=manifest.exit_layers[exit - 1],
            score=score,
            confidence=sum(spoken) / len(spoken) if spoken else 0.0,
            words=words_of(timed, manifest.frame_s, duration_s),
            nbest=(text,),
            macs=self._macs(samples, frames, known),
            duration_s=duration_s,
        )

    def _timed(self, log_probs_TV: NDArray[np.float32]) -> list[TimedToken]:
        if not np.isfinite(log_probs_TV).all():
            raise InputError(
                f"{self.manifest.name}: the graphs give NaN or infinite "
                "numbers, as after a training that diverged; export another "
                "model."
            )
        path_T, prob_T = log_probs_TV.argmax(-1), np.exp(log_probs_TV.max(-1))
        return timed_runs(
            path_T, prob_T, self.manifest.blank_index, self.pieces
        )

    def _macs(self, samples: int, frames: int, known: HostEvidence) -> int:
        reads = tuple(known.reads)
        macs = self.manifest.macs(samples, frames, reads)
        if known.criterion is None:
            return macs
        # The last exit is not asked.
        asked = len(reads) - (reads[-1] == known.policy.exits[-1])
        once = known.criterion.macs(frames, self.manifest.vocab_size)
        return macs + asked * int(once)
