"""One JSON object as a compressed file, with a schema that is checked.

Authors
 * The speechbrain-ee contributors 2026
"""

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.trace_io import whole_file


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write an object whole or not at all; equal content, equal bytes.

    Arguments
    ---------
    path : str or Path
        Target, usually ``….json.gz``; compressed whatever its name.
    content : mapping
        What to write.

    Raises
    ------
    InputError
        If the target cannot be written.
    """
    text = json.dumps(content, ensure_ascii=False, indent=0, allow_nan=False)
    with whole_file(Path(path)) as raw:
        # No name and no time in gzip's header: bytes follow the content.
        with gzip.GzipFile("", "wb", 9, fileobj=raw, mtime=0) as stream:
            stream.write((text + "\n").encode())


def read_json(
    path: str | Path, schema: str, keys: Sequence[str], remedy: str
) -> dict[str, Any]:
    """Read an object and check its schema and keys.

    Arguments
    ---------
    path : str or Path
        A file of :func:`write_json`.
    schema : str
        What its ``schema`` must be.
    keys : sequence of str
        All other keys that it must have.
    remedy : str
        The way out, for messages.

    Returns
    -------
    dict
        Without the schema.

    Raises
    ------
    InputError
        With file and key, if the file is missing, cut or malformed.
    """
    content = _load(Path(path), remedy)
    found = content.pop("schema", None)
    if found != schema:
        raise InputError(
            f"{path}: schema is {found!r}, not {schema!r}; {remedy}."
        )
    for key in content:
        if key not in keys:
            raise InputError(
                f"{path}: {key} is not known; valid keys: "
                f"schema, {', '.join(keys)}; {remedy}."
            )
    for key in keys:
        if key not in content:
            raise InputError(f"{path}: {key} is missing; {remedy}.")
    return content


def _load(path: Path, remedy: str) -> dict[str, Any]:
    try:
        with gzip.open(path, "rb") as stream:
            text = stream.read().decode()
        content = json.loads(text, parse_constant=_not_a_number)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; {remedy}.") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(
            f"{path}: not a whole file of its kind ({error}); {remedy}."
        ) from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: holds a {type(content).__name__}, not an object; "
            f"{remedy}."
        )
    return content


def _not_a_number(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no number")
