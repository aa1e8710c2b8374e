"""The configuration of a pre-trained encoder in an inference folder.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
from pathlib import Path
from typing import Any

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.trace_io import whole_file
from speechbrain_ee.inference.folder.config import read_plain_json
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
    for name in _FILES:
        path = folder / BACKBONE_FOLDER / name
        if "auto_map" in read_plain_json(path):
            raise InputError(
                f"{path}, key auto_map: names code to be loaded, which is "
                "never done; remove it if you trust the rest."
            )
    return folder / BACKBONE_FOLDER
