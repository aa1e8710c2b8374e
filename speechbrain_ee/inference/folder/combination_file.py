"""A combination of criteria as a file, schema ``exit-combination/1``.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import math
from pathlib import Path

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.zscores import ZScores
from speechbrain_ee.exits.trace_io import whole_file
from speechbrain_ee.inference.folder.config import read_plain_json

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
    content = read_plain_json(path)
    problem = None
    if content.get("schema") != SCHEMA:
        problem = f"schema: {content.get('schema')!r} is not {SCHEMA!r}"
    elif sorted(content) != sorted(("schema", *_KEYS)):
        problem = f"the keys are schema, {', '.join(_KEYS)}"
    else:
        parts = [content[key] for key in _KEYS]
        if not all(isinstance(part, dict) for part in parts):
            parts = [{"": None}]
        values = [value for part in parts for value in part.values()]
        same = len({tuple(sorted(part)) for part in parts}) == 1
        if not same or not all(map(_is_number, values)):
            problem = f"{', '.join(_KEYS)}: a number by criterion is expected"
    if problem is not None:
        raise InputError(
            f"{path}, {problem}; write the folder again with `python -m "
            "speechbrain_ee export`."
        )
    return ZScores(*(content[key] for key in _KEYS))


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
