"""Checkpoints that count only once they are complete.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
from pathlib import Path
from typing import Any

from speechbrain.utils import checkpoints
from speechbrain.utils.distributed import ddp_barrier, if_main_process


class AtomicCheckpointer(checkpoints.Checkpointer):
    """SpeechBrain's checkpointer, safe against a kill while saving.

    A folder is a checkpoint if it holds ``CKPT.yaml``. SpeechBrain writes
    that file first, so that a half-written folder is taken for the newest
    checkpoint and cannot be loaded; here it gets its name last.
    """

    def save_checkpoint(
        self, *args: Any, **kwargs: Any
    ) -> checkpoints.Checkpoint | None:
        """As SpeechBrain's; the checkpoint appears when it is complete."""
        saved = super().save_checkpoint(*args, **kwargs)
        ddp_barrier()  # every process has written its part
        if if_main_process():
            path = saved.path / checkpoints.METAFNAME
            os.replace(_unfinished(path), path)
        return saved

    def _save_checkpoint_metafile(
        self, fpath: Path, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        return super()._save_checkpoint_metafile(
            _unfinished(fpath), *args, **kwargs
        )


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.unfinished")
