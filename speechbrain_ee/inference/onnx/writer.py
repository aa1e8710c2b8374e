"""From an exit's log-probabilities to a hypothesis, in numpy.

Axes: T frames, V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.inference.live.hypothesis import (
    Hypothesis,
    TimedToken,
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
        runs = greedy_runs(log_probs_TV, self.manifest.blank_index)
        return self.tokenizer.decode_ids([token for token, _, _ in runs])

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
        runs = greedy_runs(log_probs_TV, manifest.blank_index)
        probs_T = np.exp(log_probs_TV.max(-1))
        timed = [
            TimedToken(
                token,
                self.tokenizer.id_to_piece(token),
                first,
                end - 1,
                float(probs_T[first:end].mean()),
            )
            for token, first, end in runs
        ]
        tokens = tuple(token for token, _, _ in runs)
        spoken = [token.confidence for token in timed]
        duration_s = samples / manifest.sample_rate
        text = self.tokenizer.decode_ids(list(tokens))
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

    def _macs(self, samples: int, frames: int, known: HostEvidence) -> int:
        reads = tuple(known.reads)
        macs = self.manifest.macs(samples, frames, reads)
        if known.criterion is None:
            return macs
        # The last exit is not asked.
        asked = len(reads) - (reads[-1] == known.policy.exits[-1])
        once = known.criterion.macs(frames, self.manifest.vocab_size)
        return macs + asked * int(once)


def greedy_runs(
    log_probs_TV: NDArray[np.float32], blank: int
) -> list[tuple[int, int, int]]:
    """Stretches of equal tokens on the best path, blanks left out.

    Arguments
    ---------
    log_probs_TV : array of shape (T, V)
        What an exit put out.
    blank : int
        CTC's blank.

    Returns
    -------
    list of (int, int, int)
        Token, first frame, and the frame behind the last.

    Example
    -------
    >>> greedy_runs(np.eye(3)[[1, 1, 0, 1, 2]], blank=0)
    [(1, 0, 2), (1, 3, 4), (2, 4, 5)]
    """
    path_T = log_probs_TV.argmax(-1)
    starts = np.flatnonzero(np.diff(path_T, prepend=-1))
    ends = np.append(starts[1:], len(path_T))
    rows = zip(path_T[starts].tolist(), starts.tolist(), ends.tolist())
    return [row for row in rows if row[0] != blank]
