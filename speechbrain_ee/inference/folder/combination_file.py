"""A combination of criteria as a file, schema ``exit-combination/1``.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
from pathlib import Path

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.files import check_keys, read_json, whole_file
from speechbrain_ee.inference.folder.architecture import WAY_OUT

SCHEMA = "exit-combination/1"
_KEYS = ("weights", "means", "scales")


def write_combination(path: str | Path, combination: ZScores) -> None:
    """Write a combination whole or not at all.

    Arguments
    ---------
    path : str or Path
        Target, usually ``combination.json``.
    combination : ZScores
        What to write.

    Raises
    ------
    InputError
        If the target cannot be written.
    """
    content = {"schema": SCHEMA}
    content |= {key: dict(getattr(combination, key)) for key in _KEYS}
    with whole_file(Path(path)) as stream:
        stream.write(f"{json.dumps(content, indent=2)}\n".encode())


def read_combination(path: str | Path) -> ZScores:
    """Read a combination and check it.

    Arguments
    ---------
    path : str or Path
        A file of :func:`write_combination`.

    Returns
    -------
    ZScores

    Raises
    ------
    InputError
        With file and key, if the file is missing, damaged or malformed.
    """
    path = Path(path)
    content = read_json(path, WAY_OUT)
    check_keys(content, SCHEMA, _KEYS, path, WAY_OUT)
    parts = [content[key] for key in _KEYS]
    if not all(isinstance(part, dict) for part in parts):
        parts = [{"": None}]
    values = [value for part in parts for value in part.values()]
    same = len({tuple(sorted(part)) for part in parts}) == 1
    if not same or not all(type(value) in (int, float) for value in values):
        raise InputError(
            f"{path}, {', '.join(_KEYS)}: a number by criterion is expected; "
            f"{WAY_OUT}."
        )
    return ZScores(*parts)
