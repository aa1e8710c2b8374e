"""What a recogniser says about an utterance, and when each word was said.

Needs no torch: the runner on PyTorch and the host on onnxruntime share it.

Axes: B utterances that are still in the batch, T frames.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentencepiece import SentencePieceProcessor

from speechbrain_ee.errors import InputError
from speechbrain_ee.files import read_bytes
from speechbrain_ee.inference.segmentation import NO_SPEECH

WORD_BEGIN = "\u2581"  # SentencePiece's mark in front of a word


@dataclass(frozen=True)
class Word:
    """A word and its time.

    Arguments
    ---------
    text : str
        The word.
    start_s, end_s : float
        Where CTC emits it, in seconds from the beginning of the audio. CTC
        emits a token when it is sure, rather late than early; the end of a
        word is that of its last token's frames.
    confidence : float
        Mean probability of its tokens, 0 to 1.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class Hypothesis:
    """What was said in an utterance, and what it took to find out.

    Arguments
    ---------
    text : str
        The words.
    tokens : tuple of int
        Their tokens.
    exit : int
        The exit that was taken, from 1; 0 where no model was asked.
    layer : int
        Encoder layers that were computed: the one that the exit follows.
    score : float
        What the policy's criterion gave that exit, higher = more ready; NaN
        where nothing was asked: at a fixed exit, and at the last.
    confidence : float
        Mean probability of the tokens, 0 to 1; 0 if there are none.
    words : tuple of Word
        The words with their times.
    nbest : tuple of str
        All hypotheses of a beam search, best first; of greedy decoding the
        one.
    macs : int
        Multiply-accumulates that were spent on the utterance.
    duration_s : float
        Length of the audio in seconds.
    skipped : str, optional
        Why no model was asked (``no speech``): the text is empty, exit, layer
        and cost are 0. None where one was.
    """

    text: str
    tokens: tuple[int, ...]
    exit: int
    layer: int
    score: float
    confidence: float
    words: tuple[Word, ...]
    nbest: tuple[str, ...]
    macs: int
    duration_s: float
    skipped: str | None = None

    @classmethod
    def unheard(cls, duration_s: float, reason: str) -> "Hypothesis":
        """No words, without asking a model; the reason says why."""
        return cls(
            "", (), 0, 0, math.nan, 0.0, (), ("",), 0, duration_s, reason
        )


@dataclass(frozen=True)
class TimedToken:
    """A token on CTC's time axis."""

    token: int
    piece: str  # what it writes, WORD_BEGIN in front of a word
    first: int  # the frames that it covers, both included
    last: int
    confidence: float  # its probability


def timed_runs(
    path_T: NDArray[np.integer],
    prob_T: NDArray[np.floating],
    blank: int,
    pieces: Sequence[str],
) -> list[TimedToken]:
    """Stretches of equal tokens on a path, blanks left out.

    ``pieces`` are what tokens write; those beyond write nothing.

    Example
    -------
    >>> path, ones = np.array([1, 1, 0, 1]), np.ones(4)
    >>> [(t.first, t.last) for t in timed_runs(path, ones, 0, ["", "a"])]
    [(0, 1), (3, 3)]
    """
    if not len(path_T):
        return []
    turns = np.flatnonzero(path_T[1:] != path_T[:-1]) + 1
    firsts = np.concatenate([[0], turns])
    ends = np.append(turns, len(path_T))
    means = np.add.reduceat(prob_T, firsts) / (ends - firsts)
    rows = zip(
        path_T[firsts].tolist(), firsts.tolist(), ends.tolist(), means.tolist()
    )
    return [
        TimedToken(
            token,
            # A vocabulary of characters may be smaller than the model's.
            pieces[token] if token < len(pieces) else "",
            first,
            end - 1,
            share,
        )
        for token, first, end, share in rows
        if token != blank
    ]


def words_of(
    tokens: Sequence[TimedToken], frame_s: float, duration_s: float
) -> tuple[Word, ...]:
    """Join tokens to words.

    Example
    -------
    >>> tokens = [
    ...     TimedToken(4, "\u2581good", 2, 3, 0.9),
    ...     TimedToken(5, "\u2581by", 7, 7, 0.8),
    ...     TimedToken(6, "e", 9, 9, 0.6),
    ... ]
    >>> [(w.text, w.start_s, w.end_s) for w in words_of(tokens, 0.1, 1.0)]
    [('good', 0.2, 0.4), ('bye', 0.7, 1.0)]
    """
    groups: list[list[TimedToken]] = []
    for token in tokens:
        if not groups or token.piece.startswith(WORD_BEGIN):
            groups.append([])
        groups[-1].append(token)
    words = []
    for group in groups:
        text = "".join(token.piece for token in group)
        text = text.replace(WORD_BEGIN, " ").strip()
        if not text:
            continue
        words.append(
            Word(
                text,
                round(min(group[0].first * frame_s, duration_s), 3),
                round(min((group[-1].last + 1) * frame_s, duration_s), 3),
                sum(token.confidence for token in group) / len(group),
            )
        )
    return tuple(words)


def of_speech(
    waves: Sequence[Any],
    sample_rate: int,
    speaks: Callable[[Any, int], bool],
    run: Callable[[Sequence[Any]], Sequence[Hypothesis]],
) -> list[Hypothesis]:
    """What ``run`` makes of the waves in which somebody speaks, and no words
    for the others; in their order.
    """
    spoken = [speaks(wave, sample_rate) for wave in waves]
    heard = [wave for wave, each in zip(waves, spoken) if each]
    found = iter(run(heard) if heard else ())
    return [
        next(found)
        if each
        else Hypothesis.unheard(len(wave) / sample_rate, NO_SPEECH)
        for wave, each in zip(waves, spoken)
    ]


def read_tokenizer(path: str | Path, remedy: str) -> SentencePieceProcessor:
    """A SentencePiece model; an InputError names the file and the way out."""
    try:
        content = read_bytes(path, remedy)
        return SentencePieceProcessor(model_proto=content or b"\0")
    except RuntimeError:
        raise InputError(
            f"{path}: not a SentencePiece model; {remedy}."
        ) from None
