"""Beam searches over CTC outputs: token sequences and their log-probability.

No lexicon and no language model: what an exit itself finds probable. A
score sums over all alignments of a token sequence that the beam has kept,
and each frame extends the beam by its ``beam`` most probable tokens only.

Two searchers go through the same candidates and differ in speed only.
Flashlight's is compiled (the extra ``beam``); SpeechBrain's is Python and
there so that a search works without the extra.

Axes: T frames, V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

import functools
import importlib
import itertools
import logging
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from speechbrain_ee.errors import InputError

logger = logging.getLogger(__name__)

SEARCHERS = ("auto", "flashlight", "speechbrain")
# Instead of minus infinity, which a searcher would subtract from itself.
_NEVER = -1e4
# Where SpeechBrain's searcher must not prune any further.
_NO_PRUNING = -1e30
# First of the code points that stand for tokens in its text-based search.
_PRIVATE = 0xF0000


@dataclass(frozen=True)
class Hypothesis:
    """A token sequence and its log-probability.

    Arguments
    ---------
    tokens : tuple of int
        Without blanks and repetitions.
    log_prob : float
        Log of the sum over the alignments within the beam.
    """

    tokens: tuple[int, ...]
    log_prob: float


def beam_search(
    log_probs_TV: Tensor, blank: int, beam: int, searcher: str = "auto"
) -> list[Hypothesis]:
    """The most probable token sequences of one utterance.

    Arguments
    ---------
    log_probs_TV : tensor of shape (T, V)
        Log-probabilities of its frames, none of them NaN.
    blank : int
        Index of CTC's blank.
    beam : int
        Width of the search.
    searcher : str
        ``flashlight``, ``speechbrain``, or ``auto`` for the first of them
        that is installed.

    Returns
    -------
    list of Hypothesis
        At most ``beam``, the best first.

    Raises
    ------
    InputError
        If the searcher is not known or not installed.

    Example
    -------
    >>> import torch
    >>> frames_TV = torch.tensor([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]]).log()
    >>> best = beam_search(frames_TV, 0, beam=9, searcher="speechbrain")[0]
    >>> best.tokens, round(best.log_prob, 3)  # ln(0.42 + 0.21 + 0.06)
    ((1,), -0.371)
    """
    search = _search_flashlight
    if _which(searcher) == "speechbrain":
        search = _search_speechbrain
    clamped_TV = log_probs_TV.detach().cpu().float().clamp(min=_NEVER)
    found = search(clamped_TV.contiguous(), blank, beam)
    return sorted(found, key=lambda one: -one.log_prob)


def has_flashlight() -> bool:
    """Whether the package flashlight-text (the extra ``beam``) is there.

    Returns
    -------
    bool
    """
    return _flashlight() is not None


@functools.cache
def _flashlight() -> ModuleType | None:
    try:
        return importlib.import_module("flashlight.lib.text.decoder")
    except ImportError:
        return None


@functools.cache
def _which(searcher: str) -> str:
    """The searcher to use; says once when it is the slow one."""
    if searcher not in SEARCHERS:
        raise InputError(
            f"CTC beam search: searcher={searcher!r} is not known; valid "
            f"searchers: {', '.join(SEARCHERS)}."
        )
    if searcher == "speechbrain":
        return searcher
    if has_flashlight():
        return "flashlight"
    missing = "the package flashlight-text (the extra `beam`) is not installed"
    if searcher == "flashlight":
        raise InputError(
            f"CTC beam search: searcher='flashlight': {missing}; install it "
            f"or choose searcher='speechbrain', which is slower."
        )
    logger.warning(
        "CTC beam search: %s; SpeechBrain's searcher takes its place and is "
        "some fifteen times slower.",
        missing,
    )
    return "speechbrain"


def _search_flashlight(
    log_probs_TV: Tensor, blank: int, beam: int
) -> list[Hypothesis]:
    library = _flashlight()
    frames, vocab = log_probs_TV.shape
    options = library.LexiconFreeDecoderOptions(
        beam_size=beam,
        beam_size_token=min(vocab, beam),
        beam_threshold=float("inf"),
        lm_weight=0.0,
        sil_score=0.0,
        log_add=True,
        criterion_type=library.CriterionType.CTC,
    )
    # The decoder does not keep the language model alive: hold it here. The
    # blank is the silence, too, or a token of that index could not be first.
    lm = library.ZeroLM()
    decoder = library.LexiconFreeDecoder(options, lm, blank, blank, [])
    results = decoder.decode(log_probs_TV.data_ptr(), frames, vocab)
    return [
        Hypothesis(_collapse(result.tokens, blank), result.score)
        for result in results
    ]


def _search_speechbrain(
    log_probs_TV: Tensor, blank: int, beam: int
) -> list[Hypothesis]:
    log_probs = log_probs_TV.double().numpy()  # its sums keep this precision
    searcher = _speechbrain(log_probs.shape[1], blank, beam)
    found = searcher.decode_log_probs(
        _best_tokens(log_probs, beam), len(log_probs)
    )
    return [
        Hypothesis(tuple(ord(c) - _PRIVATE for c in one.text), float(one.score))
        for one in found
    ]


@functools.lru_cache(maxsize=8)
def _speechbrain(vocab: int, blank: int, beam: int) -> Any:
    # Late: only who has no flashlight pays for the import.
    from speechbrain.decoders.ctc import CTCBeamSearcher

    # One private character per token: it merges hypotheses by their text,
    # so that tokens that spell alike must not look alike. No token splits
    # words: "the blank is the space" keeps it from looking for one.
    tokens = [chr(_PRIVATE + index) for index in range(vocab)]
    return CTCBeamSearcher(
        blank_index=blank,
        vocab_list=tokens,
        space_token=tokens[blank],
        beam_size=beam,
        beam_prune_logp=_NO_PRUNING,
        token_prune_min_logp=_NO_PRUNING,
        prune_history=False,
        topk=beam,
    )


def _best_tokens(log_probs: NDArray[np.floating], beam: int) -> NDArray:
    """Only the ``beam`` best tokens of each frame; the rest is impossible."""
    vocab = log_probs.shape[1]
    if beam >= vocab:
        return log_probs
    kept = np.argpartition(log_probs, vocab - beam)[:, vocab - beam :]
    best = np.full_like(log_probs, -np.inf)
    np.put_along_axis(best, kept, np.take_along_axis(log_probs, kept, 1), 1)
    return best


def _collapse(path: list[int], blank: int) -> tuple[int, ...]:
    return tuple(
        token for token, _ in itertools.groupby(path) if token != blank
    )
