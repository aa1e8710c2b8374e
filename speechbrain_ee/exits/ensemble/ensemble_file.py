"""The weights of a combination of exits as a file, and what they must be.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.files import read_json, whole_file

SCHEMA = "exit-weights/1"
SCHEMAS = (SCHEMA, "exit-combination/1")  # what earlier versions wrote
POOLINGS = ("log_linear", "linear")
FIELDS = ("weights", "pooling", "exit_layers")
SUM_TOLERANCE = 1e-5


def check_pooling(pooling: str) -> None:
    """Refuse an unknown kind of average.

    Arguments
    ---------
    pooling : str
        One of ``POOLINGS``.

    Raises
    ------
    InputError
        If it is none of them.
    """
    if pooling not in POOLINGS:
        raise InputError(
            f"pooling: {pooling!r} is unknown; use one of "
            f"{', '.join(POOLINGS)}."
        )


def check_rows(weights: Any) -> tuple[tuple[float, ...], ...]:
    """The rows of a lower triangle, without the zeros above the diagonal.

    Arguments
    ---------
    weights : sequence of sequences of float
        Row k weighs exits 1 to k.

    Returns
    -------
    tuple of tuple of float
        Row k has k entries.

    Raises
    ------
    InputError
        If they are anything else, with the row.

    Example
    -------
    >>> check_rows([[1, 0], [0.5, 0.5]])
    ((1.0,), (0.5, 0.5))
    """
    if not _is_list(weights) or not len(weights):
        raise InputError(
            f"weights: {weights!r} is no list of rows, such as "
            f"[[1], [0.5, 0.5]]."
        )
    return tuple(_row(exit, row) for exit, row in enumerate(weights, 1))


def check_layers(layers: Any, rows: int) -> tuple[int, ...]:
    """The layers that rows of weights belong to.

    Arguments
    ---------
    layers : sequence of int
        Increasing.
    rows : int
        How many there must be.

    Returns
    -------
    tuple of int

    Raises
    ------
    InputError
        If they are no such list.
    """
    whole = _is_list(layers) and all(type(layer) is int for layer in layers)
    if not whole or list(layers) != sorted(set(layers)):
        raise InputError(
            f"exit_layers: {layers!r} is no list of increasing layers, such "
            f"as [2, 4, 6]."
        )
    if len(layers) != rows:
        raise InputError(
            f"exit_layers: {list(layers)} are {len(layers)} exits, but "
            f"weights has {rows} rows; give one row per exit."
        )
    return tuple(layers)


def write_fields(
    path: str | Path,
    weights: Sequence[Sequence[float]],
    pooling: str,
    exit_layers: Sequence[int] | None,
) -> None:
    """Write weights, whole or not at all, one row per line.

    Arguments
    ---------
    path : str or Path
        The file.
    weights : sequence of sequences of float
        The rows.
    pooling : str
        How they average.
    exit_layers : sequence of int, optional
        The exits that they belong to.
    """
    rows = ",\n  ".join(json.dumps(list(row)) for row in weights)
    layers = None if exit_layers is None else list(exit_layers)
    text = (
        f'{{\n "schema": {json.dumps(SCHEMA)},\n'
        f' "pooling": {json.dumps(pooling)},\n'
        f' "exit_layers": {json.dumps(layers)},\n'
        f' "weights": [\n  {rows}\n ]\n}}\n'
    )
    with whole_file(Path(path)) as stream:
        stream.write(text.encode())


def read_fields(path: str | Path) -> dict[str, Any]:
    """Read weights that :func:`write_fields` wrote.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    dict
        ``weights``, ``pooling`` and ``exit_layers``, their values not yet
        checked.

    Raises
    ------
    InputError
        With file and field, if it is no such file.
    """
    content = read_json(
        path, "name a JSON file of weights to read, with their schema"
    )
    schema = content.pop("schema", None)
    if schema not in SCHEMAS:
        raise InputError(
            f"{path}: schema: {quoted(schema)} is not {SCHEMA!r}; this is no file "
            f"of weights, or one of another version."
        )
    wrong = sorted(set(content) ^ set(FIELDS))
    if wrong:
        raise InputError(
            f"{path}: unknown or missing: {', '.join(wrong)[:200]}; the fields are "
            f"schema, {', '.join(FIELDS)}."
        )
    return content


def _row(exit: int, row: Any) -> tuple[float, ...]:
    if not _is_list(row) or not all(map(_is_number, row)):
        raise InputError(
            f"weights, row {exit}: {quoted(row)} is no list of numbers."
        )
    values = [float(value) for value in row]
    if len(values) < exit or any(values[exit:]):
        raise InputError(
            f"weights, row {exit}: {values} must weigh exits 1 to {exit} and "
            f"none after them; give {exit} numbers."
        )
    values = values[:exit]
    total = math.fsum(values)
    if min(values) < 0 or abs(total - 1) > SUM_TOLERANCE:
        raise InputError(
            f"weights, row {exit}: {values} must not be negative and must "
            f"sum to 1 (the sum is {total:g})."
        )
    return tuple(values)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
