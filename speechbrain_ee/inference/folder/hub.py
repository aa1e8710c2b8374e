"""Inference folders on a hub: publish one, fetch one.

The package huggingface_hub is optional, and asked for when it is needed.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
from pathlib import Path
from types import ModuleType

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.folder.model_folder import read_model_folder

# What an inference folder holds. Pickles and code are not even fetched.
FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.model",
    "policies/*.yaml",
    "selector.json.gz",
    "combination.json",
    "calibration.jsonl.gz",
    "backbone/*.json",
    "README.md",
)


def push_to_hub(folder: str | Path, repo_id: str, private: bool = False) -> str:
    """Publish an inference folder under the account that is logged in."""
    read_model_folder(folder)
    _check_name(repo_id)
    hub = _library()
    try:
        hub.create_repo(repo_id, private=private, exist_ok=True)
        found = hub.upload_folder(
            repo_id=repo_id,
            folder_path=str(folder),
            allow_patterns=list(FILES),
        )
    except Exception as error:  # of a dozen kinds: network, names, rights
        raise InputError(
            f"{repo_id}: could not be published ({_short(error)}); check the "
            "name, the connection, and that you are logged in (`hf auth "
            "login`)."
        ) from error
    return str(found)


def fetch_folder(repo_id: str, savedir: str | Path | None = None) -> Path:
    """Fetch an inference folder; files of no other kind come with it."""
    _check_name(repo_id)
    hub = _library()
    try:
        found = hub.snapshot_download(
            repo_id,
            local_dir=None if savedir is None else str(savedir),
            allow_patterns=list(FILES),
        )
    except Exception as error:  # of a dozen kinds: network, names, files
        raise InputError(
            f"source: {repo_id} is no folder, and could not be had from the "
            f"hub ({_short(error)}); check the name and the connection."
        ) from error
    return Path(found)


def _check_name(repo_id: str) -> None:
    if repo_id.startswith((".", "/", "~")) or repo_id.count("/") != 1:
        raise InputError(
            f"{repo_id}: is no folder, and no hub name has that form; give an "
            "inference folder, or a name such as owner/model."
        )


def _library() -> ModuleType:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(
            "the hub needs the package huggingface_hub, which is not "
            f"installed or does not import ({error}): pip install "
            "huggingface_hub."
        ) from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0][:200]
