"""What the tokens of a SentencePiece model write; needs no torch.

Authors
 * The speechbrain-ee contributors 2026
"""

import unicodedata
from collections.abc import Iterable
from typing import Any


def decode(tokenizer: Any, tokens: Iterable[int]) -> str:
    """Token indices to text."""
    pieces = tokenizer.get_piece_size()
    text = tokenizer.decode_ids([t for t in tokens if t < pieces])
    return unicodedata.normalize("NFC", text)


def pieces_of(tokenizer: Any) -> tuple[str, ...]:
    """What each token writes, by index; control tokens write nothing."""
    return tuple(
        "" if tokenizer.is_control(i) else tokenizer.id_to_piece(i)
        for i in range(tokenizer.get_piece_size())
    )
