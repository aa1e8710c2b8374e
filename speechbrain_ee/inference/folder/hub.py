"""Inference folders on a hub: publish one, fetch one.

The package huggingface_hub is optional, and asked for when it is needed.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.folder import model_folder
from speechbrain_ee.inference.folder.architecture import BACKBONE_FOLDER
from speechbrain_ee.training.checkpoints import POLICY_FOLDER

# What an inference folder holds. Pickles and code are not even fetched.
FILES = (
    *model_folder.FILES,
    f"{POLICY_FOLDER}/*.yaml",
    f"{BACKBONE_FOLDER}/*.json",
)


def push_to_hub(folder: str | Path, repo_id: str, private: bool = False) -> str:
    """Publish a folder under the account that is logged in, and say where.

    It is read first, so that nothing broken is published.
    """
    model_folder.read_model_folder(folder)
    _check_name(repo_id)
    with _hub(
        "could not be published",
        "check the name, the connection, and that you are logged in (`hf "
        "auth login`)",
        f"{repo_id}:",
    ) as hub:
        hub.create_repo(repo_id, private=private, exist_ok=True)
        found = hub.upload_folder(
            repo_id=repo_id,
            folder_path=str(folder),
            allow_patterns=list(FILES),
        )
    return str(found)


def fetch_folder(repo_id: str, savedir: str | Path | None = None) -> Path:
    """Fetch a folder, not read yet; files of no other kind come with it.

    It is kept in ``savedir``, by default in the hub's own cache.
    """
    _check_name(repo_id)
    with _hub(
        "is no folder, and could not be had from the hub",
        "check the name and the connection",
        f"source: {repo_id}",
    ) as hub:
        found = hub.snapshot_download(
            repo_id,
            local_dir=None if savedir is None else str(savedir),
            allow_patterns=list(FILES),
        )
    return Path(found)


def _check_name(repo_id: str) -> None:
    if repo_id.startswith((".", "/", "~")) or repo_id.count("/") != 1:
        raise InputError(
            f"{repo_id}: is no folder, and no hub name has that form; give an "
            "inference folder, or a name such as owner/model."
        )


@contextmanager
def _hub(problem: str, remedy: str, name: str) -> Iterator[Any]:
    """The hub's package, whose errors name what could not be done."""
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(
            "the hub needs the package huggingface_hub, which is not "
            f"installed or does not import ({error}): pip install "
            "huggingface_hub."
        ) from error
    try:
        yield hub
    except Exception as error:  # of a dozen kinds: network, names, rights
        short = " ".join(str(error).split()).partition(". ")[0][:200]
        raise InputError(f"{name} {problem} ({short}); {remedy}.") from error
