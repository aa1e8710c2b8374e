"""The tokenizer: marks that no transcript holds; learnt whole or not at all.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import os
import resource
from pathlib import Path

import pytest

from speechbrain_ee.data.tokens import make_tokenizer
from speechbrain_ee.errors import InputError
from tests.soak.killing import (
    KILLED,
    Change,
    forked,
    note_changes,
    status_of,
)

TEXTS = ["a cat sat on the mat", "the dog ate it all", "and up again today"]
KEYS = ("bos_index", "eos_index")


@pytest.fixture
def hparams(tmp_path):
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
def test_beginning_and_end_are_in_no_transcript(kind, size, hparams):
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
def test_a_tokenizer_with_other_marks_is_noticed(made, asked, message, hparams):
    """A folder of a CTC run, or of an AED run with the marks elsewhere."""
    make_tokenizer(hparams | dict(zip(KEYS, made)))
    with pytest.raises(InputError, match=f"^{message}.*new output_folder"):
        make_tokenizer(hparams | dict(zip(KEYS, asked)))


# ---- Killed, and full disks ------------------------------------------------


LIMIT_BYTES = 300  # more than the transcripts, less than the model


def pieces(hparams: dict) -> list[str]:
    """The vocabulary of a tokenizer that is there or is learnt now."""
    sp = make_tokenizer(hparams).sp
    return [sp.id_to_piece(i) for i in range(sp.get_piece_size())]


def test_killed_at_every_change(hparams, tmp_path):
    expected = pieces(hparams | {"save_folder": str(tmp_path / "whole")})
    names = {"26_bpe.model", "26_bpe.vocab"}
    for number in range(1, 20):
        folder = tmp_path / f"{number}"
        own = hparams | {"save_folder": str(folder)}

        def child(
            folder: Path = folder, own: dict = own, number: int = number
        ) -> None:
            note_changes(folder, Change(".", number))
            make_tokenizer(own)

        status = status_of(forked(child))
        assert pieces(own) == expected
        found = {path.name for path in folder.iterdir()}
        assert {name for name in found if name[0] != "."} == names
        if status != KILLED:
            break
    assert status == 0 and number > 4


def test_full_disk(hparams, tmp_path):
    paragraph = tmp_path / "paragraph.txt"

    def child() -> None:
        # What SentencePiece itself prints would reach the limit, too.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        limits = (LIMIT_BYTES, LIMIT_BYTES)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        try:
            make_tokenizer(hparams)
        except InputError as error:
            paragraph.write_text(str(error)[-LIMIT_BYTES:], "utf-8")

    assert status_of(forked(child)) == 0
    text = paragraph.read_text("utf-8")
    assert "26_bpe.model: cannot be written" in text and "make room" in text
    assert not list((tmp_path / "save").glob("*.model"))
