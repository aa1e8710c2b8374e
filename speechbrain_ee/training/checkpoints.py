"""Checkpoints that count only once they are complete.

A folder is a checkpoint if it holds ``CKPT.yaml``. SpeechBrain writes that
file first, so that a half-written folder is taken for the newest checkpoint
and cannot be loaded; here it gets its name last, when everything else has
reached the disk. It lists the files of the checkpoint and their sizes, so
that a folder which was half deleted or half copied is told from a whole one,
and carries a fingerprint of what gives the weights their meaning (see
:mod:`speechbrain_ee.training.finished_run`).

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from speechbrain.utils import checkpoints
from speechbrain.utils.checkpoints import Checkpoint
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.training.finished_run import (
    FINGERPRINT,
    UNCHECKED,
    check_fingerprint,
)

logger = logging.getLogger(__name__)

Rank = Callable[[Checkpoint], float]

FILES = "files"  # key of CKPT.yaml: file name -> size in bytes
# How torch.save says, in a RuntimeError, that a file cannot be written.
NOT_WRITTEN = re.compile("inline_container|StreamWriter|Parent directory")
# How torch says that a state is one of another model or optimiser.
OTHER_STATE = re.compile("state_dict|parameter group")
_WAY_OUT = (
    "train in a new output_folder, or go back to the values of the training"
)
_NOT_ITS_YAML = (
    "; if hyperparams.yaml, from which these are taken, is not that of the "
    "training, remove it"
)
BYTES_PER_MB = 10**6


class AtomicCheckpointer(checkpoints.Checkpointer):
    """SpeechBrain's checkpointer, safe against kills and full disks.

    Arguments
    ---------
    *args, **kwargs
        As for :class:`speechbrain.utils.checkpoints.Checkpointer`.

    Example
    -------
    >>> import torch
    >>> folder = getfixture("tmp_path")
    >>> saver = AtomicCheckpointer(folder, {"net": torch.nn.Linear(1, 1)})
    >>> saved = saver.save_checkpoint(meta={"WER": 12.5})
    >>> saver.find_checkpoint(min_key="WER").path == saved.path
    True
    >>> (saved.path / "net.ckpt").unlink()
    >>> saver.list_checkpoints()
    []
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._reported: set[Path] = set()
        self._fingerprint: dict[str, str] = {}
        self._assumed: dict[str, str] = {}

    def expect(
        self,
        fingerprint: Mapping[str, str],
        assumed: Mapping[str, str] | None = None,
    ) -> None:
        """Say what gives the weights of this run their meaning.

        From then on, checkpoints carry it, and those of another meaning are
        refused, whoever asks for them.

        Arguments
        ---------
        fingerprint : mapping of str to str
            Further keys of the run's fingerprint.
        assumed : mapping of str to str, optional
            What is taken for the fingerprint of checkpoints that carry none,
            as those of earlier versions.

        Raises
        ------
        InputError
            If a checkpoint that is there carries another one.
        """
        self._fingerprint |= fingerprint
        self._assumed |= assumed or {}
        self.list_checkpoints()

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> Checkpoint | None:
        """As SpeechBrain's; the checkpoint appears when it is complete.

        Arguments
        ---------
        *args, **kwargs
            As for SpeechBrain's.

        Returns
        -------
        Checkpoint or None
            None in all processes but the main one.

        Raises
        ------
        InputError
            If it cannot be written, for example because the disk is full.
            Those before it stay as they are.
        """
        try:
            saved = super().save_checkpoint(*args, **kwargs)
            ddp_barrier()  # every process has written its part
            if if_main_process():
                _complete(saved)
        except (OSError, RuntimeError) as error:
            disk = isinstance(error, OSError) or NOT_WRITTEN.search(str(error))
            if not disk:
                raise
            raise self._not_saved(error) from error
        return saved

    def list_checkpoints(self) -> list[Checkpoint]:
        """Those that are complete.

        Returns
        -------
        list of Checkpoint
            Of a checkpoint that was saved without a list of its files,
            ``CKPT.yaml`` is what counts.
        """
        listed = []
        for checkpoint in super().list_checkpoints():
            wrong = _wrong_files(checkpoint)
            if not wrong:
                self._check_meaning(checkpoint)
                listed.append(checkpoint)
            elif checkpoint.path not in self._reported:
                self._reported.add(checkpoint.path)
                logger.warning(
                    "%s is no complete checkpoint and is not used: %s "
                    "missing or of another size. It may be deleted.",
                    checkpoint.path,
                    ", ".join(wrong),
                )
        return listed

    def delete_checkpoints(
        self,
        *,
        num_to_keep: int = 1,
        min_keys: Sequence[str] | None = None,
        max_keys: Sequence[str] | None = None,
        importance_keys: Sequence[Rank] = (checkpoints.ckpt_recency,),
        ckpt_predicate: Callable[[Checkpoint], bool] | None = None,
        verbosity: int = logging.INFO,
    ) -> None:
        """Delete all but the best by each of some orders, as SpeechBrain's.

        A checkpoint stops being one before its first file is deleted.

        Arguments
        ---------
        num_to_keep : int
            How many are kept of each order.
        min_keys, max_keys : sequence of str, optional
            Numbers saved with the checkpoints, of which the lowest or the
            highest are the best.
        importance_keys : sequence of callable
            Functions of a checkpoint; the highest is the best.
        ckpt_predicate : callable, optional
            Says which checkpoints may be deleted.
        verbosity : int
            Level of the log.
        """
        # SpeechBrain appends to its default list in every call.
        orders = [{"importance_key": key} for key in {*importance_keys}]
        orders += [{"min_key": key} for key in min_keys or ()]
        orders += [{"max_key": key} for key in max_keys or ()]
        ranked = [
            self.find_checkpoints(ckpt_predicate=ckpt_predicate, **order)
            for order in orders
        ]
        kept = {each.path for rank in ranked for each in rank[:num_to_keep]}
        paths = {each.path for rank in ranked for each in rank} - kept
        ddp_barrier()  # every process has looked
        for path in sorted(paths) if if_main_process() else ():
            final = path / checkpoints.METAFNAME
            os.replace(final, _unfinished(final))
            shutil.rmtree(path)
            logger.log(verbosity, "Deleted checkpoint in %s", path)
        ddp_barrier()

    def recover_if_possible(
        self, *args: Any, **kwargs: Any
    ) -> Checkpoint | None:
        """As SpeechBrain's; removes what a killed run has left half-written."""
        self._remove_unfinished()
        return super().recover_if_possible(*args, **kwargs)

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """As SpeechBrain's, with errors that name the file and the way out.

        Arguments
        ---------
        checkpoint : Checkpoint
            The one to load.

        Raises
        ------
        InputError
            If it lacks something that this run has, or cannot be read. What
            torch says about a state of another shape is raised as it is.
        """
        lacking = [
            f"{name}{checkpoints.PARAMFILE_EXT}"
            for name in self.recoverables
            if name not in checkpoint.paramfiles and self._is_needed(name)
        ]
        if lacking:
            raise InputError(
                f"{checkpoint.path}: this checkpoint holds no "
                f"{' and no '.join(lacking)}; it was saved by a run of another "
                "YAML or of other code. Train in a new output_folder, or go "
                "back to what it was saved by."
            )
        try:
            super().load_checkpoint(checkpoint)
        except InputError:
            raise
        # A damaged file can raise anything.
        except Exception as error:
            if OTHER_STATE.search(str(error)):
                raise
            raise InputError(
                f"{checkpoint.path}: this checkpoint cannot be read "
                f"({one_line(error)}); it is damaged, or was saved by other "
                "code. Delete this folder to go on from the checkpoint before "
                "it, or train in a new output_folder."
            ) from error

    def _check_meaning(self, checkpoint: Checkpoint) -> None:
        if not self._fingerprint:
            return
        carried, way_out = checkpoint.meta.get(FINGERPRINT), _WAY_OUT
        if not carried:
            carried, way_out = self._assumed, f"{_WAY_OUT}{_NOT_ITS_YAML}"
            if self.checkpoints_dir not in self._reported:
                logger.warning(UNCHECKED, self.checkpoints_dir)
                self._reported.add(self.checkpoints_dir)
        check_fingerprint(
            self.checkpoints_dir, carried, self._fingerprint, way_out
        )

    def _is_needed(self, name: str) -> bool:
        # SpeechBrain does without the state of a data loader.
        optional = self.optional_recoverables.get(name, False)
        return not (optional or self.allow_partial_load or "dataloader" in name)

    def _save_checkpoint_metafile(
        self,
        fpath: Path,
        meta_to_include: dict[str, Any] | None = None,
        end_of_epoch: bool = True,
    ) -> dict[str, Any]:
        # The newest checkpoint is the one with the latest time, and the clock
        # of the node that goes on with a run may be behind.
        times = [ckpt.meta["unixtime"] for ckpt in self.list_checkpoints()]
        now = max([time.time(), *(known + 0.001 for known in times)])
        meta = {"unixtime": now, **(meta_to_include or {})}
        if self._fingerprint:
            meta[FINGERPRINT] = dict(self._fingerprint)
        return super()._save_checkpoint_metafile(
            _unfinished(fpath), meta, end_of_epoch
        )

    def _not_saved(self, error: Exception) -> InputError:
        """What to say; makes room by removing the part that was written."""
        cause = getattr(error, "strerror", None) or "not all could be written"
        with suppress(OSError):
            self._remove_unfinished()
            free = shutil.disk_usage(self.checkpoints_dir).free
            cause = f"{cause}; {free // BYTES_PER_MB} MB are free there now"
        newest = self.find_checkpoint()
        start = "the beginning: there is none yet"
        if newest is not None:
            start = f"the last complete one, {newest.path.name}"
        return InputError(
            f"{self.checkpoints_dir}: a checkpoint could not be saved "
            f"({cause}). Make room or raise the quota, or lower "
            "keep_checkpoints, and start the same command again; it goes on "
            f"from {start}."
        )

    def _remove_unfinished(self) -> None:
        if not if_main_process():
            return
        for folder in self.checkpoints_dir.glob(f"{checkpoints.CKPT_PREFIX}+*"):
            if folder.is_dir() and _is_unfinished(folder):
                logger.info("%s was not finished: removed", folder)
                shutil.rmtree(folder, ignore_errors=True)


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
        Best first; empty if there is no complete one of a whole epoch.
    """
    # A checkpointer would make a folder that is not there.
    if not any(save_folder.glob(f"*/{checkpoints.METAFNAME}")):
        return []
    return AtomicCheckpointer(save_folder).find_checkpoints(
        min_key="WER", max_num_checkpoints=average
    )


def _is_unfinished(folder: Path) -> bool:
    """Whether it holds what a killed save or deletion leaves, and no more."""
    meta = _unfinished(folder / checkpoints.METAFNAME)
    return all(
        path == meta or path.suffix == checkpoints.PARAMFILE_EXT
        for path in folder.iterdir()
    )


def _complete(saved: Checkpoint) -> None:
    """Declare a checkpoint complete, once it has reached the disk."""
    files = [path for path in saved.paramfiles.values() if path.exists()]
    sizes = {path.name: path.stat().st_size for path in files}
    final = saved.path / checkpoints.METAFNAME
    temporary = _unfinished(final)
    text = yaml.safe_dump({**saved.meta, FILES: sizes})
    temporary.write_text(f"# yamllint disable\n{text}", "utf-8")
    for path in (*files, temporary):
        _sync(path)
    os.replace(temporary, final)
    with suppress(OSError):  # not every file system can
        _sync(saved.path)


def _sync(path: Path) -> None:
    """Have the disk, not only its cache, hold a file; or hear why not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _wrong_files(checkpoint: Checkpoint) -> list[str]:
    """Files of a checkpoint that are not what they were when it was saved."""
    wrong = []
    for name, size in checkpoint.meta.get(FILES, {}).items():
        try:
            right = (checkpoint.path / name).stat().st_size == size
        except OSError:
            right = False
        if not right:
            wrong.append(name)
    return wrong


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.unfinished")
