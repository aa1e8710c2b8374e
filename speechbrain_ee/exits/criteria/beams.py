"""Hypotheses of a beam: CTC's N best and an attention decoder's.

Measures of the attention head look at what was found at the exit by its beam
search, alone or with CTC, or by CTC's N best rescored. They cost a search at
every exit that an utterance passes, which a trace charges to criteria that
read them (``decoding_macs``). An empty hypothesis is no evidence of readiness.

CTC's N best come from a prefix beam search of Graves and Jaitly 2014, ICML, in
the form of Hannun et al. 2014, arXiv 1408.2873: no lexicon and no language
model, what an exit itself finds probable. A score sums over all alignments of a
token sequence that the beam has kept, and each frame extends the beam by its
``beam`` most probable tokens only. All utterances of a batch and all their
hypotheses go through a frame together. Two hypotheses are the same when a
64-bit hash of their tokens is.

A 10 s utterance (250 frames, beam 10, one thread of a server CPU) takes 5 ms in
a batch of sixteen and 30 to 50 ms alone. The declared cost counts the additions
of the search only, which is far less than that time suggests.

Axes: B utterances, T frames, V vocabulary entries, K hypotheses of each (the
beam), C tokens that a frame may add.

Authors
 * The speechbrain-ee contributors 2026
"""

from __future__ import annotations  # what was decoded is known by name only

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.registry import free, measure
from speechbrain_ee.exits.criteria.view import ExitView

if TYPE_CHECKING:
    from speechbrain_ee.exits.decoding.beam_search import NBest

SIZE = 10
BEAM = 10
# For an utterance without a hypothesis: less ready than any search finds.
_LEAST_SCORE = -100.0
# Of the empty hypothesis; a token multiplies the hash and is added to it.
_SEED = np.uint64(1469598103934665603)
_FACTOR = np.uint64(6364136223846793005)
_IMPOSSIBLE = -np.inf


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


@dataclass
class _Beam:
    """The hypotheses of a batch after some frames; arrays of shape (B, K)."""

    hashes: NDArray[np.uint64]
    parents: NDArray[np.uint64]  # hash of the hypothesis without its last token
    last: NDArray[np.int64]  # last token; -1 of the empty one
    blank: NDArray[np.float64]  # log-probability of alignments ending in blank
    token: NDArray[np.float64]  # and of those that end in the last token

    @property
    def total(self) -> NDArray[np.float64]:
        return np.logaddexp(self.blank, self.token)


def beam_search(
    log_probs_BTV: Tensor, lengths_B: Tensor, blank: int, beam: int
) -> list[list[Hypothesis]]:
    """The most probable token sequences of every utterance of a batch.

    Arguments
    ---------
    log_probs_BTV : tensor of shape (B, T, V)
        Log-probabilities of the frames, none of an utterance's own NaN.
    lengths_B : tensor of shape (B,)
        Frames of each utterance; what lies beyond is not read.
    blank : int
        Index of CTC's blank.
    beam : int
        Width of the search, and the greatest number of tokens that a frame
        may add.

    Returns
    -------
    list of list of Hypothesis
        For every utterance at most ``beam``, the best first.

    Example
    -------
    >>> frames_TV = torch.tensor([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]]).log()
    >>> found = beam_search(frames_TV[None], torch.tensor([2]), 0, beam=9)
    >>> best = found[0][0]
    >>> best.tokens, round(best.log_prob, 3)  # ln(0.42 + 0.21 + 0.06)
    ((1,), -0.371)
    """
    lengths = lengths_B.cpu().numpy()
    order = np.argsort(-lengths, kind="stable")  # who is done leaves at the end
    log_probs_BTV = log_probs_BTV.detach().float().cpu()[order]
    size = min(beam, log_probs_BTV.shape[-1])
    log_probs_BTV.masked_fill_(log_probs_BTV.isnan(), _IMPOSSIBLE)
    best = torch.topk(log_probs_BTV, size)
    scores_BTC = best.values.numpy().astype(np.float64)
    tokens_BTC = best.indices.numpy()
    blanks_BTC = tokens_BTC == blank
    blank_BT = np.where(blanks_BTC, scores_BTC, _IMPOSSIBLE).max(-1)
    scores_BTC = np.where(blanks_BTC, _IMPOSSIBLE, scores_BTC)

    state = _start(len(lengths), beam)
    slots, added = [], []
    lengths = lengths[order]
    for frame in range(int(lengths.max(initial=0))):
        rows = int((lengths > frame).sum())
        state, slots_BK, added_BK = _extended(
            state,
            scores_BTC[:rows, frame],
            tokens_BTC[:rows, frame],
            blank_BT[:rows, frame],
        )
        slots.append(slots_BK)
        added.append(added_BK)
    found: list[list[Hypothesis]] = [[] for _ in lengths]
    total_BK = state.total
    for row, place in enumerate(order):
        ranked = np.argsort(-total_BK[row], kind="stable")
        found[place] = [
            Hypothesis(
                _tokens(slots, added, row, slot, lengths[row]),
                float(total_BK[row, slot]),
            )
            for slot in ranked.tolist()
            if total_BK[row, slot] > _IMPOSSIBLE
        ]
    return found


def _start(batch: int, beam: int) -> _Beam:
    """The empty hypothesis, with probability 1, and free places."""
    shape = (batch, beam)
    blank = np.full(shape, _IMPOSSIBLE)
    blank[:, 0] = 0.0
    # Free places have hashes of their own, so that none of them is a parent.
    hashes = np.broadcast_to(np.arange(beam, dtype=np.uint64), shape).copy()
    hashes[:, 0] = _SEED
    return _Beam(
        hashes,
        np.zeros(shape, np.uint64),
        np.full(shape, -1, np.int64),
        blank,
        np.full(shape, _IMPOSSIBLE),
    )


def _extended(
    state: _Beam,
    scores_BC: NDArray,
    tokens_BC: NDArray,
    blank_B: NDArray,
) -> tuple[_Beam, NDArray, NDArray]:
    """The hypotheses after one more frame of the first rows.

    Returns them with the slot that each comes from and the token that it
    added, -1 where it only stayed.
    """
    rows, beam = len(scores_BC), state.last.shape[1]
    last_BK = state.last[:rows]
    token_BK, blank_BK = state.token[:rows], state.blank[:rows]
    total_BK = np.logaddexp(token_BK, blank_BK)
    repeats_BKC = tokens_BC[:, None, :] == last_BK[:, :, None]

    # It stays: by a blank, or by its last token once more.
    again_BK = np.where(repeats_BKC, scores_BC[:, None, :], _IMPOSSIBLE)
    again_BK = again_BK.max(-1)
    stays_blank_BK = total_BK + blank_B[:, None]
    stays_token_BK = token_BK + again_BK

    # It grows by a token: after a blank, where the token is its last one.
    before_BKC = np.where(
        repeats_BKC, blank_BK[:, :, None], total_BK[:, :, None]
    )
    grows_BKC = before_BKC + scores_BC[:, None, :]

    # What grows into a hypothesis that the beam holds already adds to it.
    same_BKK = state.parents[:rows, :, None] == state.hashes[:rows, None, :]
    same_BKK &= last_BK[:, :, None] >= 0
    row, child, parent = np.nonzero(same_BKK)
    if len(row):
        at = tokens_BC[row] == last_BK[row, child][:, None]
        hit = at.any(-1)
        row, child, parent, at = row[hit], child[hit], parent[hit], at[hit]
        which = at.argmax(-1)
        stays_token_BK[row, child] = np.logaddexp(
            stays_token_BK[row, child], grows_BKC[row, parent, which]
        )
        grows_BKC[row, parent, which] = _IMPOSSIBLE

    stays_BK = np.logaddexp(stays_blank_BK, stays_token_BK)
    choices = np.concatenate([stays_BK, grows_BKC.reshape(rows, -1)], axis=1)
    chosen_BK = np.argpartition(-choices, beam - 1, axis=1)[:, :beam]
    chosen_BK.sort(axis=1)
    stayed_BK = chosen_BK < beam
    grown_BK = np.where(stayed_BK, 0, chosen_BK - beam)
    width = tokens_BC.shape[1]
    slots_BK = np.where(stayed_BK, chosen_BK, grown_BK // width)
    index_B = np.arange(rows)[:, None]
    new_BK = tokens_BC[index_B, grown_BK % width]
    score_BK = choices[index_B, chosen_BK]

    hashes_BK = state.hashes[index_B, slots_BK]
    grown_hash_BK = hashes_BK * _FACTOR + new_BK.astype(np.uint64) + _SEED
    following = _Beam(*(array.copy() for array in vars(state).values()))
    following.hashes[:rows] = np.where(stayed_BK, hashes_BK, grown_hash_BK)
    following.parents[:rows] = np.where(
        stayed_BK, state.parents[index_B, slots_BK], hashes_BK
    )
    following.last[:rows] = np.where(
        stayed_BK, last_BK[index_B, slots_BK], new_BK
    )
    following.blank[:rows] = np.where(
        stayed_BK, stays_blank_BK[index_B, slots_BK], _IMPOSSIBLE
    )
    following.token[:rows] = np.where(
        stayed_BK, stays_token_BK[index_B, slots_BK], score_BK
    )
    return following, slots_BK, np.where(stayed_BK, -1, new_BK)


def _tokens(
    slots: list[NDArray], added: list[NDArray], row: int, slot: int, frames: int
) -> tuple[int, ...]:
    """The tokens of a hypothesis, followed back to the first frame."""
    tokens = []
    for frame in reversed(range(frames)):
        token = int(added[frame][row, slot])
        if token >= 0:
            tokens.append(token)
        slot = int(slots[frame][row, slot])
    return tuple(reversed(tokens))


def _posterior(found: Sequence[Hypothesis]) -> float:
    # An exit that emits only blanks has not learnt anything yet.
    if not found or not found[0].tokens:
        return 0.0
    log_probs = np.array([one.log_prob for one in found])
    return float(1 / np.exp(log_probs - log_probs[0]).sum())


def _candidates(frames: Any, vocab: int) -> Any:
    """Cost with the usual beam: find its best tokens, extend by each."""
    return frames * (vocab + BEAM * min(vocab, BEAM))


@measure(
    "nbest_posterior",
    higher_is_ready=True,
    cost=_candidates,
    formula="exp(s_1) / sum_(j<=N) exp(s_j), s: scores of a beam's N best",
    source="Wright et al. 2024, arXiv 2309.09546, N-best posterior",
)
def nbest_posterior(
    view: ExitView, *, size: int = SIZE, beam: int = BEAM
) -> Tensor:
    """Posterior of the best hypothesis among the ``size`` best of a search.

    From 0 to 1; 0 where the best hypothesis is empty or there is no frame, NaN
    where the model's output is NaN.
    """
    if size < 2:
        raise InputError(
            f"nbest_posterior: size={size} is not possible: the posterior "
            "among fewer than two hypotheses is always 1; choose a size of at "
            f"least 2 ({SIZE} is usual)."
        )
    if beam < size:
        raise InputError(
            f"nbest_posterior: beam={beam} cannot hold size={size} "
            f"hypotheses; choose a beam of at least {size}."
        )
    output = view.output
    found = beam_search(view.log_probs_BTV, output.lengths_B, view.blank, beam)
    values_B = torch.tensor([_posterior(each[:size]) for each in found])
    broken_BT = view.log_probs_BTV.detach().isnan().any(-1)
    frames_T = torch.arange(broken_BT.shape[1], device=broken_BT.device)
    broken_BT &= frames_T < output.lengths_B.to(broken_BT.device)[:, None]
    values_B = values_B.to(broken_BT.device)
    return values_B.masked_fill(broken_BT.any(1), torch.nan)


@measure(
    "beam_score",
    higher_is_ready=True,
    decodes=True,
    cost=free,
    formula="log p(y) / (|y| + 1), y: best of the attention head's beam",
    source="the length-normalised score that beam searches rank by",
)
def beam_score(view: ExitView) -> Tensor:
    """Log-probability per token of the chosen hypothesis, in nats."""
    return _each(
        view,
        lambda one: max(one.best.score_per_token, _LEAST_SCORE),
        _LEAST_SCORE,
    )


@measure(
    "beam_posterior",
    higher_is_ready=True,
    decodes=True,
    cost=free,
    formula="exp(s_1) / sum_(j<=K) exp(s_j), s: scores of the attention beam",
    source="Wright et al. 2024, arXiv 2309.09546, N-best posterior",
)
def beam_posterior(view: ExitView) -> Tensor:
    """Share of the chosen hypothesis in the probability of the beam."""
    return _each(view, lambda one: one.posterior, 0.0)


@measure(
    "token_confidence",
    higher_is_ready=True,
    decodes=True,
    cost=free,
    formula="exp(1/S sum_s ln p(y_s | y_<s)), p: attention head",
    source="geometric mean of the decoder's probabilities of its tokens",
)
def token_confidence(view: ExitView) -> Tensor:
    """Mean probability that the attention head gives the tokens."""

    def value(one: NBest) -> float:
        log_probs = one.best.log_probs
        return math.exp(sum(log_probs) / len(log_probs))

    return _each(view, value, 0.0)


@measure(
    "token_confidence_min",
    higher_is_ready=True,
    decodes=True,
    cost=free,
    formula="min_s p(y_s | y_<s), p: attention head",
    source="the minimum over tokens of Laptev and Ginsburg, arXiv 2212.08703",
)
def token_confidence_min(view: ExitView) -> Tensor:
    """Smallest probability that the attention head gives a token."""
    return _each(view, lambda one: math.exp(min(one.best.log_probs)), 0.0)


def _each(
    view: ExitView, value: Callable[[NBest], float], without: float
) -> Tensor:
    values = [value(one) if one.tokens else without for one in view.nbest]
    # A score that is no number, from weights that overflow, is no readiness.
    values = [each if math.isfinite(each) else without for each in values]
    return torch.tensor(values, device=view.output.log_probs_BTV.device)
