"""Names and folders of splits, also of those in other corpora.

A split is the name of a folder in ``data_folder``, or a path to one in the
same layout elsewhere: absolute, or from ``data_folder``. The manifest of a
path is named after its last two folders, so that ``../digits/test`` is the
set ``digits-test`` and does not meet ``test``.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechbrain_ee.data.layout import LAYOUT, TRANSCRIPT_SUFFIX
from speechbrain_ee.errors import InputError

logger = logging.getLogger(__name__)


def split_folder(data_folder: Path, split: str) -> Path:
    """Where a split is, whether or not it exists."""
    if os.path.normpath(split or ".") in (".", "..", os.sep):
        raise InputError(
            f"tr_splits, dev_splits, te_splits: {split!r} is not the name of "
            "one folder, or a path to one; pass the folder above as "
            "data_folder."
        )
    folder = data_folder / os.path.expanduser(split)
    return Path(os.path.abspath(folder))


def is_elsewhere(split: str) -> bool:
    """Whether a split is given as a path."""
    return Path(os.path.normpath(split)).name != os.path.normpath(split)


def split_names(data_folder: Path, splits: Sequence[str]) -> dict[str, str]:
    """Names of the splits' manifests, without ``.csv``."""
    names: dict[str, str] = {}
    for split in splits:
        folder = split_folder(data_folder, split)
        name = folder.name
        if is_elsewhere(split):
            name = f"{folder.parent.name}-{name}".lstrip("-")
        for other, taken in names.items():
            if taken == name:
                raise InputError(
                    f"tr_splits, dev_splits, te_splits: {other!r} and "
                    f"{split!r} would both be written to {name}.csv; leave "
                    "one out, or link to it under another name."
                )
        names[split] = name
    return names


def dev_set_manifest(hparams: Mapping[str, Any]) -> str:
    """The manifest of the development set.

    It is that of ``dev_splits``, unless ``valid_csv`` names another: with
    ``skip_prep`` any, and where manifests are prepared one of these or one
    outside ``output_folder``.
    """
    given, output = hparams["valid_csv"], hparams["output_folder"]
    made = _made(hparams, "dev_splits")
    prepared = not hparams["skip_prep"]
    if given and not (prepared and _of_another_split(given, made, output)):
        return given
    if not made:
        raise InputError(
            "dev_splits: is empty, and valid_csv names no manifest outside "
            "output_folder; the best checkpoint is chosen and policies are "
            "calibrated on that set. Name a split, or pass --valid_csv=..."
        )
    if len(made) > 1:
        logger.warning(
            "dev_splits: the development set is %s; the other splits are "
            "prepared, and used by nothing.",
            made[0],
        )
    return made[0]


def test_set_manifests(hparams: Mapping[str, Any]) -> list[str]:
    """The manifests of all test sets.

    They are those of ``test_splits``, unless ``test_csv`` lists others. Where
    manifests are prepared, what ``test_csv`` lacks of them is added, and what
    it lists in ``output_folder`` of other splits is left out.
    """
    paths = _listed(hparams["test_csv"])
    if not hparams["skip_prep"] or hparams["test_csv"] is None:
        made, output = _made(hparams, "test_splits"), hparams["output_folder"]
        if made:
            paths = [
                path
                for path in paths
                if not _of_another_split(path, made, output)
            ]
        known = {Path(path).stem for path in paths}
        paths += [path for path in made if Path(path).stem not in known]
    stems = [Path(path).stem for path in paths]
    twice = [stem for stem in stems if stems.count(stem) > 1]
    if twice:
        raise InputError(
            f"test_csv: two manifests are named {twice[0]}.csv, and results "
            "are filed by that name; rename one."
        )
    if not paths:
        raise InputError(
            "test_splits, test_csv: both are empty; name at least one test set."
        )
    return paths


def _made(hparams: Mapping[str, Any], key: str) -> list[str]:
    """Where data preparation writes the manifests of some splits."""
    splits = _listed(hparams[key])
    if not splits:
        return []
    source = Path(os.path.expanduser(hparams["data_folder"])).absolute()
    names = split_names(source, splits).values()
    return [os.path.join(hparams["output_folder"], f"{n}.csv") for n in names]


def _of_another_split(path: str, made: Sequence[str], output: str) -> bool:
    """Is it in ``output_folder``, and none that is made there?"""
    stems = [Path(one).stem for one in made]
    return Path(path).parent == Path(output) and Path(path).stem not in stems


def _listed(names: str | Sequence[str] | None) -> list[str]:
    """A lone string is one name."""
    return [names] if isinstance(names, str) else list(names or ())


def find_split(data_folder: Path, split: str) -> Path:
    """The folder of a split, or an error that says where to look instead."""
    folder = split_folder(data_folder, split)
    if folder.is_dir():
        return folder
    if is_elsewhere(split):
        raise InputError(
            f"tr_splits, dev_splits, te_splits: {split!r} is the path "
            f"{folder}, where no folder is; paths are absolute or start "
            f"from data_folder, {data_folder}."
        )
    if not data_folder.is_dir():
        raise InputError(
            f"data_folder: {data_folder} is no folder; pass the one that "
            f"holds the splits ({LAYOUT})."
        )
    raise InputError(
        f"data_folder: {data_folder} has no split {split!r}; "
        f"{_where_else(data_folder, split)}."
    )


def _where_else(data_folder: Path, split: str) -> str:
    """What to pass instead of a data_folder without that split."""
    if (data_folder.parent / split).is_dir():
        return f"it lies one level up: pass data_folder={data_folder.parent}"
    below = sorted(path for path in data_folder.iterdir() if path.is_dir())
    for folder in below:
        if (folder / split).is_dir():
            return f"it lies one level down: pass data_folder={folder}"
    pattern = f"*/*/*{TRANSCRIPT_SUFFIX}"
    splits = [path.name for path in below if any(path.glob(pattern))]
    if splits:
        return f"the splits there are {', '.join(splits)}"
    for folder in below:
        if any(folder.glob(f"*/{pattern}")):
            return f"there are splits one level down: try {folder}"
    return f"no folder there has the expected layout {LAYOUT}"
