"""The configuration of a pre-trained encoder in an inference folder.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.files import read_json, whole_file
from speechbrain_ee.inference.folder.architecture import (
    WAY_OUT,
    Architecture,
)
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.ssl import SSLEncoder

BACKBONE_FOLDER = "backbone"
_FILES = ("config.json", "preprocessor_config.json")
# They name a place on the writer's machine, or code.
_LEFT_OUT = ("_name_or_path", "name_or_path", "auto_map")


def write_backbone(folder: Path, model: EarlyExitModel) -> None:
    """Write ``backbone/``, if the encoder of a model is a pre-trained one.

    Arguments
    ---------
    folder : Path
        The inference folder.
    model : EarlyExitModel
        The model; layers above its last exit are left out.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    encoder = model.encoder
    if not isinstance(encoder, SSLEncoder):
        return
    config: dict[str, Any] = json.loads(encoder.config.to_json_string())
    for key in _LEFT_OUT:
        config.pop(key, None)
    config["num_hidden_layers"] = encoder.exit_layers[-1]
    extractor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": encoder.normalise,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": config.get("feat_extract_norm") == "layer",
        "sampling_rate": encoder.sample_rate,
    }
    for name, content in zip(_FILES, (config, extractor)):
        text = json.dumps(content, indent=2, sort_keys=True)
        with whole_file(folder / BACKBONE_FOLDER / name) as stream:
            stream.write(f"{text}\n".encode())


def read_backbone(folder: Path) -> Path:
    """Look through ``backbone/`` of an inference folder.

    Arguments
    ---------
    folder : Path
        The inference folder.

    Returns
    -------
    Path
        Where :class:`~speechbrain_ee.models.ssl.SSLEncoder` finds it.

    Raises
    ------
    InputError
        If a file is missing or damaged, or names code to be loaded.
    """
    place = folder / BACKBONE_FOLDER
    for name in os.listdir(place) if place.is_dir() else ():
        if name not in _FILES:
            raise InputError(
                f"{place / name}: is not read; {place} holds "
                f"{' and '.join(_FILES)}. Remove it, or {WAY_OUT}."
            )
    return _checked(place, WAY_OUT)


def find_backbone(
    source: str, save_path: str | None = None, fetch: bool = False
) -> Path:
    """Where the configuration is of the encoder that a YAML names.

    Arguments
    ---------
    source : str
        A folder, or a name on the hub.
    save_path : str, optional
        Where fetched models are kept, beside the hub's own cache.
    fetch : bool
        Fetch the configuration if it is not on this machine.

    Returns
    -------
    Path
        A folder that was looked through.

    Raises
    ------
    InputError
        If it is nowhere, or names code to be loaded.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _checked(folder, "fetch the model again")
    for place in _fetched(source, save_path, fetch):
        if all((place / name).is_file() for name in _FILES):
            return _checked(place, "fetch the model again")
    raise InputError(
        f"source: {quoted(source)} is the pre-trained encoder of this run, is "
        "not on this machine, and is not fetched without being asked. If you "
        "trust the run: `hf download "
        f"{source[:100]} {' '.join(_FILES)}`, or trust=True in Python."
    )


def described(architecture: Architecture, backbone: Path | None) -> list[Any]:
    """All plain data that a model is built from."""
    found: list[Any] = [architecture.tree]
    if backbone is not None:
        found += [read_json(backbone / name, WAY_OUT) for name in _FILES]
    return found


def _fetched(source: str, save_path: str | None, fetch: bool) -> list[Path]:
    """Folders of the hub's caches; nothing is fetched without being asked."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return []
    asked = [(save_path, True), (None, True)]
    # Not to where the YAML says: that may be anywhere.
    asked += [(None, False)] if fetch else []
    found = []
    for place, local in asked:
        # Of a dozen kinds: no such name, not here, no network.
        with suppress(Exception):
            found.append(
                snapshot_download(
                    source,
                    cache_dir=place,
                    allow_patterns=list(_FILES),
                    local_files_only=local,
                )
            )
    return list(map(Path, found))


def _checked(place: Path, remedy: str) -> Path:
    for name in _FILES:
        path = place / name
        for key in read_json(path, remedy):
            if key == "auto_map" or "implementation" in key:
                raise InputError(
                    f"{path}, key {key}: names code to be loaded, which is "
                    "never done; remove it if you trust the rest."
                )
    return place
