"""The tokenizer of an experiment.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from speechbrain.tokenizers.SentencePiece import SentencePiece

from speechbrain_ee.data.manifests import read_manifest
from speechbrain_ee.data.words import TranscriptCheck, normalised
from speechbrain_ee.errors import InputError, one_line

TOKEN_TYPES = ("bpe", "unigram", "char")


class WholeSentencePiece(SentencePiece):
    """SpeechBrain's wrapper, whose files appear when they are complete.

    A kill while it learns would otherwise leave half of the transcripts,
    which the next run would take for all, or half of a model.
    """

    def _train_BPE(self) -> None:  # noqa: N802 SpeechBrain's name
        final, text = self.prefix_model_file, self.text_file
        scratch = Path(f"{final}.unfinished")
        learnt = str(scratch / Path(final).name)
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            self.prefix_model_file = learnt
            self.text_file = str(scratch / Path(text).name)
            self._csv2text()
            self._learn()
            _check_whole(Path(f"{learnt}.model"))
            for suffix in (".vocab", ".model"):
                os.replace(learnt + suffix, final + suffix)
        except OSError as error:
            raise InputError(
                f"save_folder: the tokenizer {final}.model cannot be written "
                f"({one_line(error)}); make room or give permission, and "
                "start again."
            ) from error
        finally:
            self.prefix_model_file, self.text_file = final, text
            shutil.rmtree(scratch, ignore_errors=True)

    def _csv2text(self) -> None:
        """The transcripts, one a line."""
        lines = map(normalised, _transcripts(self.annotation_train))
        Path(self.text_file).write_text("\n".join(lines), encoding="utf-8")

    def _learn(self) -> None:
        """As SpeechBrain, whose options are one string, which paths break."""
        options = {}
        if self.model_type != "char":
            options["vocab_size"] = self.vocab_size
        SentencePieceTrainer.train(
            input=[self.text_file],
            model_prefix=self.prefix_model_file,
            model_type=self.model_type,
            bos_id=self.bos_id,
            eos_id=self.eos_id,
            pad_id=self.pad_id,
            unk_id=self.unk_id,
            max_sentencepiece_length=self.max_sentencepiece_length,
            character_coverage=self.character_coverage,
            add_dummy_prefix=self.add_dummy_prefix,
            **options,
        )


def _check_whole(model: Path) -> None:
    """Raise OSError for a model that was cut where the disk is full.

    SentencePiece does so without a word.
    """
    try:
        SentencePieceProcessor().load(str(model))
    except RuntimeError as error:
        size = model.stat().st_size
        raise OSError(f"it was cut after {size} bytes") from error


def make_tokenizer(hparams: Mapping[str, Any]) -> SentencePiece:
    """Train or load the SentencePiece tokenizer of an experiment.

    Arguments
    ---------
    hparams : mapping
        Uses ``save_folder``, ``output_neurons``, ``token_type``,
        ``train_csv``; for attention decoders also ``bos_index`` and
        ``eos_index``, the tokens for the beginning and the end.

    Returns
    -------
    SentencePiece
        SpeechBrain's wrapper; token 0 is CTC's blank and is no piece of any
        transcript.

    Raises
    ------
    InputError
        If the vocabulary cannot be had from the transcripts, or does not fit
        ``output_neurons``.
    """
    size, kind = hparams["output_neurons"], hparams["token_type"]
    if kind not in TOKEN_TYPES:
        raise InputError(
            f"token_type: {kind!r} is unknown; use one of "
            f"{', '.join(TOKEN_TYPES)}."
        )
    if not any(map(normalised, _transcripts(hparams["train_csv"]))):
        raise InputError(
            f"{hparams['train_csv']}: all transcripts are empty, so there is "
            "nothing to learn; fill the column wrd."
        )
    try:
        tokenizer = WholeSentencePiece(
            model_dir=hparams["save_folder"],
            vocab_size=size,
            annotation_train=hparams["train_csv"],
            annotation_read="wrd",
            model_type=kind,
            character_coverage=1.0,
            bos_id=hparams.get("bos_index", -1),
            eos_id=hparams.get("eos_index", -1),
        )
    except InputError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        cause = " ".join(str(error).split())
        raise InputError(
            f"output_neurons: {size} {kind} tokens cannot be learnt from "
            f"{hparams['train_csv']} ({cause}); choose another number, or "
            "token_type: char."
        ) from error
    pieces = tokenizer.sp.get_piece_size()
    if pieces > size or (kind != "char" and pieces != size):
        raise InputError(
            f"output_neurons: {size}, but the tokenizer in "
            f"{hparams['save_folder']} has {pieces} tokens; set "
            f"output_neurons to {pieces}, or train in a new output_folder."
        )
    _check_fits(tokenizer.sp, hparams)
    return tokenizer


def _check_fits(tokenizer: Any, hparams: Mapping[str, Any]) -> None:
    """Raise InputError for a tokenizer that was made for another training set.

    What it does not know it encodes as token 0, which is CTC's blank.
    """
    known = {
        "bos_index": tokenizer.bos_id(),
        "eos_index": tokenizer.eos_id(),
    }
    for key, index in known.items():
        if hparams.get(key, -1) != index:
            raise InputError(
                f"{key}: {hparams.get(key)}, but the tokenizer in "
                f"{hparams['save_folder']} was made with {index} (-1: "
                "without). Train in a new output_folder."
            )
    path = hparams["train_csv"]
    check = TranscriptCheck(path, tokenizer)
    for text in _transcripts(path):
        check(text)
    if check.unknown:
        raise InputError(
            f"{path}: {check.complaint()}. The tokenizer in "
            f"{hparams['save_folder']} was learnt from other transcripts; "
            "train in a new output_folder."
        )


def _transcripts(manifest: str) -> list[str]:
    """As they are written there."""
    return [row["wrd"] for row in read_manifest(manifest).values()]
