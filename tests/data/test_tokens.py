"""A tokenizer for attention decoders marks beginning and end.

Protects: that no transcript holds the marks, and that a folder with another
system's tokenizer is noticed before training.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
from pathlib import Path

import pytest

from speechbrain_ee.data.tokens import make_tokenizer
from speechbrain_ee.errors import InputError

TEXTS = ["a cat sat on the mat", "the dog ate it all", "and up again today"]
KEYS = ("bos_index", "eos_index")


@pytest.fixture
def hparams(tmp_path: Path) -> dict:
    """What a tokenizer is learnt from; its audio is not read."""
    rows = [[f"u{n}", 1.0, "u.wav", "s", wrd] for n, wrd in enumerate(TEXTS)]
    with (tmp_path / "train.csv").open("w", newline="") as stream:
        header = ["ID", "duration", "wav", "spk_id", "wrd"]
        csv.writer(stream).writerows([header, *rows])
    return {
        "save_folder": str(tmp_path / "save"),
        "train_csv": str(tmp_path / "train.csv"),
        "output_neurons": 26,
        "token_type": "bpe",
    }


@pytest.mark.parametrize(
    ("kind", "size"), [("bpe", 26), ("unigram", 22), ("char", 24)]
)
def test_beginning_and_end_are_in_no_transcript(
    kind: str, size: int, hparams: dict
) -> None:
    """They have the places asked for; no text gives them, nor they text."""
    own = hparams | {"token_type": kind, "output_neurons": size}
    sp = make_tokenizer(own | {"bos_index": 1, "eos_index": 2}).sp
    assert (sp.bos_id(), sp.eos_id()) == (1, 2)
    for text in TEXTS:
        tokens = sp.encode_as_ids(text)
        assert 2 < min(tokens) <= max(tokens) < size
        assert sp.decode_ids([1, *tokens, 2]) == text


@pytest.mark.parametrize(
    ("made", "asked", "message"),
    [
        ((), (1, 2), "bos_index: 1, .* with -1"),
        ((1, 2), (), "bos_index: None, .* with 1 "),
        ((1, 2), (2, 1), "bos_index: 2, .* with 1 "),
        ((1, 2), (1, 3), "eos_index: 3, .* with 2 "),
    ],
)
def test_a_tokenizer_with_other_marks_is_noticed(
    made: tuple, asked: tuple, message: str, hparams: dict
) -> None:
    """A folder of a CTC run, or of an AED run with the marks elsewhere."""
    make_tokenizer(hparams | dict(zip(KEYS, made)))
    with pytest.raises(InputError, match=f"^{message}.*new output_folder"):
        make_tokenizer(hparams | dict(zip(KEYS, asked)))
