"""Loading a pre-trained speech encoder: wav2vec2, HuBERT or WavLM.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.files import read_json

FAMILIES = ("wav2vec2", "hubert", "wavlm")


@dataclass(frozen=True)
class Backbone:
    """A pre-trained model and what its waveforms must look like.

    Arguments
    ---------
    model : torch.nn.Module
        The model of transformers, without any head, in fp32.
    normalise : bool
        Whether it was trained on waveforms of zero mean and unit variance.
    sample_rate : int
        Samples per second.
    """

    model: nn.Module
    normalise: bool
    sample_rate: int


def load_backbone(
    source: str, save_path: str | None = None, pretrained: bool = True
) -> Backbone:
    """Load a pre-trained encoder from a folder or from the hub.

    Arguments
    ---------
    source : str
        A local folder with ``config.json``, weights and
        ``preprocessor_config.json``, or a hub name such as
        ``facebook/wav2vec2-base``.
    save_path : str, optional
        Where what is fetched from the hub is kept.
    pretrained : bool
        False makes the same model of random weights, and reads no weights:
        to train from scratch, or where a checkpoint follows.

    Returns
    -------
    Backbone

    Raises
    ------
    InputError
        If transformers is missing, the folder is incomplete or of another
        architecture, or the hub cannot be reached.
    """
    library = _transformers()
    source = str(source)
    folder = Path(source).expanduser()
    local = folder.is_dir()
    if local:
        _check_folder(folder)
        where = {"local_files_only": True}
    elif source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise InputError(
            f"source: {source} is no folder, and no hub name has that form; "
            "give the folder of a model, or a name such as "
            "facebook/wav2vec2-base."
        )
    else:
        where = {"cache_dir": save_path}
    name = str(folder) if local else source
    try:
        with _quiet(library, local):
            config = library.AutoConfig.from_pretrained(name, **where)
            _check_family(source, config.to_dict())
            # Layers are skipped by this project, in place.
            config.layerdrop = 0.0
            if pretrained:
                model, report = library.AutoModel.from_pretrained(
                    name,
                    config=config,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # refused below, by name
                    **where,
                )
                _check_weights(source, report)
            else:
                model = library.AutoModel.from_config(config)
            extractor = library.AutoFeatureExtractor.from_pretrained(
                name, **where
            )
    except InputError:
        raise
    except Exception as error:  # of a dozen kinds: libraries, network, files
        raise _explained(source, local, error) from error
    _check_extractor(library, source, extractor)
    # Files may hold half precision.
    return Backbone(
        model.float(), extractor.do_normalize, extractor.sampling_rate
    )


@contextmanager
def _quiet(library: ModuleType, local: bool) -> Iterator[None]:
    """No bars where nothing is fetched, no reports on heads left out."""
    log = library.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    if local:
        log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if local and bars:
            log.enable_progress_bar()


def _transformers() -> ModuleType:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise InputError(
            "pre-trained encoders need the package transformers, which is "
            f"not installed or does not import ({error}); install the extra "
            "`ssl`: pip install 'speechbrain-ee[ssl]'."
        ) from error


def _check_folder(folder: Path) -> None:
    config = _read_json(folder, "config.json")
    _check_family(str(folder), config)
    _read_json(folder, "preprocessor_config.json")


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise InputError(
            f"source: {folder} has no {name}; a model folder is what "
            "save_pretrained() of transformers writes, for the model and for "
            "its feature extractor."
        )
    try:
        return read_json(path, "fetch the model again")
    except InputError as error:
        raise InputError(f"source: {error}") from error


def _check_family(source: str, config: dict[str, Any]) -> None:
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise InputError(
            f"source: {source} is a model of type {kind!r}; this encoder "
            f"knows {', '.join(FAMILIES)}."
        )
    if config.get("add_adapter", False):
        raise InputError(
            f"source: {source} has adapters behind its layers (add_adapter), "
            "which an early exit would not pass; use a model without."
        )


def _check_weights(source: str, report: dict[str, Any]) -> None:
    """Weights that the file lacks would be random: refuse them."""
    missing = sorted(
        name
        for name in report["missing_keys"]
        if not name.endswith("masked_spec_embed")
    )
    # transformers 4 names them; 5 says the two shapes beside every name.
    mismatched = sorted(
        key if isinstance(key, str) else key[0]
        for key in report["mismatched_keys"]
    )
    if missing or mismatched:
        first = (missing or mismatched)[0]
        raise InputError(
            f"source: the weights in {source} are incomplete: "
            f"{len(missing) + len(mismatched)} of the model's parameters are "
            f"not there or of another shape, {first} among them; fetch the "
            "model again."
        )


def _check_extractor(library: ModuleType, source: str, extractor: Any) -> None:
    """Other extractors make spectra of the audio."""
    if not isinstance(extractor, library.Wav2Vec2FeatureExtractor):
        raise InputError(
            f"source: preprocessor_config.json of {source} is of type "
            f"{type(extractor).__name__}; this encoder reads waveforms, as "
            "prepared by Wav2Vec2FeatureExtractor."
        )


def _explained(source: str, local: bool, error: Exception) -> InputError:
    # One sentence: what follows is advice for those who call transformers.
    cause = " ".join(str(error).split()).partition(". ")[0][:200]
    cause = cause.rstrip(".") or type(error).__name__
    if local:
        return InputError(
            f"source: the model in {source} cannot be loaded ({cause}); fetch "
            "it again, or write it with save_pretrained()."
        )
    return InputError(
        f"source: {source} could not be had from the hub ({cause}); check the "
        "name and the connection, or fetch the model elsewhere and give its "
        "folder (HF_HUB_OFFLINE=1 looks for fetched models alone)."
    )
