"""Word and character errors: the one place where a hypothesis is scored.

Counts come from jiwer. Reference and hypothesis are split at white space and
compared as they are: no case folding and no other text normalisation. (Those
of this project were normalised when their manifest was read, see
:mod:`speechbrain_ee.data.words`.)

Errors are counted in words, or in characters (``error_unit: character``) for
languages that are written without spaces: there a word error rate is the
share of utterances that are not wholly right.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError

ERROR_UNITS = ("word", "character")
_COLUMN = {"substitute": 0, "delete": 1, "insert": 2}


@dataclass(frozen=True)
class WordErrors:
    """Edits that turn a reference into a hypothesis."""

    substitutions: int
    deletions: int
    insertions: int

    @property
    def total(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions


def word_errors(ref: str, hyp: str) -> WordErrors:
    """Word errors of one utterance.

    Example
    -------
    >>> word_errors("the cat sat", "the cat sat down")
    WordErrors(substitutions=0, deletions=0, insertions=1)
    >>> word_errors("", "oh no").total
    2
    """
    return WordErrors(*(int(n) for n in edit_counts([ref], [hyp])[0]))


def edit_counts(
    refs: Sequence[str], hyps: Sequence[str], unit: str = "word"
) -> NDArray[np.int64]:
    """Edits of many utterances at once.

    Where several alignments are equally short, the split into the three
    kinds may differ from another tool's; the total never does.

    Arguments
    ---------
    refs : sequence of str
        N references.
    hyps : sequence of str
        N hypotheses.
    unit : str
        ``"word"`` or ``"character"`` (a space between words counts as one).

    Returns
    -------
    array of shape (N, 3)
        Substitutions, deletions, insertions.

    Example
    -------
    >>> edit_counts(["a b", "a b"], ["a c", "a"]).tolist()
    [[1, 0, 0], [0, 1, 0]]
    >>> edit_counts(["abc"], ["abx"], unit="character").tolist()
    [[1, 0, 0]]
    """
    # Exits repeat each other's hypotheses: every distinct pair is aligned
    # once, and trivial pairs (equal, or one side empty) are not at all.
    known: dict[tuple[str, str], tuple[int, int, int]] = {}
    todo: list[tuple[str, str]] = []
    pairs = [
        (" ".join(ref.split()), " ".join(hyp.split()))
        for ref, hyp in zip(refs, hyps, strict=True)
    ]
    for pair in pairs:
        if pair in known:
            continue
        ref, hyp = pair
        if ref == hyp:
            known[pair] = (0, 0, 0)
        elif not ref or not hyp:
            known[pair] = (0, _length(ref, unit), _length(hyp, unit))
        else:
            known[pair] = (0, 0, 0)
            todo.append(pair)
    for pair, counts in zip(todo, _align(todo, unit), strict=True):
        known[pair] = counts
    return np.array([known[pair] for pair in pairs], dtype=np.int64).reshape(
        -1, 3
    )


def char_counts(refs: Sequence[str]) -> NDArray[np.int64]:
    """Number of characters of each reference, spaces between words included."""
    return np.array([len(" ".join(r.split())) for r in refs], dtype=np.int64)


def unit_counts(refs: Sequence[str], unit: str) -> NDArray[np.int64]:
    """Words or characters of each reference, shape (N,)."""
    if unit != "word":
        return char_counts(refs)
    return np.array([len(ref.split()) for ref in refs], dtype=np.int64)


def check_error_unit(unit: str) -> None:
    """Raise InputError for a unit that errors are not counted in."""
    if unit not in ERROR_UNITS:
        raise InputError(
            f"error_unit: {unit!r} is unknown; use one of "
            f"{', '.join(ERROR_UNITS)}."
        )


def mark_errors(ref: str, hyp: str) -> list[tuple[str, str]]:
    """The hypothesis in pieces, each with what it is, for display.

    Example
    -------
    >>> mark_errors("the cat sat", "a cat")
    [('substitute', 'a'), ('equal', 'cat'), ('delete', 'sat')]
    """
    said, heard = ref.split(), hyp.split()
    if not said or not heard:
        kind, words = ("insert", heard) if heard else ("delete", said)
        return [(kind, " ".join(words))] if words else []
    import jiwer  # a device that runs graphs scores nothing

    (chunks,) = jiwer.process_words(" ".join(said), " ".join(heard)).alignments
    return [
        (chunk.type, " ".join(said[chunk.ref_start_idx : chunk.ref_end_idx]))
        if chunk.type == "delete"
        else (
            chunk.type,
            " ".join(heard[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in chunks
    ]


def _length(text: str, unit: str) -> int:
    return len(text.split()) if unit == "word" else len(text)


def _align(
    pairs: Sequence[tuple[str, str]], unit: str
) -> list[tuple[int, int, int]]:
    """Edits of pairs of which neither side is empty."""
    check_error_unit(unit)
    if not pairs:
        return []
    import jiwer

    process = (
        jiwer.process_words if unit == "word" else jiwer.process_characters
    )
    output = process([ref for ref, _ in pairs], [hyp for _, hyp in pairs])
    return [_count(chunks) for chunks in output.alignments]


def _count(chunks: Sequence[Any]) -> tuple[int, int, int]:
    counts = [0, 0, 0]
    for chunk in chunks:
        if chunk.type == "equal":
            continue
        counts[_COLUMN[chunk.type]] += max(
            chunk.ref_end_idx - chunk.ref_start_idx,
            chunk.hyp_end_idx - chunk.hyp_start_idx,
        )
    return counts[0], counts[1], counts[2]
