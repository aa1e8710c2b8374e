"""Where a recogniser comes from: a folder, the hub, a training run.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from pathlib import Path

from speechbrain_ee.inference.folder.hub import fetch_folder
from speechbrain_ee.inference.folder.model_folder import (
    CONFIG_FILE,
    ModelFolder,
    read_model_folder,
)
from speechbrain_ee.inference.folder.training_run import run_folder

logger = logging.getLogger(__name__)

RUN = "hyperparams.yaml"


def open_source(
    source: str | Path,
    savedir: str | Path | None = None,
    trust: bool = False,
) -> ModelFolder:
    """Load a model from wherever it is.

    Arguments
    ---------
    source : str or Path
        An inference folder, its name on the hub, or the output folder of a
        training run.
    savedir : str or Path, optional
        Where what is fetched from the hub is kept.
    trust : bool
        Allow a run's ``hyperparams.yaml`` to be executed, where its model
        has classes of the user's own, and what it names to be fetched.

    Returns
    -------
    ModelFolder

    Raises
    ------
    InputError
        If there is no such folder, or it has to be trusted and is not.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = fetch_folder(str(source), savedir)
    if (folder / CONFIG_FILE).is_file() or not (folder / RUN).is_file():
        return read_model_folder(folder)
    if trust:
        logger.warning(
            "%s: what its %s says may be executed; do this with folders "
            "that you trust only.",
            folder,
            RUN,
        )
    # Read as plain data, too, as far as that goes.
    return run_folder(folder, trust=trust)
