"""From manifests to batches: audio, tokens, dynamic batching.

Authors
 * The speechbrain-ee contributors 2026
"""

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
    try:
        tokenizer = SentencePiece(
            model_dir=hparams["save_folder"],
            vocab_size=size,
            annotation_train=hparams["train_csv"],
            annotation_read="wrd",
            model_type=kind,
            character_coverage=1.0,
        )
    except RuntimeError as error:
        raise InputError(
            f"output_neurons: {size} {kind} tokens cannot be learnt from "
            f"{hparams['train_csv']} ({error}); choose another number, or "
            "token_type: char."
        ) from error
    pieces = tokenizer.sp.get_piece_size()
    if pieces > size or (kind != "char" and pieces != size):
        raise InputError(
            f"output_neurons: {size}, but the tokenizer in "
            f"{hparams['save_folder']} has {pieces} tokens; set "
            f"output_neurons to {pieces}, or train in a new output_folder."
        )
    return tokenizer


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
    for path in hparams["test_csv"]:
        name = os.path.splitext(os.path.basename(path))[0]
        tests[name] = _read_manifest(hparams, path).filtered_sorted(
            sort_key="duration", reverse=True
        )
    for dataset in (train, valid, *tests.values()):
        _add_pipelines(dataset, reader, tokenizer)
    return Datasets(train, valid, tests)


def _read_manifest(hparams: Mapping[str, Any], path: str) -> DynamicItemDataset:
    if not os.path.isfile(path):
        raise InputError(
            f"{path}: this manifest does not exist; run without "
            "--skip_prep=True, or pass --train_csv, --valid_csv, --test_csv."
        )
    dataset = DynamicItemDataset.from_csv(
        csv_path=path, replacements={"data_root": hparams["data_folder"]}
    )
    for column in ("duration", "wav", "wrd"):
        row = next(iter(dataset.data.values()), {})
        if column not in row:
            raise InputError(
                f"{path}: needs the columns ID,duration,wav,spk_id,wrd and "
                f"at least one utterance; `{column}` was not found."
            )
    return dataset


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
    sampler = DynamicBatchSampler(
        train,
        length_func=lambda row: float(row["duration"]),
        seed=hparams["seed"],
        **batching,
    )
    for key in ("batch_size", "shuffle", "drop_last"):
        options.pop(key, None)
    options["batch_sampler"] = sampler
    return options
