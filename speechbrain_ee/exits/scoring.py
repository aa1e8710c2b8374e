"""Word and character errors: the one place where a hypothesis is scored.

The alignment is rapidfuzz's, as jiwer's is. Reference and hypothesis are split
at white space and compared as they are: no case folding and no other text
normalisation. (Those of this project were normalised when their manifest was
read, see :mod:`speechbrain_ee.data.words`.)

Errors are counted in words, or in characters (``error_unit: character``) for
languages that are written without spaces: there a word error rate is the
share of utterances that are not wholly right.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from speechbrain_ee.errors import InputError

ERROR_UNITS = ("word", "character")
_KINDS = ("replace", "delete", "insert")


def edit_counts(
    refs: Sequence[str], hyps: Sequence[str], unit: str = "word"
) -> NDArray[np.int64]:
    """Edits of many utterances at once.

    Where several alignments are equally short, the split into the three
    kinds may differ from another tool's; the total never does.
    """
    check_error_unit(unit)
    # Exits repeat each other's hypotheses: a pair is aligned once.
    known: dict[tuple[str, str], list[int]] = {}
    counts = []
    for pair in zip(refs, hyps, strict=True):
        if pair not in known:
            edits = Levenshtein.editops(*(_units(text, unit) for text in pair))
            tags = [edit.tag for edit in edits]
            known[pair] = [tags.count(kind) for kind in _KINDS]
        counts.append(known[pair])
    return np.array(counts, dtype=np.int64).reshape(-1, 3)


def char_counts(refs: Sequence[str]) -> NDArray[np.int64]:
    """Number of characters of each reference, spaces between words included."""
    return unit_counts(refs, "character")


def unit_counts(refs: Sequence[str], unit: str) -> NDArray[np.int64]:
    """Words or characters of each reference, shape (N,)."""
    return np.array([len(_units(ref, unit)) for ref in refs], dtype=np.int64)


def check_error_unit(unit: str) -> None:
    """Raise InputError for a unit that errors are not counted in."""
    if unit not in ERROR_UNITS:
        raise InputError(
            f"error_unit: {unit!r} is unknown; use one of "
            f"{', '.join(ERROR_UNITS)}."
        )


def mark_errors(ref: str, hyp: str) -> list[tuple[str, str]]:
    """The hypothesis in pieces, each with what it is, for display."""
    said, heard = ref.split(), hyp.split()
    pieces = []
    for kind, start, stop, first, last in Levenshtein.opcodes(said, heard):
        words = said[start:stop] if kind == "delete" else heard[first:last]
        name = "substitute" if kind == "replace" else kind
        pieces.append((name, " ".join(words)))
    return pieces


def _units(text: str, unit: str) -> Sequence[str]:
    words = text.split()
    return words if unit == "word" else " ".join(words)
