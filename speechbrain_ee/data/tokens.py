"""The tokenizer of an experiment.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from speechbrain.tokenizers.SentencePiece import SentencePiece
from speechbrain.utils.distributed import run_on_main

from speechbrain_ee.data.manifests import read_manifest
from speechbrain_ee.data.words import TranscriptCheck, normalised
from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.files import whole_file

TOKEN_TYPES = ("bpe", "unigram", "char")
WAY_OUT = (
    "make room or give permission, so that save_folder can hold the "
    "tokenizer, and start again"
)


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
    path = hparams["train_csv"]
    transcripts = [row["wrd"] for row in read_manifest(path).values()]
    if not any(map(normalised, transcripts)):
        raise InputError(
            f"{path}: all transcripts are empty, so there is nothing to learn; "
            "fill the column wrd."
        )
    try:
        # Written whole: SpeechBrain trains only where there is no file.
        model = Path(hparams["save_folder"], f"{size}_{kind}.model")
        if not model.is_file():
            run_on_main(_learn, [model, transcripts, hparams])
        tokenizer = SentencePiece(
            model_dir=hparams["save_folder"], vocab_size=size, model_type=kind
        )
    except InputError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"output_neurons: {size} {kind} tokens cannot be learnt from "
            f"{path} ({one_line(error, 1000)}); choose another number, or "
            "token_type: char."
        ) from error
    pieces = tokenizer.sp.get_piece_size()
    if pieces > size or (kind != "char" and pieces != size):
        raise InputError(
            f"output_neurons: {size}, but the tokenizer in "
            f"{hparams['save_folder']} has {pieces} tokens; set "
            f"output_neurons to {pieces}, or train in a new output_folder."
        )
    for key, index in (
        ("bos_index", tokenizer.sp.bos_id()),
        ("eos_index", tokenizer.sp.eos_id()),
    ):
        if hparams.get(key, -1) != index:
            raise InputError(
                f"{key}: {hparams.get(key)}, but the tokenizer in "
                f"{hparams['save_folder']} was made with {index} (-1: "
                "without). Train in a new output_folder."
            )
    # What it does not know it encodes as token 0, which is CTC's blank.
    check = TranscriptCheck(path, tokenizer.sp)
    for text in transcripts:
        check(text)
    if check.unknown:
        raise InputError(
            f"{path}: {check.complaint()}. The tokenizer in "
            f"{hparams['save_folder']} was learnt from other transcripts; "
            "train in a new output_folder."
        )
    return tokenizer


def _learn(
    path: Path, transcripts: Sequence[str], hparams: Mapping[str, Any]
) -> None:
    """Write a model with the options of SpeechBrain's wrapper."""
    kind, options = hparams["token_type"], {}
    if kind != "char":
        options["vocab_size"] = hparams["output_neurons"]
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=map(normalised, transcripts),
        model_writer=model,
        model_type=kind,
        bos_id=hparams.get("bos_index", -1),
        eos_id=hparams.get("eos_index", -1),
        pad_id=-1,
        unk_id=0,
        max_sentencepiece_length=10,
        character_coverage=1.0,
        **options,
    )
    learnt = SentencePieceProcessor(model_proto=model.getvalue())
    with whole_file(path.with_suffix(".vocab"), WAY_OUT, text=True) as stream:
        for token in range(learnt.get_piece_size()):
            score = learnt.get_score(token)
            stream.write(f"{learnt.id_to_piece(token)}\t{score:g}\n")
    with whole_file(path, WAY_OUT) as stream:
        stream.write(model.getvalue())
