"""The output folder of a finished run: its checkpoints and its model.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import ruamel.yaml
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.checkpoints import (
    METAFNAME,
    Checkpoint,
    Checkpointer,
    average_checkpoints,
)
from torch import Tensor


def moved_save_folder(
    folder: Path, save_folder: str, output_folder: str
) -> Path:
    """Where the checkpoints are, also of a folder that was moved.

    Arguments
    ---------
    folder : Path
        The output folder as it is now.
    save_folder, output_folder : str
        What the run's YAML says.

    Returns
    -------
    Path
    """
    saved = Path(save_folder)
    try:
        return folder / saved.relative_to(output_folder)
    except ValueError:
        return saved


def best_checkpoints(save_folder: Path, average: int) -> list[Checkpoint]:
    """The checkpoints that evaluation averages.

    Arguments
    ---------
    save_folder : Path
        Where they are.
    average : int
        How many.

    Returns
    -------
    list of Checkpoint
        Best first; empty if there is none of a whole epoch.
    """
    # SpeechBrain's checkpointer would make a folder that is not there.
    if not any(save_folder.glob(f"*/{METAFNAME}")):
        return []
    return Checkpointer(save_folder).find_checkpoints(
        min_key="WER", max_num_checkpoints=average
    )


def averaged_weights(checkpoints: Sequence[Checkpoint]) -> dict[str, Tensor]:
    """The average of the models, read without executing anything.

    Arguments
    ---------
    checkpoints : sequence of Checkpoint
        At least one.

    Returns
    -------
    dict of str to torch.Tensor
        Parameters and buffers by name.
    """
    return average_checkpoints(
        checkpoints,
        recoverable_name="model",
        parameter_loader=partial(torch.load, weights_only=True),
    )


def build_model(tree: Any) -> Any:
    """The model of a YAML alone: a checkpointer, say, would make its folder.

    It executes what the YAML says of the model, and may raise anything.

    Arguments
    ---------
    tree : mapping
        What ruamel.yaml read, tags included.

    Returns
    -------
    object
        What stands at ``modules: model``.
    """
    text = StringIO()
    ruamel.yaml.YAML().dump({"model": tree["modules"]["model"]}, text)
    return load_hyperpyyaml(text.getvalue())["model"]
