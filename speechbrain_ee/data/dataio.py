"""From manifests to batches: audio, tokens, dynamic batching.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import soundfile
import speechbrain as sb
import torch
import torchaudio
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.tokenizers.SentencePiece import SentencePiece
from torch import Tensor

from speechbrain_ee.errors import InputError

logger = logging.getLogger(__name__)

OUTPUT_KEYS = ("id", "sig", "wrd", "tokens")
COLUMNS = ("ID", "duration", "wav", "wrd")
TOKEN_TYPES = ("bpe", "unigram", "char")


@dataclass(frozen=True)
class Datasets:
    """The data of one experiment.

    Arguments
    ---------
    train : DynamicItemDataset
        Training set.
    valid : DynamicItemDataset
        Validation set, longest utterance first.
    tests : dict of str to DynamicItemDataset
        Test sets by name (the manifest's file name), longest first.
    """

    train: DynamicItemDataset
    valid: DynamicItemDataset
    tests: dict[str, DynamicItemDataset]


class AudioReader:
    """Read utterances as mono at one sample rate, optionally kept in memory.

    Arguments
    ---------
    sample_rate : int
        Sample rate that the model expects, in Hz.
    cache : bool
        Keep every decoded utterance (as 16-bit integers: 115 MB per hour at
        16 kHz). Decoding is a good part of a step of a small model.
    """

    def __init__(self, sample_rate: int = 16000, cache: bool = False):
        self.sample_rate = sample_rate
        self.cache: dict[str, Tensor] | None = {} if cache else None

    def __call__(self, path: str) -> Tensor:
        """Read a file.

        Arguments
        ---------
        path : str
            Any format that soundfile reads.

        Returns
        -------
        torch.Tensor
            Samples between -1 and 1, shape (samples,).

        Raises
        ------
        InputError
            If the file cannot be read, is empty, or holds samples that are
            not finite.
        """
        if self.cache is None:
            return self._read(path)
        if path not in self.cache:
            samples = self._read(path).clamp(-1, 32767 / 32768)
            self.cache[path] = (samples * 32768).round().to(torch.int16)
        return self.cache[path].float() / 32768

    def _read(self, path: str) -> Tensor:
        advice = "repair or remove it and run the data preparation again."
        try:
            samples, rate = soundfile.read(
                path, dtype="float32", always_2d=True
            )
        except (soundfile.LibsndfileError, OSError) as error:
            raise InputError(
                f"{path}: cannot be read as audio ({error}); {advice}"
            ) from error
        wav = torch.from_numpy(samples).mean(dim=1)
        if not len(wav):
            raise InputError(f"{path}: holds no audio; {advice}")
        if not torch.isfinite(wav).all():
            raise InputError(
                f"{path}: holds samples that are not finite; {advice}"
            )
        if rate != self.sample_rate:
            wav = torchaudio.functional.resample(wav, rate, self.sample_rate)
        return wav


def make_tokenizer(hparams: Mapping[str, Any]) -> SentencePiece:
    """Train or load the SentencePiece tokenizer of an experiment.

    Arguments
    ---------
    hparams : mapping
        Uses ``save_folder``, ``output_neurons``, ``token_type``,
        ``train_csv``.

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
    _check_manifest(hparams["train_csv"])
    try:
        tokenizer = SentencePiece(
            model_dir=hparams["save_folder"],
            vocab_size=size,
            annotation_train=hparams["train_csv"],
            annotation_read="wrd",
            model_type=kind,
            character_coverage=1.0,
        )
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
    _check_coverage(tokenizer, hparams)
    return tokenizer


def _check_coverage(
    tokenizer: SentencePiece, hparams: Mapping[str, Any]
) -> None:
    """Raise InputError for a tokenizer that was learnt from other words.

    What it does not know it encodes as token 0, which is CTC's blank.
    """
    with open(hparams["train_csv"], newline="", encoding="utf-8") as stream:
        table = csv.DictReader(stream, skipinitialspace=True)
        letters = {letter for row in table for letter in row["wrd"]}
    unknown = [
        letter
        for letter in sorted(letters)
        if tokenizer.sp.unk_id() in tokenizer.sp.encode_as_ids(letter)
    ]
    if unknown:
        raise InputError(
            f"{hparams['train_csv']}: the tokenizer in "
            f"{hparams['save_folder']} does not know {' '.join(unknown)}; "
            "it was learnt from other transcripts. Train in a new "
            "output_folder."
        )


def make_datasets(
    hparams: Mapping[str, Any], tokenizer: SentencePiece
) -> Datasets:
    """Build the data sets that the YAML names.

    Arguments
    ---------
    hparams : mapping
        Uses ``data_folder``, ``train_csv``, ``valid_csv``, ``test_csv``,
        ``sample_rate``, ``cache_audio``.
    tokenizer : SentencePiece
        Turns transcripts into tokens.

    Returns
    -------
    Datasets
        Training, validation and test sets.
    """
    reader = AudioReader(hparams["sample_rate"], hparams["cache_audio"])
    train = _read_manifest(hparams, hparams["train_csv"])
    valid = _read_manifest(hparams, hparams["valid_csv"])
    valid = valid.filtered_sorted(sort_key="duration", reverse=True)
    tests = {}
    test_csv = hparams["test_csv"]
    for path in [test_csv] if isinstance(test_csv, str) else test_csv:
        name = os.path.splitext(os.path.basename(path))[0]
        tests[name] = _read_manifest(hparams, path).filtered_sorted(
            sort_key="duration", reverse=True
        )
    for dataset in (train, valid, *tests.values()):
        _add_pipelines(dataset, reader, tokenizer)
    return Datasets(train, valid, tests)


def _read_manifest(hparams: Mapping[str, Any], path: str) -> DynamicItemDataset:
    _check_manifest(path)
    return DynamicItemDataset.from_csv(
        csv_path=path, replacements={"data_root": hparams["data_folder"]}
    )


def _check_manifest(path: str) -> None:
    """Raise InputError for what SpeechBrain's reader would stumble over."""
    if not os.path.isfile(path):
        raise InputError(
            f"{path}: this manifest does not exist; run without "
            "--skip_prep=True, or pass --train_csv, --valid_csv, --test_csv."
        )
    fault = None
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            fault = _first_fault(csv.DictReader(stream, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        fault = f"cannot be read ({error})"
    if fault:
        raise InputError(
            f"{path}: {fault}; a manifest needs the columns "
            f"{','.join(COLUMNS)} and at least one utterance. Mend it, or "
            "run without --skip_prep=True to have it made again."
        )


def _first_fault(table: csv.DictReader) -> str | None:
    columns = table.fieldnames or ()
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        return f"the column {' and '.join(missing)} is missing"
    known = set()
    for row in table:
        where = f"line {table.line_num}"
        if None in row or None in row.values():
            return f"{where} has not as many cells as the first line"
        if row["ID"] in known:
            return f"{where} repeats the ID {row['ID']!r}"
        known.add(row["ID"])
        try:
            positive = 0 < float(row["duration"]) < float("inf")
        except ValueError:
            positive = False
        if not positive:
            return f"{where} has the duration {row['duration']!r}"
    return None if known else "it has no utterance"


def _add_pipelines(
    dataset: DynamicItemDataset, reader: AudioReader, tokenizer: SentencePiece
) -> None:
    @sb.utils.data_pipeline.takes("wav")
    @sb.utils.data_pipeline.provides("sig")
    def audio_pipeline(wav: str) -> Tensor:
        return reader(wav)

    @sb.utils.data_pipeline.takes("wrd")
    @sb.utils.data_pipeline.provides("tokens")
    def text_pipeline(wrd: str) -> Tensor:
        return torch.tensor(tokenizer.sp.encode_as_ids(wrd), dtype=torch.long)

    dataset.add_dynamic_item(audio_pipeline)
    dataset.add_dynamic_item(text_pipeline)
    dataset.set_output_keys(OUTPUT_KEYS)


def train_loader_options(
    hparams: Mapping[str, Any], train: DynamicItemDataset
) -> dict[str, Any]:
    """The arguments of the training set's loader.

    Arguments
    ---------
    hparams : mapping
        Uses ``train_dataloader_opts`` and, if not null,
        ``dynamic_batching``: the arguments of SpeechBrain's
        ``DynamicBatchSampler``, lengths in seconds.
    train : DynamicItemDataset
        The training set.

    Returns
    -------
    dict
        What ``Brain.fit`` takes as ``train_loader_kwargs``.
    """
    options = dict(hparams["train_dataloader_opts"])
    batching = hparams["dynamic_batching"]
    if batching is None:
        return options
    try:
        sampler = DynamicBatchSampler(
            train,
            length_func=lambda row: float(row["duration"]),
            seed=hparams["seed"],
            **batching,
        )
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(
            f"dynamic_batching: {batching} cannot be used ({error}); it "
            "needs max_batch_length in seconds and num_buckets, or null for "
            "batches of train_dataloader_opts' batch_size."
        ) from error
    for key in ("batch_size", "shuffle", "drop_last"):
        options.pop(key, None)
    options["batch_sampler"] = sampler
    return options
